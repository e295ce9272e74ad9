// Who works on jobs and when, on real PostgreSQL: few at a time, nobody while nobody can be asked, and none in a server that stops.
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type ClaimedJob, claimJob } from '../../lib/jobs/claim.ts'
import { runJob } from '../../lib/jobs/run.ts'
import { startWork, workDue } from '../../lib/jobs/worker.ts'
import { setSwitch } from '../../lib/switches.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, startApp } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import {
  askFor,
  hurry,
  JOB_PRICE,
  jobOnRecord,
  jobRow,
  jobsByStatus,
  lapseLeases,
  UNHINDERED,
} from '../support/jobs.ts'
import { leaveTokens, ledgerViolations } from '../support/money.ts'
import { startServer } from '../support/server.ts'

const BY_TEST = { actor: { type: 'system' as const } }

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let user: Account

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    ...UNHINDERED,
  })
})

afterAll(() => stub.close())

beforeEach(async () => {
  stub.behave({ kind: 'ok' })
  stub.requests.length = 0
  await db().deleteFrom('jobs').execute()
  user = await givenAccount()
  await leaveTokens(user.id, 20 * JOB_PRICE)
})

async function claimed(): Promise<ClaimedJob> {
  const job = await claimJob()
  if (!job) throw new Error('No job is due.')
  return job
}

describe('a job for which nobody can be asked', () => {
  const switchGemini = async (off: boolean) => await setSwitch('gemini', { off, reason: 'A test.' }, BY_TEST)

  test('waits, longer each time, without losing a try, and is made when somebody can', async () => {
    const id = await jobOnRecord(user)
    await switchGemini(true)
    try {
      for (let round = 0; round < 5; round += 1) {
        expect(await runJob(await claimed())).toMatchObject({ kind: 'retry' })
        expect(await jobRow(id)).toMatchObject({ status: 'queued', attempts: 0 })
        await hurry()
      }
      await sql`update jobs set started_at = now() - interval '200 seconds' where id = ${id}`.execute(db())
      const ending = await runJob(await claimed())
      expect(ending.kind === 'retry' ? ending.afterMs : 0).toBeGreaterThanOrEqual(100_000)
    } finally {
      await switchGemini(false)
    }
    await hurry()
    expect(await runJob(await claimed())).toEqual({ kind: 'succeeded' })
    expect(await jobRow(id)).toMatchObject({ status: 'succeeded', attempts: 1 })
    expect(stub.requests).toHaveLength(1)
  })

  test('loses its tries after half an hour, and fails with the reason', async () => {
    const id = await jobOnRecord(user)
    await switchGemini(true)
    try {
      expect(await runJob(await claimed())).toMatchObject({ kind: 'retry' })
      await sql`update jobs set started_at = now() - interval '31 minutes' where id = ${id}`.execute(db())
      for (const attempts of [1, 2]) {
        await hurry()
        expect(await runJob(await claimed())).toMatchObject({ kind: 'retry' })
        expect(await jobRow(id)).toMatchObject({ status: 'queued', attempts })
      }
      await hurry()
      expect(await runJob(await claimed())).toEqual({ kind: 'failed' })
    } finally {
      await switchGemini(false)
    }
    expect(await jobRow(id)).toMatchObject({ status: 'failed', error: { code: 'PROVIDER_UNAVAILABLE' } })
    expect(await ledgerViolations()).toEqual([])
  })

  test('waits no longer than it lives', async () => {
    const id = await jobOnRecord(user)
    await switchGemini(true)
    try {
      const job = await claimed()
      await sql`
        update jobs set started_at = now() - interval '1 minute', expires_at = now() + interval '1 second' where id = ${id}
      `.execute(db())
      expect(await runJob(job)).toMatchObject({ kind: 'retry' })
    } finally {
      await switchGemini(false)
    }
    await expect.poll(async () => (await claimJob())?.verdict, { timeout: 20_000 }).toBe('expired')
  })

  test('still loses a try with each worker that dies of it', async () => {
    const id = await jobOnRecord(user)
    await switchGemini(true)
    try {
      expect(await runJob(await claimed())).toMatchObject({ kind: 'retry' })
    } finally {
      await switchGemini(false)
    }
    await hurry()
    for (const attempts of [1, 2, 3]) {
      expect(await claimed()).toMatchObject({ id, attempts, verdict: 'work' })
      await lapseLeases()
    }
    expect(await claimed()).toMatchObject({ id, verdict: 'exhausted' })
  })
})

describe('workers', () => {
  const JOBS = 12
  const WORKERS = 4

  const counts = async () => {
    const { running = 0, succeeded = 0 } = await jobsByStatus()
    return { running, succeeded }
  }

  test('are never more than a few, however many tries are due at the same time', async () => {
    for (let n = 0; n < JOBS; n += 1) await jobOnRecord(user)
    stub.behave([
      ...Array.from({ length: JOBS }, () => ({ kind: 'status', status: 400 }) as const),
      ...Array.from({ length: JOBS }, () => ({ kind: 'ok', delayMs: 1_000 }) as const),
    ])
    await Promise.all([workDue(60_000), ...Array.from({ length: JOBS }, () => startWork())])
    expect(stub.requests.length).toBe(JOBS)
    let peak = 0
    const done = async () => {
      const { running, succeeded } = await counts()
      peak = Math.max(peak, running)
      return succeeded
    }
    await expect.poll(done, { timeout: 50_000, interval: 20 }).toBe(JOBS)
    expect(peak).toBeGreaterThan(0)
    expect(peak).toBeLessThanOrEqual(WORKERS)
    expect(await ledgerViolations()).toEqual([])
  })

  test('whose time is over make room for others, and leave nobody waiting', async () => {
    for (let n = 0; n < 3 * WORKERS; n += 1) await jobOnRecord(user)
    stub.behave({ kind: 'ok', delayMs: 2_000 })
    const last = workDue(0)
    await expect.poll(async () => (await counts()).running, { timeout: 20_000, interval: 20 }).toBe(WORKERS)
    await startWork()
    await expect.poll(async () => (await counts()).running, { timeout: 20_000, interval: 20 }).toBeGreaterThan(WORKERS)
    expect(await last).toBe(WORKERS)
    await expect.poll(async () => (await counts()).succeeded, { timeout: 50_000 }).toBe(3 * WORKERS)
  })

  test('of a server that stops end what they have begun, and begin nothing more', async () => {
    stub.behave([{ kind: 'status', status: 400 }])
    const server = await startServer(app.stores)
    const first = await jobOnRecord(user)
    await askFor(server, user, first)
    await expect.poll(async () => (await jobRow(first)).attempts, { timeout: 30_000 }).toBe(1)
    await expect.poll(async () => (await jobRow(first)).status, { timeout: 30_000 }).toBe('queued')
    stub.behave({ kind: 'ok', delayMs: 3_000 })
    for (let n = 0; n < JOBS; n += 1) await jobOnRecord(user)
    const { rows } = await sql<{ id: string }>`select id from jobs where id <> ${first} limit 1`.execute(db())
    await askFor(server, user, rows[0]?.id ?? '')
    await expect.poll(() => stub.requests.length, { timeout: 30_000 }).toBeGreaterThan(1)
    await server.stop()
    const { running, succeeded } = await counts()
    expect([running, succeeded > 0, succeeded < JOBS]).toEqual([0, true, true])
  })
})
