// Subscriptions taken over on real PostgreSQL: which state counts, whose it is, and the plan that is in force after it.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import type { PolarSubscription } from '../../lib/billing/polar-objects.ts'
import { applySubscription } from '../../lib/billing/subscriptions.ts'
import { startApp } from '../support/app.ts'
import { at, makeClock } from '../support/clock.ts'
import { type Account, givenAccount } from '../support/ledger-account.ts'
import { ledgerViolations } from '../support/money.ts'
import { BOUGHT, OPENED, RENEWED, subscriptionOf } from '../support/paid-plans.ts'
import { polarSubscription, SHOP_VARIABLES, subscriptionRow } from '../support/polar-states.ts'

const LATER = '2023-06-20T12:00:00.000002Z'
const LATEST = '2023-06-20T12:00:00.000003Z'

let account: Account
let userId: string

beforeAll(async () => {
  await startApp(SHOP_VARIABLES)
  await makeClock(db())
})

beforeEach(async () => {
  account = await givenAccount(OPENED)
  userId = account.userId
})

afterEach(async () => {
  expect(await ledgerViolations()).toEqual([])
})

const hear = (...states: PolarSubscription[]) =>
  at(BOUGHT, async (trx) => {
    for (const state of states) await applySubscription(trx, state)
  })

describe('a subscription', () => {
  test('is kept with every fact of it, and its plan is in force', async () => {
    const subscription = polarSubscription(userId, {
      cancel_at_period_end: true,
      ends_at: '2023-07-19T00:00:00Z',
      pending_update: { product_id: 'product-pro' },
      modified_at: LATER,
      product_id: 'product-enterprise',
    })
    await hear(subscription)
    expect(await subscriptionRow(subscription.id)).toEqual({
      id: subscription.id,
      user_id: userId,
      plan: 'enterprise',
      status: 'active',
      cancel_at_period_end: true,
      period_start: new Date(BOUGHT),
      period_end: new Date(RENEWED),
      ends_at: new Date('2023-07-19T00:00:00Z'),
      entitled_until: new Date('2023-07-19T00:00:00Z'),
      pending_plan: 'pro',
      customer_id: 'customer',
      product_id: 'product-enterprise',
      modified_at: new Date(LATER),
    })
    expect(await subscriptionOf(account)).toMatchObject({ plan: 'enterprise', status: 'cancelled' })
  })

  test('stands past its period for the configured days of grace', async () => {
    const subscription = polarSubscription(userId)
    await hear(subscription)
    expect(await subscriptionRow(subscription.id)).toMatchObject({
      entitled_until: new Date('2023-07-27T12:00:00Z'),
      ends_at: null,
      pending_plan: null,
    })
  })

  test('to what nobody here sells is kept, and changes no plan', async () => {
    const subscription = polarSubscription(userId, { product_id: 'product-unknown' })
    await hear(subscription)
    expect(await subscriptionRow(subscription.id)).toMatchObject({ user_id: userId, plan: null })
    expect((await subscriptionOf(account)).plan).toBe('free')
  })

  test('of nobody is kept, and its owner is known from any state that names them, though an old one', async () => {
    const subscription = polarSubscription(userId, { modified_at: LATEST })
    await hear({ ...subscription, metadata: {} })
    expect((await subscriptionRow(subscription.id)).user_id).toBeNull()
    await hear({ ...subscription, status: 'unpaid', modified_at: LATER })
    expect(await subscriptionRow(subscription.id)).toMatchObject({ user_id: userId, status: 'active' })
    expect((await subscriptionOf(account)).plan).toBe('pro')
  })

  test('stays with its owner, whatever a newer state says', async () => {
    const other = await givenAccount(OPENED)
    const subscription = polarSubscription(userId)
    await hear(subscription)
    await hear({ ...subscription, metadata: { user_id: other.userId }, modified_at: LATER })
    expect((await subscriptionRow(subscription.id)).user_id).toBe(userId)
    expect((await subscriptionOf(other)).plan).toBe('free')
    await hear({ ...subscription, metadata: {}, modified_at: LATEST })
    expect((await subscriptionRow(subscription.id)).user_id).toBe(userId)
  })

  test("gets its owner from Polar's customer", async () => {
    const subscription = polarSubscription(userId, { metadata: {}, customer: { external_id: userId } })
    await hear(subscription)
    expect((await subscriptionRow(subscription.id)).user_id).toBe(userId)
  })
})

describe('of several states of a subscription', () => {
  test.each(['in their order', 'the other way round'])('the newest counts: %s', async (sequence) => {
    const active = polarSubscription(userId)
    const canceled = { ...active, status: 'canceled', ends_at: BOUGHT, modified_at: LATER }
    await hear(...(sequence === 'in their order' ? [active, canceled] : [canceled, active]))
    expect(await subscriptionRow(active.id)).toMatchObject({
      status: 'canceled',
      entitled_until: null,
      ends_at: new Date(BOUGHT),
      modified_at: new Date(LATER),
    })
    expect(await subscriptionOf(account)).toMatchObject({ plan: 'free' })
  })

  test.each([
    ['past_due', 'active'],
    ['unpaid', 'past_due'],
    ['canceled', 'unpaid'],
  ])('of one moment %s counts, not %s, in either order', async (nearer, farther) => {
    const subscription = polarSubscription(userId)
    await hear({ ...subscription, status: nearer }, { ...subscription, status: farther })
    expect((await subscriptionRow(subscription.id)).status).toBe(nearer)
    const other = polarSubscription(userId)
    await hear({ ...other, status: farther }, { ...other, status: nearer })
    expect((await subscriptionRow(other.id)).status).toBe(nearer)
  })

  test('one of the same moment and status is taken over', async () => {
    const subscription = polarSubscription(userId)
    await hear(subscription, { ...subscription, cancel_at_period_end: true })
    expect((await subscriptionRow(subscription.id)).cancel_at_period_end).toBe(true)
  })
})

describe('the plan that is to come', () => {
  test('is noted from a state that tells of it, and gone with one that says there is none', async () => {
    const subscription = polarSubscription(userId, { product_id: 'product-enterprise' })
    const pending = async () => (await subscriptionRow(subscription.id)).pending_plan
    await hear({ ...subscription, pending_update: { product_id: 'product-pro' } })
    expect(await pending()).toBe('pro')
    await hear(subscription)
    expect(await pending(), 'a state that does not say').toBe('pro')
    await hear({ ...subscription, pending_update: { product_id: 'product-enterprise' } })
    expect(await pending()).toBe('enterprise')
    await hear({ ...subscription, pending_update: null })
    expect(await pending()).toBeNull()
  })

  test.each([{ product_id: 'product-unknown' }, { product_id: null }, {}])(
    'is none with %o',
    async (pending_update) => {
      const subscription = polarSubscription(userId, { pending_update })
      await hear(subscription)
      expect((await subscriptionRow(subscription.id)).pending_plan).toBeNull()
    },
  )
})
