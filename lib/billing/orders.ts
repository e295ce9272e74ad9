// Polar's orders, refunds and disputes as they are now, and the tokens that follow from them.
import { sql, type Transaction } from 'kysely'
import type { Database, OrderProblem } from '../../db/schema.ts'
import { config } from '../config.ts'
import { grant, refreshPlan, takeBack } from '../ledger/ledger.ts'
import { ownerOf } from './owner.ts'
import { type PolarDispute, type PolarOrder, type PolarRefund, versionOf } from './polar-objects.ts'
import { saleOf, takeBackTarget, tokensFor, worthCents } from './products.ts'
import { applySubscription } from './subscriptions.ts'

/**
 * Takes over an order's state unless a newer one is known: grants what it paid for once, and takes back what was refunded. Safe
 * to repeat, and in any order with other states of it. Locks the order, then its subscription, then the account.
 */
export async function applyOrder(trx: Transaction<Database>, order: PolarOrder): Promise<void> {
  await storeOrder(trx, order)
  const { subscription, customer, product } = order
  // After a change of plan the order names the product of before: what the subscription's own is, it does not say.
  if (subscription && subscription.product_id === order.product_id) {
    await applySubscription(trx, { ...subscription, customer, product })
  }
  await settleOrder(trx, order.id)
}

/**
 * Gives a waiting order to a user; `tokens` says what it is worth where that is not known. False when it does not wait, or waits
 * for somebody else.
 */
export async function assignOrder(
  trx: Transaction<Database>,
  { orderId, userId, tokens }: { orderId: string; userId: string; tokens: number | undefined },
): Promise<boolean> {
  const order = await trx
    .updateTable('billing_orders')
    .set({ user_id: userId, ...(tokens !== undefined && { tokens_worth: tokens, problem: null }) })
    .where('id', '=', orderId)
    .where('problem', 'is not', null)
    .where((eb) => eb.or([eb('user_id', 'is', null), eb('user_id', '=', userId)]))
    .returning('subscription_id')
    .executeTakeFirst()
  if (!order) return false
  if (order.subscription_id !== null) {
    await trx
      .updateTable('billing_subscriptions')
      .set({ user_id: userId })
      .where('id', '=', order.subscription_id)
      .where('user_id', 'is', null)
      .execute()
  }
  await settleOrder(trx, orderId, { byAdmin: tokens !== undefined })
  return true
}

/** Notes a refund. What it does to the balance follows from its order, which Polar updates with it. */
export async function applyRefund(trx: Transaction<Database>, refund: PolarRefund): Promise<void> {
  const row = {
    order_id: refund.order_id,
    status: refund.status,
    reason: refund.reason.slice(0, 60),
    amount_cents: refund.amount,
    currency: refund.currency,
    refunded_at: refund.created_at,
    modified_at: versionOf(refund),
  }
  await trx
    .insertInto('billing_refunds')
    .values({ id: refund.id, ...row })
    .onConflict((conflict) =>
      conflict.column('id').doUpdateSet(row).where(sql<boolean>`excluded.modified_at >= billing_refunds.modified_at`),
    )
    .execute()
}

/** Notes a dispute and what it does to its order: a lost one takes back everything, as the bank did. */
export async function applyDispute(trx: Transaction<Database>, dispute: PolarDispute): Promise<void> {
  const row = {
    order_id: dispute.order_id,
    status: dispute.status,
    amount_cents: dispute.amount,
    disputed_at: dispute.created_at,
    modified_at: versionOf(dispute),
  }
  await trx
    .insertInto('billing_disputes')
    .values({ id: dispute.id, ...row })
    .onConflict((conflict) =>
      conflict.column('id').doUpdateSet(row).where(sql<boolean>`excluded.modified_at >= billing_disputes.modified_at`),
    )
    .execute()
  await settleOrder(trx, dispute.order_id)
}

async function storeOrder(trx: Transaction<Database>, order: PolarOrder): Promise<void> {
  const sale = saleOf(config(), order)
  const userId = (await ownerOf(trx, order)) ?? null
  const constant = {
    description: (order.description || order.product?.name || '').slice(0, 200),
    currency: order.currency,
    customer_id: order.customer_id,
    product_id: order.product_id ?? null,
    checkout_id: order.checkout_id ?? null,
    subscription_id: order.subscription_id ?? null,
    ordered_at: order.created_at,
  }
  const state = {
    kind: sale?.kind ?? null,
    plan: sale?.kind === 'plan' ? sale.plan : null,
    starts_period: sale?.kind === 'plan' && sale.startsPeriod,
    status: order.status,
    net_cents: order.net_amount,
    tax_cents: order.tax_amount,
    refunded_cents: order.refunded_amount,
    tokens_worth: sale ? tokensFor(config(), sale, worthCents(sale, order)) : null,
    fee_cents: order.platform_fee_amount,
    invoice_number: order.invoice_number?.slice(0, 100) ?? null,
    modified_at: versionOf(order),
  }
  await trx
    .insertInto('billing_orders')
    .values({ id: order.id, user_id: userId, paid: order.paid, ...constant, ...state })
    .onConflict((conflict) => conflict.column('id').doUpdateSet(state).where(isNewer))
    .execute()
  // A payment once made stays made, and an owner once known stays known, whichever state brought it.
  await trx
    .updateTable('billing_orders')
    .set({
      paid: sql<boolean>`paid or ${order.paid}`,
      user_id: sql<string | null>`coalesce(user_id, ${userId}::uuid,
        (select s.user_id from billing_subscriptions s where s.id = billing_orders.subscription_id))`,
    })
    .where('id', '=', order.id)
    .execute()
}

/** Of two states of the same microsecond the one with more refunded is the newer, so that their order does not matter. */
const isNewer = sql<boolean>`(excluded.modified_at, excluded.refunded_cents) >=
  (billing_orders.modified_at, billing_orders.refunded_cents)`

/** Brings the ledger to what the stored order says. With `byAdmin` an admin has said what it is worth. */
async function settleOrder(
  trx: Transaction<Database>,
  orderId: string,
  { byAdmin = false }: { byAdmin?: boolean } = {},
): Promise<void> {
  const order = await lockOrder(trx, orderId)
  if (!order?.paid) return
  const source = `polar:order:${orderId}`
  let tokensGranted = order.tokens_granted
  if (order.granted_at === null) {
    const problem = (byAdmin ? undefined : problemOf(order)) ?? null
    if (problem !== order.problem) {
      await trx.updateTable('billing_orders').set({ problem }).where('id', '=', orderId).execute()
    }
    if (problem || order.user_id === null) return
    tokensGranted = order.tokens_worth ?? 0
    const { user_id: userId, kind } = order
    if (tokensGranted > 0 && kind === 'plan') {
      await grant(trx, { userId, kind: 'plan', tokens: tokensGranted, source, expiresAt: order.month_later })
    } else if (tokensGranted > 0) {
      await grant(trx, { userId, kind: 'pack', tokens: tokensGranted, source })
    }
    await trx
      .updateTable('billing_orders')
      .set({ tokens_granted: tokensGranted, granted_at: sql<Date>`now()` })
      .where('id', '=', orderId)
      .execute()
    if (kind === 'plan') await refreshPlan(trx, userId)
  }
  const { net_cents: netCents, refunded_cents: refundedCents, lost: disputeLost } = order
  const target = takeBackTarget({ tokensGranted, netCents, refundedCents, disputeLost })
  if (target === order.tokens_taken_back && disputeLost === order.dispute_lost) return
  await takeBack(trx, { source, tokens: target })
  await trx
    .updateTable('billing_orders')
    .set({ tokens_taken_back: target, dispute_lost: disputeLost })
    .where('id', '=', orderId)
    .execute()
}

async function lockOrder(trx: Transaction<Database>, orderId: string) {
  return await trx
    .selectFrom('billing_orders')
    .selectAll()
    .select([
      sql<Date>`(ordered_at at time zone 'utc' + interval '1 month') at time zone 'utc'`.as('month_later'),
      sql<boolean>`exists (select 1 from billing_disputes d where d.order_id = billing_orders.id and d.status = 'lost')`.as(
        'lost',
      ),
    ])
    .where('id', '=', orderId)
    .forUpdate()
    .executeTakeFirst()
}

/** Why a paid order cannot be granted as it is. A plan's period is worth its allowance in any currency. */
function problemOf(order: {
  user_id: string | null
  tokens_worth: number | null
  currency: string
  kind: 'tokens' | 'plan' | null
  starts_period: boolean
}): OrderProblem | undefined {
  if (order.tokens_worth === null) return 'product'
  if (order.currency !== config().payments.currency && !(order.kind === 'plan' && order.starts_period))
    return 'currency'
  return order.user_id === null ? 'no_user' : undefined
}
