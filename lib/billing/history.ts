// Everything that moved a user's balance or money, as one list: orders, refunds, grants and what was spent.
import { type Kysely, type RawBuilder, sql } from 'kysely'
import * as v from 'valibot'
import type { Database, LotKind } from '../../db/schema.ts'
import { Cursor, isAfter, microsOf, type Page, PageLimit, type Position, pageOf } from '../paging.ts'
import { toCsv } from './csv.ts'

const CSV_ROWS_MAX = 10_000

type Common = { id: string; at: string }

/** Amounts are before tax. `tokens` is what the order gave; `tokensTakenBack` is of that, for refunds or a lost dispute. */
type OrderEntry = Common & {
  type: 'order'
  description: string
  amountCents: number
  currency: string
  taxCents: number
  refundedCents: number
  status: string
  tokens: number
  tokensTakenBack: number
  invoiceNumber: string | null
}

type RefundEntry = Common & {
  type: 'refund'
  orderId: string
  amountCents: number
  currency: string
  status: string
  reason: string
}

/** What was given and not bought; a trial is counted in generations. */
type GrantEntry = Common & {
  type: 'grant'
  kind: LotKind
  tokens: number
  trialGenerations: number
  expiresAt: string | null
}

type SpendEntry = Common & {
  type: 'spend'
  tool: string
  provider: string | null
  tokens: number
  trial: boolean
  requestId: string
}

export type HistoryEntry = OrderEntry | RefundEntry | GrantEntry | SpendEntry

export const HistoryQuery = v.strictObject({ limit: PageLimit, cursor: v.optional(Cursor) })
export const HistoryCsvQuery = v.strictObject({
  limit: v.optional(
    v.pipe(v.string(), v.toNumber(), v.integer(), v.minValue(1), v.maxValue(CSV_ROWS_MAX)),
    `${CSV_ROWS_MAX}`,
  ),
  cursor: v.optional(Cursor),
})

const COLUMNS = [
  ...['at', 'type', 'id', 'description', 'amountCents', 'currency', 'taxCents', 'refundedCents', 'status'],
  ...['orderId', 'reason', 'invoiceNumber', 'kind', 'tokens', 'tokensTakenBack', 'trialGenerations', 'expiresAt'],
  ...['tool', 'provider', 'trial', 'requestId'],
]

/** One page, newest first. Rows of one microsecond have an order too, so that walking the pages shows each once. */
export async function listHistory(
  db: Kysely<Database>,
  { userId, limit, after }: { userId: string; limit: number; after: Position | undefined },
): Promise<Page<HistoryEntry>> {
  const rows = await readEntries(db, userId, limit + 1, after)
  return pageOf(rows, limit, {
    position: ({ micros, key }) => ({ micros, id: key }),
    show: ({ entry }) => entry,
  })
}

/** A page as CSV, one column for each field of any entry; `nextCursor` is where the rest begins. */
export async function historyCsv(
  db: Kysely<Database>,
  filter: { userId: string; limit: number; after: Position | undefined },
): Promise<{ csv: string; nextCursor: string | null }> {
  const { data, page } = await listHistory(db, filter)
  return { csv: toCsv(COLUMNS, data), nextCursor: page.nextCursor }
}

interface Row {
  micros: number
  /** Tells entries of one microsecond apart. */
  key: string
  entry: HistoryEntry
}

/** Each branch is limited by itself, so that a page costs no more than four of its size, however long the history is. */
async function readEntries(
  db: Kysely<Database>,
  userId: string,
  limit: number,
  after: Position | undefined,
): Promise<Row[]> {
  const branches = Object.values(BRANCHES).map((branch) => {
    const key = sql`${branch.key} collate "C"`
    const rest = after ? sql`and ${isAfter(after, branch.at, key)}` : sql``
    return sql`(select ${branch.at} as at, ${key} as key, ${branch.entry} as entry
      from ${branch.from(userId)} ${rest} order by ${branch.at} desc, ${key} desc limit ${limit})`
  })
  const { rows } = await sql<Row>`
    select ${microsOf(sql.ref('at'))} as micros, key, entry || jsonb_build_object('at', ${isoTime(sql.ref('at'))}) as entry
      from (${sql.join(branches, sql` union all `)}) history
      order by history.at desc, key collate "C" desc limit ${limit}
  `.execute(db)
  return rows
}

interface Branch {
  at: RawBuilder<unknown>
  key: RawBuilder<unknown>
  entry: RawBuilder<unknown>
  from(userId: string): RawBuilder<unknown>
}

const BRANCHES: Record<HistoryEntry['type'], Branch> = {
  order: {
    at: sql`o.ordered_at`,
    key: sql`('order:' || o.id)`,
    entry: sql`jsonb_build_object('type', 'order', 'id', o.id, 'description', o.description, 'amountCents', o.net_cents,
      'currency', o.currency, 'taxCents', o.tax_cents, 'refundedCents', o.refunded_cents, 'status', o.status,
      'tokens', o.tokens_granted, 'tokensTakenBack', o.tokens_taken_back, 'invoiceNumber', o.invoice_number)`,
    from: (userId) => sql`billing_orders o where o.user_id = ${userId}`,
  },
  refund: {
    at: sql`r.refunded_at`,
    key: sql`('refund:' || r.id)`,
    entry: sql`jsonb_build_object('type', 'refund', 'id', r.id, 'orderId', r.order_id, 'amountCents', r.amount_cents,
      'currency', r.currency, 'status', r.status, 'reason', r.reason)`,
    from: (userId) => sql`billing_orders o join billing_refunds r on r.order_id = o.id where o.user_id = ${userId}`,
  },
  grant: {
    at: sql`l.created_at`,
    key: sql`('grant:' || l.id)`,
    entry: sql`jsonb_build_object('type', 'grant', 'id', l.id::text, 'kind', l.kind,
      'tokens', case l.unit when 'token' then l.granted else 0 end,
      'trialGenerations', case l.unit when 'generation' then l.granted else 0 end, 'expiresAt', ${isoTime(sql`l.expires_at`)})`,
    from: (userId) => sql`ledger_lot l where l.user_id = ${userId} and l.source not like 'polar:order:%'`,
  },
  spend: {
    at: sql`u.timestamp`,
    key: sql`('spend:' || u.id)`,
    entry: sql`jsonb_build_object('type', 'spend', 'id', u.id, 'tool', t.name, 'provider', u.provider,
      'tokens', u.tokens_used, 'trial', u.trial, 'requestId', u.request_id)`,
    // A trial that was given back is none: only successful runs are charged.
    from: (userId) => sql`usage_logs u join tools t on t.id = u.tool_id
      where u.user_id = ${userId} and (u.tokens_used > 0 or (u.trial and u.response_status = 'success'))`,
  },
}

function isoTime(time: RawBuilder<unknown>) {
  return sql<string | null>`to_char(${time} at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`
}
