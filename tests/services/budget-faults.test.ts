// Budgets when things go wrong: a process killed between hold and settle, a store in memory that begins anew, and a dead KV.
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { budgetStates, holdBudget, settleBudget } from '../../lib/ai/budget.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, processImage, startApp } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { serviceUrls } from '../support/lane.ts'
import { leaveTokens } from '../support/money.ts'
import { startServer } from '../support/server.ts'
import { startUpstashRest, type UpstashRest } from '../support/upstash-rest.ts'

const IMAGE = 39_000
const DEADLINE_MS = 20_000
const LEASE_MAX_MS = DEADLINE_MS + 30_000 + 10_000

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let redis: UpstashRest
let ada: Account
let toolId: string

beforeAll(async () => {
  stub = await startGeminiStub()
  const token = randomUUID()
  redis = await startUpstashRest({ redisUrl: serviceUrls().redis, token, keyPrefix: `test:${token}:` })
  app = await startApp({
    KV_REST_API_URL: redis.url,
    KV_REST_API_TOKEN: token,
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    FORK__AI__PROVIDERS__GEMINI__COST_PER_IMAGE_USD: '0.039',
    FORK__AI__PROVIDER_TIMEOUT_MS: String(DEADLINE_MS),
    FORK__AI__DEADLINE_MS: String(DEADLINE_MS),
    FORK__AI__BUDGETS__DAILY_USD: '0.08',
    FORK__AI__BUDGETS__FREE_TIER_DAILY_USD: '0.08',
  })
  ada = await givenAccount()
  await leaveTokens(ada.id, 100_000)
  const tool = { name: 'budgeted', description: 'A tool of this test', api_endpoint: 'builtin' }
  toolId = (await db().insertInto('tools').values(tool).returning('id').executeTakeFirstOrThrow()).id
})

afterAll(async () => {
  await stub.close()
  await redis.close()
})

beforeEach(() => {
  stub.requests.length = 0
  stub.behave({ kind: 'ok' })
})

afterEach(() => {
  redis.down(false)
  vi.useRealTimers()
})

const setTime = (time: number) => vi.useFakeTimers({ toFake: ['Date'], now: time })
const hold = () => holdBudget({ provider: 'gemini', estimateMicroUsd: IMAGE, freeTier: false })
const generate = (where: App) => processImage(where, { ...ada, password: '' })
const stateOf = async (name: string) => (await budgetStates()).find((state) => state.name === name)

async function record(costMicroUsd: number, at: Date) {
  const row = { request_id: randomUUID(), tool_id: toolId, provider: 'gemini', outcome: 'ok', duration_ms: 1, at }
  await db()
    .insertInto('provider_calls')
    .values({ ...row, cost_micro_usd: costMicroUsd })
    .execute()
}

describe('a process', () => {
  test('killed between hold and settle gives the budget back with the end of the lease', async () => {
    const server = await startServer(app.stores)
    stub.behave({ kind: 'hang' })
    const hanging = Promise.allSettled([generate(server), generate(server)])
    await expect.poll(() => stub.requests.length, { timeout: 20_000 }).toBe(2)
    await server.kill()
    const killedAt = Date.now()
    await hanging
    expect(await stateOf('day')).toMatchObject({ spentMicroUsd: 0, heldMicroUsd: 2 * IMAGE })
    expect(await hold()).toEqual({ refusedBy: 'day' })

    setTime(killedAt + LEASE_MAX_MS)
    expect(await stateOf('day')).toMatchObject({ spentMicroUsd: 0, heldMicroUsd: 0 })
    const again = await hold()
    expect(again).toHaveProperty('hold')
    if ('hold' in again) await settleBudget(again.hold, 0)
  })

  test('that begins with an empty memory knows what its predecessor spent', async () => {
    expectErrorsInLog()
    const variables = { KV_REST_API_URL: '', KV_REST_API_TOKEN: '' }
    const first = await startServer(app.stores, variables)
    expect((await generate(first)).status).toBe(200)
    await first.kill()
    const second = await startServer(app.stores, variables)
    expect((await generate(second)).status).toBe(200)
    const third = await generate(second)
    expect([third.status, third.json.error.code]).toEqual([503, 'BUDGET_EXHAUSTED'])
    expect(stub.requests).toHaveLength(2)
  })
})

describe.each(['cut', 'unavailable', 'hang'] as const)('while KV is %s', (fault) => {
  // A day of its own for each, of which the database knows what the test says.
  const start = Date.UTC(2033, { cut: 0, unavailable: 1, hang: 2 }[fault], 10, 12)
  const lines = () => vi.mocked(console.log).mock.calls.flat().map(String)

  test('the database and the calls of this instance keep the limit, logged once a minute', async () => {
    setTime(start)
    await record(IMAGE, new Date())
    redis.down(fault)
    const answers = await Promise.all(Array.from({ length: 30 }, hold))
    const admitted = answers.flatMap((answer) => ('hold' in answer ? [answer.hold] : []))
    expect(admitted).toHaveLength(1)
    expect(lines().filter((line) => line.includes('budget_kv_down'))).toHaveLength(1)
    expect(await stateOf('day')).toMatchObject({ spentMicroUsd: IMAGE, heldMicroUsd: IMAGE })

    for (const one of admitted) await settleBudget(one, 30_000)
    setTime(start + 5_000)
    expect(await hold(), 'its row is not there yet').toEqual({ refusedBy: 'day' })
    await record(30_000, new Date())
    setTime(start + 40_000)
    expect(await hold(), 'its row is there').toEqual({ refusedBy: 'day' })
  })

  test('what was spent is known to KV when it is back', async () => {
    setTime(start + 86_400_000)
    const before = await hold()
    redis.down(fault)
    if ('hold' in before) await settleBudget(before.hold, IMAGE)
    await record(IMAGE, new Date())
    setTime(start + 86_400_000 + LEASE_MAX_MS + 1_000) // KV is compared with the database once a minute.
    redis.down(false)
    expect(await hold()).toHaveProperty('hold')
    expect(await hold()).toEqual({ refusedBy: 'day' })
    expect(await stateOf('day')).toMatchObject({ spentMicroUsd: IMAGE, heldMicroUsd: IMAGE })
  })

  test('calls that KV had admitted before count as well', async () => {
    setTime(start + 2 * 86_400_000)
    expect(await hold()).toHaveProperty('hold')
    redis.down(fault)
    const answers = await Promise.all(Array.from({ length: 10 }, hold))
    expect(answers.filter((answer) => 'hold' in answer)).toHaveLength(1)
  })

  test('what is settled reaches KV when it is back', async () => {
    setTime(start + 4 * 86_400_000)
    const before = await hold()
    redis.down(fault)
    if ('hold' in before) await settleBudget(before.hold, IMAGE)
    redis.down(false)
    await expect
      .poll(() => stateOf('day'), { timeout: 20_000 })
      .toMatchObject({ spentMicroUsd: IMAGE, heldMicroUsd: 0 })
  })

  test('and the database cannot be asked, nothing is spent', async () => {
    setTime(start + 3 * 86_400_000)
    redis.down(fault)
    await sql`alter table provider_calls rename to hidden_calls`.execute(db())
    try {
      await expect(hold()).rejects.toThrow('provider_calls')
      redis.down(false)
      await expect(hold(), 'nor when KV is back, and knows nothing of the day').rejects.toThrow('provider_calls')
    } finally {
      await sql`alter table hidden_calls rename to provider_calls`.execute(db())
    }
    expect(await hold()).toHaveProperty('hold')
  })

  test('a call that is free needs nobody', async () => {
    redis.down(fault)
    expect(await holdBudget({ provider: 'sketch', estimateMicroUsd: 0, freeTier: true })).toHaveProperty('hold')
  })
})

describe('when KV does its work and only its answers are lost', () => {
  test('the limit holds', async () => {
    setTime(Date.UTC(2033, 5, 10, 12))
    await record(IMAGE, new Date())
    const before = await hold() // KV counts this day from now on.
    if ('hold' in before) await settleBudget(before.hold, 0)
    redis.down('lost')
    const answers = await Promise.all(Array.from({ length: 10 }, hold))
    redis.down(false)
    const admitted = answers.flatMap((answer) => ('hold' in answer ? [answer.hold] : []))
    expect(admitted).toHaveLength(1)
    for (const one of admitted) await settleBudget(one, IMAGE)
    const settled = { spentMicroUsd: 2 * IMAGE, heldMicroUsd: 0 }
    await expect.poll(() => stateOf('day'), { timeout: 20_000 }).toMatchObject(settled)
  })

  test('what it held for a call that was refused meanwhile is given back', async () => {
    setTime(Date.UTC(2033, 6, 10, 12))
    const before = await hold()
    if ('hold' in before) await settleBudget(before.hold, IMAGE)
    await record(IMAGE, new Date())
    setTime(Date.UTC(2033, 6, 10, 12, 0, 2))
    redis.down('lost')
    expect(await hold(), 'this instance counts its own call beside its row for a while').toEqual({ refusedBy: 'day' })
    redis.down(false)
    const given = { spentMicroUsd: IMAGE, heldMicroUsd: 0 }
    await expect.poll(() => stateOf('day'), { timeout: 20_000 }).toMatchObject(given)
  })
})
