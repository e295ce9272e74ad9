// Buying tokens, from the checkout to the balance: what was paid is granted, once, to whom our checkout named.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { call, givenUser, processImage, type TestUser } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { ledgerViolations } from '../support/money.ts'
import {
  buy,
  checkout,
  freeWith,
  ordersOf,
  type Payments,
  post,
  rowCounts,
  standing,
  startPayments,
  subscribe,
  sweep,
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
  payments.polar.deliveries.mode = 'deliver'
  await payments.polar.settled()
  expect(await ledgerViolations()).toEqual([])
})

const sync = (checkoutId: string, { token } = user) =>
  call(payments.app, `POST /api/billing/checkouts/${checkoutId}/sync`, { token })

/** An order for tokens as it stands in the books. */
const tokenOrder = (id: string, cents: number, tokens: number) => ({
  id,
  kind: 'tokens',
  plan: null,
  status: 'paid',
  paid: true,
  currency: 'usd',
  net_cents: cents,
  refunded_cents: 0,
  dispute_lost: false,
  problem: null,
  tokens_granted: tokens,
  tokens_taken_back: 0,
})

describe('a purchase', () => {
  test.each([
    { what: 'a pack', body: { pack: 'starter' }, cents: 500, tokens: 500 },
    { what: 'a pack with tokens on top', body: { pack: 'family' }, cents: 2000, tokens: 2400 },
    { what: 'the smallest amount', body: { amountCents: 500 }, cents: 500, tokens: 500 },
    { what: 'any amount', body: { amountCents: 1234, currency: 'USD' }, cents: 1234, tokens: 1234 },
    { what: 'the largest amount', body: { amountCents: 1_000_000 }, cents: 1_000_000, tokens: 1_000_000 },
  ])('of $what brings its tokens', async ({ body, cents, tokens }) => {
    const order = await buy(payments, user, body)
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: tokens }))
    expect(await ordersOf(user)).toEqual([tokenOrder(order.id, cents, tokens)])
  })

  test('shows the buyer who they are, what it costs, and where they come back to', async () => {
    const returnUrl = 'http://localhost/bought?step=2#top'
    const id = await checkout(payments, user, { pack: 'family', returnUrl })
    const made = payments.shop.checkouts.get(id)
    expect(made).toMatchObject({
      customer_email: user.email,
      external_customer_id: user.id,
      amount: 2000,
      currency: 'usd',
      success_url: `http://localhost/bought?step=2&checkout_id=${id}#top`,
      return_url: returnUrl,
      allow_discount_codes: false,
      allow_trial: true,
      metadata: { user_id: user.id, kind: 'tokens', pack: 'family' },
    })
    const { client_secret = '' } = made ?? {}
    const again = await post(payments, user, 'checkout', { pack: 'family' })
    expect(again.json).toEqual({ checkoutId: expect.any(String), checkoutUrl: expect.stringContaining('/checkout/') })
    expect(again.json.checkoutUrl).not.toContain(client_secret)
    expect(payments.shop.customers.get(made?.customer_id ?? '')?.external_id).toBe(user.id)
  })

  test.each([
    { how: 'raises', cents: 2599 },
    { how: 'lowers to the minimum', cents: 500 },
  ])('brings what was paid when the buyer $how the amount on the page', async ({ cents }) => {
    const order = await buy(payments, user, { amountCents: 1000 }, { amountCents: cents })
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: cents }))
    expect(await ordersOf(user)).toEqual([tokenOrder(order.id, cents, cents)])
  })

  test('below the minimum is refused on the page as well', async () => {
    const id = await checkout(payments, user, { amountCents: 1000 })
    expect(() => payments.shop.pay(id, { amountCents: 499 })).toThrow()
    expect(await ordersOf(user)).toEqual([])
  })

  test.each([
    { percent: 100, cents: 0, tokens: 0 },
    { percent: 50, cents: 250, tokens: 250 },
  ])('at $percent % off brings $tokens tokens, and is in the books', async ({ percent, cents, tokens }) => {
    const order = await buy(payments, user, { pack: 'starter' }, { discountPercent: percent })
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: tokens }))
    expect(await ordersOf(user)).toEqual([tokenOrder(order.id, cents, tokens)])
  })

  test('whose card is declined brings nothing, and everything at the second attempt', async () => {
    const id = await checkout(payments, user, { pack: 'starter' })
    expect(() => payments.shop.pay(id, { card: 'declined' })).toThrow(/declined/)
    await payments.polar.settled()
    expect((await sync(id)).json).toMatchObject({ status: 'open', balance: { purchasedTokens: 0 } })
    expect(await ordersOf(user)).toEqual([])
    const order = payments.shop.pay(id)
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await ordersOf(user)).toEqual([tokenOrder(order.id, 500, 500)])
  })

  test('asked for twice with one key is one checkout, for two users two', async () => {
    const key = { 'idempotency-key': crypto.randomUUID() }
    const { size } = payments.shop.checkouts
    const first = await post(payments, user, 'checkout', { pack: 'starter' }, key)
    const second = await post(payments, user, 'checkout', { pack: 'starter' }, key)
    expect(first.status).toBe(201)
    expect([second.status, second.json]).toEqual([201, first.json])
    expect(second.headers.get('idempotent-replayed')).toBe('true')
    expect(payments.shop.checkouts.size).toBe(size + 1)
    const other = await givenUser(payments.app, 'Bob')
    const third = await post(payments, other, 'checkout', { pack: 'starter' }, key)
    expect(third.json.checkoutId).not.toBe(first.json.checkoutId)
    const changed = await post(payments, user, 'checkout', { pack: 'family' }, key)
    expect([changed.status, changed.json.error.code]).toEqual([422, 'IDEMPOTENCY_KEY_REUSED'])
    expect(payments.shop.checkouts.size).toBe(size + 2)
  })

  test('twice at once makes one customer', async () => {
    const { size } = payments.shop.customers
    const replies = await Promise.all([1, 2, 3, 4].map(() => post(payments, user, 'checkout', { pack: 'starter' })))
    expect(replies.map(({ status }) => status)).toEqual([201, 201, 201, 201])
    expect(payments.shop.customers.size).toBe(size + 1)
    const ids = replies.map(({ json }) => payments.shop.checkouts.get(json.checkoutId)?.customer_id)
    expect(new Set(ids).size).toBe(1)
  })
})

describe('the return from the checkout', () => {
  test('brings the tokens before any webhook does, and the webhooks bring nothing more', async () => {
    payments.polar.deliveries.mode = 'hold'
    const id = await checkout(payments, user, { pack: 'starter' })
    const order = payments.shop.pay(id)
    expect(await standing(payments, user)).toEqual(freeWith())
    const { status, json } = await sync(id)
    expect(status).toBe(200)
    expect(json).toMatchObject({
      checkoutId: id,
      status: 'succeeded',
      plan: 'free',
      balance: { purchasedTokens: 500, tokens: 1500 },
    })
    payments.polar.deliveries.mode = 'deliver'
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await ordersOf(user)).toEqual([tokenOrder(order.id, 500, 500)])
    expect((await sync(id)).json.balance.purchasedTokens).toBe(500)
  })

  test('at the same time as the webhooks, and twenty times over, brings the tokens once', async () => {
    payments.polar.deliveries.mode = 'hold'
    const id = await checkout(payments, user, { pack: 'starter' })
    const order = payments.shop.pay(id)
    const early = payments.polar.deliveries.events.filter(({ body }) => body.includes(order.id))
    expect(early.length).toBeGreaterThan(2)
    payments.polar.deliveries.mode = 'deliver'
    for (const event of early) payments.polar.deliveries.redeliver(event)
    const replies = await Promise.all(Array.from({ length: 20 }, () => sync(id)))
    await payments.polar.settled()
    expect(replies.map(({ status, json }) => [status, json.balance?.purchasedTokens])).toEqual(
      replies.map(() => [200, 500]),
    )
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await ordersOf(user)).toEqual([tokenOrder(order.id, 500, 500)])
  })

  test('brings a plan as well', async () => {
    payments.polar.deliveries.mode = 'hold'
    const { json } = await post(payments, user, 'upgrade', { plan: 'pro' })
    payments.shop.pay(json.checkoutId)
    const synced = await sync(json.checkoutId)
    expect(synced.json).toMatchObject({ status: 'succeeded', plan: 'pro', balance: { tokens: 50_000 } })
  })
})

describe('a purchase that no webhook told of', () => {
  test('is found by the sweep, and told late brings nothing more', async () => {
    payments.polar.deliveries.mode = 'hold'
    const order = await buy(payments, user, { pack: 'starter' })
    const other = await givenUser(payments.app, 'Bob')
    await subscribe(payments, other, 'pro')
    expect(await sweep(payments)).toMatchObject({ complete: true, errors: [], webhookEndpoint: 'ok' })
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await standing(payments, other)).toMatchObject({ plan: 'pro', tokens: 50_000 })
    payments.polar.deliveries.mode = 'deliver'
    await payments.polar.settled()
    expect(await sweep(payments)).toMatchObject({ applied: 0, complete: true, errors: [] })
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await ordersOf(user)).toEqual([tokenOrder(order.id, 500, 500)])
  })
})

describe('a paid order that waits', () => {
  const assign = (orderId: string, body: object) =>
    call(payments.app, `POST /api/admin/orders/${orderId}/assign`, { token: payments.admin.token, body })
  const waiting = async (orderId: string) => {
    const { json } = await call(payments.app, 'GET /api/admin/orders?problem=true', { token: payments.admin.token })
    return json.data.find(({ id }: { id: string }) => id === orderId)
  }
  const starter = () =>
    [...payments.shop.products.values()].find(({ metadata }) => metadata.pack === 'starter')?.id ?? ''

  test("and is nobody's becomes an admin's choice of user, once", async () => {
    const { id } = await payments.client.checkouts.create({ products: [starter()] })
    const order = payments.shop.pay(id, { email: `${crypto.randomUUID()}@example.com` })
    await payments.polar.settled()
    expect(await waiting(order.id)).toMatchObject({ problem: 'no_user', userId: null, paid: true, tokensGranted: 0 })
    await sweep(payments)
    expect(await waiting(order.id)).toBeDefined()

    const replies = [await assign(order.id, { userId: user.id, reason: 'paid by a friend' })]
    replies.push(await assign(order.id, { userId: user.id, reason: 'paid by a friend' }))
    expect(replies.map(({ status }) => status)).toEqual([200, 409])
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await ordersOf(user)).toEqual([tokenOrder(order.id, 500, 500)])
    expect(await waiting(order.id)).toBeUndefined()
  })

  test('for its currency is worth what an admin says', async () => {
    const product = payments.shop.addProduct({
      name: 'Tokens in euro',
      metadata: { kind: 'tokens' },
      prices: [{ amount_type: 'fixed', price_amount: 700, price_currency: 'eur' }],
    })
    const metadata = { user_id: user.id, kind: 'tokens' }
    const { id } = await payments.client.checkouts.create({
      products: [product.id],
      metadata,
      customer_email: user.email,
    })
    const order = payments.shop.pay(id)
    await payments.polar.settled()
    expect(await waiting(order.id)).toMatchObject({ problem: 'currency', userId: user.id, tokensGranted: 0 })
    expect(await standing(payments, user)).toEqual(freeWith())

    expect((await assign(order.id, { userId: user.id, reason: 'euro' })).status).toBe(400)
    expect((await assign(order.id, { userId: user.id, reason: 'euro', tokens: 800 })).status).toBe(200)
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 800 }))
    expect(await ordersOf(user)).toEqual([{ ...tokenOrder(order.id, 700, 800), currency: 'eur' }])
  })
})

test('a purchase whose answer was lost at Polar can be made again', async () => {
  expectErrorsInLog()
  const rows = await rowCounts()
  payments.wire.answer = (what) => (what === 'POST /v1/checkouts/' ? new Response('no', { status: 500 }) : undefined)
  const key = { 'idempotency-key': crypto.randomUUID() }
  const failed = await post(payments, user, 'checkout', { pack: 'starter' }, key)
  payments.wire.answer = undefined
  expect([failed.status, failed.json.error.code]).toEqual([502, 'PROVIDER_ERROR'])
  expect(await rowCounts()).toEqual(rows)
  expect((await post(payments, user, 'checkout', { pack: 'starter' }, key)).status).toBe(201)
})

test('bought tokens are spent like any others, the soonest to expire first', async () => {
  await buy(payments, user, { pack: 'starter' })
  const { status, json } = await processImage(payments.app, user)
  expect([status, json.balance.tokens]).toEqual([200, 1400])
  expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 900, purchasedTokens: 500 }))
})
