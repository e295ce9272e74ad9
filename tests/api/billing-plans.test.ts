// Plans that are bought and changed: at once, within a period and from the next one on; each with its exact allowance.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { call, givenUser, type TestUser } from '../support/app.ts'
import { ledgerViolations } from '../support/money.ts'
import {
  buy,
  freeWith,
  givenStranger,
  ordersOf,
  type Payments,
  planWith,
  post,
  spend,
  standing,
  startPayments,
  subscribe,
} from '../support/payments.ts'

const DAY_MS = 86_400_000

let payments: Payments
let user: TestUser

beforeAll(async () => {
  payments = await startPayments()
})

beforeEach(async () => {
  user = await givenUser(payments.app)
})

afterEach(async () => {
  payments.clock.at = undefined
  payments.polar.deliveries.mode = 'deliver'
  await payments.polar.settled()
  expect(await ledgerViolations()).toEqual([])
})

/** Sets the shop's clock so many days from now. */
function atDay(days: number): void {
  payments.clock.at = new Date(Date.now() + days * DAY_MS)
}

const status = async () => (await call(payments.app, 'GET /api/billing/status', { token: user.token })).json
const planOrders = async () =>
  (await ordersOf(user)).map(({ plan, net_cents, tokens_granted, problem }) => [
    plan,
    net_cents,
    tokens_granted,
    problem,
  ])

describe('a plan', () => {
  test('that is bought is in force at once, with its whole allowance, to the end of its period', async () => {
    await spend(payments, user, 300)
    const { order, subscription } = await subscribe(payments, user, 'pro')
    expect(await standing(payments, user)).toEqual(planWith('pro', 50_000))
    expect(await ordersOf(user)).toEqual([
      {
        id: order.id,
        kind: 'plan',
        plan: 'pro',
        status: 'paid',
        paid: true,
        currency: 'usd',
        net_cents: 1900,
        refunded_cents: 0,
        dispute_lost: false,
        problem: null,
        tokens_granted: 50_000,
        tokens_taken_back: 0,
      },
    ])
    const { periodStart, periodEnd, expiresAt } = await status()
    expect(Date.parse(periodStart)).toBe(Date.parse(subscription.current_period_start))
    expect(Date.parse(periodEnd)).toBe(Date.parse(subscription.current_period_end))
    expect(expiresAt).toBe(periodEnd)
  })

  test.each([100, 30])('at %i % off brings the whole allowance', async (discountPercent) => {
    await subscribe(payments, user, 'pro', { discountPercent })
    expect(await standing(payments, user)).toEqual(planWith('pro', 50_000))
    expect(await planOrders()).toEqual([['pro', 1900 - 19 * discountPercent, 50_000, null]])
  })

  test('is spent before bought tokens, which stay', async () => {
    await buy(payments, user, { pack: 'starter' })
    await subscribe(payments, user, 'pro')
    await spend(payments, user, 200)
    expect(await standing(payments, user)).toEqual(
      planWith('pro', 50_000, { planTokens: 49_800, purchasedTokens: 500 }),
    )
  })

  test('is not sold twice', async () => {
    await subscribe(payments, user, 'pro')
    const { size } = payments.shop.checkouts
    const again = await post(payments, user, 'upgrade', { plan: 'pro' })
    expect([again.status, again.json.error.code]).toEqual([409, 'CONFLICT'])
    expect(payments.shop.checkouts.size).toBe(size)
    expect(await planOrders()).toHaveLength(1)
  })

  test.each([null, 'somebody'])(
    'is bought, changed and cancelled by who is not linked at Polar (%s)',
    async (whose) => {
      const other = await givenUser(payments.app, 'Bob')
      const stranger = await givenStranger(payments, user, whose && other.id)
      const { subscription } = await subscribe(payments, user, 'pro', { email: user.email })
      expect(subscription.customer_id).toBe(stranger.id)
      expect(await standing(payments, user)).toEqual(planWith('pro', 50_000))
      expect((await post(payments, user, 'upgrade', { plan: 'enterprise' })).json).toMatchObject({ plan: 'enterprise' })
      expect((await post(payments, user, 'cancel')).json).toMatchObject({ status: 'cancelled' })
      expect(await standing(payments, other)).toEqual(freeWith())
      payments.shop.endPeriod(subscription.id)
      await payments.polar.settled()
      expect(await standing(payments, user)).toEqual(freeWith({ status: 'expired' }))
    },
  )
})

describe('an upgrade', () => {
  test('at once costs the whole difference and brings the whole difference', async () => {
    const { subscription } = await subscribe(payments, user, 'pro')
    await spend(payments, user, 500)
    const { status: code, json } = await post(payments, user, 'upgrade', { plan: 'enterprise' })
    expect([code, json.plan, json.balance.tokens]).toEqual([200, 'enterprise', 499_500])
    expect(await standing(payments, user)).toEqual(planWith('enterprise', 500_000, { planTokens: 499_500 }))
    expect(await planOrders()).toEqual([
      ['pro', 1900, 50_000, null],
      ['enterprise', 8000, 450_000, null],
    ])
    expect((await status()).periodEnd).toBe(new Date(subscription.current_period_end).toISOString())
  })

  test.each([
    { part: 1 / 2, cents: 4000, tokens: 225_000 },
    // 9900 × ¼ − 1900 × ¼
    { part: 3 / 4, cents: 2000, tokens: 112_500 },
    // 9900 × ⅒ − 1900 × ⅒
    { part: 9 / 10, cents: 800, tokens: 45_000 },
  ])('after $part of the period brings what was paid for', async ({ part, cents, tokens }) => {
    atDay(-15)
    const { subscription } = await subscribe(payments, user, 'pro')
    const [start, end] = [subscription.current_period_start, subscription.current_period_end].map(Date.parse)
    payments.clock.at = new Date((start ?? 0) + ((end ?? 0) - (start ?? 0)) * part)
    expect((await post(payments, user, 'upgrade', { plan: 'enterprise' })).status).toBe(200)
    expect(await standing(payments, user)).toEqual(planWith('enterprise', 50_000 + tokens))
    expect(await planOrders()).toEqual([
      ['pro', 1900, 50_000, null],
      ['enterprise', cents, tokens, null],
    ])
  })

  test('whose card is declined changes nothing', async () => {
    const { subscription } = await subscribe(payments, user, 'pro')
    const before = await status()
    payments.shop.declineNextCharge()
    const declined = await post(payments, user, 'upgrade', { plan: 'enterprise' })
    expect([declined.status, declined.json.error.code]).toEqual([402, 'PAYMENT_FAILED'])
    expect(await status()).toEqual(before)
    expect(subscription.product.metadata.plan).toBe('pro')
    expect(await planOrders()).toHaveLength(1)
    expect((await post(payments, user, 'upgrade', { plan: 'enterprise' })).status).toBe(200)
    expect(await standing(payments, user)).toEqual(planWith('enterprise', 500_000))
  })

  test('asked for twice with one key, and twice at once, is paid once', async () => {
    await subscribe(payments, user, 'pro')
    const key = { 'idempotency-key': crypto.randomUUID() }
    await Promise.all([1, 2].map(() => post(payments, user, 'upgrade', { plan: 'enterprise' }, key)))
    await post(payments, user, 'upgrade', { plan: 'enterprise' }, key)
    expect(await standing(payments, user)).toEqual(planWith('enterprise', 500_000))
    expect(await planOrders()).toHaveLength(2)
  })

  test('of a cancelled plan waits until it is resumed', async () => {
    await subscribe(payments, user, 'pro')
    await post(payments, user, 'cancel')
    const refused = await post(payments, user, 'upgrade', { plan: 'enterprise' })
    expect([refused.status, refused.json.error.code]).toEqual([409, 'CONFLICT'])
    expect(await planOrders()).toHaveLength(1)
    await post(payments, user, 'resume')
    expect((await post(payments, user, 'upgrade', { plan: 'enterprise' })).status).toBe(200)
  })
})

describe('a downgrade', () => {
  test('is told at once, waits for the renewal, and comes with it', async () => {
    const { subscription } = await subscribe(payments, user, 'enterprise')
    await spend(payments, user, 100)
    const { status: code, json } = await post(payments, user, 'upgrade', { plan: 'pro' })
    expect([code, json.plan, json.pendingPlan]).toEqual([200, 'enterprise', 'pro'])
    expect(await standing(payments, user)).toEqual(planWith('enterprise', 500_000, { planTokens: 499_900 }))
    expect(await planOrders()).toHaveLength(1)

    atDay(31)
    payments.shop.renew(subscription.id)
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(planWith('pro', 50_000))
    expect((await status()).pendingPlan).toBeNull()
    expect(await planOrders()).toEqual([
      ['enterprise', 9900, 500_000, null],
      ['pro', 1900, 50_000, null],
    ])
  })

  test('is taken back by choosing the plan that is in force', async () => {
    const { subscription } = await subscribe(payments, user, 'enterprise')
    await post(payments, user, 'upgrade', { plan: 'pro' })
    const { status: code, json } = await post(payments, user, 'upgrade', { plan: 'enterprise' })
    expect([code, json.plan, json.pendingPlan]).toEqual([200, 'enterprise', null])
    expect(subscription.pending_update).toBeNull()
    expect(await standing(payments, user)).toEqual(planWith('enterprise', 500_000))
  })

  describe("in Polar's own portal, with the difference credited at once,", () => {
    const inPortal = async (id: string, plan: 'pro' | 'enterprise') => {
      const product = [...payments.shop.products.values()].find(({ metadata }) => metadata.plan === plan)
      const change = { product_id: product?.id ?? '', proration_behavior: 'invoice' as const }
      await payments.client.subscriptions.update(id, change)
      await payments.polar.settled()
    }

    test('changes the plan and neither gives nor takes tokens', async () => {
      const { subscription } = await subscribe(payments, user, 'enterprise')
      await inPortal(subscription.id, 'pro')
      expect(await standing(payments, user)).toEqual(planWith('pro', 500_000))
      expect(await planOrders()).toEqual([
        ['enterprise', 9900, 500_000, null],
        ['pro', -8000, 0, null],
      ])
    })

    test('and back again on credit brings no second allowance', async () => {
      const { subscription } = await subscribe(payments, user, 'enterprise')
      for (const plan of ['pro', 'enterprise', 'pro', 'enterprise'] as const) await inPortal(subscription.id, plan)
      expect(await standing(payments, user)).toEqual(planWith('enterprise', 500_000))
    })
  })
})
