// Which session tokens of Clerk are worth anything: those of this application, for this site, in time, and no others.
import { createHmac } from 'node:crypto'
import { SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { keyFor } from '../../lib/auth/secret.ts'
import { type App, call, type Reply, startApp, type TestUser } from '../support/app.ts'
import { type ClerkStub, givenClerkUser, startClerkStub } from '../support/clerk-stub.ts'
import {
  MACHINE_CATEGORY,
  mintToken,
  newInstance,
  OWN_ORIGIN,
  TEMPLATE_CATEGORY,
  type TokenOptions,
} from '../support/clerk-tokens.ts'

let clerk: ClerkStub
let app: App
let ada: TestUser & { clerkId: string }

beforeAll(async () => {
  clerk = await startClerkStub()
  app = await startApp({ ...clerk.variables, FORK__CORS__ORIGINS: '["https://app.example.com"]' })
  ada = await givenClerkUser(app, clerk)
})

afterAll(() => clerk.close())

const mint = (options?: TokenOptions) => clerk.token(ada.clerkId, options)

/** A token that is signed with the public key, as if that were a shared secret. */
function confused(): string {
  const [, payload] = mint().split('.')
  const header = Buffer.from(JSON.stringify({ alg: 'HS256', typ: 'JWT', kid: clerk.instance.kid })).toString(
    'base64url',
  )
  const signature = createHmac('sha256', clerk.instance.jwtKey).update(`${header}.${payload}`).digest('base64url')
  return `${header}.${payload}.${signature}`
}

/** A token of local sign-in, signed with the secret of this very deployment. */
async function local(): Promise<string> {
  return await new SignJWT({ sid: crypto.randomUUID() })
    .setProtectedHeader({ alg: 'HS256', typ: 'at+jwt' })
    .setSubject(ada.id)
    .setIssuer('local')
    .setAudience('api')
    .setIssuedAt()
    .setExpirationTime('15m')
    .sign(keyFor('access-token'))
}

function changed(token: string): string {
  const [header, payload = '', signature] = token.split('.')
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString())
  const other = Buffer.from(JSON.stringify({ ...claims, sub: 'user_2somebodyElse00000000000000' })).toString(
    'base64url',
  )
  return [header, other, signature].join('.')
}

const asks: Record<string, (authorization: string) => Promise<Reply>> = {
  'a route that looks the caller up': (authorization) =>
    call(app, 'GET /api/user/profile', { headers: { authorization } }),
  'a route whose reservation does': (authorization) =>
    call(app, 'POST /api/process-image', {
      headers: { authorization, 'content-type': 'image/jpeg' },
      body: 'no photo',
    }),
  'a route for visitors': (authorization) => call(app, 'GET /api/health/ready', { headers: { authorization } }),
}

const FORGERIES: { why: string; make: () => string | Promise<string>; code?: string }[] = [
  { why: 'garbage', make: () => 'garbage' },
  { why: 'three parts of garbage', make: () => 'a.b.c' },
  { why: 'a good header before garbage', make: () => `${mint().split('.')[0]}.b.c` },
  { why: 'cut short', make: () => mint().split('.').slice(0, 2).join('.') },
  { why: 'unsigned (alg none)', make: () => mint({ header: { alg: 'none' } }).replace(/[^.]+$/, '') },
  { why: 'signed with HS256 and the public key', make: confused },
  { why: 'a token of local sign-in', make: local },
  { why: 'signed with another key', make: () => mintToken({ ...newInstance(), kid: clerk.instance.kid }, ada.clerkId) },
  { why: 'changed after it was signed', make: () => changed(mint()) },
  { why: 'of another issuer', make: () => mint({ claims: { iss: 'https://other-app-2.clerk.accounts.dev' } }) },
  { why: 'of no issuer', make: () => mint({ claims: { iss: undefined } }) },
  { why: 'for a foreign origin', make: () => mint({ claims: { azp: 'https://evil.example' } }) },
  { why: 'for our host under another scheme', make: () => mint({ claims: { azp: 'https://localhost' } }) },
  { why: 'for an origin that is no text', make: () => mint({ claims: { azp: [OWN_ORIGIN] } }) },
  { why: 'of a session that waits for a task', make: () => mint({ claims: { sts: 'pending' } }) },
  { why: 'made by a template', make: () => mint({ header: { cat: TEMPLATE_CATEGORY } }) },
  { why: "a machine's", make: () => mint({ header: { cat: MACHINE_CATEGORY } }) },
  { why: 'of another type', make: () => mint({ header: { typ: 'at+jwt' } }) },
  { why: 'expired six seconds ago', make: () => mint({ expiresIn: -6 }), code: 'TOKEN_EXPIRED' },
  {
    why: 'expired and signed with another key',
    make: () => mintToken({ ...newInstance(), kid: clerk.instance.kid }, ada.clerkId, { expiresIn: -6 }),
  },
  { why: 'not valid yet', make: () => mint({ claims: { nbf: Math.floor(Date.now() / 1000) + 60 } }) },
  { why: 'issued in the future', make: () => mint({ claims: { iat: Math.floor(Date.now() / 1000) + 60 } }) },
  { why: 'without expiry', make: () => mint({ claims: { exp: undefined } }) },
  { why: 'without a session', make: () => mint({ claims: { sid: undefined } }) },
  { why: 'of an empty session', make: () => mint({ claims: { sid: '' } }) },
  { why: 'without a user', make: () => mint({ claims: { sub: undefined } }) },
  { why: 'of something that is no user', make: () => mint({ claims: { sub: 'mch_2RfWKJREkjKbHZy0Wqa5qrHeAnb' } }) },
  { why: 'of a user of ours by our own id', make: () => mint({ claims: { sub: ada.id } }) },
  { why: 'of a user whom Clerk does not know', make: () => clerk.token('user_2nobody00000000000000000000') },
]

describe('tokens', () => {
  test.each(FORGERIES)('are worth nothing when $why', async ({ make, code = 'UNAUTHENTICATED' }) => {
    const token = await make()
    for (const [where, ask] of Object.entries(asks)) {
      const { status, json } = await ask(`Bearer ${token}`)
      expect([status, json.error.code], where).toEqual([401, code])
      expect(json.error.details, where).toEqual({})
    }
  })

  test('are told apart by nothing but the log', async () => {
    const messages = new Set<string>()
    for (const { make, code } of FORGERIES.filter(({ why }) => !why.includes('does not know'))) {
      if (code === undefined)
        messages.add((await asks['a route for visitors']?.(`Bearer ${await make()}`))?.json.error.message)
    }
    expect([...messages]).toEqual(['The session token is not valid.'])
  })

  const GOOD: { why: string; options?: TokenOptions }[] = [
    { why: 'for our own origin' },
    { why: 'for an origin of cors.origins', options: { claims: { azp: 'https://app.example.com' } } },
    { why: 'for no origin, as apps get them', options: { claims: { azp: undefined } } },
    { why: 'expired three seconds ago, as clocks differ', options: { expiresIn: -3 } },
    { why: 'of no category', options: { header: { cat: undefined } } },
    { why: 'of no state', options: { claims: { sts: undefined } } },
    { why: 'without ages of factors', options: { claims: { fva: undefined } } },
    { why: 'with ages in a form we do not know', options: { claims: { fva: 'later' } } },
    { why: 'with claims that were added', options: { claims: { email: 'not an address', metadata: {} } } },
  ]

  test.each(GOOD)('are good $why', async ({ options }) => {
    const { status, json } = await call(app, 'GET /api/user/profile', { token: mint(options) })
    expect([status, json.id]).toEqual([200, ada.id])
  })

  test('count in the Authorization header alone, never in a cookie', async () => {
    const headers = { cookie: `__session=${mint()}` }
    expect((await call(app, 'GET /api/user/profile', { headers })).status).toBe(401)
    expect((await call(app, 'GET /api/user/profile', { headers: { 'x-api-key': mint() } })).status).toBe(401)
  })

  test('are verified without asking Clerk for anything', async () => {
    clerk.calls.length = 0
    for (let times = 0; times < 3; times++)
      expect((await call(app, 'GET /api/user/profile', { token: mint() })).status).toBe(200)
    expect(clerk.calls).toEqual([])
  })
})

test.each(['register', 'login', 'refresh', 'logout'])(
  'POST /api/auth/%s of local sign-in is not there',
  async (action) => {
    expect((await call(app, `POST /api/auth/${action}`, { body: {} })).status).toBe(404)
  },
)
