// Sessions of local sign-in, called directly on real PostgreSQL: how long they live, how they go on, and every way they end.
import { sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import {
  beginSession,
  endSession,
  listSessions,
  markSession,
  revokeOtherSessions,
  revokeSession,
  rotateSession,
  type Session,
  sessionOf,
  unmarkSessions,
} from '../../lib/auth/sessions.ts'
import { givenAccount } from '../support/accounts.ts'
import { startApp } from '../support/app.ts'
import { somebodyWaits } from '../support/waiting.ts'

const ORIGIN = { ip: '203.0.113.7', userAgent: 'node', requestId: 'request-1' }
const NOBODY = '00000000-0000-4000-8000-000000000000'

let userId: string
let strangerId: string

beforeAll(async () => {
  await startApp()
  strangerId = (await givenAccount()).id
})

beforeEach(async () => {
  userId = (await givenAccount()).id
  await db().deleteFrom('refresh_tokens').execute()
})

const begin = (options?: { mfa: boolean }) => beginSession(db(), userId, ORIGIN, options)
const rotate = (token: string, origin = ORIGIN) => rotateSession(db(), token, origin)
const within = <T>(work: (trx: Parameters<typeof markSession>[0]) => Promise<T>) => db().transaction().execute(work)

/** Every token, oldest first, with the hours it has left. */
const tokens = () =>
  db()
    .selectFrom('refresh_tokens')
    .selectAll()
    .select(sql<number>`round(extract(epoch from expires_at - now()) / 3600)::int`.as('idleHours'))
    .select(sql<number>`round(extract(epoch from absolute_expires_at - now()) / 3600)::int`.as('hours'))
    .orderBy('created_at')
    .execute()

const living = async () =>
  (await db().selectFrom('refresh_tokens').select('family_id').where('revoked', '=', false).execute()).map(
    ({ family_id: id }) => id,
  )

const records = () =>
  db()
    .selectFrom('audit_log')
    .select(['action', 'actor_type', 'target_type', 'target_id', 'ip', 'user_agent', 'request_id'])
    .where('actor_id', '=', userId)
    .execute()

/** Moves what was revoked so far into the past. */
const laterBy = (seconds: number) =>
  db()
    .updateTable('refresh_tokens')
    .set({ revoked_at: sql`revoked_at - make_interval(secs => ${seconds})` })
    .where('revoked', '=', true)
    .execute()

/** The code of a refusal that says why. */
async function refusal(attempt: Promise<unknown>): Promise<string> {
  return await attempt.then(
    () => 'none',
    (error: unknown) => {
      if (!(error instanceof Error && 'code' in error)) throw error
      expect(error.message, 'why').toMatch(/^[A-Z].+\.$/)
      return String(error.code)
    },
  )
}

/** The next exchange, which has to succeed. */
async function successorOf(token: string): Promise<string> {
  const outcome = await rotate(token)
  if (outcome.reused) throw new Error('The token was taken for a stolen one.')
  return outcome.refreshToken
}

describe('a session that begins', () => {
  test('is a family of one token, kept as a hash, for 7 days of rest and 30 days at most', async () => {
    const { refreshToken, ...session } = await begin()
    expect(refreshToken).toMatch(/^rt_[\w-]{43}$/)
    expect(session).toEqual({ userId, sessionId: expect.stringMatching(/^[\da-f-]{36}$/) })
    const [row, ...more] = await tokens()
    expect(more).toEqual([])
    expect(row).toMatchObject({
      user_id: userId,
      family_id: session.sessionId,
      token_hash: expect.stringMatching(/^[\da-f]{64}$/),
      revoked: false,
      mfa: false,
      ip: ORIGIN.ip,
      user_agent: 'node',
      idleHours: 7 * 24,
      hours: 30 * 24,
    })
    expect((await begin()).refreshToken, 'nobody can tell the next one').not.toBe(refreshToken)
  })

  test('notes the second factor that was shown, and as much of the browser as there is room for', async () => {
    await beginSession(db(), userId, { ip: ORIGIN.ip, userAgent: 'a'.repeat(300) }, { mfa: true })
    await beginSession(db(), userId, { ip: ORIGIN.ip, userAgent: null })
    expect(await tokens()).toMatchObject([
      { mfa: true, user_agent: 'a'.repeat(255) },
      { mfa: false, user_agent: null },
    ])
  })
})

describe('a refresh token', () => {
  test('is exchanged for its successor, which has the session, its factor and its end', async () => {
    const { refreshToken, sessionId } = await begin({ mfa: true })
    const outcome = await rotate(refreshToken, { ...ORIGIN, ip: '203.0.113.8', userAgent: 'b'.repeat(300) })
    expect(outcome).toEqual({ userId, sessionId, refreshToken: expect.stringMatching(/^rt_[\w-]{43}$/), reused: false })
    const [old, young] = await tokens()
    expect(old).toMatchObject({ revoked: true, revoked_reason: 'rotated', replaced_by: young?.id })
    expect(young).toMatchObject({ family_id: sessionId, revoked: false, mfa: true, idleHours: 7 * 24, hours: 30 * 24 })
    expect(young).toMatchObject({ ip: '203.0.113.8', user_agent: 'b'.repeat(255) })
    expect(young?.absolute_expires_at).toEqual(old?.absolute_expires_at)
    expect('refreshToken' in outcome && (await sessionOf(db(), outcome.refreshToken))).toEqual({ userId, sessionId })
  })

  test('is exchanged from a browser that says nothing of itself', async () => {
    const { refreshToken } = await begin()
    await rotateSession(db(), refreshToken, { ip: ORIGIN.ip, userAgent: null })
    expect((await tokens()).at(-1)).toMatchObject({ user_agent: null })
  })

  test('gives one successor to all who exchange it within the grace, also at the same time', async () => {
    const { refreshToken, sessionId } = await begin()
    const outcomes = await Promise.all(Array.from({ length: 10 }, () => rotate(refreshToken)))
    await laterBy(28)
    outcomes.push(await rotate(refreshToken))
    const [first] = outcomes
    expect(first).toMatchObject({ userId, sessionId, reused: false })
    expect(outcomes).toEqual(outcomes.map(() => first))
    expect(await tokens()).toHaveLength(2)
    expect(await records()).toEqual([])
  })

  test('never outlives the session', async () => {
    const { refreshToken } = await begin()
    await db().updateTable('refresh_tokens').set({ absolute_expires_at: sql`now() + interval '5 hours'` }).execute()
    await successorOf(refreshToken)
    expect((await tokens()).at(-1)).toMatchObject({ idleHours: 5, hours: 5 })
  })

  test('that comes back after the grace ends its session, on record, and no other', async () => {
    const other = await begin()
    const { refreshToken, sessionId } = await begin()
    await rotate(refreshToken)
    await laterBy(31)
    expect(await rotate(refreshToken)).toEqual({ userId, sessionId, reused: true })
    expect(await living()).toEqual([other.sessionId])
    expect((await tokens()).at(-1)).toMatchObject({ revoked_reason: 'reuse' })
    expect(await records()).toEqual([
      {
        action: 'session.reuse',
        actor_type: 'user',
        target_type: 'session',
        target_id: sessionId,
        ip: ORIGIN.ip,
        user_agent: 'node',
        request_id: 'request-1',
      },
    ])
  })

  test('that comes back within the grace ends its session once its successor was used', async () => {
    const { refreshToken, sessionId } = await begin()
    await successorOf(await successorOf(refreshToken))
    expect(await rotate(refreshToken)).toEqual({ userId, sessionId, reused: true })
    expect(await living()).toEqual([])
  })

  test.each(['expires_at', 'absolute_expires_at'] as const)(
    'is worth nothing past %s, and may be sent on',
    async (end) => {
      const { refreshToken } = await begin()
      const created_at = sql<Date>`now() - interval '40 days'`
      await db()
        .updateTable('refresh_tokens')
        .set({ created_at, [end]: sql`now()` })
        .execute()
      expect(await refusal(rotate(refreshToken))).toBe('TOKEN_EXPIRED')
      expect(await tokens()).toHaveLength(1)
    },
  )

  test('is worth nothing when nobody gave it out, or the session has ended, which is no theft', async () => {
    expect(await refusal(rotate('rt_of_nobody'))).toBe('UNAUTHENTICATED')
    const { refreshToken, sessionId } = await begin()
    await revokeSession(db(), userId, sessionId, 'logout')
    expect(await refusal(rotate(refreshToken))).toBe('UNAUTHENTICATED')
    expect(await records()).toEqual([])
  })

  test('tells whose session it is, used or not', async () => {
    const { refreshToken, sessionId } = await begin()
    await begin()
    await rotate(refreshToken)
    expect(await sessionOf(db(), refreshToken)).toEqual({ userId, sessionId })
    expect(await sessionOf(db(), 'rt_of_nobody')).toBeUndefined()
  })
})

describe('a session ends', () => {
  let session: Session
  let other: Session

  beforeEach(async () => {
    session = await begin()
    other = await begin()
  })

  test('alone, for the reason that is given', async () => {
    expect(await revokeSession(db(), userId, session.sessionId, 'session')).toBe(true)
    expect(await living()).toEqual([other.sessionId])
    const [row] = await tokens()
    expect(row).toMatchObject({ revoked_reason: 'session', revoked_at: expect.any(Date) })
  })

  test('once, and only for its owner', async () => {
    expect(await revokeSession(db(), strangerId, session.sessionId, 'session')).toBe(false)
    expect(await revokeSession(db(), userId, NOBODY, 'session')).toBe(false)
    expect(await living()).toHaveLength(2)
    expect(await revokeSession(db(), userId, session.sessionId, 'session')).toBe(true)
    expect(await revokeSession(db(), userId, session.sessionId, 'logout')).toBe(false)
    expect((await tokens())[0]).toMatchObject({ revoked_reason: 'session' })
  })

  test('as its owner wishes, on record once', async () => {
    const end = () => endSession(db(), session, 'logout', ORIGIN)
    expect([await end(), await end()]).toEqual([true, false])
    expect(await records()).toEqual([
      {
        action: 'session.end',
        actor_type: 'user',
        target_type: 'session',
        target_id: session.sessionId,
        ip: ORIGIN.ip,
        user_agent: 'node',
        request_id: 'request-1',
      },
    ])
    expect(await living()).toEqual([other.sessionId])
  })

  test('with all others but the one that is kept, and those of other people go on', async () => {
    const theirs = await beginSession(db(), strangerId, ORIGIN)
    await revokeOtherSessions(db(), userId, other.sessionId, 'password')
    expect((await living()).toSorted()).toEqual([other.sessionId, theirs.sessionId].toSorted())
    await revokeOtherSessions(db(), userId, null, 'password')
    expect(await living()).toEqual([theirs.sessionId])
    expect((await tokens())[0]).toMatchObject({ revoked_reason: 'password' })
  })

  test('also when it is refreshed in the same moment', async () => {
    const trx = await db().startTransaction().execute()
    await rotateSession(trx, session.refreshToken, ORIGIN)
    const ending = revokeSession(db(), userId, session.sessionId, 'session')
    try {
      await somebodyWaits()
    } finally {
      await trx.commit().execute()
    }
    expect(await ending).toBe(true)
    expect(await living(), 'the successor neither').toEqual([other.sessionId])
  })
})

describe('a second factor', () => {
  const marks = async () => (await tokens()).map(({ family_id: id, mfa }) => ({ id, mfa }))

  test('is noted for the session that it was shown in, and only by its owner', async () => {
    const one = await begin()
    const two = await begin()
    await within((trx) => markSession(trx, strangerId, one.sessionId))
    await within((trx) => markSession(trx, userId, two.sessionId))
    expect(await marks()).toEqual([
      { id: one.sessionId, mfa: false },
      { id: two.sessionId, mfa: true },
    ])
  })

  test('that is gone counts in none of the sessions, and those of other people keep theirs', async () => {
    await begin({ mfa: true })
    await begin({ mfa: true })
    await beginSession(db(), strangerId, ORIGIN, { mfa: true })
    await within((trx) => unmarkSessions(trx, userId))
    expect((await marks()).map(({ mfa }) => mfa)).toEqual([false, false, true])
  })
})

describe('the list of sessions', () => {
  test('has the living ones of the user, the last one used first, each from when it began', async () => {
    const old = await begin()
    const young = await begin()
    await beginSession(db(), strangerId, ORIGIN)
    const ended = await begin()
    await revokeSession(db(), userId, ended.sessionId, 'logout')
    await successorOf(old.refreshToken)
    const [first] = (await tokens()).filter(({ family_id: id }) => id === old.sessionId)
    const list = await listSessions(db(), userId)
    expect(list.map(({ family_id: id }) => id)).toEqual([old.sessionId, young.sessionId])
    expect(list[0]).toMatchObject({ ip: ORIGIN.ip, user_agent: 'node', created_at: first?.created_at })
    expect(list[0]?.last_used_at.getTime()).toBeGreaterThan(list[1]?.last_used_at.getTime() ?? Number.NaN)
  })

  test('has none whose rest has been too long', async () => {
    await begin()
    await db()
      .updateTable('refresh_tokens')
      .set({ created_at: sql`now() - interval '8 days'`, expires_at: sql`now()` })
      .execute()
    expect(await listSessions(db(), userId)).toEqual([])
  })
})
