// What the application made of a life, told by roles in place of ids: two lives of one seed must come to the same.
import type { models } from '@polar-sh/sdk/2026-10'
import { sql } from 'kysely'
import { db } from '../../db/client.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import type { Life } from './chaos-history.ts'

/**
 * Balances, plans, lots, orders and the rest, as they are now. Which of several packs is spent first, or repays a debt, depends on
 * which came first: `packsTogether` tells of them as of one.
 */
export async function booksOf(life: Life, { packsTogether }: { packsTogether: boolean }) {
  const users = []
  for (const { userId } of life.people) users.push(await accountOf(life, userId, packsTogether))
  return { users, ...(await recordsOf(life)) }
}

/** What Polar itself says of its objects, in the words of `booksOf`. */
export function polarsBooks({ people, orders, subscriptions, refunds, disputes }: Life) {
  const lost = new Set(disputes.filter(({ status }) => status === 'lost').map(({ order_id }) => order_id))
  const buyer = ({ metadata, customer }: Pick<models.Order, 'metadata' | 'customer'>) =>
    people.findIndex(({ userId }) => userId === (metadata.user_id ?? customer.external_id))
  return {
    orders: orders.map((order) => ({
      user: buyer(order),
      status: order.status,
      paid: order.paid,
      net_cents: order.net_amount,
      refunded_cents: order.refunded_amount,
      // An order that may wait for an admin is granted first, then taken back.
      ...(order.metadata.user_id && order.currency === 'usd' && { dispute_lost: order.paid && lost.has(order.id) }),
    })),
    subscriptions: subscriptions.map(({ metadata, status, cancel_at_period_end, current_period_end }) => ({
      user: people.findIndex(({ userId }) => userId === metadata.user_id),
      status,
      cancel_at_period_end,
      period_end: new Date(current_period_end),
    })),
    refunds: refunds.map(({ status, amount }) => ({ status, amount_cents: amount })),
    disputes: disputes.map(({ status }) => ({ status })),
  }
}

/** The part of `books` that `polars` has too. */
export function sharedPart(polars: unknown, books: unknown): unknown {
  if (!isBranch(polars) || !isBranch(books)) return books
  const values = new Map(Object.entries(books))
  return Object.fromEntries(Object.entries(polars).map(([key, value]) => [key, sharedPart(value, values.get(key))]))
}

/** Whether anybody's debt was ever repaid from a grant. */
export async function repaidDebts({ people }: Life): Promise<boolean> {
  const users = people.map(({ userId }) => userId)
  const { rows } = await sql`
    select from ledger_entry where op = 'repay' and user_id = any(${users}::uuid[]) limit 1
  `.execute(db())
  return rows.length > 0
}

async function accountOf(life: Life, userId: string, packsTogether: boolean) {
  const { balance, ...statement } = await statementOf(db(), userId)
  return {
    ...statement,
    ...balance,
    lots: await lotsOf(life, userId, packsTogether),
    moved: await movedTokens(userId, packsTogether),
  }
}

interface Lot {
  source: string
  kind: string
  granted: number
  available: number
  held: number
  spent: number
  gone: number
  dormant: boolean
}

/** An expired lot's rest is gone, lapsed yet or not, and a free month that nobody has used is as good as one not begun. */
async function lotsOf(life: Life, userId: string, packsTogether: boolean): Promise<Lot[]> {
  const { rows } = await sql<Lot>`
    select source, kind, granted, held, spent, dormant,
        case when expires_at <= now() then 0 else available end as available,
        case when expires_at <= now() then gone + available else gone end as gone
      from ledger_lot where user_id = ${userId}
        and not (kind = 'plan' and source like 'plan:%' and spent + held = 0 and (dormant or expires_at <= now()))
  `.execute(db())
  const lots = rows.map((lot) => ({ ...lot, source: roleOfSource(life, userId, lot.source) }))
  const packs = lots.filter(({ kind }) => kind === 'pack')
  if (!packsTogether) return lots.sort(bySource)
  const sum = (part: 'granted' | 'available' | 'held' | 'spent' | 'gone') =>
    packs.reduce((total, lot) => total + lot[part], 0)
  const together = { granted: sum('granted'), available: sum('available'), held: sum('held'), spent: sum('spent') }
  const others = lots.filter(({ kind }) => kind !== 'pack').sort(bySource)
  return [...others, { source: 'packs', kind: 'pack', dormant: false, gone: sum('gone'), ...together }]
}

function bySource(a: Lot, b: Lot): number {
  return a.source < b.source ? -1 : 1
}

function roleOfSource(life: Life, userId: string, source: string): string {
  const orderId = source.replace(/^polar:order:/, '')
  return orderId === source ? source.replace(userId, 'user') : `order ${roleOf(life.orders, orderId)}`
}

/** Sums by what happened to tokens, less what was undone. */
async function movedTokens(userId: string, packsTogether: boolean) {
  const { rows } = await sql<{ op: string; amount: number }>`
    select e.op, sum(e.amount)::bigint as amount from ledger_entry e join ledger_lot l on l.id = e.lot_id
      where e.user_id = ${userId} and l.source not like 'plan:%' group by e.op
  `.execute(db())
  const sums = Object.fromEntries(rows.map(({ op, amount }) => [op, amount]))
  const of = (op: string) => sums[op] ?? 0
  const clawedBack = of('clawback') - of('restore')
  const waived = of('waive') - of('unwaive')
  const owed = of('debt') - of('forgive')
  const repaid = of('repay') - of('unrepay')
  return {
    granted: of('grant'),
    takenBack: clawedBack + waived + owed,
    spent: of('spend'),
    // A debt that was repaid from a pack, and a pack that was taken back before it could repay, come to the same.
    ...(!packsTogether && { owed }),
    owedStill: owed - repaid,
  }
}

async function recordsOf(life: Life) {
  const database = db()
  const ids = (objects: { id: string }[]) => ['', ...objects.map(({ id }) => id)]
  const orders = await database
    .selectFrom('billing_orders')
    .select([
      'id',
      'user_id',
      'kind',
      'plan',
      'starts_period',
      'status',
      'paid',
      'currency',
      'net_cents',
      'refunded_cents',
    ])
    .select(['tokens_worth', 'tokens_granted', 'tokens_taken_back', 'dispute_lost', 'problem', 'subscription_id'])
    .where('id', 'in', ids(life.orders))
    .execute()
  const subscriptions = await database
    .selectFrom('billing_subscriptions')
    .select(['id', 'user_id', 'plan', 'status', 'cancel_at_period_end', 'period_start', 'period_end', 'ends_at'])
    .select(['entitled_until', 'pending_plan'])
    .where('id', 'in', ids(life.subscriptions))
    .execute()
  const refunds = await database
    .selectFrom('billing_refunds')
    .select(['id', 'order_id', 'status', 'amount_cents'])
    .where('id', 'in', ids(life.refunds))
    .execute()
  const disputes = await database
    .selectFrom('billing_disputes')
    .select(['id', 'order_id', 'status', 'amount_cents'])
    .where('id', 'in', ids(life.disputes))
    .execute()
  const userOf = (userId: string | null) => life.people.findIndex((person) => person.userId === userId)
  return {
    orders: byRole(life.orders, orders, ({ user_id, subscription_id, ...order }) => ({
      ...order,
      user: userOf(user_id),
      subscription: subscription_id === null ? null : roleOf(life.subscriptions, subscription_id),
    })),
    subscriptions: byRole(life.subscriptions, subscriptions, ({ user_id, ...one }) => ({
      ...one,
      user: userOf(user_id),
    })),
    refunds: byRole(life.refunds, refunds, ({ order_id, ...one }) => ({
      ...one,
      order: roleOf(life.orders, order_id),
    })),
    disputes: byRole(life.disputes, disputes, ({ order_id, ...one }) => ({
      ...one,
      order: roleOf(life.orders, order_id),
    })),
  }
}

function roleOf(objects: { id: string }[], id: string): number {
  return objects.findIndex((object) => object.id === id)
}

/** The rows in the order in which Polar made their objects; null for one that is not known. */
function byRole<Row extends { id: string }, T>(objects: { id: string }[], rows: Row[], show: (row: Row) => T) {
  return objects.map(({ id }) => {
    const row = rows.find((one) => one.id === id)
    if (!row) return null
    const { id: _, ...shown } = { ...show(row), id }
    return shown
  })
}

/** Where two books differ, a line each. */
export function differences(wanted: unknown, found: unknown, path = ''): string[] {
  if (isBranch(wanted) && isBranch(found)) {
    const [left, right] = [new Map(Object.entries(wanted)), new Map(Object.entries(found))]
    const keys = new Set([...left.keys(), ...right.keys()])
    return [...keys].flatMap((key) => differences(left.get(key), right.get(key), path === '' ? key : `${path}.${key}`))
  }
  const [left, right] = [JSON.stringify(wanted), JSON.stringify(found)]
  return left === right ? [] : [`${path}: ${left} became ${right}`]
}

function isBranch(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !(value instanceof Date)
}
