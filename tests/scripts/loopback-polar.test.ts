// The pretend Polar through the real SDK: every call answers in Polar's shapes, every act announces Polar's events in order.
import { createPolar, errors, type models, type Polar } from '@polar-sh/sdk/2026-10'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type LoopbackPolar, startLoopbackPolar } from '../../scripts/loopback-polar/server.ts'

const START = Date.parse('2026-11-20T12:00:00.123Z')
const DAY_MS = 86_400_000
const ADA = { email: 'ada@example.com', external_id: 'user_ada' }

let loopback: LoopbackPolar
let polar: Polar
let nowMs: number
let products: { tokens: string; starter: string; pro: string; enterprise: string }

beforeEach(async () => {
  nowMs = START
  const monthly = (name: string, price_amount: number) => ({
    name,
    metadata: { kind: 'plan', plan: name },
    recurring_interval: 'month' as const,
    prices: [{ amount_type: 'fixed' as const, price_amount }],
  })
  loopback = await startLoopbackPolar({
    now: () => nowMs,
    stableProductIds: true,
    products: [
      {
        name: 'Tokens',
        metadata: { kind: 'tokens' },
        prices: [{ amount_type: 'custom', minimum_amount: 500, maximum_amount: 50_000, preset_amount: 1000 }],
      },
      { name: 'Starter', prices: [{ amount_type: 'fixed', price_amount: 500 }] },
      monthly('pro', 2000),
      monthly('enterprise', 10_000),
    ],
  })
  const [tokens = '', starter = '', pro = '', enterprise = ''] = loopback.shop.products.keys()
  products = { tokens, starter, pro, enterprise }
  const { accessToken, baseUrl } = loopback
  polar = createPolar({ accessToken, baseUrl })
})

afterEach(() => loopback.close())

/** Types of the events since the last call. */
let seen = 0
beforeEach(() => {
  seen = 0
})
function eventsSince(): string[] {
  const { events } = loopback.deliveries
  const types = events.slice(seen).map(({ type }) => type)
  seen = events.length
  return types
}

async function givenOrder(amount = 1000): Promise<models.Order> {
  const { id } = await polar.checkouts.create({ products: [products.tokens], amount, customer_email: ADA.email })
  const order = loopback.shop.pay(id)
  eventsSince()
  return order
}

async function givenSubscription(): Promise<models.Subscription> {
  const { id } = await polar.checkouts.create({
    products: [products.pro],
    customer_email: ADA.email,
    metadata: { user_id: 'user_ada' },
  })
  const { subscription_id } = loopback.shop.pay(id)
  eventsSince()
  return await polar.subscriptions.get(subscription_id ?? '')
}

/** What Polar answered to a call that it refused. */
async function refusal(call: Promise<unknown>): Promise<{ name?: string; statusCode?: number; error?: unknown }> {
  return await call.then(
    () => expect.fail('The call was to be refused.'),
    (error: object) => error,
  )
}

describe('products', () => {
  test('are made, found by metadata, changed and archived', async () => {
    const made = await polar.products.create({
      name: 'Family',
      metadata: { kind: 'tokens', pack: 'family' },
      prices: [{ amount_type: 'fixed', price_amount: 2000, price_currency: 'usd' }],
    })
    const { items } = await polar.products.list({ metadata: { pack: 'family' } })
    expect(items).toEqual([made])
    const prices = [{ amount_type: 'fixed' as const, price_amount: 2500 }]
    expect((await polar.products.update(made.id, { prices })).prices).toMatchObject([{ price_amount: 2500 }])
    await polar.products.update(made.id, { is_archived: true })
    expect((await polar.products.list({ is_archived: true })).items.map(({ id }) => id)).toEqual([made.id])
    const call = polar.checkouts.create({ products: [made.id] })
    expect(await refusal(call)).toBeInstanceOf(errors.HTTPValidationError)
  })

  test('have the same ids in another run when that is asked for', async () => {
    const draft = { name: 'Starter', prices: [{ amount_type: 'fixed' as const, price_amount: 500 }] }
    const other = await startLoopbackPolar({ stableProductIds: true, products: [draft] })
    expect([...other.shop.products.keys()]).toEqual([products.starter])
    await other.close()
  })
})

describe('checkouts', () => {
  test('a single purchase announces itself in the order of Polar, with the metadata on the order', async () => {
    const metadata = { user_id: 'user_ada', kind: 'topup' }
    const checkout = await polar.checkouts.create({
      products: [products.tokens],
      amount: 700,
      customer_email: ADA.email,
      external_customer_id: ADA.external_id,
      metadata,
      success_url: 'https://my.app/ok?checkout_id={CHECKOUT_ID}',
    })
    expect(checkout).toMatchObject({
      status: 'open',
      amount: 700,
      success_url: `https://my.app/ok?checkout_id=${checkout.id}`,
    })
    const order = loopback.shop.pay(checkout.id)
    expect(eventsSince()).toEqual([
      'checkout.created',
      'checkout.updated',
      'customer.created',
      'order.created',
      'order.updated',
      'order.paid',
      'checkout.updated',
      'customer.state_changed',
    ])
    expect(order).toMatchObject({
      status: 'paid',
      net_amount: 700,
      tax_amount: 140,
      total_amount: 840,
      platform_fee_amount: 92,
      billing_reason: 'purchase',
      metadata,
      created_at: '2026-11-20T12:00:00.123000Z',
      customer: { external_id: ADA.external_id },
    })
    expect((await polar.checkouts.get(checkout.id)).status).toBe('succeeded')
    expect((await polar.orders.list({ checkout_id: checkout.id })).items).toEqual([order])
  })

  test('a custom amount has its bounds, for the seller and for the buyer', async () => {
    const call = polar.checkouts.create({ products: [products.tokens], amount: 499 })
    const { error, statusCode } = await refusal(call)
    expect(statusCode).toBe(422)
    expect(error).toMatchObject({ error: 'RequestValidationError', detail: [{ loc: ['body', 'amount'], input: 499 }] })
    const { id } = await polar.checkouts.create({ products: [products.tokens], customer_email: ADA.email })
    expect(() => loopback.shop.pay(id, { amountCents: 499 })).toThrow()
    expect(loopback.shop.pay(id, { amountCents: 2500 }).net_amount).toBe(2500)
  })

  test('prices of the checkout stand in for those of the catalogue', async () => {
    const fixed = await polar.checkouts.create({
      products: [products.tokens],
      prices: { [products.tokens]: [{ amount_type: 'fixed', price_amount: 1234 }] },
    })
    expect(fixed).toMatchObject({ amount: 1234, product_price: { source: 'ad_hoc', amount_type: 'fixed' } })
    const prices = { [products.starter]: [{ amount_type: 'custom' as const, minimum_amount: 900 }] }
    const call = polar.checkouts.create({ products: [products.starter], prices, amount: 800 })
    expect((await refusal(call)).statusCode).toBe(422)
  })

  test('a discount of everything leaves a paid order of nothing', async () => {
    const { id } = await polar.checkouts.create({ products: [products.starter], customer_email: ADA.email })
    const order = loopback.shop.pay(id, { discountPercent: 100 })
    expect(order).toMatchObject({
      status: 'paid',
      discount_amount: 500,
      net_amount: 0,
      total_amount: 0,
      platform_fee_amount: 0,
    })
    expect(eventsSince()).toContain('order.paid')
  })

  test('a declined card leaves the checkout open and nothing sold', async () => {
    const { id } = await polar.checkouts.create({ products: [products.starter], customer_email: ADA.email })
    expect(() => loopback.shop.pay(id, { card: 'declined' })).toThrow('declined')
    expect((await polar.checkouts.get(id)).status).toBe('open')
    expect(loopback.shop.orders.size).toBe(0)
    expect(loopback.shop.pay(id).status).toBe('paid')
    expect(() => loopback.shop.pay(id)).toThrow('succeeded')
  })

  test('an unlinked buyer lands on the customer of that e-mail, whatever its external id', async () => {
    const ada = await polar.customers.create(ADA)
    const open = { products: [products.starter], external_customer_id: 'user_bob' }
    const { id } = await polar.checkouts.create(open)
    expect(loopback.shop.pay(id, { email: 'ADA@example.com' }).customer).toMatchObject({
      id: ada.id,
      external_id: 'user_ada',
    })
    const late = await polar.checkouts.create(open)
    await polar.customers.create({ email: 'bob@example.com', external_id: 'user_bob' })
    expect(() => loopback.shop.pay(late.id, { email: 'new@example.com' })).toThrow('external ID already exists')
    const linked = await polar.checkouts.create({ products: [products.starter], customer_id: ada.id })
    expect(loopback.shop.pay(linked.id, { email: 'bob@example.com' }).customer_id).toBe(ada.id)
  })
})

describe('customers', () => {
  test('are found by id, external id and e-mail; both are unique, the external id is final', async () => {
    const { id } = await polar.customers.create({ email: ADA.email })
    expect(await refusal(polar.customers.create(ADA))).toMatchObject({
      statusCode: 422,
      error: { detail: [{ loc: ['body', 'email'] }] },
    })
    expect((await refusal(polar.customers.getExternal('user_ada'))).name).toBe('ResourceNotFound')
    await polar.customers.update(id, { external_id: 'user_ada' })
    expect((await polar.customers.getExternal('user_ada')).id).toBe(id)
    expect((await polar.customers.list({ email: ADA.email })).items).toHaveLength(1)
    expect((await refusal(polar.customers.update(id, { external_id: 'user_bob' }))).statusCode).toBe(422)
  })

  test('a deleted customer is gone, and so is the subscription', async () => {
    const { id, customer_id } = await givenSubscription()
    await polar.customers.update(customer_id, { external_id: 'user_ada' })
    expect((await polar.customers.getStateExternal('user_ada')).active_subscriptions).toMatchObject([{ id }])
    eventsSince()
    await polar.customers.deleteExternal('user_ada')
    expect(eventsSince()).toEqual([
      'subscription.updated',
      'subscription.canceled',
      'subscription.revoked',
      'customer.state_changed',
      'customer.deleted',
    ])
    expect((await refusal(polar.customers.get(customer_id))).name).toBe('ResourceNotFound')
  })

  test('a session opens the portal, which cancels and resumes', async () => {
    const { id, customer_id } = await givenSubscription()
    const { customer_portal_url: url } = await polar.customerSessions.create({ customer_id })
    expect(await (await fetch(url)).text()).toContain('pro')
    const submit = (act: string) => fetch(url, { method: 'POST', body: new URLSearchParams({ subscription: id, act }) })
    expect(await (await submit('cancel')).text()).toContain('Resume')
    expect((await polar.subscriptions.get(id)).cancel_at_period_end).toBe(true)
    await submit('resume')
    expect((await polar.subscriptions.get(id)).cancel_at_period_end).toBe(false)
    expect((await refusal(polar.customerSessions.create({ external_customer_id: 'nobody' }))).statusCode).toBe(422)
  })
})

describe('orders', () => {
  test('are filtered, sorted and paged', async () => {
    const first = await givenOrder(1000)
    nowMs += DAY_MS
    const second = await givenOrder(2000)
    const ids = async (query: Parameters<typeof polar.orders.list>[0]) =>
      (await polar.orders.list(query)).items.map(({ id }) => id)
    expect(await ids({})).toEqual([second.id, first.id])
    expect(await ids({ sorting: ['created_at'] })).toEqual([first.id, second.id])
    expect(await ids({ sorting: ['-net_amount'] })).toEqual([second.id, first.id])
    expect(await ids({ created_after: new Date(START + 1000).toISOString() })).toEqual([second.id])
    expect(await ids({ customer_id: first.customer_id, status: ['paid'], limit: 1, page: 2 })).toEqual([first.id])
    expect(await ids({ product_id: products.pro })).toEqual([])
    expect(await Array.fromAsync(polar.orders.iterList({ limit: 1 }))).toHaveLength(2)
    expect((await refusal(polar.orders.list({ limit: 101 }))).statusCode).toBe(422)
  })

  test('an invoice needs a name and an address, and takes a moment', async () => {
    const { id } = await givenOrder()
    expect(await refusal(polar.orders.generateInvoice(id))).toBeInstanceOf(errors.MissingInvoiceBillingDetails)
    await polar.orders.update(id, { billing_name: 'Ada <L>', billing_address: { country: 'FR' } })
    expect((await refusal(polar.orders.invoice(id))).statusCode).toBe(404)
    await polar.orders.generateInvoice(id)
    expect((await refusal(polar.orders.invoice(id))).statusCode).toBe(404)
    expect((await refusal(polar.orders.invoice(id))).statusCode).toBe(404)
    const { url } = await polar.orders.invoice(id)
    expect(await (await fetch(url)).text()).toContain('Ada &#60;L&#62;')
    expect((await polar.orders.get(id)).is_invoice_generated).toBe(true)
  })

  test('every change of an object has a later modified_at, however fast', async () => {
    const { id } = await givenOrder()
    const changes: (string | null)[] = []
    for (const amountCents of [100, 100, 100]) {
      loopback.shop.refund({ orderId: id, amountCents })
      changes.push((await polar.orders.get(id)).modified_at)
    }
    expect(changes).toEqual([
      '2026-11-20T12:00:00.123001Z',
      '2026-11-20T12:00:00.123002Z',
      '2026-11-20T12:00:00.123003Z',
    ])
  })
})

describe('subscriptions', () => {
  test('begin with an order, and hand the metadata to every order after it', async () => {
    const { id } = await polar.checkouts.create({
      products: [products.pro],
      customer_email: ADA.email,
      metadata: { user_id: 'user_ada' },
    })
    const { subscription_id } = loopback.shop.pay(id)
    expect(eventsSince()).toEqual([
      'checkout.created',
      'checkout.updated',
      'customer.created',
      'subscription.created',
      'subscription.updated',
      'subscription.active',
      'order.created',
      'order.updated',
      'order.paid',
      'checkout.updated',
      'customer.state_changed',
    ])
    expect(loopback.shop.renew(subscription_id ?? '')).toMatchObject({
      billing_reason: 'subscription_cycle',
      status: 'paid',
      net_amount: 2000,
      metadata: { user_id: 'user_ada' },
      subscription: { current_period_start: '2026-12-20T12:00:00.123000Z' },
    })
    expect(eventsSince()).toEqual([
      'subscription.cycled',
      'subscription.updated',
      'order.created',
      'order.updated',
      'order.paid',
      'customer.state_changed',
    ])
    const created = loopback.deliveries.events.findLast(({ type }) => type === 'order.created')
    expect(JSON.parse(created?.body ?? '').data.status).toBe('pending')
  })

  test('a second one is refused when the buyer pays', async () => {
    await givenSubscription()
    const { id } = await polar.checkouts.create({ products: [products.enterprise], customer_email: ADA.email })
    expect(() => loopback.shop.pay(id)).toThrow('already have an active subscription')
  })

  test('an unpaid period is past due until it is paid', async () => {
    const { id } = await givenSubscription()
    const order = loopback.shop.renew(id, 'fail')
    expect(order).toMatchObject({ status: 'pending', paid: false, due_amount: 2400 })
    expect(order?.next_payment_attempt_at).not.toBeNull()
    expect(eventsSince()).toEqual([
      'subscription.cycled',
      'subscription.updated',
      'order.created',
      'order.updated',
      'subscription.updated',
      'subscription.past_due',
      'customer.state_changed',
    ])
    expect((await polar.subscriptions.get(id)).status).toBe('past_due')
    loopback.shop.recover(id)
    expect(eventsSince()).toEqual([
      'subscription.updated',
      'subscription.active',
      'customer.state_changed',
      'order.updated',
      'order.paid',
    ])
  })

  test('one that ends unpaid leaves a void order', async () => {
    const { id } = await givenSubscription()
    const order = loopback.shop.renew(id, 'fail')
    await polar.subscriptions.revoke(id)
    expect((await polar.orders.get(order?.id ?? '')).status).toBe('void')
    expect(await refusal(polar.subscriptions.revoke(id))).toBeInstanceOf(errors.AlreadyCanceledSubscription)
  })

  test('canceled at the end of the period it stays active, can be resumed, and ends', async () => {
    const { id, current_period_end } = await givenSubscription()
    const canceled = await polar.subscriptions.update(id, { cancel_at_period_end: true })
    expect(canceled).toMatchObject({ status: 'active', ends_at: current_period_end })
    expect(eventsSince()).toEqual(['subscription.updated', 'subscription.canceled', 'customer.state_changed'])
    const again = await refusal(polar.subscriptions.update(id, { cancel_at_period_end: true }))
    expect(again.error).toMatchObject({ error: 'AlreadyCanceledSubscription' })
    await polar.subscriptions.update(id, { cancel_at_period_end: false })
    expect(eventsSince()).toEqual(['subscription.updated', 'subscription.uncanceled', 'customer.state_changed'])
    await polar.subscriptions.update(id, { cancel_at_period_end: true })
    eventsSince()
    expect(loopback.shop.endPeriod(id)).toBeUndefined()
    expect(eventsSince()).toEqual(['subscription.updated', 'subscription.revoked', 'customer.state_changed'])
  })

  test('a dearer product is charged at once for the rest of the period', async () => {
    const { id, current_period_start: start, current_period_end: end } = await givenSubscription()
    nowMs = (Date.parse(start) + Date.parse(end)) / 2
    const upgrade = { product_id: products.enterprise, proration_behavior: 'invoice' as const }
    loopback.shop.declineNextCharge()
    const declined = await refusal(polar.subscriptions.update(id, upgrade))
    expect(declined).toMatchObject({ statusCode: 402, error: { error: 'PaymentFailed' } })
    expect((await polar.subscriptions.get(id)).product_id).toBe(products.pro)
    expect(loopback.shop.orders.size).toBe(1)
    expect(eventsSince()).toEqual([])
    const upgraded = await polar.subscriptions.update(id, upgrade)
    expect(upgraded).toMatchObject({ amount: 10_000, product_id: products.enterprise, current_period_end: end })
    expect((await polar.orders.list({ subscription_id: id })).items[0]).toMatchObject({
      billing_reason: 'subscription_update',
      status: 'paid',
      net_amount: 4000,
      tax_amount: 800,
      items: [
        { amount: -1000, proration: true },
        { amount: 5000, proration: true },
      ],
      metadata: { user_id: 'user_ada' },
    })
    expect(eventsSince()).toEqual([
      'order.created',
      'order.updated',
      'order.paid',
      'subscription.updated',
      'customer.state_changed',
    ])
  })

  test('a cheaper product leaves a credit that the next order uses up', async () => {
    const { id } = await givenSubscription()
    const change = (product_id: string) => polar.subscriptions.update(id, { product_id, proration_behavior: 'invoice' })
    await change(products.enterprise)
    await change(products.pro)
    const [order] = (await polar.orders.list({ subscription_id: id })).items
    expect(order).toMatchObject({ status: 'paid', net_amount: -8000, total_amount: -9600, refundable_amount: 0 })
    expect(loopback.shop.renew(id)).toMatchObject({ status: 'paid', total_amount: 2400, applied_balance_amount: -2400 })
    expect(eventsSince().filter((type) => type === 'order.paid')).toHaveLength(3)
  })

  test('a reset charges the whole price and starts a new period', async () => {
    const { id } = await givenSubscription()
    nowMs += 10 * DAY_MS
    await polar.subscriptions.update(id, { product_id: products.enterprise, proration_behavior: 'reset' })
    expect((await polar.subscriptions.get(id)).current_period_start).toBe('2026-11-30T12:00:00.123000Z')
    expect((await polar.orders.list({ subscription_id: id })).items[0]?.net_amount).toBe(10_000)
  })

  test('a change for the next period waits for it; a prorated one is billed with it', async () => {
    const { id, current_period_end } = await givenSubscription()
    const next = { product_id: products.enterprise, proration_behavior: 'next_period' as const }
    const waiting = await polar.subscriptions.update(id, next)
    expect(waiting).toMatchObject({ amount: 2000, pending_update: { applies_at: current_period_end } })
    expect(loopback.shop.renew(id)?.net_amount).toBe(10_000)
    expect(await polar.subscriptions.get(id)).toMatchObject({ amount: 10_000, pending_update: null })
    nowMs = Date.parse(current_period_end)
    await polar.subscriptions.update(id, { product_id: products.pro, proration_behavior: 'prorate' })
    expect(loopback.shop.renew(id)).toMatchObject({ net_amount: -10_000 + 2000 + 2000 })
  })
})

describe('money that goes back', () => {
  test('a refund is net, takes its tax along, and cannot exceed what is left', async () => {
    const { id } = await givenOrder()
    const refund = await polar.refunds.create({ order_id: id, amount: 400, reason: 'customer_request' })
    expect(refund).toMatchObject({ status: 'succeeded', amount: 400, tax_amount: 80 })
    expect(eventsSince()).toEqual(['refund.created', 'order.updated', 'order.refunded'])
    expect(await polar.orders.get(id)).toMatchObject({ status: 'partially_refunded', refundable_amount: 600 })
    const tooMuch = polar.refunds.create({ order_id: id, amount: 601, reason: 'other' })
    expect((await refusal(tooMuch)).statusCode).toBe(400)
    await polar.refunds.create({ order_id: id, amount: 600, reason: 'other' })
    const again = polar.refunds.create({ order_id: id, amount: 1, reason: 'other' })
    expect(await refusal(again)).toBeInstanceOf(errors.RefundedAlready)
    const { items } = await polar.refunds.list({ order_id: id, sorting: ['-amount'] })
    expect(items.map(({ amount }) => amount)).toEqual([600, 400])
  })

  test('a pending refund counts once it settles; one that fails later gives the order its money back', async () => {
    const { id } = await givenOrder()
    loopback.shop.conduct.refundsStart = 'pending'
    const refund = await polar.refunds.create({ order_id: id, amount: 1000, reason: 'other' })
    expect(eventsSince()).toEqual(['refund.created'])
    loopback.shop.settleRefund(refund.id, 'succeeded')
    expect(eventsSince()).toEqual(['refund.updated', 'order.updated', 'order.refunded'])
    expect(await polar.orders.get(id)).toMatchObject({ status: 'refunded', refunded_amount: 1000 })
    loopback.shop.settleRefund(refund.id, 'failed')
    expect(eventsSince()).toEqual(['refund.updated', 'order.updated'])
    expect(await polar.orders.get(id)).toMatchObject({ status: 'paid', refunded_amount: 0, refunded_tax_amount: 0 })
  })

  test('a prevented dispute is a refund', async () => {
    const { id } = await givenOrder()
    const { id: disputeId } = loopback.shop.dispute(id, 'prevented')
    expect(eventsSince()).toEqual(['refund.created', 'order.updated', 'order.refunded'])
    const [refund] = (await polar.refunds.list({ order_id: id })).items
    expect(refund).toMatchObject({ reason: 'dispute_prevention', revoke_benefits: true, dispute: { id: disputeId } })
  })

  test('a lost dispute says nothing of the order and ends its subscription', async () => {
    const { id } = await givenOrder()
    loopback.shop.dispute(id, 'under_review')
    const { id: disputeId } = loopback.shop.dispute(id, 'lost')
    expect(eventsSince()).toEqual([])
    expect((await polar.orders.get(id)).status).toBe('paid')
    expect((await polar.disputes.list({ status: ['lost', 'prevented'] })).items).toMatchObject([{ id: disputeId }])
    expect(await polar.disputes.get(disputeId)).toMatchObject({ order_id: id, closed: true, amount: 1000 })
    const subscription = await givenSubscription()
    const [first] = (await polar.orders.list({ subscription_id: subscription.id })).items
    loopback.shop.dispute(first?.id ?? '', 'lost')
    expect(eventsSince()).toEqual([
      'subscription.updated',
      'subscription.canceled',
      'subscription.revoked',
      'customer.state_changed',
    ])
  })
})

describe('refusals', () => {
  test.each([
    { why: 'a limit', status: 429, name: 'PolarRateLimitError', retryAfter: 1 },
    { why: 'an outage', status: 503, name: 'PolarServerError' },
    { why: 'a conflict', status: 409, name: 'PolarClientError' },
  ])('$why can be ordered, and passes', async ({ why, status, ...expected }) => {
    loopback.failNext(1, status)
    expect(await refusal(polar.products.list())).toMatchObject(expected)
    expect((await polar.products.list()).items).toHaveLength(4)
    expect(loopback.requests.map((request) => request.status)).toEqual([status, 200])
  })

  test('a stranger, an unknown id and a missing field are answered as by Polar', async () => {
    const stranger = createPolar({ accessToken: 'wrong', baseUrl: loopback.baseUrl })
    expect((await refusal(stranger.products.list())).statusCode).toBe(401)
    expect((await refusal(polar.orders.get('nothing'))).error).toEqual({
      error: 'ResourceNotFound',
      detail: 'Not found',
    })
    const headers = { authorization: `Bearer ${loopback.accessToken}` }
    const send = (path: string, init: RequestInit) => fetch(`${loopback.baseUrl}${path}`, { ...init, headers })
    const response = await send('/v1/refunds/', { method: 'POST', body: '{"amount":"1"}' })
    expect(await response.json()).toMatchObject({
      error: 'RequestValidationError',
      detail: expect.arrayContaining([expect.objectContaining({ type: 'missing', loc: ['body', 'order_id'] })]),
    })
    const redirected = await send('/v1/products', { redirect: 'manual' })
    expect([redirected.status, redirected.headers.get('location')]).toEqual([307, '/v1/products/'])
  })
})

describe('the checkout page', () => {
  const submit = (url: string, fields: Record<string, string>) =>
    fetch(url, { method: 'POST', body: new URLSearchParams(fields), redirect: 'manual' })

  test('takes an amount and an e-mail, and sends the buyer back', async () => {
    const { url } = await polar.checkouts.create({ products: [products.tokens], success_url: 'https://my.app/ok' })
    expect(await (await fetch(url)).text()).toMatch(/Tokens[\s\S]+name="amount"[\s\S]+Card is declined/)
    const tooLittle = await submit(url, { amount: '4.99', email: ADA.email, card: 'ok' })
    expect([tooLittle.status, await tooLittle.text()]).toEqual([422, expect.stringContaining('at least 500')])
    const declined = await submit(url, { amount: '12.50', email: ADA.email, card: 'declined' })
    expect(await declined.text()).toContain('Your card was declined.')
    const paid = await submit(url, { amount: '12.50', email: ADA.email, card: 'ok' })
    expect([paid.status, paid.headers.get('location')]).toEqual([303, 'https://my.app/ok'])
    expect([...loopback.shop.orders.values()]).toMatchObject([{ net_amount: 1250, customer: { email: ADA.email } }])
    expect(await (await fetch(url)).text()).toContain('This checkout is succeeded.')
  })

  test('locks the e-mail of a known customer and asks no amount of a fixed price', async () => {
    const { id } = await polar.customers.create(ADA)
    const { url } = await polar.checkouts.create({ products: [products.starter], customer_id: id })
    const html = await (await fetch(url)).text()
    expect(html).toMatch(/value="ada@example.com" required\s+readonly/)
    expect(html).not.toContain('name="amount"')
  })
})
