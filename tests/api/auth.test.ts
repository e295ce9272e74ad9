// Local sign-in: who gets an account, who gets in, what slows guessing down, and which access tokens are worth anything.
import { generateKeyPairSync } from 'node:crypto'
import { type JWTHeaderParameters, SignJWT, UnsecuredJWT } from 'jose'
import { sql } from 'kysely'
import sharp from 'sharp'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { seedAdmin } from '../../lib/auth/accounts.ts'
import { keyFor } from '../../lib/auth/secret.ts'
import { type App, call, givenUser, photo, processImage, type Reply, startApp, type TestUser } from '../support/app.ts'
import { suspend } from '../support/money.ts'

const ADMIN = { email: 'root@example.com', password: 'a password for the admin' }
const UUID = expect.stringMatching(/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/)
const GOOD_PASSWORD = 'correct horse battery staple'

let app: App
let thumbnail: Buffer

beforeAll(async () => {
  app = await startApp({
    ADMIN_EMAIL: ADMIN.email,
    ADMIN_PASSWORD: ADMIN.password,
    FORK__TOOLS__0__PROVIDERS: '["sketch"]',
  })
  thumbnail = await sharp(photo()).resize(64).jpeg().toBuffer()
})

const register = (body: Record<string, unknown>) =>
  call(app, 'POST /api/auth/register', { body: { name: 'Ada', password: GOOD_PASSWORD, ...body } })
const logIn = (email: string, password: string) => call(app, 'POST /api/auth/login', { body: { email, password } })

/** An error without what differs from one request to the next. */
function refusalOf({ status, json }: Reply) {
  const { timestamp: _, requestId: __, ...error } = json.error
  return { status, error }
}

describe('POST /api/auth/register', () => {
  test('makes a free account, signed in, with three trial generations and a thousand tokens', async () => {
    const body = { name: '  Ada Lovelace ', email: ' Ada.Lovelace@Example.COM ' }
    const { status, json, headers } = await register(body)
    expect(status).toBe(201)
    expect(json).toEqual({
      user: {
        id: UUID,
        name: 'Ada Lovelace',
        email: 'ada.lovelace@example.com',
        emailVerified: false,
        mfaEnabled: false,
        role: 'user',
        status: 'active',
        plan: 'free',
        balance: { trialGenerations: 3, tokens: 1000 },
        preferences: {},
        createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      },
      accessToken: expect.stringMatching(/^eyJ[\w-]+\.[\w-]+\.[\w-]+$/),
      refreshToken: expect.stringMatching(/^rt_[\w-]{43}$/),
      expiresIn: 900,
    })
    expect(headers.get('cache-control')).toBe('no-store')
    expect((await call(app, 'GET /api/user/profile', { token: json.accessToken })).json).toEqual(json.user)
    const audit = await db().selectFrom('audit_log').selectAll().where('target_id', '=', json.user.id).execute()
    expect(audit).toMatchObject([{ action: 'user.register', actor_type: 'user', actor_id: json.user.id }])
  })

  test('takes an address once, however it is written and however many try at the same time', async () => {
    const addresses = ['twin@example.com', 'Twin@Example.com', 'TWIN@EXAMPLE.COM', ' twin@example.com']
    const replies = await Promise.all(addresses.map((email) => register({ email })))
    expect(replies.map(({ status }) => status).sort()).toEqual([201, 409, 409, 409])
    const again = await register({ email: 'tWiN@example.com' })
    expect(again.json.error.code).toBe('EMAIL_TAKEN')
  })

  test.each([
    { why: 'too short', password: 'eleven char' },
    { why: 'of 12 bytes but fewer characters', password: 'ééééëë' },
    { why: 'longer than the 72 bytes bcrypt reads', password: 'é'.repeat(37) },
    { why: 'common', password: 'Password1234' },
    { why: 'one character over and over', password: 'aaaaaaaaaaaaaaaa' },
    { why: "the user's own address", password: 'Grace.Hopper@example.com' },
    { why: "the address's first half", password: 'grace.hopper' },
    { why: "the user's own name", password: 'grace brewster hopper' },
    { why: 'the name of the product', password: 'coloringbook ai' },
  ])('refuses a password that is $why', async ({ password }) => {
    const reply = await register({ name: 'Grace Brewster Hopper', email: 'grace.hopper@example.com', password })
    expect(reply.status).toBe(400)
    expect(reply.json.error).toMatchObject({ code: 'VALIDATION_FAILED', details: { issues: [{ path: 'password' }] } })
    expect(reply.bytes.toString()).not.toContain(password)
  })

  test('takes every one of 72 bytes of a password, and none more', async () => {
    const password = `${'é'.repeat(35)}!?`
    expect((await register({ email: 'long@example.com', password })).status).toBe(201)
    expect((await logIn('long@example.com', password)).status).toBe(200)
    expect((await logIn('long@example.com', `${password}x`)).status).toBe(401)
    expect((await logIn('long@example.com', password.slice(0, -1))).status).toBe(401)
  })

  test.each([
    { field: 'role', value: 'admin' },
    { field: 'plan', value: 'enterprise' },
    { field: 'balance', value: { tokens: 1_000_000 } },
    { field: 'status', value: 'active' },
    { field: 'id', value: crypto.randomUUID() },
    { field: 'preferences', value: {} },
  ])('refuses the field $field: no client says what it is or has', async ({ field, value }) => {
    const reply = await register({ email: 'mallory@example.com', [field]: value })
    expect(reply.status).toBe(400)
    expect(reply.json.error.details.issues).toEqual([{ path: field, message: 'Unknown field.' }])
  })

  test.each([
    { why: 'no address', change: { email: undefined }, path: 'email' },
    { why: 'an address without a host', change: { email: 'ada@' }, path: 'email' },
    { why: 'an address that is a list', change: { email: ['ada@example.com'] }, path: 'email' },
    { why: 'an address of 256 characters', change: { email: `${'a'.repeat(244)}@example.com` }, path: 'email' },
    { why: 'an empty name', change: { name: '   ' }, path: 'name' },
    { why: 'a name of 101 characters', change: { name: 'a'.repeat(101) }, path: 'name' },
    { why: 'a name with a NUL, which no text column can hold', change: { name: 'a\0b' }, path: 'name' },
    { why: 'no password', change: { password: undefined }, path: 'password' },
  ])('refuses $why', async ({ change, path }) => {
    const reply = await register({ email: 'nobody@example.com', ...change })
    expect(reply.status).toBe(400)
    expect(reply.json.error.details.issues).toMatchObject([{ path }])
  })

  test('gives the trial once per person, whatever the spelling of the address and after the account is gone', async () => {
    const trialsOf = async (...emails: string[]) => {
      const replies = await Promise.all(emails.map((email) => register({ email })))
      return replies.map(({ json }) => [json.user.balance.trialGenerations, json.user.balance.tokens])
    }
    expect(await trialsOf('ada.once@gmail.com', 'ada.once@example.com')).toEqual([
      [3, 1000],
      [3, 1000],
    ])
    await db().updateTable('users').set({ status: 'deleted' }).where('email', '=', 'ada.once@gmail.com').execute()
    const spellings = [
      'ada.once+again@gmail.com',
      'a.d.a.o.n.c.e@gmail.com',
      'adaonce@googlemail.com',
      'ada.once+1@example.com',
    ]
    expect(await trialsOf(...spellings)).toEqual(spellings.map(() => [0, 1000]))
    expect(await trialsOf('adaonce@example.com'), 'another person: dots matter there').toEqual([[3, 1000]])
  })
})

describe('POST /api/auth/login', () => {
  let user: TestUser

  beforeAll(async () => {
    user = await givenUser(app)
  })

  test('gives a session of its own to who has the password, however the address is written', async () => {
    const { status, json } = await logIn(` ${user.email.toUpperCase()} `, user.password)
    expect(status).toBe(200)
    expect(json).toMatchObject({ user: { id: user.id, email: user.email }, expiresIn: 900 })
    expect(json.refreshToken).not.toBe(user.refreshToken)
    expect((await call(app, 'GET /api/user/profile', { token: json.accessToken })).status).toBe(200)
  })

  test('answers a wrong password and an unknown address alike, and takes the same time for both', async () => {
    const known = await givenUser(app)
    const withFactor = await givenUser(app)
    await db()
      .insertInto('mfa_factors')
      .values({ user_id: withFactor.id, secret: 'sealed', confirmed_at: sql`now()` })
      .execute()
    const attempts = [known.email, withFactor.email, 'nobody@example.com'].map((email) => ({
      email,
      times: [] as number[],
    }))
    const refusals = new Set<string>()
    // In turn, so that whatever else the machine does slows all of them down.
    for (let round = 0; round < 7; round += 1) {
      await db().deleteFrom('sign_in_failures').execute()
      for (const { email, times } of attempts) {
        const startedAt = performance.now()
        const reply = await call(app, 'POST /api/auth/login', { body: { email, password: 'not it', code: '123456' } })
        times.push(performance.now() - startedAt)
        refusals.add(JSON.stringify(refusalOf(reply)))
      }
    }
    expect([...refusals].map((refusal) => JSON.parse(refusal))).toMatchObject([
      { status: 401, error: { code: 'UNAUTHENTICATED', details: {} } },
    ])
    const median = (values: number[]) => values.toSorted((one, other) => one - other)[3] ?? 0
    const [ofKnown = 0, ofFactor = 0, ofUnknown = 0] = attempts.map(({ times }) => median(times))
    for (const ratio of [ofUnknown / ofKnown, ofFactor / ofKnown]) {
      // Without the work of a password it would be under a tenth; a busy machine makes up for the rest.
      expect(ratio).toBeGreaterThan(0.4)
      expect(ratio).toBeLessThan(2.5)
    }
  })

  test('tells only who has the password that the account is suspended', async () => {
    const { id, email, password } = await givenUser(app)
    await suspend(id)
    expect(refusalOf(await logIn(email, 'not the password'))).toMatchObject({
      status: 401,
      error: { code: 'UNAUTHENTICATED' },
    })
    expect(refusalOf(await logIn(email, password))).toMatchObject({ status: 403, error: { code: 'ACCOUNT_SUSPENDED' } })
  })

  test('knows a deleted account no longer', async () => {
    const { id, email, password } = await givenUser(app)
    const wrong = refusalOf(await logIn(email, 'not the password'))
    await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', id).execute()
    expect(refusalOf(await logIn(email, password))).toEqual(wrong)
  })
})

describe('guessing passwords', () => {
  let user: TestUser

  beforeAll(async () => {
    user = await givenUser(app)
  })

  beforeEach(async () => {
    await db().deleteFrom('sign_in_failures').execute()
  })

  const failures = () => db().selectFrom('sign_in_failures').select('failures').execute()
  const pretend = (change: { failures?: number; last_failure_at: ReturnType<typeof sql<Date>> }) =>
    db().updateTable('sign_in_failures').set(change).execute()

  test.each(['of a known address', 'of an address nobody has'])('%s has to wait after five failures', async (which) => {
    const email = which === 'of a known address' ? user.email : 'nobody@example.com'
    expect((await logIn(email, 'guess 1')).status).toBe(401)
    await pretend({ failures: 4, last_failure_at: sql<Date>`now()` })
    expect((await logIn(email.toUpperCase(), 'guess 5')).status).toBe(401)
    expect(await failures()).toEqual([{ failures: 5 }])
    await pretend({ last_failure_at: sql<Date>`now()` })
    const { status, json, headers } = await logIn(email, user.password)
    expect(status).toBe(429)
    expect(json.error).toMatchObject({ code: 'RATE_LIMITED', details: { retryAfterSeconds: 1 } })
    expect(headers.get('retry-after')).toBe('1')
    expect(await failures(), 'a refused try is not one more failure').toEqual([{ failures: 5 }])
  })

  test('has to wait twice as long after each failure, a quarter of an hour at most, never for ever', async () => {
    const { email, password } = user
    await logIn(email, 'not the password')
    const waits = { 5: 1, 6: 2, 8: 8, 14: 512, 15: 900, 30: 900 }
    for (const [count, seconds] of Object.entries(waits)) {
      await pretend({ failures: Number(count), last_failure_at: sql<Date>`now()` })
      const { status, headers } = await logIn(email, password)
      expect(status, `after ${count} failures`).toBe(429)
      expect(Number(headers.get('retry-after'))).toBeGreaterThanOrEqual(Math.max(1, seconds - 1))
      expect(Number(headers.get('retry-after'))).toBeLessThanOrEqual(seconds)
    }
    await pretend({ failures: 30, last_failure_at: sql<Date>`now() - interval '901 seconds'` })
    expect((await logIn(email, 'not the password')).status, 'a try after the wait').toBe(401)
    expect(await failures(), 'as many as the wait needs').toEqual([{ failures: 30 }])
    await pretend({ last_failure_at: sql<Date>`now() - interval '901 seconds'` })
    expect((await logIn(email, password)).status, 'the owner after the wait').toBe(200)
    expect(await failures(), 'success forgets').toEqual([])
  })

  test('is not faster when the guesses come all at once', async () => {
    const replies = await Promise.all(Array.from({ length: 8 }, (_, index) => logIn(user.email, `guess ${index}`)))
    const tried = replies.filter(({ status }) => status === 401)
    expect(tried.length).toBeLessThanOrEqual(5)
    expect(replies.filter(({ status }) => status === 429)).toHaveLength(8 - tried.length)
  })
})

describe('POST /api/auth/password', () => {
  const change = (token: string | undefined, currentPassword: string, newPassword: string) =>
    call(app, 'POST /api/auth/password', { token, body: { currentPassword, newPassword } })

  test('ends every other session at once and keeps the one that changed it', async () => {
    const user = await givenUser(app)
    const other = (await logIn(user.email, user.password)).json
    expect((await change(user.token, user.password, 'a wholly new password')).status).toBe(204)

    expect((await call(app, 'GET /api/user/profile', { token: other.accessToken })).status).toBe(401)
    expect((await processImage(app, { ...user, token: other.accessToken }, { image: thumbnail })).status).toBe(401)
    const refresh = (refreshToken: string) => call(app, 'POST /api/auth/refresh', { body: { refreshToken } })
    expect((await refresh(other.refreshToken)).status).toBe(401)
    expect((await call(app, 'GET /api/user/profile', { token: user.token })).status).toBe(200)
    expect((await refresh(user.refreshToken)).status).toBe(200)

    expect((await logIn(user.email, user.password)).status).toBe(401)
    expect((await logIn(user.email, 'a wholly new password')).status).toBe(200)
    const audit = await db().selectFrom('audit_log').selectAll().where('action', '=', 'user.password').execute()
    expect(audit).toMatchObject([{ actor_id: user.id, target_id: user.id }])
  })

  test('needs the current password, counts wrong ones as guesses, and holds the new one to the same rules', async () => {
    await db().deleteFrom('sign_in_failures').execute()
    const user = await givenUser(app)
    expect((await change(undefined, user.password, GOOD_PASSWORD)).status).toBe(401)
    expect(refusalOf(await change(user.token, 'not the password', 'a wholly new password'))).toMatchObject({
      status: 403,
      error: { code: 'FORBIDDEN' },
    })
    expect(await db().selectFrom('sign_in_failures').select('failures').execute()).toEqual([{ failures: 1 }])
    for (const bad of ['short', user.email.split('@')[0] ?? '']) {
      const { status, json } = await change(user.token, user.password, bad)
      expect(status, bad).toBe(400)
      expect(json.error.details.issues).toMatchObject([{ path: 'newPassword' }])
    }
    expect((await logIn(user.email, user.password)).status).toBe(200)
  })
})

describe('access tokens', () => {
  let user: TestUser
  let stranger: TestUser
  let claims: { sub: string; sid: string }

  beforeAll(async () => {
    user = await givenUser(app)
    stranger = await givenUser(app)
    const payload = JSON.parse(Buffer.from(user.token.split('.')[1] ?? '', 'base64url').toString())
    claims = { sub: payload.sub, sid: payload.sid }
  })

  interface Forgery {
    payload?: Record<string, unknown>
    header?: Partial<JWTHeaderParameters>
    key?: Parameters<SignJWT['sign']>[0]
  }

  /** A token like those of the product, but for what is asked to be otherwise. */
  async function forge({ payload, header, key = keyFor('access-token') }: Forgery = {}): Promise<string> {
    const now = Math.floor(Date.now() / 1000)
    return await new SignJWT({ ...claims, iss: 'local', aud: 'api', iat: now, exp: now + 900, ...payload })
      .setProtectedHeader({ alg: 'HS256', typ: 'at+jwt', ...header })
      .sign(key)
  }

  const asks = {
    'a route for users': (authorization: string) => call(app, 'GET /api/user/profile', { headers: { authorization } }),
    'the route that spends': (authorization: string) =>
      call(app, 'POST /api/process-image', {
        body: thumbnail,
        headers: { authorization, 'content-type': 'image/jpeg' },
      }),
  }

  test('are taken on every route when they are what they should be', async () => {
    for (const ask of Object.values(asks)) expect((await ask(`Bearer ${await forge()}`)).status).toBe(200)
    expect((await asks['a route for users'](`bearer  ${await forge()}`)).status, 'the scheme has no case').toBe(200)
  })

  test('are asked for where there is none', async () => {
    const { status, headers, json } = await call(app, 'GET /api/user/profile')
    expect(status).toBe(401)
    expect(headers.get('www-authenticate')).toBe('Bearer')
    expect(json.error.code).toBe('UNAUTHENTICATED')
    expect((await call(app, 'POST /api/process-image', { body: thumbnail })).status).toBe(401)
  })

  const now = Math.floor(Date.now() / 1000)
  const FORGERIES: { why: string; make: () => string | Promise<string>; code?: string }[] = [
    { why: 'garbage', make: () => 'garbage' },
    { why: 'three dots of garbage', make: () => 'a.b.c' },
    { why: 'a refresh token', make: () => user.refreshToken },
    {
      why: 'unsigned (alg none)',
      make: () => new UnsecuredJWT(claims).setIssuer('local').setAudience('api').setExpirationTime('15m').encode(),
    },
    { why: 'signed with another secret', make: () => forge({ key: Buffer.alloc(32, 7) }) },
    { why: 'signed with the secret of another purpose', make: () => forge({ key: keyFor('refresh-token') }) },
    {
      why: 'signed with RS256',
      make: () =>
        forge({ header: { alg: 'RS256' }, key: generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey }),
    },
    {
      why: 'signed with HS512',
      make: () =>
        forge({
          header: { alg: 'HS512' },
          key: Buffer.concat([keyFor('access-token').export(), keyFor('access-token').export()]),
        }),
    },
    { why: 'of another issuer', make: () => forge({ payload: { iss: 'https://clerk.example.com' } }) },
    { why: 'for another audience', make: () => forge({ payload: { aud: 'web' } }) },
    { why: 'of another type', make: () => forge({ header: { typ: 'JWT' } }) },
    { why: 'not yet valid', make: () => forge({ payload: { nbf: now + 600 } }) },
    { why: 'expired', make: () => forge({ payload: { iat: now - 901, exp: now - 1 } }), code: 'TOKEN_EXPIRED' },
    {
      why: 'expired and signed with another secret',
      make: () => forge({ payload: { exp: now - 1 }, key: Buffer.alloc(32, 7) }),
    },
    { why: 'without expiry', make: () => forge({ payload: { exp: undefined } }) },
    { why: 'without a session', make: () => forge({ payload: { sid: undefined } }) },
    { why: 'without a user', make: () => forge({ payload: { sub: undefined } }) },
    { why: "another user's, with a session of one's own", make: () => forge({ payload: { sub: stranger.id } }) },
    { why: 'of a user who is not there', make: () => forge({ payload: { sub: crypto.randomUUID() } }) },
    { why: 'of a session that is not there', make: () => forge({ payload: { sid: crypto.randomUUID() } }) },
  ]

  test.each(FORGERIES)('are worth nothing when $why', async ({ make, code = 'UNAUTHENTICATED' }) => {
    const token = await make()
    for (const [where, ask] of Object.entries(asks)) {
      const { status, json } = await ask(`Bearer ${token}`)
      expect(status, where).toBe(401)
      expect(json.error.code, where).toBe(code)
    }
  })

  test.each(['', 'Bearer', 'Bearer ', 'Basic YWRhOnNlY3JldA==', 'Bearer one two'])(
    'are not found in the header "%s"',
    async (authorization) => {
      for (const ask of Object.values(asks)) expect((await ask(authorization)).status).toBe(401)
    },
  )

  test.each([
    {
      what: 'its session is revoked',
      end: ({ id }: TestUser) =>
        db()
          .updateTable('refresh_tokens')
          .set({ revoked: true, revoked_at: sql`now()`, revoked_reason: 'session' })
          .where('user_id', '=', id)
          .execute(),
      status: 401,
      code: 'UNAUTHENTICATED',
    },
    {
      what: 'its session is over',
      end: ({ id }: TestUser) =>
        db().updateTable('refresh_tokens').set({ absolute_expires_at: sql`now()` }).where('user_id', '=', id).execute(),
      status: 401,
      code: 'UNAUTHENTICATED',
    },
    { what: 'its user is suspended', end: ({ id }: TestUser) => suspend(id), status: 403, code: 'ACCOUNT_SUSPENDED' },
    {
      what: 'its user is deleted',
      end: ({ id }: TestUser) => db().updateTable('users').set({ status: 'deleted' }).where('id', '=', id).execute(),
      status: 401,
      code: 'UNAUTHENTICATED',
    },
  ])('die with the next request on every route when $what', async ({ end, status, code }) => {
    const victim = await givenUser(app)
    const authorization = `Bearer ${victim.token}`
    for (const ask of Object.values(asks)) expect((await ask(authorization)).status).toBe(200)
    await end(victim)
    for (const ask of Object.values(asks)) {
      const reply = await ask(authorization)
      expect(refusalOf(reply)).toMatchObject({ status, error: { code } })
    }
    expect((await call(app, 'GET /api/health/ready', { headers: { authorization } })).status).toBe(status)
  })
})

describe('the admin of ADMIN_EMAIL', () => {
  test('cannot be registered by somebody else first', async () => {
    expect((await register({ email: 'Root@Example.com' })).json.error.code).toBe('EMAIL_TAKEN')
  })

  test('is made once, and keeps the password chosen since', async () => {
    expect(await seedAdmin()).toBe(true)
    const { status, json } = await logIn('Root@Example.com', ADMIN.password)
    expect(status).toBe(200)
    expect(json.user).toMatchObject({ email: ADMIN.email, role: 'admin', status: 'active' })
    const body = { currentPassword: ADMIN.password, newPassword: 'a better one for the admin' }
    expect((await call(app, 'POST /api/auth/password', { token: json.accessToken, body })).status).toBe(204)

    expect(await seedAdmin()).toBe(false)
    expect((await logIn(ADMIN.email, ADMIN.password)).status).toBe(401)
    expect((await logIn(ADMIN.email, 'a better one for the admin')).status).toBe(200)
    const audit = await db()
      .selectFrom('audit_log')
      .select(['actor_type', 'target_id'])
      .where('action', '=', 'admin.seed')
      .execute()
    expect(audit).toEqual([{ actor_type: 'system', target_id: json.user.id }])
  })
})
