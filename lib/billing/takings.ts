// The money that orders brought and that went back, by day of UTC and by currency: amounts of two currencies are never added.
import { type Kysely, sql } from 'kysely'
import type { Database } from '../../db/schema.ts'
import type { Period } from './period.ts'

/** In cents before tax. Orders count when they were made, refunds when they were made, disputes when they were opened. */
export interface Takings {
  currency: string
  /** The UTC day; null for the whole time. */
  day: string | null
  orders: number
  boughtTokens: number
  grossCents: number
  taxCents: number
  feesCents: number
  refundedCents: number
  disputedCents: number
}

/** Sums of the whole time and of each day that has any, the newest day first; of one user's orders or of all. */
export async function sumTakings(
  db: Kysely<Database>,
  { from, to, userId }: Period & { userId?: string },
): Promise<Takings[]> {
  const during = (time: string) => sql`${sql.ref(time)} >= ${from} and ${sql.ref(time)} < ${to}
    ${userId === undefined ? sql`` : sql`and o.user_id = ${userId}`}`
  const { rows } = await sql<Takings>`
    with movement as (
      select o.ordered_at as at, o.currency, 1 as orders, o.tokens_granted, o.net_cents, o.tax_cents, o.fee_cents,
          0::bigint as refunded_cents, 0::bigint as disputed_cents
        from billing_orders o where o.paid and ${during('o.ordered_at')}
      union all
      select r.refunded_at, r.currency, 0, 0, 0, 0, 0, r.amount_cents, 0
        from billing_refunds r join billing_orders o on o.id = r.order_id
        where r.status = 'succeeded' and ${during('r.refunded_at')}
      union all
      select d.disputed_at, o.currency, 0, 0, 0, 0, 0, 0, d.amount_cents
        from billing_disputes d join billing_orders o on o.id = d.order_id
        where d.status = 'lost' and ${during('d.disputed_at')}
    )
    select currency, to_char(at at time zone 'utc', 'YYYY-MM-DD') as day, sum(orders)::int as orders,
        sum(tokens_granted)::bigint as "boughtTokens", sum(net_cents)::bigint as "grossCents",
        sum(tax_cents)::bigint as "taxCents", sum(fee_cents)::bigint as "feesCents",
        sum(refunded_cents)::bigint as "refundedCents", sum(disputed_cents)::bigint as "disputedCents"
      from movement group by grouping sets ((currency), (currency, day)) order by day desc nulls first, currency
  `.execute(db)
  return rows
}
