// The part of Polar's REST API that a seller of tokens and plans needs.
import { randomUUID } from 'node:crypto'
import type { models } from '@polar-sh/sdk/2026-10'
import * as bodies from './bodies.ts'
import { type Books, customerState, found } from './books.ts'
import { createProduct, updateProduct } from './catalogue.ts'
import { createCheckout } from './checkouts.ts'
import { createCustomer, customerByExternalId, deleteCustomer, updateCustomer } from './customers.ts'
import type { Deliveries } from './delivery.ts'
import { createEndpoint, deliveriesOf, resetSecret, updateEndpoint } from './endpoints.ts'
import * as rules from './list-rules.ts'
import { listPage } from './lists.ts'
import type { Customer } from './objects.ts'
import { requestInvoice, requireInvoice, updateOrder } from './orders.ts'
import { refund } from './refunds.ts'
import { notFound, unusable } from './refusals.ts'
import {
  cancelAtPeriodEnd,
  changeMetadata,
  changeProduct,
  clearPendingUpdate,
  revoke,
  uncancel,
} from './subscriptions.ts'
import { timestamp } from './timestamps.ts'

const SESSION_MS = 3_600_000

export interface Site {
  books: Books
  endpoints: Map<string, models.WebhookEndpoint>
  deliveries: Deliveries
  /** Customers by the token of their portal. */
  sessions: Map<string, Customer>
  /** Of this server; known once it listens. */
  baseUrl: string
  stableProductIds: boolean
}

export interface Call extends Site {
  request: Request
  query: URLSearchParams
  params: Record<string, string | undefined>
}

export type Handler = (call: Call) => Response | Promise<Response>

const json = (body: unknown, status = 200) => Response.json(body, { status })
const withId = <T>(objects: ReadonlyMap<string, T>, { params }: Call) => found(objects, params.id ?? '', notFound)

function externalCustomer({ books, params }: Call): Customer {
  const customer = customerByExternalId(books, params.id ?? '')
  if (!customer) throw notFound()
  return customer
}

const catalogueRoutes: Record<string, Handler> = {
  'GET /v1/products/': ({ books, query }) => json(listPage(books.products.values(), query, rules.PRODUCTS)),
  'POST /v1/products/': async ({ books, request, stableProductIds }) =>
    json(createProduct(books, await bodies.readBody(request, bodies.ProductBody), stableProductIds), 201),
  'GET /v1/products/:id': (call) => json(withId(call.books.products, call)),
  'PATCH /v1/products/:id': async (call) => {
    const product = withId(call.books.products, call)
    updateProduct(call.books, product, await bodies.readBody(call.request, bodies.ProductChangesBody))
    return json(product)
  },
  'GET /v1/checkouts/': ({ books, query }) => json(listPage(books.checkouts.values(), query, rules.CHECKOUTS)),
  'POST /v1/checkouts/': async ({ books, request, baseUrl }) =>
    json(createCheckout(books, await bodies.readBody(request, bodies.CheckoutBody), baseUrl), 201),
  'GET /v1/checkouts/:id': (call) => json(withId(call.books.checkouts, call)),
}

const customerRoutes: Record<string, Handler> = {
  'GET /v1/customers/': ({ books, query }) => json(listPage(books.customers.values(), query, rules.CUSTOMERS)),
  'POST /v1/customers/': async ({ books, request }) =>
    json(createCustomer(books, await bodies.readBody(request, bodies.CustomerBody)), 201),
  'GET /v1/customers/external/:id/state': (call) => json(customerState(call.books, externalCustomer(call))),
  'GET /v1/customers/external/:id': (call) => json(externalCustomer(call)),
  'PATCH /v1/customers/external/:id': async (call) => {
    const changes = await bodies.readBody(call.request, bodies.CustomerChangesBody)
    return json(updateCustomer(call.books, externalCustomer(call), changes))
  },
  'DELETE /v1/customers/external/:id': (call) => {
    deleteCustomer(call.books, externalCustomer(call))
    return new Response(null, { status: 204 })
  },
  'GET /v1/customers/:id/state': (call) => json(customerState(call.books, withId(call.books.customers, call))),
  'GET /v1/customers/:id': (call) => json(withId(call.books.customers, call)),
  'PATCH /v1/customers/:id': async (call) => {
    const changes = await bodies.readBody(call.request, bodies.CustomerChangesBody)
    return json(updateCustomer(call.books, withId(call.books.customers, call), changes))
  },
  'DELETE /v1/customers/:id': (call) => {
    deleteCustomer(call.books, withId(call.books.customers, call))
    return new Response(null, { status: 204 })
  },
  'POST /v1/customer-sessions/': createSession,
}

async function createSession({ books, request, sessions, baseUrl }: Call): Promise<Response> {
  const body = await bodies.readBody(request, bodies.SessionBody)
  const isInternal = 'customer_id' in body
  const customer = isInternal
    ? books.customers.get(body.customer_id)
    : customerByExternalId(books, body.external_customer_id)
  if (!customer) {
    const field = isInternal ? 'customer_id' : 'external_customer_id'
    throw unusable(field, 'Customer does not exist.', isInternal ? body.customer_id : body.external_customer_id)
  }
  const token = `polar_cst_${randomUUID().replaceAll('-', '')}`
  sessions.set(token, customer)
  const session: models.CustomerSession = {
    created_at: books.at(),
    modified_at: null,
    id: randomUUID(),
    token,
    expires_at: timestamp(books.now() + SESSION_MS),
    return_url: body.return_url ?? null,
    customer_portal_url: `${baseUrl}/portal?customer_session_token=${token}`,
    customer_id: customer.id,
    customer,
  }
  return json(session, 201)
}

const saleRoutes: Record<string, Handler> = {
  'GET /v1/orders/': ({ books, query }) => json(listPage(books.orders.values(), query, rules.ORDERS)),
  'GET /v1/orders/:id/invoice': (call) => {
    const order = withId(call.books.orders, call)
    requireInvoice(call.books, order)
    return json({ url: `${call.baseUrl}/invoices/${order.id}` } satisfies models.OrderInvoice)
  },
  'POST /v1/orders/:id/invoice': (call) => {
    requestInvoice(withId(call.books.orders, call))
    return json({}, 202)
  },
  'GET /v1/orders/:id': (call) => json(withId(call.books.orders, call)),
  'PATCH /v1/orders/:id': async (call) => {
    const changes = await bodies.readBody(call.request, bodies.OrderChangesBody)
    return json(updateOrder(call.books, withId(call.books.orders, call), changes))
  },
  'GET /v1/refunds/': ({ books, query }) => json(listPage(books.refunds.values(), query, rules.REFUNDS)),
  'POST /v1/refunds/': async ({ books, request }) => {
    const {
      order_id: orderId,
      amount: amountCents,
      reason,
      ...rest
    } = await bodies.readBody(request, bodies.RefundBody)
    const { revoke_benefits: revokeBenefits, metadata } = rest
    const status = books.conduct.refundsStart
    return json(refund(books, { orderId, amountCents, reason, revokeBenefits, metadata: metadata ?? {}, status }), 201)
  },
  'GET /v1/disputes/': ({ books, query }) => json(listPage(books.disputes.values(), query, rules.DISPUTES)),
  'GET /v1/disputes/:id': (call) => json(withId(call.books.disputes, call)),
}

const subscriptionRoutes: Record<string, Handler> = {
  'GET /v1/subscriptions/': ({ books, query }) =>
    json(listPage(books.subscriptions.values(), query, rules.SUBSCRIPTIONS)),
  'GET /v1/subscriptions/:id': (call) => json(withId(call.books.subscriptions, call)),
  'PATCH /v1/subscriptions/:id': async (call) => {
    const { books, request } = call
    const subscription = withId(books.subscriptions, call)
    const changes = await bodies.readBody(request, bodies.SubscriptionChangesBody)
    if ('product_id' in changes) {
      changeProduct(books, subscription, changes.product_id, changes.proration_behavior ?? 'prorate')
    } else if ('revoke' in changes) revoke(books, subscription)
    else if ('pending_update' in changes) clearPendingUpdate(books, subscription)
    else if ('metadata' in changes) changeMetadata(books, subscription, changes.metadata)
    else if (changes.cancel_at_period_end) cancelAtPeriodEnd(books, subscription)
    else uncancel(books, subscription)
    return json(subscription)
  },
  'DELETE /v1/subscriptions/:id': (call) => {
    const subscription = withId(call.books.subscriptions, call)
    revoke(call.books, subscription)
    return json(subscription)
  },
}

const webhookRoutes: Record<string, Handler> = {
  'GET /v1/webhooks/endpoints': ({ endpoints, query }) => json(listPage(endpoints.values(), query)),
  'POST /v1/webhooks/endpoints': async ({ books, endpoints, request }) =>
    json(createEndpoint(books, endpoints, await bodies.readBody(request, bodies.EndpointBody)), 201),
  'GET /v1/webhooks/endpoints/:id': (call) => json(withId(call.endpoints, call)),
  'PATCH /v1/webhooks/endpoints/:id': async (call) => {
    const endpoint = withId(call.endpoints, call)
    updateEndpoint(call.books, endpoint, await bodies.readBody(call.request, bodies.EndpointChangesBody))
    return json(endpoint)
  },
  'DELETE /v1/webhooks/endpoints/:id': (call) => {
    call.endpoints.delete(withId(call.endpoints, call).id)
    return new Response(null, { status: 204 })
  },
  'PATCH /v1/webhooks/endpoints/:id/secret': (call) => {
    const endpoint = withId(call.endpoints, call)
    resetSecret(call.books, endpoint)
    return json(endpoint)
  },
  'GET /v1/webhooks/deliveries': ({ deliveries, query }) => {
    const page = listPage(deliveriesOf(deliveries.events), query, rules.DELIVERIES)
    return json({ ...page, items: page.items.map(({ endpointId, ...delivery }) => delivery) })
  },
  'POST /v1/webhooks/events/:id/redeliver': ({ deliveries, params }) => {
    const event = deliveries.events.find(({ id }) => id === params.id)
    if (!event) throw notFound()
    deliveries.redeliver(event)
    return json({}, 202)
  },
}

export const API_ROUTES: Record<string, Handler> = {
  ...catalogueRoutes,
  ...customerRoutes,
  ...saleRoutes,
  ...subscriptionRoutes,
  ...webhookRoutes,
}
