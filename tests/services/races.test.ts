// What a balance pays for when everything happens at once: on real PostgreSQL, over HTTP, in one process and in two.
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, balanceOf, givenUser, processImage, type Reply, startApp, type TestUser } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import type { Behaviour } from '../support/gemini-replies.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens, ledgerViolations, usageRows } from '../support/money.ts'
import { seed } from '../support/seed.ts'
import { startServer } from '../support/server.ts'

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    FORK__AI__CIRCUIT_BREAKERS: 'false',
  })
})

beforeEach(() => {
  stub.requests.length = 0
  stub.behave({ kind: 'ok', delayMs: 30 })
})

afterAll(() => stub.close())

describe('requests at once', () => {
  test.each([{ affordable: 1 }, { affordable: 10 }])(
    'of 50 a balance for $affordable pays $affordable, and no more reach the provider',
    async ({ affordable }) => {
      const user = await givenUser(app)
      await leaveTokens(user.id, 100 * affordable)
      const replies = await atOnce(50, () => processImage(app, user))
      expect(statuses(replies)).toEqual({ 200: affordable, 402: 50 - affordable })
      expect(stub.requests).toHaveLength(affordable)
      await expectBalance(user, 0)
    },
  )

  test('of 50 three trial generations pay three', async () => {
    const user = await givenUser(app)
    await lapseTokens(user)
    const replies = await atOnce(50, () => processImage(app, user))
    expect(statuses(replies)).toEqual({ 200: 3, 402: 47 })
    expect(stub.requests).toHaveLength(3)
    expect(await balanceOf(app, user)).toMatchObject({ trialGenerations: 0, tokens: 0, reservedTokens: 0 })
    expect(await ledgerViolations()).toEqual([])
  })

  test('to two processes on one database spend one balance', async () => {
    const user = await givenUser(app)
    await leaveTokens(user.id, 1000)
    const other = await startServer(app.stores)
    const replies = await atOnce(50, (index) => processImage(index % 2 === 0 ? app : other, user))
    expect(statuses(replies)).toEqual({ 200: 10, 402: 40 })
    expect(stub.requests).toHaveLength(10)
    expect(other.output()).toContain('POST /api/process-image')
    await expectBalance(user, 0)
  })

  test('whose generations all fail leave the balance as it was', async () => {
    expectErrorsInLog()
    stub.behave({ kind: 'status', status: 503, delayMs: 30 })
    const user = await givenUser(app)
    await leaveTokens(user.id, 2000)
    const replies = await atOnce(20, () => processImage(app, user))
    expect(statuses(replies)).toEqual({ 502: 20 })
    await expectBalance(user, 2000)
    expect((await usageRows(user.id)).map(({ tokens_used }) => tokens_used)).toEqual(Array(20).fill(0))
  })

  test(`are charged exactly where they succeed, whichever fail (seed ${seed})`, async () => {
    expectErrorsInLog()
    const kinds: Behaviour[] = [
      { kind: 'ok' },
      { kind: 'textOnly' },
      { kind: 'status', status: 400 },
      { kind: 'status', status: 503 },
      { kind: 'finish', reason: 'IMAGE_SAFETY' },
    ]
    const behaviour = fc.tuple(fc.constantFrom(...kinds), fc.nat(60)).map(([kind, delayMs]) => ({ ...kind, delayMs }))
    stub.behave(fc.sample(behaviour, { seed, numRuns: 40 }))
    const user = await givenUser(app)
    await leaveTokens(user.id, 5000)
    const replies = await atOnce(40, () => processImage(app, user))
    const succeeded = replies.filter(({ status }) => status === 200).length
    await expectBalance(user, 5000 - 100 * succeeded)
    const usage = await usageRows(user.id)
    expect(usage).toHaveLength(40)
    expect(usage.filter((row) => row.response_status === 'success' && row.tokens_used === 100)).toHaveLength(succeeded)
  })

  test('after the end of a period begin the next one once', async () => {
    const user = await givenUser(app)
    await leaveTokens(user.id, 0)
    await endPeriod(user)
    const replies = await atOnce(20, () => processImage(app, user))
    expect(statuses(replies)).toEqual({ 200: 10, 402: 10 })
    await expectBalance(user, 0)
    const plans = await db()
      .selectFrom('ledger_lot')
      .select(['granted', 'spent', 'gone'])
      .where('user_id', '=', user.id)
      .where('kind', '=', 'plan')
      .orderBy('id')
      .execute()
    expect(plans).toEqual([
      { granted: 1000, spent: 0, gone: 1000 },
      { granted: 1000, spent: 1000, gone: 0 },
    ])
  })
})

describe('requests at once with one Idempotency-Key', () => {
  test('generate once; the others wait or get the same answer, byte for byte', async () => {
    const user = await givenUser(app)
    await leaveTokens(user.id, 1000)
    const post = () => processImage(app, user, { headers: { 'idempotency-key': 'one-of-twenty' } })
    const replies = await atOnce(20, post)
    const [first, ...others] = replies.filter(({ status, headers }) => status === 200 && !headers.has(REPLAYED))
    expect(others, 'further first answers').toEqual([])
    for (const reply of replies.filter((other) => other !== first)) {
      if (reply.status === 200) expect(reply.bytes).toEqual(first?.bytes)
      else expect(reply).toMatchObject({ status: 409, json: { error: { code: 'IDEMPOTENCY_IN_PROGRESS' } } })
    }

    const retries = await atOnce(5, post)
    for (const retry of retries) {
      expect(retry.status).toBe(200)
      expect(retry.headers.get(REPLAYED)).toBe('true')
      expect(retry.bytes).toEqual(first?.bytes)
    }
    expect(stub.requests).toHaveLength(1)
    await expectBalance(user, 900)
  })

  test('generate once in two processes', async () => {
    const user = await givenUser(app)
    await leaveTokens(user.id, 1000)
    const other = await startServer(app.stores)
    const headers = { 'idempotency-key': 'in-two-processes' }
    const replies = await atOnce(20, (index) => processImage(index % 2 === 0 ? app : other, user, { headers }))
    expect(replies.filter((reply) => reply.status === 200 && !reply.headers.has(REPLAYED))).toHaveLength(1)
    expect(stub.requests).toHaveLength(1)
    await expectBalance(user, 900)
  })
})

const REPLAYED = 'idempotent-replayed'

function atOnce<T>(count: number, work: (index: number) => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: count }, (_, index) => work(index)))
}

function statuses(replies: Reply[]): Record<number, number> {
  const groups = Object.groupBy(replies, ({ status }) => status)
  return Object.fromEntries(Object.entries(groups).map(([status, group]) => [status, group?.length ?? 0]))
}

async function expectBalance(user: TestUser, tokens: number): Promise<void> {
  expect(await balanceOf(app, user)).toMatchObject({ trialGenerations: 0, tokens, reservedTokens: 0 })
  expect(await ledgerViolations()).toEqual([])
}

/** Takes every token and leaves the trial. */
async function lapseTokens({ id }: TestUser): Promise<void> {
  await sql`
    insert into ledger_entry (user_id, op, amount, lot_id)
      select user_id, 'lapse', available, id from ledger_lot where user_id = ${id} and unit = 'token' and available > 0
  `.execute(db())
}

/** As if the user had registered a month ago: the first period ended a second before now. */
async function endPeriod({ id }: TestUser): Promise<void> {
  await sql`
    update subscriptions set period_anchor = now() - interval '1 month 1 second',
      period_start = now() - interval '1 month 1 second', period_end = now() - interval '1 second',
      stands_until = now() - interval '1 second'
    where user_id = ${id}
  `.execute(db())
}
