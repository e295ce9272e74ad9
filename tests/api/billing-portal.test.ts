// Who is who at Polar: the portal and the invoices of the user alone, also where their address belongs to somebody else.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { call, givenUser, type TestUser } from '../support/app.ts'
import { ledgerViolations } from '../support/money.ts'
import {
  buy,
  checkout,
  freeWith,
  givenStranger,
  ordersOf,
  type Payments,
  post,
  standing,
  startPayments,
} from '../support/payments.ts'

let payments: Payments
let user: TestUser

beforeAll(async () => {
  payments = await startPayments()
})

beforeEach(async () => {
  user = await givenUser(payments.app)
})

afterEach(async () => {
  payments.wire.answer = undefined
  await payments.polar.settled()
  expect(await ledgerViolations()).toEqual([])
})

describe.each([
  { whose: 'a customer that is linked to nobody', externalId: () => null },
  { whose: 'a customer that is linked to another user', externalId: (other: TestUser) => other.id },
])('an address that belongs to $whose', ({ externalId }) => {
  let other: TestUser
  let stranger: { id: string }

  beforeEach(async () => {
    other = await givenUser(payments.app, 'Bob')
    stranger = await givenStranger(payments, user, externalId(other))
  })

  test('is not filled in for the buyer, whose purchase is their own whatever they type', async () => {
    const id = await checkout(payments, user, { pack: 'starter' })
    expect(payments.shop.checkouts.get(id)).toMatchObject({ customer_id: null, customer_email: null })
    const order = payments.shop.pay(id, { email: user.email })
    await payments.polar.settled()
    expect(order.customer_id).toBe(stranger.id)
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await ordersOf(user)).toMatchObject([{ id: order.id, status: 'paid', tokens_granted: 500, problem: null }])
    expect(await standing(payments, other)).toEqual(freeWith())
    expect(await ordersOf(other)).toEqual([])
    expect(payments.shop.customers.get(stranger.id)?.external_id).toBe(externalId(other))

    const second = await buy(payments, user, { pack: 'family' }, { email: `${crypto.randomUUID()}@example.com` })
    expect(second.customer_id).not.toBe(stranger.id)
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 2900 }))
  })

  test("shows nothing of the stranger's: no portal, no invoice, no checkout", async () => {
    const { products } = payments.shop.checkouts.get(await checkout(payments, user, { pack: 'starter' })) ?? {}
    const theirs = await payments.client.checkouts.create({
      products: [products?.[0]?.id ?? ''],
      customer_id: stranger.id,
    })
    const theirOrder = payments.shop.pay(theirs.id)
    await payments.polar.settled()

    const { size } = payments.shop.customers
    const portal = await post(payments, user, 'portal')
    expect([portal.status, portal.json.error.code]).toEqual([409, 'CONFLICT'])
    expect(JSON.stringify(portal.json)).not.toMatch(/Somebody Else|customer_session|portal\?/)
    expect((await post(payments, user, `checkouts/${theirs.id}/sync`)).status).toBe(404)
    const invoice = await call(payments.app, `GET /api/billing/invoices/${theirOrder.id}`, { token: user.token })
    expect(invoice.status).toBe(404)
    const { json } = await call(payments.app, 'GET /api/billing/history', { token: user.token })
    expect(JSON.stringify(json)).not.toContain(theirOrder.id)
    expect(await standing(payments, user)).toEqual(freeWith())
    expect(payments.shop.customers.size).toBe(size)
  })
})

describe('POST /api/billing/portal', () => {
  test('opens the purchases of the user, who need not have bought anything', async () => {
    const { status, json } = await post(payments, user, 'portal', { returnUrl: 'http://localhost/account' })
    expect(status).toBe(201)
    expect(json).toEqual({ portalUrl: expect.stringContaining('/portal?'), expiresAt: expect.any(String) })
    const page = await fetch(json.portalUrl)
    expect(page.status).toBe(200)
    expect((await post(payments, user, 'portal')).status).toBe(201)
    expect([...payments.shop.customers.values()].filter(({ external_id }) => external_id === user.id)).toHaveLength(1)
  })
})

describe('GET /api/billing/invoices/:orderId', () => {
  const invoice = (orderId: string, { token } = user) =>
    call(payments.app, `GET /api/billing/invoices/${orderId}`, { token })
  const withAddress = (customerId: string) =>
    payments.client.customers.update(customerId, { billing_address: { country: 'FR' } })

  test('is made out to the user on the first call, and the same on the next', async () => {
    await post(payments, user, 'portal')
    const [customer] = [...payments.shop.customers.values()].filter(({ external_id }) => external_id === user.id)
    await withAddress(customer?.id ?? '')
    const order = await buy(payments, user, { pack: 'starter' })
    const { status, json } = await invoice(order.id)
    expect([status, json]).toEqual([200, { orderId: order.id, status: 'ready', url: expect.any(String) }])
    expect(payments.shop.orders.get(order.id)?.billing_name).toBe('Ada')
    expect((await invoice(order.id)).json).toEqual(json)
  })

  test('that Polar is still writing is asked for later', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    const before = payments.wire.calls.length
    payments.wire.answer = (what) => {
      if (what === `GET /v1/orders/${order.id}/invoice`)
        return Response.json({ error: 'InvoiceDoesNotExist' }, { status: 404 })
      if (what === `POST /v1/orders/${order.id}/invoice`) return Response.json({}, { status: 202 })
      return undefined
    }
    const pending = await invoice(order.id)
    payments.wire.answer = undefined
    expect([pending.status, pending.json]).toEqual([202, { orderId: order.id, status: 'preparing' }])
    expect(Number(pending.headers.get('retry-after'))).toBeGreaterThan(0)
    const asked = payments.wire.calls.slice(before).filter((what) => what.startsWith('POST'))
    expect(asked).toEqual([`POST /v1/orders/${order.id}/invoice`])
  })

  test('without an address says where to add one', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    order.billing_address = null
    order.customer.billing_address = null
    const { status, json } = await invoice(order.id)
    expect([status, json.error.code]).toEqual([409, 'CONFLICT'])
    expect(json.error.message).toMatch(/address/)
  })

  test("is nobody else's", async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    const other = await givenUser(payments.app, 'Bob')
    const before = payments.wire.calls.length
    expect((await invoice(order.id, other)).status).toBe(404)
    expect(payments.wire.calls).toHaveLength(before)
  })
})
