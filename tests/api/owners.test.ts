// Every address that names an object, called by its owner and by a stranger: the list is made of the route tables.
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { call, type TestUser } from '../support/app.ts'
import { ordered, outcomeOf } from '../support/jobs.ts'
import { buy, checkout, type Payments, startPayments } from '../support/payments.ts'
import { allRoutes } from '../support/routes.ts'

type Member = TestUser & Account

interface OwnedObject {
  /** Makes an object of the owner's; returns its id. */
  make: (owner: Member) => Promise<string>
  body?: object
  /** What the owner is answered. */
  status: number
  /** The object as it is kept, to be the same after a stranger came. */
  kept: (id: string) => Promise<unknown>
}

let payments: Payments

beforeAll(async () => {
  payments = await startPayments()
})

const session: Pick<OwnedObject, 'make' | 'kept'> = {
  make: async ({ sessionId }) => sessionId,
  kept: (id) => db().selectFrom('refresh_tokens').selectAll().where('family_id', '=', id).execute(),
}

const apiKey: Pick<OwnedObject, 'make' | 'kept'> = {
  make: async ({ token }) =>
    (await call(payments.app, 'POST /api/api-keys', { token, body: { name: 'mine' } })).json.id,
  kept: (id) => db().selectFrom('api_keys').selectAll().where('id', '=', id).execute(),
}

const job: Pick<OwnedObject, 'make' | 'kept'> = {
  make: async (owner) => {
    const id = await ordered(payments.app, owner)
    await outcomeOf(payments.app, owner, id)
    return id
  },
  kept: (id) => db().selectFrom('jobs').selectAll().where('id', '=', id).execute(),
}

/** What each parameter of an address names. Admin routes are not here: nobody owns what they name. */
const OBJECTS: Record<string, OwnedObject> = {
  'DELETE /api/auth/sessions/:id': { ...session, status: 204 },
  'DELETE /api/api-keys/:id': { ...apiKey, status: 204 },
  'POST /api/api-keys/:id/rotate': { ...apiKey, status: 201, body: {} },
  'GET /api/jobs/:id': { ...job, status: 200 },
  // One that has ended: to a stranger there is none, to its owner it is too late.
  'DELETE /api/jobs/:id': { ...job, status: 409 },
  'POST /api/billing/checkouts/:id/sync': {
    make: (owner) => checkout(payments, owner, { pack: 'starter' }),
    status: 200,
    kept: () => db().selectFrom('billing_orders').selectAll().orderBy('id').execute(),
  },
  'GET /api/billing/invoices/:orderId': {
    make: async (owner) => (await buy(payments, owner, { pack: 'starter' })).id,
    status: 200,
    kept: (id) => db().selectFrom('billing_orders').selectAll().where('id', '=', id).execute(),
  },
}

const named = (await allRoutes()).filter(({ path, route }) => path.includes('/:') && route.access !== 'admin')

describe('owners', () => {
  test('every address that names an object is in the list, and no other', () => {
    expect(Object.keys(OBJECTS).sort()).toEqual(named.map(({ method, path }) => `${method} ${path}`).sort())
  })

  test.each(Object.entries(OBJECTS))('%s serves the owner, and is not there for a stranger', async (route, object) => {
    const [owner, stranger, admin] = [await member(), await member(), await givenAccount({ role: 'admin' })]
    const id = await object.make(owner)
    const before = await object.kept(id)
    const options = object.body && { body: object.body }
    const address = (which: string) => route.replace(/:\w+$|:\w+(?=\/)/, which)

    for (const { token } of [stranger, admin]) {
      const refused = await call(payments.app, address(id), { token, ...options })
      const unknown = await call(payments.app, address('00000000-0000-4000-8000-000000000000'), { token, ...options })
      expect(refused.json.error).toMatchObject({ code: 'NOT_FOUND', message: unknown.json.error.message })
      expect(refused.status).toBe(404)
    }
    expect(await object.kept(id)).toEqual(before)
    const served = await call(payments.app, address(id), { token: owner.token, ...options })
    expect(served.status, JSON.stringify(served.json)).toBe(object.status)
  })

  test.each(Object.keys(OBJECTS))('%s answers 404 to what is no id at all', async (route) => {
    const { token } = await member()
    const body = OBJECTS[route]?.body
    for (const id of ['1', 'x'.repeat(200), "'; drop table users; --", '%00', '../users']) {
      const address = route.replace(/:\w+/, encodeURIComponent(id))
      const { status, json } = await call(payments.app, address, { token, ...(body && { body }) })
      expect(`${status} ${json.error.code}`, id).toBe('404 NOT_FOUND')
    }
  })
})

async function member(): Promise<Member> {
  return { ...(await givenAccount()), password: '' }
}
