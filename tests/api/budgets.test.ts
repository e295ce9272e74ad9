// Budgets on the stores of every lane: atomic, in every window or in none, and never lost with the counters.
import { randomUUID } from 'node:crypto'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { type BudgetHold, budgetStates, holdBudget, settleBudget } from '../../lib/ai/budget.ts'
import { type KvScript, kv } from '../../lib/kv.ts'
import { startApp } from '../support/app.ts'

const IMAGE = 39_000
const FOR_10 = 390_000
const LEASE_MAX_MS = 60_000 + 30_000 + 10_000

let toolId: string
let month = 0

beforeAll(async () => {
  await startApp({
    FORK__AI__BUDGETS__DAILY_USD: '0.39',
    FORK__AI__BUDGETS__MONTHLY_USD: '0.9',
    FORK__AI__BUDGETS__FREE_TIER_DAILY_USD: '0.078',
    FORK__AI__BUDGETS__PROVIDERS__OPENAI__DAILY_USD: '0',
    FORK__AI__BUDGETS__PROVIDERS__STABILITY__MONTHLY_USD: '0.1',
  })
  const tool = { name: 'budgeted', description: 'A tool of this test', api_endpoint: 'builtin' }
  toolId = (await db().insertInto('tools').values(tool).returning('id').executeTakeFirstOrThrow()).id
  for (let again = 0; again < 2; again += 1) await settleBudget(await held({ amount: 1 }), 1) // KV knows the scripts now.
})

beforeEach(() => {
  month += 1 // Each test has a month of its own, and with it counters and rows of its own.
  vi.useFakeTimers({ toFake: ['Date'], now: new Date(Date.UTC(2031, month, 10, 12)) })
})

afterEach(() => {
  vi.useRealTimers()
})

const pass = (ms: number) => vi.setSystemTime(Date.now() + ms)

function hold(call: { provider?: string; amount?: number; freeTier?: boolean } = {}) {
  const { provider = 'gemini', amount = IMAGE, freeTier = false } = call
  return holdBudget({ provider, estimateMicroUsd: amount, freeTier })
}

async function held(call?: Parameters<typeof hold>[0]): Promise<BudgetHold> {
  const answer = await hold(call)
  if ('refusedBy' in answer) throw new Error(`Refused by ${answer.refusedBy}.`)
  return answer.hold
}

/** Micro-USD spent and held, as the operator sees them. */
async function stateOf(name: string) {
  const state = (await budgetStates()).find((one) => one.name === name)
  return state && [state.spentMicroUsd, state.heldMicroUsd]
}

/** A call on record, as the ledger writes it when a run ends. */
async function recordedCall(costMicroUsd: number, { provider = 'gemini', freeTier = false, at = new Date() } = {}) {
  const row = { request_id: randomUUID(), tool_id: toolId, provider, outcome: 'ok', duration_ms: 1, at }
  await db()
    .insertInto('provider_calls')
    .values({ ...row, cost_micro_usd: costMicroUsd, free_tier: freeTier })
    .execute()
}

/** What eviction does, or a restart of the store in memory. */
async function loseCounters(...keys: string[]) {
  const lose: KvScript = {
    lua: `for _, key in ipairs(KEYS) do redis.call('DEL', key) end return 'gone'`,
    memory: (entries, names) => {
      for (const name of names) entries.write(name, '', 0)
    },
  }
  await kv().run(lose, keys, [])
}

describe('a budget', () => {
  test('for 10 calls admits exactly 10 of 200 that ask at once', async () => {
    const answers = await Promise.all(Array.from({ length: 200 }, () => hold()))
    const admitted = answers.flatMap((answer) => ('hold' in answer ? [answer.hold] : []))
    expect(admitted).toHaveLength(10)
    expect(answers.filter((answer) => 'refusedBy' in answer && answer.refusedBy === 'day')).toHaveLength(190)
    await expect.poll(() => stateOf('day'), { timeout: 20_000 }).toEqual([0, FOR_10])
    await Promise.all(admitted.map((one) => settleBudget(one, IMAGE)))
    await expect.poll(() => stateOf('day'), { timeout: 20_000 }).toEqual([FOR_10, 0])
    expect(await hold({ amount: 1 })).toEqual({ refusedBy: 'day' })
  })

  test('may be spent to its last micro-dollar, and not one more', async () => {
    await held({ amount: FOR_10 - 1 })
    expect(await hold({ amount: 2 })).toEqual({ refusedBy: 'day' })
    await held({ amount: 1 })
    expect(await hold({ amount: 1 })).toEqual({ refusedBy: 'day' })
  })

  test('that refuses takes nothing out of the others', async () => {
    await held({ provider: 'stability', amount: 70_000 })
    expect(await hold({ provider: 'stability', amount: 40_000 })).toEqual({ refusedBy: 'stability-month' })
    expect(await stateOf('day')).toEqual([0, 70_000])
    expect(await stateOf('month')).toEqual([0, 70_000])
    expect(await stateOf('stability-month')).toEqual([0, 70_000])
  })

  test('of 0 refuses every call that costs anything, and no free one', async () => {
    expect(await hold({ provider: 'openai', amount: 1 })).toEqual({ refusedBy: 'openai-day' })
    await settleBudget(await held({ provider: 'openai', amount: 0 }), 0)
    await settleBudget(await held(), FOR_10 * 2)
    await held({ provider: 'sketch', amount: 0 })
  })

  test('of the free tier holds only those back who never paid', async () => {
    await held({ freeTier: true })
    await held({ freeTier: true })
    expect(await hold({ freeTier: true })).toEqual({ refusedBy: 'free-tier-day' })
    await held({ freeTier: false })
    expect(await stateOf('day')).toEqual([0, 3 * IMAGE])
  })

  test('of the day begins again at midnight UTC, that of the month does not', async () => {
    await settleBudget(await held({ amount: FOR_10 }), FOR_10)
    pass(86_400_000)
    await settleBudget(await held({ amount: FOR_10 }), FOR_10)
    pass(86_400_000)
    expect(await hold({ amount: FOR_10 })).toEqual({ refusedBy: 'month' })
    await held({ amount: 900_000 - 2 * FOR_10 })
  })
})

describe('a hold', () => {
  test('becomes what the call cost, more or less than was held', async () => {
    await settleBudget(await held(), 1_000)
    expect(await stateOf('day')).toEqual([1_000, 0])
    await settleBudget(await held(), 50_000)
    expect(await stateOf('day')).toEqual([51_000, 0])
  })

  test('is settled once, however often and with whatever it is repeated', async () => {
    const one = await held()
    await Promise.all([settleBudget(one, 10), settleBudget(one, 10), settleBudget(one, 10)])
    await settleBudget(one, 1_000_000)
    expect(await stateOf('day')).toEqual([10, 0])
  })

  test('that nobody settles comes back with the end of its lease', async () => {
    await held({ amount: FOR_10 })
    pass(60_000)
    expect(await hold()).toEqual({ refusedBy: 'day' })
    pass(LEASE_MAX_MS - 60_000)
    await held({ amount: FOR_10 })
    expect(await stateOf('day')).toEqual([0, FOR_10])
  })

  test('settled after its lease still counts what was spent, once', async () => {
    const late = await held()
    pass(LEASE_MAX_MS)
    const next = await held()
    await settleBudget(late, IMAGE)
    await settleBudget(late, IMAGE)
    expect(await stateOf('day')).toEqual([IMAGE, IMAGE])
    await settleBudget(next, IMAGE)
    expect(await stateOf('day')).toEqual([2 * IMAGE, 0])
  })

  test('made before midnight is settled in the day it was made in', async () => {
    vi.setSystemTime(new Date(Date.UTC(2031, month, 10, 23, 59, 59)))
    const one = await held()
    pass(2_000)
    await settleBudget(one, IMAGE)
    expect(await stateOf('day')).toEqual([0, 0])
    expect(await stateOf('month')).toEqual([IMAGE, 0])
    pass(-2_000)
    expect(await stateOf('day')).toEqual([IMAGE, 0])
  })
})

describe('the database', () => {
  test('says what was spent before KV began to count: of this day, month, provider and tier', async () => {
    const yesterday = new Date(Date.now() - 86_400_000)
    const lastMonth = new Date(Date.UTC(2031, month, 0, 23))
    await recordedCall(1_000)
    await recordedCall(200, { provider: 'stability', freeTier: true })
    await recordedCall(30, { provider: 'stability', at: yesterday })
    await recordedCall(500_000, { at: lastMonth })
    await held({ provider: 'stability', freeTier: true, amount: 4 })
    expect(await stateOf('day')).toEqual([1_200, 4])
    expect(await stateOf('month')).toEqual([1_230, 4])
    expect(await stateOf('free-tier-day')).toEqual([200, 4])
    expect(await stateOf('stability-month')).toEqual([230, 4])
  })

  test('keeps the day from being spent twice when the counters are lost', async () => {
    await settleBudget(await held({ amount: 300_000 }), 300_000)
    await recordedCall(300_000)
    pass(2_000)
    await loseCounters(...(await held({ amount: 1 })).keys)
    const answers = await Promise.all(Array.from({ length: 50 }, () => hold()))
    expect(answers.filter((answer) => 'hold' in answer)).toHaveLength(2)
    expect(await stateOf('day')).toEqual([300_000, 2 * IMAGE])
  })

  test('and calls in flight while the counters were lost are counted once each', async () => {
    const [settledBefore, settledAfter] = [await held(), await held()]
    await loseCounters(...settledBefore.keys)
    await settleBudget(settledBefore, 100) // Its row comes later than the seed.
    pass(2_000)
    const other = await held({ amount: 5 })
    await settleBudget(settledAfter, 20)
    await recordedCall(100)
    await recordedCall(20)
    pass(62_000)
    await settleBudget(other, 3)
    expect(await stateOf('day')).toEqual([123, 0])
    await held({ amount: 1 })
    expect(await stateOf('day')).toEqual([123, 1])
  })

  test('brings in within a minute what KV did not hear of', async () => {
    await held({ amount: 1 })
    await recordedCall(FOR_10)
    pass(2_000)
    expect(await stateOf('day')).toEqual([FOR_10, 1])
    pass(61_000)
    expect(await hold({ amount: 1 })).toEqual({ refusedBy: 'day' })
  })
})
