// Jobs from outside: ordered, asked for until they end, and moved through time.
import { sql } from 'kysely'
import { expect } from 'vitest'
import { db } from '../../db/client.ts'
import { reserve } from '../../lib/ledger/holds.ts'
import { defaultTool, toolId } from '../../lib/tools/catalogue.ts'
import type { Account } from './accounts.ts'
import { type App, type CallOptions, call, photo, processImage, type Reply, type TestUser } from './app.ts'

/** So that neither a budget nor a circuit decides what a test of jobs meets. */
export const UNHINDERED = {
  FORK__AI__CIRCUIT_BREAKERS: 'false',
  FORK__AI__BUDGETS__DAILY_USD: '100000',
  FORK__AI__BUDGETS__MONTHLY_USD: '100000',
  FORK__AI__BUDGETS__FREE_TIER_DAILY_USD: '100000',
}

/** What a job on record holds. */
export const JOB_PRICE = 100

const ENDED = ['succeeded', 'failed', 'cancelled']

/** Orders a picture to be made later. */
export async function order(
  app: App,
  user: TestUser,
  options: Parameters<typeof processImage>[2] = {},
): Promise<Reply> {
  const headers = { prefer: 'respond-async', ...options.headers }
  return await processImage(app, user, { ...options, headers })
}

/** Orders one and returns its id. */
export async function ordered(app: App, user: TestUser, options: Parameters<typeof order>[2] = {}): Promise<string> {
  const { status, json } = await order(app, user, options)
  expect([status, json]).toEqual([202, { jobId: expect.any(String), status: 'queued' }])
  return json.jobId
}

export async function askFor(
  app: App,
  user: Pick<TestUser, 'token'>,
  id: string,
  options: CallOptions = {},
): Promise<Reply> {
  return await call(app, `GET /api/jobs/${id}`, { token: user.token, ...options })
}

/** Puts a job on record, its price held, that no worker has been told of. */
export async function jobOnRecord({ id: userId, sessionId }: Account): Promise<string> {
  await toolId(db(), defaultTool().name)
  const id = crypto.randomUUID()
  const held = await reserve(db(), { id, userId, sessionId, tokens: JOB_PRICE, ttlMs: 86_400_000 })
  expect(held.outcome).toBe('held')
  await db()
    .insertInto('jobs')
    .values({
      id,
      user_id: userId,
      request_id: crypto.randomUUID(),
      tool: defaultTool().name,
      options: JSON.stringify({ quality: 'standard', format: 'png' }),
      input: photo(),
      input_format: 'jpeg',
      input_width: 451,
      input_height: 300,
      hold_id: id,
      expires_at: sql<Date>`now() + interval '1 day'`,
    })
    .execute()
  return id
}

/** Asks until the job has ended, as a client does; what waits for its next try is tried at once. */
export async function outcomeOf(app: App, user: TestUser, id: string): Promise<Reply> {
  let reply = await askFor(app, user, id)
  const look = async () => {
    await hurry()
    reply = await askFor(app, user, id)
    return reply.json.status
  }
  await expect.poll(look, { timeout: 50_000, interval: 30 }).toSatisfy((status) => ENDED.includes(status))
  return reply
}

/** Moves the time of whatever waits for its next try to now. */
export async function hurry(): Promise<void> {
  await sql`update jobs set run_after = now() where status = 'queued' and run_after > now()`.execute(db())
}

/** Lets every lease run out, as time would once their workers are dead. */
export async function lapseLeases(): Promise<void> {
  await sql`update jobs set lease_until = now() - interval '1 second' where status = 'running'`.execute(db())
}

/** Resolves when the job waits for another try after so many attempts. */
export async function waitsAfter(id: string, attempts: number): Promise<void> {
  const state = async () => {
    const row = await jobRow(id)
    return `${row.status} after ${row.attempts}`
  }
  await expect.poll(state, { timeout: 50_000, interval: 20 }).toBe(`queued after ${attempts}`)
}

export async function jobRow(id: string) {
  return await db().selectFrom('jobs').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
}

export async function jobsByStatus(): Promise<Record<string, number>> {
  const rows = await db()
    .selectFrom('jobs')
    .select(['status', (eb) => eb.fn.countAll<number>().as('count')])
    .groupBy('status')
    .execute()
  return Object.fromEntries(rows.map(({ status, count }) => [status, count]))
}

export async function callsOf(requestId: string) {
  return await db().selectFrom('provider_calls').selectAll().where('request_id', '=', requestId).orderBy('id').execute()
}

/** Resolves when no job waits or runs any more. */
export async function allQuiet(): Promise<void> {
  const living = async () => {
    await hurry()
    const { queued = 0, running = 0 } = await jobsByStatus()
    return queued + running
  }
  await expect.poll(living, { timeout: 50_000, interval: 50 }).toBe(0)
}
