// Which budgets there are, the UTC day or month each runs in, and what the database knows to be spent there.
import { sql } from 'kysely'
import { db } from '../../db/client.ts'
import { config } from '../config.ts'

/** One budget in the window that runs now. */
export interface Budget {
  /** 'day', 'month', 'free-tier-day', 'gemini-day', … */
  name: string
  /** '2026-11-20' or '2026-11'. */
  window: string
  /** Of its counter in KV. */
  key: string
  limitMicroUsd: number
  /** The calls that count in it. */
  counts(call: { provider: string; freeTier: boolean }): boolean
}

export interface PlannedCall {
  provider: string
  estimateMicroUsd: number
  freeTier: boolean
}

/** Longer than any window, lease included. */
export const MONTH_MS = 33 * 86_400_000
/** How long a reading of the database serves for all budgets and all calls of this instance. */
const READING_BELIEVED_MS = 1_000

const KEY = /^budget:([\w-]+):([\d-]+)$/

/** Every budget that the config sets. */
export function budgetsNow(nowMs: number): Budget[] {
  const { dailyUsd, monthlyUsd, freeTierDailyUsd, providers } = config().ai.budgets
  const all = () => true
  return [
    budget('day', dailyUsd, nowMs, all),
    budget('month', monthlyUsd, nowMs, all),
    budget('free-tier-day', freeTierDailyUsd, nowMs, ({ freeTier }) => freeTier),
    ...Object.entries(providers).flatMap(([id, limits]) => {
      const counts: Budget['counts'] = ({ provider }) => provider === id
      return [
        budget(`${id}-day`, limits?.dailyUsd, nowMs, counts),
        budget(`${id}-month`, limits?.monthlyUsd, nowMs, counts),
      ]
    }),
  ].filter((one) => one !== undefined)
}

/** The budgets a call counts in. */
export function budgetsOf(call: PlannedCall, nowMs: number): Budget[] {
  return budgetsNow(nowMs).filter(({ counts }) => counts(call))
}

/** The budget that a counter belongs to, with the counter's own window; undefined when the config does not set it any more. */
export function budgetOfKey(key: string): Budget | undefined {
  const [, name, window = ''] = KEY.exec(key) ?? []
  const current = budgetsNow(Date.now()).find((one) => one.name === name)
  return current && { ...current, window, key }
}

function budget(
  name: string,
  limitUsd: number | undefined,
  nowMs: number,
  counts: Budget['counts'],
): Budget | undefined {
  if (limitUsd === undefined) return undefined
  const window = new Date(nowMs).toISOString().slice(0, isDaily(name) ? 10 : 7)
  return { name, window, key: `budget:${name}:${window}`, limitMicroUsd: Math.round(limitUsd * 1e6), counts }
}

function isDaily(name: string): boolean {
  return name.endsWith('day')
}

/** What the calls on record cost in the window that runs at `nowMs`, in micro-USD. */
export async function spentIn({ name, counts }: Budget, nowMs: number): Promise<number> {
  const rows = await readSums(nowMs)
  const counted = rows.filter(({ provider, free_tier }) => counts({ provider, freeTier: free_tier }))
  return counted.reduce((sum, row) => sum + (isDaily(name) ? row.day : row.month), 0)
}

interface Sums {
  provider: string
  free_tier: boolean
  day: number
  month: number
}

let reading: { day: string; startedMs: number; rows: Promise<Sums[]> } | undefined

/** One query for all budgets; calls that come while it runs, or right after, share its answer. */
async function readSums(nowMs: number): Promise<Sums[]> {
  const day = new Date(nowMs).toISOString().slice(0, 10)
  const isFresh = reading?.day === day && Math.abs(nowMs - reading.startedMs) < READING_BELIEVED_MS
  if (!reading || !isFresh) {
    const started = { day, startedMs: nowMs, rows: querySums(day) }
    reading = started
    started.rows.catch(() => {
      if (reading === started) reading = undefined
    })
  }
  return await reading.rows
}

async function querySums(day: string): Promise<Sums[]> {
  const dayStart = new Date(`${day}T00:00:00Z`)
  const monthStart = new Date(`${day.slice(0, 7)}-01T00:00:00Z`)
  const { rows } = await sql<Sums>`
    select provider, free_tier,
        coalesce(sum(cost_micro_usd) filter (where at >= ${dayStart}), 0)::bigint as day, sum(cost_micro_usd)::bigint as month
      from provider_calls where at >= ${monthStart} group by provider, free_tier
  `.execute(db())
  return rows
}
