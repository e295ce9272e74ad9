// What is sold, and what a paid order is worth in tokens. Integers only: a token is never made by rounding up.
import type { ForkConfig } from '../config.ts'
import type { PolarOrder, PolarSubscription } from './polar-objects.ts'

export const PAID_PLANS = ['pro', 'enterprise'] as const
export type PaidPlan = (typeof PAID_PLANS)[number]

/** What an order sells; undefined when it is nothing of ours. */
export type Sale =
  | { kind: 'tokens'; rate: TokenRate }
  | { kind: 'plan'; plan: PaidPlan; startsPeriod: boolean }
  | undefined

/** So many tokens for so many cents. */
export interface TokenRate {
  tokens: number
  cents: number
}

export function isPaidPlan(plan: unknown): plan is PaidPlan {
  return PAID_PLANS.some((name) => name === plan)
}

/** The plan of a product: as the configuration says, else as the product itself, else as the checkout said. */
export function planOf(
  { plans }: ForkConfig,
  { product_id, product, metadata }: Pick<PolarOrder | PolarSubscription, 'product_id' | 'product' | 'metadata'>,
): PaidPlan | undefined {
  const configured = PAID_PLANS.find((name) => product_id && plans[name].polarProductId === product_id)
  return configured ?? [product?.metadata.plan, metadata.plan].find(isPaidPlan)
}

/** What an order sells. Orders without a subscription are token purchases when their product, or our own checkout, says so. */
export function saleOf(config: ForkConfig, order: PolarOrder): Sale {
  if (order.subscription_id) {
    const plan = planOf(config, order)
    if (!plan) return undefined
    return { kind: 'plan', plan, startsPeriod: order.billing_reason !== 'subscription_update' }
  }
  const { packs, polarProductId, tokensPerDollar } = config.payments
  const { product_id, product, metadata } = order
  const named = product?.metadata.pack ?? metadata.pack
  const pack =
    packs.find((candidate) => product_id && candidate.polarProductId === product_id) ??
    packs.find((candidate) => candidate.id === named)
  if (pack) return { kind: 'tokens', rate: { tokens: pack.tokens, cents: pack.priceCents } }
  const isDeposit = (product_id && product_id === polarProductId) || product?.metadata.kind === 'tokens'
  if (isDeposit || metadata.user_id !== undefined)
    return { kind: 'tokens', rate: { tokens: tokensPerDollar, cents: 100 } }
  return undefined
}

/**
 * Tokens for what was paid, `netCents` being after discounts and before tax. A plan's period is worth its allowance whatever the
 * discount. A change of plan within a period is worth the part of the difference that was paid: all of it for the whole difference
 * in price; above that (a period begun anew at full price), the part of the new allowance.
 */
export function tokensFor({ plans }: ForkConfig, sale: NonNullable<Sale>, netCents: number): number {
  if (sale.kind === 'tokens') return share(sale.rate.tokens, netCents, sale.rate.cents)
  const { monthlyTokens, priceCents } = plans[sale.plan]
  if (sale.startsPeriod) return monthlyTokens
  const cheaper = PAID_PLANS.map((name) => plans[name]).filter((plan) => plan.priceCents < priceCents)
  const before = cheaper.reduce((best, plan) => Math.max(best, plan.monthlyTokens), 0)
  const beforeCents = cheaper.reduce((best, plan) => Math.max(best, plan.priceCents), 0)
  const differenceCents = priceCents - beforeCents
  if (netCents <= differenceCents) return share(Math.max(0, monthlyTokens - before), netCents, differenceCents)
  return Math.min(monthlyTokens, share(monthlyTokens, netCents, priceCents))
}

/**
 * What of an order's net amount gives tokens. A change of plan that was paid with the credit of another change gives none: that
 * money gave its tokens when it was paid, and changing to and fro would give them again and again.
 */
export function worthCents(
  sale: NonNullable<Sale>,
  { net_amount, total_amount = 0, applied_balance_amount = 0 }: PolarOrder,
): number {
  if (sale.kind === 'tokens' || sale.startsPeriod || applied_balance_amount >= 0) return net_amount
  return share(net_amount, total_amount + applied_balance_amount, total_amount)
}

/** How many of an order's tokens are to be back with us: in proportion to what was refunded, all after a lost dispute. */
export function takeBackTarget(order: {
  tokensGranted: number
  netCents: number
  refundedCents: number
  disputeLost: boolean
}): number {
  const { tokensGranted, netCents, refundedCents, disputeLost } = order
  if (disputeLost) return tokensGranted
  return Math.min(tokensGranted, share(tokensGranted, refundedCents, netCents))
}

/** `whole × part / of`, rounded down; 0 of nothing, and never below 0. */
function share(whole: number, part: number, of: number): number {
  if (part <= 0 || of <= 0) return 0
  return Number((BigInt(whole) * BigInt(part)) / BigInt(of))
}
