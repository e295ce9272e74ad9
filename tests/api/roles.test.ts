// Every role against every route: the table is made of the route tables, so that no route can be added without being in it.
import { randomBytes } from 'node:crypto'
import { beforeAll, describe, expect, test } from 'vitest'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, call, startApp } from '../support/app.ts'
import { allRoutes, examplePath, type ListedRoute } from '../support/routes.ts'

const CRON_SECRET = randomBytes(16).toString('hex')

let app: App
let keyOwner: Account

beforeAll(async () => {
  // Not 'development', where mail is printed.
  app = await startApp({ CRON_SECRET, VERCEL_ENV: 'preview' })
  keyOwner = await givenAccount({ role: 'admin' })
})

const keys = new Map<string, Promise<string>>()

/** One key for each set of scopes: a user may have no more than twenty. */
function givenKey(scopes: string[]): Promise<string> {
  const name = scopes.join(' and ')
  const made = keys.get(name) ?? makeKey({ name, scopes })
  keys.set(name, made)
  return made
}

async function makeKey(body: object): Promise<string> {
  const { json } = await call(app, 'POST /api/api-keys', { token: keyOwner.token, body })
  return json.key
}

/** What a route answers a role: it lets them in, or refuses with this. */
type Verdict = 'in' | `${number} ${string}`

interface Role {
  who: string
  proof: () => Promise<string | undefined>
  verdict: (listed: ListedRoute) => Verdict
}

const open = ({ route }: ListedRoute) => ['public', 'visitor', 'signature'].includes(route.access)

/** For everybody but the scheduler: what is open is open, the sweep is not for them. */
function unless(listed: ListedRoute, other: (route: ListedRoute['route']) => Verdict): Verdict {
  if (open(listed)) return 'in'
  return listed.route.access === 'cron' ? '401 UNAUTHENTICATED' : other(listed.route)
}

function forKey(scopes: string[]): Role['verdict'] {
  return (listed) =>
    unless(listed, ({ access, scope }) => {
      if (access === 'admin') return '404 NOT_FOUND'
      return scope !== undefined && scopes.includes(scope) ? 'in' : '403 FORBIDDEN'
    })
}

const ROLES: Role[] = [
  {
    who: 'nobody',
    proof: async () => undefined,
    verdict: (listed) => unless(listed, () => '401 UNAUTHENTICATED'),
  },
  {
    who: 'a user',
    proof: async () => (await givenAccount()).token,
    verdict: (listed) => unless(listed, ({ access }) => (access === 'admin' ? '404 NOT_FOUND' : 'in')),
  },
  {
    who: 'an admin',
    proof: async () => (await givenAccount({ role: 'admin' })).token,
    verdict: (listed) => unless(listed, () => 'in'),
  },
  {
    who: 'a suspended admin',
    proof: async () => (await givenAccount({ role: 'admin', status: 'suspended' })).token,
    // A spender is told by the reservation, which a request without an image does not reach.
    verdict: (listed) => unless(listed, ({ access }) => (access === 'spender' ? 'in' : '403 ACCOUNT_SUSPENDED')),
  },
  {
    who: 'a deleted admin',
    proof: async () => (await givenAccount({ role: 'admin', status: 'deleted' })).token,
    verdict: (listed) => unless(listed, ({ access }) => (access === 'spender' ? 'in' : '401 UNAUTHENTICATED')),
  },
  { who: 'a key to generate, of an admin', proof: () => givenKey(['generate']), verdict: forKey(['generate']) },
  { who: 'a key to read, of an admin', proof: () => givenKey(['read']), verdict: forKey(['read']) },
  {
    who: 'a key for all, of an admin',
    proof: () => givenKey(['generate', 'read']),
    verdict: forKey(['generate', 'read']),
  },
  {
    who: 'the scheduler',
    proof: async () => CRON_SECRET,
    verdict: (listed) => {
      if (listed.route.access === 'visitor') return '401 UNAUTHENTICATED'
      return open(listed) || listed.route.access === 'cron' ? 'in' : '401 UNAUTHENTICATED'
    },
  },
]

/** Visitors are known when they say who they are, and refused when that is not true any more. */
function verdictOf({ who, verdict }: Role, listed: ListedRoute): Verdict {
  if (listed.route.access !== 'visitor') return verdict(listed)
  if (who === 'a suspended admin') return '403 ACCOUNT_SUSPENDED'
  return who === 'a deleted admin' || who === 'the scheduler' ? '401 UNAUTHENTICATED' : 'in'
}

const routes = await allRoutes()
const cases = ROLES.flatMap((role) =>
  routes
    // There is nothing of Clerk's under local sign-in.
    .filter(({ path }) => path !== '/api/webhooks/clerk')
    .map((listed) => ({
      role,
      who: role.who,
      listed,
      route: `${listed.method} ${listed.path}`,
      verdict: verdictOf(role, listed),
    })),
)

describe('roles', () => {
  test.each(cases)('$route answers $who: $verdict', async ({ role, listed, verdict }) => {
    const token = await role.proof()
    const { status, json } = await call(app, `${listed.method} ${examplePath(listed.path)}`, { token })
    const answer = `${status} ${json?.error?.code}`
    if (verdict !== 'in') return expect(answer).toBe(verdict)
    // In is whatever is said after the door: a missing body, an unknown id, an answer.
    const forgedOrUnproven = listed.route.access === 'signature' || listed.path.startsWith('/api/auth/')
    if (!forgedOrUnproven) expect(answer).not.toMatch(/^(401|403) /)
    expect(json?.error?.message).not.toBe('There is nothing at this address.')
  })

  test('API keys reach these routes, and no other', () => {
    const reached = routes.filter(({ route }) => route.scope !== undefined)
    expect(reached.map(({ method, path, route }) => `${method} ${path} ${route.scope}`).sort()).toEqual([
      'DELETE /api/jobs/:id generate',
      'GET /api/billing/analytics read',
      'GET /api/billing/history read',
      'GET /api/billing/invoices/:orderId read',
      'GET /api/billing/status read',
      'GET /api/jobs generate',
      'GET /api/jobs/:id generate',
      'GET /api/user/profile read',
      'GET /api/user/usage read',
      'GET /api/user/usage/summary read',
      'POST /api/process-image generate',
      'POST /api/process-image/uploads generate',
    ])
  })

  test('who acts in the name of a user may do all but these', () => {
    const personal = routes.filter(({ route }) => route.personal === true)
    expect(personal.map(({ method, path }) => `${method} ${path}`).sort()).toEqual(
      expect.arrayContaining([
        'DELETE /api/user/profile',
        'POST /api/api-keys',
        'POST /api/api-keys/:id/rotate',
        'POST /api/billing/checkout',
        'POST /api/billing/upgrade',
        'POST /api/billing/portal',
      ]),
    )
  })

  test.each(routes.filter(({ route }) => route.access === 'admin'))(
    '$method $path hides from a user who is no admin as an address that is not there',
    async ({ method, path }) => {
      const { token } = await givenAccount()
      const hidden = await call(app, `${method} ${examplePath(path)}`, { token })
      const [, , resource] = path.split('/')
      const absent = await call(app, `${method} /api/${resource}/no/such/address/at/all`, { token })
      const shape = ({ status, json }: typeof hidden) => ({
        status,
        code: json.error.code,
        message: json.error.message,
      })
      expect(shape(hidden)).toEqual(shape(absent))
    },
  )
})
