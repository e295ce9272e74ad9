// Subscriptions: renewals, changes of plan, cancellations, unpaid periods; the events follow from what changed.
import type { models } from '@polar-sh/sdk/2026-10'
import { announceCustomerState, type Books, found, touchSubscription } from './books.ts'
import { announceUnpaidOrder, missPayment, openOrder, payOrder, voidOrder } from './orders.ts'
import { alreadyCanceled, refuse, unusable } from './refusals.ts'
import { buildPendingUpdate, buildSubscription, type Line } from './sale-objects.ts'
import { addInterval } from './timestamps.ts'

const BILLABLE: models.SubscriptionStatus[] = ['active', 'trialing', 'past_due']

export function isBillable({ status }: models.Subscription): boolean {
  return BILLABLE.includes(status)
}

/** Starts the subscription that a checkout sold; its first order is the checkout's affair. */
export function subscribe(books: Books, given: Parameters<typeof buildSubscription>[1]): models.Subscription {
  const subscription = buildSubscription(books.at(), given)
  books.subscriptions.set(subscription.id, subscription)
  books.announce({ type: 'subscription.created', data: subscription })
  books.announce({ type: 'subscription.updated', data: subscription })
  books.announce({ type: 'subscription.active', data: subscription })
  return subscription
}

/** Changes a subscription and announces what the change amounts to. */
function change(books: Books, subscription: models.Subscription, changes: Partial<models.Subscription>): void {
  const { status, canceled_at } = subscription
  Object.assign(subscription, changes)
  touchSubscription(books, subscription)
  announceChange(books, subscription, { status, canceled_at })
}

function announceChange(
  books: Books,
  subscription: models.Subscription,
  before: Pick<models.Subscription, 'status' | 'canceled_at'>,
): void {
  const data = subscription
  const became = (status: models.SubscriptionStatus) => subscription.status === status && before.status !== status
  books.announce({ type: 'subscription.updated', data })
  if (became('active')) books.announce({ type: 'subscription.active', data })
  if (before.canceled_at && !subscription.canceled_at) books.announce({ type: 'subscription.uncanceled', data })
  if (became('past_due')) books.announce({ type: 'subscription.past_due', data })
  if (!before.canceled_at && subscription.canceled_at) books.announce({ type: 'subscription.canceled', data })
  if (became('canceled')) books.announce({ type: 'subscription.revoked', data })
  announceCustomerState(books, subscription.customer_id)
}

export function cancelAtPeriodEnd(books: Books, subscription: models.Subscription): void {
  if (!isBillable(subscription) || subscription.cancel_at_period_end) throw alreadyCanceled()
  const ends_at = subscription.current_period_end
  change(books, subscription, { cancel_at_period_end: true, canceled_at: books.at(), ends_at })
}

export function uncancel(books: Books, subscription: models.Subscription): void {
  if (subscription.ended_at) throw refuse(410, 'ResourceUnavailable', 'This subscription has ended.')
  if (!subscription.cancel_at_period_end) {
    throw refuse(409, 'SubscriptionNotScheduledToCancel', 'This subscription is not scheduled to be canceled.')
  }
  change(books, subscription, { cancel_at_period_end: false, canceled_at: null, ends_at: null })
}

/** Ends a subscription now; what it still owes is given up. */
export function revoke(books: Books, subscription: models.Subscription): void {
  if (!isBillable(subscription)) throw alreadyCanceled()
  const at = books.at()
  const canceled_at = subscription.canceled_at ?? at
  change(books, subscription, { status: 'canceled', canceled_at, ends_at: at, ended_at: at })
  for (const order of unpaidOrders(books, subscription)) voidOrder(books, order)
}

/**
 * The end of the running period: a canceled subscription ends, any other is charged for the next period. Returns the
 * order of that period; an unpaid one leaves the subscription past due until `recover`.
 */
export function renew(
  books: Books,
  subscription: models.Subscription,
  charge: 'ok' | 'fail',
): models.Order | undefined {
  if (subscription.cancel_at_period_end) {
    change(books, subscription, { status: 'canceled', ended_at: books.at() })
    return undefined
  }
  if (subscription.status !== 'active') throw refuse(403, 'InactiveSubscription', 'This subscription is not active.')
  const { pending_update } = subscription
  if (pending_update?.product_id) applyProduct(subscription, recurringProduct(books, pending_update.product_id))
  const { recurring_interval, recurring_interval_count, current_period_end } = subscription
  subscription.current_period_start = current_period_end
  subscription.current_period_end = addInterval(current_period_end, recurring_interval, recurring_interval_count)
  touchSubscription(books, subscription)
  books.announce({ type: 'subscription.cycled', data: subscription })
  books.announce({ type: 'subscription.updated', data: subscription })
  const lines = [...(books.openLines.get(subscription.id) ?? []), fullPrice(subscription, false)]
  books.openLines.delete(subscription.id)
  const order = openSubscriptionOrder(books, subscription, 'subscription_cycle', lines)
  announceUnpaidOrder(books, order)
  if (charge === 'ok') payOrder(books, order)
  else if (!order.paid) {
    missPayment(books, order)
    change(books, subscription, { status: 'past_due', past_due_at: books.at() })
    return order
  }
  announceCustomerState(books, subscription.customer_id)
  return order
}

/** A later charge for an unpaid period goes through. Returns the orders that are paid by it. */
export function recover(books: Books, subscription: models.Subscription): models.Order[] {
  const orders = unpaidOrders(books, subscription)
  if (subscription.status === 'past_due') change(books, subscription, { status: 'active', past_due_at: null })
  for (const order of orders) payOrder(books, order)
  return orders
}

/**
 * Moves a subscription to another product. `invoice` and `reset` charge at once, and change nothing when the charge is
 * declined; `prorate` leaves the difference to the next order, `next_period` the whole change.
 */
export function changeProduct(
  books: Books,
  subscription: models.Subscription,
  productId: string,
  behavior: models.SubscriptionProrationBehavior,
): void {
  if (!isBillable(subscription) || subscription.cancel_at_period_end) throw alreadyCanceled()
  const product = recurringProduct(books, productId)
  if (behavior === 'next_period') {
    const pending = buildPendingUpdate(books.at(), subscription.current_period_end, product.id)
    change(books, subscription, { pending_update: pending })
    return
  }
  const changed = { ...subscription }
  const credit = unusedTime(books, subscription, -1)
  applyProduct(changed, product)
  if (behavior === 'reset') {
    changed.current_period_start = books.at()
    const { recurring_interval, recurring_interval_count } = changed
    changed.current_period_end = addInterval(books.at(), recurring_interval, recurring_interval_count)
  }
  const lines = behavior === 'reset' ? [fullPrice(changed, true)] : [credit, unusedTime(books, changed, 1)]
  if (behavior === 'prorate') {
    books.openLines.set(subscription.id, [...(books.openLines.get(subscription.id) ?? []), ...lines])
  } else {
    chargeNow(books, changed, lines)
  }
  change(books, subscription, changed)
}

export function changeMetadata(
  books: Books,
  subscription: models.Subscription,
  metadata: models.Subscription['metadata'],
): void {
  change(books, subscription, { metadata })
}

export function clearPendingUpdate(books: Books, subscription: models.Subscription): void {
  if (!subscription.pending_update) {
    throw unusable('pending_update', 'This subscription has no pending update to clear.', null)
  }
  change(books, subscription, { pending_update: null })
}

function chargeNow(books: Books, subscription: models.Subscription, lines: Line[]): void {
  const { conduct } = books
  const order = openSubscriptionOrder(books, subscription, 'subscription_update', lines)
  if (order.due_amount > 0 && conduct.declinedCharges > 0) {
    conduct.declinedCharges -= 1
    books.orders.delete(order.id)
    throw refuse(402, 'PaymentFailed', 'Your card was declined.')
  }
  announceUnpaidOrder(books, order)
  payOrder(books, order)
}

function openSubscriptionOrder(
  books: Books,
  subscription: models.Subscription,
  billingReason: models.OrderBillingReason,
  lines: Line[],
): models.Order {
  const { customer, product, metadata } = subscription
  return openOrder(books, { customer, product, subscription, billingReason, lines, metadata })
}

function unpaidOrders(books: Books, { id }: models.Subscription): models.Order[] {
  return [...books.orders.values()].filter((order) => order.subscription_id === id && order.status === 'pending')
}

function recurringProduct(books: Books, productId: string): models.Product {
  const product = found(books.products, productId, () => unusable('product_id', 'Product does not exist.', productId))
  if (product.is_archived) throw unusable('product_id', 'Product is archived.', productId)
  if (!product.is_recurring) throw unusable('product_id', 'Product is not recurring.', productId)
  if (product.prices[0]?.amount_type !== 'fixed') {
    throw unusable('product_id', "Can't update to a product with custom prices.", productId)
  }
  return product
}

function applyProduct(subscription: models.Subscription, product: models.Product): void {
  const [price] = product.prices
  subscription.product = product
  subscription.product_id = product.id
  subscription.prices = product.prices
  subscription.amount = price?.amount_type === 'fixed' ? price.price_amount : 0
  subscription.recurring_interval = product.recurring_interval ?? 'month'
  subscription.recurring_interval_count = product.recurring_interval_count ?? 1
  subscription.pending_update = null
}

function fullPrice(subscription: models.Subscription, proration: boolean): Line {
  const { product, prices, amount, current_period_start, current_period_end } = subscription
  return {
    label: product.name,
    amount,
    proration,
    product_price_id: prices[0]?.id ?? null,
    start_timestamp: current_period_start,
    end_timestamp: current_period_end,
  }
}

/** The price of what is left of the period: a credit with -1, a charge with 1. */
function unusedTime(books: Books, subscription: models.Subscription, sign: 1 | -1): Line {
  const { product, prices, amount, current_period_start, current_period_end } = subscription
  const endMs = Date.parse(current_period_end)
  const left = Math.max(0, endMs - books.now()) / (endMs - Date.parse(current_period_start))
  return {
    label: sign < 0 ? `Unused time on ${product.name}` : `Remaining time on ${product.name}`,
    amount: sign * Math.round(amount * Math.min(1, left)) || 0,
    proration: true,
    product_price_id: prices[0]?.id ?? null,
    start_timestamp: books.at(),
    end_timestamp: current_period_end,
  }
}
