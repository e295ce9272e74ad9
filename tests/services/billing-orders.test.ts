// Orders, refunds and disputes taken over on real PostgreSQL: the row that is kept, and the tokens that follow from it.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { applyOrder } from '../../lib/billing/orders.ts'
import { ownerOf } from '../../lib/billing/owner.ts'
import type { PolarOrder } from '../../lib/billing/polar-objects.ts'
import { startApp } from '../support/app.ts'
import { at, makeClock } from '../support/clock.ts'
import { type Account, givenAccount, lots } from '../support/ledger-account.ts'
import { ledgerViolations } from '../support/money.ts'
import { BOUGHT, lotsOf, OPENED, SOON, statementAt } from '../support/paid-plans.ts'
import {
  orderRow,
  polarOrder,
  polarPlanOrder,
  polarSubscription,
  SHOP_VARIABLES,
  subscriptionRow,
} from '../support/polar-states.ts'

const LATER = '2023-06-20T12:00:00.000002Z'
const LATEST = '2023-06-20T12:00:00.000003Z'
const NOBODY = '00000000-0000-4000-8000-000000000000'

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

const hearOrder = (...states: PolarOrder[]) =>
  at(BOUGHT, async (trx) => {
    for (const state of states) await applyOrder(trx, state)
  })
const packs = () => lots(userId, 'pack')
const bought = (available: number, granted = 500) => [
  { granted, available, held: 0, spent: 0, gone: granted - available },
]

describe('a paid order', () => {
  test('is kept with every fact of it, and gives its tokens to the buyer', async () => {
    const order = polarOrder(userId, {
      invoice_number: 'INV-1',
      checkout_id: 'checkout',
      created_at: '2023-06-20T11:00:00Z',
      modified_at: LATER,
    })
    await hearOrder(order)
    expect(await orderRow(order.id)).toEqual({
      id: order.id,
      user_id: userId,
      kind: 'tokens',
      plan: null,
      starts_period: false,
      description: 'Tokens',
      status: 'paid',
      paid: true,
      currency: 'usd',
      net_cents: 500,
      tax_cents: 100,
      refunded_cents: 0,
      fee_cents: 80,
      dispute_lost: false,
      customer_id: 'customer',
      product_id: 'product-starter',
      checkout_id: 'checkout',
      subscription_id: null,
      invoice_number: 'INV-1',
      problem: null,
      tokens_worth: 500,
      tokens_granted: 500,
      tokens_taken_back: 0,
      granted_at: new Date(BOUGHT),
      ordered_at: new Date('2023-06-20T11:00:00Z'),
      modified_at: new Date(LATER),
    })
    expect(await packs()).toEqual(bought(500))
  })

  test('gives them once, however often it is heard of', async () => {
    const order = polarOrder(userId)
    await hearOrder(order, order)
    await hearOrder({ ...order, modified_at: LATER })
    expect(await packs()).toEqual(bought(500))
  })

  test('tells what was bought by its own words, else by those of the product, at a length that fits', async () => {
    const named = polarOrder(userId, { description: '', product: { name: 'Starter', metadata: {} } })
    const nameless = polarOrder(userId, { description: '', product: null })
    const endless = polarOrder(userId, { description: 'x'.repeat(201), invoice_number: 'y'.repeat(101) })
    await hearOrder(named, nameless, endless)
    expect((await orderRow(named.id)).description).toBe('Starter')
    expect((await orderRow(nameless.id)).description).toBe('')
    const { description, invoice_number } = await orderRow(endless.id)
    expect([description, invoice_number]).toEqual(['x'.repeat(200), 'y'.repeat(100)])
  })

  test('that a discount made free gives nothing, and is done with', async () => {
    const order = polarOrder(userId, { net_amount: 0, tax_amount: 0 })
    await hearOrder(order)
    expect(await orderRow(order.id)).toMatchObject({ tokens_worth: 0, tokens_granted: 0, problem: null })
    expect((await orderRow(order.id)).granted_at).toEqual(new Date(BOUGHT))
    expect(await packs()).toEqual([])
  })

  test('for a plan gives its allowance for a month by the calendar, and puts the plan in force', async () => {
    const order = polarPlanOrder(userId, 'unheard-of', { id: `${userId}:order`, created_at: '2023-05-31T23:30:00Z' })
    await hearOrder(order)
    expect(await orderRow(order.id)).toMatchObject({
      kind: 'plan',
      plan: 'pro',
      starts_period: true,
      subscription_id: 'unheard-of',
      tokens_granted: 50_000,
    })
    expect(await lotsOf(account)).toMatchObject({
      order: { granted: 50_000, available: 50_000, expires_at: new Date('2023-06-30T23:30:00Z') },
    })
    expect(await packs()).toEqual([])
    expect(await statementAt(account, BOUGHT)).toMatchObject({ plan: 'pro', planTokens: 50_000 })
  })

  test('for a change of plan begins no period', async () => {
    const billing_reason = 'subscription_update'
    const change = { product_id: 'product-enterprise', net_amount: 4000, billing_reason }
    const order = polarPlanOrder(userId, 'subscription', change)
    await hearOrder(order)
    expect(await orderRow(order.id)).toMatchObject({ plan: 'enterprise', starts_period: false, tokens_worth: 225_000 })
  })

  test('for a change of plan that cost nothing gives nothing, and is done with', async () => {
    const change = { product_id: 'product-enterprise', net_amount: 0, billing_reason: 'subscription_update' }
    const order = polarPlanOrder(userId, 'subscription', { id: `${userId}:order`, ...change })
    await hearOrder(order)
    expect(await orderRow(order.id)).toMatchObject({ tokens_worth: 0, granted_at: new Date(BOUGHT), problem: null })
    expect(Object.keys(await lotsOf(account))).toEqual(['free'])
  })

  test('brings the state of its subscription along, whose owner and plan may be known by the order alone', async () => {
    const subscription = polarSubscription(userId, { metadata: {}, product_id: 'product-of-another-time' })
    const order = polarPlanOrder(userId, subscription.id, {
      product_id: 'product-of-another-time',
      product: { name: 'Pro', metadata: { plan: 'pro' } },
      customer: { external_id: userId },
      subscription,
    })
    await hearOrder(order)
    expect(await subscriptionRow(subscription.id)).toMatchObject({ user_id: userId, plan: 'pro', status: 'active' })
  })

  test('of the plan before a change says nothing of the subscription', async () => {
    const subscription = polarSubscription(userId, { product_id: 'product-enterprise' })
    await hearOrder(polarPlanOrder(userId, subscription.id, { subscription }))
    await expect(subscriptionRow(subscription.id)).rejects.toThrow('no result')
  })
})

describe('of several states of an order', () => {
  const first = () => polarOrder(userId, { status: 'pending', paid: false })

  test.each(['in their order', 'the other way round'])('the newest counts: %s', async (sequence) => {
    const order = first()
    const older = { ...order, status: 'paid', paid: true, modified_at: LATER }
    const newer = { ...older, status: 'partially_refunded', refunded_amount: 250, modified_at: LATEST }
    const changed = { net_amount: 400, tax_amount: 80, platform_fee_amount: 70, invoice_number: 'INV-2' }
    const states = [order, older, { ...newer, ...changed }]
    await hearOrder(...(sequence === 'in their order' ? states : states.toReversed()))
    expect(await orderRow(order.id)).toMatchObject({
      status: 'partially_refunded',
      net_cents: 400,
      tax_cents: 80,
      fee_cents: 70,
      refunded_cents: 250,
      invoice_number: 'INV-2',
      modified_at: new Date(LATEST),
    })
  })

  test.each(['first', 'last'])('of one moment the one with more refunded counts, if it comes %s', async (place) => {
    const order = polarOrder(userId)
    const refunded = { ...order, status: 'refunded', refunded_amount: 500 }
    await hearOrder(...(place === 'first' ? [refunded, order] : [order, refunded]))
    expect(await orderRow(order.id)).toMatchObject({ status: 'refunded', refunded_cents: 500, tokens_taken_back: 500 })
    expect(await packs()).toEqual(bought(0))
  })

  test('any that is paid makes it paid, and none makes it unpaid', async () => {
    const order = first()
    await hearOrder({ ...order, modified_at: LATEST })
    expect((await orderRow(order.id)).paid).toBe(false)
    expect(await packs()).toEqual([])
    await hearOrder({ ...order, paid: true, modified_at: LATER })
    expect(await packs()).toEqual(bought(500))
    await hearOrder({ ...order, paid: false, modified_at: '2023-06-21T00:00:00Z' })
    expect((await orderRow(order.id)).paid).toBe(true)
  })

  test('any that names the owner tells whose it is, and none gives it to another', async () => {
    const order = polarOrder(userId, { metadata: {} })
    await hearOrder(order)
    expect(await orderRow(order.id)).toMatchObject({ user_id: null, problem: 'no_user' })
    await hearOrder({ ...order, metadata: { user_id: userId } })
    expect(await orderRow(order.id)).toMatchObject({ user_id: userId, problem: null, tokens_granted: 500 })
    const other = await givenAccount(OPENED)
    await hearOrder({ ...order, metadata: { user_id: other.userId }, modified_at: LATER })
    expect((await orderRow(order.id)).user_id).toBe(userId)
  })

  test('an unpaid one does not wait for anything but its payment', async () => {
    const order = polarOrder(NOBODY, { paid: false })
    await hearOrder(order)
    expect(await orderRow(order.id)).toMatchObject({ user_id: null, problem: null, granted_at: null })
  })
})

describe('whose an order is', () => {
  test.each([
    { why: 'the checkout', state: (id: string) => ({ metadata: { user_id: id } }) },
    { why: 'the checkout, in capitals', state: (id: string) => ({ metadata: { user_id: id.toUpperCase() } }) },
    { why: "Polar's customer", state: (id: string) => ({ metadata: {}, customer: { external_id: id } }) },
    {
      why: 'the customer, where the checkout names nobody who is here',
      state: (id: string) => ({ metadata: { user_id: NOBODY }, customer: { external_id: id } }),
    },
    {
      why: 'the customer, where the checkout names something else',
      state: (id: string) => ({ metadata: { user_id: 'ada' }, customer: { external_id: id } }),
    },
  ])('is said by $why', async ({ state }) => {
    const order = polarOrder(userId, state(userId))
    expect(await at(BOUGHT, (trx) => ownerOf(trx, order))).toBe(userId)
    await hearOrder(order)
    expect(await orderRow(order.id)).toMatchObject({ user_id: userId, problem: null })
  })

  test('is said by the checkout first', async () => {
    const other = await givenAccount(OPENED)
    const order = polarOrder(userId, { customer: { external_id: other.userId } })
    await hearOrder(order)
    expect((await orderRow(order.id)).user_id).toBe(userId)
  })

  test('is known by its subscription where nothing else says it', async () => {
    const subscription = polarSubscription(userId)
    const { id, created_at, ...order } = polarPlanOrder(userId, subscription.id, { subscription })
    await hearOrder({ ...order, id, created_at })
    const renewal = { ...order, id: crypto.randomUUID(), created_at: SOON, metadata: {}, subscription: null }
    await hearOrder(renewal)
    expect((await orderRow(renewal.id)).user_id).toBe(userId)
  })

  test.each([
    { why: 'nobody', state: { metadata: {} } },
    { why: 'a customer without an id of ours', state: { metadata: {}, customer: { external_id: null } } },
    { why: 'a user who is not here', state: { metadata: { user_id: NOBODY } } },
  ])('waits for an admin when it names $why', async ({ state }) => {
    const order = polarOrder(userId, state)
    await hearOrder(order)
    expect(await orderRow(order.id)).toMatchObject({ user_id: null, problem: 'no_user', tokens_granted: 0 })
    expect((await orderRow(order.id)).granted_at).toBeNull()
  })
})

describe('an order that cannot be granted as it is', () => {
  test('waits with the reason: what it sells is not known', async () => {
    const order = polarOrder(userId, { product_id: 'product-unknown', metadata: {}, customer: { external_id: userId } })
    await hearOrder(order)
    expect(await orderRow(order.id)).toMatchObject({ kind: null, tokens_worth: null, problem: 'product' })
    expect(await packs()).toEqual([])
  })

  test('waits with the reason: it was paid in another currency', async () => {
    const tokens = polarOrder(userId, { currency: 'eur' })
    const change = polarPlanOrder(userId, 'subscription', { currency: 'eur', billing_reason: 'subscription_update' })
    await hearOrder(tokens, change)
    expect((await orderRow(tokens.id)).problem).toBe('currency')
    expect((await orderRow(change.id)).problem).toBe('currency')
    expect(await packs()).toEqual([])
  })

  test("is none that pays for a plan's period in another currency", async () => {
    const order = polarPlanOrder(userId, 'subscription', { currency: 'eur' })
    await hearOrder(order)
    expect(await orderRow(order.id)).toMatchObject({ problem: null, currency: 'eur', tokens_granted: 50_000 })
  })

  test('is granted as soon as a newer state says what was missing', async () => {
    const order = polarOrder(userId, { product_id: 'product-unknown', metadata: {}, customer: { external_id: userId } })
    await hearOrder(order)
    expect((await orderRow(order.id)).problem).toBe('product')
    await hearOrder({ ...order, product_id: 'product-starter' })
    expect(await orderRow(order.id)).toMatchObject({ problem: null, tokens_granted: 500 })
    expect(await packs()).toEqual(bought(500))
  })
})
