// The scheduled sweep: what it gives back and forgets, what it leaves alone, and that running it twice is running it once.
import { type RawBuilder, sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { sessionOf } from '../../lib/auth/sessions.ts'
import { reserve } from '../../lib/ledger/holds.ts'
import { grant } from '../../lib/ledger/ledger.ts'
import { type App, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { ledgerViolations } from '../support/money.ts'

const CRON_SECRET = 'the secret of the scheduler'.replaceAll(' ', '-')
const NOTHING = {
  jobsEnded: 0,
  jobsForgotten: 0,
  holdsReturned: 0,
  lotsLapsed: 0,
  plansMovedOn: 0,
  idempotencyKeysDeleted: 0,
  idempotencyBodiesDeleted: 0,
  sessionsDeleted: 0,
  signInFailuresForgotten: 0,
  emailTokensDeleted: 0,
  trialNetworksForgotten: 0,
  plansOfDeletedCancelled: 0,
  accountsPurged: 0,
  purgesPostponed: 0,
  resultsDeleted: 0,
}

let app: App
let user: TestUser

beforeAll(async () => {
  app = await startApp({ CRON_SECRET })
  user = await givenUser(app)
})

beforeEach(async () => {
  await sweep()
})

async function sweep(method = 'POST') {
  const { status, json } = await call(app, `${method} /api/jobs/sweep`, { token: CRON_SECRET })
  expect(status).toBe(200)
  return json
}

const ago = (time: string) => sql<Date>`now() - ${time}::interval`

async function hold(ttlMs: number): Promise<string> {
  const session = await sessionOf(db(), user.refreshToken)
  if (!session) throw new Error('The user has no session.')
  const id = crypto.randomUUID()
  expect(await reserve(db(), { id, ...session, tokens: 1, ttlMs })).toMatchObject({ outcome: 'held' })
  return id
}

const holdState = async (id: string) =>
  (await db().selectFrom('ledger_hold').select('state').where('id', '=', id).executeTakeFirstOrThrow()).state

async function key(name: string, change: { expires_at: RawBuilder<Date>; body_expires_at: RawBuilder<Date> }) {
  await db()
    .insertInto('idempotency_keys')
    .values({
      user_id: user.id,
      scope: 'POST /api/x',
      key: name,
      fingerprint: 'f'.repeat(64),
      status: 200,
      body: Buffer.from('kept'),
      ...change,
    })
    .execute()
}

async function session(age: { absolute_expires_at: RawBuilder<Date> }): Promise<string> {
  const family = crypto.randomUUID()
  const created_at = ago('60 days')
  const values = { user_id: user.id, family_id: family, created_at, expires_at: ago('39 days'), ...age }
  const old = { ...values, id: crypto.randomUUID(), token_hash: crypto.randomUUID() }
  const child = { ...values, id: crypto.randomUUID(), token_hash: crypto.randomUUID() }
  const rotated = {
    revoked: true,
    revoked_at: ago('50 days'),
    revoked_reason: 'rotated' as const,
    replaced_by: child.id,
  }
  await db()
    .insertInto('refresh_tokens')
    .values([
      { ...old, ...rotated },
      { ...child, ...rotated, replaced_by: null },
    ])
    .execute()
  return family
}

describe('/api/jobs/sweep', () => {
  test.each(['GET', 'POST'])('is for the scheduler alone, by %s', async (method) => {
    for (const token of [undefined, '', 'wrong', `${CRON_SECRET}x`, CRON_SECRET.slice(0, -1), user.token]) {
      const { status, json } = await call(app, `${method} /api/jobs/sweep`, { token })
      expect(status).toBe(401)
      expect(json.error.code).toBe('UNAUTHENTICATED')
    }
    expect(await sweep(method)).toEqual(NOTHING)
  })

  test('gives back what dead requests hold, and leaves the living alone', async () => {
    const dead = [await hold(-1_000), await hold(-60_000)]
    const living = await hold(60_000)
    expect(await sweep()).toEqual({ ...NOTHING, holdsReturned: 2 })
    expect(await Promise.all([...dead, living].map(holdState))).toEqual(['expired', 'expired', 'pending'])
    expect(await ledgerViolations()).toEqual([])
    expect(await sweep()).toEqual(NOTHING)
  })

  test('lapses tokens that have expired, and those alone', async () => {
    const lot = async (expiresAt?: Date) => {
      const source = crypto.randomUUID()
      await grant(db(), { userId: user.id, kind: 'promo', tokens: 70, source, ...(expiresAt && { expiresAt }) })
      return source
    }
    const sources = [await lot(new Date(Date.now() - 1_000)), await lot(new Date(Date.now() + 60_000)), await lot()]
    expect(await sweep()).toEqual({ ...NOTHING, lotsLapsed: 1 })
    const lots = await db()
      .selectFrom('ledger_lot')
      .select(['source', 'available', 'gone'])
      .where('source', 'in', sources)
      .orderBy('id')
      .execute()
    expect(lots).toEqual([
      { source: sources[0], available: 0, gone: 70 },
      { source: sources[1], available: 70, gone: 0 },
      { source: sources[2], available: 70, gone: 0 },
    ])
    expect(await ledgerViolations()).toEqual([])
    expect(await sweep()).toEqual(NOTHING)
  })

  test('drops keys after their day and kept images after their hour, and nothing before', async () => {
    await key('over', { expires_at: ago('1 second'), body_expires_at: ago('1 second') })
    await key('faded', { expires_at: ago('-1 hour'), body_expires_at: ago('1 second') })
    await key('fresh', { expires_at: ago('-1 hour'), body_expires_at: ago('-1 hour') })
    expect(await sweep()).toEqual({ ...NOTHING, idempotencyKeysDeleted: 1, idempotencyBodiesDeleted: 1 })
    const left = await db().selectFrom('idempotency_keys').select(['key', 'body', 'status']).orderBy('key').execute()
    expect(left.map(({ body, ...row }) => ({ ...row, body: body && Buffer.from(body).toString() }))).toEqual([
      { key: 'faded', body: null, status: 200 },
      { key: 'fresh', body: 'kept', status: 200 },
    ])
    expect(await sweep()).toEqual(NOTHING)
  })

  test('drops sessions a week after their end, whole, and no living one', async () => {
    const recent = await session({ absolute_expires_at: ago('6 days') })
    await session({ absolute_expires_at: ago('8 days') })
    expect(await sweep()).toEqual({ ...NOTHING, sessionsDeleted: 2 })
    const left = await db().selectFrom('refresh_tokens').select('family_id').where('revoked', '=', true).execute()
    expect(left).toEqual([{ family_id: recent }, { family_id: recent }])
    expect((await call(app, 'GET /api/user/profile', { token: user.token })).status).toBe(200)
    expect(await sweep()).toEqual(NOTHING)
  })

  test('forgets failed sign-ins after a day', async () => {
    const failure = (email: string, age: string) => ({ email_hash: email, failures: 9, last_failure_at: ago(age) })
    await db()
      .insertInto('sign_in_failures')
      .values([failure('old', '25 hours'), failure('new', '23 hours')])
      .execute()
    expect(await sweep()).toEqual({ ...NOTHING, signInFailuresForgotten: 1 })
    expect(await db().selectFrom('sign_in_failures').select('email_hash').execute()).toEqual([{ email_hash: 'new' }])
  })

  test('forgets results and ended jobs however many a day left behind', async () => {
    await sql`
      insert into result_cache (key, result, result_type, provider, model, expires_at)
        select 'key ' || n, '', 'text/plain', 'sketch', 'sketch-1', now() - interval '1 second'
        from generate_series(1, 1100) n
    `.execute(db())
    await sql`
      insert into jobs (user_id, request_id, status, tool, options, hold_id, finished_at, expires_at)
        select ${user.id}::uuid, gen_random_uuid(), 'succeeded', 'tool', '{}', 'hold ' || n, now(), now()
        from generate_series(1, 1100) n
    `.execute(db())
    expect(await sweep()).toEqual({ ...NOTHING, resultsDeleted: 1100, jobsForgotten: 1100 })
    expect(await sweep()).toEqual(NOTHING)
  })

  test('does everything once however many run at the same time', async () => {
    const dead = await Promise.all(Array.from({ length: 8 }, () => hold(-1_000)))
    const replies = await Promise.all(Array.from({ length: 6 }, () => sweep()))
    const later = await sweep()
    const sum = [...replies, later].reduce((total, { holdsReturned }) => total + holdsReturned, 0)
    expect(sum).toBe(dead.length)
    expect(await ledgerViolations()).toEqual([])
  })
})
