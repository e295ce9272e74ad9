// Asking Polar to send again what it could not deliver, and to send at all after it gave up.
import type { models, Polar } from '@polar-sh/sdk/2026-10'
import type { Kysely } from 'kysely'
import type { Database } from '../../db/schema.ts'
import type { Actor } from '../audit.ts'
import { recordAudit } from '../audit.ts'
import { AppError } from '../http/errors.ts'
import { askPolar, ownEndpoints, refusedStatus, WEBHOOK_PATH } from './polar.ts'

const EVENTS_MAX = 100
const PAGES_MAX = 5
const PAGE_SIZE = 100
const PARALLEL = 5

/**
 * Has the events sent again of which no delivery got through, up to 100; `refused` are those that Polar sends no more. On record
 * before the first is asked for. Throws FEATURE_DISABLED, PROVIDER_ERROR, or CONFLICT when Polar knows no endpoint of ours.
 */
export async function redeliverFailed(
  db: Kysely<Database>,
  { since, by }: { since: Date | undefined; by: Actor },
): Promise<{ requested: number; refused: number; more: boolean }> {
  return await askPolar(async (polar) => {
    const { events, more } = await failedEvents(polar, await ourEndpoints(polar), since)
    const details = { events: events.length, ...(since && { since: since.toISOString() }) }
    await recordAudit(db, { ...by, action: 'polar.redeliver', details })
    let refused = 0
    const redeliver = async (id: string) => {
      try {
        await polar.webhooks.redeliverWebhookEvent(id)
      } catch (error) {
        if (![404, 409, 410, 422].includes(refusedStatus(error) ?? 0)) throw error
        refused += 1
      }
    }
    for (let done = 0; done < events.length; done += PARALLEL) {
      await Promise.all(events.slice(done, done + PARALLEL).map(redeliver))
    }
    return { requested: events.length - refused, refused, more }
  })
}

/** Has Polar send to our endpoints again; it switches them off after failures in a row. What it skipped is for reconciliation. */
export async function enableEndpoints(
  db: Kysely<Database>,
  by: Actor,
): Promise<{ endpoints: { id: string; url: string; enabled: boolean; wasEnabled: boolean }[] }> {
  return await askPolar(async (polar) => {
    const ours = await ourEndpoints(polar)
    const details = { endpoints: ours.map(({ id, url, enabled }) => ({ id, url, wasEnabled: enabled })) }
    await recordAudit(db, { ...by, action: 'polar.endpoint.enable', details })
    const endpoints = await Promise.all(
      ours.map(async ({ id, enabled: wasEnabled }) => {
        const { url, enabled } = await polar.webhooks.updateWebhookEndpoint(id, { enabled: true })
        return { id, url, enabled, wasEnabled }
      }),
    )
    return { endpoints }
  })
}

async function ourEndpoints(polar: Polar): Promise<models.WebhookEndpoint[]> {
  const ours = await ownEndpoints(polar)
  if (ours.length > 0) return ours
  throw new AppError('CONFLICT', `Polar has no webhook endpoint with the path ${WEBHOOK_PATH}.`)
}

/** Distinct events, the newest first. One that got through at a later attempt is not failed. */
async function failedEvents(polar: Polar, endpoints: { id: string }[], since: Date | undefined) {
  const ids = new Set<string>()
  for (let page = 1; page <= PAGES_MAX; page += 1) {
    const { items, pagination } = await polar.webhooks.listWebhookDeliveries({
      succeeded: false,
      endpoint_id: endpoints.map(({ id }) => id),
      ...(since && { start_timestamp: since.toISOString() }),
      page,
      limit: PAGE_SIZE,
    })
    for (const { webhook_event: event } of items) {
      if (event.succeeded !== true && !event.is_archived) ids.add(event.id)
    }
    if (page >= pagination.max_page) return { events: [...ids].slice(0, EVENTS_MAX), more: ids.size > EVENTS_MAX }
    if (ids.size > EVENTS_MAX) break
  }
  return { events: [...ids].slice(0, EVENTS_MAX), more: true }
}
