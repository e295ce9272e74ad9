// Sessions of local sign-in: refresh tokens that rotate without forking, theft that shows, and every way a session ends.
import { setTimeout as pause } from 'node:timers/promises'
import { sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { signAccessToken } from '../../lib/auth/access-token.ts'
import { beginSession, rotateSession } from '../../lib/auth/sessions.ts'
import { type App, call, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { currentLane } from '../support/lane.ts'

interface SignedIn {
  accessToken: string
  refreshToken: string
}

let app: App
let user: TestUser
let stranger: TestUser
let session: SignedIn

beforeAll(async () => {
  app = await startApp({ FORK__TOOLS__0__PROVIDERS: '["sketch"]' })
  user = await givenUser(app)
  stranger = await givenUser(app)
})

beforeEach(async () => {
  await db().deleteFrom('refresh_tokens').where('user_id', '=', user.id).execute()
  session = await signIn()
})

/** A session without the cost of checking a password. */
async function signIn(): Promise<SignedIn> {
  const { sessionId, refreshToken } = await beginSession(db(), user.id, { ip: '203.0.113.7', userAgent: 'node' })
  return { accessToken: await signAccessToken({ userId: user.id, sessionId }), refreshToken }
}

async function logIn({ ip, userAgent }: { ip: string; userAgent: string }): Promise<SignedIn> {
  const { email, password } = user
  const headers = { 'user-agent': userAgent }
  return (await call(app, 'POST /api/auth/login', { body: { email, password }, headers, ip })).json
}

const refresh = (refreshToken: string) => call(app, 'POST /api/auth/refresh', { body: { refreshToken } })
const logOut = (refreshToken: string) => call(app, 'POST /api/auth/logout', { body: { refreshToken } })
const listOf = ({ accessToken }: SignedIn) => call(app, 'GET /api/auth/sessions', { token: accessToken })
const endSession = (id: string) => call(app, `DELETE /api/auth/sessions/${id}`, { token: session.accessToken })
const rows = () =>
  db().selectFrom('refresh_tokens').selectAll().where('user_id', '=', user.id).orderBy('created_at').execute()

function idOf({ accessToken }: SignedIn): string {
  return JSON.parse(Buffer.from(accessToken.split('.')[1] ?? '', 'base64url').toString()).sid
}

/** Moves every exchange so far into the past. */
const laterBy = (seconds: number) =>
  db()
    .updateTable('refresh_tokens')
    .set({ revoked_at: sql`revoked_at - make_interval(secs => ${seconds})` })
    .where('user_id', '=', user.id)
    .where('revoked', '=', true)
    .execute()

async function expectAlive({ accessToken, refreshToken }: SignedIn) {
  expect((await call(app, 'GET /api/user/profile', { token: accessToken })).status).toBe(200)
  expect((await refresh(refreshToken)).status).toBe(200)
}

async function expectDead({ accessToken, refreshToken }: SignedIn) {
  expect((await call(app, 'GET /api/user/profile', { token: accessToken })).status, 'a route for users').toBe(401)
  expect((await processImage(app, { ...user, token: accessToken })).status, 'the route that spends').toBe(401)
  expect((await refresh(refreshToken)).status, 'refreshing').toBe(401)
}

describe('POST /api/auth/refresh', () => {
  test('exchanges a refresh token for its successor in the same session', async () => {
    const { status, json } = await refresh(session.refreshToken)
    expect(status).toBe(200)
    expect(json).toMatchObject({ user: { id: user.id, email: user.email }, expiresIn: 900 })
    expect(json.refreshToken).toMatch(/^rt_[\w-]{43}$/)
    expect(json.refreshToken).not.toBe(session.refreshToken)
    expect(idOf(json)).toBe(idOf(session))
    expect(await rows()).toMatchObject([{ revoked: true, revoked_reason: 'rotated' }, { revoked: false }])
    await expectAlive({ ...json })
  })

  test('gives twenty parallel tabs one and the same successor, and keeps one new row', async () => {
    const replies = await Promise.all(Array.from({ length: 20 }, () => refresh(session.refreshToken)))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]))
    expect(new Set(replies.map(({ json }) => json.refreshToken)).size).toBe(1)
    expect(await rows()).toHaveLength(2)
  })

  test('repeats the exchange for whoever lost the reply', async () => {
    const first = await refresh(session.refreshToken)
    await laterBy(25)
    const second = await refresh(session.refreshToken)
    expect(second.status).toBe(200)
    expect(second.json.refreshToken).toBe(first.json.refreshToken)
    expect(await rows()).toHaveLength(2)
    await expectAlive(second.json)
  })

  test('takes a token that comes back after the grace for stolen: its session ends, others go on, and it is on record', async () => {
    const other = await signIn()
    const { json: successor } = await refresh(session.refreshToken)
    await laterBy(31)
    const { status, json } = await refresh(session.refreshToken)
    expect(status).toBe(401)
    expect(json.error.code).toBe('UNAUTHENTICATED')
    await expectDead(successor)
    await expectAlive(other)
    const audit = await db()
      .selectFrom('audit_log')
      .select(['actor_id', 'target_type', 'target_id', 'request_id'])
      .where('action', '=', 'session.reuse')
      .where('target_id', '=', idOf(session))
      .execute()
    expect(audit).toEqual([
      { actor_id: user.id, target_type: 'session', target_id: idOf(session), request_id: json.error.requestId },
    ])
  })

  test('takes a token for stolen when its successor was used already', async () => {
    const { json: second } = await refresh(session.refreshToken)
    const { json: third } = await refresh(second.refreshToken)
    expect((await refresh(session.refreshToken)).status).toBe(401)
    await expectDead(third)
  })

  test.each([
    { what: 'a week unused', change: { expires_at: sql<Date>`now()` } },
    { what: 'a month old', change: { expires_at: sql<Date>`now()`, absolute_expires_at: sql<Date>`now()` } },
  ])('ends a session that is $what', async ({ change }) => {
    const age = { created_at: sql<Date>`now() - interval '31 days'` }
    await db()
      .updateTable('refresh_tokens')
      .set({ ...age, ...change })
      .where('family_id', '=', idOf(session))
      .execute()
    const { status, json } = await refresh(session.refreshToken)
    expect(status).toBe(401)
    expect(json.error.code).toBe('TOKEN_EXPIRED')
    const other = await signIn()
    expect((await listOf(other)).json.data).toMatchObject([{ id: idOf(other) }])
  })

  test('begins with a week, and never prolongs a session past its month', async () => {
    const [first] = await rows()
    const days = (from: Date, to: Date) => (to.getTime() - from.getTime()) / 86_400_000
    expect(first && days(first.created_at, first.expires_at)).toBeCloseTo(7)
    expect(first && days(first.created_at, first.absolute_expires_at)).toBeCloseTo(30)
    await db()
      .updateTable('refresh_tokens')
      .set({ absolute_expires_at: sql<Date>`now() + interval '1 hour'` })
      .execute()
    const { json } = await refresh(session.refreshToken)
    const [old, successor] = await rows()
    expect(successor?.expires_at).toEqual(old?.absolute_expires_at)
    expect(successor?.absolute_expires_at).toEqual(old?.absolute_expires_at)
    await expectAlive(json)
  })

  test('is refused to a suspended user, whose session survives the suspension', async () => {
    const { json: fresh } = await refresh(session.refreshToken)
    await db().updateTable('users').set({ status: 'suspended' }).where('id', '=', user.id).execute()
    const { status, json } = await refresh(fresh.refreshToken)
    await db().updateTable('users').set({ status: 'active' }).where('id', '=', user.id).execute()
    expect(status).toBe(403)
    expect(json.error.code).toBe('ACCOUNT_SUSPENDED')
    await laterBy(3600)
    await expectAlive(fresh)
  })

  test.each([
    { why: 'is unknown', body: { refreshToken: `rt_${'x'.repeat(43)}` }, status: 401, code: 'UNAUTHENTICATED' },
    { why: 'is empty', body: { refreshToken: '' }, status: 400, code: 'VALIDATION_FAILED' },
    {
      why: 'is longer than any of ours',
      body: { refreshToken: 'x'.repeat(201) },
      status: 400,
      code: 'VALIDATION_FAILED',
    },
    { why: 'is no text', body: { refreshToken: { $ne: null } }, status: 400, code: 'VALIDATION_FAILED' },
    { why: 'is missing', body: {}, status: 400, code: 'VALIDATION_FAILED' },
  ])('refuses a token that $why', async ({ body, status, code }) => {
    const reply = await call(app, 'POST /api/auth/refresh', { body })
    expect(reply.status).toBe(status)
    expect(reply.json.error.code).toBe(code)
  })

  test('is not done with an access token', async () => {
    expect((await refresh(session.accessToken.slice(0, 200))).status).toBe(401)
  })
})

describe('POST /api/auth/logout', () => {
  test('ends the session and no other', async () => {
    const other = await signIn()
    const { status, bytes } = await logOut(session.refreshToken)
    expect(status).toBe(204)
    expect(bytes).toHaveLength(0)
    await expectDead(session)
    await expectAlive(other)
  })

  test('is on record once, as is ending another session', async () => {
    const other = await signIn()
    for (let round = 0; round < 2; round += 1) {
      await endSession(idOf(other))
      await logOut(session.refreshToken)
    }
    const ends = await db()
      .selectFrom('audit_log')
      .select(['actor_type', 'actor_id', 'target_type', 'target_id'])
      .where('action', '=', 'session.end')
      .where('target_id', 'in', [idOf(other), idOf(session)])
      .orderBy('id')
      .execute()
    const record = { actor_type: 'user', actor_id: user.id, target_type: 'session' }
    expect(ends).toEqual([
      { ...record, target_id: idOf(other) },
      { ...record, target_id: idOf(session) },
    ])
  })

  test('ends the session also with a token that was exchanged already', async () => {
    const { json: successor } = await refresh(session.refreshToken)
    expect((await logOut(session.refreshToken)).status).toBe(204)
    await expectDead(successor)
  })

  test('is done when there is nothing to end', async () => {
    await logOut(session.refreshToken)
    expect((await logOut(session.refreshToken)).status).toBe(204)
    expect((await logOut('rt_unknown')).status).toBe(204)
  })

  // The embedded database has one connection, where nothing is under way beside anything else.
  if (currentLane() !== 'embedded')
    test('ends the session also while a refresh of it is under way', async () => {
      let successor = ''
      let end: ReturnType<typeof logOut> | undefined
      await db()
        .transaction()
        .execute(async (trx) => {
          const rotated = await rotateSession(trx, session.refreshToken, { ip: '203.0.113.7', userAgent: 'node' })
          if (!rotated.reused) successor = rotated.refreshToken
          end = logOut(session.refreshToken)
          await lockAwaited()
        })
      expect((await end)?.status).toBe(204)
      await expectDead({ ...session, refreshToken: successor })
    })
})

/** Resolves when some query of this database waits for another's lock. */
async function lockAwaited(): Promise<void> {
  for (;;) {
    const { rows } =
      await sql`select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`.execute(
        db(),
      )
    if (rows.length > 0) return
    await pause(10)
  }
}

describe('/api/auth/sessions', () => {
  test('lists the living sessions with where they are used, the latest first, and marks the current one', async () => {
    const phone = await logIn({ ip: '198.51.100.4', userAgent: `Phone ${'x'.repeat(300)}` })
    const ended = await signIn()
    await logOut(ended.refreshToken)
    const { status, json } = await listOf(session)
    expect(status).toBe(200)
    const iso = expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/)
    const times = { createdAt: iso, lastUsedAt: iso, expiresAt: iso }
    expect(json).toEqual({
      data: [
        { id: idOf(phone), current: false, ip: '198.51.100.4', userAgent: `Phone ${'x'.repeat(249)}`, ...times },
        { id: idOf(session), current: true, ip: '203.0.113.7', userAgent: 'node', ...times },
      ],
      page: { nextCursor: null, hasMore: false },
    })

    await db()
      .updateTable('refresh_tokens')
      .set({ created_at: sql<Date>`now() - interval '2 days'` })
      .where('family_id', '=', idOf(session))
      .execute()
    const { json: refreshed } = await refresh(session.refreshToken)
    const [latest] = (await listOf(refreshed)).json.data
    expect(latest).toMatchObject({ id: idOf(session), current: true })
    expect(Date.parse(latest.lastUsedAt) - Date.parse(latest.createdAt), 'began two days ago').toBeGreaterThan(
      1.9 * 86_400_000,
    )
  })

  test('ends another session of the caller at once, once', async () => {
    const other = await signIn()
    expect((await endSession(idOf(other))).status).toBe(204)
    await expectDead(other)
    expect((await listOf(session)).json.data).toHaveLength(1)
    expect((await endSession(idOf(other))).status, 'again').toBe(404)
    await expectAlive(session)
  })

  test('ends the current session', async () => {
    expect((await endSession(idOf(session))).status).toBe(204)
    await expectDead(session)
  })

  test('knows no session of anybody else', async () => {
    const reply = await endSession(idOf({ accessToken: stranger.token, refreshToken: '' }))
    expect(reply.status).toBe(404)
    expect(reply.json.error.code).toBe('NOT_FOUND')
    expect((await call(app, 'GET /api/user/profile', { token: stranger.token })).status).toBe(200)
  })

  test.each([crypto.randomUUID(), 'current', "1'%20or%20'1'='1", '%00', '%zz', 'a%2Fb'])(
    'answers 404 to the id %s',
    async (id) => {
      expect((await endSession(id)).status).toBe(404)
      await expectAlive(session)
    },
  )

  test.each(['GET /api/auth/sessions', `DELETE /api/auth/sessions/${crypto.randomUUID()}`])(
    '%s is for who is signed in',
    async (what) => {
      expect((await call(app, what)).status).toBe(401)
    },
  )
})
