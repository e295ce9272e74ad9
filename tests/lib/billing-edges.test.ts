// The edges of billing that need no store: what is read of Polar's objects, and whether anything can be sold.
import * as v from 'valibot'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { paymentsOffReason, requirePayments } from '../../lib/billing/payments.ts'
import { presentmentCurrency } from '../../lib/billing/polar.ts'
import {
  PolarDispute,
  PolarOrder,
  PolarRefund,
  PolarSubscription,
  readOrder,
  readSubscription,
} from '../../lib/billing/polar-objects.ts'
import { isPaidPlan, tokensFor, worthCents } from '../../lib/billing/products.ts'
import { loadConfig } from '../../lib/config.ts'
import { parseEnv } from '../../lib/env.ts'

const TIME = '2026-11-20T12:00:00.000001Z'
const SHARED = { id: 'id', created_at: TIME, modified_at: null }

const SUBSCRIPTION = {
  ...SHARED,
  status: 'active',
  current_period_start: TIME,
  current_period_end: '2026-12-20T12:00:00Z',
  cancel_at_period_end: false,
  customer_id: 'customer',
  product_id: 'product',
}

const ORDER = {
  ...SHARED,
  status: 'paid',
  paid: true,
  net_amount: 1000,
  tax_amount: 200,
  refunded_amount: 0,
  currency: 'usd',
  billing_reason: 'purchase',
  customer_id: 'customer',
}

const REFUND = {
  ...SHARED,
  order_id: 'order',
  status: 'succeeded',
  reason: 'other',
  amount: 100,
  currency: 'usd',
}
const DISPUTE = { ...SHARED, order_id: 'order', status: 'lost', amount: 100 }

describe("of Polar's objects", () => {
  test('the fields that count are read, and no others', () => {
    const more = { unheard_of: true }
    const product = { name: 'Pro', metadata: { plan: 'pro' }, ...more }
    const full = {
      ...SUBSCRIPTION,
      modified_at: TIME,
      ends_at: TIME,
      past_due_at: TIME,
      metadata: { user_id: 'ada' },
      customer: { external_id: 'ada' },
      product: { name: 'Pro', metadata: { plan: 'pro' } },
      pending_update: { product_id: 'other' },
    }
    expect(readSubscription({ ...full, product, ...more })).toEqual(full)
    const order = {
      ...ORDER,
      total_amount: 1200,
      applied_balance_amount: -100,
      platform_fee_amount: 90,
      invoice_number: 'INV-1',
      product_id: 'product',
      checkout_id: 'checkout',
      subscription_id: 'subscription',
      description: 'Pro',
      metadata: { user_id: 'ada' },
      customer: { external_id: null },
      product: null,
      subscription: full,
    }
    expect(readOrder({ ...order, ...more })).toEqual(order)
    expect(v.parse(PolarRefund, { ...REFUND, ...more })).toEqual(REFUND)
    expect(v.parse(PolarDispute, { ...DISPUTE, ...more })).toEqual(DISPUTE)
  })

  test('what may be missing is read as nothing', () => {
    expect(readSubscription(SUBSCRIPTION)).toEqual({ ...SUBSCRIPTION, metadata: {} })
    expect(readOrder(ORDER)).toEqual({ ...ORDER, platform_fee_amount: 0, description: '', metadata: {} })
    expect(readOrder({ ...ORDER, product: {} }).product).toEqual({ name: '', metadata: {} })
    expect(readOrder({ ...ORDER, customer: {} }).customer).toEqual({})
    expect(readSubscription({ ...SUBSCRIPTION, pending_update: {} }).pending_update).toEqual({})
  })

  test('a currency is read in small letters, and a text without what the database cannot store', () => {
    const order = readOrder({ ...ORDER, currency: 'EUR', description: 'a\0b\0', product: { name: '\0c' } })
    expect(order).toMatchObject({ currency: 'eur', description: 'ab', product: { name: 'c' } })
  })

  test.each([
    ...['id', 'created_at', 'modified_at', 'status', 'paid', 'net_amount', 'tax_amount', 'refunded_amount'],
    ...['currency', 'billing_reason', 'customer_id'],
  ])('an order without %s is refused', (field) => {
    expect(v.is(PolarOrder, without(ORDER, field))).toBe(false)
  })

  test.each(Object.keys(SUBSCRIPTION))('a subscription without %s is refused', (field) => {
    expect(v.is(PolarSubscription, without(SUBSCRIPTION, field))).toBe(false)
  })

  test.each(Object.keys(REFUND))('a refund without %s is refused', (field) => {
    expect(v.is(PolarRefund, without(REFUND, field))).toBe(false)
  })

  test.each(Object.keys(DISPUTE))('a dispute without %s is refused', (field) => {
    expect(v.is(PolarDispute, without(DISPUTE, field))).toBe(false)
  })

  test.each([
    { field: 'id', value: '' },
    { field: 'id', value: 'x'.repeat(101) },
    { field: 'net_amount', value: 0.5 },
    { field: 'net_amount', value: 2 ** 53 },
    { field: 'net_amount', value: '100' },
    { field: 'created_at', value: 'yesterday' },
    { field: 'created_at', value: 1 },
    { field: 'currency', value: 'us' },
    { field: 'currency', value: 'usdt' },
    { field: 'metadata', value: null },
    { field: 'customer', value: { external_id: 7 } },
    { field: 'subscription', value: { id: 'subscription' } },
  ])('an order whose $field is $value is refused', ({ field, value }) => {
    expect(v.is(PolarOrder, { ...ORDER, [field]: value })).toBe(false)
  })

  test('a time that is none is refused in words', () => {
    const { issues } = v.safeParse(PolarOrder, { ...ORDER, created_at: 'yesterday' })
    expect(issues?.map(({ message }) => message)).toEqual(['must be a time'])
  })

  test('the longest id is read', () => {
    expect(readOrder({ ...ORDER, id: 'x'.repeat(100) }).id).toHaveLength(100)
    expect(readOrder({ ...ORDER, id: 'x' }).id).toBe('x')
  })
})

function without(object: object, field: string): object {
  return Object.fromEntries(Object.entries(object).filter(([name]) => name !== field))
}

describe('the worth of a change of plan', () => {
  const change = { kind: 'plan', plan: 'enterprise', startsPeriod: false } as const
  const order = readOrder({ ...ORDER, net_amount: 1000, total_amount: 1200, applied_balance_amount: -300 })

  test('is what was paid of it with new money', () => {
    expect(worthCents(change, order)).toBe(750)
    expect(worthCents(change, { ...order, applied_balance_amount: -1200 })).toBe(0)
    expect(worthCents(change, { ...order, applied_balance_amount: 0 })).toBe(1000)
    expect(worthCents(change, { ...order, applied_balance_amount: 300 })).toBe(1000)
    expect(worthCents(change, { ...order, total_amount: undefined })).toBe(0)
    expect(worthCents(change, { ...order, applied_balance_amount: undefined })).toBe(1000)
    expect(worthCents(change, readOrder({ ...ORDER, net_amount: 1000 }))).toBe(1000)
  })

  test('does not concern tokens and periods, which are worth their net amount', () => {
    expect(worthCents({ kind: 'tokens', rate: { tokens: 1, cents: 1 } }, order)).toBe(1000)
    expect(worthCents({ ...change, startsPeriod: true }, order)).toBe(1000)
  })

  test('between plans of one price, or to one with fewer tokens, is nothing and never less', () => {
    const config = loadConfig(parseEnv({}))
    const plans = (pro: object, enterprise: object) => ({
      ...config,
      plans: {
        ...config.plans,
        pro: { ...config.plans.pro, ...pro },
        enterprise: { ...config.plans.enterprise, ...enterprise },
      },
    })
    const same = plans({ priceCents: 1000, monthlyTokens: 10 }, { priceCents: 1000, monthlyTokens: 90 })
    expect(tokensFor(same, change, 500)).toBe(45)
    const fewer = plans({ priceCents: 1000, monthlyTokens: 90 }, { priceCents: 2000, monthlyTokens: 10 })
    expect(tokensFor(fewer, change, 500)).toBe(0)
  })

  test.each([
    ['pro', true],
    ['enterprise', true],
    ['free', false],
    [undefined, false],
  ])('%s is a paid plan: %s', (plan, isPaid) => {
    expect(isPaidPlan(plan)).toBe(isPaid)
  })
})

test('a currency goes to Polar as it is configured', () => {
  expect(presentmentCurrency('eur')).toBe('eur')
})

describe('payments are off', () => {
  const KEYS = { POLAR_ACCESS_TOKEN: 'token', POLAR_WEBHOOK_SECRET: 'whsec_c2VjcmV0' }
  const settings = { FORK__PAYMENTS__PROVIDER: 'polar', ...KEYS }
  const reason = (variables: Record<string, string>) => {
    const env = parseEnv(variables)
    return paymentsOffReason(loadConfig(env), env)
  }

  test('for a reason that is said, and on without one', () => {
    expect(reason(settings)).toBeUndefined()
    expect(reason({ ...settings, FORK__FEATURES__PAYMENTS: 'false' })).toBe('features.payments is false.')
    expect(reason({ ...settings, FORK__PAYMENTS__PROVIDER: 'none' })).toBe('payments.provider is "none".')
    const { POLAR_ACCESS_TOKEN, POLAR_WEBHOOK_SECRET, ...keyless } = settings
    expect(reason(keyless)).toBe('POLAR_ACCESS_TOKEN and POLAR_WEBHOOK_SECRET are not set.')
  })

  test('on Vercel where there is no database to keep a purchase in', () => {
    const config = loadConfig(parseEnv(settings))
    const env = { ...parseEnv(settings), onVercel: true }
    const lost = 'Demo mode: without a database a purchase would be lost.'
    expect(paymentsOffReason(config, { ...env, databaseUrl: undefined })).toBe(lost)
    expect(paymentsOffReason(config, { ...env, databaseUrl: 'postgres://database' })).toBeUndefined()
    expect(paymentsOffReason(config, { ...env, onVercel: false, databaseUrl: undefined })).toBeUndefined()
  })

  test('though the keys are there, and nobody can be charged', () => {
    for (const [name, value] of Object.entries({ ...settings, FORK__FEATURES__PAYMENTS: 'false' }))
      vi.stubEnv(name, value)
    onTestFinished(() => void vi.unstubAllEnvs())
    expect(() => requirePayments()).toThrow(
      expect.objectContaining({
        code: 'FEATURE_DISABLED',
        message: 'Payments are switched off.',
        details: { reason: 'features.payments is false.' },
      }),
    )
  })
})
