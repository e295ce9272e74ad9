// The events that were received, as an operator sees them and has them handled again.
import { type Kysely, sql } from 'kysely'
import * as v from 'valibot'
import type { Database } from '../../db/schema.ts'
import type { Actor } from '../audit.ts'
import { recordAudit } from '../audit.ts'
import { AppError } from '../http/errors.ts'
import { Cursor, isAfter, microsOf, type Page, PageLimit, pageOf, positionOf } from '../paging.ts'
import { replayEvent } from './inbox.ts'

export const WebhooksQuery = v.strictObject({
  outcome: v.optional(v.picklist(['applied', 'ignored', 'unreadable', 'failed'])),
  type: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(80))),
  limit: PageLimit,
  cursor: v.optional(Cursor),
})

/** The events, the newest first, without their bodies. */
export async function listWebhooks(
  db: Kysely<Database>,
  { outcome, type, limit, cursor }: v.InferOutput<typeof WebhooksQuery>,
): Promise<Page<ReceivedWebhook>> {
  let events = receivedEvents(db)
    .select(microsOf(sql.ref('received_at')).as('micros'))
    .orderBy('received_at', 'desc')
    .orderBy('id', 'desc')
    .limit(limit + 1)
  if (outcome !== undefined) events = events.where('outcome', '=', outcome)
  if (type !== undefined) events = events.where('type', '=', type)
  if (cursor) events = events.where(isAfter(cursor, sql.ref('received_at'), sql.ref('id')))
  return pageOf(await events.execute(), limit, { position: positionOf, show: showEvent })
}

/** One event with its body, as it came. Throws NOT_FOUND. */
export async function webhookOf(db: Kysely<Database>, id: string): Promise<ReceivedWebhook & { body: string }> {
  const event = await receivedEvents(db).select('body').where('id', '=', id).executeTakeFirst()
  if (!event) throw new AppError('NOT_FOUND', 'There is no such event.')
  return { ...showEvent(event), body: event.body }
}

/**
 * Handles a kept event again, in a transaction of its own: the attempt is on record first, and so also when it fails, which is
 * told as CONFLICT with what went wrong. Throws NOT_FOUND.
 */
export async function replayWebhook(db: Kysely<Database>, id: string, by: Actor) {
  const { type } = await webhookOf(db, id)
  const target = { type: 'webhook', id: id.slice(0, 80) }
  await recordAudit(db, { ...by, action: 'webhook.replay', target, details: { webhookId: id, type } })
  const { receipt, cause } = await tryReplay(id)
  const event = await webhookOf(db, id)
  if (receipt === undefined || receipt === 'unreadable') {
    const error = event.error ?? (cause instanceof Error ? cause.message : String(cause))
    throw new AppError('CONFLICT', `The event could not be handled: ${error}`, { details: { error }, cause })
  }
  return { id, type, receipt, outcome: event.outcome, attempts: event.attempts }
}

async function tryReplay(id: string) {
  try {
    return { receipt: await replayEvent(id) }
  } catch (cause) {
    return { cause }
  }
}

function receivedEvents(db: Kysely<Database>) {
  return db
    .selectFrom('webhook_events')
    .select(['id', 'source', 'type', 'outcome', 'error', 'attempts', 'received_at', 'processed_at'])
}

type EventRow = Awaited<ReturnType<ReturnType<typeof receivedEvents>['executeTakeFirstOrThrow']>>
type ReceivedWebhook = ReturnType<typeof showEvent>

function showEvent(event: EventRow) {
  return {
    id: event.id,
    source: event.source,
    type: event.type,
    outcome: event.outcome,
    error: event.error === null ? null : withoutStack(event.error),
    attempts: event.attempts,
    receivedAt: event.received_at,
    processedAt: event.processed_at,
  }
}

/** What a kept error says, from the outer cause to the inner; stacks are for the log. */
function withoutStack(error: string): string {
  const messages = [...error.matchAll(/"message":"((?:[^"\\]|\\.)*)/g)].map(([, message = '']) => message)
  return messages.length > 0
    ? messages.join(' ').replaceAll(/\\(.)/g, (_, escaped) => (escaped === 'n' ? ' ' : escaped))
    : error
}
