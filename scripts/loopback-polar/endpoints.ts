// Webhook endpoints of the shop, and what Polar's API shows of their deliveries.
import type { models } from '@polar-sh/sdk/2026-10'
import { type Books, touch } from './books.ts'
import type { WebhookEvent } from './delivery.ts'
import { buildWebhookEndpoint } from './objects.ts'
import { newSecret } from './signing.ts'

type EndpointChanges = Partial<
  Pick<models.WebhookEndpoint, 'url' | 'name' | 'api_version' | 'format' | 'events' | 'enabled'>
>

/** Every type of event the shop announces. */
export const ALL_EVENTS: models.WebhookEventType[] = [
  'checkout.created',
  'checkout.updated',
  'checkout.expired',
  'customer.created',
  'customer.updated',
  'customer.deleted',
  'customer.state_changed',
  'order.created',
  'order.updated',
  'order.paid',
  'order.refunded',
  'subscription.created',
  'subscription.updated',
  'subscription.active',
  'subscription.canceled',
  'subscription.uncanceled',
  'subscription.cycled',
  'subscription.revoked',
  'subscription.past_due',
  'refund.created',
  'refund.updated',
  'product.created',
  'product.updated',
]

/** A new endpoint with a secret of Polar's making, unless one is given with the way it signs. */
export function createEndpoint(
  books: Books,
  endpoints: Map<string, models.WebhookEndpoint>,
  given: EndpointChanges & { url: string; events: models.WebhookEventType[]; secret?: string; isLegacy?: boolean },
): models.WebhookEndpoint {
  const { secret = newSecret(), isLegacy = false, ...rest } = given
  const endpoint = buildWebhookEndpoint(books.at(), { ...rest, secret, uses_standard_webhook_signature: !isLegacy })
  endpoints.set(endpoint.id, endpoint)
  return endpoint
}

export function updateEndpoint(books: Books, endpoint: models.WebhookEndpoint, changes: EndpointChanges): void {
  Object.assign(endpoint, changes)
  touch(books, endpoint)
}

/** A secret made anew signs the standard way, whatever the old one did. */
export function resetSecret(books: Books, endpoint: models.WebhookEndpoint): void {
  endpoint.secret = newSecret()
  endpoint.uses_standard_webhook_signature = true
  touch(books, endpoint)
}

export interface EndpointDelivery extends models.WebhookDelivery {
  /** For filters; Polar does not show it. */
  endpointId: string
}

/** Every attempt to deliver, oldest first. */
export function deliveriesOf(events: readonly WebhookEvent[]): EndpointDelivery[] {
  const all = events.flatMap((event) =>
    event.attempts.map(({ id, at, succeeded, status, response }) => ({
      id,
      created_at: at,
      modified_at: null,
      succeeded,
      http_code: status,
      response,
      webhook_event: shownEvent(event),
      endpointId: event.endpoint?.id ?? '',
    })),
  )
  return all.sort((a, b) => (a.created_at < b.created_at ? -1 : 1))
}

function shownEvent(event: WebhookEvent): models.WebhookEvent {
  return {
    id: event.id,
    created_at: event.createdAt,
    modified_at: null,
    last_http_code: event.attempts.at(-1)?.status ?? null,
    succeeded: event.succeeded,
    skipped: event.skipped,
    api_version: '2026-10',
    payload: event.body,
    type: event.type,
    is_archived: false,
  }
}
