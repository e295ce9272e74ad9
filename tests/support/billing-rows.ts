// Rows of the billing tables and the ledger, written past the API at any time of the past.
import { type Insertable, sql } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { toolId } from '../../lib/tools/catalogue.ts'

type Order = Insertable<Database['billing_orders']>
type Refund = Insertable<Database['billing_refunds']>
type Dispute = Insertable<Database['billing_disputes']>

/** A paid order for 500 tokens at $5 unless said otherwise; its tokens are not granted. Returns its id. */
export async function givenOrder(order: Partial<Order> & Pick<Order, 'ordered_at'>): Promise<string> {
  const row = {
    id: crypto.randomUUID(),
    user_id: null,
    kind: 'tokens' as const,
    status: 'paid',
    paid: true,
    currency: 'usd',
    net_cents: 500,
    tax_cents: 0,
    refunded_cents: 0,
    fee_cents: 0,
    customer_id: crypto.randomUUID(),
    tokens_worth: 500,
    modified_at: order.ordered_at,
    ...order,
  }
  await db().insertInto('billing_orders').values(row).execute()
  return row.id
}

export async function givenRefund(refund: Partial<Refund> & Pick<Refund, 'order_id' | 'refunded_at'>): Promise<string> {
  const kind = { status: 'succeeded', reason: 'customer_request', amount_cents: 100, currency: 'usd' }
  const row = { id: crypto.randomUUID(), ...kind, modified_at: refund.refunded_at, ...refund }
  await db().insertInto('billing_refunds').values(row).execute()
  return row.id
}

export async function givenDispute(
  dispute: Partial<Dispute> & Pick<Dispute, 'order_id' | 'status' | 'disputed_at'>,
): Promise<string> {
  const row = { id: crypto.randomUUID(), amount_cents: 100, modified_at: dispute.disputed_at, ...dispute }
  await db().insertInto('billing_disputes').values(row).execute()
  return row.id
}

/** A grant as it was made then: a promotion of 100 tokens unless said otherwise. Returns its id. */
export async function givenLot(lot: {
  userId: string
  at: string
  kind?: 'promo' | 'pack' | 'plan'
  tokens?: number
  source?: string
  expiresAt?: string
}): Promise<string> {
  const { userId, at, kind = 'promo', tokens = 100, source = `test:${crypto.randomUUID()}`, expiresAt = null } = lot
  const { rows } = await sql<{ id: string }>`
    insert into ledger_lot (user_id, kind, unit, priority, granted, available, source, expires_at, created_at)
      values (${userId}, ${kind}, 'token', 20, ${tokens}, ${tokens}, ${source}, ${expiresAt}::timestamptz, ${at}::timestamptz)
      returning id::text
  `.execute(db())
  const [row] = rows
  if (!row) throw new Error('The lot was not written.')
  return row.id
}

/** Runs of tools, successful and by the local provider unless said otherwise. Returns their ids. */
export async function givenUsage(
  userId: string,
  runs: {
    at: string
    tokens: number
    trial?: boolean
    status?: 'success' | 'error' | 'timeout'
    tool?: string
    provider?: string | null
    costMicroUsd?: number
  }[],
): Promise<string[]> {
  const colouring = await toolId(db(), 'coloring-page')
  const rows = runs.map(({ at, tokens, trial, status, tool, provider, costMicroUsd }) => ({
    user_id: userId,
    tool_id: tool ?? colouring,
    timestamp: at,
    tokens_used: tokens,
    trial: trial ?? false,
    request_id: crypto.randomUUID(),
    response_status: status ?? 'success',
    provider: provider === undefined ? 'sketch' : provider,
    cost_micro_usd: costMicroUsd ?? 0,
  }))
  const inserted = await db().insertInto('usage_logs').values(rows).returning('id').execute()
  return inserted.map(({ id }) => id)
}

/** Holds tokens of one lot, whatever would be spent first; returns the hold's id. */
export async function holdFrom(lotId: string, tokens: number): Promise<string> {
  const id = crypto.randomUUID()
  await sql`
    with hold as (
      insert into ledger_hold (id, user_id, asked, amount, unit, expires_at)
        select ${id}, user_id, ${tokens}, ${tokens}, 'token', now() + interval '1 hour' from ledger_lot where id = ${lotId}
        returning user_id
    )
    insert into ledger_entry (user_id, op, amount, lot_id, hold_id)
      select user_id, 'reserve', ${tokens}, ${lotId}, ${id} from hold
  `.execute(db())
  return id
}

export async function settleHold(id: string): Promise<void> {
  await sql`select ledger_close(${id}, null, 'settled')`.execute(db())
}
