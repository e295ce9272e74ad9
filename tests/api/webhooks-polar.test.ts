// Polar's webhooks: what is let in and what is not, that each takes effect once, and that what we could not handle is not lost.
import { sql } from 'kysely'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { WEBHOOK_PATH } from '../../lib/billing/polar.ts'
import type { WebhookEvent } from '../../scripts/loopback-polar/delivery.ts'
import { type SigningScheme, signedHeaders } from '../../scripts/loopback-polar/signing.ts'
import { call, givenUser, type TestUser } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { ledgerViolations } from '../support/money.ts'
import {
  buy,
  freeWith,
  type Payments,
  rowCounts,
  standing,
  startPayments,
  sweep,
  WEBHOOK_URL,
} from '../support/payments.ts'

const AGE_SECONDS_MAX = 300
const OTHER_SECRET = 'whsec_b3RoZXIgc2VjcmV0IG9mIHRoZSBzYW1lIGxlbmd0aA=='

let payments: Payments
let user: TestUser
/** The user has paid for 500 tokens, and the news is on its way. */
let news: { created: WebhookEvent; updated: WebhookEvent; paid: WebhookEvent }

beforeAll(async () => {
  payments = await startPayments()
})

beforeEach(async () => {
  user = await givenUser(payments.app)
  payments.polar.deliveries.mode = 'hold'
  const order = await buy(payments, user, { pack: 'starter' })
  const event = (type: string) => {
    const found = payments.polar.deliveries.events.find((one) => one.type === type && one.body.includes(order.id))
    if (!found) throw new Error(`There is no ${type}.`)
    return found
  }
  news = { created: event('order.created'), updated: event('order.updated'), paid: event('order.paid') }
})

afterEach(async () => {
  expect(await ledgerViolations()).toEqual([])
})

async function deliver(request: Request) {
  const body = Buffer.from(await request.arrayBuffer())
  const headers = Object.fromEntries(request.headers)
  const { status, json } = await call(payments.app, `POST ${WEBHOOK_PATH}`, { body, headers })
  return { status, json }
}

/** One signed attempt to deliver the event. */
const send = (event: WebhookEvent, secondsAgo = 0) => {
  const timestampSeconds = Math.floor(Date.now() / 1000) - secondsAgo
  return deliver(payments.polar.deliveries.signedRequest(event, WEBHOOK_URL, { timestampSeconds }))
}

interface Attempt {
  body?: string | Buffer
  /** What is signed, when it is something else than the body. */
  signed?: string
  id?: string
  secret?: string
  scheme?: SigningScheme
  drop?: string
  headers?: Record<string, string>
}

/** An attempt made by hand; unless said otherwise it is a good one to deliver `news.paid`. */
function attempt({ body = news.paid.body, signed, id = news.paid.id, secret, scheme, drop, headers }: Attempt = {}) {
  const message = {
    id,
    body: signed ?? body.toString(),
    timestampSeconds: Math.floor(Date.now() / 1000),
    secret: secret ?? payments.webhookSecret,
    scheme: scheme ?? 'standard',
  }
  const all = new Headers({ ...signedHeaders(message), ...headers })
  if (drop !== undefined) all.delete(drop)
  return deliver(new Request(WEBHOOK_URL, { method: 'POST', headers: all, body: new Uint8Array(Buffer.from(body)) }))
}

const keptEvent = async (id: string) =>
  await db().selectFrom('webhook_events').selectAll().where('id', '=', id).executeTakeFirst()

describe('a signature', () => {
  test.each(['standard', 'legacy'] as const)('of the %s scheme is good', async (scheme) => {
    expect(await attempt({ scheme })).toEqual({ status: 202, json: { receipt: 'applied' } })
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
  })

  test('among others, as while a secret changes, is good', async () => {
    const good = signedHeaders({
      id: news.paid.id,
      body: news.paid.body,
      timestampSeconds: Math.floor(Date.now() / 1000),
      secret: payments.webhookSecret,
      scheme: 'standard',
    })
    const headers = { ...good, 'webhook-signature': `v1,bm8= ${good['webhook-signature']}` }
    expect((await attempt({ headers })).status).toBe(202)
  })

  const changed = () => news.paid.body.replace('"net_amount":500', '"net_amount":50000')
  test.each<{ why: string; attempt: () => Attempt }>([
    { why: 'with another secret', attempt: () => ({ secret: OTHER_SECRET }) },
    { why: 'with another secret, the legacy way', attempt: () => ({ secret: OTHER_SECRET, scheme: 'legacy' }) },
    { why: 'with no secret', attempt: () => ({ secret: 'whsec_' }) },
    { why: 'of another amount', attempt: () => ({ body: changed(), signed: news.paid.body }) },
    {
      why: 'of the whole of a body that is cut short',
      attempt: () => ({ body: news.paid.body.slice(0, -9), signed: news.paid.body }),
    },
    {
      why: 'of a body without the space at its end',
      attempt: () => ({ body: `${news.paid.body} `, signed: news.paid.body }),
    },
    { why: 'of another event', attempt: () => ({ signed: news.created.body }) },
    { why: 'of another id', attempt: () => ({ headers: { 'webhook-id': crypto.randomUUID() } }) },
    {
      why: 'of another time',
      attempt: () => ({ headers: { 'webhook-timestamp': String(Math.floor(Date.now() / 1000) - 1) } }),
    },
    { why: 'at no time', attempt: () => ({ headers: { 'webhook-timestamp': 'now' } }) },
    { why: 'that is garbage', attempt: () => ({ headers: { 'webhook-signature': 'v1,AAAA' } }) },
    { why: 'of another version', attempt: () => ({ headers: { 'webhook-signature': 'v2,AAAA' } }) },
    { why: 'that is empty', attempt: () => ({ headers: { 'webhook-signature': '' } }) },
    { why: 'that is missing', attempt: () => ({ drop: 'webhook-signature' }) },
    { why: 'without an id', attempt: () => ({ drop: 'webhook-id' }) },
    { why: 'without a time', attempt: () => ({ drop: 'webhook-timestamp' }) },
    { why: 'with an endless id', attempt: () => ({ id: 'x'.repeat(101) }) },
  ])('$why is refused, and leaves nothing', async ({ attempt: forged }) => {
    const before = await rowCounts()
    const { status, json } = await attempt(forged())
    expect([status, json.error.code]).toEqual([401, 'UNAUTHENTICATED'])
    expect(await rowCounts()).toEqual(before)
    expect(await standing(payments, user)).toEqual(freeWith())
  })

  test('is good for five minutes either way, and no longer', async () => {
    const before = await rowCounts()
    // The seconds that the test itself takes are on the side of what is expected.
    for (const secondsAgo of [AGE_SECONDS_MAX + 1, -AGE_SECONDS_MAX - 5]) {
      expect((await send(news.paid, secondsAgo)).status).toBe(401)
    }
    expect(await rowCounts()).toEqual(before)
    expect((await send(news.created, AGE_SECONDS_MAX - 5)).status).toBe(202)
    expect((await send(news.paid, -AGE_SECONDS_MAX + 1)).status).toBe(202)
  })

  test('does not help a body of more than a megabyte', async () => {
    const { status, json } = await attempt({ body: news.paid.body.padEnd(1_000_001) })
    expect([status, json.error.code]).toEqual([413, 'PAYLOAD_TOO_LARGE'])
    expect((await attempt({ body: news.paid.body.padEnd(1_000_000) })).status).toBe(202)
  })
})

describe('a signed event', () => {
  test.each([
    ...['', ' ', '{', '[]', 'null', '5', '"order.paid"', '{}', '{"data":{}}', '{"type":5,"data":{}}', 'a=b'],
    ...['{"type":null}', '[{"type":"order.paid"}]', `${'['.repeat(50_000)}${']'.repeat(50_000)}`],
  ])('that is none is taken note of and changes nothing: %.40s', async (body) => {
    const before = await rowCounts()
    const { status, json } = await attempt({ body })
    expect([status, json.receipt]).toEqual([202, expect.stringMatching(/^un(readable|known_type)$/)])
    expect(await rowCounts()).toEqual(before)
  })

  test('that is no UTF-8 is taken note of and changes nothing', async () => {
    const body = Buffer.from([0x7b, 0xff, 0xfe, 0x7d])
    const before = await rowCounts()
    const { status } = await attempt({ body })
    expect([401, 202]).toContain(status)
    expect(await rowCounts()).toEqual(before)
  })

  test.each(['order.exploded', 'dispute.created', 'constructor', '__proto__'])(
    'of the type %s, which nobody knows, changes nothing',
    async (type) => {
      const before = await rowCounts()
      const body = JSON.stringify({ type, timestamp: new Date().toISOString(), data: JSON.parse(news.paid.body).data })
      expect(await attempt({ body })).toEqual({ status: 202, json: { receipt: 'unknown_type' } })
      expect(await rowCounts()).toEqual(before)
    },
  )

  test('that means nothing here is kept, and changes nothing', async () => {
    const event = payments.polar.deliveries.events.find(({ type }) => type === 'order.created')
    const body = JSON.stringify({ type: 'checkout.created', timestamp: event?.createdAt, data: { id: 'x' } })
    const id = crypto.randomUUID()
    expect(await attempt({ id, body })).toEqual({ status: 202, json: { receipt: 'ignored' } })
    expect(await keptEvent(id)).toMatchObject({ type: 'checkout.created', outcome: 'ignored', body })
  })

  test.each<{ why: string; data: (order: Record<string, unknown>) => unknown; error: RegExp }>([
    { why: 'no data', data: () => undefined, error: /Object/ },
    { why: 'null for data', data: () => null, error: /Object/ },
    { why: 'no order', data: () => ({}), error: /id.*net_amount/ },
    { why: 'no amount', data: ({ net_amount: _, ...order }) => order, error: /net_amount/ },
    { why: 'an amount with a fraction', data: (order) => ({ ...order, net_amount: 500.5 }), error: /net_amount/ },
    { why: 'an amount as text', data: (order) => ({ ...order, net_amount: '500' }), error: /net_amount/ },
    { why: 'an amount beyond counting', data: (order) => ({ ...order, net_amount: 1e300 }), error: /net_amount/ },
    { why: 'no time', data: (order) => ({ ...order, created_at: 'yesterday' }), error: /created_at/ },
    { why: 'paid as text', data: (order) => ({ ...order, paid: 'true' }), error: /paid/ },
    { why: 'a currency of two letters', data: (order) => ({ ...order, currency: 'us' }), error: /currency/ },
    { why: 'an endless id', data: (order) => ({ ...order, id: 'x'.repeat(101) }), error: /id/ },
  ])('of a known type with $why is kept for an admin', async ({ data, error }) => {
    expectErrorsInLog()
    const { billing_orders } = await rowCounts()
    const { data: order, ...envelope } = JSON.parse(news.paid.body)
    const body = JSON.stringify({ ...envelope, data: data(order) })
    expect(await attempt({ body })).toEqual({ status: 202, json: { receipt: 'unreadable' } })
    expect(await keptEvent(news.paid.id)).toMatchObject({
      outcome: 'unreadable',
      type: 'order.paid',
      error: expect.stringMatching(error),
      body,
    })
    expect((await rowCounts()).billing_orders).toBe(billing_orders)
    expect(await standing(payments, user)).toEqual(freeWith())
    expect((await send(news.created)).json, 'the next one is read').toEqual({ receipt: 'applied' })
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
  })

  test('with text that no database stores takes effect all the same', async () => {
    const { data, ...envelope } = JSON.parse(news.paid.body)
    const body = JSON.stringify({ ...envelope, data: { ...data, description: 'Tokens\u0000and \ud800 more' } })
    expect((await attempt({ body })).json).toEqual({ receipt: 'applied' })
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
  })
})

describe('an event that comes again', () => {
  test('is a duplicate, whatever it says', async () => {
    expect((await send(news.paid)).json).toEqual({ receipt: 'applied' })
    const before = await rowCounts()
    expect(await send(news.paid)).toEqual({ status: 202, json: { receipt: 'duplicate' } })
    const other = JSON.stringify({ ...JSON.parse(news.paid.body), type: 'order.updated' })
    expect(await attempt({ body: other })).toEqual({ status: 202, json: { receipt: 'duplicate' } })
    expect(await rowCounts()).toEqual(before)
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
  })

  test('twenty times at once takes effect once', async () => {
    const replies = await Promise.all(Array.from({ length: 20 }, () => send(news.paid)))
    const receipts = replies.map(({ status, json }) => `${status} ${json.receipt}`).sort()
    expect(receipts).toEqual(['202 applied', ...Array.from({ length: 19 }, () => '202 duplicate')])
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await keptEvent(news.paid.id)).toMatchObject({ outcome: 'applied' })
  })

  test('as other news of the same order changes nothing more, in any order', async () => {
    await Promise.all([news.paid, news.created, news.updated].map((event) => send(event)))
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
  })
})

describe('an event that we fail to handle', () => {
  /** While `work` runs, no order can be written down. */
  async function withoutOrders(work: () => Promise<void>): Promise<void> {
    await sql`alter table billing_orders rename to billing_orders_away`.execute(db())
    try {
      await work()
    } finally {
      await sql`alter table billing_orders_away rename to billing_orders`.execute(db())
    }
  }

  const replay = (id: string) =>
    call(payments.app, `POST /api/admin/webhooks/${id}/replay`, { token: payments.admin.token })

  async function failTwice(): Promise<void> {
    expectErrorsInLog()
    await withoutOrders(async () => {
      for (const attempts of [1, 2]) {
        const { status, json } = await send(news.paid)
        expect([status, json.error.code]).toEqual([500, 'INTERNAL_ERROR'])
        expect(JSON.stringify(json)).not.toMatch(/billing_orders|relation/)
        expect(await keptEvent(news.paid.id)).toMatchObject({
          outcome: 'failed',
          attempts,
          processed_at: null,
          error: expect.stringContaining('billing_orders'),
        })
      }
    })
    expect(await standing(payments, user)).toEqual(freeWith())
  }

  test('is kept, and its next delivery takes effect, once', async () => {
    await failTwice()
    expect(await send(news.paid)).toEqual({ status: 202, json: { receipt: 'applied' } })
    expect(await send(news.paid)).toEqual({ status: 202, json: { receipt: 'duplicate' } })
    expect(await keptEvent(news.paid.id)).toMatchObject({ outcome: 'applied', attempts: 3, error: null })
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
  })

  test('is replayed by an admin, once, and its next delivery is a duplicate', async () => {
    await failTwice()
    expect((await replay(news.paid.id)).json).toMatchObject({ receipt: 'applied', outcome: 'applied' })
    expect((await replay(news.paid.id)).status).toBe(200)
    expect((await send(news.paid)).json).toEqual({ receipt: 'duplicate' })
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
  })

  test('is handled by the sweep', async () => {
    await failTwice()
    expect(await sweep(payments)).toMatchObject({ eventsRetried: 1, eventsStillFailing: 0 })
    expect(await keptEvent(news.paid.id)).toMatchObject({ outcome: 'applied' })
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
  })

  test('is sent again by Polar by itself', async () => {
    expectErrorsInLog()
    await withoutOrders(async () => {
      expect((await send(news.paid)).status).toBe(500)
    })
    payments.polar.deliveries.mode = 'deliver'
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
  })
})
