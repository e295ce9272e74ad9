// Polar's subscriptions as they are now, and the plan that follows from them.
import { sql, type Transaction } from 'kysely'
import type { Database } from '../../db/schema.ts'
import { config } from '../config.ts'
import { refreshPlan } from '../ledger/ledger.ts'
import { ownerOf } from './owner.ts'
import { type PolarSubscription, versionOf } from './polar-objects.ts'
import { PAID_PLANS, planOf } from './products.ts'

const DAY_MS = 86_400_000

/** How long a renewal may be late to be heard of, even where payments have no grace. */
const NEWS_DAYS = 1

/**
 * Takes over a subscription's state unless a newer one is known, and puts the plan in force that follows. Safe to repeat, and in
 * any order with other states and with its orders.
 */
export async function applySubscription(trx: Transaction<Database>, subscription: PolarSubscription): Promise<void> {
  const plan = planOf(config(), subscription)
  const row = {
    plan: plan ?? null,
    status: subscription.status,
    cancel_at_period_end: subscription.cancel_at_period_end,
    period_start: subscription.current_period_start,
    period_end: subscription.current_period_end,
    ends_at: subscription.ends_at ?? null,
    entitled_until: entitledUntil(subscription, config().payments.pastDueGraceDays),
    // An order's copy of its subscription does not say what is to come.
    ...(subscription.pending_update !== undefined && { pending_plan: pendingPlan(subscription) }),
    customer_id: subscription.customer_id,
    product_id: subscription.product_id,
    modified_at: versionOf(subscription),
  }
  const userId = (await ownerOf(trx, subscription)) ?? null
  const owner = sql<string | null>`coalesce(billing_subscriptions.user_id, ${userId}::uuid)`
  const newest = await trx
    .insertInto('billing_subscriptions')
    .values({ id: subscription.id, user_id: userId, ...row })
    .onConflict((conflict) =>
      conflict
        .column('id')
        .doUpdateSet({ ...row, user_id: owner })
        .where(isNewer),
    )
    .returning('user_id')
    .executeTakeFirst()
  const stored =
    newest ??
    (await trx
      .updateTable('billing_subscriptions')
      .set({ user_id: owner })
      .where('id', '=', subscription.id)
      .returning('user_id')
      .executeTakeFirstOrThrow())
  if (stored.user_id !== null) await refreshPlan(trx, stored.user_id)
}

/** Of two states of the same microsecond the one nearer to the end is the newer, so that their order does not matter. */
const isNewer = sql<boolean>`(excluded.modified_at, ${nearness('excluded')}) >=
  (billing_subscriptions.modified_at, ${nearness('billing_subscriptions')})`

function nearness(table: 'excluded' | 'billing_subscriptions') {
  const status = sql.ref(`${table}.status`)
  return sql`case ${status} when 'canceled' then 3 when 'unpaid' then 2 when 'past_due' then 1 else 0 end`
}

/** Until when a plan stands if nothing more is heard; null when it does not stand. */
export function entitledUntil(subscription: PolarSubscription, graceDays: number): Date | null {
  const { status, cancel_at_period_end, current_period_end, ends_at, past_due_at } = subscription
  switch (status) {
    case 'active':
    case 'trialing':
      if (cancel_at_period_end) return new Date(ends_at ?? current_period_end)
      return daysAfter(current_period_end, Math.max(graceDays, NEWS_DAYS))
    case 'past_due':
      return daysAfter(past_due_at ?? versionOf(subscription), graceDays)
    default: // canceled, unpaid, paused, incomplete, incomplete_expired, and whatever is new
      return null
  }
}

function daysAfter(time: string, days: number): Date {
  return new Date(Date.parse(time) + days * DAY_MS)
}

function pendingPlan({ pending_update }: PolarSubscription) {
  const { plans } = config()
  return (
    PAID_PLANS.find((name) => pending_update?.product_id && plans[name].polarProductId === pending_update.product_id) ??
    null
  )
}
