// What the business took in a time, what that cost, and what it still owes its users in tokens.
import { type Kysely, sql } from 'kysely'
import type { Database } from '../../db/schema.ts'
import { config } from '../config.ts'
import type { Period } from './period.ts'
import { sumTakings, type Takings } from './takings.ts'

/** In cents before tax; `netCents` is gross less refunds, lost disputes and fees, without the AI's cost, which is in USD. */
interface RevenueSums {
  orders: number
  grossCents: number
  taxCents: number
  feesCents: number
  refundedCents: number
  disputedCents: number
  netCents: number
}

export interface Revenue extends RevenueSums {
  from: string
  to: string
  currency: string
  aiCostUsd: number
  /** The days that have any, the newest first. */
  byDay: ({ day: string; aiCostUsd: number } & RevenueSums)[]
  liability: { unspentTokens: number; unspentPlanTokens: number; cents: number }
  /** Each currency by itself: amounts of two are never added. */
  otherCurrencies: ({ currency: string; liabilityCents: number } & RevenueSums)[]
}

/**
 * Revenue of a time by the paid orders made in it, whatever they sold, and the refunds and disputes of the same time.
 *
 * The liability is as of now: `unspentTokens` were bought and are not spent (what is reserved counts as unspent). They are worth
 * in `cents` what was paid for them: lot by lot the order's price after discounts and before tax, × unspent ÷ granted, rounded up.
 * `unspentPlanTokens` are those of paid plan periods that still run; they end with the period and have no price of their own.
 */
export async function revenueOf(db: Kysely<Database>, period: Period): Promise<Revenue> {
  const { currency } = config().payments
  const [takings, costs, owed] = await Promise.all([sumTakings(db, period), sumAiCost(db, period), sumUnspent(db)])
  const ours = takings.filter((row) => row.currency === currency)
  const costOf = (day: string | null) => (costs.find((row) => row.day === day)?.micros ?? 0) / 1_000_000
  const owedIn = (code: string) => owed.find((row) => row.currency === code)?.cents ?? 0
  const days = new Set([...ours, ...costs].map(({ day }) => day).filter((day) => day !== null))
  const others = new Set(
    [...takings, ...owed].map((row) => row.currency).filter((code) => code !== null && code !== currency),
  )
  return {
    from: period.from.toISOString(),
    to: period.to.toISOString(),
    currency,
    ...sums(ours.find(({ day }) => day === null)),
    aiCostUsd: costOf(null),
    byDay: [...days]
      .sort()
      .reverse()
      .map((day) => ({
        day,
        ...sums(ours.find((row) => row.day === day)),
        aiCostUsd: costOf(day),
      })),
    liability: {
      unspentTokens: owed.reduce((sum, { tokens }) => sum + tokens, 0),
      unspentPlanTokens: owed.reduce((sum, { plan_tokens }) => sum + plan_tokens, 0),
      cents: owedIn(currency),
    },
    otherCurrencies: [...others].sort().map((code) => ({
      currency: code,
      ...sums(takings.find((row) => row.currency === code && row.day === null)),
      liabilityCents: owedIn(code),
    })),
  }
}

function sums(row: Takings | undefined): RevenueSums {
  const { orders = 0, grossCents = 0, taxCents = 0, feesCents = 0, refundedCents = 0, disputedCents = 0 } = row ?? {}
  const netCents = grossCents - refundedCents - disputedCents - feesCents
  return { orders, grossCents, taxCents, feesCents, refundedCents, disputedCents, netCents }
}

async function sumAiCost(db: Kysely<Database>, { from, to }: Period) {
  const { rows } = await sql<{ day: string | null; micros: number }>`
    select to_char(timestamp at time zone 'utc', 'YYYY-MM-DD') as day, coalesce(sum(cost_micro_usd), 0)::bigint as micros
      from usage_logs where timestamp >= ${from} and timestamp < ${to} and cost_micro_usd > 0
      group by grouping sets ((), (day))
  `.execute(db)
  return rows
}

/** What is left of bought lots, by the currency of their orders. */
async function sumUnspent(db: Kysely<Database>) {
  const { rows } = await sql<{ currency: string; tokens: number; plan_tokens: number; cents: number }>`
    select o.currency,
        coalesce(sum(lot.unspent) filter (where lot.kind = 'pack'), 0)::bigint as tokens,
        coalesce(sum(lot.unspent) filter (where lot.kind = 'plan'), 0)::bigint as plan_tokens,
        coalesce(sum(ceil(o.net_cents::numeric * lot.unspent / lot.granted)) filter (where lot.kind = 'pack'), 0)::bigint
          as cents
      from (
        select source, kind, granted, available + held as unspent from ledger_lot
          where source like 'polar:order:%' and kind in ('pack', 'plan') and not dormant and (available > 0 or held > 0)
            and (expires_at is null or expires_at > now())
      ) lot join billing_orders o on lot.source = 'polar:order:' || o.id
      group by o.currency
  `.execute(db)
  return rows
}
