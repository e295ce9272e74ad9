// What every endpoint does alike: addresses, methods, CORS, request ids, headers, bodies, errors, and the one log line.
import { createHash } from 'node:crypto'
import { sql } from 'kysely'
import { beforeAll, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, type CallOptions, call, givenUser, type Reply, startApp, type TestUser } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { allRoutes } from '../support/routes.ts'

const ORIGIN = 'https://app.example.com'
const JSON_BYTES_MAX = 100_000

let app: App
let user: TestUser

beforeAll(async () => {
  app = await startApp({ FORK__CORS__ORIGINS: JSON.stringify([ORIGIN, 'http://localhost:5173']) })
  user = await givenUser(app)
})

const json = (body: string, headers: Record<string, string> = {}): CallOptions => ({
  token: user.token,
  body,
  headers: { 'content-type': 'application/json', ...headers },
})

const putProfile = (options: CallOptions) => call(app, 'PUT /api/user/profile', options)

const headOf = (path: string) => app.fetch(new Request(`http://localhost${path}`, { method: 'HEAD' }))

/** The lines this test's requests wrote to the log. */
function logLines(): Record<string, unknown>[] {
  return [console.log, console.error].flatMap((write) =>
    vi
      .mocked(write)
      .mock.calls.flat()
      .map((line) => JSON.parse(line)),
  )
}

/** Runs while a table of this file's own database is missing. */
async function without(table: string, run: () => Promise<void>) {
  expectErrorsInLog()
  await sql`alter table ${sql.table(table)} rename to ${sql.table(`${table}_away`)}`.execute(db())
  try {
    await run()
  } finally {
    await sql`alter table ${sql.table(`${table}_away`)} rename to ${sql.table(table)}`.execute(db())
  }
}

describe('addresses and methods', () => {
  test.each(['GET /api/user/nothing', 'GET /api/user', 'GET /api/user/profile/more'])(
    '%s is 404 in the shape of every error',
    async (what) => {
      const before = Date.now()
      const { status, headers, json } = await call(app, what, { token: user.token })
      expect(status).toBe(404)
      expect(headers.get('content-type')).toBe('application/json')
      expect(json).toEqual({
        error: {
          code: 'NOT_FOUND',
          message: 'There is nothing at this address.',
          details: {},
          timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
          requestId: headers.get('x-request-id'),
        },
      })
      expect(Date.parse(json.error.timestamp)).toBeGreaterThanOrEqual(before)
    },
  )

  test.each([
    { what: 'PATCH /api/user/profile', allow: 'GET, HEAD, PUT, DELETE, OPTIONS' },
    { what: 'GET /api/auth/login', allow: 'POST, OPTIONS' },
    { what: 'PUT /api/jobs/sweep', allow: 'GET, HEAD, POST, DELETE, OPTIONS' },
    { what: 'POST /api/config', allow: 'GET, HEAD, OPTIONS' },
    { what: 'GET /api/process-image', allow: 'POST, OPTIONS' },
  ])('$what is 405 and says what is offered: $allow', async ({ what, allow }) => {
    const { status, headers, json } = await call(app, what)
    expect(status).toBe(405)
    expect(headers.get('allow')).toBe(allow)
    expect(json.error.code).toBe('METHOD_NOT_ALLOWED')
  })

  test('HEAD is GET without the body', async () => {
    const get = await call(app, 'GET /api/config')
    const head = await headOf('/api/config')
    expect(head.status).toBe(200)
    expect(await head.text()).toBe('')
    for (const name of ['etag', 'content-type', 'cache-control', 'vary', 'ratelimit-policy']) {
      expect(head.headers.get(name), name).toBe(get.headers.get(name))
    }
    const refused = await headOf('/api/user/profile')
    expect([refused.status, await refused.text()], 'refused like GET').toEqual([401, ''])
    const notOffered = await headOf('/api/auth/login')
    expect([notOffered.status, notOffered.headers.get('allow')]).toEqual([405, 'POST, OPTIONS'])
    expect(logLines()).toMatchObject([
      { method: 'GET' },
      { method: 'HEAD', route: 'GET /api/config', status: 200 },
      {},
      {},
    ])
  })
})

describe('who may call what', () => {
  test('nothing is open that is not meant to be', async () => {
    const open = (await allRoutes()).filter(({ route }) => route.access === 'public' || route.access === 'visitor')
    expect(open.map(({ method, path }) => `${method} ${path}`).sort()).toEqual([
      'GET /api/billing/catalogue',
      'GET /api/config',
      'GET /api/health',
      'GET /api/health/ready',
      'POST /api/auth/email/verify',
      'POST /api/auth/login',
      'POST /api/auth/logout',
      'POST /api/auth/password/forgot',
      'POST /api/auth/password/reset',
      'POST /api/auth/refresh',
      'POST /api/auth/register',
      'POST /api/auth/restore',
    ])
  })

  test('the sweep is off without its secret, and says which', async () => {
    expectErrorsInLog()
    for (const token of [undefined, 'undefined', user.token]) {
      const { status, json } = await call(app, 'POST /api/jobs/sweep', { token })
      expect(status).toBe(503)
      expect(json.error).toMatchObject({ code: 'FEATURE_DISABLED', details: { reason: 'CRON_SECRET is not set.' } })
    }
  })
})

describe('CORS', () => {
  const corsHeaders = ({ headers }: Reply) =>
    Object.fromEntries([...headers].filter(([name]) => name.startsWith('access-control-')))
  const preflight = (origin: string, path = '/api/user/profile') =>
    call(app, `OPTIONS ${path}`, { headers: { origin, 'access-control-request-method': 'PUT' } })

  test('a preflight from a configured origin says what may be sent', async () => {
    const reply = await preflight(ORIGIN)
    expect(reply.status).toBe(204)
    expect(reply.bytes).toHaveLength(0)
    expect(reply.headers.get('vary')).toBe('Origin')
    const {
      'access-control-allow-headers': allowed = '',
      'access-control-expose-headers': _,
      ...others
    } = corsHeaders(reply)
    expect(others).toEqual({
      'access-control-allow-origin': ORIGIN,
      'access-control-allow-methods': 'GET, HEAD, PUT, DELETE, OPTIONS',
      'access-control-max-age': '86400',
    })
    const proofs = ['authorization', 'x-api-key']
    const needed = [...proofs, 'content-type', 'idempotency-key', 'prefer', 'x-request-id', 'if-none-match']
    expect(allowed.split(', ')).toEqual(expect.arrayContaining(needed))
  })

  test.each([
    { what: 'a reply', path: '/api/config', status: 200 },
    { what: 'a refusal', path: '/api/user/profile', status: 401 },
    { what: 'a 404', path: '/api/user/nothing', status: 404 },
  ])('$what can be read from a configured origin, its headers too, without credentials', async ({ path, status }) => {
    const reply = await call(app, `GET ${path}`, { headers: { origin: ORIGIN } })
    expect(reply.status).toBe(status)
    const { 'access-control-expose-headers': exposed = '', ...others } = corsHeaders(reply)
    expect(others).toEqual({ 'access-control-allow-origin': ORIGIN })
    const limits = ['ratelimit', 'ratelimit-policy', 'retry-after']
    const needed = [...limits, 'x-request-id', 'idempotent-replayed', 'location', 'preference-applied']
    expect(exposed.split(', ')).toEqual(expect.arrayContaining(needed))
    expect(reply.headers.get('vary')).toBe('Origin')
  })

  test.each([
    'https://evil.example',
    `${ORIGIN}.evil.example`,
    'http://app.example.com',
    `${ORIGIN}:8443`,
    `${ORIGIN}/`,
    'null',
    '*',
  ])('the origin %s gets nothing', async (origin) => {
    const reply = await call(app, 'GET /api/config', { headers: { origin } })
    expect(reply.status).toBe(200)
    expect(corsHeaders(reply)).toEqual({})
    expect(reply.headers.get('vary'), 'a cache must tell origins apart').toBe('Origin')
    expect(corsHeaders(await preflight(origin))).not.toHaveProperty('access-control-allow-origin')
  })

  test('a preflight for nothing is 404', async () => {
    expect((await preflight(ORIGIN, '/api/user/nothing')).status).toBe(404)
  })
})

describe('request ids', () => {
  test.each(['abcd1234', 'A_b-9'.repeat(5), 'x'.repeat(128), crypto.randomUUID()])(
    'keeps the sane id %s',
    async (id) => {
      const { headers, json } = await call(app, 'GET /api/user/profile', { headers: { 'x-request-id': id } })
      expect(headers.get('x-request-id')).toBe(id)
      expect(json.error.requestId).toBe(id)
      expect(logLines()).toMatchObject([{ requestId: id }])
    },
  )

  test.each(['', 'short', 'x'.repeat(129), 'with space', '<script>alert(1)</script>', 'naïve-naïve', 'a,b,c,d,e,f'])(
    'replaces the id %s',
    async (id) => {
      const { headers } = await call(app, 'GET /api/user/profile', { headers: { 'x-request-id': id } })
      expect(headers.get('x-request-id')).toMatch(/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/)
    },
  )
})

describe('security headers', () => {
  test('stand on every reply', async () => {
    const replies = [
      await call(app, 'GET /api/health'),
      await call(app, 'GET /api/config'),
      await call(app, 'OPTIONS /api/config'),
      await call(app, 'GET /api/user/profile'),
      await call(app, 'GET /api/user/nothing'),
      await call(app, 'PATCH /api/user/profile'),
      await putProfile(json('{')),
      await call(app, 'POST /api/auth/logout', { body: { refreshToken: 'rt_none' } }),
    ]
    await without('usage_logs', async () => {
      replies.push(await call(app, 'GET /api/user/usage', { token: user.token }))
    })
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 204, 401, 404, 405, 400, 204, 500])
    for (const { headers } of replies) {
      const { 'cache-control': cacheControl, ...own } = Object.fromEntries(headers)
      expect(own).toMatchObject({
        'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
        'referrer-policy': 'no-referrer',
        'strict-transport-security': 'max-age=63072000; includeSubDomains',
        vary: 'Origin',
        'x-content-type-options': 'nosniff',
        'x-request-id': expect.stringMatching(/^[\w-]{8,}$/),
      })
      expect(cacheControl).toBe(headers.has('etag') ? 'public, max-age=0, must-revalidate' : 'no-store')
      expect(own).not.toHaveProperty('x-powered-by')
      expect(own).not.toHaveProperty('set-cookie')
    }
  })
})

describe('bodies', () => {
  test.each([
    { why: 'empty', body: '', says: /empty/ },
    { why: 'cut short', body: '{"name":"Ad', says: /JSON/ },
    { why: 'JavaScript', body: "{name: 'Ada'}", says: /JSON/ },
    { why: 'two values', body: '{}{}', says: /JSON/ },
    { why: 'not UTF-8', body: Buffer.from([0x7b, 0xff, 0xfe, 0x7d]), says: /JSON/ },
  ])('a body that is $why is INVALID_JSON', async ({ body, says }) => {
    const { status, json: reply } = await putProfile({ ...json(''), body })
    expect(status).toBe(400)
    expect(reply.error).toMatchObject({ code: 'INVALID_JSON', message: expect.stringMatching(says), details: {} })
  })

  test.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/xml',
    'text/json',
  ])('a body of the type %s is 415', async (type) => {
    const { status, json: reply } = await putProfile(json('{"name":"Ada"}', { 'content-type': type }))
    expect(status).toBe(415)
    expect(reply.error.code).toBe('UNSUPPORTED_MEDIA_TYPE')
  })

  test.each([
    'application/json',
    'application/json; charset=utf-8',
    'APPLICATION/JSON',
    'application/merge-patch+json',
  ])('a body of the type %s is read as JSON', async (type) => {
    expect((await putProfile(json('{"name":"Ada"}', { 'content-type': type }))).status).toBe(200)
  })

  test('a body over the cap is 413 by what it declares, before it is read', async () => {
    const reply = await putProfile(json('{"name":"Ada"}', { 'content-length': String(JSON_BYTES_MAX + 1) }))
    expect(reply.status).toBe(413)
    expect(reply.json.error).toMatchObject({ code: 'PAYLOAD_TOO_LARGE', details: { bytesMax: JSON_BYTES_MAX } })
  })

  test('a body that declares less than it has is held to the cap all the same', async () => {
    const body = JSON.stringify({ name: 'x'.repeat(JSON_BYTES_MAX) })
    expect((await putProfile(json(body, { 'content-length': '20' }))).status).toBe(413)
    expect((await putProfile(json(body))).status).toBe(413)
  })

  test('a body that comes in pieces and declares nothing is held to the cap all the same', async () => {
    const pieces = Array.from({ length: 12 }, () => new Uint8Array(10_000).fill(0x20))
    const headers = { authorization: `Bearer ${user.token}`, 'content-type': 'application/json' }
    const init = { method: 'PUT', body: ReadableStream.from(pieces), headers, duplex: 'half' as const }
    const response = await app.fetch(new Request('http://localhost/api/user/profile', init))
    expect(response.status).toBe(413)
  })

  test('a body of the cap exactly is read', async () => {
    const body = '{"name":"Ada"}'.padEnd(JSON_BYTES_MAX)
    expect((await putProfile(json(body))).status).toBe(200)
    expect((await putProfile(json(`${body} `))).status).toBe(413)
  })

  test('every issue is reported at the path of its field', async () => {
    const { status, json: reply } = await putProfile({
      token: user.token,
      body: { name: '', nickname: 'x', preferences: { theme: { dark: true }, ok: 1 } },
    })
    expect(status).toBe(400)
    expect(reply.error.code).toBe('VALIDATION_FAILED')
    const { issues } = reply.error.details
    expect(issues).toContainEqual({ path: 'nickname', message: 'Unknown field.' })
    expect(issues.map(({ path }: { path: string }) => path).sort()).toEqual(['name', 'nickname', 'preferences.theme'])
    for (const issue of issues)
      expect(issue).toEqual({ path: expect.any(String), message: expect.stringMatching(/\S/) })
  })

  test.each(['[]', 'null', '"text"', '42', 'true'])('the JSON %s where an object belongs is refused', async (body) => {
    const { status, json: reply } = await putProfile(json(body))
    expect(status).toBe(400)
    expect(reply.error.details.issues).toMatchObject([{ path: '' }])
  })

  test('a field that means something to JavaScript only is an unknown field like others, or means nothing', async () => {
    for (const name of ['__proto__', 'constructor', 'prototype', 'toString']) {
      await putProfile(json(`{"name":"Ada","${name}":{"role":"admin","polluted":true}}`))
    }
    expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false)
    expect((await call(app, 'GET /api/user/profile', { token: user.token })).json).toMatchObject({
      name: 'Ada',
      role: 'user',
    })
  })
})

describe('failures on our side', () => {
  test('tell the client nothing but that they happened, and the log why', async () => {
    await without('usage_logs', async () => {
      const { status, headers, json: reply } = await call(app, 'GET /api/user/usage', { token: user.token })
      expect(status).toBe(500)
      expect(reply).toEqual({
        error: {
          code: 'INTERNAL_ERROR',
          message: 'Something went wrong on our side.',
          details: {},
          timestamp: expect.any(String),
          requestId: headers.get('x-request-id'),
        },
      })
      const [line] = logLines()
      expect(line).toMatchObject({
        level: 'error',
        requestId: headers.get('x-request-id'),
        status: 500,
        code: 'INTERNAL_ERROR',
        error: {
          message: expect.stringContaining('"usage_logs" does not exist'),
          stack: expect.stringContaining('listUsage'),
        },
      })
    })
  })

  test('log neither password nor token nor address', async () => {
    const { email, password, refreshToken, token } = user
    await without('refresh_tokens', async () => {
      await call(app, 'POST /api/auth/login', { body: { email, password } })
      await call(app, 'POST /api/auth/refresh', { body: { refreshToken } })
      await call(app, 'GET /api/user/profile', { token })
    })
    await without('users', async () => {
      const body = { name: 'Bob', email: 'bob@example.com', password: 'a password nobody may see' }
      await call(app, 'POST /api/auth/register', { body })
    })
    const lines = logLines()
    expect(lines.map(({ status }) => status)).toEqual([500, 500, 500, 500])
    const log = JSON.stringify(lines)
    for (const secret of [
      email,
      password,
      refreshToken,
      token,
      'bob@example.com',
      'a password nobody may see',
      user.id,
    ]) {
      expect(log).not.toContain(secret)
    }
  })
})

describe('the log', () => {
  const hashed = () => createHash('sha256').update(user.id).digest('hex').slice(0, 12)

  test('has one line per request that says what it was, how it went, and for whom without naming them', async () => {
    const { headers } = await call(app, 'GET /api/user/usage?tool=private', { token: user.token })
    expect(logLines()).toEqual([
      {
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
        level: 'info',
        event: 'request',
        requestId: headers.get('x-request-id'),
        method: 'GET',
        path: '/api/user/usage',
        route: 'GET /api/user/usage',
        status: 200,
        ms: expect.any(Number),
        user: hashed(),
      },
    ])
  })

  test.each([
    {
      what: 'GET /api/user/nothing',
      line: { level: 'info', status: 404, code: 'NOT_FOUND', path: '/api/user/nothing' },
    },
    { what: 'PATCH /api/user/profile', line: { level: 'info', status: 405, code: 'METHOD_NOT_ALLOWED' } },
    {
      what: 'GET /api/user/profile',
      line: { level: 'info', status: 401, code: 'UNAUTHENTICATED', route: 'GET /api/user/profile' },
    },
    { what: 'OPTIONS /api/user/profile', line: { level: 'info', status: 204 } },
  ])('has one line also for $what', async ({ what, line }) => {
    await call(app, what)
    expect(logLines()).toHaveLength(1)
    expect(logLines()).toMatchObject([line])
  })

  test.each([
    '/api/user/ada@example.com',
    '/api/user/ada%40example.com',
    '/api/user/eyJhbGciOi.eyJzdWIi.c2ln',
    `/api/user/rt_${'x'.repeat(43)}`,
  ])('does not keep what stands in the address %s', async (path) => {
    await call(app, `GET ${path}`)
    expect(logLines()).toMatchObject([{ status: 404, path: '/api/user/[redacted]' }])
  })
})
