// Orders that are repeated, too many or too dear: one job per Idempotency-Key, no more than may wait, no more than can be paid.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, balanceOf, call, givenUser, type Reply, startApp, type TestUser } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { allQuiet, askFor, order, ordered, outcomeOf, UNHINDERED } from '../support/jobs.ts'
import { leaveTokens, ledgerViolations } from '../support/money.ts'

const PRICE = 100
const PER_USER_MAX = 12
/** How many jobs one instance works on at a time. */
const WORKERS_MAX = 4

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let user: TestUser

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    ...UNHINDERED,
    // So that nobody waits long for what hangs.
    FORK__AI__PROVIDER_TIMEOUT_MS: '5000',
    FORK__JOBS__PER_USER_MAX: String(PER_USER_MAX),
  })
})

afterAll(() => stub.close())

afterEach(async () => {
  stub.behave({ kind: 'ok' })
  await allQuiet()
  expect(await ledgerViolations()).toEqual([])
})

async function givenRich(tokens: number): Promise<TestUser> {
  const rich = await givenUser(app)
  await leaveTokens(rich.id, tokens)
  return rich
}

const jobsOf = async ({ id }: TestUser) =>
  await db().selectFrom('jobs').select(['id', 'status']).where('user_id', '=', id).execute()

const statuses = (replies: Reply[]) => Object.groupBy(replies, ({ status }) => status)

describe('an Idempotency-Key', () => {
  test('makes one job of twenty orders at the same time, and the answer is given again afterwards', async () => {
    user = await givenRich(100 * PRICE)
    const headers = { 'idempotency-key': crypto.randomUUID() }
    const replies = await Promise.all(Array.from({ length: 20 }, () => order(app, user, { headers })))
    const { 202: taken = [], 409: refused = [] } = statuses(replies)
    expect(taken.length + refused.length).toBe(20)
    expect(taken.length).toBeGreaterThan(0)
    for (const { json } of refused) expect(json.error.code).toBe('IDEMPOTENCY_IN_PROGRESS')
    const [job, ...more] = await jobsOf(user)
    expect(more).toEqual([])
    for (const { json } of taken) expect(json).toEqual({ jobId: job?.id, status: 'queued' })

    const again = await order(app, user, { headers })
    expect([again.status, again.headers.get('idempotent-replayed')]).toEqual([202, 'true'])
    expect(again.json).toEqual(taken[0]?.json)
    expect(again.headers.get('location')).toBe(`/api/jobs/${job?.id}`)
    await outcomeOf(app, user, String(job?.id))
    expect((await balanceOf(app, user)).tokens).toBe(99 * PRICE)
  })

  test('whose answer was lost names the job, and makes no second one', async () => {
    user = await givenRich(10 * PRICE)
    const key = crypto.randomUUID()
    const id = await ordered(app, user, { headers: { 'idempotency-key': key } })
    // As a crash between the job and the answer leaves it.
    await db()
      .updateTable('idempotency_keys')
      .set({ status: null, headers: null, body: null, body_expires_at: null, locked_until: new Date(0) })
      .where('key', '=', key)
      .execute()
    const again = await order(app, user, { headers: { 'idempotency-key': key } })
    expect([again.status, again.json.error.code, again.json.error.details]).toEqual([
      409,
      'CONFLICT',
      { receipt: { jobId: id } },
    ])
    expect(await jobsOf(user)).toHaveLength(1)
  })
})

describe('orders at the same time', () => {
  test('are taken for as many as can be paid, and no more', async () => {
    user = await givenRich(3 * PRICE)
    const replies = await Promise.all(Array.from({ length: 50 }, () => order(app, user)))
    const { 202: taken = [], 402: refused = [] } = statuses(replies)
    expect([taken.length, refused.length]).toEqual([3, 47])
    for (const { json } of taken) expect((await outcomeOf(app, user, json.jobId)).json.status).toBe('succeeded')
    expect(await jobsOf(user)).toHaveLength(3)
    expect((await balanceOf(app, user)).tokens).toBe(0)
  })

  test('are taken for as many as may wait, worked on a few at a time; the rest costs nothing and may come again', async () => {
    user = await givenRich(100 * PRICE)
    stub.behave({ kind: 'hang' })
    stub.requests.length = 0
    const key = crypto.randomUUID()
    const replies = await Promise.all(Array.from({ length: PER_USER_MAX + 8 }, () => order(app, user)))
    const { 202: taken = [], 429: refused = [] } = statuses(replies)
    expect([taken.length, refused.length]).toEqual([PER_USER_MAX, 8])
    const late = await order(app, user, { headers: { 'idempotency-key': key } })
    expect([late.status, late.json.error.code, late.json.error.details]).toEqual([
      429,
      'RATE_LIMITED',
      { jobsMax: PER_USER_MAX },
    ])
    expect(Number(late.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(await balanceOf(app, user)).toMatchObject({ tokens: 88 * PRICE, reservedTokens: PER_USER_MAX * PRICE })
    const atWork = () => stub.requests.filter(({ abandoned }) => !abandoned).length
    await expect.poll(atWork, { timeout: 30_000 }).toBe(WORKERS_MAX)
    for (const { json } of taken) await call(app, `DELETE /api/jobs/${json.jobId}`, { token: user.token })
    expect(await balanceOf(app, user)).toMatchObject({ tokens: 100 * PRICE, reservedTokens: 0 })
    stub.behave({ kind: 'ok' })
    await ordered(app, user, { headers: { 'idempotency-key': key } })
  })
})

describe('an API key', () => {
  test('sees the jobs of its owner with the scope that orders them, and not with another', async () => {
    user = await givenRich(10 * PRICE)
    const keyWith = async (scope: string) => {
      const { json } = await call(app, 'POST /api/api-keys', {
        token: user.token,
        body: { name: scope, scopes: [scope] },
      })
      return { token: String(json.key) }
    }
    const [generate, read] = [await keyWith('generate'), await keyWith('read')]
    const id = await ordered(app, { ...user, ...generate })
    expect((await outcomeOf(app, { ...user, ...generate }, id)).json.status).toBe('succeeded')
    expect((await askFor(app, read, id)).json.error.code).toBe('FORBIDDEN')
  })
})
