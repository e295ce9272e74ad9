// What every route refuses, from one table made of the route tables: no route can be added without being in it.
import { beforeAll, describe, expect, test } from 'vitest'
import { type App, type CallOptions, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { suspend } from '../support/money.ts'
import { allRoutes, examplePath, type ListedRoute } from '../support/routes.ts'

let app: App
let user: TestUser
let suspended: TestUser
let signedOut: TestUser

beforeAll(async () => {
  app = await startApp({ CRON_SECRET: 'the-schedulers-own' })
  user = await givenUser(app)
  suspended = await givenUser(app)
  signedOut = await givenUser(app)
  await suspend(suspended.id)
  await call(app, 'POST /api/auth/logout', { body: { refreshToken: signedOut.refreshToken } })
})

interface Refusal {
  why: string
  applies: (listed: ListedRoute) => boolean
  send: () => CallOptions
  status: number
  code: string
}

const needsUser = ({ route }: ListedRoute) => ['user', 'spender', 'admin'].includes(route.access)
const takesJson = ({ route }: ListedRoute) => route.body !== undefined
const takesBody = ({ route }: ListedRoute) => route.body !== undefined || route.read !== undefined
const image = { body: Buffer.from('not reached'), headers: { 'content-type': 'image/jpeg' } }
/** Good enough proof for any route, so that only what is tested can be what is refused. */
const proof = (listed: ListedRoute, token: string): CallOptions => (needsUser(listed) ? { token } : {})

const REFUSALS: Refusal[] = [
  {
    why: 'nobody',
    applies: (listed) => needsUser(listed) || listed.route.access === 'cron',
    send: () => ({}),
    status: 401,
    code: 'UNAUTHENTICATED',
  },
  {
    why: 'garbage for a token',
    applies: (listed) => needsUser(listed) || listed.route.access === 'cron',
    send: () => ({ token: 'abc.def.ghi' }),
    status: 401,
    code: 'UNAUTHENTICATED',
  },
  {
    why: 'a user for the scheduler',
    applies: ({ route }) => route.access === 'cron',
    send: () => ({ token: user.token }),
    status: 401,
    code: 'UNAUTHENTICATED',
  },
  {
    why: 'a suspended user',
    applies: ({ route }) => ['user', 'admin'].includes(route.access),
    send: () => ({ token: suspended.token }),
    status: 403,
    code: 'ACCOUNT_SUSPENDED',
  },
  {
    why: 'a session that was ended',
    applies: ({ route }) => ['user', 'admin'].includes(route.access),
    send: () => ({ token: signedOut.token }),
    status: 401,
    code: 'UNAUTHENTICATED',
  },
  {
    why: 'a user who is no admin',
    applies: ({ route }) => route.access === 'admin',
    send: () => ({ token: user.token }),
    status: 404,
    code: 'NOT_FOUND',
  },
  {
    why: 'truncated JSON',
    applies: takesJson,
    send: () => ({ body: '{"a":', headers: { 'content-type': 'application/json' } }),
    status: 400,
    code: 'INVALID_JSON',
  },
  {
    why: 'an unknown field',
    applies: takesJson,
    send: () => ({ body: { surprise: 1 } }),
    status: 400,
    code: 'VALIDATION_FAILED',
  },
  {
    why: 'a list for an object',
    applies: takesJson,
    send: () => ({ body: [] }),
    status: 400,
    code: 'VALIDATION_FAILED',
  },
  {
    why: 'a body of another type',
    // Of what is signed, the signature alone counts.
    applies: (listed) => takesBody(listed) && listed.route.access !== 'signature',
    send: () => ({ body: 'hello', headers: { 'content-type': 'text/plain' } }),
    status: 415,
    code: 'UNSUPPORTED_MEDIA_TYPE',
  },
  {
    why: 'a body of 6 MB',
    applies: takesBody,
    send: () => ({
      body: Buffer.alloc(6_000_000),
      headers: { 'content-type': 'application/json', 'content-length': '6000000' },
    }),
    status: 413,
    code: 'PAYLOAD_TOO_LARGE',
  },
]

// Of Clerk there is nothing under local sign-in; tests of its own refuse there.
const routes = (await allRoutes()).filter(({ path }) => path !== '/api/webhooks/clerk')
const cases = REFUSALS.flatMap((refusal) =>
  routes
    .filter((listed) => refusal.applies(listed))
    .map((listed) => ({ ...refusal, listed, route: `${listed.method} ${listed.path}` })),
)

describe('refusals', () => {
  test.each(cases)('$route refuses $why with $status', async ({ listed, send, status, code }) => {
    const bodyTest = ![401, 403, 404].includes(status)
    const admin = listed.route.access === 'admin' && bodyTest
    if (admin) await makeAdmin(true)
    const options = { ...(bodyTest && proof(listed, user.token)), ...send() }
    const reply = await call(app, `${listed.method} ${examplePath(listed.path)}`, options)
    if (admin) await makeAdmin(false)
    expect(reply.json).toMatchObject({ error: { code } })
    expect(reply.status).toBe(status)
    expect(reply.json.error.requestId).toBe(reply.headers.get('x-request-id'))
  })

  test.each(routes.map(({ path }) => path).filter((path, index, all) => all.indexOf(path) === index))(
    '%s answers 405 with Allow to a method it does not offer',
    async (path) => {
      const { status, headers, json } = await call(app, `SEARCH ${examplePath(path)}`)
      expect(status).toBe(405)
      expect(json.error.code).toBe('METHOD_NOT_ALLOWED')
      const offered = routes.filter((listed) => listed.path === path).map(({ method }) => method)
      expect(headers.get('allow')?.split(', ')).toEqual(expect.arrayContaining([...offered, 'OPTIONS']))
    },
  )

  test('a spender who is suspended or signed out is refused by the reservation itself', async () => {
    const { photo } = await import('../support/app.ts')
    const send = (token: string) => call(app, 'POST /api/process-image', { token, ...image, body: photo() })
    expect((await send(suspended.token)).json.error.code).toBe('ACCOUNT_SUSPENDED')
    expect((await send(signedOut.token)).json.error.code).toBe('UNAUTHENTICATED')
  })
})

async function makeAdmin(admin: boolean): Promise<void> {
  const { db } = await import('../../db/client.ts')
  await db()
    .updateTable('users')
    .set({ role: admin ? 'admin' : 'user' })
    .where('id', '=', user.id)
    .execute()
}
