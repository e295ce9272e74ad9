// What Polar says of paid plans, written down as it is heard: orders with their lots, subscriptions; and what came of it.
import { sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { refreshPlan, statementOf } from '../../lib/ledger/ledger.ts'
import { at } from './clock.ts'
import type { Account } from './ledger-account.ts'

type Trx = Transaction<Database>

/** A paid order; `startsPeriod` is false for a change within a period. */
export interface Order {
  order: string
  subscription: string
  plan: 'pro' | 'enterprise'
  on: string
  tokens: number
  startsPeriod?: boolean
}

export interface Subscription {
  subscription: string
  plan: 'pro' | 'enterprise'
  from: string
  to: string
  /** Null when it was revoked. */
  entitledUntil: string | null
  cancelled?: boolean
  endsAt?: string
  /** When it became so; when its period began, unless said. */
  changedAt?: string
}

export const OPENED = '2023-06-10T12:00:00Z'
export const BOUGHT = '2023-06-20T12:00:00Z'
export const SOON = '2023-06-25T00:00:00Z'
export const RENEWED = '2023-07-20T12:00:00Z'
export const ENDED = '2023-08-20T12:00:00Z'

export const PURCHASE: Order = { order: 'first', subscription: 'sub', plan: 'pro', on: BOUGHT, tokens: 50_000 }
export const RENEWAL: Order = { ...PURCHASE, order: 'second', on: RENEWED }
export const UPGRADE: Order = {
  order: 'upgrade',
  subscription: 'sub',
  plan: 'enterprise',
  on: '2023-07-10T00:00:00Z',
  tokens: 90_000,
  startsPeriod: false,
}
export const RUNNING: Subscription = {
  subscription: 'sub',
  plan: 'pro',
  from: BOUGHT,
  to: RENEWED,
  entitledUntil: '2023-07-27T12:00:00Z',
}
export const RUNNING_ON = { ...RUNNING, from: RENEWED, to: ENDED, entitledUntil: '2023-08-27T12:00:00Z' }
export const REVOKED = {
  ...RUNNING,
  entitledUntil: null,
  endsAt: '2023-06-24T00:00:00Z',
  changedAt: '2023-06-24T00:00:00Z',
}

/** Writes down what Polar said, as it is heard at a time, with the lots of paid orders; and puts in force what follows. */
export async function hear(account: Account, time: string, ...facts: (Order | Subscription)[]): Promise<void> {
  await at(time, async (trx) => {
    for (const fact of facts)
      await ('order' in fact ? writeOrder(trx, account, fact) : writeSubscription(trx, account, fact))
    await refreshPlan(trx, account.userId)
  })
}

async function writeOrder(trx: Trx, { userId }: Account, order: Order): Promise<void> {
  const id = `${userId}:${order.order}`
  const unit = {
    status: 'paid',
    paid: true,
    currency: 'usd',
    net_cents: 1900,
    tax_cents: 0,
    refunded_cents: 0,
    fee_cents: 0,
  }
  await trx
    .insertInto('billing_orders')
    .values({
      id,
      user_id: userId,
      kind: 'plan',
      plan: order.plan,
      starts_period: order.startsPeriod ?? true,
      ...unit,
      customer_id: 'customer',
      product_id: null,
      checkout_id: null,
      subscription_id: `${userId}:${order.subscription}`,
      invoice_number: null,
      problem: null,
      tokens_worth: order.tokens,
      tokens_granted: order.tokens,
      granted_at: order.on,
      ordered_at: order.on,
      modified_at: order.on,
    })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .execute()
  await sql`
    select ledger_credit(${userId}, 'plan', ${order.tokens}, ${`polar:order:${id}`},
      (${order.on}::timestamptz at time zone 'utc' + interval '1 month') at time zone 'utc')
  `.execute(trx)
}

async function writeSubscription(trx: Trx, { userId }: Account, fact: Subscription): Promise<void> {
  const row = {
    plan: fact.plan,
    status: fact.entitledUntil === null ? 'canceled' : 'active',
    cancel_at_period_end: fact.cancelled ?? false,
    period_start: fact.from,
    period_end: fact.to,
    ends_at: fact.endsAt ?? null,
    entitled_until: fact.entitledUntil,
    modified_at: fact.changedAt ?? fact.from,
  }
  const rest = { pending_plan: null, customer_id: 'customer', product_id: 'product' }
  await trx
    .insertInto('billing_subscriptions')
    .values({ id: `${userId}:${fact.subscription}`, user_id: userId, ...row, ...rest })
    .onConflict((conflict) => conflict.column('id').doUpdateSet(row))
    .execute()
}

export async function statementAt({ userId }: Account, time: string) {
  return await at(time, (trx) => statementOf(trx, userId))
}

/** The row as it is stored: no clock moves it on. */
export async function subscriptionOf({ userId }: Account) {
  const { id, user_id, period_anchor, created_at, updated_at, ...row } = await db()
    .selectFrom('subscriptions')
    .selectAll()
    .where('user_id', '=', userId)
    .executeTakeFirstOrThrow()
  return row
}

/** Plan lots by the name of their order; `free` is the one of the newest month. */
export async function lotsOf({ userId }: Account) {
  const rows = await db()
    .selectFrom('ledger_lot')
    .select(['source', 'granted', 'available', 'held', 'spent', 'gone', 'dormant', 'expires_at'])
    .where('user_id', '=', userId)
    .where('kind', '=', 'plan')
    .orderBy('id')
    .execute()
  const name = (source: string) =>
    source.startsWith('polar:order:') ? source.slice(`polar:order:${userId}:`.length) : 'free'
  return Object.fromEntries(rows.map(({ source, ...lot }) => [name(source), lot]))
}
