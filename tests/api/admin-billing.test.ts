// Money as the operator sees and mends it: orders that wait, events that failed, revenue and what is owed in tokens.
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { seedAdmin } from '../../lib/auth/accounts.ts'
import { toolId } from '../../lib/tools/catalogue.ts'
import { type App, balanceOf, type CallOptions, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import {
  givenDispute,
  givenLot,
  givenOrder,
  givenRefund,
  givenUsage,
  holdFrom,
  settleHold,
} from '../support/billing-rows.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { ledgerViolations } from '../support/money.ts'

const ADMIN = { email: 'root@example.com', password: 'a password for the admin' }

let app: App
let user: TestUser
let admin: { id: string; token: string }

beforeAll(async () => {
  app = await startApp({
    ADMIN_EMAIL: ADMIN.email,
    ADMIN_PASSWORD: ADMIN.password,
    FORK__PAYMENTS__PROVIDER: 'polar',
    POLAR_ACCESS_TOKEN: 'polar_oat_of_the_tests',
    POLAR_WEBHOOK_SECRET: 'polar_whs_of_the_tests',
    POLAR_BASE_URL: 'http://127.0.0.1:9',
  })
  await seedAdmin()
  const { json } = await call(app, 'POST /api/auth/login', { body: ADMIN })
  admin = { id: json.user.id, token: json.accessToken }
  await toolId(db(), 'coloring-page')
})

beforeEach(async () => {
  user = await givenUser(app)
})

const get = (path: string) => call(app, `GET /api/admin/${path}`, { token: admin.token })
const post = (path: string, options: CallOptions = {}) =>
  call(app, `POST /api/admin/${path}`, { token: admin.token, ...options })

async function audits(action: string) {
  return await db().selectFrom('audit_log').selectAll().where('action', '=', action).orderBy('id').execute()
}

/** Every row of a list, page by page. */
async function walk(path: string, limit: number): Promise<{ id: string }[]> {
  const seen: { id: string }[] = []
  let cursor: string | null = ''
  while (cursor !== null) {
    const { json } = await get(`${path}limit=${limit}${cursor && `&cursor=${cursor}`}`)
    expect(json.data.length).toBeLessThanOrEqual(limit)
    expect(json.page.hasMore).toBe(json.page.nextCursor !== null)
    seen.push(...json.data)
    expect(seen.length, 'the walk ends').toBeLessThan(100)
    cursor = json.page.nextCursor
  }
  return seen
}

describe('GET /api/admin/orders', () => {
  const ids = (list: { id: string }[]) => list.map(({ id }) => id)

  beforeEach(async () => {
    await db().deleteFrom('billing_orders').execute()
  })

  test('shows an order with its owner, what it gave and what came of it', async () => {
    const id = await givenOrder({
      user_id: user.id,
      description: 'Starter pack',
      status: 'refunded',
      net_cents: 1000,
      tax_cents: 190,
      refunded_cents: 1000,
      fee_cents: 100,
      dispute_lost: true,
      tokens_worth: 1000,
      tokens_granted: 1000,
      tokens_taken_back: 1000,
      customer_id: 'customer',
      product_id: 'product',
      checkout_id: 'checkout',
      invoice_number: 'INV-1',
      ordered_at: '2026-03-01T00:00:00Z',
      modified_at: '2026-03-02T00:00:00Z',
      granted_at: '2026-03-01T00:00:01Z',
    })
    const { status, json } = await get('orders')
    expect(status).toBe(200)
    expect(json).toEqual({
      data: [
        {
          id,
          userId: user.id,
          email: user.email,
          kind: 'tokens',
          plan: null,
          description: 'Starter pack',
          status: 'refunded',
          paid: true,
          currency: 'usd',
          netCents: 1000,
          taxCents: 190,
          refundedCents: 1000,
          feeCents: 100,
          disputeLost: true,
          problem: null,
          tokensWorth: 1000,
          tokensGranted: 1000,
          tokensTakenBack: 1000,
          customerId: 'customer',
          productId: 'product',
          checkoutId: 'checkout',
          subscriptionId: null,
          invoiceNumber: 'INV-1',
          orderedAt: '2026-03-01T00:00:00.000Z',
          modifiedAt: '2026-03-02T00:00:00.000Z',
          grantedAt: '2026-03-01T00:00:01.000Z',
        },
      ],
      page: { nextCursor: null, hasMore: false },
    })
  })

  test('filters by status, by problem and by user', async () => {
    const at = '2026-03-01T00:00:00Z'
    const paid = await givenOrder({ user_id: user.id, ordered_at: at })
    const waiting = await givenOrder({ ordered_at: '2026-03-02T00:00:00Z', problem: 'no_user' })
    const pending = await givenOrder({ ordered_at: '2026-03-03T00:00:00Z', status: 'pending', paid: false })
    const found = async (query: string) => ids((await get(`orders?${query}`)).json.data)
    expect(await found('')).toEqual([pending, waiting, paid])
    expect(await found('status=paid')).toEqual([waiting, paid])
    expect(await found('problem=true')).toEqual([waiting])
    expect(await found('problem=false')).toEqual([pending, paid])
    expect(await found(`user=${user.id}`)).toEqual([paid])
    expect(await found(`status=pending&problem=true`)).toEqual([])
    expect(await found(`user=${crypto.randomUUID()}`)).toEqual([])
  })

  test.each([1, 4, 30])('walked %i at a time shows every order once, also of one instant', async (limit) => {
    const made: string[] = []
    for (let order = 0; order < 30; order += 1) {
      const at = `2026-03-01T12:00:00.00000${order % 3}Z`
      made.push(await givenOrder({ ordered_at: at, ...(order % 2 === 0 && { problem: 'product' as const }) }))
    }
    const seen = ids(await walk('orders?', limit))
    expect(seen).toHaveLength(30)
    expect(new Set(seen)).toEqual(new Set(made))
    expect(await walk('orders?problem=true&', limit)).toHaveLength(15)
  })

  test.each([
    { query: 'limit=101', path: 'limit' },
    { query: 'cursor=x', path: 'cursor' },
    { query: 'problem=yes', path: 'problem' },
    { query: 'user=ada', path: 'user' },
    { query: 'status=', path: 'status' },
    { query: 'status=a%00b', path: 'status' },
    { query: 'sort=up', path: 'sort' },
  ])('refuses ?$query', async ({ query, path }) => {
    const { status, json } = await get(`orders?${query}`)
    expect(status).toBe(400)
    expect(json.error.details.issues).toMatchObject([{ path }])
  })
})

describe('POST /api/admin/orders/:id/assign', () => {
  const at = '2026-03-01T00:00:00Z'
  const reason = 'They sent the receipt.'
  const assign = (orderId: string, body: unknown = { userId: user.id, reason }, key?: string) =>
    post(`orders/${orderId}/assign`, { body, ...(key !== undefined && { headers: { 'idempotency-key': key } }) })
  const bought = async (whose = user) => (await balanceOf(app, whose)).purchasedTokens
  const assignments = async (orderId: string) =>
    (await audits('order.assign')).filter(({ target_id }) => target_id === orderId)

  test('gives an order without an owner to a user, with its tokens, and puts it on record', async () => {
    const id = await givenOrder({ ordered_at: at, problem: 'no_user' })
    const { status, json } = await assign(id)
    expect(status).toBe(200)
    expect(json).toMatchObject({ id, userId: user.id, email: user.email, problem: null, tokensGranted: 500 })
    expect(await bought()).toBe(500)
    expect(await ledgerViolations()).toEqual([])
    expect(await assignments(id)).toMatchObject([
      {
        actor_type: 'admin',
        actor_id: admin.id,
        target_type: 'order',
        reason,
        details: { orderId: id, userId: user.id, problem: 'no_user' },
      },
    ])
  })

  test.each([{ problem: 'product' as const }, { problem: 'currency' as const }])(
    'needs to be told what an order with the problem $problem is worth',
    async ({ problem }) => {
      const worth = problem === 'product' ? null : 500
      const id = await givenOrder({ ordered_at: at, problem, tokens_worth: worth, currency: 'eur' })
      const refused = await assign(id)
      expect(refused.status).toBe(400)
      expect(refused.json.error.details.issues).toMatchObject([{ path: 'tokens' }])
      expect((await get(`orders?problem=true&user=${user.id}`)).json.data).toEqual([])
      const { status, json } = await assign(id, { userId: user.id, tokens: 70, reason })
      expect(status).toBe(200)
      expect(json).toMatchObject({ userId: user.id, problem: null, tokensWorth: 70, tokensGranted: 70 })
      expect(await bought()).toBe(70)
    },
  )

  test('may find an order worth nothing, and then it waits no more', async () => {
    const id = await givenOrder({ ordered_at: at, problem: 'product', tokens_worth: null })
    const { json } = await assign(id, { userId: user.id, tokens: 0, reason })
    expect(json).toMatchObject({ userId: user.id, problem: null, tokensGranted: 0, grantedAt: expect.any(String) })
    expect(await bought()).toBe(0)
    expect((await assign(id)).status).toBe(409)
  })

  test('gives only what was not refunded meanwhile', async () => {
    const id = await givenOrder({
      ordered_at: at,
      problem: 'no_user',
      refunded_cents: 200,
      status: 'partially_refunded',
    })
    expect((await assign(id)).json).toMatchObject({ tokensGranted: 500, tokensTakenBack: 200 })
    expect(await bought()).toBe(300)
  })

  test('refuses what does not wait, or waits for another user', async () => {
    const owner = await givenUser(app)
    const settled = await givenOrder({ ordered_at: at, user_id: owner.id })
    const theirs = await givenOrder({ ordered_at: at, user_id: owner.id, problem: 'currency', currency: 'eur' })
    for (const id of [settled, theirs]) {
      const { status, json } = await assign(id, { userId: user.id, tokens: 5, reason })
      expect(status).toBe(409)
      expect(json.error.code).toBe('CONFLICT')
      expect(await assignments(id)).toEqual([])
    }
    expect((await assign(theirs, { userId: owner.id, tokens: 5, reason })).status).toBe(200)
    expect([await bought(), await bought(owner)]).toEqual([0, 5])
  })

  test('knows no order of another id, and no user of another', async () => {
    for (const id of [crypto.randomUUID(), '%00', 'x'.repeat(300), "'%20or%20true--"]) {
      const { status, json } = await assign(id)
      expect(status).toBe(404)
      expect(json.error.message).toBe('There is no such order.')
    }
    const id = await givenOrder({ ordered_at: at, problem: 'no_user' })
    await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', user.id).execute()
    for (const userId of [crypto.randomUUID(), user.id]) {
      const { status, json } = await assign(id, { userId, reason })
      expect(status).toBe(400)
      expect(json.error.details.issues).toEqual([{ path: 'userId', message: 'There is no such user.' }])
    }
  })

  test('repeated with its key answers the same and gives once, also when the first answer was lost', async () => {
    const id = await givenOrder({ ordered_at: at, problem: 'no_user' })
    const key = crypto.randomUUID()
    const first = await assign(id, undefined, key)
    const replay = await assign(id, undefined, key)
    expect(replay.headers.get('idempotent-replayed')).toBe('true')
    expect(replay.bytes).toEqual(first.bytes)
    const lost = { status: null, headers: null, body: null, body_expires_at: null, locked_until: new Date(0) }
    await db().updateTable('idempotency_keys').set(lost).where('key', '=', key).execute()
    const repeat = await assign(id, undefined, key)
    expect(repeat.status).toBe(200)
    expect(repeat.json).toEqual(first.json)
    expect(await bought()).toBe(500)
    expect(await assignments(id)).toHaveLength(1)
  })

  test('of two at once for two users, one gets the order', async () => {
    const other = await givenUser(app)
    const id = await givenOrder({ ordered_at: at, problem: 'no_user' })
    const replies = await Promise.all([user, other].map(({ id: userId }) => assign(id, { userId, reason })))
    expect(replies.map(({ status }) => status).sort()).toEqual([200, 409])
    expect((await bought()) + (await bought(other))).toBe(500)
    expect(await ledgerViolations()).toEqual([])
  })

  test.each([
    { why: 'no user', body: { reason }, path: 'userId' },
    { why: 'a user by name', body: { userId: 'ada', reason }, path: 'userId' },
    { why: 'no reason', body: { userId: crypto.randomUUID() }, path: 'reason' },
    { why: 'fewer tokens than none', body: { userId: crypto.randomUUID(), reason, tokens: -1 }, path: 'tokens' },
    { why: 'half a token', body: { userId: crypto.randomUUID(), reason, tokens: 0.5 }, path: 'tokens' },
    { why: 'a price', body: { userId: crypto.randomUUID(), reason, netCents: 5 }, path: 'netCents' },
  ])('refuses $why', async ({ body, path }) => {
    const { status, json } = await assign(crypto.randomUUID(), body)
    expect(status).toBe(400)
    expect(json.error.details.issues).toMatchObject([{ path }])
  })
})

describe('/api/admin/webhooks', () => {
  const order = (fields: object = {}) => ({
    ...{
      id: crypto.randomUUID(),
      created_at: '2026-03-01T00:00:00.000001Z',
      modified_at: null,
      status: 'paid',
      paid: true,
    },
    ...{ net_amount: 500, tax_amount: 0, refunded_amount: 0, currency: 'usd', billing_reason: 'purchase' },
    ...{ customer_id: crypto.randomUUID(), metadata: { user_id: user.id } },
    ...fields,
  })

  const givenEvent = async (
    fields: Partial<{
      type: string
      outcome: 'applied' | 'failed' | 'unreadable'
      error: string
      received_at: string
      data: unknown
    }> = {},
  ) => {
    const { data = order(), outcome = 'failed', type = 'order.paid', ...rest } = fields
    const id = crypto.randomUUID()
    const processed_at = outcome === 'failed' ? null : '2026-03-01T00:00:00Z'
    await db()
      .insertInto('webhook_events')
      .values({ id, source: 'polar', type, body: JSON.stringify({ type, data }), outcome, processed_at, ...rest })
      .execute()
    return id
  }

  beforeEach(async () => {
    await db().deleteFrom('webhook_events').execute()
  })

  test('lists events without their bodies, and shows one with its body as it came', async () => {
    const error = JSON.stringify({ name: 'Error', message: 'The database\nsaid "no".', stack: 'at somewhere' })
    const id = await givenEvent({ error, received_at: '2026-03-01T00:00:00Z', data: { secret: 'of the customer' } })
    const event = {
      id,
      source: 'polar',
      type: 'order.paid',
      outcome: 'failed',
      error: 'The database said "no".',
      attempts: 1,
      receivedAt: '2026-03-01T00:00:00.000Z',
      processedAt: null,
    }
    expect((await get('webhooks')).json).toEqual({ data: [event], page: { nextCursor: null, hasMore: false } })
    const body = '{"type":"order.paid","data":{"secret":"of the customer"}}'
    expect((await get(`webhooks/${id}`)).json).toEqual({ ...event, body })
    for (const unknown of [crypto.randomUUID(), '%00', 'x'.repeat(300)]) {
      expect((await get(`webhooks/${unknown}`)).status).toBe(404)
    }
  })

  test('filters by outcome and type, and walked page by page shows every event once', async () => {
    const outcomes = ['applied', 'failed', 'unreadable'] as const
    for (let event = 0; event < 12; event += 1) {
      const received_at = `2026-03-01T12:00:00.00000${event % 2}Z`
      await givenEvent({
        received_at,
        outcome: outcomes[event % 3] ?? 'failed',
        ...(event < 3 && { type: 'refund.created' }),
      })
    }
    for (const limit of [1, 5, 12]) expect(new Set((await walk('webhooks?', limit)).map(({ id }) => id)).size).toBe(12)
    expect(await walk('webhooks?', 5)).toHaveLength(12)
    expect(await walk('webhooks?outcome=failed&', 3)).toHaveLength(4)
    expect(await walk('webhooks?type=refund.created&', 2)).toHaveLength(3)
    expect(await walk('webhooks?type=refund.created&outcome=applied&', 2)).toHaveLength(1)
    for (const query of ['outcome=lost', 'type=', 'cursor=x', 'limit=0', 'body=true']) {
      expect((await get(`webhooks?${query}`)).status, query).toBe(400)
    }
  })

  test('replays a failed event, which takes effect once however often it is replayed', async () => {
    const id = await givenEvent()
    const { status, json } = await post(`webhooks/${id}/replay`)
    expect(status).toBe(200)
    expect(json).toEqual({ id, type: 'order.paid', receipt: 'applied', outcome: 'applied', attempts: 2 })
    expect((await post(`webhooks/${id}/replay`)).json).toMatchObject({ receipt: 'applied', attempts: 3 })
    expect((await balanceOf(app, user)).purchasedTokens).toBe(500)
    expect(await ledgerViolations()).toEqual([])
    const records = (await audits('webhook.replay')).filter(({ target_id }) => target_id === id)
    expect(records).toHaveLength(2)
    expect(records[0]).toMatchObject({ actor_id: admin.id, target_type: 'webhook', details: { type: 'order.paid' } })
  })

  test('tells why an event failed again, keeps it for another time, and has the attempt on record', async () => {
    const id = await givenEvent({ data: order({ status: 'x'.repeat(41) }) })
    const { status, json } = await post(`webhooks/${id}/replay`)
    expect(status).toBe(409)
    expect(json.error).toMatchObject({ code: 'CONFLICT', details: { error: expect.stringMatching(/too long/) } })
    expect(json.error.message).not.toMatch(/node_modules|\bat \//)
    expect((await get(`webhooks/${id}`)).json).toMatchObject({
      outcome: 'failed',
      attempts: 2,
      error: json.error.details.error,
    })
    expect((await audits('webhook.replay')).at(-1)).toMatchObject({ target_id: id })
  })

  test('tells what of an event cannot be read', async () => {
    expectErrorsInLog()
    const id = await givenEvent({ data: { id: 5 }, outcome: 'unreadable', error: 'before' })
    const { status, json } = await post(`webhooks/${id}/replay`)
    expect(status).toBe(409)
    expect(json.error.details.error).toMatch(/created_at/)
    expect((await get(`webhooks/${id}`)).json.outcome).toBe('unreadable')
  })

  test('replays nothing that there is not', async () => {
    const before = (await audits('webhook.replay')).length
    expect((await post(`webhooks/${crypto.randomUUID()}/replay`)).status).toBe(404)
    expect((await post('webhooks/%00/replay')).status).toBe(404)
    expect(await audits('webhook.replay')).toHaveLength(before)
  })
})

describe('GET /api/admin/revenue', () => {
  const NOTHING = {
    orders: 0,
    grossCents: 0,
    taxCents: 0,
    feesCents: 0,
    refundedCents: 0,
    disputedCents: 0,
    netCents: 0,
  }
  const revenue = async (query: string) => {
    const { status, json } = await get(`revenue?${query}`)
    expect(status).toBe(200)
    return json
  }

  beforeEach(async () => {
    for (const table of ['billing_orders', 'billing_refunds', 'billing_disputes', 'usage_logs'] as const) {
      await db().deleteFrom(table).execute()
    }
  })

  test('of nothing is nothing, over the last 30 days', async () => {
    const { from, to, ...rest } = await revenue('')
    expect(Date.parse(to) - Date.parse(from)).toBe(30 * 86_400_000)
    expect(rest).toEqual({
      currency: 'usd',
      ...NOTHING,
      aiCostUsd: 0,
      byDay: [],
      liability: { unspentTokens: 0, unspentPlanTokens: 0, cents: 0 },
      otherCurrencies: [],
    })
  })

  test('is gross less refunds, lost disputes and fees, by day of UTC; other currencies stand apart', async () => {
    const order = {
      user_id: user.id,
      ordered_at: '2026-03-01T23:59:59.999999Z',
      net_cents: 1000,
      tax_cents: 190,
      fee_cents: 100,
    }
    const first = await givenOrder(order)
    await givenOrder({
      ...order,
      user_id: null,
      problem: 'no_user',
      ordered_at: '2026-03-02T00:00:00Z',
      net_cents: 500,
    })
    await givenOrder({ ...order, paid: false, status: 'pending' })
    await givenOrder({ ...order, ordered_at: '2026-02-28T23:59:59.999999Z' })
    await givenOrder({ ...order, ordered_at: '2026-03-05T00:00:00Z' })
    const euros = await givenOrder({ ...order, currency: 'eur', net_cents: 800, tax_cents: 0, fee_cents: 80 })
    const refund = { order_id: first, amount_cents: 250, refunded_at: '2026-03-03T00:00:00Z' }
    await givenRefund(refund)
    await givenRefund({ ...refund, status: 'pending' })
    await givenRefund({ ...refund, order_id: euros, currency: 'eur', amount_cents: 30 })
    const dispute = { order_id: first, amount_cents: 750, disputed_at: '2026-03-03T00:00:00Z' }
    await givenDispute({ ...dispute, status: 'lost' })
    await givenDispute({ ...dispute, status: 'won' })
    await givenDispute({ ...dispute, order_id: euros, amount_cents: 20, status: 'lost' })
    await givenUsage(user.id, [
      { at: '2026-03-01T12:00:00Z', tokens: 1, costMicroUsd: 39_000 },
      { at: '2026-03-04T12:00:00Z', tokens: 0, status: 'error', costMicroUsd: 1 },
      { at: '2026-03-05T00:00:00Z', tokens: 1, costMicroUsd: 39_000 },
    ])

    const { byDay, otherCurrencies, liability: _, ...rest } = await revenue('from=2026-03-01&to=2026-03-05')
    expect(rest).toEqual({
      from: '2026-03-01T00:00:00.000Z',
      to: '2026-03-05T00:00:00.000Z',
      currency: 'usd',
      orders: 2,
      grossCents: 1500,
      taxCents: 380,
      feesCents: 200,
      refundedCents: 250,
      disputedCents: 750,
      netCents: 300,
      aiCostUsd: 0.039001,
    })
    const day = { ...NOTHING, orders: 1, taxCents: 190, feesCents: 100 }
    expect(byDay).toEqual([
      { day: '2026-03-04', ...NOTHING, aiCostUsd: 0.000001 },
      { day: '2026-03-03', ...NOTHING, refundedCents: 250, disputedCents: 750, netCents: -1000, aiCostUsd: 0 },
      { day: '2026-03-02', ...day, grossCents: 500, netCents: 400, aiCostUsd: 0 },
      { day: '2026-03-01', ...day, grossCents: 1000, netCents: 900, aiCostUsd: 0.039 },
    ])
    const euro = {
      orders: 1,
      grossCents: 800,
      taxCents: 0,
      feesCents: 80,
      refundedCents: 30,
      disputedCents: 20,
      netCents: 670,
    }
    expect(otherCurrencies).toEqual([{ currency: 'eur', ...euro, liabilityCents: 0 }])
  })

  test('owes what is unspent of bought tokens, at what was paid for each lot, rounded up', async () => {
    const at = '2026-03-01T00:00:00Z'
    const buy = async (
      fields: { currency?: string; net_cents: number },
      lot: { tokens: number; kind?: 'plan'; expiresAt?: string },
    ) => {
      const id = await givenOrder({ user_id: user.id, ordered_at: at, ...fields })
      return await givenLot({ userId: user.id, kind: 'pack', at, source: `polar:order:${id}`, ...lot })
    }
    await buy({ net_cents: 1000 }, { tokens: 1000 })
    // 100 of 300 tokens are left: a third of 799 cents is 266.33.
    const partly = await buy({ net_cents: 799 }, { tokens: 300 })
    await settleHold(await holdFrom(partly, 150))
    const held = await holdFrom(partly, 50)
    await buy({ currency: 'eur', net_cents: 900 }, { tokens: 90 })
    await buy({ net_cents: 1900 }, { tokens: 50_000, kind: 'plan', expiresAt: '2999-01-01T00:00:00Z' })
    await buy({ net_cents: 1900 }, { tokens: 50_000, kind: 'plan', expiresAt: '2026-04-01T00:00:00Z' })
    await givenLot({ userId: user.id, at, kind: 'promo', tokens: 777 })
    const owed = async () => (await revenue('from=2026-01-01&to=2026-01-02')).liability
    const total = { unspentTokens: 1000 + 150 + 90, unspentPlanTokens: 50_000 }
    expect(await owed(), 'what is held is not spent').toEqual({ ...total, cents: 1000 + Math.ceil((799 * 150) / 300) })
    await settleHold(held)
    expect(await owed()).toEqual({ ...total, unspentTokens: 1190, cents: 1000 + 267 })
    const { otherCurrencies } = await revenue('from=2026-01-01&to=2026-01-02')
    expect(otherCurrencies).toEqual([{ currency: 'eur', ...NOTHING, liabilityCents: 900 }])
  })

  test.each(['from=2026-03-02&to=2026-03-01', 'from=2024-01-01&to=2026-01-01', 'from=x', 'currency=eur'])(
    'refuses ?%s',
    async (query) => {
      expect((await get(`revenue?${query}`)).status).toBe(400)
    },
  )
})
