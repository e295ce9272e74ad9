// Workers that die in the middle of jobs, a hundred times: each job ends once, and every token is where it belongs.
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, balanceOf, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import {
  askFor,
  hurry,
  jobRow,
  jobsByStatus,
  lapseLeases,
  order,
  ordered,
  outcomeOf,
  UNHINDERED,
} from '../support/jobs.ts'
import { leaveTokens, ledgerViolations } from '../support/money.ts'
import { seed } from '../support/seed.ts'
import { type ServerProcess, startServer } from '../support/server.ts'
import { startWebhookReceiver } from '../support/webhook-receiver.ts'

const KILLS = 100
const ORDERS_PER_KILL = 3
const ATTEMPTS_MAX = 4
const START_TOKENS = 1_000_000
const PRICE = 100
const CRON_SECRET = 'secret-of-the-scheduler'
/** The name under which PostgreSQL lists the connections of the servers that are killed. */
const MORTAL = 'mortal'

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let receiver: Awaited<ReturnType<typeof startWebhookReceiver>>
let user: TestUser

beforeAll(async () => {
  stub = await startGeminiStub()
  receiver = await startWebhookReceiver()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    ...UNHINDERED,
    FORK__JOBS__ATTEMPTS_MAX: String(ATTEMPTS_MAX),
    FORK__JOBS__PER_USER_MAX: '10000',
    ...receiver.variables,
    CRON_SECRET,
  })
  user = await givenUser(app)
  await leaveTokens(user.id, START_TOKENS)
  await sql`
    create table job_ends (job_id uuid, status text);
    create function note_job_end() returns trigger language plpgsql as $$
    begin
      if new.finished_at is not null and (old.finished_at is distinct from new.finished_at or old.status <> new.status) then
        insert into job_ends values (new.id, new.status);
      end if;
      return new;
    end $$;
    create trigger note_job_end after update on jobs for each row execute function note_job_end();
  `.execute(db())
})

afterAll(async () => {
  await stub.close()
  await receiver.close()
})

const random = (max: number) => fc.noBias(fc.nat(max))

describe(`a worker killed ${KILLS} times (seed ${seed})`, () => {
  test('leaves jobs that others finish', { timeout: 600_000 }, async ({ annotate }) => {
    const behaviours = fc.sample(fc.record({ delayMs: random(150), blocked: fc.nat(9) }), {
      seed,
      numRuns: KILLS * ORDERS_PER_KILL * ATTEMPTS_MAX,
    })
    stub.behave(
      behaviours.map(({ delayMs, blocked }) =>
        blocked === 0 ? { kind: 'promptBlocked', delayMs } : { kind: 'ok', delayMs },
      ),
    )
    const orphaned = await killAgainAndAgain(fc.sample(random(250), { seed, numRuns: KILLS }))
    await expect.poll(mortalConnections, { timeout: 10_000 }).toBe(0)
    await annotate(`${orphaned} leases orphaned; ${JSON.stringify(await jobsByStatus())}`)
    expect(orphaned).toBeGreaterThan(KILLS / 2)

    stub.behave({ kind: 'ok' })
    await expect
      .poll(
        async () => {
          await lapseLeases()
          await hurry()
          await call(app, 'POST /api/jobs/sweep', { token: CRON_SECRET })
          const { queued = 0, running = 0 } = await jobsByStatus()
          return queued + running
        },
        { timeout: 240_000 },
      )
      .toBe(0)
  })

  test('has ended each of them once, and has told of it once, as it was', async () => {
    const { rows } = await sql<{ ends: string[]; status: string; types: string[] }>`
      select j.status, array(select e.status from job_ends e where e.job_id = j.id) as ends,
        array(select w.type from outgoing_webhooks w where w.unique_key = 'job:' || j.id) as types from jobs j
    `.execute(db())
    expect(rows.length).toBeGreaterThan(KILLS)
    for (const { ends, status, types } of rows)
      expect({ ends, types }).toEqual({ ends: [status], types: [`job.${status}`] })
  })

  test('has charged for each result once, and for nothing else', async () => {
    const { succeeded = 0, failed = 0 } = await jobsByStatus()
    expect(Math.min(succeeded, failed)).toBeGreaterThan(0)
    const { rows } = await sql<{ settled: number; voided: number; open: number; used: number; left: number }>`
      select (select count(*) from jobs j join ledger_hold h on h.id = j.hold_id and h.state = 'settled'
          and j.status = 'succeeded' and j.result is not null) as settled,
        (select count(*) from jobs j join ledger_hold h on h.id = j.hold_id and h.state = 'voided'
          and j.status = 'failed' and j.result is null) as voided,
        (select count(*) from ledger_hold where state = 'pending') as open,
        (select sum(tokens_used) from usage_logs) as used,
        (select tokens from ledger_balance(${user.id})) as left
    `.execute(db())
    expect(rows).toEqual([
      {
        settled: succeeded,
        voided: failed,
        open: 0,
        used: succeeded * PRICE,
        left: START_TOKENS - succeeded * PRICE,
      },
    ])
    expect(await ledgerViolations()).toEqual([])
  })

  test('has one usage row for each end, and never more attempts than there may be', async () => {
    const { rows } = await sql<{ attempts: number; usage: string[]; status: string }>`
      select attempts, j.status, array(select u.response_status from usage_logs u where u.job_id = j.id
        and u.error_code is distinct from 'TAKEN_OVER') as usage from jobs j
    `.execute(db())
    for (const { attempts, usage, status } of rows) {
      expect(usage).toEqual([status === 'succeeded' ? 'success' : 'error'])
      expect(attempts).toBeLessThanOrEqual(ATTEMPTS_MAX)
    }
    expect(Math.max(...rows.map(({ attempts }) => attempts))).toBeGreaterThan(1)
  })

  test('has the cost of every call on record in a usage row, whoever ended the job', async () => {
    const { rows } = await sql<{ calls: number; usage: number }>`
      select (select sum(cost_micro_usd) from provider_calls)::bigint as calls,
        (select sum(cost_micro_usd) from usage_logs)::bigint as usage
    `.execute(db())
    expect(rows).toEqual([{ calls: expect.any(Number), usage: rows[0]?.calls }])
  })
})

describe('a job that is there whenever its worker dies', () => {
  test('is begun as often as it may be, then fails, and gives back', async () => {
    stub.behave({ kind: 'hang' })
    const { tokens } = await balanceOf(app, user)
    let id = ''
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
      const server = await startWarm()
      stub.requests.length = 0
      if (attempt === 1) id = await ordered(server, user)
      else await askFor(server, user, id)
      await expect.poll(() => stub.requests.length, { timeout: 30_000 }).toBe(1)
      await server.kill()
      expect(await jobRow(id)).toMatchObject({ status: 'running', attempts: attempt })
      await lapseLeases()
    }
    stub.requests.length = 0
    stub.behave({ kind: 'ok' })
    const { json } = await outcomeOf(app, user, id)
    expect(json).toMatchObject({ status: 'failed', attempts: ATTEMPTS_MAX, error: { code: 'INTERNAL_ERROR' } })
    expect(stub.requests).toEqual([])
    expect(await balanceOf(app, user)).toMatchObject({ tokens, reservedTokens: 0 })
    expect(await ledgerViolations()).toEqual([])
  })

  test('needs nobody but the client that asks for it to be finished elsewhere', async () => {
    stub.behave([{ kind: 'hang' }])
    stub.requests.length = 0
    const server = await startWarm()
    const id = await ordered(server, user)
    await expect.poll(() => stub.requests.length, { timeout: 30_000 }).toBe(1)
    await server.kill()
    expect((await askFor(app, user, id)).json).toMatchObject({ status: 'running', attempts: 1 })
    await lapseLeases()
    const { json } = await outcomeOf(app, user, id)
    expect(json).toMatchObject({ status: 'succeeded', attempts: 2, result: { usage: { tokens: PRICE } } })
    const told = () => receiver.received.filter(({ event }) => event.data.jobId === id)
    await expect.poll(() => told().length, { timeout: 30_000 }).toBeGreaterThan(0)
    expect(told()[0]).toMatchObject({ signed: true, event: { type: 'job.succeeded', data: { attempts: 2 } } })
  })
})

/** Gives each server orders, and what the one before it left, and kills it in the middle. Returns how many leases were orphaned. */
async function killAgainAndAgain(delaysMs: number[]): Promise<number> {
  let orphaned = 0
  let standby = startWarm()
  for (const delayMs of delaysMs) {
    const server = await standby
    standby = startWarm()
    await lapseLeases()
    await hurry()
    const sent = Array.from({ length: ORDERS_PER_KILL }, () => order(server, user).catch(() => undefined))
    await Promise.any(sent)
    await new Promise((resolve) => setTimeout(resolve, delayMs))
    await server.kill()
    await Promise.all(sent)
    orphaned += (await jobsByStatus()).running ?? 0
    expect(server.output()).not.toContain('"level":"error"')
  }
  await (await standby).kill()
  return orphaned
}

/** A server that has loaded its function: a request that needs no store made it do so. */
async function startWarm(): Promise<ServerProcess> {
  const server = await startServer(app.stores, { PGAPPNAME: MORTAL })
  await call(server, 'POST /api/process-image')
  return server
}

async function mortalConnections(): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select count(*) from pg_stat_activity where datname = current_database() and application_name = ${MORTAL}
  `.execute(db())
  return rows[0]?.count ?? 0
}
