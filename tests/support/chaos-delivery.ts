// How events reach the application: once and in order, or as badly as a network and faults of ours can make it.
import type { WebhookEvent } from '../../scripts/loopback-polar/delivery.ts'
import { POLAR_DELIVERY } from '../../scripts/loopback-polar/delivery.ts'
import type { App } from './app.ts'
import { type Chance, chanceOf } from './chaos-chance.ts'
import { anyPlace, type Fault, orderFaults } from './chaos-faults.ts'
import { HOUR_MS, type Life } from './chaos-history.ts'

export const WEBHOOK_URL = 'http://localhost/api/webhooks/polar'

const FAILING = 0.4
/** Lives of which nothing is lost for good: those need no sweep. */
const ALL_ARRIVES = 0.4
const NEVER_HANDLED = 0.03
const NEVER_SENT = 0.04
const DUPLICATED = 0.3
const SENT_LATE_AGAIN = 0.1
const HOUR_OFF = 0.7

/** What the chaos came to. */
export interface Tally {
  attempts: number
  failures: number
  duplicates: number
  /** Events that Polar never sent, or gave up. */
  lost: number
  givenUp: number
}

/** One attempt; true when it was answered 2xx, and so is the last. */
export async function deliver(app: Pick<App, 'fetch'>, life: Life, event: WebhookEvent): Promise<boolean> {
  const response = await app.fetch(life.world.loopback.deliveries.signedRequest(event, WEBHOOK_URL))
  await response.arrayBuffer()
  return response.ok
}

/** Throws unless each is taken at the first attempt. */
export async function deliverCleanly(app: App, life: Life, events: readonly WebhookEvent[]): Promise<void> {
  for (const event of events) {
    if (!(await deliver(app, life, event))) throw new Error(`${event.type} was refused: ${event.body}`)
  }
}

/** Twice, shuffled, failing, late or never; retried as often as Polar does, by when others have overtaken. */
export async function deliverInChaos(app: App, life: Life, from: number, seed: number): Promise<Tally> {
  const chance = chanceOf(seed)
  const { queue, lost, duplicates } = await chaosOf(life, from, chance)
  const tally: Tally = { attempts: 0, failures: 0, givenUp: 0, lost, duplicates }
  const attempts = new Map<WebhookEvent, number>()
  for (let event = queue.shift(); event; event = queue.shift()) {
    const attempt = (attempts.get(event) ?? 0) + 1
    attempts.set(event, attempt)
    tally.attempts += 1
    if (await deliver(app, life, event)) continue
    tally.failures += 1
    if (attempt < POLAR_DELIVERY.attemptsMax) queue.splice(chance.integer(0, queue.length), 0, event)
    else if (attempt === POLAR_DELIVERY.attemptsMax) tally.givenUp += 1
  }
  return tally
}

/** What is to arrive, in which order, with the faults that it will meet. */
export async function chaosOf(life: Life, from: number, chance: Chance) {
  const news = life.events.slice(from)
  const allArrives = chance.happens(ALL_ARRIVES)
  const sent = allArrives ? news : arriving(news, life.bursts, chance)
  await orderFaults(sent.flatMap((event) => faultsOf(event, chance, allArrives)))
  const old = life.events.slice(0, from).filter(() => chance.happens(SENT_LATE_AGAIN))
  const twice = sent.filter(() => chance.happens(DUPLICATED))
  const queue = outOfOrder(sent, chance)
  for (const event of [...old, ...twice]) queue.splice(chance.integer(0, queue.length), 0, event)
  return { sent, queue, lost: news.length - sent.length, duplicates: old.length + twice.length }
}

/** Without those of an hour in which the endpoint was switched off, and a few more. */
function arriving(events: WebhookEvent[], bursts: number[], chance: Chance): WebhookEvent[] {
  const first = Date.parse(events[0]?.createdAt ?? '')
  const offFrom = chance.happens(HOUR_OFF) ? chance.any(bursts.filter((burst) => burst + HOUR_MS > first)) : undefined
  const isSent = ({ createdAt }: WebhookEvent) => {
    const at = Date.parse(createdAt)
    const isOff = offFrom !== undefined && at >= offFrom && at < offFrom + HOUR_MS
    return !chance.happens(NEVER_SENT) && !isOff
  }
  return events.filter(isSent)
}

function faultsOf({ id: eventId }: WebhookEvent, chance: Chance, isTakenAtLast: boolean): Fault[] {
  const isNeverHandled = !isTakenAtLast && chance.happens(NEVER_HANDLED)
  if (isNeverHandled) return [{ eventId, attempt: 0, place: anyPlace(chance) }]
  const failing = isTakenAtLast ? POLAR_DELIVERY.attemptsMax - 1 : POLAR_DELIVERY.attemptsMax
  const attempts = Array.from({ length: failing }, (_, index) => index + 1)
  return attempts
    .filter(() => chance.happens(FAILING))
    .map((attempt) => ({ eventId, attempt, place: anyPlace(chance) }))
}

function outOfOrder(events: WebhookEvent[], chance: Chance): WebhookEvent[] {
  const order = chance.one(['any', 'any', 'nearly', 'backwards', 'as announced'])
  if (order === 'any') return chance.shuffled(events)
  if (order === 'backwards') return events.toReversed()
  if (order === 'as announced') return [...events]
  const places = events.map((event, index) => ({ event, place: index + chance.integer(0, 6) }))
  return places.sort((a, b) => a.place - b.place).map(({ event }) => event)
}
