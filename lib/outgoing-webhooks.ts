// Events for the operator's own program: kept in the database, sent signed per Standard Webhooks, tried again until they arrive.
import { createHmac } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { type Kysely, sql } from 'kysely'
import { db } from '../db/client.ts'
import type { Database } from '../db/schema.ts'
import { afterAnswer } from './after-answer.ts'
import { env } from './env.ts'
import { log } from './log.ts'

export type OutgoingEvent = 'budget.alert' | 'job.succeeded' | 'job.failed' | 'job.cancelled'

const TIMEOUT_MS = 10_000
/** Nobody else sends an event for so long after it was taken; it is due again when its sender died. */
const LEASE_SECONDS = 60
/** Waits between the attempts, as Standard Webhooks proposes them; after the last one the event is given up. */
const WAITS_SECONDS = [5, 5 * 60, 30 * 60, 3_600, 2 * 3_600, 5 * 3_600, 10 * 3_600, 14 * 3_600, 20 * 3_600]
const IN_PARALLEL = 5
const REPLY_CHARACTERS_MAX = 200
/** How long an event is kept after its end: longer than the month in which an alert is told once. */
const KEPT_DAYS = 40
/** An event is looked for at these times after it was told: its transaction has to end first. */
const LOOKS_MS = [50, 200, 1_000, 5_000]
const SENT_AT_ONCE = 20

/**
 * Puts an event on record, in the transaction of what it tells; nothing when OUTGOING_WEBHOOK_URL is not set. One `uniqueKey` is
 * told once: true when this call did it. It is sent after the answer, and by the sweep where that fails.
 */
export async function tell(
  db: Kysely<Database>,
  event: { type: OutgoingEvent; uniqueKey: string; data: Record<string, unknown> },
): Promise<boolean> {
  if (!env().outgoingWebhook) return false
  const { type, uniqueKey, data } = event
  const body = JSON.stringify({ type, timestamp: new Date().toISOString(), data })
  const added = await db
    .insertInto('outgoing_webhooks')
    .values({ type, body, unique_key: uniqueKey })
    .onConflict((conflict) => conflict.column('unique_key').doNothing())
    .returning('id')
    .executeTakeFirst()
  if (!added) return false
  await afterAnswer('webhook_not_sent', () => sendOnceCommitted(added.id))
  return true
}

/** Sends what is due, up to `limit` events; may run in several places at once. Forgets what ended long ago. */
export async function deliverWebhooks(limit: number): Promise<{ delivered: number; failed: number }> {
  await db()
    .deleteFrom('outgoing_webhooks')
    .where(sql<boolean>`coalesce(delivered_at, given_up_at) < now() - make_interval(days => ${KEPT_DAYS})`)
    .execute()
  const count = { delivered: 0, failed: 0 }
  for (let taken = 0; taken < limit; taken += IN_PARALLEL) {
    const events = await takeDue(Math.min(IN_PARALLEL, limit - taken))
    for (const arrived of await Promise.all(events.map(send))) count[arrived ? 'delivered' : 'failed'] += 1
    if (events.length < IN_PARALLEL) break
  }
  return count
}

/** The headers of a message per https://www.standardwebhooks.com. */
export function signatureHeaders(
  { id, body }: { id: string; body: string },
  secret: string,
  timestampSeconds: number,
): Record<string, string> {
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64')
  const signature = createHmac('sha256', key).update(`${id}.${timestampSeconds}.${body}`).digest('base64')
  return {
    'webhook-id': id,
    'webhook-timestamp': String(timestampSeconds),
    'webhook-signature': `v1,${signature}`,
  }
}

/** What was told in a transaction that rolled back is never seen. */
async function sendOnceCommitted(id: string): Promise<void> {
  for (const waitMs of LOOKS_MS) {
    await pause(waitMs)
    const event = await db().selectFrom('outgoing_webhooks').select('id').where('id', '=', id).executeTakeFirst()
    if (event) {
      await deliverWebhooks(SENT_AT_ONCE)
      return
    }
  }
}

interface DueEvent {
  id: string
  type: string
  body: string
  attempts: number
}

/** Takes due events for this sender alone: counted as tried, and not due again before the lease is over. */
async function takeDue(limit: number): Promise<DueEvent[]> {
  const { rows } = await sql<DueEvent>`
    update outgoing_webhooks set attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => ${LEASE_SECONDS})
      where id = any (array(
        select id from outgoing_webhooks
          where delivered_at is null and given_up_at is null and next_attempt_at <= now()
          order by next_attempt_at limit ${limit} for update skip locked
      )) returning id, type, body, attempts
  `.execute(db())
  return rows
}

/** One attempt, and what came of it on record. */
async function send(event: DueEvent): Promise<boolean> {
  const failure = await post(event)
  if (failure === undefined) {
    await db()
      .updateTable('outgoing_webhooks')
      .set({ delivered_at: sql<Date>`now()`, last_error: null })
      .where('id', '=', event.id)
      .execute()
    return true
  }
  const waitSeconds = WAITS_SECONDS[event.attempts - 1]
  const isLast = waitSeconds === undefined
  // Between half and all of the wait, so that what failed together does not come back together.
  const delay = (waitSeconds ?? 0) * (0.5 + Math.random() / 2)
  await db()
    .updateTable('outgoing_webhooks')
    .set({
      last_error: failure,
      next_attempt_at: sql<Date>`now() + make_interval(secs => ${delay})`,
      given_up_at: isLast ? sql<Date>`now()` : null,
    })
    .where('id', '=', event.id)
    .where('delivered_at', 'is', null)
    .execute()
  const { id, type, attempts } = event
  log('warn', isLast ? 'webhook_given_up' : 'webhook_failed', { id, type, attempts, reason: failure })
  return false
}

/** Why the event did not arrive, in bounded text; undefined when it did. */
async function post({ id, body }: DueEvent): Promise<string | undefined> {
  const { outgoingWebhook } = env()
  if (!outgoingWebhook) return 'OUTGOING_WEBHOOK_URL is not set any more.'
  const { url, secret } = outgoingWebhook
  try {
    const response = await fetch(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        ...signatureHeaders({ id, body }, secret, Math.floor(Date.now() / 1000)),
      },
      body,
      redirect: 'manual', // What is signed for one address is not for another.
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
    if (response.ok) {
      await response.body?.cancel()
      return undefined
    }
    return `It answered ${response.status}: ${await beginningOf(response)}`
  } catch (error) {
    return `It could not be reached: ${reasonOf(error)}.`
  }
}

/** The first characters of a reply, without those that a log or PostgreSQL would not take. */
async function beginningOf(response: Response): Promise<string> {
  let text = ''
  const decoder = new TextDecoder()
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk, { stream: true })
    if (text.length >= REPLY_CHARACTERS_MAX) break // Leaving the loop cancels the rest.
  }
  return text.slice(0, REPLY_CHARACTERS_MAX).replaceAll(/\p{Cc}+/gu, ' ')
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown'
  const { cause } = error
  return cause instanceof Error && 'code' in cause ? String(cause.code) : error.name
}
