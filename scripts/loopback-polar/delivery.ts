// Webhook delivery with Polar's own rules: order, attempts, back-off, and the end of an endpoint that never answers.
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { models } from '@polar-sh/sdk/2026-10'
import type { Announcement } from './books.ts'
import { type SigningScheme, signedHeaders } from './signing.ts'
import { timestamp } from './timestamps.ts'

export const POLAR_DELIVERY = {
  attemptsMax: 10,
  timeoutMs: 10_000,
  /** So long an event waits for earlier ones that have had no attempt yet. */
  orderGuardMs: 60_000,
  backoffMs: 2000,
  backoffMaxMs: 20 * 60_000,
  /** So many finished events in a row that all failed switch the endpoint off. */
  failuresMax: 10,
}

const RESPONSE_CHARACTERS_MAX = 2048
const EVENTS_MAX = 10_000

export interface WebhookEvent extends Announcement {
  /** The `webhook-id`: the same in every attempt. */
  id: string
  createdAt: string
  /** Missing when the shop had no endpoint to tell. */
  endpoint: models.WebhookEndpoint | undefined
  attempts: { id: string; at: string; status: number | null; response: string | null; succeeded: boolean }[]
  /** null as long as there are attempts to come. */
  succeeded: boolean | null
  /** Given up because the endpoint was switched off. */
  skipped: boolean
}

export interface DeliveryOptions {
  endpoints: ReadonlyMap<string, models.WebhookEndpoint>
  scheme: SigningScheme
  /** Signs events that have no endpoint. */
  secret: string
  now: () => number
  /** Waits between attempts are divided by this; nothing else is. */
  timeScale: number
  limits: typeof POLAR_DELIVERY
  deliver?: ((request: Request) => Promise<Response>) | undefined
}

export type Deliveries = ReturnType<typeof createDeliveries>

export function createDeliveries(options: DeliveryOptions) {
  const { endpoints, limits, now } = options
  const deliver = options.deliver ?? ((request: Request) => fetch(request))
  const events: WebhookEvent[] = []
  const running = new Set<Promise<void>>()
  /** Ends when an event has had its first attempt, or is too old for others to wait for it. */
  const turns = new Map<WebhookEvent, Promise<unknown>>()
  const closing = new AbortController()
  /** Per endpoint: ends the waits of events that are given up. */
  const switchedOff = new Map<string, AbortController>()
  let mode: 'deliver' | 'hold' = 'deliver'

  function publish(announcement: Announcement): void {
    const { size } = endpoints
    const told = [...endpoints.values()].filter(({ enabled, events }) => enabled && events.includes(announcement.type))
    for (const endpoint of size === 0 ? [undefined] : told) {
      const event = { ...announcement, id: randomUUID(), createdAt: timestamp(now()), endpoint }
      const recorded: WebhookEvent = { ...event, attempts: [], succeeded: null, skipped: false }
      events.push(recorded)
      if (events.length > EVENTS_MAX) events.shift()
      if (mode === 'deliver') start(recorded)
    }
  }

  function start(event: WebhookEvent): void {
    const { endpoint } = event
    if (!endpoint) return
    const earlier = [...turns].filter(([other]) => other.endpoint === endpoint).map(([, turn]) => turn)
    const first = Promise.all(earlier).then(() => attempt(event))
    const guard = new AbortController()
    const tooOld = pause(limits.orderGuardMs, guard.signal)
    const turn = Promise.race([first, tooOld]).finally(() => turns.delete(event))
    turns.set(event, turn)
    track(first.finally(() => guard.abort()).then(() => retry(event)))
  }

  /** Repeats what failed until it succeeds or is out of attempts. */
  async function retry(event: WebhookEvent): Promise<void> {
    while (event.succeeded === null && !event.skipped && !closing.signal.aborted) {
      await pause(backoffMs(event.attempts.length), stopSignal(event))
      await attempt(event)
    }
  }

  /** Half to all of the doubling wait, by chance, as Polar's queue does. */
  function backoffMs(attempts: number): number {
    const longest = Math.min(limits.backoffMs * 2 ** attempts, limits.backoffMaxMs)
    return (longest * (1 + Math.random())) / 2 / options.timeScale
  }

  async function attempt(event: WebhookEvent): Promise<void> {
    const { endpoint } = event
    if (!endpoint || closing.signal.aborted) return
    if (!endpoint.enabled) {
      event.skipped = true
      return
    }
    event.skipped = false
    const outcome = await post(signedRequest(event, endpoint.url))
    event.attempts.push({ id: randomUUID(), at: timestamp(now()), ...outcome })
    if (outcome.succeeded) event.succeeded = true
    else if (event.attempts.length >= limits.attemptsMax && event.succeeded === null) {
      event.succeeded = false
      switchOffIfDead(endpoint)
    }
  }

  async function post(request: Request) {
    try {
      const response = await Promise.race([deliver(request), timeout(request.signal)])
      const text = (await response.text()).slice(0, RESPONSE_CHARACTERS_MAX)
      return { status: response.status, response: text || null, succeeded: response.ok }
    } catch (error) {
      return { status: null, response: String(error), succeeded: false }
    }
  }

  function switchOffIfDead(endpoint: models.WebhookEndpoint): void {
    const finished = events.filter((event) => event.endpoint === endpoint && event.succeeded !== null)
    const last = finished.slice(-limits.failuresMax)
    if (last.length < limits.failuresMax || last.some(({ succeeded }) => succeeded)) return
    endpoint.enabled = false
    for (const event of events) {
      if (event.endpoint === endpoint && event.succeeded === null) event.skipped = true
    }
    switchedOff.get(endpoint.id)?.abort()
    switchedOff.delete(endpoint.id)
  }

  function stopSignal({ endpoint }: WebhookEvent): AbortSignal {
    if (!endpoint) return closing.signal
    const controller = switchedOff.get(endpoint.id) ?? new AbortController()
    switchedOff.set(endpoint.id, controller)
    return controller.signal
  }

  /** A wait that ends early, and quietly, by `signal` or when the shop closes. */
  async function pause(ms: number, signal: AbortSignal): Promise<void> {
    await sleep(ms, undefined, { signal: AbortSignal.any([signal, closing.signal]) }).catch(() => undefined)
  }

  function track(work: Promise<void>): void {
    const tracked: Promise<void> = work.finally(() => running.delete(tracked))
    running.add(tracked)
  }

  /** A signed attempt to deliver `event`, for whoever wants to send it by hand: late, twice or in another order. */
  function signedRequest(event: WebhookEvent, url: string, attempt: { timestampSeconds?: number } = {}): Request {
    const { id, body, endpoint } = event
    const scheme =
      endpoint && !endpoint.uses_standard_webhook_signature ? 'legacy' : endpoint ? 'standard' : options.scheme
    const timestampSeconds = attempt.timestampSeconds ?? Math.floor(Date.now() / 1000)
    const headers = signedHeaders({ id, body, timestampSeconds, secret: endpoint?.secret ?? options.secret, scheme })
    const signal = AbortSignal.any([AbortSignal.timeout(limits.timeoutMs), closing.signal])
    return new Request(url, { method: 'POST', headers, body, redirect: 'manual', signal })
  }

  const announced: readonly WebhookEvent[] = events
  return {
    /** What the shop announced, oldest first; the oldest of very many are dropped. */
    events: announced,
    signedRequest,
    publish,
    /** With `hold` nothing more is sent until the mode is `deliver` again; then what was held goes out in its order. */
    get mode() {
      return mode
    },
    set mode(next: 'deliver' | 'hold') {
      if (mode === 'hold' && next === 'deliver') {
        const held = events.filter(
          ({ attempts, skipped, succeeded }) => !attempts.length && !skipped && succeeded === null,
        )
        for (const event of held) if (!turns.has(event)) start(event)
      }
      mode = next
    },
    /** Sends an event again, succeeded or not; an endpoint that is switched off gets nothing. */
    redeliver(event: WebhookEvent): void {
      track(attempt(event).then(() => retry(event)))
    },
    /** Resolves once nothing is on its way and no attempt is to come. */
    async settled(): Promise<void> {
      while (running.size > 0) await Promise.all(running)
    },
    async close(): Promise<void> {
      closing.abort()
      await Promise.all(running)
    },
  }
}

async function timeout(signal: AbortSignal): Promise<never> {
  return await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
}
