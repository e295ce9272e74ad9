// What comes of a plan: renewed, paid late or never, cancelled and taken back; each with its exact allowance.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { call, givenUser, type TestUser } from '../support/app.ts'
import { ledgerViolations } from '../support/money.ts'
import {
  buy,
  freeWith,
  ordersOf,
  type Payments,
  planWith,
  post,
  spend,
  standing,
  startPayments,
  subscribe,
  sweep,
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

describe('a renewal', () => {
  test('brings a new allowance in place of the old one', async () => {
    const { subscription } = await subscribe(payments, user, 'pro')
    await buy(payments, user, { pack: 'starter' })
    await spend(payments, user, 300)
    expect(await standing(payments, user)).toEqual(
      planWith('pro', 50_000, { planTokens: 49_700, purchasedTokens: 500 }),
    )
    atDay(31)
    payments.shop.renew(subscription.id)
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(planWith('pro', 50_000, { purchasedTokens: 500 }))
    expect((await status()).periodEnd).toBe(new Date(subscription.current_period_end).toISOString())
    expect((await planOrders()).filter(([plan]) => plan === 'pro')).toEqual([
      ['pro', 1900, 50_000, null],
      ['pro', 1900, 50_000, null],
    ])
  })

  test('after an upgrade is worth the plan, not the sum', async () => {
    const { subscription } = await subscribe(payments, user, 'pro')
    await post(payments, user, 'upgrade', { plan: 'enterprise' })
    atDay(31)
    payments.shop.renew(subscription.id)
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(planWith('enterprise', 500_000))
  })

  test('that fails leaves the plan its grace and no new allowance, and is made good when it is paid', async () => {
    atDay(-32)
    const { subscription } = await subscribe(payments, user, 'pro')
    atDay(-2)
    await buy(payments, user, { pack: 'starter' })
    atDay(-1)
    payments.shop.renew(subscription.id, 'fail')
    await payments.polar.settled()
    // The allowance of the period that is over has lapsed.
    expect(await standing(payments, user)).toEqual(
      planWith('pro', 50_000, { planTokens: 0, purchasedTokens: 500, tokensUsed: 0 }),
    )
    expect((await ordersOf(user)).map(({ kind, status, paid }) => [kind, status, paid])).toEqual([
      ['plan', 'paid', true],
      ['tokens', 'paid', true],
      ['plan', 'pending', false],
    ])
    payments.clock.at = undefined
    payments.shop.recover(subscription.id)
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(planWith('pro', 50_000, { purchasedTokens: 500 }))
  })

  test('that is never paid ends the plan with its grace, and a late payment brings it back', async () => {
    atDay(-39)
    const { subscription } = await subscribe(payments, user, 'pro')
    atDay(-8)
    payments.shop.renew(subscription.id, 'fail')
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(freeWith({ status: 'expired' }))
    payments.clock.at = undefined
    payments.shop.recover(subscription.id)
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(planWith('pro', 50_000))
  })

  test('that no webhook told of is found by the sweep', async () => {
    const { subscription } = await subscribe(payments, user, 'pro')
    await spend(payments, user, 100)
    payments.polar.deliveries.mode = 'hold'
    atDay(31)
    payments.shop.renew(subscription.id)
    expect(await sweep(payments)).toMatchObject({ complete: true, errors: [] })
    expect(await standing(payments, user)).toEqual(planWith('pro', 50_000))
  })
})

describe('a cancellation', () => {
  test('keeps the plan to the end of its period, and can be taken back', async () => {
    const { subscription } = await subscribe(payments, user, 'pro')
    const cancelled = await post(payments, user, 'cancel')
    const end = new Date(subscription.current_period_end).toISOString()
    expect([cancelled.status, cancelled.json.status, cancelled.json.expiresAt]).toEqual([200, 'cancelled', end])
    expect(await standing(payments, user)).toEqual(planWith('pro', 50_000, { status: 'cancelled' }))
    expect(subscription.cancel_at_period_end).toBe(true)
    const again = await post(payments, user, 'cancel')
    expect([again.status, again.json.error.code]).toEqual([409, 'CONFLICT'])

    expect((await post(payments, user, 'resume')).json.status).toBe('active')
    expect(await standing(payments, user)).toEqual(planWith('pro', 50_000))
    expect(subscription.cancel_at_period_end).toBe(false)
    expect((await post(payments, user, 'resume')).status).toBe(409)
  })

  test('ends the plan with its period; what was bought stays, and so does what was left of the free month', async () => {
    await spend(payments, user, 200)
    await buy(payments, user, { pack: 'starter' })
    const { subscription } = await subscribe(payments, user, 'pro')
    await post(payments, user, 'cancel')
    payments.shop.endPeriod(subscription.id)
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(
      freeWith({ status: 'expired', planTokens: 800, purchasedTokens: 500 }),
    )
    expect((await status()).expiresAt).not.toBeNull()
    const resumed = await post(payments, user, 'resume')
    expect([resumed.status, resumed.json.error.code]).toEqual([409, 'CONFLICT'])
  })

  test('by the operator, at once, takes the plan and leaves what was bought', async () => {
    await buy(payments, user, { pack: 'starter' })
    const { subscription } = await subscribe(payments, user, 'pro')
    payments.shop.revoke(subscription.id)
    await payments.polar.settled()
    expect(await standing(payments, user)).toEqual(freeWith({ status: 'expired', purchasedTokens: 500 }))
    const { subscription: next } = await subscribe(payments, user, 'enterprise')
    expect(await standing(payments, user)).toEqual(planWith('enterprise', 500_000, { purchasedTokens: 500 }))
    expect(next.id).not.toBe(subscription.id)
  })

  test('made in the portal at the same time is told, and the books agree', async () => {
    const { subscription } = await subscribe(payments, user, 'pro')
    payments.polar.deliveries.mode = 'hold'
    payments.shop.cancelAtPeriodEnd(subscription.id)
    const { status: code, json } = await post(payments, user, 'cancel')
    expect([code, json.error.code]).toEqual([409, 'CONFLICT'])
    expect(await standing(payments, user)).toEqual(planWith('pro', 50_000, { status: 'cancelled' }))
    const rows = await db().selectFrom('billing_subscriptions').selectAll().where('id', '=', subscription.id).execute()
    expect(rows).toMatchObject([{ cancel_at_period_end: true, status: 'active', user_id: user.id }])
  })
})
