// Polar's objects as its API would show them, of a shop with these products; each can be taken over without a shop around it.
import type { models } from '@polar-sh/sdk/2026-10'
import { db } from '../../db/client.ts'
import type { PolarDispute, PolarOrder, PolarRefund, PolarSubscription } from '../../lib/billing/polar-objects.ts'
import { BOUGHT, RENEWED } from './paid-plans.ts'

/** The configuration of an application that sells these products, and that Polar could send events to. */
export const SHOP_VARIABLES = {
  FORK__PAYMENTS__PROVIDER: 'polar',
  FORK__PAYMENTS__POLAR_PRODUCT_ID: 'product-tokens',
  FORK__PAYMENTS__PACKS: JSON.stringify([
    { id: 'starter', priceCents: 500, tokens: 500, polarProductId: 'product-starter' },
    { id: 'family', priceCents: 2000, tokens: 2400, polarProductId: 'product-family' },
  ]),
  FORK__PLANS__PRO__POLAR_PRODUCT_ID: 'product-pro',
  FORK__PLANS__ENTERPRISE__POLAR_PRODUCT_ID: 'product-enterprise',
  FORK__TRIAL__GENERATIONS: '0',
  POLAR_ACCESS_TOKEN: 'polar_oat_of_the_tests',
  POLAR_WEBHOOK_SECRET: 'whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cyB0aGF0IGlzIGxvbmc=',
}

/** A paid order of the pack `starter` at $5 unless said otherwise. */
export function polarOrder(userId: string, changes: Partial<PolarOrder> = {}): PolarOrder {
  return {
    id: crypto.randomUUID(),
    created_at: BOUGHT,
    modified_at: null,
    status: 'paid',
    paid: true,
    net_amount: 500,
    tax_amount: 100,
    total_amount: 600,
    applied_balance_amount: 0,
    refunded_amount: 0,
    platform_fee_amount: 80,
    currency: 'usd',
    billing_reason: 'purchase',
    customer_id: 'customer',
    product_id: 'product-starter',
    description: 'Tokens',
    metadata: { user_id: userId },
    ...changes,
  }
}

/** The order that pays for the first period of a subscription to `pro` unless said otherwise. */
export function polarPlanOrder(userId: string, subscriptionId: string, changes: Partial<PolarOrder> = {}): PolarOrder {
  const plan = { net_amount: 1900, tax_amount: 380, total_amount: 2280, product_id: 'product-pro', description: 'Pro' }
  const reason = { billing_reason: 'subscription_create', subscription_id: subscriptionId }
  return polarOrder(userId, { ...plan, ...reason, ...changes })
}

/** A running subscription to `pro` unless said otherwise. */
export function polarSubscription(userId: string, changes: Partial<PolarSubscription> = {}): PolarSubscription {
  return {
    id: crypto.randomUUID(),
    created_at: BOUGHT,
    modified_at: null,
    status: 'active',
    current_period_start: BOUGHT,
    current_period_end: RENEWED,
    cancel_at_period_end: false,
    customer_id: 'customer',
    product_id: 'product-pro',
    metadata: { user_id: userId },
    ...changes,
  }
}

export function polarRefund(orderId: string, changes: Partial<PolarRefund> = {}): PolarRefund {
  const facts = { status: 'succeeded', reason: 'customer_request' as models.RefundReason, amount: 100, currency: 'usd' }
  return { id: crypto.randomUUID(), created_at: BOUGHT, modified_at: null, order_id: orderId, ...facts, ...changes }
}

export function polarDispute(orderId: string, changes: Partial<PolarDispute> = {}): PolarDispute {
  const facts = { status: 'needs_response', amount: 500 }
  return { id: crypto.randomUUID(), created_at: BOUGHT, modified_at: null, order_id: orderId, ...facts, ...changes }
}

export async function orderRow(id: string) {
  return await db().selectFrom('billing_orders').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
}

export async function subscriptionRow(id: string) {
  return await db().selectFrom('billing_subscriptions').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
}
