// Money that goes back: refunds, which may settle late or fail after all, and disputes, which have no events.
import type { models } from '@polar-sh/sdk/2026-10'
import { type Books, touch } from './books.ts'
import { refuse, unusable } from './refusals.ts'
import { buildDispute, buildRefund, refundDispute } from './sale-objects.ts'
import { isBillable, revoke } from './subscriptions.ts'

export interface RefundRequest {
  orderId: string
  /** Net; the tax on it is added. Everything that is left when missing. */
  amountCents?: number
  reason?: models.RefundReason
  revokeBenefits?: boolean
  metadata?: models.Refund['metadata']
  status?: 'succeeded' | 'pending'
  dispute?: models.Dispute
}

export function refund(books: Books, request: RefundRequest): models.Refund {
  const { orderId, reason = 'customer_request', revokeBenefits = false, dispute } = request
  const order = books.orders.get(orderId)
  if (!order) throw unusable('order_id', 'Order not found', orderId)
  const amount = request.amountCents ?? order.refundable_amount
  if (order.status === 'refunded') throw refuse(403, 'RefundedAlready', `Order is already fully refunded: ${orderId}`)
  if (revokeBenefits && order.subscription_id && !dispute) {
    const detail = 'Subscription benefits can only be revoked upon cancellation'
    throw refuse(400, 'RevokeSubscriptionBenefitsProhibited', detail)
  }
  if (!order.paid) throw refuse(404, 'RefundUnknownPayment', `Refund issued for unknown order: ${orderId}`)
  if (amount > order.refundable_amount) {
    const detail = `Refund amount exceeds remaining order balance: ${order.refundable_amount}`
    throw refuse(400, 'RefundAmountTooHigh', detail)
  }
  const created = buildRefund(books.at(), {
    order_id: order.id,
    customer_id: order.customer_id,
    subscription_id: order.subscription_id,
    amount,
    tax_amount: refundedTax(order, amount),
    currency: order.currency,
    reason,
    status: request.status ?? 'succeeded',
    revoke_benefits: revokeBenefits,
    metadata: request.metadata ?? {},
    dispute: dispute ? refundDispute(dispute) : null,
  })
  books.refunds.set(created.id, created)
  books.announce({ type: 'refund.created', data: created })
  if (created.status === 'succeeded') apply(books, order, created)
  return created
}

/** The bank's last word on a refund; one that had succeeded can still fail. */
export function settleRefund(books: Books, settled: models.Refund, status: 'succeeded' | 'failed' | 'canceled'): void {
  const { status: before } = settled
  if (before === status) return
  settled.status = status
  touch(books, settled)
  books.announce({ type: 'refund.updated', data: settled })
  const order = books.orders.get(settled.order_id)
  if (!order) return
  if (status === 'succeeded') apply(books, order, settled)
  else if (before === 'succeeded') takeBack(books, order, settled)
}

function apply(books: Books, order: models.Order, { amount, tax_amount }: models.Refund): void {
  setRefunded(books, order, order.refunded_amount + amount, order.refunded_tax_amount + tax_amount)
  books.announce({ type: 'order.updated', data: order })
  books.announce({ type: 'order.refunded', data: order })
}

/** Nothing but order.updated tells of it. */
function takeBack(books: Books, order: models.Order, { amount, tax_amount }: models.Refund): void {
  setRefunded(books, order, order.refunded_amount - amount, order.refunded_tax_amount - tax_amount)
  books.announce({ type: 'order.updated', data: order })
}

function setRefunded(books: Books, order: models.Order, amount: number, taxAmount: number): void {
  order.refunded_amount = amount
  order.refunded_tax_amount = taxAmount
  order.refundable_amount = order.net_amount - amount
  order.refundable_tax_amount = order.tax_amount - taxAmount
  order.status = amount === 0 ? 'paid' : order.refundable_amount <= 0 ? 'refunded' : 'partially_refunded'
  touch(books, order)
}

function refundedTax(order: models.Order, amount: number): number {
  if (amount === order.refundable_amount) return order.refundable_tax_amount
  return Math.round((amount * order.tax_amount) / order.net_amount)
}

/**
 * Opens a dispute about an order or moves the open one on. `prevented` refunds everything; `lost` leaves the order as
 * it is and says nothing of it; both end the order's subscription.
 */
export function dispute(books: Books, order: models.Order, status: models.DisputeStatus): models.Dispute {
  const open = [...books.disputes.values()].find(({ order_id, closed }) => order_id === order.id && !closed)
  const moved = buildDispute(books.at(), order, status)
  const { resolved, closed } = moved
  const disputed = open ? Object.assign(open, { status, resolved, closed }) : moved
  if (open) touch(books, open)
  books.disputes.set(disputed.id, disputed)
  if (status === 'prevented' && order.status !== 'refunded') {
    refund(books, { orderId: order.id, reason: 'dispute_prevention', revokeBenefits: true, dispute: disputed })
  }
  const subscription = order.subscription_id ? books.subscriptions.get(order.subscription_id) : undefined
  if (subscription && isBillable(subscription) && (status === 'prevented' || status === 'lost')) {
    revoke(books, subscription)
  }
  return disputed
}
