// Tokens from an admin: given once per key, with a reason, on record, and by nobody else; and what needs payments, without them.
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { seedAdmin } from '../../lib/auth/accounts.ts'
import { type App, balanceOf, type CallOptions, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { ledgerViolations, suspend } from '../support/money.ts'

const ADMIN = { email: 'root@example.com', password: 'a password for the admin' }

let app: App
let user: TestUser
let admin: { id: string; token: string }
/** Where the user stood before the test. */
let tokensBefore: number
let auditsBefore: number

beforeAll(async () => {
  app = await startApp({ ADMIN_EMAIL: ADMIN.email, ADMIN_PASSWORD: ADMIN.password })
  await seedAdmin()
  const { json } = await call(app, 'POST /api/auth/login', { body: ADMIN })
  admin = { id: json.user.id, token: json.accessToken }
  user = await givenUser(app)
})

beforeEach(async () => {
  auditsBefore = 0
  auditsBefore = (await audits()).length
  tokensBefore = 0
  tokensBefore = await granted()
})

const grant = (to: string, body: unknown = { tokens: 250, reason: 'A goodwill gesture.' }, options: CallOptions = {}) =>
  call(app, `POST /api/admin/users/${to}/grant`, { token: admin.token, body, ...options })

const withKey = (key: string, options: CallOptions = {}): CallOptions => ({
  ...options,
  headers: { 'idempotency-key': key },
})

/** What this test put on record about the user. */
async function audits() {
  const all = await db()
    .selectFrom('audit_log')
    .selectAll()
    .where('action', '=', 'tokens.grant')
    .where('target_id', '=', user.id)
    .orderBy('id')
    .execute()
  return all.slice(auditsBefore)
}

/** What this test gave to the user, with the ledger sound. */
async function granted(): Promise<number> {
  expect(await ledgerViolations()).toEqual([])
  return (await balanceOf(app, user)).tokens - tokensBefore
}

describe('POST /api/admin/users/:id/grant', () => {
  test('gives tokens that can be spent at once, and puts who, why and how many on record', async () => {
    const requestId = crypto.randomUUID()
    const headers = { 'x-request-id': requestId, 'user-agent': 'console' }
    const body = { tokens: 250, reason: '  A goodwill gesture. ' }
    const { status, json } = await grant(user.id, body, { headers, ip: '203.0.113.7' })
    expect(status).toBe(201)
    expect(json).toEqual({ userId: user.id, granted: 250, balance: { trialGenerations: 3, tokens: 1250 } })
    expect(await balanceOf(app, user)).toMatchObject({ planTokens: 1000, purchasedTokens: 250, tokens: 1250 })
    expect(await granted()).toBe(250)
    expect(await audits()).toMatchObject([
      {
        actor_type: 'admin',
        actor_id: admin.id,
        target_type: 'user',
        target_id: user.id,
        reason: 'A goodwill gesture.',
        details: { tokens: 250, source: expect.stringMatching(/^admin:[\da-f-]{36}$/) },
        ip: '203.0.113.7',
        user_agent: 'console',
        request_id: requestId,
      },
    ])
  })

  test('repeated with its key gives nothing more, and answers the same', async () => {
    const first = await grant(user.id, undefined, withKey('gift'))
    const replay = await grant(user.id, undefined, withKey('"gift"'))
    expect(replay.status).toBe(201)
    expect(replay.headers.get('idempotent-replayed')).toBe('true')
    expect(replay.bytes).toEqual(first.bytes)
    expect(await granted()).toBe(250)
    expect(await audits()).toHaveLength(1)
  })

  test('with one key for two users or two amounts is refused, never guessed at', async () => {
    await grant(user.id, undefined, withKey('amount'))
    const more = await grant(user.id, { tokens: 500, reason: 'More.' }, withKey('amount'))
    expect(more.status).toBe(422)
    expect(more.json.error.code).toBe('IDEMPOTENCY_KEY_REUSED')
    expect(await granted()).toBe(250)

    const friend = await givenUser(app)
    const same = await grant(friend.id, undefined, withKey('amount'))
    expect(same.status, 'another address is another request').toBe(201)
    expect((await balanceOf(app, friend)).tokens).toBe(1250)
  })

  test('without a key every request is a grant of its own', async () => {
    await grant(user.id)
    await grant(user.id)
    expect(await granted()).toBe(500)
    expect(await audits()).toHaveLength(2)
  })

  test('fifty times at once with one key gives once', async () => {
    const replies = await Promise.all(Array.from({ length: 50 }, () => grant(user.id, undefined, withKey('fifty'))))
    const outcomes = replies.map(({ status, json }) => json.error?.code ?? status)
    expect(outcomes.filter((outcome) => outcome === 201).length).toBeGreaterThanOrEqual(1)
    expect(outcomes.every((outcome) => [201, 'IDEMPOTENCY_IN_PROGRESS'].includes(outcome))).toBe(true)
    const ran = replies.filter(({ status, headers }) => status === 201 && !headers.has('idempotent-replayed'))
    expect(ran).toHaveLength(1)
    expect(await granted()).toBe(250)
    expect(await audits()).toHaveLength(1)
  })

  test('twenty times at once without a key gives twenty times', async () => {
    const replies = await Promise.all(Array.from({ length: 20 }, () => grant(user.id, { tokens: 1, reason: 'One.' })))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([201]))
    expect(await granted()).toBe(20)
  })

  test('that died before it answered is finished by its repeat, and gives once', async () => {
    await grant(user.id, undefined, withKey('died'))
    const answered = { status: null, headers: null, body: null, body_expires_at: null, locked_until: new Date(0) }
    await db().updateTable('idempotency_keys').set(answered).where('key', '=', 'died').execute()
    const repeat = await grant(user.id, undefined, withKey('died'))
    expect(repeat.status).toBe(201)
    expect(repeat.json).toMatchObject({ granted: 250, balance: { tokens: tokensBefore + 250 } })
    expect(await granted()).toBe(250)
    expect(await audits()).toHaveLength(1)
  })

  test.each([
    { why: 'no tokens', body: { reason: 'x' }, path: 'tokens' },
    { why: 'zero tokens', body: { tokens: 0, reason: 'x' }, path: 'tokens' },
    { why: 'fewer than none', body: { tokens: -5, reason: 'x' }, path: 'tokens' },
    { why: 'half a token', body: { tokens: 1.5, reason: 'x' }, path: 'tokens' },
    { why: 'tokens in words', body: { tokens: '100', reason: 'x' }, path: 'tokens' },
    { why: 'more than a hundred million', body: { tokens: 100_000_001, reason: 'x' }, path: 'tokens' },
    { why: 'no reason', body: { tokens: 5 }, path: 'reason' },
    { why: 'an empty reason', body: { tokens: 5, reason: '   ' }, path: 'reason' },
    { why: 'a reason of 501 characters', body: { tokens: 5, reason: 'x'.repeat(501) }, path: 'reason' },
    { why: 'a reason with a NUL', body: { tokens: 5, reason: 'a\0b' }, path: 'reason' },
    { why: 'a kind of its own', body: { tokens: 5, reason: 'x', kind: 'pack' }, path: 'kind' },
    { why: 'a source of its own', body: { tokens: 5, reason: 'x', source: 'polar:order:1' }, path: 'source' },
  ])('refuses $why', async ({ body, path }) => {
    const { status, json } = await grant(user.id, body)
    expect(status).toBe(400)
    expect(json.error.details.issues).toMatchObject([{ path }])
    expect(await granted()).toBe(0)
  })

  test('gives up to a hundred million at once', async () => {
    expect((await grant(user.id, { tokens: 100_000_000, reason: 'All of it.' })).status).toBe(201)
    expect(await granted()).toBe(100_000_000)
  })

  test.each([
    { what: 'a name', id: 'nobody' },
    { what: 'an id that nobody has', id: crypto.randomUUID() },
    { what: 'SQL', id: "'%20or%20true--" },
    { what: 'a NUL', id: '%00' },
    { what: 'a text without end', id: 'x'.repeat(300) },
  ])('knows no user by $what', async ({ id }) => {
    for (const options of [{}, withKey(crypto.randomUUID())]) {
      const { status, json } = await grant(id, undefined, options)
      expect(status).toBe(404)
      expect(json.error).toMatchObject({ code: 'NOT_FOUND', message: 'There is no such user.' })
    }
  })

  test('is hidden from who is no admin, whatever they send', async () => {
    const nothing = refusalOf(await call(app, 'POST /api/admin/nothing', { token: user.token }))
    for (const body of [undefined, {}, { tokens: 250, reason: 'For me.' }]) {
      const reply = await grant(user.id, body, { token: user.token })
      expect(refusalOf(reply)).toEqual(nothing)
    }
    expect(nothing).toMatchObject({ status: 404, code: 'NOT_FOUND' })
    expect((await grant(user.id, undefined, { token: undefined })).status).toBe(401)
    expect(await granted()).toBe(0)
    expect(await audits()).toEqual([])
  })

  describe('by a deputy', () => {
    let deputy: TestUser

    beforeAll(async () => {
      deputy = await givenUser(app)
    })

    const setRole = (role: 'admin' | 'user') =>
      db().updateTable('users').set({ role }).where('id', '=', deputy.id).execute()

    test('replays to an admin alone: a key does not outlive the role', async () => {
      await setRole('admin')
      const options = withKey('deputy', { token: deputy.token })
      expect((await grant(user.id, undefined, options)).status).toBe(201)
      await setRole('user')
      expect((await grant(user.id, undefined, options)).status).toBe(404)
    })

    test('ends with the role, at the next request, whatever the token says', async () => {
      await setRole('admin')
      expect((await grant(user.id, undefined, { token: deputy.token })).status).toBe(201)
      await setRole('user')
      expect((await grant(user.id, undefined, { token: deputy.token })).status).toBe(404)
      await setRole('admin')
      await suspend(deputy.id)
      expect((await grant(user.id, undefined, { token: deputy.token })).status).toBe(403)
      expect(await granted()).toBe(250)
    })
  })
})

describe('POST /api/admin/polar/…', () => {
  test.each([
    { path: 'redeliver', body: {} },
    { path: 'endpoint/enable', body: undefined },
  ])('$path says that payments are off, and puts nothing on record', async ({ path, body }) => {
    const { status, json } = await call(app, `POST /api/admin/polar/${path}`, { token: admin.token, body })
    expect(status).toBe(503)
    expect(json.error).toMatchObject({
      code: 'FEATURE_DISABLED',
      details: { reason: expect.stringMatching(/POLAR_ACCESS_TOKEN/) },
    })
    expect(await db().selectFrom('audit_log').selectAll().where('action', 'like', 'polar.%').execute()).toEqual([])
  })
})

function refusalOf({ status, json }: Awaited<ReturnType<typeof call>>) {
  return { status, code: json.error.code, message: json.error.message, details: json.error.details }
}
