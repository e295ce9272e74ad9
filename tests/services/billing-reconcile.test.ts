// Reconciliation on real PostgreSQL and a loopback Polar: what no webhook told is found, and what fails stops nothing.
import { beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { openCheckout, type Wish } from '../../lib/billing/checkout.ts'
import { polar } from '../../lib/billing/polar.ts'
import { reconcile } from '../../lib/billing/reconcile.ts'
import { takeOver } from '../../lib/billing/take-over.ts'
import { makeClock } from '../support/clock.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { type DirectShop, PRODUCTS, refusal, startDirectShop } from '../support/direct-shop.ts'
import { givenAccount, lots } from '../support/ledger-account.ts'
import { OPENED } from '../support/paid-plans.ts'
import { beginAnew, firstAsked, givenEndpoint, type ListName, listing, NOTHING } from '../support/polar-lists.ts'
import {
  orderRow,
  polarDispute,
  polarOrder,
  polarRefund,
  polarSubscription,
  subscriptionRow,
} from '../support/polar-states.ts'

const BUDGET_MS = 60_000

let shop: DirectShop
let userId: string

beforeAll(async () => {
  shop = await startDirectShop()
  await makeClock(db())
})

beforeEach(async () => {
  userId = (await givenAccount(OPENED)).userId
  await beginAnew(shop)
})

async function sell(wish: Wish) {
  const { checkoutId } = await openCheckout(userId, wish, 'https://shop.example/')
  return shop.polar.shop.pay(checkoutId)
}

/** What was asked for by its id. */
const lookedUp = (name: ListName) =>
  shop.calls
    .filter((call) => call.startsWith(`GET /v1/${name}/`) && !call.includes('?'))
    .map((call) => call.slice('GET /v1/'.length))

const logged = () => vi.mocked(console.error).mock.calls.map(([line]) => JSON.parse(String(line)))
const order = (changes: Parameters<typeof polarOrder>[1] = {}) =>
  polarOrder(userId, { product_id: PRODUCTS.starter, ...changes })
const granted = async () => (await lots(userId, 'pack')).map((lot) => lot.granted)

describe('what no webhook told', () => {
  test('is found in every list, and is news once', async () => {
    const pack = await sell({ kind: 'pack', pack: 'starter' })
    const plan = await sell({ kind: 'plan', plan: 'pro' })
    shop.polar.shop.refund({ orderId: pack.id, amountCents: 100 })
    shop.polar.shop.dispute(pack.id, 'lost')
    shop.calls.length = 0
    // The order of the plan has brought its subscription along.
    expect(await reconcile(BUDGET_MS)).toEqual({ ...NOTHING, seen: 5, applied: 4 })
    expect(await orderRow(pack.id)).toMatchObject({ user_id: userId, refunded_cents: 100, dispute_lost: true })
    expect(await orderRow(plan.id)).toMatchObject({ user_id: userId, kind: 'plan', granted_at: expect.any(Date) })
    expect(await subscriptionRow(plan.subscription_id ?? '')).toMatchObject({ user_id: userId, plan: 'pro' })
    const rows = await db().selectFrom('billing_refunds').select(['order_id', 'amount_cents']).execute()
    expect(rows).toEqual([{ order_id: pack.id, amount_cents: 100 }])
    shop.calls.length = 0
    expect(await reconcile(BUDGET_MS)).toEqual({ ...NOTHING, seen: 5, applied: 0 })
    expect(lookedUp('orders'), 'for what is known').toEqual([])
  })

  test('of a subscription whose order is not in the list is found in its own', async () => {
    const subscription = polarSubscription(userId, {
      product_id: PRODUCTS.pro,
      current_period_end: '2099-01-01T00:00:00Z',
    })
    listing(shop, { subscriptions: [[subscription]] })
    expect(await reconcile(BUDGET_MS)).toEqual({ ...NOTHING, seen: 1, applied: 1 })
    expect(await subscriptionRow(subscription.id)).toMatchObject({ user_id: userId, plan: 'pro' })
  })

  test('is asked for a hundred at a time, the newest first, and of the beginning', async () => {
    await reconcile(BUDGET_MS)
    const asked = (name: ListName) => firstAsked(shop, name)
    for (const name of ['orders', 'subscriptions', 'refunds', 'disputes'] as const) {
      expect(asked(name)).toContain(`sorting=${name === 'subscriptions' ? '-started_at' : '-created_at'}`)
      expect(asked(name)).toContain('limit=100')
    }
    expect(asked('orders')).toContain('created_after=2000-01-01T00:00:00Z')
  })

  test('includes events that failed here', async () => {
    const body = JSON.stringify({ type: 'order.paid', data: order() })
    const event = { type: 'order.paid', source: 'polar' as const, outcome: 'failed' as const }
    await db()
      .insertInto('webhook_events')
      .values([
        { id: 'good', body, ...event },
        { id: 'bad', body: '{', ...event },
      ])
      .execute()
    expect(await reconcile(BUDGET_MS)).toEqual({ ...NOTHING, eventsRetried: 2, eventsStillFailing: 1 })
    expect(await granted()).toEqual([500])
  })

  test('is taken over where it is newer than what is known, and where an order waits', async () => {
    const known = order({ modified_at: '2026-01-02T00:00:00.000002Z' })
    const waiting = order({ metadata: {} })
    await takeOver({ orders: [known, waiting] })
    listing(shop, { orders: [[known, waiting]] })
    expect(await reconcile(BUDGET_MS)).toMatchObject({ seen: 2, applied: 1 })
    const newer = { ...known, refunded_amount: 100, modified_at: '2026-01-02T00:00:00.000003Z' }
    listing(shop, { orders: [[newer, { ...waiting, metadata: { user_id: userId } }]] })
    expect(await reconcile(BUDGET_MS)).toMatchObject({ seen: 2, applied: 2 })
    expect(await orderRow(known.id)).toMatchObject({ refunded_cents: 100 })
    expect(await reconcile(BUDGET_MS)).toMatchObject({ seen: 2, applied: 0 })
  })

  test('of refunds and disputes brings their orders', async () => {
    const [refunded, lost] = [
      await sell({ kind: 'pack', pack: 'starter' }),
      await sell({ kind: 'pack', pack: 'family' }),
    ]
    const refund = polarRefund(refunded.id)
    const dispute = polarDispute(lost.id, { status: 'lost' })
    const orphans = [polarRefund('gone'), polarDispute('gone')]
    listing(shop, { refunds: [[refund, orphans[0]]], disputes: [[dispute, orphans[1]]] })
    expect(await reconcile(BUDGET_MS)).toEqual({ ...NOTHING, seen: 4, applied: 4 })
    expect(await orderRow(refunded.id)).toMatchObject({ user_id: userId, tokens_granted: 500 })
    expect(await orderRow(lost.id)).toMatchObject({ dispute_lost: true, tokens_taken_back: 2400 })
    expect(await db().selectFrom('billing_refunds').select('id').execute()).toHaveLength(2)
    expect(await db().selectFrom('billing_disputes').select('id').execute()).toHaveLength(2)
  })
})

describe('what fails', () => {
  beforeEach(expectErrorsInLog)

  test.each(['orders', 'subscriptions', 'refunds', 'disputes'] as const)(
    'the list of %s does not keep the others from being looked at',
    async (name) => {
      shop.answer = (call) => (call.startsWith(`GET /v1/${name}/?`) ? refusal(500) : undefined)
      expect(await reconcile(BUDGET_MS)).toEqual({ ...NOTHING, complete: false, errors: [name] })
      expect(shop.calls.filter((call) => call.includes('/?'))).toHaveLength(4)
      expect(logged()).toMatchObject([
        { level: 'error', event: 'reconcile_failed', what: name, error: { name: 'PolarServerError' } },
      ])
    },
  )

  test('a state that cannot be taken over hides nothing behind it, and is told', async () => {
    const [broken, good] = [order({ status: 's'.repeat(41) }), order()]
    listing(shop, { orders: [[broken, good]] })
    const expected = { ...NOTHING, seen: 2, applied: 2, complete: false, errors: [`orders ${broken.id}`] }
    expect(await reconcile(BUDGET_MS)).toEqual(expected)
    expect(await granted()).toEqual([500])
    expect(await reconcile(BUDGET_MS), 'again').toEqual({ ...expected, applied: 1 })
  })

  test('more than twenty times is told twenty times', async () => {
    const broken = Array.from({ length: 21 }, () => ({ ...polarRefund('gone'), amount: 'x' }))
    listing(shop, { refunds: [broken] })
    const { errors, complete } = await reconcile(BUDGET_MS)
    expect([errors.length, complete]).toEqual([20, false])
    expect(logged()).toHaveLength(21)
  })

  test('to be looked up, or to say whether webhooks come, is told as well', async () => {
    await takeOver({ orders: [order({ id: 'pending', status: 'pending', paid: false })] })
    shop.answer = (call) =>
      call.includes('/webhooks/') || call === 'GET /v1/orders/pending' ? refusal(500) : undefined
    expect(await reconcile(BUDGET_MS)).toEqual({
      ...NOTHING,
      complete: false,
      webhookEndpoint: 'unknown',
      errors: ['due', 'endpoint'],
    })
    expect(logged()).toContainEqual(
      expect.objectContaining({ level: 'error', event: 'webhook_endpoint_off', state: 'unknown' }),
    )
  })
})

describe('the endpoint of the webhooks', () => {
  test('is told of when Polar has switched it off, or has none', async () => {
    expectErrorsInLog()
    const client = await polar()
    const { items } = await client.webhooks.listWebhookEndpoints({})
    for (const { id } of items) await client.webhooks.updateWebhookEndpoint(id, { enabled: false })
    expect(await reconcile(BUDGET_MS)).toEqual({ ...NOTHING, webhookEndpoint: 'disabled' })
    for (const { id } of items) await client.webhooks.deleteWebhookEndpoint(id)
    await givenEndpoint('https://shop.example/another')
    expect(await reconcile(BUDGET_MS)).toEqual({ ...NOTHING, webhookEndpoint: 'missing' })
    expect(logged()).toMatchObject([{ state: 'disabled' }, { state: 'missing' }])
  })

  test('is fine while one of ours is on', async () => {
    const { id } = await givenEndpoint('https://other.example/api/webhooks/polar')
    await (await polar()).webhooks.updateWebhookEndpoint(id, { enabled: false })
    expect(await reconcile(BUDGET_MS)).toEqual(NOTHING)
  })
})

describe('what should have changed by now', () => {
  beforeEach(() => listing(shop, {}))

  test('is looked up: plans past their date, and subscriptions known by an order alone', async () => {
    const plan = await sell({ kind: 'plan', plan: 'pro' })
    const { subscription, ...bare } = plan
    const id = plan.subscription_id ?? ''
    await takeOver({ orders: [{ ...order(), ...bare, customer: null, product: null }] })
    const past = { current_period_end: '2026-01-01T00:00:00Z' }
    await takeOver({
      subscriptions: [
        polarSubscription(userId, { id: 'overdue', ...past }),
        polarSubscription(userId, { id: 'over', ...past, status: 'canceled' }),
        polarSubscription(userId, { id: 'running', current_period_end: '2099-01-01T00:00:00Z' }),
      ],
    })
    shop.calls.length = 0
    expect(await reconcile(BUDGET_MS)).toEqual(NOTHING)
    expect(lookedUp('subscriptions').toSorted()).toEqual(['subscriptions/overdue', `subscriptions/${id}`].toSorted())
    expect(await subscriptionRow(id)).toMatchObject({ user_id: userId, plan: 'pro' })
  })

  test('is looked up: orders that wait for their payment, and those whose refunds do not add up', async () => {
    const [paid, refunded] = [
      await sell({ kind: 'pack', pack: 'starter' }),
      await sell({ kind: 'pack', pack: 'starter' }),
    ]
    const known = { created_at: '2026-01-01T00:00:00Z' }
    const fine = order(known)
    await takeOver({
      orders: [
        order({ ...known, id: paid.id, status: 'pending', paid: false }),
        order({ ...known, id: refunded.id }),
        fine,
        order({ ...known, id: 'even', refunded_amount: 100 }),
        order({ ...known, id: 'gone', status: 'pending', paid: false }),
      ],
      refunds: [
        polarRefund(refunded.id),
        polarRefund('even'),
        polarRefund('even', { status: 'failed' }),
        polarRefund('unknown'),
      ],
    })
    shop.polar.shop.refund({ orderId: refunded.id, amountCents: 100 })
    shop.calls.length = 0
    expect(await reconcile(BUDGET_MS)).toEqual(NOTHING)
    expect(lookedUp('orders').toSorted()).toEqual(
      [`orders/${paid.id}`, `orders/${refunded.id}`, 'orders/gone'].toSorted(),
    )
    expect(await orderRow(paid.id)).toMatchObject({ status: 'paid', tokens_granted: 500 })
    expect(await orderRow(refunded.id)).toMatchObject({ refunded_cents: 100, tokens_taken_back: 100 })
    shop.calls.length = 0
    await reconcile(BUDGET_MS)
    expect(lookedUp('orders')).toEqual(['orders/gone'])
  })
})
