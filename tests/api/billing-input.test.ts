// What the payment routes refuse: each with a clear error, nothing made at Polar and no row changed; and a Polar that is not there.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type CallOptions, call, givenUser, type Reply, type TestUser } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { ledgerViolations } from '../support/money.ts'
import {
  buy,
  checkout,
  type Payments,
  post,
  rowCounts,
  standing,
  startPayments,
  subscribe,
} from '../support/payments.ts'

const NOBODYS_ID = '00000000-0000-4000-8000-000000000000'

let payments: Payments
let user: TestUser

beforeAll(async () => {
  payments = await startPayments({ FORK__CORS__ORIGINS: '["https://app.example.com"]' })
})

beforeEach(async () => {
  user = await givenUser(payments.app)
})

afterEach(async () => {
  payments.wire.answer = undefined
  expect(await ledgerViolations()).toEqual([])
})

const send = (what: string, options: CallOptions = {}) => call(payments.app, what, { token: user.token, ...options })

/** Nothing that the call did can be seen: here, or at Polar. */
async function leavesNoTrace(act: () => Promise<Reply>): Promise<Reply> {
  const before = { rows: await rowCounts(), standing: await standing(payments, user) }
  const { calls } = payments.wire
  const { length } = calls
  const reply = await act()
  expect(calls.slice(length).filter((what) => !what.startsWith('GET '))).toEqual([])
  expect({ rows: await rowCounts(), standing: await standing(payments, user) }).toEqual(before)
  return reply
}

describe('POST /api/billing/checkout refuses', () => {
  test.each([
    { why: 'an amount below the minimum', body: { amountCents: 499 }, path: 'amountCents', message: /smallest.* 500/ },
    { why: 'nothing', body: { amountCents: 0 }, path: 'amountCents', message: /smallest/ },
    { why: 'a negative amount', body: { amountCents: -500 }, path: 'amountCents', message: /smallest/ },
    { why: 'a cent too much', body: { amountCents: 1_000_001 }, path: 'amountCents', message: /largest/ },
    {
      why: 'more than is counted exactly',
      body: { amountCents: 2 ** 53 },
      path: 'amountCents',
      message: /whole cents/,
    },
    { why: 'part of a cent', body: { amountCents: 500.5 }, path: 'amountCents', message: /whole cents/ },
    { why: 'an infinite amount', body: '{"amountCents":1e999}', path: 'amountCents', message: /whole cents/ },
    { why: 'a number as text', body: { amountCents: '500' }, path: 'amountCents', message: /number/ },
    { why: 'no number', body: { amountCents: null }, path: 'amountCents', message: /number/ },
    { why: 'a list', body: { amountCents: [500] }, path: 'amountCents', message: /number/ },
    { why: 'both', body: { pack: 'starter', amountCents: 500 }, path: '', message: /either/ },
    { why: 'neither', body: {}, path: '', message: /either/ },
    { why: 'an unknown pack', body: { pack: 'golden' }, path: 'pack', message: /starter, family/ },
    { why: 'a name of every object', body: { pack: 'constructor' }, path: 'pack', message: /no such pack/ },
    { why: 'a pack of a great name', body: { pack: 'x'.repeat(41) }, path: 'pack', message: /40/ },
    { why: 'a pack that is a number', body: { pack: 1 }, path: 'pack', message: /string/ },
    { why: 'another currency', body: { pack: 'starter', currency: 'eur' }, path: 'currency', message: /usd/ },
    { why: 'no currency', body: { pack: 'starter', currency: '' }, path: 'currency', message: /usd/ },
    { why: 'a price', body: { pack: 'starter', priceCents: 1 }, path: 'priceCents', message: /unknown|never/i },
    { why: 'an owner', body: { pack: 'starter', userId: NOBODYS_ID }, path: 'userId', message: /unknown|never/i },
    { why: 'metadata', body: { pack: 'starter', metadata: {} }, path: 'metadata', message: /unknown|never/i },
  ])('$why', async ({ body, path, message }) => {
    const headers = { 'content-type': 'application/json' }
    const { status, json } = await leavesNoTrace(() => send('POST /api/billing/checkout', { body, headers }))
    expect([status, json.error.code]).toEqual([400, 'VALIDATION_FAILED'])
    expect(json.error.details.issues).toEqual([{ path, message: expect.stringMatching(message) }])
  })

  test.each(['{"amountCents":NaN}', '{"amountCents":Infinity}', '{"pack":"starter"', ''])('%s', async (body) => {
    const headers = { 'content-type': 'application/json' }
    const { status, json } = await leavesNoTrace(() => send('POST /api/billing/checkout', { body, headers }))
    expect([status, json.error.code]).toEqual([400, 'INVALID_JSON'])
  })
})

describe('a page to come back to', () => {
  const ROUTES = [
    { route: 'checkout', body: { pack: 'starter' } },
    { route: 'upgrade', body: { plan: 'pro' } },
    { route: 'portal', body: {} },
  ]
  const FOREIGN = [
    ...['https://evil.example/', 'http://localhost@evil.example/', 'http://localhost.evil.example/'],
    ...['https://localhost/', 'http://localhost:81/', 'javascript:alert(1)', 'data:text/html,hi', 'null:'],
    'https://app.example.com.evil.example/',
  ]

  test.each(ROUTES)('that is foreign is refused by $route', async ({ route, body }) => {
    for (const returnUrl of FOREIGN) {
      const reply = await leavesNoTrace(() => send(`POST /api/billing/${route}`, { body: { ...body, returnUrl } }))
      expect([returnUrl, reply.status, reply.json.error.details.issues]).toEqual([
        returnUrl,
        400,
        [{ path: 'returnUrl', message: expect.stringMatching(/this site/) }],
      ])
    }
  })

  test.each(ROUTES)('that is no address is refused by $route', async ({ route, body }) => {
    for (const returnUrl of ['', '/bought', '//evil.example/', 'x', `http://localhost/${'x'.repeat(2000)}`, 5]) {
      const reply = await leavesNoTrace(() => send(`POST /api/billing/${route}`, { body: { ...body, returnUrl } }))
      expect([returnUrl, reply.status, reply.json.error.details.issues[0].path]).toEqual([returnUrl, 400, 'returnUrl'])
    }
  })

  test('may be on an origin that may call the API', async () => {
    const returnUrl = 'https://app.example.com/bought'
    const id = await checkout(payments, user, { pack: 'starter', returnUrl })
    expect(payments.shop.checkouts.get(id)?.success_url).toBe(`${returnUrl}?checkout_id=${id}`)
  })

  test('keeps what stands in it', async () => {
    const returnUrl = 'http://localhost/?a=1&my_checkout_id=ID9&checkout_id=old'
    const id = await checkout(payments, user, { pack: 'starter', returnUrl })
    expect(payments.shop.checkouts.get(id)?.success_url).toBe(
      `http://localhost/?a=1&my_checkout_id=ID9&checkout_id=${id}`,
    )
  })
})

describe('a plan', () => {
  test.each([
    { why: 'the free one', body: { plan: 'free' }, path: 'plan' },
    { why: 'an unknown one', body: { plan: 'gold' }, path: 'plan' },
    { why: 'several', body: { plan: ['pro'] }, path: 'plan' },
    { why: 'none', body: {}, path: 'plan' },
    { why: 'with a price', body: { plan: 'pro', priceCents: 1 }, path: 'priceCents' },
  ])('is not upgraded to $why', async ({ body, path }) => {
    const { status, json } = await leavesNoTrace(() => send('POST /api/billing/upgrade', { body }))
    expect([status, json.error.code, json.error.details.issues[0].path]).toEqual([400, 'VALIDATION_FAILED', path])
  })

  test.each(['cancel', 'resume'])('that nobody has is not to %s', async (action) => {
    const { status, json } = await leavesNoTrace(() => send(`POST /api/billing/${action}`))
    expect([status, json.error]).toMatchObject([409, { code: 'CONFLICT', message: 'You have no paid plan.' }])
  })
})

describe('an id', () => {
  const PATHS = [
    { what: 'a checkout', path: (id: string) => `POST /api/billing/checkouts/${id}/sync` },
    { what: 'an order', path: (id: string) => `GET /api/billing/invoices/${id}` },
  ]
  const GARBAGE = ['x', '0', '%00', '..%2F..%2Forders', `${NOBODYS_ID}%0a`, '%20', 'x'.repeat(3000), '%F0%9F%92%B8']

  test.each(PATHS)('that is none finds nothing: $what', async ({ path }) => {
    for (const id of GARBAGE) {
      const { length } = payments.wire.calls
      const reply = await leavesNoTrace(() => send(path(id)))
      expect([id, reply.status, reply.json.error.code]).toEqual([id, 404, 'NOT_FOUND'])
      expect(payments.wire.calls).toHaveLength(length)
    }
  })

  test.each(PATHS)('that is nobody’s finds nothing: $what', async ({ path }) => {
    const { status, json } = await leavesNoTrace(() => send(path(NOBODYS_ID)))
    expect([status, json.error.code]).toEqual([404, 'NOT_FOUND'])
  })

  test("of another's finds nothing", async () => {
    const other = await givenUser(payments.app, 'Bob')
    const order = await buy(payments, other, { pack: 'starter' })
    const open = await checkout(payments, other, { pack: 'starter' })
    for (const what of [
      `GET /api/billing/invoices/${order.id}`,
      `POST /api/billing/checkouts/${order.checkout_id}/sync`,
      `POST /api/billing/checkouts/${open}/sync`,
    ]) {
      const { status, json } = await leavesNoTrace(() => send(what))
      expect([what, status, json.error.code]).toEqual([what, 404, 'NOT_FOUND'])
      expect(JSON.stringify(json)).not.toContain(other.email)
    }
  })
})

describe('while Polar', () => {
  /** Every route that asks Polar, for a user who has a plan, an open checkout and an order. */
  async function everyRoute(): Promise<{ what: string; body?: object }[]> {
    const { order } = await subscribe(payments, user, 'pro')
    const open = await checkout(payments, user, { pack: 'starter' })
    return [
      { what: 'POST /api/billing/checkout', body: { pack: 'starter' } },
      { what: 'POST /api/billing/checkout', body: { amountCents: 700 } },
      { what: 'POST /api/billing/upgrade', body: { plan: 'enterprise' } },
      { what: 'POST /api/billing/cancel' },
      { what: 'POST /api/billing/portal' },
      { what: `POST /api/billing/checkouts/${open}/sync` },
      { what: `GET /api/billing/invoices/${order.id}` },
    ]
  }

  /** Nothing here has changed, and nothing there. */
  async function everyRouteFails({ begin, end }: { begin: () => unknown; end: () => unknown }): Promise<void> {
    expectErrorsInLog()
    const { orders, subscriptions } = payments.shop
    const state = async () => ({
      rows: await rowCounts(),
      standing: await standing(payments, user),
      shop: JSON.stringify([...orders.values(), ...subscriptions.values()]),
    })
    for (const { what, body } of await everyRoute()) {
      const before = await state()
      await begin()
      const { status, json } = await send(what, { body })
      await end()
      expect([what, status, json.error.code]).toEqual([what, 502, 'PROVIDER_ERROR'])
      expect(json.error.details).toEqual({ provider: 'polar' })
      expect(await state()).toEqual(before)
    }
  }

  test('cannot be reached, every route says so and changes nothing', async () => {
    const { cut, mend } = payments.wire
    await everyRouteFails({ begin: cut, end: mend })
  })

  test.each([500, 503, 429, 401, 418])('answers %i, every route says so and changes nothing', async (status) => {
    const body = { error: 'OrderedFailure', detail: 'Ordered failure' }
    await everyRouteFails({
      begin: () => {
        payments.wire.answer = () => Response.json(body, { status })
      },
      end: () => {
        payments.wire.answer = undefined
      },
    })
  })

  test('answers something else than JSON, that is said as well', async () => {
    expectErrorsInLog()
    payments.wire.answer = () => new Response('<h1>Bad gateway</h1>', { headers: { 'content-type': 'text/html' } })
    const { status, json } = await leavesNoTrace(() => send(`POST /api/billing/checkouts/${NOBODYS_ID}/sync`))
    expect([status, json.error.code]).toEqual([502, 'PROVIDER_ERROR'])
  })

  test('fails once, the same purchase with the same key goes through afterwards', async () => {
    expectErrorsInLog()
    const key = { 'idempotency-key': crypto.randomUUID() }
    payments.polar.failNext(1, 500)
    expect((await post(payments, user, 'checkout', { pack: 'starter' }, key)).status).toBe(502)
    expect((await post(payments, user, 'checkout', { pack: 'starter' }, key)).status).toBe(201)
  })
})
