// What orders are worth, what refunds take back, and how long a plan stands: arithmetic that no network is needed for.
import type { models, webhooks } from '@polar-sh/sdk/2026-10'
import fc from 'fast-check'
import type * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import type { HandledEvent } from '../../lib/billing/inbox.ts'
import {
  type PolarDispute,
  PolarOrder,
  PolarRefund,
  PolarSubscription,
  versionOf,
} from '../../lib/billing/polar-objects.ts'
import { planOf, saleOf, takeBackTarget, tokensFor } from '../../lib/billing/products.ts'
import { entitledUntil } from '../../lib/billing/subscriptions.ts'
import { parseConfig } from '../../lib/config.ts'

const config = parseConfig(
  JSON.stringify({
    version: 1,
    brand: { name: 'Test' },
    tools: [{ name: 'page', description: 'Draws.', prompt: 'Draw.', priceTokens: 1, providers: ['sketch'] }],
    plans: {
      pro: { monthlyTokens: 50_000, priceCents: 1900, polarProductId: 'product-pro' },
      enterprise: { monthlyTokens: 500_000, priceCents: 9900, polarProductId: 'product-enterprise' },
    },
    payments: {
      provider: 'polar',
      tokensPerDollar: 100,
      polarProductId: 'product-deposit',
      packs: [
        { id: 'starter', priceCents: 500, tokens: 500, polarProductId: 'product-starter' },
        { id: 'bulk', priceCents: 5000, tokens: 7001, polarProductId: 'product-bulk' },
      ],
    },
  }),
  { file: 'test', stage: 'development', forkOverrides: {} },
)

const ORDER: PolarOrder = {
  id: 'order',
  created_at: '2026-11-20T12:00:00.000001Z',
  modified_at: null,
  status: 'paid',
  paid: true,
  net_amount: 1000,
  tax_amount: 200,
  refunded_amount: 0,
  platform_fee_amount: 110,
  currency: 'usd',
  billing_reason: 'purchase',
  customer_id: 'customer',
  product_id: 'product-other',
  description: '',
  metadata: {},
}

const SUBSCRIPTION: PolarSubscription = {
  id: 'subscription',
  created_at: '2026-11-20T12:00:00Z',
  modified_at: '2026-11-21T00:00:00Z',
  status: 'active',
  current_period_start: '2026-11-20T12:00:00Z',
  current_period_end: '2026-12-20T12:00:00Z',
  cancel_at_period_end: false,
  customer_id: 'customer',
  product_id: 'product-pro',
  metadata: {},
}

describe('what an order sells', () => {
  test.each([
    { why: 'a configured pack', order: { product_id: 'product-bulk' }, rate: { tokens: 7001, cents: 5000 } },
    {
      why: 'a pack that the product names',
      order: { product: { name: '', metadata: { pack: 'bulk' } } },
      rate: { tokens: 7001, cents: 5000 },
    },
    {
      why: 'a pack that the checkout named',
      order: { metadata: { pack: 'starter' } },
      rate: { tokens: 500, cents: 500 },
    },
    {
      why: 'the product before the checkout',
      order: { product_id: 'product-starter', metadata: { pack: 'bulk' } },
      rate: { tokens: 500, cents: 500 },
    },
    { why: 'a free amount', order: { product_id: 'product-deposit' }, rate: { tokens: 100, cents: 100 } },
    {
      why: 'a product marked for tokens',
      order: { product: { name: '', metadata: { kind: 'tokens' } } },
      rate: { tokens: 100, cents: 100 },
    },
    { why: 'a checkout of ours', order: { metadata: { user_id: 'someone' } }, rate: { tokens: 100, cents: 100 } },
    {
      why: 'a pack that is gone',
      order: { metadata: { user_id: 'someone', pack: 'gone' } },
      rate: { tokens: 100, cents: 100 },
    },
  ])('$why sells tokens at its rate', ({ order, rate }) => {
    expect(saleOf(config, { ...ORDER, ...order })).toEqual({ kind: 'tokens', rate })
  })

  test('a product that nobody here knows sells nothing, with and without a subscription', () => {
    expect(saleOf(config, ORDER)).toBeUndefined()
    expect(saleOf(config, { ...ORDER, product_id: null })).toBeUndefined()
    expect(saleOf(config, { ...ORDER, subscription_id: 's', metadata: { user_id: 'someone' } })).toBeUndefined()
  })

  test('without configured products an order with no product is no deposit', () => {
    const bare = { ...config, payments: { ...config.payments, polarProductId: '' } }
    expect(saleOf(bare, { ...ORDER, product_id: null })).toBeUndefined()
  })

  test.each([
    { billing_reason: 'subscription_create', startsPeriod: true },
    { billing_reason: 'subscription_cycle', startsPeriod: true },
    { billing_reason: 'subscription_update', startsPeriod: false },
  ])('$billing_reason begins a period: $startsPeriod', ({ billing_reason, startsPeriod }) => {
    const order = { ...ORDER, subscription_id: 's', product_id: 'product-pro', billing_reason }
    expect(saleOf(config, order)).toEqual({ kind: 'plan', plan: 'pro', startsPeriod })
  })

  test('a plan is named by the configuration, else by the product, else by the checkout', () => {
    const named = { product: { name: '', metadata: { plan: 'enterprise' } }, metadata: { plan: 'pro' } }
    expect(planOf(config, { product_id: 'product-pro', ...named })).toBe('pro')
    expect(planOf(config, { product_id: 'other', ...named })).toBe('enterprise')
    expect(planOf(config, { product_id: 'other', metadata: { plan: 'pro' }, product: null })).toBe('pro')
    expect(planOf(config, { product_id: 'other', metadata: { plan: 'free' }, product: null })).toBeUndefined()
    expect(planOf(config, { product_id: null, metadata: {}, product: undefined })).toBeUndefined()
  })
})

describe('what it is worth', () => {
  const deposit = { kind: 'tokens', rate: { tokens: 100, cents: 100 } } as const
  const bulk = { kind: 'tokens', rate: { tokens: 7001, cents: 5000 } } as const

  test.each([
    { sale: deposit, net: 500, tokens: 500 },
    { sale: deposit, net: 1999, tokens: 1999 },
    { sale: deposit, net: 0, tokens: 0 },
    { sale: deposit, net: -300, tokens: 0 },
    { sale: bulk, net: 5000, tokens: 7001 },
    { sale: bulk, net: 2500, tokens: 3500 }, // 3500.5
    { sale: bulk, net: 1, tokens: 1 }, // 1.4002
    { sale: bulk, net: 10_000, tokens: 14_002 },
  ])('$net cents of $sale.rate give $tokens', ({ sale, net, tokens }) => {
    expect(tokensFor(config, sale, net)).toBe(tokens)
  })

  test.each([
    { why: 'a period, at any discount', plan: 'pro', startsPeriod: true, net: 0, tokens: 50_000 },
    { why: 'a period', plan: 'enterprise', startsPeriod: true, net: 9900, tokens: 500_000 },
    { why: 'the whole difference', plan: 'enterprise', startsPeriod: false, net: 8000, tokens: 450_000 },
    { why: 'half the difference', plan: 'enterprise', startsPeriod: false, net: 4000, tokens: 225_000 },
    { why: 'one cent', plan: 'enterprise', startsPeriod: false, net: 1, tokens: 56 },
    { why: 'nothing paid', plan: 'enterprise', startsPeriod: false, net: 0, tokens: 0 },
    { why: 'a credit', plan: 'enterprise', startsPeriod: false, net: -500, tokens: 0 },
    { why: 'a period begun anew', plan: 'enterprise', startsPeriod: false, net: 9900, tokens: 500_000 },
    { why: 'nearly the full price', plan: 'enterprise', startsPeriod: false, net: 9000, tokens: 454_545 },
    { why: 'more than the full price', plan: 'enterprise', startsPeriod: false, net: 20_000, tokens: 500_000 },
    { why: 'a change to the cheapest plan', plan: 'pro', startsPeriod: false, net: 950, tokens: 25_000 },
  ] as const)('$why: $plan for $net cents gives $tokens', ({ plan, startsPeriod, net, tokens }) => {
    expect(tokensFor(config, { kind: 'plan', plan, startsPeriod }, net)).toBe(tokens)
  })

  test('is exact where products of floats are not', () => {
    const dear = { kind: 'tokens', rate: { tokens: 999_999_999, cents: 99_999_999 } } as const
    expect(tokensFor(config, dear, 99_999_998)).toBe(Number((999_999_999n * 99_999_998n) / 99_999_999n))
  })
})

describe('what a refund takes back', () => {
  const order = { tokensGranted: 1000, netCents: 999, refundedCents: 0, disputeLost: false }

  test.each([
    { refundedCents: 0, target: 0 },
    { refundedCents: 1, target: 1 },
    { refundedCents: 333, target: 333 },
    { refundedCents: 500, target: 500 },
    { refundedCents: 998, target: 998 },
    { refundedCents: 999, target: 1000 },
    { refundedCents: 1200, target: 1000 },
    { refundedCents: -5, target: 0 },
  ])('$refundedCents of 999 cents take $target of 1000 tokens', ({ refundedCents, target }) => {
    expect(takeBackTarget({ ...order, refundedCents })).toBe(target)
  })

  test('a lost dispute takes everything, and of a free order nothing is refunded', () => {
    expect(takeBackTarget({ ...order, disputeLost: true })).toBe(1000)
    expect(takeBackTarget({ ...order, netCents: 0, refundedCents: 0 })).toBe(0)
    expect(takeBackTarget({ ...order, netCents: 0, refundedCents: 10 })).toBe(0)
  })

  test('never takes more than was granted, never less for more refunded, and all for all', () => {
    fc.assert(
      fc.property(
        fc.nat(1e9),
        fc.integer({ min: 1, max: 1e8 }),
        fc.nat(1e8),
        fc.nat(1e8),
        (granted, net, one, other) => {
          const target = (refundedCents: number) =>
            takeBackTarget({ tokensGranted: granted, netCents: net, refundedCents, disputeLost: false })
          expect(target(Math.min(one, other))).toBeLessThanOrEqual(target(Math.max(one, other)))
          expect(target(one)).toBeLessThanOrEqual(granted)
          expect(target(net)).toBe(granted)
        },
      ),
    )
  })
})

describe('how long a plan stands', () => {
  test.each([
    { why: 'active: the period and the grace', state: {}, grace: 7, until: '2026-12-27T12:00:00.000Z' },
    { why: 'active without grace: a day for the news', state: {}, grace: 0, until: '2026-12-21T12:00:00.000Z' },
    { why: 'in its trial', state: { status: 'trialing' }, grace: 2, until: '2026-12-22T12:00:00.000Z' },
    {
      why: 'cancelled: to the end of the period',
      state: { cancel_at_period_end: true },
      grace: 7,
      until: '2026-12-20T12:00:00.000Z',
    },
    {
      why: 'cancelled: to where Polar says it ends',
      state: { cancel_at_period_end: true, ends_at: '2026-12-01T00:00:00Z' },
      grace: 7,
      until: '2026-12-01T00:00:00.000Z',
    },
    {
      why: 'late: the grace, from when it became late',
      state: { status: 'past_due', past_due_at: '2026-12-20T13:00:00Z' },
      grace: 7,
      until: '2026-12-27T13:00:00.000Z',
    },
    { why: 'late, not said since when', state: { status: 'past_due' }, grace: 1, until: '2026-11-22T00:00:00.000Z' },
    {
      why: 'late without grace: no longer',
      state: { status: 'past_due', past_due_at: '2026-12-20T13:00:00Z' },
      grace: 0,
      until: '2026-12-20T13:00:00.000Z',
    },
  ])('$why', ({ state, grace, until }) => {
    expect(entitledUntil({ ...SUBSCRIPTION, ...state }, grace)?.toISOString()).toBe(until)
  })

  test.each(['canceled', 'unpaid', 'paused', 'incomplete', 'incomplete_expired', 'something new'])(
    '%s: not at all',
    (status) => {
      expect(entitledUntil({ ...SUBSCRIPTION, status }, 7)).toBeNull()
    },
  )

  test('a version is when an object was changed, else when it was made', () => {
    expect(versionOf(SUBSCRIPTION)).toBe('2026-11-21T00:00:00Z')
    expect(versionOf(ORDER)).toBe('2026-11-20T12:00:00.000001Z')
  })
})

test("the SDK's own types fit what is read of each object: a drift fails the type check", () => {
  type Event<T> = Extract<webhooks.WebhookPayload, { type: T }>
  const fits: {
    order: (state: models.Order) => v.InferInput<typeof PolarOrder>
    subscription: (state: models.Subscription) => v.InferInput<typeof PolarSubscription>
    refund: (state: models.Refund) => v.InferInput<typeof PolarRefund>
    dispute: (state: models.Dispute) => v.InferInput<typeof PolarDispute>
    data: (
      event: Event<HandledEvent>,
    ) => v.InferInput<typeof PolarOrder> | v.InferInput<typeof PolarSubscription> | v.InferInput<typeof PolarRefund>
  } = {
    order: (state) => state,
    subscription: (state) => state,
    refund: (state) => state,
    dispute: (state) => state,
    data: ({ data }) => data,
  }
  expect(Object.keys(fits)).toHaveLength(5)
  expect([PolarOrder, PolarSubscription, PolarRefund].every((schema) => schema.type === 'object')).toBe(true)
})
