// Servers that die, with SIGKILL, while they handle webhooks; what they did not answer is delivered to the next one.
import { sql } from 'kysely'
import { expect } from 'vitest'
import { db } from '../../db/client.ts'
import { POLAR_DELIVERY, type WebhookEvent } from '../../scripts/loopback-polar/delivery.ts'
import { type App, call } from './app.ts'
import { type Chance, chanceOf } from './chaos-chance.ts'
import { chaosOf, deliver } from './chaos-delivery.ts'
import { anyPlace, liftFaults, orderFaults } from './chaos-faults.ts'
import type { Life } from './chaos-history.ts'
import { type ServerProcess, startServer } from './server.ts'

/** The name under which PostgreSQL lists the connections of the servers that are killed. */
const MORTAL = 'mortal'
const AT_ONCE = 4
const PAUSE_MS = 300
const KILL_AFTER_MAX_MS = 25

/** Delivers each life to a server of its own that is killed in the middle of it. Returns how many deliveries each death cut off. */
export async function deliverToTheMortal(
  app: App,
  lives: { life: Life; from: number; seed: number }[],
): Promise<number[]> {
  const interrupted: number[] = []
  let standby = startWarm(app)
  for (const [index, { life, from, seed }] of lives.entries()) {
    const servers = { first: await standby, next: startWarm(app) }
    const inTransaction = index % 2 === 0
    interrupted.push(await deliverAndKill(life, from, { servers, chance: chanceOf(seed), inTransaction }))
    standby = servers.next
  }
  await (await standby).kill()
  await expect.poll(mortalConnections, { timeout: 10_000 }).toBe(0)
  return interrupted
}

interface Death {
  servers: { first: ServerProcess; next: Promise<ServerProcess> }
  chance: Chance
  /** Whether the server dies while a transaction stands still at a certain place, or at any time. */
  inTransaction: boolean
}

async function deliverAndKill(life: Life, from: number, { servers, chance, inTransaction }: Death): Promise<number> {
  const { sent, queue } = await chaosOf(life, from, chance)
  const victim = chance.any(sent)
  if (!victim) return 0
  await liftFaults(victim.id)
  if (inTransaction) {
    await orderFaults([{ eventId: victim.id, attempt: 0, place: anyPlace(chance), pauseMs: PAUSE_MS }])
  }
  let server = Promise.resolve(servers.first)
  let interrupted = 0
  const attempts = new Map<WebhookEvent, number>()
  const kill = async () => {
    server = servers.next
    await servers.first.kill()
    await liftFaults(victim.id)
  }
  let death: Promise<void> | undefined
  const worker = async () => {
    for (let event = queue.shift(); event; event = queue.shift()) {
      const attempt = (attempts.get(event) ?? 0) + 1
      attempts.set(event, attempt)
      const answer = deliver(await server, life, event).catch(() => undefined)
      if (event === victim)
        death ??= (inTransaction ? pausing() : passing(chance.integer(1, KILL_AFTER_MAX_MS))).then(kill)
      const isTaken = await answer
      if (isTaken === undefined) interrupted += 1
      if (!isTaken && attempt < POLAR_DELIVERY.attemptsMax) queue.splice(chance.integer(0, queue.length), 0, event)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  await death
  return interrupted
}

/** Resolves while a server stands still inside the transaction of an event. */
async function pausing(): Promise<void> {
  const count = async () => {
    const { rows } = await sql<{ count: number }>`
      select count(*) from pg_stat_activity
        where datname = current_database() and application_name = ${MORTAL} and wait_event = 'PgSleep'
    `.execute(db())
    return rows[0]?.count
  }
  await expect.poll(count, { interval: 5, timeout: 20_000 }).toBe(1)
}

function passing(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** A server that has loaded its function: a request without a signature made it do so. */
async function startWarm({ stores }: App): Promise<ServerProcess> {
  const server = await startServer(stores, { PGAPPNAME: MORTAL })
  await call(server, 'POST /api/webhooks/polar', { body: {} })
  return server
}

async function mortalConnections(): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select count(*) from pg_stat_activity where datname = current_database() and application_name = ${MORTAL}
  `.execute(db())
  return rows[0]?.count ?? 0
}
