// Tells the operator that a budget runs out: once per budget, window and level, whichever instance notices.
import { db } from '../../db/client.ts'
import { afterAnswer } from '../after-answer.ts'
import { env } from '../env.ts'
import { KvError, kv } from '../kv.ts'
import { log } from '../log.ts'
import { tell } from '../outgoing-webhooks.ts'
import { type Budget, MONTH_MS } from './budget-window.ts'

const LEVELS = [50, 80, 100]
const TOLD_MAX = 1_000

/** What this instance has told, so that it does not ask the stores again with every call. */
const told = new Set<string>()

/** Tells each level that the spending has reached; the work is done beside the answer. */
export async function alertOnSpending(budget: Budget, spentMicroUsd: number): Promise<void> {
  for (const percent of LEVELS) {
    const isReached = budget.limitMicroUsd > 0 && spentMicroUsd * 100 >= budget.limitMicroUsd * percent
    if (isReached) await alertOnce(budget, percent, spentMicroUsd)
  }
}

/** A call was refused: the budget counts as used up, whatever of it is only held. */
export async function alertOnRefusal(budget: Budget, spentMicroUsd: number): Promise<void> {
  await alertOnSpending(budget, spentMicroUsd)
  await alertOnce(budget, 100, spentMicroUsd)
}

async function alertOnce(budget: Budget, percent: number, spentMicroUsd: number): Promise<void> {
  const key = `budget.alert:${budget.name}:${budget.window}:${percent}`
  if (told.has(key)) return
  if (told.size >= TOLD_MAX) told.clear()
  told.add(key)
  await afterAnswer('budget_alert_failed', async () => {
    const data = {
      budget: budget.name,
      window: budget.window,
      percent,
      spentUsd: spentMicroUsd / 1e6,
      limitUsd: budget.limitMicroUsd / 1e6,
    }
    try {
      const isFirst = env().outgoingWebhook
        ? await tell(db(), { type: 'budget.alert', uniqueKey: key, data })
        : await isFirstInKv(key)
      if (isFirst) log('warn', 'budget_alert', data)
    } catch (error) {
      told.delete(key) // The next call tries again.
      throw error
    }
  })
}

/** With KV down each instance tells it by itself: twice is better than never. */
async function isFirstInKv(key: string): Promise<boolean> {
  try {
    return await kv().set(key, 'told', { ttlMs: MONTH_MS, ifAbsent: true })
  } catch (error) {
    if (error instanceof KvError) return true
    throw error
  }
}
