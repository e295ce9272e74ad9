// The way to Polar's checkout and back, on real PostgreSQL and a loopback Polar: the basket, the buyer, and what comes of it.
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { linkCustomer, openCheckout, personOf, productId, syncCheckout, type Wish } from '../../lib/billing/checkout.ts'
import { polar } from '../../lib/billing/polar.ts'
import { makeClock } from '../support/clock.ts'
import { type DirectShop, PRODUCTS, refusal, startDirectShop } from '../support/direct-shop.ts'
import { givenAccount, lots } from '../support/ledger-account.ts'
import { OPENED } from '../support/paid-plans.ts'
import { orderRow, subscriptionRow } from '../support/polar-states.ts'

const RETURN_URL = 'https://shop.example/account'

let shop: DirectShop
let userId: string

beforeAll(async () => {
  shop = await startDirectShop()
  await makeClock(db())
})

beforeEach(async () => {
  userId = (await givenAccount(OPENED)).userId
  shop.answer = undefined
  shop.calls.length = 0
})

const open = async (wish: Wish, returnUrl = RETURN_URL) => {
  const { checkoutId, checkoutUrl } = await openCheckout(userId, wish, returnUrl)
  const checkout = shop.polar.shop.checkouts.get(checkoutId)
  if (!checkout) throw new Error('Polar has no such checkout.')
  expect(checkoutUrl).toBe(checkout.url)
  return checkout
}
const person = () => personOf(userId)
const customers = () => [...shop.polar.shop.customers.values()].filter(({ external_id }) => external_id === userId)

describe('a checkout', () => {
  test('for a pack has its product at its price, for a buyer who is known, and takes no discount', async () => {
    const checkout = await open({ kind: 'pack', pack: 'family' })
    expect(checkout).toMatchObject({
      product_id: PRODUCTS.family,
      amount: 2000,
      metadata: { user_id: userId, kind: 'tokens', pack: 'family' },
      customer_email: `${userId}@example.com`,
      customer_name: 'Ada',
      allow_discount_codes: false,
      return_url: RETURN_URL,
      success_url: `${RETURN_URL}?checkout_id=${checkout.id}`,
    })
    expect(checkout.products).toHaveLength(1)
    expect(customers().map(({ id }) => id)).toEqual([checkout.customer_id])
  })

  test('for a free amount proposes that amount, and takes no less than the least', async () => {
    const checkout = await open({ kind: 'deposit', amountCents: 1234 })
    expect(checkout).toMatchObject({
      product_id: PRODUCTS.tokens,
      amount: 1234,
      metadata: { user_id: userId, kind: 'tokens' },
      allow_discount_codes: false,
    })
    expect(checkout.metadata).not.toHaveProperty('pack')
    expect(checkout.product_price).toMatchObject({
      amount_type: 'custom',
      price_currency: 'usd',
      minimum_amount: 500,
      preset_amount: 1234,
      source: 'ad_hoc',
    })
  })

  test('for a plan names it, and takes discounts', async () => {
    expect(await open({ kind: 'plan', plan: 'enterprise' })).toMatchObject({
      product_id: PRODUCTS.enterprise,
      metadata: { user_id: userId, kind: 'plan', plan: 'enterprise' },
      allow_discount_codes: true,
    })
  })

  test('asks Polar for no trial', async () => {
    const { fetch } = globalThis
    const bodies: string[] = []
    globalThis.fetch = async (input, init) => {
      const request = new Request(input, init)
      if (request.url.endsWith('/v1/checkouts/') && !request.url.startsWith(shop.polar.baseUrl)) {
        bodies.push(await request.clone().text())
      }
      return await fetch(request)
    }
    try {
      await open({ kind: 'plan', plan: 'pro' })
    } finally {
      globalThis.fetch = fetch
    }
    expect(bodies.map((body) => JSON.parse(body).allow_trial)).toEqual([false])
  })

  test.each([
    ['https://shop.example/', 'https://shop.example/?checkout_id=ID'],
    ['https://shop.example/a?b=c', 'https://shop.example/a?b=c&checkout_id=ID'],
    ['https://shop.example/a#top', 'https://shop.example/a?checkout_id=ID#top'],
    ['https://shop.example/a?checkout_id=old&checkout_id=older', 'https://shop.example/a?checkout_id=ID'],
    ['https://shop.example/a?my_checkout_id=ID', 'https://shop.example/a?my_checkout_id=ID&checkout_id=ID'],
    [
      'https://shop.example/a?x=1&checkout_id=IDs&y=checkout_id=ID',
      'https://shop.example/a?x=1&y=checkout_id%3DID&checkout_id=ID',
    ],
  ])('comes back to %s with its id', async (returnUrl, wanted) => {
    const checkout = await open({ kind: 'pack', pack: 'starter' }, returnUrl)
    const at = wanted.lastIndexOf('=ID') + 1
    expect(checkout.success_url).toBe(wanted.slice(0, at) + checkout.id + wanted.slice(at + 2))
    expect(checkout.return_url).toBe(returnUrl)
  })

  test('for a pack that is gone is not opened', async () => {
    await expect(openCheckout(userId, { kind: 'pack', pack: 'gone' }, RETURN_URL)).rejects.toMatchObject({
      code: 'PROVIDER_ERROR',
      cause: new Error('There is no pack gone.'),
    })
  })

  test('for nobody is not opened', async () => {
    const nobody = '00000000-0000-4000-8000-000000000000'
    await expect(openCheckout(nobody, { kind: 'pack', pack: 'starter' }, RETURN_URL)).rejects.toThrow('no result')
  })
})

describe('the buyer', () => {
  test('is made once, and found again', async () => {
    const client = await polar()
    const id = await linkCustomer(client, await person())
    expect(customers()).toMatchObject([{ id, external_id: userId, email: `${userId}@example.com`, name: 'Ada' }])
    expect(await linkCustomer(client, await person())).toBe(id)
    expect(customers()).toHaveLength(1)
  })

  test('is found where another request made it in the meantime', async () => {
    const client = await polar()
    const { id } = await client.customers.create({ external_id: userId, email: `${userId}@example.com` })
    let isFirst = true
    shop.answer = (call) => {
      if (!call.startsWith('GET') || !isFirst) return undefined
      isFirst = false
      return refusal(404)
    }
    expect(await linkCustomer(client, await person())).toBe(id)
  })

  test('is not linked where the address is of another customer, and buys all the same', async () => {
    const client = await polar()
    await client.customers.create({ external_id: null, email: `${userId}@example.com` })
    expect(await linkCustomer(client, await person())).toBeUndefined()
    expect(await open({ kind: 'pack', pack: 'starter' })).toMatchObject({
      customer_id: null,
      customer_email: null,
      metadata: { user_id: userId },
    })
  })

  test.each([
    { what: 'GET /v1/customers/external', status: 403 },
    { what: 'GET /v1/customers/external', status: 422 },
    { what: 'POST /v1/customers/', status: 404 },
  ])('is not looked for again when $what is answered with $status', async ({ what, status }) => {
    shop.answer = (call) => (call.startsWith(what) ? refusal(status) : undefined)
    await expect(linkCustomer(await polar(), await person())).rejects.toMatchObject({ statusCode: status })
  })
})

describe('a product', () => {
  const find = async (configured: string, mark: Record<string, string>) =>
    await productId(await polar(), configured, mark)

  test('is the configured one, and Polar is not asked', async () => {
    expect(await find('configured', { plan: 'pro' })).toBe('configured')
    expect(shop.calls).toEqual([])
  })

  test.each([
    { mark: { plan: 'enterprise' }, id: PRODUCTS.enterprise },
    { mark: { pack: 'family' }, id: PRODUCTS.family },
    { mark: { kind: 'tokens' }, id: PRODUCTS.tokens },
    { mark: { kind: 'tokens', pack: 'starter' }, id: PRODUCTS.starter },
  ])('is the one on sale that is marked $mark', async ({ mark, id }) => {
    expect(await find('', mark)).toBe(id)
    expect(shop.calls).toEqual([expect.stringMatching(/is_archived=false.*limit=100|limit=100.*is_archived=false/)])
  })

  test('that is not there cannot be bought, and it is said what makes it', async () => {
    await expect(find('', { kind: 'plan', plan: 'gold' })).rejects.toMatchObject({
      code: 'FEATURE_DISABLED',
      message: 'This cannot be bought yet.',
      details: {
        reason: 'There is no product at Polar for kind "plan", plan "gold": npm run doctor -- --fix makes it.',
      },
    })
  })
})

describe('the way back', () => {
  test('brings the tokens before any webhook does', async () => {
    const { id } = await open({ kind: 'pack', pack: 'starter' })
    expect(await syncCheckout(userId, id)).toEqual({ status: 'open' })
    expect(await lots(userId, 'pack')).toEqual([])
    const order = shop.polar.shop.pay(id)
    expect(await syncCheckout(userId, id)).toEqual({ status: 'succeeded' })
    expect(await lots(userId, 'pack')).toMatchObject([{ granted: 500 }])
    expect(await orderRow(order.id)).toMatchObject({ checkout_id: id, user_id: userId })
  })

  test('brings the plan with its subscription, looked up once, and nothing of other checkouts', async () => {
    const other = await givenAccount(OPENED)
    const { checkoutId } = await openCheckout(other.userId, { kind: 'pack', pack: 'starter' }, RETURN_URL)
    const foreign = shop.polar.shop.pay(checkoutId)
    const { id } = await open({ kind: 'plan', plan: 'pro' })
    const order = shop.polar.shop.pay(id)
    await syncCheckout(userId, id)
    expect(await subscriptionRow(order.subscription_id ?? '')).toMatchObject({ user_id: userId, plan: 'pro' })
    expect(shop.calls.filter((call) => call.startsWith('GET /v1/subscriptions/'))).toHaveLength(1)
    expect(shop.calls).toContainEqual(expect.stringMatching(/^GET \/v1\/orders\/\?.*limit=100/))
    await expect(orderRow(foreign.id)).rejects.toThrow('no result')
  })

  test("is not found for another user's checkout, nor for one that is not there", async () => {
    const { id } = await open({ kind: 'pack', pack: 'starter' })
    const other = await givenAccount(OPENED)
    const missing = { code: 'NOT_FOUND', message: 'You have no such checkout.' }
    await expect(syncCheckout(other.userId, id)).rejects.toMatchObject(missing)
    await expect(syncCheckout(userId, crypto.randomUUID())).rejects.toMatchObject(missing)
  })
})
