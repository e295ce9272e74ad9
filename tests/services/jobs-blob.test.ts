// Results of jobs too large for a reply in Vercel Blob: by their address, deleted with the job, and in the row where the store does not take them.
import { sql } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { claimJob } from '../../lib/jobs/claim.ts'
import { runJob } from '../../lib/jobs/run.ts'
import { givenAccount } from '../support/accounts.ts'
import { type App, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { type BlobStub, startBlobStub } from '../support/blob-stub.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import {
  allQuiet,
  askFor,
  callsOf,
  JOB_PRICE,
  jobOnRecord,
  jobRow,
  ordered,
  outcomeOf,
  UNHINDERED,
} from '../support/jobs.ts'
import { leaveTokens, ledgerViolations, usageRows } from '../support/money.ts'

const CRON_SECRET = 'the-secret-of-the-scheduler'
/** Noise of this size is a PNG of over 4 MB. */
const LARGE = { kind: 'ok', widthPx: 2100, heightPx: 2000 } as const

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let store: BlobStub
let user: TestUser

beforeAll(async () => {
  stub = await startGeminiStub()
  store = await startBlobStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    ...UNHINDERED,
    CRON_SECRET,
    ...store.variables,
  })
  user = await givenUser(app)
})

afterAll(async () => {
  await stub.close()
  await store.close()
})

beforeEach(async () => {
  await allQuiet()
  await leaveTokens(user.id, 1_000)
  store.answer = undefined
  store.files.clear()
  store.calls.length = 0
  stub.behave(LARGE)
})

const sweep = async () => (await call(app, 'POST /api/jobs/sweep', { token: CRON_SECRET })).json
const forgetNow = async (id: string) => await sql`update jobs set expires_at = now() where id = ${id}`.execute(db())

test('a result too large for a reply is in the store, under an address that names it, and not in the row', async () => {
  const id = await ordered(app, user)
  const { json } = await outcomeOf(app, user, id)
  expect(json.result).toMatchObject({
    resultUrl: expect.stringContaining(store.url),
    mimeType: 'image/png',
    width: 2100,
  })
  expect(json.result).not.toHaveProperty('result')
  expect((await jobRow(id)).result).toBeNull()
  const picture = await askFor(app, user, id, { headers: { accept: 'image/png' } })
  expect([picture.status, picture.headers.get('location')]).toEqual([303, json.result.resultUrl])
  const [[name, file] = []] = [...store.files]
  expect(`${store.url}/${name}`).toBe(json.result.resultUrl)
  expect(file?.bytes.toString('latin1', 1, 4)).toBe('PNG')
})

test('a result that fits a reply is in the row', async () => {
  stub.behave({ kind: 'ok' })
  const { json } = await outcomeOf(app, user, await ordered(app, user))
  expect(json).toMatchObject({ status: 'succeeded', result: { result: expect.any(String), width: 64 } })
  expect(store.calls).toEqual([])
})

test('a result that the store does not take is in the row, made smaller', async () => {
  store.answer = (_call, response) => {
    response.writeHead(503).end()
    return true
  }
  const id = await ordered(app, user)
  const { json } = await outcomeOf(app, user, id)
  expect(json).toMatchObject({ status: 'succeeded', result: { result: expect.any(String), reencoded: true } })
})

test('what is forgotten is deleted from the store, later where that cannot be reached', async () => {
  const id = await ordered(app, user)
  await outcomeOf(app, user, id)
  await forgetNow(id)
  store.answer = (asked, response) => {
    if (!asked.includes('/delete')) return false
    response.writeHead(503).end()
    return true
  }
  expect((await sweep()).jobsForgotten).toBe(0)
  expect((await jobRow(id)).result_url).not.toBeNull()
  store.answer = undefined
  expect((await sweep()).jobsForgotten).toBe(1)
  expect(store.files.size).toBe(0)
})

test('a job that was cancelled meanwhile leaves nothing in the store', async () => {
  stub.requests.length = 0
  stub.behave({ ...LARGE, delayMs: 500 })
  const requestId = crypto.randomUUID()
  const id = await ordered(app, user, { headers: { 'x-request-id': requestId } })
  await expect.poll(() => stub.requests.length, { timeout: 30_000 }).toBe(1)
  await call(app, `DELETE /api/jobs/${id}`, { token: user.token })
  await expect.poll(async () => (await callsOf(requestId)).length, { timeout: 30_000 }).toBe(1)
  expect(store.calls.some((asked) => asked.startsWith('PUT /'))).toBe(true)
  await expect.poll(() => store.files.size, { timeout: 30_000 }).toBe(0)
  expect((await jobRow(id)).result_url).toBeNull()
})

test('a result whose end was kept, but its answer lost, stays in the store', async () => {
  expectErrorsInLog()
  const account = await givenAccount()
  await leaveTokens(account.id, 2 * JOB_PRICE)
  const id = await jobOnRecord(account)
  const job = await claimJob()
  expect(job?.id).toBe(id)
  expect(job && (await losingTheAnswerOfItsEnd(() => runJob(job)))).toEqual({ kind: 'succeeded' })
  const { status, result_url } = await jobRow(id)
  expect([status, [...store.files.keys()].map((name) => `${store.url}/${name}`)]).toEqual(['succeeded', [result_url]])
  expect(await usageRows(account.id)).toMatchObject([{ tokens_used: JOB_PRICE, response_status: 'success' }])
  expect(await ledgerViolations()).toEqual([])
})

/** The first end of a job is committed without a word, and the next transaction finds no connection. */
async function losingTheAnswerOfItsEnd<T>(work: () => Promise<T>): Promise<T> {
  const { query } = pg.Client.prototype
  let lost: 'nothing' | 'commit' | 'begin' | 'done' = 'nothing'
  const losing = async (client: pg.Client, text: unknown, values: unknown) => {
    if (lost === 'begin' && text === 'begin') {
      lost = 'done'
      throw new Error('There is no connection.')
    }
    const answer = await Reflect.apply(query, client, [text, values])
    const isEnd = String(text).startsWith('update "jobs"') && Array.isArray(values) && values.includes('succeeded')
    if (lost === 'nothing' && isEnd) lost = 'commit'
    if (lost !== 'commit' || text !== 'commit') return answer
    lost = 'begin'
    throw new Error('The connection was lost.')
  }
  pg.Client.prototype.query = function (this: pg.Client, ...args: [pg.QueryConfig | string, ...unknown[]]) {
    return Reflect.apply(losing, undefined, [this, ...args])
  }
  try {
    return await work()
  } finally {
    pg.Client.prototype.query = query
    expect(lost).toBe('done')
  }
}
