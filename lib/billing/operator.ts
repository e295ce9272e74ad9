// The orders as an operator sees them, and who one that waits belongs to.
import { type Kysely, sql, type Transaction } from 'kysely'
import * as v from 'valibot'
import type { Database } from '../../db/schema.ts'
import { type Actor, recordAudit } from '../audit.ts'
import { invalidField } from '../http/body.ts'
import { AppError } from '../http/errors.ts'
import { Cursor, isAfter, microsOf, type Page, PageLimit, pageOf, positionOf } from '../paging.ts'
import { assignOrder } from './orders.ts'

export const OrdersQuery = v.strictObject({
  status: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(40))),
  problem: v.optional(
    v.pipe(
      v.picklist(['true', 'false']),
      v.transform((value) => value === 'true'),
    ),
  ),
  user: v.optional(v.pipe(v.string(), v.uuid('Not the id of a user.'))),
  limit: PageLimit,
  cursor: v.optional(Cursor),
})

/** Every order that is known, the newest first. `problem: true` gives those that wait for an admin. */
export async function listOrders(
  db: Kysely<Database>,
  { status, problem, user, limit, cursor }: v.InferOutput<typeof OrdersQuery>,
): Promise<Page<OperatorOrder>> {
  let orders = ordersWithOwner(db)
    .select(microsOf(sql.ref('ordered_at')).as('micros'))
    .orderBy('ordered_at', 'desc')
    .orderBy('billing_orders.id', 'desc')
    .limit(limit + 1)
  if (status !== undefined) orders = orders.where('billing_orders.status', '=', status)
  if (problem !== undefined) orders = orders.where('problem', problem ? 'is not' : 'is', null)
  if (user !== undefined) orders = orders.where('user_id', '=', user)
  if (cursor) orders = orders.where(isAfter(cursor, sql.ref('ordered_at'), sql.ref('billing_orders.id')))
  return pageOf(await orders.execute(), limit, { position: positionOf, show: showOrder })
}

export interface Assignment {
  orderId: string
  userId: string
  /** What the order is worth where that is not known; may be 0. */
  tokens: number | undefined
  /** The request's idempotency claim: an assignment that was made under it is answered again. */
  claimId: string | undefined
  by: Actor
}

/**
 * Gives a waiting order to a user; its tokens are granted at once. Throws NOT_FOUND, VALIDATION_FAILED, or CONFLICT when it does
 * not wait, or waits for somebody else.
 */
export async function assignWaitingOrder(
  trx: Transaction<Database>,
  { orderId, userId, tokens, claimId, by }: Assignment,
): Promise<OperatorOrder> {
  const order = await trx
    .selectFrom('billing_orders')
    .select(['user_id', 'problem'])
    .where('id', '=', orderId)
    .forUpdate()
    .executeTakeFirst()
  if (!order) throw new AppError('NOT_FOUND', 'There is no such order.')
  if (claimId === undefined || !(await wasAssigned(trx, orderId, claimId))) {
    await requireAssignable(trx, order, { userId, tokens })
    if (!(await assignOrder(trx, { orderId, userId, tokens }))) throw new Error(`Order ${orderId} was not assigned.`)
    await recordAudit(trx, {
      ...by,
      action: 'order.assign',
      target: { type: 'order', id: orderId.slice(0, 80) },
      before: { userId: order.user_id, problem: order.problem },
      after: { userId, problem: null },
      details: { orderId, userId, problem: order.problem, tokens, claimId },
    })
  }
  return showOrder(await ordersWithOwner(trx).where('billing_orders.id', '=', orderId).executeTakeFirstOrThrow())
}

async function requireAssignable(
  trx: Transaction<Database>,
  order: Pick<OrderRow, 'user_id' | 'problem'>,
  { userId, tokens }: Pick<Assignment, 'userId' | 'tokens'>,
): Promise<void> {
  if (order.problem === null) throw new AppError('CONFLICT', 'This order does not wait for anyone.')
  const user = await trx
    .selectFrom('users')
    .select('id')
    .where('id', '=', userId)
    .where('status', '<>', 'deleted')
    .executeTakeFirst()
  if (!user) throw invalidField('userId', 'There is no such user.')
  if (order.user_id !== null && order.user_id !== user.id) {
    throw new AppError('CONFLICT', "This order is another user's.")
  }
  if (order.problem !== 'no_user' && tokens === undefined) {
    throw invalidField('tokens', 'What this order is worth is not known: say how many tokens to grant.')
  }
}

/** Whether this very assignment was made, by a request that died before it answered. */
async function wasAssigned(trx: Transaction<Database>, orderId: string, claimId: string): Promise<boolean> {
  const record = await trx
    .selectFrom('audit_log')
    .select('id')
    .where('target_type', '=', 'order')
    .where('target_id', '=', orderId.slice(0, 80))
    .where('action', '=', 'order.assign')
    .where(sql`details ->> 'claimId'`, '=', claimId)
    .executeTakeFirst()
  return record !== undefined
}

function ordersWithOwner(db: Kysely<Database>) {
  return db
    .selectFrom('billing_orders')
    .leftJoin('users', 'users.id', 'billing_orders.user_id')
    .selectAll('billing_orders')
    .select('users.email')
}

type OrderRow = Awaited<ReturnType<ReturnType<typeof ordersWithOwner>['executeTakeFirstOrThrow']>>
export type OperatorOrder = ReturnType<typeof showOrder>

function showOrder(order: OrderRow) {
  return {
    id: order.id,
    userId: order.user_id,
    email: order.email,
    kind: order.kind,
    plan: order.plan,
    description: order.description,
    status: order.status,
    paid: order.paid,
    currency: order.currency,
    netCents: order.net_cents,
    taxCents: order.tax_cents,
    refundedCents: order.refunded_cents,
    feeCents: order.fee_cents,
    disputeLost: order.dispute_lost,
    problem: order.problem,
    tokensWorth: order.tokens_worth,
    tokensGranted: order.tokens_granted,
    tokensTakenBack: order.tokens_taken_back,
    customerId: order.customer_id,
    productId: order.product_id,
    checkoutId: order.checkout_id,
    subscriptionId: order.subscription_id,
    invoiceNumber: order.invoice_number,
    orderedAt: order.ordered_at,
    modifiedAt: order.modified_at,
    grantedAt: order.granted_at,
  }
}
