// Results of jobs in Vercel Blob: by their address, deleted with the job, and in the row where the store does not take them.
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { type BlobStub, startBlobStub } from '../support/blob-stub.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { allQuiet, askFor, callsOf, jobRow, ordered, outcomeOf, UNHINDERED } from '../support/jobs.ts'
import { leaveTokens } from '../support/money.ts'

const CRON_SECRET = 'the-secret-of-the-scheduler'

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
  stub.behave({ kind: 'ok' })
})

const sweep = async () => (await call(app, 'POST /api/jobs/sweep', { token: CRON_SECRET })).json
const forgetNow = async (id: string) => await sql`update jobs set expires_at = now() where id = ${id}`.execute(db())

test('a result is in the store, under an address that names it, and not in the row', async () => {
  const id = await ordered(app, user)
  const { json } = await outcomeOf(app, user, id)
  expect(json.result).toMatchObject({ resultUrl: expect.stringContaining(store.url), mimeType: 'image/png', width: 64 })
  expect(json.result).not.toHaveProperty('result')
  expect((await jobRow(id)).result).toBeNull()
  const picture = await askFor(app, user, id, { headers: { accept: 'image/png' } })
  expect([picture.status, picture.headers.get('location')]).toEqual([303, json.result.resultUrl])
  const [[name, file] = []] = [...store.files]
  expect(`${store.url}/${name}`).toBe(json.result.resultUrl)
  expect(file?.bytes.toString('latin1', 1, 4)).toBe('PNG')
})

test('a result that the store does not take is in the row', async () => {
  store.answer = (_call, response) => {
    response.writeHead(503).end()
    return true
  }
  const id = await ordered(app, user)
  const { json } = await outcomeOf(app, user, id)
  expect(json).toMatchObject({ status: 'succeeded', result: { result: expect.any(String) } })
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
  stub.behave({ kind: 'ok', delayMs: 500 })
  const requestId = crypto.randomUUID()
  const id = await ordered(app, user, { headers: { 'x-request-id': requestId } })
  await expect.poll(() => stub.requests.length, { timeout: 30_000 }).toBe(1)
  await call(app, `DELETE /api/jobs/${id}`, { token: user.token })
  await expect.poll(async () => (await callsOf(requestId)).length, { timeout: 30_000 }).toBe(1)
  expect(store.calls.some((asked) => asked.startsWith('PUT /'))).toBe(true)
  await expect.poll(() => store.files.size, { timeout: 30_000 }).toBe(0)
  expect((await jobRow(id)).result_url).toBeNull()
})
