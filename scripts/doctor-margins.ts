// What is left of a sale: prices, less the fees of Polar and what AI providers bill.
import { CAPABILITIES } from '../lib/ai/capabilities.ts'
import { expectedMicroUsd } from '../lib/ai/prices.ts'
import type { Quality } from '../lib/ai/provider.ts'
import type { ForkConfig } from '../lib/config.ts'
import type { Env } from '../lib/env.ts'
import { modelFor, paidProviders } from './doctor-models.ts'

/** Polar's plan "Starter", as published on 2026-11-20, of the total with tax. Fees stay with Polar when a sale is refunded. */
export const POLAR_FEES = { basisPoints: 500, fixedCents: 50, foreignCardBasisPoints: 150 }

/** Below this, the fixed part of the fee alone takes more than a tenth of the sale. */
export const DEPOSIT_CENTS_MIN = 500

/** What is left of a sale when the buyer uses all of it. */
export interface Margin {
  /** Such as `plan "pro", a month`. */
  product: string
  priceCents: number
  /** What Polar keeps when the card is from the US. */
  feeCents: number
  /** What Polar keeps when it is not. */
  foreignCardFeeCents: number
  /** What is left of the price with the higher fee. */
  incomeCents: number
  results: number
  costCents: number
}

/** What Polar keeps of a sale, rounded up. */
export function feeCents(totalCents: number, { isForeignCard }: { isForeignCard: boolean }): number {
  if (totalCents === 0) return 0
  const basisPoints = POLAR_FEES.basisPoints + (isForeignCard ? POLAR_FEES.foreignCardBasisPoints : 0)
  return Math.ceil((totalCents * basisPoints) / 10_000) + POLAR_FEES.fixedCents
}

/** The margin of everything on sale, and what the free plan costs. */
export function productMargins(config: ForkConfig, env: Env | undefined): Margin[] {
  const { plans, payments } = config
  const { free, pro, enterprise } = plans
  const products = [
    { product: 'plan "free", a month', tokens: free.monthlyTokens, priceCents: 0 },
    { product: 'plan "pro", a month', tokens: pro.monthlyTokens, priceCents: pro.priceCents },
    { product: 'plan "enterprise", a month', tokens: enterprise.monthlyTokens, priceCents: enterprise.priceCents },
    ...payments.packs.map(({ id, tokens, priceCents }) => ({ product: `pack "${id}"`, tokens, priceCents })),
  ]
  const { priceTokens, costMicroUsd } = dearestResult(config, env)
  return products.map(({ product, tokens, priceCents }) => {
    const results = Math.floor(tokens / priceTokens)
    const foreignCardFeeCents = feeCents(priceCents, { isForeignCard: true })
    return {
      product,
      priceCents,
      feeCents: feeCents(priceCents, { isForeignCard: false }),
      foreignCardFeeCents,
      incomeCents: priceCents - foreignCardFeeCents,
      results,
      costCents: Math.round((results * costMicroUsd) / 10_000),
    }
  })
}

/** The result that costs most for the tokens it brings in: the use to expect from whoever makes the most of a plan. */
function dearestResult(config: ForkConfig, env: Env | undefined): { priceTokens: number; costMicroUsd: number } {
  const results = config.tools.flatMap((tool) => {
    return sold(tool).map(({ quality, priceTokens }) => {
      const work = { task: tool.does, quality }
      const costs = paidProviders(tool, config, env)
        .filter((provider) => CAPABILITIES[provider][tool.does]?.includes(quality))
        .map((id) => expectedMicroUsd(modelFor(id, work, config), work, config.ai.providers[id].costPerImageUsd))
      return { priceTokens, costMicroUsd: Math.max(0, ...costs) }
    })
  })
  return results.reduce((dearest, result) =>
    result.costMicroUsd / result.priceTokens > dearest.costMicroUsd / dearest.priceTokens ? result : dearest,
  )
}

/** The qualities of a tool with their prices. */
function sold({ priceTokens, highQualityPriceTokens, draftPriceTokens }: ForkConfig['tools'][number]) {
  const standard: { quality: Quality; priceTokens: number }[] = [
    { quality: 'standard', priceTokens },
    { quality: 'high', priceTokens: highQualityPriceTokens },
  ]
  return draftPriceTokens === undefined
    ? standard
    : [...standard, { quality: 'draft' as const, priceTokens: draftPriceTokens }]
}

/** The products that cost more than they bring in. */
export function marginWarnings(margins: Margin[]): string[] {
  return margins
    .filter(({ priceCents, incomeCents, costCents }) => priceCents > 0 && costCents > incomeCents)
    .map(({ product, results, costCents, incomeCents }) => {
      return `${product}: using it up costs ${dollars(costCents)} for ${results} results, and ${dollars(incomeCents)} come in.`
    })
}

/** One margin for a terminal. */
export function marginLine(margin: Margin): string {
  const { product, priceCents, results, costCents, incomeCents } = margin
  const cost = `${results} results cost ${dollars(costCents)}`
  if (priceCents === 0) return `${product}: ${cost}`
  const fee = `fee ${dollars(margin.feeCents)} to ${dollars(margin.foreignCardFeeCents)}`
  if (incomeCents <= 0) return `${product}: ${dollars(priceCents)}, ${fee}: nothing is left, and ${cost}`
  const percent = Math.round(((incomeCents - costCents) / incomeCents) * 100)
  return `${product}: ${dollars(priceCents)}, ${fee}; ${cost} of ${dollars(incomeCents)}, margin ${percent} %`
}

function dollars(cents: number): string {
  return `${cents < 0 ? '-' : ''}$${(Math.abs(cents) / 100).toFixed(2)}`
}
