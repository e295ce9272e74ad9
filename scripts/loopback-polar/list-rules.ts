// What each of Polar's lists can be filtered and sorted by.
import type { models } from '@polar-sh/sdk/2026-10'
import type { EndpointDelivery } from './endpoints.ts'
import type { ListRules } from './lists.ts'
import type { Customer } from './objects.ts'

export const PRODUCTS: ListRules<models.Product> = {
  filters: { id: ({ id }) => id, is_archived: (one) => one.is_archived, is_recurring: (one) => one.is_recurring },
  metadata: ({ metadata }) => metadata,
  sorting: { name: ({ name }) => name },
}

export const CHECKOUTS: ListRules<models.Checkout> = {
  filters: {
    status: ({ status }) => status,
    product_id: (one) => one.product_id,
    customer_id: (one) => one.customer_id,
    external_customer_id: (one) => one.external_customer_id,
  },
}

export const CUSTOMERS: ListRules<Customer> = {
  filters: { email: ({ email }) => email },
  metadata: ({ metadata }) => metadata,
  sorting: { name: ({ name }) => name, email: ({ email }) => email },
}

export const ORDERS: ListRules<models.Order> = {
  filters: {
    status: ({ status }) => status,
    product_id: (one) => one.product_id,
    product_billing_type: ({ product }) => (product?.is_recurring ? 'recurring' : 'one_time'),
    customer_id: (one) => one.customer_id,
    external_customer_id: ({ customer }) => customer.external_id,
    checkout_id: (one) => one.checkout_id,
    subscription_id: (one) => one.subscription_id,
  },
  after: 'created_after',
  before: 'created_before',
  metadata: ({ metadata }) => metadata,
  sorting: {
    status: ({ status }) => status,
    invoice_number: (one) => one.invoice_number,
    amount: (one) => one.total_amount,
    net_amount: (one) => one.net_amount,
  },
}

export const REFUNDS: ListRules<models.Refund> = {
  filters: {
    id: ({ id }) => id,
    order_id: (one) => one.order_id,
    subscription_id: (one) => one.subscription_id,
    customer_id: (one) => one.customer_id,
    succeeded: ({ status }) => status === 'succeeded',
  },
  sorting: { amount: ({ amount }) => amount },
}

export const DISPUTES: ListRules<models.Dispute> = {
  filters: { status: ({ status }) => status, order_id: (one) => one.order_id },
  sorting: { amount: ({ amount }) => amount },
}

export const SUBSCRIPTIONS: ListRules<models.Subscription> = {
  filters: {
    status: ({ status }) => status,
    active: ({ status }) => status === 'active' || status === 'trialing',
    product_id: (one) => one.product_id,
    customer_id: (one) => one.customer_id,
    external_customer_id: ({ customer }) => customer.external_id,
    cancel_at_period_end: (one) => one.cancel_at_period_end,
  },
  after: 'started_after',
  before: 'started_before',
  metadata: ({ metadata }) => metadata,
  sorting: {
    started_at: (one) => one.started_at,
    status: ({ status }) => status,
    amount: ({ amount }) => amount,
  },
  sortedBy: '-started_at',
}

export const DELIVERIES: ListRules<EndpointDelivery> = {
  filters: {
    endpoint_id: (one) => one.endpointId,
    succeeded: ({ succeeded }) => succeeded,
    event_type: ({ webhook_event }) => webhook_event.type,
  },
  after: 'start_timestamp',
  before: 'end_timestamp',
}
