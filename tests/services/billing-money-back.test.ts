// Money that goes back, and orders that wait for an admin, on real PostgreSQL: what is taken back, and who gets what.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { applyDispute, applyOrder, applyRefund, assignOrder } from '../../lib/billing/orders.ts'
import type { PolarDispute, PolarOrder, PolarRefund } from '../../lib/billing/polar-objects.ts'
import { startApp } from '../support/app.ts'
import { at, makeClock } from '../support/clock.ts'
import { givenAccount, lots } from '../support/ledger-account.ts'
import { ledgerViolations } from '../support/money.ts'
import { BOUGHT, OPENED, SOON } from '../support/paid-plans.ts'
import {
  orderRow,
  polarDispute,
  polarOrder,
  polarPlanOrder,
  polarRefund,
  polarSubscription,
  SHOP_VARIABLES,
  subscriptionRow,
} from '../support/polar-states.ts'

const LATER = '2023-06-20T12:00:00.000002Z'
const LATEST = '2023-06-20T12:00:00.000003Z'

let userId: string

beforeAll(async () => {
  await startApp(SHOP_VARIABLES)
  await makeClock(db())
})

beforeEach(async () => {
  userId = (await givenAccount(OPENED)).userId
})

afterEach(async () => {
  expect(await ledgerViolations()).toEqual([])
})

const hearOrder = (order: PolarOrder) => at(BOUGHT, (trx) => applyOrder(trx, order))
const hearRefund = (refund: PolarRefund) => at(BOUGHT, (trx) => applyRefund(trx, refund))
const hearDispute = (dispute: PolarDispute) => at(BOUGHT, (trx) => applyDispute(trx, dispute))
const assign = (orderId: string, tokens?: number, to = userId) =>
  at(SOON, (trx) => assignOrder(trx, { orderId, userId: to, tokens }))
const packs = () => lots(userId, 'pack')
const left = (available: number, granted = 500) => [
  { granted, available, held: 0, spent: 0, gone: granted - available },
]

describe('a refund', () => {
  test('takes back in proportion, follows what Polar says in all, and gives back what failed', async () => {
    const order = polarOrder(userId)
    await hearOrder(order)
    for (const [index, refunded_amount] of [100, 300, 500, 200, 0].entries()) {
      await hearOrder({ ...order, refunded_amount, modified_at: `2023-06-20T12:00:0${index + 1}Z` })
      const taken = { refunded_cents: refunded_amount, tokens_taken_back: refunded_amount }
      expect(await orderRow(order.id)).toMatchObject(taken)
      expect(await packs()).toEqual(left(500 - refunded_amount))
    }
  })

  test('is kept with every fact of it', async () => {
    const refund = polarRefund('order', { modified_at: LATER, reason: 'r'.repeat(61), amount: 120, currency: 'eur' })
    await hearRefund(refund)
    expect(await refundRow(refund.id)).toEqual({
      id: refund.id,
      order_id: 'order',
      status: 'succeeded',
      reason: 'r'.repeat(60),
      amount_cents: 120,
      currency: 'eur',
      refunded_at: new Date(BOUGHT),
      modified_at: new Date(LATER),
    })
  })

  test('keeps its newest state, whatever comes after it', async () => {
    const refund = polarRefund('order', { status: 'pending' })
    await hearRefund(refund)
    await hearRefund({ ...refund, status: 'succeeded' })
    expect(await refundRow(refund.id)).toMatchObject({ status: 'succeeded' })
    await hearRefund({ ...refund, status: 'failed', modified_at: LATEST })
    await hearRefund({ ...refund, status: 'succeeded', modified_at: LATER })
    expect(await refundRow(refund.id)).toMatchObject({ status: 'failed', modified_at: new Date(LATEST) })
  })
})

describe('a dispute', () => {
  test('is kept with every fact of it, and its newest state stays', async () => {
    const dispute = polarDispute('order', { modified_at: LATER })
    await hearDispute(dispute)
    expect(await disputeRow(dispute.id)).toEqual({
      id: dispute.id,
      order_id: 'order',
      status: 'needs_response',
      amount_cents: 500,
      disputed_at: new Date(BOUGHT),
      modified_at: new Date(LATER),
    })
    await hearDispute({ ...dispute, status: 'won', modified_at: LATEST })
    await hearDispute(dispute)
    expect(await disputeRow(dispute.id)).toMatchObject({ status: 'won', modified_at: new Date(LATEST) })
  })

  test.each(['before', 'after'])(
    'that is lost takes back everything, if it is heard of %s its order',
    async (place) => {
      const order = polarOrder(userId, { refunded_amount: 100 })
      const dispute = polarDispute(order.id, { status: 'lost' })
      if (place === 'before') await hearDispute(dispute)
      await hearOrder(order)
      if (place === 'after') await hearDispute(dispute)
      expect(await orderRow(order.id)).toMatchObject({
        dispute_lost: true,
        tokens_granted: 500,
        tokens_taken_back: 500,
      })
      expect(await packs()).toEqual(left(0))
    },
  )

  test('that runs takes nothing, and one that is won after all gives back what it took', async () => {
    const order = polarOrder(userId)
    await hearOrder(order)
    const dispute = polarDispute(order.id)
    await hearDispute(dispute)
    expect(await packs()).toEqual(left(500))
    await hearDispute({ ...dispute, status: 'lost', modified_at: LATER })
    expect(await packs()).toEqual(left(0))
    await hearDispute({ ...dispute, status: 'won', modified_at: LATEST })
    expect(await orderRow(order.id)).toMatchObject({ dispute_lost: false, tokens_taken_back: 0 })
    expect(await packs()).toEqual(left(500))
  })

  test('that is lost over an order that gave nothing is on record', async () => {
    const order = polarOrder(userId, { net_amount: 0 })
    await hearOrder(order)
    await hearDispute(polarDispute(order.id, { status: 'lost' }))
    expect(await orderRow(order.id)).toMatchObject({ dispute_lost: true, tokens_taken_back: 0 })
  })

  test('takes nothing of an order that still waits', async () => {
    const order = polarOrder(userId, { metadata: {} })
    await hearOrder(order)
    await hearDispute(polarDispute(order.id, { status: 'lost' }))
    expect(await orderRow(order.id)).toMatchObject({ dispute_lost: false, problem: 'no_user', granted_at: null })
    expect(await assign(order.id)).toBe(true)
    expect(await orderRow(order.id)).toMatchObject({ dispute_lost: true, tokens_taken_back: 500 })
  })
})

describe('an admin', () => {
  test('gives an order that nobody claims to a user, with its subscription and its plan', async () => {
    const subscription = polarSubscription(userId, { metadata: {} })
    const order = polarPlanOrder(userId, subscription.id, { metadata: {}, subscription })
    await hearOrder(order)
    expect(await assign(order.id)).toBe(true)
    expect(await orderRow(order.id)).toMatchObject({ user_id: userId, problem: null, granted_at: new Date(SOON) })
    expect((await subscriptionRow(subscription.id)).user_id).toBe(userId)
    const { plan } = await db()
      .selectFrom('subscriptions')
      .select('plan')
      .where('user_id', '=', userId)
      .executeTakeFirstOrThrow()
    expect(plan).toBe('pro')
  })

  test('does not take a subscription from whoever has it', async () => {
    const other = (await givenAccount(OPENED)).userId
    const subscription = polarSubscription(other)
    const order = polarPlanOrder(userId, subscription.id, { metadata: {}, product_id: 'product-unknown' })
    await hearOrder(order)
    await at(BOUGHT, (trx) =>
      applyOrder(trx, polarPlanOrder(other, subscription.id, { subscription, created_at: SOON })),
    )
    expect(await assign(order.id, 10)).toBe(true)
    expect((await subscriptionRow(subscription.id)).user_id).toBe(other)
  })

  test('gives no other subscription with it', async () => {
    const bystander = polarSubscription(userId, { metadata: {} })
    await hearOrder(polarPlanOrder(userId, bystander.id, { metadata: {}, subscription: bystander }))
    const tokens = polarOrder(userId, { metadata: {} })
    await hearOrder(tokens)
    expect(await assign(tokens.id)).toBe(true)
    expect((await subscriptionRow(bystander.id)).user_id).toBeNull()
    expect(await packs()).toEqual(left(500))
  })

  test.each([
    { problem: 'product', state: { product_id: 'product-unknown', metadata: {} } },
    { problem: 'currency', state: { currency: 'eur' } },
  ])('says what an order is worth that waits with the problem "$problem"', async ({ problem, state }) => {
    const order = polarOrder(userId, state)
    await hearOrder(order)
    expect((await orderRow(order.id)).problem).toBe(problem)
    expect(await assign(order.id)).toBe(true)
    expect(await orderRow(order.id)).toMatchObject({ user_id: userId, problem, granted_at: null })
    expect(await packs()).toEqual([])
    expect(await assign(order.id, 70)).toBe(true)
    expect(await orderRow(order.id)).toMatchObject({ problem: null, tokens_worth: 70, tokens_granted: 70 })
    expect(await packs()).toEqual(left(70, 70))
  })

  test('cannot give away what is granted, what is not there, or what waits for somebody else', async () => {
    const other = (await givenAccount(OPENED)).userId
    const granted = polarOrder(other)
    const foreign = polarOrder(other, { currency: 'eur' })
    await hearOrder(granted)
    await hearOrder(foreign)
    expect(await assign(granted.id, 500)).toBe(false)
    expect(await assign('unknown', 500)).toBe(false)
    expect(await assign(foreign.id, 500)).toBe(false)
    expect(await orderRow(granted.id)).toMatchObject({ user_id: other, tokens_granted: 500 })
    expect(await orderRow(foreign.id)).toMatchObject({ user_id: other, problem: 'currency', tokens_granted: 0 })
    expect(await packs()).toEqual([])
    expect(await assign(foreign.id, 500, other)).toBe(true)
  })

  test('finds what is worth nothing settled without tokens', async () => {
    const order = polarOrder(userId, { product_id: 'product-unknown', metadata: {} })
    await hearOrder(order)
    expect(await assign(order.id, 0)).toBe(true)
    expect(await orderRow(order.id)).toMatchObject({ problem: null, tokens_granted: 0, granted_at: new Date(SOON) })
    expect(await packs()).toEqual([])
  })
})

async function refundRow(id: string) {
  return await db().selectFrom('billing_refunds').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
}

async function disputeRow(id: string) {
  return await db().selectFrom('billing_disputes').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
}
