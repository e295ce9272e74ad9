// What may be spent on providers: held atomically before each call, settled to what the call cost after it.
import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAnswer } from '../after-answer.ts'
import { config } from '../config.ts'
import { KvError, kv } from '../kv.ts'
import { describeError, log } from '../log.ts'
import { alertOnRefusal, alertOnSpending } from './budget-alert.ts'
import { HOLD, heldIn, parseWindow, SETTLE } from './budget-script.ts'
import {
  type Budget,
  budgetOfKey,
  budgetsNow,
  budgetsOf,
  MONTH_MS,
  type PlannedCall,
  spentIn,
} from './budget-window.ts'

/** Held money; comes back by itself when nobody settles it within its lease. */
export interface BudgetHold {
  id: string
  /** The counters it was held in: a hold of yesterday is settled in yesterday's budget. */
  keys: string[]
  /** 0 for a call that is expected to be free: nothing is held then. */
  amountMicroUsd: number
}

export interface BudgetState {
  /** 'day', 'month', 'free-tier-day', 'gemini-day', … */
  name: string
  limitMicroUsd: number
  spentMicroUsd: number
  heldMicroUsd: number
}

/** How long a hold outlives the deadline of the call it was made for. */
const LEASE_MARGIN_MS = 30_000
/** Leases end at multiples of this, so that holds can be kept as a few sums. */
const LEASE_STEP_MS = 10_000
/** How long a hold is remembered after its lease, so that a late settle that is repeated counts once. */
const MARK_MARGIN_MS = 60 * 60_000
/** How long KV is believed before it is compared with the database, which knows what KV missed while it was away. */
const SEED_BELIEVED_MS = 60_000
/** When KV is told again what it did not take. */
const SETTLE_AGAIN_MS = [1_000, 5_000]
/** How long a settled call counts in this instance's memory: by then its row is in the database and was read. */
const OWN_SETTLED_MS = 15_000

/** The calls of this instance: what stands beside the database while KV is away. */
const own = new Map<string, { keys: string[]; amountMicroUsd: number; untilMs: number }>()
let minuteLogged: number | undefined

/**
 * Holds what a call is expected to cost in every budget it counts in, or in none; `refusedBy` names the one that is used up. One round
 * trip to KV, and once a minute a look into the database. With KV down the database and this instance's own calls decide; throws when
 * the database is down as well.
 */
export async function holdBudget(call: PlannedCall): Promise<{ hold: BudgetHold } | { refusedBy: string }> {
  const nowMs = Date.now()
  const budgets = budgetsOf(call, nowMs)
  const hold = {
    id: randomUUID(),
    keys: budgets.map(({ key }) => key),
    amountMicroUsd: Math.ceil(call.estimateMicroUsd),
  }
  if (hold.amountMicroUsd === 0 || budgets.length === 0) return { hold }
  const untilMs = Math.ceil((nowMs + config().ai.deadlineMs + LEASE_MARGIN_MS) / LEASE_STEP_MS) * LEASE_STEP_MS
  remember(hold, hold.amountMicroUsd, nowMs, untilMs)
  const refusal = await holdSomewhere(hold, budgets, nowMs, untilMs)
  if (!refusal) return { hold }
  await alertOnRefusal(refusal.budget, refusal.spentMicroUsd)
  return { refusedBy: refusal.budget.name }
}

/**
 * Turns a hold into what was spent; settling twice is settling once, and a lease that has ended changes nothing of it. Never throws:
 * where KV does not answer it is told again beside the answer, and what it never hears the next comparison with the database brings in.
 */
export async function settleBudget(hold: BudgetHold, costMicroUsd: number): Promise<void> {
  const cost = Math.round(costMicroUsd)
  if (hold.keys.length === 0 || (hold.amountMicroUsd === 0 && cost === 0)) return
  const nowMs = Date.now()
  remember(hold, cost, nowMs, nowMs + OWN_SETTLED_MS)
  try {
    await settleInKv(hold, cost)
  } catch (error) {
    logKvDown(error)
    await afterAnswer('budget_not_settled', () => settleLater(hold, cost))
  }
}

/** Every budget as it stands now. */
export async function budgetStates(): Promise<BudgetState[]> {
  const nowMs = Date.now()
  return await Promise.all(
    budgetsNow(nowMs).map(async (budget) => {
      const { name, key, limitMicroUsd } = budget
      const recorded = await spentIn(budget, nowMs)
      try {
        const text = await kv().get(key)
        if (text === null) return { name, limitMicroUsd, spentMicroUsd: recorded, heldMicroUsd: 0 }
        const state = parseWindow(text, nowMs)
        const { seededMs, spentMicroUsd: counted } = state
        const spentMicroUsd = seededMs === 0 ? counted + recorded : Math.max(counted, recorded)
        return { name, limitMicroUsd, spentMicroUsd, heldMicroUsd: heldIn(state) }
      } catch (error) {
        if (!(error instanceof KvError)) throw error
        return { name, limitMicroUsd, spentMicroUsd: recorded, heldMicroUsd: ownIn(key, nowMs) }
      }
    }),
  )
}

interface Refusal {
  budget: Budget
  spentMicroUsd: number
}

/** Undefined when the amount is held. The hold stands among this instance's own from before the first question until it is refused. */
async function holdSomewhere(hold: BudgetHold, budgets: Budget[], nowMs: number, untilMs: number) {
  try {
    const refusal = await holdInKv(hold, budgets, nowMs, untilMs)
    if (refusal) own.delete(hold.id)
    return refusal
  } catch (error) {
    if (!(error instanceof KvError)) {
      own.delete(hold.id)
      throw error
    }
    logKvDown(error)
    return await holdInMemory(hold, budgets, nowMs, untilMs)
  }
}

/** The script asks for seeds where a window is new, was lost or was not compared for a while. */
async function holdInKv(
  hold: BudgetHold,
  budgets: Budget[],
  nowMs: number,
  untilMs: number,
): Promise<Refusal | undefined> {
  const run = async (seeds: (number | '')[]) => {
    const terms = budgets.flatMap(({ limitMicroUsd }, index) => [limitMicroUsd, MONTH_MS, seeds[index] ?? ''])
    const markTtlMs = untilMs - nowMs + MARK_MARGIN_MS
    const common = [nowMs, untilMs, hold.amountMicroUsd, markTtlMs, nowMs - SEED_BELIEVED_MS]
    return String(await kv().run(HOLD, [markOf(hold), ...hold.keys], [...common, ...terms]))
  }
  let answer = await run([])
  if (answer === 'seed') answer = await run(await Promise.all(budgets.map((budget) => spentIn(budget, nowMs))))
  if (answer === 'held') return undefined
  const [, index, spent] = answer.split(' ')
  const budget = budgets[Number(index)]
  if (budget === undefined || spent === undefined) throw new Error(`The script of budgets answered "${answer}".`)
  return { budget, spentMicroUsd: Number(spent) }
}

/**
 * What holds while KV is away: what is on record and all calls of this instance, those included whose answer from KV is not there
 * yet. Other instances' calls that are not on record yet are not seen.
 */
async function holdInMemory(
  hold: BudgetHold,
  budgets: Budget[],
  nowMs: number,
  untilMs: number,
): Promise<Refusal | undefined> {
  const recorded = await Promise.all(budgets.map((budget) => spentIn(budget, nowMs))).finally(() => own.delete(hold.id))
  // From here on nothing waits, so that parallel calls of this instance cannot pass one another.
  const index = budgets.findIndex(({ key, limitMicroUsd }, at) => {
    return (recorded[at] ?? 0) + ownIn(key, nowMs) + hold.amountMicroUsd > limitMicroUsd
  })
  const budget = budgets[index]
  if (!budget) {
    remember(hold, hold.amountMicroUsd, nowMs, untilMs)
    return undefined
  }
  // KV may have held it, and only its answer was lost.
  await afterAnswer('budget_not_given_back', () => settleBudget(hold, 0))
  return { budget, spentMicroUsd: recorded[index] ?? 0 }
}

async function settleInKv(hold: BudgetHold, cost: number): Promise<void> {
  const markTtlMs = config().ai.deadlineMs + LEASE_MARGIN_MS + MARK_MARGIN_MS
  const ttls = hold.keys.map(() => MONTH_MS)
  const answer = await kv().run(SETTLE, [markOf(hold), ...hold.keys], [Date.now(), cost, markTtlMs, ...ttls])
  const spent = String(answer).split(' ').map(Number)
  for (const [index, key] of hold.keys.entries()) {
    const budget = budgetOfKey(key)
    if (budget) await alertOnSpending(budget, spent[index] ?? 0)
  }
}

async function settleLater(hold: BudgetHold, cost: number): Promise<void> {
  for (const waitMs of SETTLE_AGAIN_MS) {
    await pause(waitMs)
    try {
      return await settleInKv(hold, cost)
    } catch (error) {
      logKvDown(error)
    }
  }
}

/** Forgets from the oldest on, up to the first that still counts: the rest goes one lease later at the latest. */
function remember({ id, keys }: BudgetHold, amountMicroUsd: number, nowMs: number, untilMs: number): void {
  own.delete(id) // The map's order is the order of writing.
  own.set(id, { keys, amountMicroUsd, untilMs })
  for (const [oldest, call] of own) {
    if (call.untilMs > nowMs) break
    own.delete(oldest)
  }
}

function ownIn(key: string, nowMs: number): number {
  let sum = 0
  for (const { keys, amountMicroUsd, untilMs } of own.values()) {
    if (untilMs > nowMs && keys.includes(key)) sum += amountMicroUsd
  }
  return sum
}

function markOf({ id }: BudgetHold): string {
  return `budget-hold:${id}`
}

function logKvDown(error: unknown): void {
  const minute = Math.floor(Date.now() / 60_000)
  if (minuteLogged === minute) return
  minuteLogged = minute
  log('warn', 'budget_kv_down', { error: describeError(error) })
}
