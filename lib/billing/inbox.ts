// The inbox: an event and its effect are written in one transaction, so that each takes effect once however often it comes.
import type { webhooks } from '@polar-sh/sdk/2026-10'
import { sql, type Transaction } from 'kysely'
import * as v from 'valibot'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { describeError, log } from '../log.ts'
import { applyOrder, applyRefund } from './orders.ts'
import { PolarOrder, PolarRefund, PolarSubscription } from './polar-objects.ts'
import { applySubscription } from './subscriptions.ts'

export interface InboxEvent {
  /** The sender's id of the event, the same on every delivery. */
  id: string
  type: string
  /** As it came, so that it can be handled again. */
  body: string
}

export type Receipt = 'applied' | 'ignored' | 'unreadable' | 'duplicate'

type Effect = (trx: Transaction<Database>, data: unknown) => Promise<void>

const order = effect(PolarOrder, applyOrder)
const refund = effect(PolarRefund, applyRefund)
const subscription = effect(PolarSubscription, applySubscription)

/** The events that mean something here, each with what it does. An event is only news: what counts is the state it carries. */
const EFFECTS = {
  'order.created': order,
  'order.updated': order,
  'order.paid': order,
  'order.refunded': order,
  'refund.created': refund,
  'refund.updated': refund,
  'subscription.created': subscription,
  'subscription.updated': subscription,
  'subscription.active': subscription,
  'subscription.canceled': subscription,
  'subscription.uncanceled': subscription,
  'subscription.cycled': subscription,
  'subscription.revoked': subscription,
  'subscription.past_due': subscription,
  'subscription.paused': subscription,
  'subscription.resumed': subscription,
  'subscription.migrated': subscription,
} satisfies Partial<Record<webhooks.WebhookPayload['type'], Effect>>

export type HandledEvent = keyof typeof EFFECTS

/** What the webhook endpoint at Polar has to be subscribed to. */
export const HANDLED_EVENTS = Object.keys(EFFECTS).filter(isHandled)

function isHandled(type: string): type is HandledEvent {
  return Object.hasOwn(EFFECTS, type)
}

class UnreadableError extends Error {}

function effect<S extends v.GenericSchema>(
  schema: S,
  apply: (trx: Transaction<Database>, state: v.InferOutput<S>) => Promise<void>,
): Effect {
  return async (trx, data) => {
    const result = v.safeParse(schema, data)
    if (!result.success) throw new UnreadableError(issueText(result.issues))
    await apply(trx, result.output)
  }
}

function issueText(issues: [v.BaseIssue<unknown>, ...v.BaseIssue<unknown>[]]): string {
  return issues.map((issue) => `${v.getDotPath(issue) ?? ''}: ${issue.message}`).join('; ')
}

/**
 * Takes an event whose signature was checked. 'unreadable' is kept for an admin: the same bytes would not do better next time.
 * Throws when the fault is ours; the event is then kept as failed, and comes again or is replayed.
 */
export async function receiveEvent({ id, type, body }: InboxEvent, data: unknown): Promise<Receipt> {
  try {
    return await db()
      .transaction()
      .execute(async (trx) => {
        if (!(await claimEvent(trx, { id, type, body }))) return 'duplicate'
        if (!isHandled(type)) return await finish(trx, id, 'ignored')
        await EFFECTS[type](trx, data)
        return await finish(trx, id, 'applied')
      })
  } catch (error) {
    if (!(error instanceof UnreadableError)) {
      await keepFailed({ id, type, body }, error)
      throw error
    }
    log('error', 'webhook_unreadable', { webhookId: id, type, message: error.message })
    await keepUnreadable({ id, type, body }, error.message)
    return 'unreadable'
  }
}

/** Handles a kept event again, as if it had just come. Undefined when there is none of that id. */
export async function replayEvent(id: string): Promise<Receipt | undefined> {
  const event = await db()
    .updateTable('webhook_events')
    .set({ outcome: 'failed', processed_at: null })
    .where('id', '=', id)
    .returning(['id', 'type', 'body'])
    .executeTakeFirst()
  if (!event) return undefined
  const { data } = v.parse(v.object({ data: v.unknown() }), JSON.parse(event.body))
  return await receiveEvent(event, data)
}

/** Handles failed events again, the oldest first. What fails once more is left for the next time. */
export async function retryFailed(limit: number): Promise<{ retried: number; stillFailing: number }> {
  const failed = await db()
    .selectFrom('webhook_events')
    .select('id')
    .where('outcome', '=', 'failed')
    .orderBy('received_at')
    .limit(limit)
    .execute()
  let stillFailing = 0
  for (const { id } of failed) await replayEvent(id).catch(() => (stillFailing += 1))
  return { retried: failed.length, stillFailing }
}

/** Writes the event down, and waits for whoever is handling it now. False when it has taken effect already. */
async function claimEvent(trx: Transaction<Database>, event: InboxEvent): Promise<boolean> {
  const claimed = await trx
    .insertInto('webhook_events')
    .values({ ...event, source: 'polar', outcome: 'failed' })
    .onConflict((conflict) =>
      conflict
        .column('id')
        .doUpdateSet({ attempts: sql<number>`webhook_events.attempts + 1` })
        .where('webhook_events.processed_at', 'is', null),
    )
    .returning('id')
    .executeTakeFirst()
  return claimed !== undefined
}

async function finish(trx: Transaction<Database>, id: string, outcome: 'applied' | 'ignored'): Promise<typeof outcome> {
  await trx
    .updateTable('webhook_events')
    .set({ outcome, error: null, processed_at: sql<Date>`now()` })
    .where('id', '=', id)
    .execute()
  return outcome
}

async function keepUnreadable(event: InboxEvent, error: string): Promise<void> {
  const row = { outcome: 'unreadable' as const, error: error.slice(0, 500), processed_at: sql<Date>`now()` }
  await db()
    .insertInto('webhook_events')
    .values({ ...event, source: 'polar', ...row })
    .onConflict((conflict) => conflict.column('id').doUpdateSet(row))
    .execute()
}

/** Best effort: when the database is what failed, the sender still has the event. */
async function keepFailed(event: InboxEvent, cause: unknown): Promise<void> {
  const error = describeError(cause)
  try {
    await db()
      .insertInto('webhook_events')
      .values({ ...event, source: 'polar', outcome: 'failed', error: JSON.stringify(error).slice(0, 500) })
      .onConflict((conflict) =>
        conflict
          .column('id')
          .doUpdateSet({
            attempts: sql<number>`webhook_events.attempts + 1`,
            error: JSON.stringify(error).slice(0, 500),
          })
          .where('webhook_events.processed_at', 'is', null),
      )
      .execute()
  } catch (failure) {
    log('warn', 'webhook_not_kept', { webhookId: event.id, error: describeError(failure) })
  }
}
