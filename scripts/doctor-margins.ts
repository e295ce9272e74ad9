// What is left of a sale: prices, less the fees of Polar and what the image provider bills.
import type { ForkConfig } from '../lib/config.ts'

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
  images: number
  costCents: number
}

/** What Polar keeps of a sale, rounded up. */
export function feeCents(totalCents: number, { isForeignCard }: { isForeignCard: boolean }): number {
  if (totalCents === 0) return 0
  const basisPoints = POLAR_FEES.basisPoints + (isForeignCard ? POLAR_FEES.foreignCardBasisPoints : 0)
  return Math.ceil((totalCents * basisPoints) / 10_000) + POLAR_FEES.fixedCents
}

/** The margin of everything on sale, and what the free plan costs. */
export function productMargins({ plans, payments, tools, ai }: ForkConfig): Margin[] {
  const { free, pro, enterprise } = plans
  const products = [
    { product: 'plan "free", a month', tokens: free.monthlyTokens, priceCents: 0 },
    { product: 'plan "pro", a month', tokens: pro.monthlyTokens, priceCents: pro.priceCents },
    { product: 'plan "enterprise", a month', tokens: enterprise.monthlyTokens, priceCents: enterprise.priceCents },
    ...payments.packs.map(({ id, tokens, priceCents }) => ({ product: `pack "${id}"`, tokens, priceCents })),
  ]
  const { priceTokens, costMicroUsd } = dearestImage({ tools, ai })
  return products.map(({ product, tokens, priceCents }) => {
    const images = Math.floor(tokens / priceTokens)
    const foreignCardFeeCents = feeCents(priceCents, { isForeignCard: true })
    return {
      product,
      priceCents,
      feeCents: feeCents(priceCents, { isForeignCard: false }),
      foreignCardFeeCents,
      incomeCents: priceCents - foreignCardFeeCents,
      images,
      costCents: Math.round((images * costMicroUsd) / 10_000),
    }
  })
}

/** The image that costs most for the tokens it brings in: the use to expect from whoever makes the most of a plan. */
function dearestImage({ tools, ai }: Pick<ForkConfig, 'tools' | 'ai'>): { priceTokens: number; costMicroUsd: number } {
  const images = tools.map(({ priceTokens, providers }) => {
    const costMicroUsd = providers.includes('gemini') ? Math.round(ai.providers.gemini.costPerImageUsd * 1_000_000) : 0
    return { priceTokens, costMicroUsd }
  })
  return images.reduce((dearest, image) =>
    image.costMicroUsd / image.priceTokens > dearest.costMicroUsd / dearest.priceTokens ? image : dearest,
  )
}

/** The products that cost more than they bring in. */
export function marginWarnings(margins: Margin[]): string[] {
  return margins
    .filter(({ priceCents, incomeCents, costCents }) => priceCents > 0 && costCents > incomeCents)
    .map(({ product, images, costCents, incomeCents }) => {
      return `${product}: using it up costs ${dollars(costCents)} for ${images} images, and ${dollars(incomeCents)} come in.`
    })
}

/** One margin for a terminal. */
export function marginLine(margin: Margin): string {
  const { product, priceCents, images, costCents, incomeCents } = margin
  const cost = `${images} images cost ${dollars(costCents)}`
  if (priceCents === 0) return `${product}: ${cost}`
  const fee = `fee ${dollars(margin.feeCents)} to ${dollars(margin.foreignCardFeeCents)}`
  if (incomeCents <= 0) return `${product}: ${dollars(priceCents)}, ${fee}: nothing is left, and ${cost}`
  const percent = Math.round(((incomeCents - costCents) / incomeCents) * 100)
  return `${product}: ${dollars(priceCents)}, ${fee}; ${cost} of ${dollars(incomeCents)}, margin ${percent} %`
}

function dollars(cents: number): string {
  return `${cents < 0 ? '-' : ''}$${(Math.abs(cents) / 100).toFixed(2)}`
}
