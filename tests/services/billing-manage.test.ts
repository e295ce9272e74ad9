// What a customer does after buying, on real PostgreSQL and a loopback Polar: changes of plan, cancellations, the portal.
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { changePlan, openPortal, pendingPlanOf, setCancellation } from '../../lib/billing/manage.ts'
import { polar } from '../../lib/billing/polar.ts'
import { applySubscription } from '../../lib/billing/subscriptions.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { makeClock } from '../support/clock.ts'
import { type DirectShop, PRODUCTS, refusal, startDirectShop, subscribed } from '../support/direct-shop.ts'
import { givenAccount } from '../support/ledger-account.ts'
import { OPENED } from '../support/paid-plans.ts'
import { orderRow, polarSubscription, subscriptionRow } from '../support/polar-states.ts'

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

const conflict = (message: string) => ({ code: 'CONFLICT', message })
const plan = async () => (await statementOf(db(), userId)).plan
const row = (subscriptionId: string) => subscriptionRow(subscriptionId)

const subscribe = (name: 'pro' | 'enterprise') => subscribed(shop, userId, name)

/** A subscription that was heard of, and that Polar knows nothing of. */
async function given(changes: Parameters<typeof polarSubscription>[1]): Promise<string> {
  const product_id = PRODUCTS.pro
  const period = { current_period_start: '2026-11-01T00:00:00Z', current_period_end: '2099-01-01T00:00:00Z' }
  const subscription = polarSubscription(userId, { product_id, ...period, ...changes })
  await db()
    .transaction()
    .execute((trx) => applySubscription(trx, subscription))
  return subscription.id
}

describe('a change of plan', () => {
  test('is a checkout without a paid plan', async () => {
    const { checkoutId, subscription } = await subscribe('pro')
    expect(shop.polar.shop.checkouts.get(checkoutId)).toMatchObject({
      product_id: PRODUCTS.pro,
      return_url: RETURN_URL,
      metadata: { user_id: userId, plan: 'pro' },
    })
    expect(await plan()).toBe('pro')
    expect(await row(subscription.id)).toMatchObject({ user_id: userId, plan: 'pro', pending_plan: null })
  })

  test('to a dearer plan is paid and in force at once, with the tokens of its order', async () => {
    const { subscription } = await subscribe('pro')
    expect(await changePlan(userId, 'enterprise', RETURN_URL)).toBeUndefined()
    expect(await plan()).toBe('enterprise')
    expect(await row(subscription.id)).toMatchObject({ plan: 'enterprise', pending_plan: null })
    const update = [...shop.polar.shop.orders.values()].find(
      (order) => order.subscription_id === subscription.id && order.billing_reason === 'subscription_update',
    )
    expect(await orderRow(update?.id ?? '')).toMatchObject({ user_id: userId, paid: true, starts_period: false })
  })

  test('to a cheaper plan waits for the next period, and is said to be pending', async () => {
    const { subscription } = await subscribe('enterprise')
    expect(await pendingPlanOf(userId)).toBeNull()
    expect(await changePlan(userId, 'pro', RETURN_URL)).toBeUndefined()
    expect(await plan()).toBe('enterprise')
    expect(subscription.pending_update).toMatchObject({ product_id: PRODUCTS.pro })
    expect(await row(subscription.id)).toMatchObject({ plan: 'enterprise', pending_plan: 'pro' })
    expect(await pendingPlanOf(userId)).toBe('pro')
    expect(await pendingPlanOf((await givenAccount(OPENED)).userId)).toBeNull()
    await changePlan(userId, 'pro', RETURN_URL)
    expect(await pendingPlanOf(userId), 'chosen again').toBe('pro')
  })

  test('is taken back by choosing the plan in force', async () => {
    const { subscription } = await subscribe('enterprise')
    await changePlan(userId, 'pro', RETURN_URL)
    expect(await changePlan(userId, 'enterprise', RETURN_URL)).toBeUndefined()
    expect(subscription.pending_update).toBeNull()
    expect(await pendingPlanOf(userId)).toBeNull()
    await expect(changePlan(userId, 'enterprise', RETURN_URL)).rejects.toMatchObject(conflict('You are on this plan.'))
  })

  test('to the plan that one has is refused, and it is said what would help', async () => {
    await subscribe('pro')
    await expect(changePlan(userId, 'pro', RETURN_URL)).rejects.toMatchObject(conflict('You are on this plan.'))
    await setCancellation(userId, true)
    shop.calls.length = 0
    const message = 'Resume your plan to keep it.'
    await expect(changePlan(userId, 'pro', RETURN_URL)).rejects.toMatchObject(conflict(message))
    expect(shop.calls).toEqual([])
  })

  test('is refused while the last payment is open', async () => {
    await given({ status: 'past_due', past_due_at: new Date().toISOString() })
    await expect(changePlan(userId, 'enterprise', RETURN_URL)).rejects.toMatchObject(
      conflict('Your last payment did not go through. Put that right in the customer portal first.'),
    )
    await expect(changePlan(userId, 'pro', RETURN_URL)).rejects.toMatchObject(conflict('You are on this plan.'))
    expect(shop.calls).toEqual([])
  })

  test('that Polar has otherwise is refused, and what Polar has is taken over', async () => {
    const { subscription } = await subscribe('pro')
    shop.polar.shop.cancelAtPeriodEnd(subscription.id)
    await expect(changePlan(userId, 'enterprise', RETURN_URL)).rejects.toMatchObject(
      conflict('Your plan cannot be changed like this now. Look at it again.'),
    )
    expect(await row(subscription.id)).toMatchObject({ plan: 'pro', cancel_at_period_end: true })
  })

  test.each([403, 409])('that is refused with %i is a conflict', async (status) => {
    await subscribe('pro')
    shop.answer = (call) => (call.startsWith('PATCH') ? refusal(status) : undefined)
    await expect(changePlan(userId, 'enterprise', RETURN_URL)).rejects.toMatchObject({ code: 'CONFLICT' })
  })

  test('whose payment is declined changes nothing', async () => {
    const { subscription } = await subscribe('pro')
    shop.polar.shop.declineNextCharge()
    await expect(changePlan(userId, 'enterprise', RETURN_URL)).rejects.toMatchObject({ code: 'PAYMENT_FAILED' })
    expect(await row(subscription.id)).toMatchObject({ plan: 'pro' })
  })

  test('away from a plan that nobody here sells is paid at once', async () => {
    const { subscription } = await subscribe('enterprise')
    await db().updateTable('billing_subscriptions').set({ plan: null }).where('id', '=', subscription.id).execute()
    await changePlan(userId, 'pro', RETURN_URL)
    expect(subscription).toMatchObject({ product_id: PRODUCTS.pro, pending_update: null })
  })

  test.each(['canceled', 'unpaid', 'paused', 'incomplete'])(
    'is a checkout where the subscription is %s',
    async (status) => {
      await given({ status })
      expect(await changePlan(userId, 'pro', RETURN_URL)).toMatchObject({ checkoutId: expect.any(String) })
    },
  )

  test('is a change where the plan is still on trial', async () => {
    await given({ status: 'trialing' })
    await expect(changePlan(userId, 'pro', RETURN_URL)).rejects.toMatchObject(conflict('You are on this plan.'))
  })

  test('asks for the newest orders of that subscription, and for few', async () => {
    const { subscription } = await subscribe('pro')
    await changePlan(userId, 'enterprise', RETURN_URL)
    const list = shop.calls.find((call) => call.startsWith('GET /v1/orders/?')) ?? ''
    expect(list).toContain(`subscription_id=${subscription.id}`)
    expect(list).toContain('sorting=-created_at')
    expect(list).toContain('limit=10')
  })

  test('concerns the best of several subscriptions', async () => {
    await given({ product_id: PRODUCTS.pro })
    await given({ product_id: PRODUCTS.enterprise })
    await expect(changePlan(userId, 'enterprise', RETURN_URL)).rejects.toMatchObject(conflict('You are on this plan.'))
  })
})

describe('a cancellation', () => {
  test('ends the plan with its period, and can be taken back', async () => {
    const { subscription } = await subscribe('pro')
    await setCancellation(userId, true)
    expect(subscription.cancel_at_period_end).toBe(true)
    expect(await row(subscription.id)).toMatchObject({ cancel_at_period_end: true })
    expect(await statementOf(db(), userId)).toMatchObject({ plan: 'pro', status: 'cancelled' })
    await expect(setCancellation(userId, true)).rejects.toMatchObject(conflict('Your plan is cancelled already.'))
    await setCancellation(userId, false)
    expect(subscription.cancel_at_period_end).toBe(false)
    expect(await statementOf(db(), userId)).toMatchObject({ plan: 'pro', status: 'active' })
    await expect(setCancellation(userId, false)).rejects.toMatchObject(conflict('Your plan is not cancelled.'))
  })

  test.each([true, false])('without a paid plan is refused (%o)', async (cancel) => {
    await expect(setCancellation(userId, cancel)).rejects.toMatchObject(conflict('You have no paid plan.'))
    expect(shop.calls).toEqual([])
  })

  test('leaves alone what is cancelled already', async () => {
    await given({ cancel_at_period_end: true, product_id: PRODUCTS.enterprise })
    const { subscription } = await boughtElsewhere()
    await setCancellation(userId, true)
    expect(shop.calls.filter((call) => call.startsWith('PATCH'))).toEqual([
      `PATCH /v1/subscriptions/${subscription.id}`,
    ])
  })

  /** A second subscription, bought on Polar's own page. */
  async function boughtElsewhere() {
    const other = userId
    userId = (await givenAccount(OPENED)).userId
    const bought = await subscribe('pro')
    await db().updateTable('billing_subscriptions').set({ user_id: userId }).where('user_id', '=', other).execute()
    return bought
  }
})

describe('the portal', () => {
  test("is the user's own, and its link says how long it is good", async () => {
    const { portalUrl, expiresAt } = await openPortal(userId, RETURN_URL)
    expect(portalUrl).toMatch(/\/portal\?customer_session_token=polar_cst_/)
    expect(Date.parse(expiresAt)).toBeGreaterThan(Date.now())
    const [customer] = [...shop.polar.shop.customers.values()].filter(({ external_id }) => external_id === userId)
    expect(customer).toMatchObject({ email: `${userId}@example.com` })
    const page = await fetch(portalUrl)
    expect(await page.text()).toContain(`${userId}@example.com`)
  })

  test("is refused where the address is another customer's", async () => {
    const client = await polar()
    await client.customers.create({ email: `${userId}@example.com` })
    await expect(openPortal(userId, RETURN_URL)).rejects.toMatchObject(
      conflict('Your e-mail address belongs to another customer at our payment service. Please write to us.'),
    )
  })
})
