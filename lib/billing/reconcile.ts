// Reconciliation: looks through Polar's own lists for what no webhook told, page by page, and goes on where it stopped.
import type { Polar } from '@polar-sh/sdk/2026-10'
import { sql } from 'kysely'
import * as v from 'valibot'
import { db } from '../../db/client.ts'
import { describeError, log } from '../log.ts'
import { retryFailed } from './inbox.ts'
import { ownEndpoints, polar, unlessRefused } from './polar.ts'
import { PolarDispute, PolarOrder, PolarRefund, PolarSubscription, versionOf } from './polar-objects.ts'
import { takeOver } from './take-over.ts'

const PAGE_SIZE = 100
const SINGLES_MAX = 100
const FAILED_EVENTS_MAX = 100
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const ERRORS_MAX = 20
const FIRST_DAY = '2000-01-01T00:00:00Z'

export interface Reconciliation {
  /** Objects looked at, and objects whose state was news, over all lists. */
  seen: number
  applied: number
  /** False when time ran out or a list failed: the next call goes on from there. */
  complete: boolean
  eventsRetried: number
  eventsStillFailing: number
  webhookEndpoint: 'ok' | 'disabled' | 'missing' | 'unknown'
  /** What could not be taken over; the log says why. */
  errors: string[]
}

/** Brings our state to Polar's within about `budgetMs`. A list that fails does not keep the others from being looked at. */
export async function reconcile(budgetMs: number): Promise<Reconciliation> {
  const client = await polar()
  const startedAtMs = Date.now()
  const { retried, stillFailing } = await retryFailed(FAILED_EVENTS_MAX)
  const result: Reconciliation = {
    seen: 0,
    applied: 0,
    complete: true,
    eventsRetried: retried,
    eventsStillFailing: stillFailing,
    webhookEndpoint: 'unknown',
    errors: [],
  }
  const attempt: Attempt = async (what, work) => {
    try {
      await work()
      return true
    } catch (error) {
      result.complete = false
      if (result.errors.length < ERRORS_MAX) result.errors.push(what)
      log('error', 'reconcile_failed', { what, error: describeError(error) })
      return false
    }
  }
  // Each list has the time up to its own mark, so that a long one starves none behind it.
  for (const [index, list] of LISTS.entries()) {
    const deadlineMs = startedAtMs + (budgetMs * (index + 1)) / LISTS.length
    await attempt(list.name, () => walk(client, list, { deadlineMs, result, attempt }))
  }
  await attempt('due', () => lookUpDue(client))
  await attempt('endpoint', async () => {
    result.webhookEndpoint = await endpointState(client)
  })
  const { webhookEndpoint } = result
  if (webhookEndpoint !== 'ok') log('error', 'webhook_endpoint_off', { state: webhookEndpoint })
  return result
}

/** Does a part of the work; its failure is noted and stops nothing else. False when it failed. */
type Attempt = (what: string, work: () => Promise<void>) => Promise<boolean>

interface Page {
  items: unknown[]
  pagination: { max_page: number }
}

/** One of Polar's lists, newest first: what is added meanwhile moves known objects to later pages and hides none. */
interface List {
  name: string
  table: 'billing_orders' | 'billing_refunds' | 'billing_disputes' | 'billing_subscriptions'
  /** How long after its beginning an object may still change unheard; for ever when left out. */
  days?: number
  page(client: Polar, paging: { page: number; limit: number }, since: string): Promise<Page>
  take(client: Polar, item: unknown): Promise<void>
}

const LISTS: List[] = [
  {
    name: 'orders',
    table: 'billing_orders',
    days: 3,
    page: (client, paging, since) => client.orders.list({ ...paging, created_after: since, sorting: ['-created_at'] }),
    take: (_, item) => takeOver({ orders: [v.parse(PolarOrder, item)] }),
  },
  {
    name: 'subscriptions',
    table: 'billing_subscriptions',
    page: (client, paging) => client.subscriptions.list({ ...paging, sorting: ['-started_at'] }),
    take: (_, item) => takeOver({ subscriptions: [v.parse(PolarSubscription, item)] }),
  },
  {
    name: 'refunds',
    table: 'billing_refunds',
    days: 60,
    page: (client, paging) => client.refunds.list({ ...paging, sorting: ['-created_at'] }),
    take: async (client, item) => {
      const refund = v.parse(PolarRefund, item)
      await takeOver({ orders: await ordersNamed(client, [refund.order_id]), refunds: [refund] })
    },
  },
  {
    name: 'disputes',
    table: 'billing_disputes',
    days: 180,
    page: (client, paging) => client.disputes.list({ ...paging, sorting: ['-created_at'] }),
    take: async (client, item) => {
      const dispute = v.parse(PolarDispute, item)
      await takeOver({ orders: await ordersNamed(client, [dispute.order_id]), disputes: [dispute] })
    },
  },
]

const Listed = v.object({ id: v.string(), created_at: v.string(), modified_at: v.nullable(v.string()) })
/** `failed`: something in this pass could not be taken over, and so the next one has to see as far back. */
const Position = v.object({
  page: v.number(),
  since: v.string(),
  beganAt: v.string(),
  failed: v.exactOptional(v.boolean()),
})

/** Looks through a list from where the last call stopped, until it is through or the time is over. */
async function walk(
  client: Polar,
  list: List,
  { deadlineMs, result, attempt }: { deadlineMs: number; result: Reconciliation; attempt: Attempt },
): Promise<void> {
  let position = await positionOf(list)
  for (;;) {
    const { page, since } = position
    const { items, pagination } = await list.page(client, { page, limit: PAGE_SIZE }, since)
    const listed = items.map((item) => ({ ...v.parse(Listed, item), item }))
    const news = await changed(list.table, listed)
    for (const { id, item } of listed) {
      // What cannot be taken over is told, and tried again next time; it must not hide what stands behind it.
      if (!news.has(id) || (await attempt(`${list.name} ${id}`, () => list.take(client, item)))) continue
      position = { ...position, failed: true }
    }
    result.seen += items.length
    result.applied += news.size
    const oldest = listed.at(-1)
    const isThrough =
      oldest === undefined || page >= pagination.max_page || Date.parse(oldest.created_at) < Date.parse(since)
    if (isThrough) {
      await keepPosition(list, {
        page: 1,
        since: position.failed ? since : nextSince(list, position.beganAt),
        beganAt: '',
      })
      return
    }
    position = { ...position, page: page + 1 }
    await keepPosition(list, position)
    if (Date.now() < deadlineMs) continue
    result.complete = false
    return
  }
}

/** The first pass sees everything; later ones what may have changed since the last one began. */
function nextSince({ days }: List, beganAt: string): string {
  if (days === undefined) return FIRST_DAY
  return new Date(Math.min(Date.now() - days * DAY_MS, Date.parse(beganAt) - HOUR_MS)).toISOString()
}

async function positionOf({ name }: List): Promise<v.InferOutput<typeof Position>> {
  const row = await db().selectFrom('billing_cursors').select('position').where('name', '=', name).executeTakeFirst()
  const position = row ? v.parse(Position, row.position) : { page: 1, since: FIRST_DAY, beganAt: '' }
  return { ...position, beganAt: position.beganAt || new Date().toISOString() }
}

async function keepPosition({ name }: List, position: v.InferOutput<typeof Position>): Promise<void> {
  const row = { position: JSON.stringify(position), updated_at: sql<Date>`now()` }
  await db()
    .insertInto('billing_cursors')
    .values({ name, ...row })
    .onConflict((conflict) => conflict.column('name').doUpdateSet(row))
    .execute()
}

/** The ids whose listed state is newer than ours, or whose order waits to be told what it sells or whose it is. */
async function changed(table: List['table'], listed: v.InferOutput<typeof Listed>[]): Promise<Set<string>> {
  const versions = JSON.stringify(listed.map((object) => ({ id: object.id, version: versionOf(object) })))
  const waits = table === 'billing_orders' ? sql`or known.problem is not null` : sql``
  const { rows } = await sql<{ id: string }>`
    select listed.id from jsonb_to_recordset(${versions}::jsonb) as listed (id text, version timestamptz)
      left join ${sql.table(table)} known on known.id = listed.id
      where known.id is null or known.modified_at < listed.version ${waits}
  `.execute(db())
  return new Set(rows.map(({ id }) => id))
}

/** Looks up one by one what should have changed by now: plans past their date, unpaid orders, and what only half is known of. */
async function lookUpDue(client: Polar): Promise<void> {
  const { rows: subscriptions } = await sql<{ id: string }>`
    select id from billing_subscriptions where entitled_until is not null and period_end < now()
    union
    select o.subscription_id from billing_orders o
      where o.subscription_id is not null and not exists (select 1 from billing_subscriptions s where s.id = o.subscription_id)
    limit ${SINGLES_MAX}
  `.execute(db())
  for (const { id } of subscriptions) {
    const subscription = await unlessRefused(404, () => client.subscriptions.get(id))
    if (subscription) await takeOver({ subscriptions: [v.parse(PolarSubscription, subscription)] })
  }
  const { rows: orders } = await sql<{ id: string }>`
    (select id from billing_orders where status = 'pending' order by ordered_at desc limit ${SINGLES_MAX})
    union
    (select o.id from billing_disputes d join billing_orders o on o.id = d.order_id
      where d.status = 'lost' and o.paid and not o.dispute_lost limit ${SINGLES_MAX})
    union
    (select o.id from billing_orders o join (
        select order_id, coalesce(sum(amount_cents) filter (where status = 'succeeded'), 0) as refunded_cents,
            max(modified_at) as modified_at
          from billing_refunds group by order_id
      ) r on r.order_id = o.id
      where o.refunded_cents <> r.refunded_cents order by r.modified_at desc limit ${SINGLES_MAX})
  `.execute(db())
  await takeOver({
    orders: await ordersNamed(
      client,
      orders.map(({ id }) => id),
    ),
  })
}

async function ordersNamed(client: Polar, ids: string[]): Promise<PolarOrder[]> {
  const orders: PolarOrder[] = []
  for (const id of ids) {
    const order = await unlessRefused(404, () => client.orders.get(id))
    if (order) orders.push(v.parse(PolarOrder, order))
  }
  return orders
}

/** Whether Polar still sends: it switches an endpoint off after ten events in a row that failed for good. */
async function endpointState(client: Polar): Promise<Reconciliation['webhookEndpoint']> {
  const ours = await ownEndpoints(client)
  if (ours.length === 0) return 'missing'
  return ours.some(({ enabled }) => enabled) ? 'ok' : 'disabled'
}
