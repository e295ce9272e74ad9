// The books of the shop: everything it has and has sold, its clock, and the events it announces.
import type { models, webhooks } from '@polar-sh/sdk/2026-10'
import type { Customer } from './objects.ts'
import { buildCustomerState, type Line, orderSubscription } from './sale-objects.ts'
import { timestamp, timestampAfter } from './timestamps.ts'

type DraftOf<P> = P extends webhooks.WebhookPayload ? Omit<P, 'timestamp' | 'api_version'> : never

/** An event of any type with the data that belongs to it. */
export type EventDraft = DraftOf<webhooks.WebhookPayload>

export interface Announcement {
  type: models.WebhookEventType
  /** The payload as it is sent: later changes of the object do not reach it. */
  body: string
}

/** How the next payments and refunds go. */
export interface Conduct {
  /** Charges without the buyer at hand, as for a change of plan, that are still to be declined. */
  declinedCharges: number
  /** What refunds asked for over the API start as. */
  refundsStart: 'succeeded' | 'pending'
  /** Polar's own default: a second checkout for a subscriber is refused. */
  allowsSecondSubscription: boolean
}

export interface Books {
  readonly products: Map<string, models.Product>
  readonly customers: Map<string, Customer>
  readonly checkouts: Map<string, models.Checkout>
  readonly orders: Map<string, models.Order>
  readonly subscriptions: Map<string, models.Subscription>
  readonly refunds: Map<string, models.Refund>
  readonly disputes: Map<string, models.Dispute>
  /** What a customer has left over from changes to a cheaper plan. */
  readonly creditCents: Map<string, number>
  /** Lines that wait for a subscription's next order. */
  readonly openLines: Map<string, Line[]>
  readonly conduct: Conduct
  now(): number
  at(): string
  announce(draft: EventDraft): void
}

export function openBooks(now: () => number, publish: (announcement: Announcement) => void): Books {
  return {
    products: new Map(),
    customers: new Map(),
    checkouts: new Map(),
    orders: new Map(),
    subscriptions: new Map(),
    refunds: new Map(),
    disputes: new Map(),
    creditCents: new Map(),
    openLines: new Map(),
    conduct: { declinedCharges: 0, refundsStart: 'succeeded', allowsSecondSubscription: false },
    now,
    at: () => timestamp(now()),
    announce: (draft) => publish({ type: draft.type, body: eventBody(draft, timestamp(now())) }),
  }
}

function eventBody(draft: EventDraft, at: string): string {
  const payload: webhooks.WebhookPayload = { ...draft, timestamp: at, api_version: '2026-10' }
  return JSON.stringify(payload)
}

/** Marks an object as changed: its `modified_at` is later than ever before, however fast changes follow. */
export function touch(books: Books, changed: { created_at: string; modified_at: string | null }): void {
  changed.modified_at = timestampAfter(changed.modified_at ?? changed.created_at, books.now())
}

/** Marks a subscription as changed, and shows the change in its orders. */
export function touchSubscription(books: Books, subscription: models.Subscription): void {
  touch(books, subscription)
  for (const order of books.orders.values()) {
    if (order.subscription_id === subscription.id) order.subscription = orderSubscription(subscription)
  }
}

export function announceCustomerState(books: Books, customerId: string): void {
  const customer = books.customers.get(customerId)
  if (customer) books.announce({ type: 'customer.state_changed', data: customerState(books, customer) })
}

export function customerState(books: Books, customer: Customer): models.CustomerStateIndividual {
  const theirs = [...books.subscriptions.values()].filter(({ customer_id }) => customer_id === customer.id)
  return buildCustomerState(customer, theirs)
}

/** The object of that id. Throws what Polar's absent objects are answered with, or what `otherwise` makes. */
export function found<T>(objects: ReadonlyMap<string, T>, id: string, otherwise: () => Error): T {
  const object = objects.get(id)
  if (object === undefined) throw otherwise()
  return object
}
