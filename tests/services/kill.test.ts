// A server that dies in the middle of its work, a hundred times: nobody pays for what was not made, and nobody pays twice.
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import {
  type App,
  balanceOf,
  call,
  givenUser,
  processImage,
  type Reply,
  startApp,
  type TestUser,
} from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { UNHINDERED } from '../support/jobs.ts'
import { leaveTokens, ledgerViolations } from '../support/money.ts'
import { seed } from '../support/seed.ts'
import { type ServerProcess, startServer } from '../support/server.ts'

const KILLS = 100
const REQUESTS_PER_KILL = 4
const USERS = 5
const START_TOKENS = 100_000
const PRICE = 100
const CRON_SECRET = 'secret-of-the-scheduler'
/** The name under which PostgreSQL lists the connections of the servers that are killed. */
const MORTAL = 'mortal'

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let users: TestUser[]

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    ...UNHINDERED,
    CRON_SECRET,
  })
  users = await Promise.all(Array.from({ length: USERS }, () => givenUser(app)))
  for (const { id } of users) await leaveTokens(id, START_TOKENS)
})

afterAll(() => stub.close())

/** One request, and what became of it: no reply when the server died first. */
interface Sent {
  requestId: string
  user: TestUser
  key: string | undefined
  reply: Reply | undefined
}

interface Round {
  requests: { user: number; keyed: boolean }[]
  killAfterMs: number
}

const random = (max: number) => fc.noBias(fc.nat(max))
const request = fc.record({ user: random(USERS - 1), keyed: fc.boolean() })
const round: fc.Arbitrary<Round> = fc.record({
  requests: fc.array(request, { minLength: REQUESTS_PER_KILL, maxLength: REQUESTS_PER_KILL }),
  killAfterMs: random(180),
})

describe(`a server killed ${KILLS} times (seed ${seed})`, () => {
  let sent: Sent[]

  test('logs no error, and leaves holds that somebody must give back', { timeout: 300_000 }, async ({ annotate }) => {
    const delays = fc.sample(random(150), { seed, numRuns: KILLS * REQUESTS_PER_KILL })
    stub.behave(delays.map((delayMs) => ({ kind: 'ok', delayMs })))
    sent = await killAgainAndAgain(fc.sample(round, { seed, numRuns: KILLS }))
    await expect.poll(mortalConnections, { timeout: 10_000 }).toBe(0)
    const { pending = 0, settled = 0 } = await holdsByState()
    const answered = sent.filter(({ reply }) => reply !== undefined).length
    await annotate(`${sent.length} requests: ${pending} holds orphaned, ${settled} settled, ${answered} answered`)
    expect(Math.min(pending, answered)).toBeGreaterThan(KILLS / 4)
  })

  test('has charged exactly what it settled, once the sweep has given the rest back', async () => {
    const { pending = 0 } = await holdsByState()
    await sql`update ledger_hold set expires_at = now() - interval '1 second' where state = 'pending'`.execute(db())
    const sweep = await call(app, 'GET /api/jobs/sweep', { token: CRON_SECRET })
    expect(sweep.json).toMatchObject({ holdsReturned: pending })
    await expectBooksToAgree()
  })

  test('has charged every request that it answered, and no request twice', async () => {
    const charged = await chargedRequests()
    expect(new Set(charged).size, 'requests charged once').toBe(charged.length)
    const known = new Set(sent.map(({ requestId }) => requestId))
    expect(charged.filter((id) => !known.has(id))).toEqual([])
    for (const { requestId, reply } of sent.filter((one) => one.reply !== undefined)) {
      expect(reply?.status).toBe(200)
      expect(charged).toContain(requestId)
    }
  })

  test('runs a key again when it was not charged for, and never when it was', async () => {
    await sql`update idempotency_keys set locked_until = now() - interval '1 second' where locked_until is not null`.execute(
      db(),
    )
    const charged = await chargedRequests()
    stub.behave({ kind: 'ok' })
    const keyed = sent.filter(({ key }) => key !== undefined)
    for (const first of keyed) {
      const retry = await repeat(app, first)
      if (!charged.includes(first.requestId)) {
        expect([retry.status, retry.headers.get('idempotent-replayed')]).toEqual([200, null])
      } else if (retry.status === 200) {
        expect(retry.headers.get('idempotent-replayed')).toBe('true')
        if (first.reply) expect(retry.bytes.equals(first.reply.bytes)).toBe(true)
      } else {
        const receipt = expect.objectContaining({ requestId: first.requestId })
        expect(retry).toMatchObject({ status: 409, json: { error: { code: 'CONFLICT', details: { receipt } } } })
      }
    }
    expect(await settledHoldsByKey()).toEqual(keyed.map(() => 1))
    await expectBooksToAgree()
  })
})

/** Sends each round to a fresh server and kills that in the middle; the next one starts meanwhile. */
async function killAgainAndAgain(rounds: Round[]): Promise<Sent[]> {
  const sent: Sent[] = []
  let standby = startWarm()
  for (const { requests, killAfterMs } of rounds) {
    const server = await standby
    standby = startWarm()
    stub.requests.length = 0
    const replies = Promise.all(
      requests.map(({ user, keyed }) => send(server, users[user], keyed ? crypto.randomUUID() : undefined)),
    )
    await expect.poll(() => stub.requests.length, { interval: 2, timeout: 20_000 }).toBeGreaterThan(0)
    await new Promise((resolve) => setTimeout(resolve, killAfterMs))
    await server.kill()
    sent.push(...(await replies))
    expect(server.output()).not.toContain('"level":"error"')
  }
  await (await standby).kill()
  return sent
}

/** A server that has loaded its function: a request that needs no store made it do so. */
async function startWarm(): Promise<ServerProcess> {
  const server = await startServer(app.stores, { PGAPPNAME: MORTAL })
  await call(server, 'POST /api/process-image')
  return server
}

async function send(server: ServerProcess, user: TestUser | undefined, key: string | undefined): Promise<Sent> {
  if (!user) throw new Error('There is no such user.')
  const first = { requestId: crypto.randomUUID(), user, key, reply: undefined }
  return await repeat(server, first).then(
    (reply) => ({ ...first, reply }),
    () => first,
  )
}

async function repeat(to: App, { requestId, user, key }: Sent): Promise<Reply> {
  const headers = { 'x-request-id': requestId, ...(key !== undefined && { 'idempotency-key': key }) }
  return await processImage(to, user, { headers })
}

async function mortalConnections(): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select count(*) from pg_stat_activity where datname = current_database() and application_name = ${MORTAL}
  `.execute(db())
  return rows[0]?.count ?? 0
}

async function holdsByState(): Promise<{ pending?: number; settled?: number }> {
  const { rows } = await sql<{ state: string; count: number }>`
    select state, count(*) from ledger_hold group by state
  `.execute(db())
  return Object.fromEntries(rows.map(({ state, count }) => [state, count]))
}

/** Request ids of the successful usage rows. */
async function chargedRequests(): Promise<string[]> {
  const rows = await db()
    .selectFrom('usage_logs')
    .select('request_id')
    .where('response_status', '=', 'success')
    .execute()
  return rows.map(({ request_id }) => request_id)
}

/** How many settled holds each key has, over all its attempts. */
async function settledHoldsByKey(): Promise<number[]> {
  const { rows } = await sql<{ settled: number }>`
    select count(h.id) as settled from idempotency_keys k
      left join ledger_hold h on h.id like k.id || ':%' and h.state = 'settled'
      group by k.id
  `.execute(db())
  return rows.map(({ settled }) => settled)
}

/** Settled holds, spent tokens, usage rows and what is left of the balances say the same. */
async function expectBooksToAgree(): Promise<void> {
  const { pending = 0, settled = 0 } = await holdsByState()
  const { rows } = await sql<{ spent: number; used: number }>`
    select (select sum(spent) from ledger_lot where unit = 'token')::int as spent,
      (select sum(tokens_used) from usage_logs)::int as used
  `.execute(db())
  const balances = await Promise.all(users.map((user) => balanceOf(app, user)))
  const left = balances.reduce((sum, { tokens }) => sum + tokens, 0)
  const reserved = balances.reduce((sum, { reservedTokens }) => sum + reservedTokens, 0)
  expect({ pending, reserved, left, ...rows[0] }).toEqual({
    pending: 0,
    reserved: 0,
    left: USERS * START_TOKENS - settled * PRICE,
    spent: settled * PRICE,
    used: settled * PRICE,
  })
  expect(await ledgerViolations()).toEqual([])
}
