// Two workers, lost leases and cancelled work on real PostgreSQL: whoever ends a job ends it alone, and every token is where it belongs.
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { exportOf } from '../../lib/auth/export.ts'
import { deleteAccount, suspendAccount } from '../../lib/auth/lifecycle.ts'
import { purgeAccount } from '../../lib/auth/purge.ts'
import { cancelJobs } from '../../lib/jobs/cancel.ts'
import { type ClaimedJob, claimJob } from '../../lib/jobs/claim.ts'
import { forgetJobs } from '../../lib/jobs/forget.ts'
import { runJob } from '../../lib/jobs/run.ts'
import { setSwitch } from '../../lib/switches.ts'
import { defaultTool } from '../../lib/tools/catalogue.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { startApp } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { callsOf, hurry, jobOnRecord, jobRow, lapseLeases, JOB_PRICE as PRICE, UNHINDERED } from '../support/jobs.ts'
import { leaveTokens, ledgerViolations, usageRows } from '../support/money.ts'
import { startWebhookReceiver } from '../support/webhook-receiver.ts'

const BY_TEST = { actor: { type: 'system' as const } }

let stub: Awaited<ReturnType<typeof startGeminiStub>>
let receiver: Awaited<ReturnType<typeof startWebhookReceiver>>
let user: Account

beforeAll(async () => {
  stub = await startGeminiStub()
  receiver = await startWebhookReceiver()
  await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    ...UNHINDERED,
    ...receiver.variables,
  })
})

afterAll(async () => {
  await stub.close()
  await receiver.close()
})

beforeEach(async () => {
  stub.behave({ kind: 'ok' })
  stub.requests.length = 0
  await db().deleteFrom('jobs').execute()
  user = await givenAccount()
  await leaveTokens(user.id, 10 * PRICE)
})

const givenJob = async ({ of = user }: { of?: Account } = {}) => await jobOnRecord(of)

async function claimed(): Promise<ClaimedJob> {
  const job = await claimJob()
  if (!job) throw new Error('No job is due.')
  return job
}

async function balance(of = user) {
  const { rows } = await sql<{ tokens: number; held: number }>`
    select b.tokens, (select coalesce(sum(held), 0)::int from ledger_lot where user_id = ${of.id}) as held
      from ledger_balance(${of.id}) b
  `.execute(db())
  return rows[0]
}

const events = async (id: string) => {
  const rows = await db().selectFrom('outgoing_webhooks').select('type').where('unique_key', '=', `job:${id}`).execute()
  return rows.map(({ type }) => type)
}

const costOf = (rows: { cost_micro_usd: number }[]) => rows.reduce((sum, row) => sum + row.cost_micro_usd, 0)

const cancelAll = async (of = user) =>
  await db()
    .transaction()
    .execute((trx) => cancelJobs(trx, of.id))

describe('a claim', () => {
  test('gives each job to one worker, however many ask at the same time', async () => {
    const ids = await Promise.all(Array.from({ length: 5 }, () => givenJob()))
    const jobs = await Promise.all(Array.from({ length: 20 }, () => claimJob()))
    const given = jobs.flatMap((job) => (job ? [job.id] : []))
    expect(given.sort()).toEqual(ids.sort())
  })

  test('takes over from a worker whose lease has run out, and not before', async () => {
    const id = await givenJob()
    const first = await claimed()
    expect(await claimJob()).toBeUndefined()
    await lapseLeases()
    const second = await claimed()
    expect([second.id, second.attempts, first.attempts]).toEqual([id, 2, 1])
    expect(second.lease).not.toBe(first.lease)
  })

  test('waits while making images is switched off, and still ends what is past its time', async () => {
    const [waiting, late] = [await givenJob(), await givenJob()]
    await sql`update jobs set expires_at = now() where id = ${late}`.execute(db())
    await setSwitch('generate', { off: true, reason: 'A test.' }, BY_TEST)
    try {
      const job = await claimed()
      expect(job).toMatchObject({ id: late, verdict: 'expired' })
      expect(await runJob(job)).toEqual({ kind: 'failed' })
      expect(await claimJob()).toBeUndefined()
      expect((await jobRow(waiting)).status).toBe('queued')
    } finally {
      await setSwitch('generate', { off: false, reason: 'The test is over.' }, BY_TEST)
    }
    expect(await claimed()).toMatchObject({ id: waiting, verdict: 'work' })
  })
})

describe('a lost lease', () => {
  test('leaves the end to the other worker: one charge, one event, and both calls with their cost on record', async () => {
    const id = await givenJob()
    stub.behave([{ kind: 'ok', delayMs: 800 }, { kind: 'ok' }])
    const first = await claimed()
    const slow = runJob(first)
    await expect.poll(() => stub.requests.length, { timeout: 20_000 }).toBe(1)
    await lapseLeases()
    expect(await runJob(await claimed())).toEqual({ kind: 'succeeded' })
    const { finished_at, lease } = await jobRow(id)
    expect(await slow).toEqual({ kind: 'lost' })
    expect(await jobRow(id)).toMatchObject({ status: 'succeeded', attempts: 2, finished_at, lease })
    const [usage, calls] = [await usageRows(user.id), await callsOf(first.requestId)]
    expect(usage).toMatchObject([
      { job_id: id, response_status: 'success', tokens_used: PRICE },
      { job_id: id, response_status: 'error', error_code: 'TAKEN_OVER', tokens_used: 0, provider: 'gemini' },
    ])
    expect([calls.length, costOf(calls) > 0, costOf(usage)]).toEqual([2, true, costOf(calls)])
    expect(await events(id)).toEqual(['job.succeeded'])
    expect(await balance()).toEqual({ tokens: 9 * PRICE, held: 0 })
    expect(await ledgerViolations()).toEqual([])
  })

  test.each([
    ['for good', { kind: 'promptBlocked', delayMs: 500 }],
    ['for now', { kind: 'status', status: 400, delayMs: 500 }],
  ] as const)('is noticed by whoever failed %s, too: the job stays with the other worker', async (_how, behaviour) => {
    const id = await givenJob()
    stub.behave([behaviour])
    const slow = runJob(await claimed())
    await expect.poll(() => stub.requests.length, { timeout: 20_000 }).toBe(1)
    await lapseLeases()
    const second = await claimed()
    expect(await slow).toEqual({ kind: 'lost' })
    expect(await jobRow(id)).toMatchObject({ status: 'running', attempts: 2, lease: second.lease })
    expect(await balance()).toEqual({ tokens: 9 * PRICE, held: PRICE })
    expect(await runJob(second)).toEqual({ kind: 'succeeded' })
    expect(await ledgerViolations()).toEqual([])
  })
})

describe('a job whose workers die', () => {
  test('is not begun again after its tries, but fails and gives back', async () => {
    const id = await givenJob()
    for (const attempts of [1, 2, 3]) {
      expect(await claimed()).toMatchObject({ id, attempts, verdict: 'work' })
      await lapseLeases()
    }
    const last = await claimed()
    expect(last).toMatchObject({ id, attempts: 3, verdict: 'exhausted' })
    expect(await runJob(last)).toEqual({ kind: 'failed' })
    expect(await jobRow(id)).toMatchObject({ status: 'failed', attempts: 3, error: { code: 'INTERNAL_ERROR' } })
    expect(stub.requests).toEqual([])
    expect(await claimJob()).toBeUndefined()
    expect(await balance()).toEqual({ tokens: 10 * PRICE, held: 0 })
    expect(await events(id)).toEqual(['job.failed'])
  })
})

describe('a job that the configuration of now does not know', () => {
  test.each([
    ['a tool', { tool: 'gone' }, 'NOT_FOUND'],
    ['an option', { options: '{"quality":"standard","format":"bmp"}' }, 'VALIDATION_FAILED'],
  ])('for %s that is gone fails at once, asks no provider and gives back', async (_what, columns, code) => {
    await db()
      .insertInto('tools')
      .values({ name: 'gone', description: 'Was offered once.', api_endpoint: 'builtin:gone' })
      .onConflict((conflict) => conflict.doNothing())
      .execute()
    const id = await givenJob()
    await db().updateTable('jobs').set(columns).where('id', '=', id).execute()
    expect(await runJob(await claimed())).toEqual({ kind: 'failed' })
    expect(await jobRow(id)).toMatchObject({ status: 'failed', attempts: 1, error: { code } })
    expect(stub.requests).toEqual([])
    expect(await balance()).toEqual({ tokens: 10 * PRICE, held: 0 })
    expect(await usageRows(user.id)).toMatchObject([{ response_status: 'error', error_code: code, job_id: id }])
  })

  test('for a provider that the tool has no longer is made by another', async () => {
    const id = await givenJob()
    await db().updateTable('jobs').set({ provider: 'openai' }).where('id', '=', id).execute()
    expect(await runJob(await claimed())).toEqual({ kind: 'succeeded' })
    expect((await jobRow(id)).facts).toMatchObject({ provider: 'gemini' })
  })
})

describe('a hold that is gone', () => {
  test('is no result for free: the job fails', async () => {
    const id = await givenJob()
    const job = await claimed()
    await sql`select ledger_close(${id}, 0, 'expired')`.execute(db())
    expect(await runJob(job)).toEqual({ kind: 'failed' })
    expect(await jobRow(id)).toMatchObject({ status: 'failed', result: null, error: { code: 'PROVIDER_TIMEOUT' } })
    expect(await callsOf(job.requestId)).toMatchObject([{ outcome: 'ok' }])
    expect(await balance()).toEqual({ tokens: 10 * PRICE, held: 0 })
  })
})

/** Lets the database refuse the next ends of jobs. A sequence keeps counting when its transaction is undone. */
async function refuseEnds(times: number, status: 'succeeded' | 'failed' = 'succeeded'): Promise<void> {
  await sql`
    drop sequence if exists job_ends cascade;
    create sequence job_ends;
    create or replace function refuse_end() returns trigger language plpgsql as $$
    begin
      if new.status = ${sql.lit(status)} and nextval('job_ends') <= ${sql.lit(times)} then raise exception 'refused'; end if;
      return new;
    end $$;
    create or replace trigger refuse_end before update on jobs for each row execute function refuse_end();
  `.execute(db())
}

describe('a result that cannot be kept', () => {
  test('at first is kept at the second try, and made and charged once', async () => {
    const id = await givenJob()
    await refuseEnds(1)
    expect(await runJob(await claimed())).toEqual({ kind: 'succeeded' })
    expect(await jobRow(id)).toMatchObject({ status: 'succeeded', attempts: 1 })
    expect(stub.requests).toHaveLength(1)
    expect(await balance()).toEqual({ tokens: 9 * PRICE, held: 0 })
    expect(await usageRows(user.id)).toHaveLength(1)
  })

  test('is made again later, charged once, and has the cost of both in its usage row', async () => {
    expectErrorsInLog()
    const id = await givenJob()
    await refuseEnds(2)
    const first = await claimed()
    expect(await runJob(first)).toMatchObject({ kind: 'retry' })
    expect(await balance()).toEqual({ tokens: 9 * PRICE, held: PRICE })
    await hurry()
    expect(await runJob(await claimed())).toEqual({ kind: 'succeeded' })
    expect(await jobRow(id)).toMatchObject({ status: 'succeeded', attempts: 2 })
    const calls = await callsOf(first.requestId)
    const cost = costOf(calls)
    expect([calls.length, cost > 0]).toEqual([2, true])
    expect(await usageRows(user.id)).toMatchObject([{ tokens_used: PRICE, cost_micro_usd: cost }])
    expect(await ledgerViolations()).toEqual([])
  })

  test('because it is kept already, in an end whose answer was lost, is not charged again', async () => {
    const id = await givenJob()
    const job = await claimed()
    for (let end = 0; end < 2; end += 1) expect(await runJob(job)).toEqual({ kind: 'succeeded' })
    expect(await usageRows(user.id)).toHaveLength(1)
    expect(await events(id)).toEqual(['job.succeeded'])
    expect(await balance()).toEqual({ tokens: 9 * PRICE, held: 0 })
    expect(await ledgerViolations()).toEqual([])
  })
})

describe('a failure that cannot be put on record', () => {
  test('at first is at the second try, once', async () => {
    const id = await givenJob()
    stub.behave([{ kind: 'promptBlocked' }])
    await refuseEnds(1, 'failed')
    const job = await claimed()
    expect(await runJob(job)).toEqual({ kind: 'failed' })
    expect(await jobRow(id)).toMatchObject({ status: 'failed', attempts: 1, error: { code: 'CONTENT_BLOCKED' } })
    expect(await callsOf(job.requestId)).toHaveLength(1)
    expect(await usageRows(user.id)).toHaveLength(1)
    expect(await events(id)).toEqual(['job.failed'])
    expect(await balance()).toEqual({ tokens: 10 * PRICE, held: 0 })
  })
})

describe('a cancelled job', () => {
  test('and its end take turns: charged and there, or given back and gone', async () => {
    const counts = { succeeded: 0, cancelled: 0 }
    for (let round = 0; round < 20; round += 1) {
      const id = await givenJob()
      const before = await balance()
      stub.behave([{ kind: 'ok', delayMs: 10 }])
      const running = runJob(await claimed())
      await new Promise((resolve) => setTimeout(resolve, 5 + round * 4))
      const [ending, cancelled] = await Promise.all([running, cancelAll()])
      const { status } = await jobRow(id)
      expect([ending.kind, cancelled]).toEqual(status === 'succeeded' ? ['succeeded', 0] : ['lost', 1])
      expect(await balance()).toEqual({ tokens: (before?.tokens ?? 0) + (status === 'succeeded' ? 0 : PRICE), held: 0 })
      expect(await events(id)).toEqual([`job.${status}`])
      counts[status as keyof typeof counts] += 1
      if (status === 'succeeded') await leaveTokens(user.id, 10 * PRICE)
    }
    expect(counts.succeeded + counts.cancelled).toBe(20)
    expect(await ledgerViolations()).toEqual([])
  })
})

describe('a job that is cancelled while it is worked on', () => {
  test('has what its picture cost in its usage, and no tokens', async () => {
    const id = await givenJob()
    stub.behave([{ kind: 'ok', delayMs: 500 }])
    const job = await claimed()
    const running = runJob(job)
    await expect.poll(() => stub.requests.length, { timeout: 20_000 }).toBe(1)
    expect(await cancelAll()).toBe(1)
    expect(await running).toEqual({ kind: 'lost' })
    const [usage, calls] = [await usageRows(user.id), await callsOf(job.requestId)]
    const cancelled = { job_id: id, response_status: 'error', error_code: 'CANCELLED', tokens_used: 0 }
    expect(usage).toMatchObject([{ ...cancelled, cost_micro_usd: 0 }, cancelled])
    expect([calls.length, costOf(calls) > 0, costOf(usage)]).toEqual([1, true, costOf(calls)])
    expect(await balance()).toEqual({ tokens: 10 * PRICE, held: 0 })
  })
})

describe('an account', () => {
  const within = (act: (trx: Parameters<typeof suspendAccount>[0]) => Promise<unknown>) =>
    db().transaction().execute(act)

  test.each([
    ['suspended', suspendAccount],
    ['deleted', deleteAccount],
  ] as const)('that is %s has its jobs cancelled at once, running ones too', async (_status, act) => {
    const [running, waiting] = [await givenJob(), await givenJob()]
    stub.behave([{ kind: 'ok', delayMs: 300 }])
    const job = runJob(await claimed())
    await within((trx) => act(trx, user.id, BY_TEST))
    expect([(await jobRow(running)).status, (await jobRow(waiting)).status]).toEqual(['cancelled', 'cancelled'])
    expect(await balance()).toEqual({ tokens: 10 * PRICE, held: 0 })
    expect(await job).toEqual({ kind: 'lost' })
    expect(await claimJob()).toBeUndefined()
  })

  test('that is purged leaves nothing of what its jobs were about', async () => {
    const other = await givenAccount()
    await leaveTokens(other.id, PRICE)
    const [mine, theirs] = [await givenJob(), await givenJob({ of: other })]
    for (const _ of [mine, theirs]) await runJob(await claimed())
    await within((trx) => deleteAccount(trx, user.id, BY_TEST))
    await sql`update users set purge_after = now() where id = ${user.id}`.execute(db())
    expect(await purgeAccount(user.id)).toBe(true)
    expect(await jobRow(mine)).toMatchObject({ input: null, result: null, facts: null, error: null, options: {} })
    expect((await jobRow(theirs)).result).not.toBeNull()
    expect(await forgetJobs(10)).toBe(1)
    expect((await db().selectFrom('jobs').select('id').execute()).map(({ id }) => id)).toEqual([theirs])
  })

  test('has its jobs in its export, and nobody else’s', async () => {
    const other = await givenAccount()
    await leaveTokens(other.id, PRICE)
    const [mine] = [await givenJob(), await givenJob({ of: other })]
    for (let n = 0; n < 2; n += 1) await runJob(await claimed())
    const { jobs } = JSON.parse(await new Response(await exportOf(db(), user.id)).text())
    expect(jobs).toMatchObject([
      { id: mine, status: 'succeeded', attempts: 1, tool: defaultTool().name, facts: { provider: 'gemini' } },
    ])
  })
})
