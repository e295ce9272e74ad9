// Orders: how they are opened, paid, left unpaid and invoiced, and what each step announces.
import type { models } from '@polar-sh/sdk/2026-10'
import { type Books, touch } from './books.ts'
import { refuse } from './refusals.ts'
import { buildOrder, type Line } from './sale-objects.ts'

const RETRY_DAYS = 2
const DAY_MS = 86_400_000

/** How often an invoice is asked for before it is ready: Polar makes it in the background. */
const INVOICE_POLLS = 2

export interface Sale {
  customer: models.Order['customer']
  product: models.Product
  subscription?: models.Subscription
  checkout?: models.Checkout
  billingReason: models.OrderBillingReason
  lines: Line[]
  discount?: { amount: number; discount: NonNullable<models.Order['discount']> } | undefined
  metadata: models.Order['metadata']
}

/** Puts a sale on an unpaid order. Nobody hears of it yet. */
export function openOrder(books: Books, sale: Sale): models.Order {
  const order = buildOrder(books.at(), {
    customer: sale.customer,
    soldProduct: sale.product,
    ...(sale.subscription && { soldSubscription: sale.subscription }),
    lines: sale.lines,
    creditCents: books.creditCents.get(sale.customer.id) ?? 0,
    billing_reason: sale.billingReason,
    invoice_number: `LOOPBACK-${String(books.orders.size + 1).padStart(4, '0')}`,
    description: sale.product.name,
    metadata: sale.metadata,
    checkout_id: sale.checkout?.id ?? null,
    currency: sale.checkout?.currency ?? sale.subscription?.currency ?? 'usd',
    ...(sale.discount && { discount_amount: sale.discount.amount, discount: sale.discount.discount }),
  })
  books.orders.set(order.id, order)
  return order
}

/** Announces an order that is paid from the start, as those of a checkout are. */
export function announcePaidOrder(books: Books, order: models.Order): void {
  settle(books, order)
  books.announce({ type: 'order.created', data: order })
  announcePayment(books, order)
}

/** Announces an order that is still to be charged. One with nothing due is paid from the start. */
export function announceUnpaidOrder(books: Books, order: models.Order): void {
  if (order.due_amount === 0) settle(books, order)
  books.announce({ type: 'order.created', data: order })
  if (order.paid) announcePayment(books, order)
}

/** A charge that went through, at the first attempt or a later one. */
export function payOrder(books: Books, order: models.Order): void {
  if (order.paid) return
  settle(books, order)
  touch(books, order)
  announcePayment(books, order)
}

/** A charge that did not go through: Polar tries again in two days. */
export function missPayment(books: Books, order: models.Order): void {
  order.next_payment_attempt_at = new Date(books.now() + RETRY_DAYS * DAY_MS).toISOString()
  touch(books, order)
  books.announce({ type: 'order.updated', data: order })
}

export function voidOrder(books: Books, order: models.Order): void {
  Object.assign(order, { status: 'void', next_payment_attempt_at: null } satisfies Partial<models.Order>)
  touch(books, order)
  books.announce({ type: 'order.updated', data: order })
}

function settle(books: Books, order: models.Order): void {
  const { customer_id, total_amount, applied_balance_amount } = order
  const credit = books.creditCents.get(customer_id) ?? 0
  books.creditCents.set(customer_id, credit + applied_balance_amount + Math.max(0, -total_amount))
  order.status = 'paid'
  order.paid = true
  order.due_amount = 0
  order.next_payment_attempt_at = null
}

function announcePayment(books: Books, order: models.Order): void {
  books.announce({ type: 'order.updated', data: order })
  books.announce({ type: 'order.paid', data: order })
}

export function updateOrder(
  books: Books,
  order: models.Order,
  changes: Partial<Pick<models.Order, 'billing_name' | 'billing_address'>>,
): models.Order {
  Object.assign(order, changes)
  touch(books, order)
  books.announce({ type: 'order.updated', data: order })
  return order
}

/** Invoices by order: how many more times each answers that it is not there yet. */
const invoicePolls = new WeakMap<models.Order, number>()

export function requestInvoice(order: models.Order): void {
  if (order.status === 'draft' || order.status === 'void') {
    throw refuse(409, 'OrderNotEligibleForInvoice', `Order ${order.id} is ${order.status}.`)
  }
  if (!order.billing_name || !order.billing_address) {
    const detail = 'Billing name and address are required to generate an invoice for this order.'
    throw refuse(422, 'MissingInvoiceBillingDetails', detail)
  }
  if (!invoicePolls.has(order)) invoicePolls.set(order, INVOICE_POLLS)
}

/** Throws InvoiceDoesNotExist until the invoice was asked for a few times. */
export function requireInvoice(books: Books, order: models.Order): void {
  const polls = invoicePolls.get(order)
  if (polls) invoicePolls.set(order, polls - 1)
  if (polls !== 0) throw refuse(404, 'InvoiceDoesNotExist', `No invoice exists for order ${order.id}.`)
  if (order.is_invoice_generated) return
  order.is_invoice_generated = true
  touch(books, order)
  books.announce({ type: 'order.updated', data: order })
}
