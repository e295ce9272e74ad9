// Money that goes back, and tokens with it: refunds in part, late and failed, disputes, and debts that purchases repay.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { givenUser, processImage, type TestUser } from '../support/app.ts'
import { ledgerViolations } from '../support/money.ts'
import {
  buy,
  FREE_TOKENS,
  freeWith,
  ordersOf,
  type Payments,
  planWith,
  spend,
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

async function refund(orderId: string, amountCents?: number, status: 'succeeded' | 'pending' = 'succeeded') {
  const { id } = payments.shop.refund({ orderId, status, ...(amountCents !== undefined && { amountCents }) })
  await payments.polar.settled()
  return id
}

async function settleRefund(refundId: string, status: 'succeeded' | 'failed' | 'canceled') {
  payments.shop.settleRefund(refundId, status)
  await payments.polar.settled()
}

async function dispute(orderId: string, status: 'needs_response' | 'prevented' | 'won' | 'lost') {
  payments.shop.dispute(orderId, status)
  await payments.polar.settled()
}

/** Per order, the oldest first: status, cents refunded, tokens granted and tokens taken back. */
const books = async () =>
  (await ordersOf(user)).map((order) => [
    order.status,
    order.refunded_cents,
    order.tokens_granted,
    order.tokens_taken_back,
  ])

const refundRows = async (orderId: string) =>
  await db().selectFrom('billing_refunds').select(['status', 'amount_cents']).where('order_id', '=', orderId).execute()

describe('a refund', () => {
  test('in part takes back its part, rounded down, and the rest takes the rest', async () => {
    const order = await buy(payments, user, { pack: 'family' })
    await refund(order.id, 333)
    // 2400 × 333 ∕ 2000 = 399.6
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 2001 }))
    expect(await books()).toEqual([['partially_refunded', 333, 2400, 399]])
    await refund(order.id, 334)
    // 2400 × 667 ∕ 2000 = 800.4
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 1600 }))
    await refund(order.id)
    expect(await standing(payments, user)).toEqual(freeWith())
    expect(await books()).toEqual([['refunded', 2000, 2400, 2400]])
    expect(await refundRows(order.id)).toHaveLength(3)
  })

  test('is of its own order only', async () => {
    const first = await buy(payments, user, { pack: 'starter' })
    await buy(payments, user, { pack: 'family' })
    const other = await givenUser(payments.app, 'Bob')
    await buy(payments, other, { pack: 'starter' })
    await refund(first.id)
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 2400 }))
    expect(await standing(payments, other)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await books()).toEqual([
      ['refunded', 500, 500, 500],
      ['paid', 0, 2400, 0],
    ])
  })

  test.each(['failed', 'canceled'] as const)('that is pending takes nothing, and %s leaves it so', async (status) => {
    const order = await buy(payments, user, { pack: 'starter' })
    const id = await refund(order.id, 500, 'pending')
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await refundRows(order.id)).toEqual([{ status: 'pending', amount_cents: 500 }])
    await settleRefund(id, status)
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await refundRows(order.id)).toEqual([{ status, amount_cents: 500 }])
    expect(await books()).toEqual([['paid', 0, 500, 0]])
  })

  test('that is pending and then succeeds takes its tokens then', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    const id = await refund(order.id, 200, 'pending')
    await settleRefund(id, 'succeeded')
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 300 }))
    expect(await books()).toEqual([['partially_refunded', 200, 500, 200]])
  })

  test('of a plan takes of its allowance what is left, and the plan stays until it is cancelled', async () => {
    const { order } = await subscribe(payments, user, 'pro')
    await spend(payments, user, 200)
    await refund(order.id, 950)
    expect(await standing(payments, user)).toEqual(planWith('pro', 50_000, { planTokens: 24_800, tokensUsed: 200 }))
    await refund(order.id)
    expect(await standing(payments, user)).toEqual(
      planWith('pro', 50_000, { planTokens: 0, tokensUsed: 200, debtTokens: 200, tokens: 0 }),
    )
    expect(await books()).toEqual([['refunded', 1900, 50_000, 50_000]])
  })

  test('of an order that gave nothing takes nothing', async () => {
    const order = await buy(payments, user, { pack: 'starter' }, { discountPercent: 100 })
    expect(() => payments.shop.refund({ orderId: order.id, amountCents: 1 })).toThrow()
    expect(await standing(payments, user)).toEqual(freeWith())
  })

  test('that no webhook told of is found by the sweep, and so is its failure', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    payments.polar.deliveries.mode = 'hold'
    const { id } = payments.shop.refund({ orderId: order.id })
    await sweep(payments)
    expect(await standing(payments, user)).toEqual(freeWith())
    payments.shop.settleRefund(id, 'failed')
    await sweep(payments)
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    payments.polar.deliveries.mode = 'deliver'
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await books()).toEqual([['paid', 0, 500, 0]])
  })
})

describe('a refund that fails after it succeeded', () => {
  test('gives back what it took', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    const id = await refund(order.id)
    expect(await standing(payments, user)).toEqual(freeWith())
    await settleRefund(id, 'failed')
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await books()).toEqual([['paid', 0, 500, 0]])
  })

  test('gives back its own part, and leaves the other one taken', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    await refund(order.id, 100)
    const id = await refund(order.id, 300)
    await settleRefund(id, 'failed')
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 400 }))
    expect(await books()).toEqual([['partially_refunded', 100, 500, 100]])
  })

  test('and of which a part had been spent leaves what it found: so much left, and no debt', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    await spend(payments, user, FREE_TOKENS + 300)
    const id = await refund(order.id)
    expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 0, debtTokens: 300, tokens: 0 }))
    await settleRefund(id, 'failed')
    expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 0, purchasedTokens: 200 }))
    expect(await books()).toEqual([['paid', 0, 500, 0]])
  })

  test('and whose debt another purchase had repaid gives that purchase back', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    await spend(payments, user, FREE_TOKENS + 500)
    const id = await refund(order.id)
    await buy(payments, user, { amountCents: 700 })
    expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 0, purchasedTokens: 200 }))
    await settleRefund(id, 'failed')
    expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 0, purchasedTokens: 700 }))
    expect(await books()).toEqual([
      ['paid', 0, 500, 0],
      ['paid', 0, 700, 0],
    ])
  })

  test('and whose debt was repaid in part owes nothing any more', async () => {
    const order = await buy(payments, user, { pack: 'family' })
    await spend(payments, user, FREE_TOKENS + 2400)
    const id = await refund(order.id)
    await buy(payments, user, { pack: 'starter' })
    expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 0, debtTokens: 1900, tokens: 0 }))
    await settleRefund(id, 'failed')
    expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 0, purchasedTokens: 500 }))
  })
})

describe('a debt', () => {
  test('of tokens that were spent blocks the next picture until a purchase repays it', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    await spend(payments, user, FREE_TOKENS + 500)
    await refund(order.id)
    expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 0, debtTokens: 500, tokens: 0 }))
    const refused = await processImage(payments.app, user)
    expect([refused.status, refused.json.error.code]).toEqual([402, 'INSUFFICIENT_TOKENS'])

    await buy(payments, user, { amountCents: 550 })
    expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 0, purchasedTokens: 50 }))
    expect((await processImage(payments.app, user)).status).toBe(402)
    await buy(payments, user, { amountCents: 500 })
    expect((await processImage(payments.app, user)).status).toBe(200)
    expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 0, purchasedTokens: 450 }))
  })
})

describe('a dispute', () => {
  test('that is open takes nothing, and won takes nothing', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    await dispute(order.id, 'needs_response')
    await sweep(payments)
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    await dispute(order.id, 'won')
    await sweep(payments)
    expect(await standing(payments, user)).toEqual(freeWith({ purchasedTokens: 500 }))
    expect(await books()).toEqual([['paid', 0, 500, 0]])
  })

  test('that is lost takes everything, though nothing but the sweep hears of it', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    await spend(payments, user, FREE_TOKENS + 100)
    const { length } = payments.polar.deliveries.events
    await dispute(order.id, 'lost')
    expect(payments.polar.deliveries.events).toHaveLength(length)
    expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 0, purchasedTokens: 400 }))
    await sweep(payments)
    await sweep(payments)
    expect(await standing(payments, user)).toEqual(freeWith({ planTokens: 0, debtTokens: 100, tokens: 0 }))
    expect(await ordersOf(user)).toMatchObject([{ status: 'paid', dispute_lost: true, tokens_taken_back: 500 }])
  })

  test('about a plan that is lost ends the plan and takes its allowance', async () => {
    const { order } = await subscribe(payments, user, 'pro')
    await buy(payments, user, { pack: 'starter' })
    await dispute(order.id, 'lost')
    expect(await standing(payments, user)).toEqual(freeWith({ status: 'expired', purchasedTokens: 500 }))
    await sweep(payments)
    expect(await standing(payments, user)).toEqual(freeWith({ status: 'expired', purchasedTokens: 500 }))
    expect(await books()).toEqual([
      ['paid', 0, 50_000, 50_000],
      ['paid', 0, 500, 0],
    ])
  })

  test('that was prevented is a refund, which is heard of at once and counts once', async () => {
    const order = await buy(payments, user, { pack: 'starter' })
    await dispute(order.id, 'prevented')
    expect(await standing(payments, user)).toEqual(freeWith())
    await sweep(payments)
    expect(await standing(payments, user)).toEqual(freeWith())
    expect(await books()).toEqual([['refunded', 500, 500, 500]])
    expect(await ordersOf(user)).toMatchObject([{ dispute_lost: false }])
  })
})
