// Lives of customers at the pretend Polar: what they buy and get back, month after month, by a seed.
import type { models, Polar } from '@polar-sh/sdk/2026-10'
import type { WebhookEvent } from '../../scripts/loopback-polar/delivery.ts'
import type { LoopbackPolar } from '../../scripts/loopback-polar/server.ts'
import { ACTS } from './chaos-acts.ts'
import { type Chance, chanceOf } from './chaos-chance.ts'

export const MINUTE_MS = 60_000
export const HOUR_MS = 60 * MINUTE_MS
export const DAY_MS = 24 * HOUR_MS

/** One shop, its clock and what it sells. */
export interface World {
  loopback: LoopbackPolar
  polar: Polar
  clock: { nowMs: number }
  /** Days are counted back from here: half a day before now, so that nothing ends while the tests look at it. */
  todayMs: number
  products: Record<'tokens' | 'starter' | 'family' | 'pro' | 'enterprise' | 'euros' | 'mug', string>
}

export interface Person {
  userId: string
  email: string
}

/** What a few people do. Another life of the same seed is the same but for its ids. */
export interface Life {
  world: World
  chance: Chance
  people: [Person, ...Person[]]
  /** Of every e-mail address in this life, and of no other. */
  domain: string
  orders: models.Order[]
  subscriptions: models.Subscription[]
  refunds: models.Refund[]
  disputes: models.Dispute[]
  /** What Polar announced, oldest first. */
  events: WebhookEvent[]
  /** Names of what happened. */
  acts: string[]
  /** When each burst of acts began. */
  bursts: number[]
}

export function beginLife(
  world: World,
  seed: number,
  { people, domain }: { people: [Person, ...Person[]]; domain: string },
): Life {
  const lists = { orders: [], subscriptions: [], refunds: [], disputes: [], events: [], acts: [], bursts: [] }
  return { world, people, domain, chance: chanceOf(seed), ...lists }
}

/** A few bursts of acts between two days before today; subscriptions are renewed, or not, when their time comes. */
export async function live(life: Life, { fromDay, toDay }: { fromDay: number; toDay: number }): Promise<void> {
  const { chance, world } = life
  await observed(life, async () => {
    const days = Array.from({ length: chance.integer(2, 3) }, () => chance.integer(toDay, fromDay))
    for (const day of days.sort((a, b) => b - a)) {
      // Later than all before, whatever the day; bursts of one day follow each other by hours.
      const at = Math.max(world.todayMs - day * DAY_MS, (life.bursts.at(-1) ?? 0) + 2 * HOUR_MS)
      await renewUntil(life, at)
      life.bursts.push(at)
      for (let act = chance.integer(1, 3); act > 0; act -= 1) {
        world.clock.nowMs += chance.integer(1, 12) * MINUTE_MS
        await actOnce(life)
      }
    }
    await renewUntil(life, world.todayMs - toDay * DAY_MS + HOUR_MS * 20)
  })
}

async function actOnce(life: Life): Promise<void> {
  const possible = ACTS.flatMap(({ name, weight, prepare }) => {
    const run = prepare(life)
    return run ? Array.from({ length: weight }, () => ({ name, run })) : []
  })
  const drawn = life.chance.any(possible)
  if (!drawn) throw new Error('There is nothing to do.')
  life.acts.push(drawn.name)
  await drawn.run()
  gather(life)
}

/** What time alone brings, in its order. */
async function renewUntil(life: Life, untilMs: number): Promise<void> {
  const { chance, world } = life
  const { shop } = world.loopback
  for (;;) {
    const [due] = life.subscriptions
      .filter(({ status, current_period_end }) => isBillable(status) && Date.parse(current_period_end) <= untilMs)
      .sort((a, b) => Date.parse(a.current_period_end) - Date.parse(b.current_period_end))
    if (!due) break
    world.clock.nowMs = Math.max(world.clock.nowMs + MINUTE_MS, Date.parse(due.current_period_end))
    if (due.status === 'past_due' && !due.cancel_at_period_end) {
      life.acts.push('end of dunning')
      shop.revoke(due.id)
    } else if (due.cancel_at_period_end) {
      life.acts.push('end of period')
      shop.endPeriod(due.id)
    } else {
      const charge = chance.happens(0.6) ? 'ok' : 'fail'
      life.acts.push(`renewal ${charge}`)
      shop.renew(due.id, charge)
    }
    gather(life)
  }
  world.clock.nowMs = Math.max(world.clock.nowMs, untilMs)
}

export function isBillable(status: models.SubscriptionStatus): boolean {
  return status === 'active' || status === 'past_due'
}

/** The shop's clock and its events are this life's alone while it goes on. */
async function observed(life: Life, work: () => Promise<void>): Promise<void> {
  const { deliveries } = life.world.loopback
  life.world.clock.nowMs = (life.bursts.at(-1) ?? 0) + HOUR_MS
  const last = deliveries.events.at(-1)
  await work()
  life.events.push(...deliveries.events.slice(last ? deliveries.events.lastIndexOf(last) + 1 : 0))
}

/** The shop's objects are in the order of their making, and all but the newest are known. */
function gather(life: Life): void {
  const { shop } = life.world.loopback
  const isOurs = ({ email }: { email?: string | null }) => email?.endsWith(`@${life.domain}`) ?? false
  collect(life.orders, shop.orders, ({ customer }) => isOurs(customer))
  collect(life.subscriptions, shop.subscriptions, ({ customer }) => isOurs(customer))
  const orderIds = new Set(life.orders.map(({ id }) => id))
  collect(life.refunds, shop.refunds, ({ order_id }) => orderIds.has(order_id))
  collect(life.disputes, shop.disputes, ({ order_id }) => orderIds.has(order_id))
}

function collect<T extends { id: string }>(
  known: T[],
  objects: ReadonlyMap<string, T>,
  isOurs: (object: T) => boolean,
): void {
  const ids = new Set(known.map(({ id }) => id))
  for (const object of objects.values()) if (!ids.has(object.id) && isOurs(object)) known.push(object)
}
