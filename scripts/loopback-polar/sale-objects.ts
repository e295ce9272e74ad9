// Builders of what a sale leaves behind: checkout, order, subscription, refund, dispute; typed by the SDK's own models.
import { randomUUID } from 'node:crypto'
import type { models } from '@polar-sh/sdk/2026-10'
import { type Customer, type Given, newObject, ORGANIZATION_ID, type Price } from './objects.ts'
import { addInterval } from './timestamps.ts'

/** Added on top of every net amount. */
export const TAX_PERCENT = 20

/** What Polar's smallest plan keeps of every payment. */
const FEE = { percent: 5, fixedCents: 50 }

/** How long a checkout can be paid. */
const CHECKOUT_DAYS = 1

/** What an order shows of a product. */
function orderProduct(product: models.Product): models.OrderProduct {
  const { prices, benefits, medias, is_deletable, attached_custom_fields, ...facts } = product
  return facts
}

function checkoutProduct(product: models.Product, prices: Price[] | undefined): models.CheckoutProduct {
  const { metadata, ...facts } = orderProduct(product)
  return { ...facts, prices: prices ?? product.prices, benefits: [], medias: [] }
}

export interface CheckoutDraft extends Given<models.Checkout, 'client_secret' | 'url' | 'success_url' | 'amount'> {
  soldProducts: models.Product[]
  soldProduct: models.Product
  price: Price
  /** Prices of this checkout alone, by product id; they stand in for the catalogue's. */
  adHocPrices: Record<string, Price[]>
}

export function buildCheckout(at: string, draft: CheckoutDraft): models.Checkout {
  const { soldProducts, soldProduct, price, adHocPrices, ...given } = draft
  const shown = soldProducts.map((product) => checkoutProduct(product, adHocPrices[product.id]))
  const isFree = price.amount_type === 'fixed' && price.price_amount === 0
  return {
    ...newObject(at),
    custom_field_data: {},
    payment_processor: 'stripe',
    status: 'open',
    expires_at: addInterval(at, 'day', CHECKOUT_DAYS),
    return_url: null,
    embed_origin: null,
    seats: null,
    min_seats: null,
    max_seats: null,
    units: null,
    min_units: null,
    max_units: null,
    discount_amount: 0,
    net_amount: given.amount,
    tax_amount: null,
    tax_behavior: 'exclusive',
    total_amount: given.amount,
    currency: price.price_currency,
    allow_trial: true,
    active_trial_interval: null,
    active_trial_interval_count: null,
    trial_end: null,
    organization_id: ORGANIZATION_ID,
    product_id: soldProduct.id,
    product_price_id: price.id,
    discount_id: null,
    allow_discount_codes: true,
    require_billing_address: false,
    is_discount_applicable: true,
    is_free_product_price: isFree,
    is_payment_required: !isFree,
    is_payment_setup_required: soldProduct.is_recurring,
    is_payment_form_required: !isFree || soldProduct.is_recurring,
    customer_id: null,
    is_business_customer: false,
    customer_name: null,
    customer_email: null,
    customer_ip_address: null,
    customer_billing_name: null,
    customer_billing_address: null,
    customer_tax_id: null,
    locale: 'en',
    payment_method_type: null,
    payment_processor_metadata: {},
    billing_address_fields: {
      country: 'required',
      state: 'disabled',
      city: 'disabled',
      postal_code: 'disabled',
      line1: 'disabled',
      line2: 'disabled',
    },
    trial_interval: null,
    trial_interval_count: null,
    metadata: {},
    external_customer_id: null,
    products: shown,
    product: checkoutProduct(soldProduct, adHocPrices[soldProduct.id]),
    product_price: price,
    prices: Object.fromEntries(shown.map(({ id, prices }) => [id, prices])),
    discount: null,
    subscription_id: null,
    attached_custom_fields: [],
    customer_metadata: {},
    ...given,
  }
}

/** What an order shows of its subscription. */
export function orderSubscription(subscription: models.Subscription): models.OrderSubscription {
  const { customer, product, discount, prices, meters, pending_update, custom_field_data, ...facts } = subscription
  return facts
}

export function buildSubscription(
  at: string,
  given: Given<models.Subscription, 'customer' | 'product' | 'amount' | 'currency' | 'prices'>,
): models.Subscription {
  const interval = given.product.recurring_interval ?? 'month'
  const count = given.product.recurring_interval_count ?? 1
  return {
    ...newObject(at),
    recurring_interval: interval,
    recurring_interval_count: count,
    status: 'active',
    current_period_start: at,
    current_period_end: addInterval(at, interval, count),
    current_meter_period_start: null,
    current_meter_period_end: null,
    trial_start: null,
    trial_end: null,
    cancel_at_period_end: false,
    canceled_at: null,
    started_at: at,
    ends_at: null,
    ended_at: null,
    past_due_at: null,
    pause_at_period_end: false,
    paused_at: null,
    resumes_at: null,
    customer_id: given.customer.id,
    product_id: given.product.id,
    discount_id: null,
    checkout_id: null,
    seats: null,
    units: null,
    customer_cancellation_reason: null,
    customer_cancellation_comment: null,
    metadata: {},
    custom_field_data: {},
    discount: null,
    meters: [],
    pending_update: null,
    ...given,
  }
}

export function buildCustomerState(
  customer: Customer,
  subscriptions: models.Subscription[],
): models.CustomerStateIndividual {
  const active = subscriptions.filter(({ status }) => status === 'active' || status === 'trialing')
  return {
    ...customer,
    active_subscriptions: active.map(stateSubscription),
    granted_benefits: [],
    active_meters: [],
  }
}

function stateSubscription(subscription: models.Subscription): models.CustomerStateSubscription {
  const { recurring_interval_count, status, past_due_at, ended_at, checkout_id, ...facts } =
    orderSubscription(subscription)
  return {
    ...facts,
    // The SDK types this field with the status of a benefit grant; Polar sends the subscription's own.
    status: status as string as models.CustomerStateSubscription['status'],
    seats: null,
    meters: [],
  }
}

export function buildPendingUpdate(at: string, appliesAt: string, productId: string): models.PendingSubscriptionUpdate {
  return { ...newObject(at), applies_at: appliesAt, product_id: productId, seats: null, units: null }
}

/** One line of an order before tax; a credit is negative. */
export type Line = Pick<models.OrderItemSchema, 'label' | 'amount' | 'proration' | 'product_price_id'> &
  Partial<models.OrderItemSchema>

interface OrderDraft extends Given<models.Order, 'customer' | 'billing_reason' | 'description' | 'invoice_number'> {
  lines: Line[]
  soldProduct: models.Product
  soldSubscription?: models.Subscription
  /** What earlier credits leave to this customer. */
  creditCents?: number
}

/** An order that waits for its payment; amounts follow from the lines, the discount and the credit. */
export function buildOrder(at: string, draft: OrderDraft): models.Order {
  const { lines, soldProduct, soldSubscription, creditCents = 0, ...given } = draft
  const subtotal = lines.reduce((sum, { amount }) => sum + amount, 0)
  const discount = given.discount_amount ?? 0
  const net = subtotal - discount
  const tax = taxOf(net)
  const total = net + tax
  const applied = total > 0 ? -Math.min(total, creditCents) : 0
  return {
    ...newObject(at),
    status: 'pending',
    paid: false,
    subtotal_amount: subtotal,
    discount_amount: discount,
    net_amount: net,
    tax_amount: tax,
    total_amount: total,
    applied_balance_amount: applied || 0,
    due_amount: Math.max(0, total + applied),
    refunded_amount: 0,
    refunded_tax_amount: 0,
    currency: 'usd',
    billing_name: given.customer.billing_name,
    billing_address: given.customer.billing_address,
    is_invoice_generated: false,
    receipt_number: null,
    seats: null,
    units: null,
    customer_id: given.customer.id,
    product_id: soldProduct.id,
    discount_id: given.discount?.id ?? null,
    subscription_id: soldSubscription?.id ?? null,
    checkout_id: null,
    next_payment_attempt_at: null,
    metadata: {},
    custom_field_data: {},
    platform_fee_amount: total > 0 ? Math.round((total * FEE.percent) / 100) + FEE.fixedCents : 0,
    platform_fee_currency: 'usd',
    product: orderProduct(soldProduct),
    discount: null,
    subscription: soldSubscription ? orderSubscription(soldSubscription) : null,
    items: lines.map((line) => ({
      ...newObject(at),
      tax_amount: lines.length === 1 ? tax : taxOf(line.amount),
      start_timestamp: null,
      end_timestamp: null,
      ...line,
    })),
    refundable_amount: Math.max(0, net),
    refundable_tax_amount: Math.max(0, tax),
    ...given,
  }
}

export function taxOf(amountCents: number): number {
  return Math.round((amountCents * TAX_PERCENT) / 100)
}

export function buildRefund(
  at: string,
  given: Given<models.Refund, 'order_id' | 'customer_id' | 'amount' | 'tax_amount' | 'reason' | 'currency'>,
): models.Refund {
  return {
    ...newObject(at),
    metadata: {},
    status: 'succeeded',
    organization_id: ORGANIZATION_ID,
    subscription_id: null,
    revoke_benefits: false,
    dispute: null,
    ...given,
  }
}

export function buildDispute(at: string, order: models.Order, status: models.DisputeStatus): models.Dispute {
  return {
    ...newObject(at),
    status,
    resolved: status === 'won' || status === 'lost',
    closed: status === 'won' || status === 'lost' || status === 'prevented',
    amount: order.refundable_amount,
    tax_amount: order.refundable_tax_amount,
    currency: order.currency,
    reason: 'fraudulent',
    evidence_due_by: null,
    past_due: false,
    order_id: order.id,
    payment_id: randomUUID(),
    customer: order.customer,
    case_id: null,
  }
}

/** What a refund shows of the dispute that caused it. */
export function refundDispute({ customer, case_id, ...facts }: models.Dispute): models.RefundDispute {
  return facts
}
