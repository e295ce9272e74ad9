// Work that is answered later, from the order to the result: its forms, its failures, its tries, and who may see it.
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, balanceOf, call, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { askFor, callsOf, hurry, jobRow, order, ordered, outcomeOf, UNHINDERED, waitsAfter } from '../support/jobs.ts'
import { leaveTokens, ledgerViolations, suspend, usageRows } from '../support/money.ts'

const PRICE = 100
const CRON_SECRET = 'the-secret-of-the-scheduler'

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let user: TestUser
let other: TestUser

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    ...UNHINDERED,
    // So that nobody waits long for what hangs.
    FORK__AI__PROVIDER_TIMEOUT_MS: '5000',
    CRON_SECRET,
  })
  user = await givenUser(app)
  other = await givenUser(app)
})

afterAll(() => stub.close())

beforeEach(async () => {
  stub.behave({ kind: 'ok' })
  await leaveTokens(user.id, 10 * PRICE)
})

const cancel = (id: string, by = user) => call(app, `DELETE /api/jobs/${id}`, { token: by.token })
const tokens = async () => (await balanceOf(app, user)).tokens
const sweep = async () => (await call(app, 'POST /api/jobs/sweep', { token: CRON_SECRET })).json

describe('an order with Prefer: respond-async', () => {
  test('is answered with 202 and where to ask, and then has what POST /api/process-image answers', async () => {
    const reply = await order(app, user)
    expect(reply.status).toBe(202)
    expect(reply.json).toEqual({ jobId: expect.any(String), status: 'queued' })
    const { jobId } = reply.json
    expect(reply.headers.get('location')).toBe(`/api/jobs/${jobId}`)
    expect(reply.headers.get('preference-applied')).toBe('respond-async')

    const { json } = await outcomeOf(app, user, jobId)
    const now = (await processImage(app, user)).json
    expect(json).toEqual({
      id: jobId,
      status: 'succeeded',
      tool: expect.any(String),
      attempts: 1,
      createdAt: expect.any(String),
      startedAt: expect.any(String),
      finishedAt: expect.any(String),
      result: {
        ...now,
        processingTime: expect.any(Number),
        balance: { trialGenerations: 0, tokens: 9 * PRICE },
        requestId: reply.headers.get('x-request-id'),
      },
    })
    expect(await tokens()).toBe(8 * PRICE)
    expect(await ledgerViolations()).toEqual([])
  })

  test('is answered with the picture itself where that is asked for', async () => {
    const id = await ordered(app, user, { query: '?format=webp' })
    const { json } = await outcomeOf(app, user, id)
    const picture = await askFor(app, user, id, { headers: { accept: 'image/*' } })
    expect(picture.headers.get('content-type')).toBe('image/webp')
    expect(picture.bytes.toString('base64')).toBe(json.result.result)
  })

  test.each(['text/plain', 'image/png, text/event-stream', 'application/json'])(
    'is answered in JSON to who accepts %s',
    async (accept) => {
      const id = await ordered(app, user)
      const { json } = await outcomeOf(app, user, id)
      const reply = await askFor(app, user, id, { headers: { accept } })
      expect(reply.headers.get('content-type')).toContain('application/json')
      expect(reply.json).toEqual(json)
    },
  )

  test('spends a trial generation where there is one, and gives it back after a failure', async () => {
    const fresh = await givenUser(app)
    const { trialGenerations } = await balanceOf(app, fresh)
    const { json } = await outcomeOf(app, fresh, await ordered(app, fresh))
    expect(json.result.usage).toEqual({ tokens: 0, images: 1, trial: true })
    stub.behave({ kind: 'promptBlocked' })
    await outcomeOf(app, fresh, await ordered(app, fresh))
    expect((await balanceOf(app, fresh)).trialGenerations).toBe(trialGenerations - 1)
  })

  test('says when to ask again while it is not done, and holds the price meanwhile', async () => {
    stub.behave({ kind: 'hang' })
    const id = await ordered(app, user)
    const { json, headers } = await askFor(app, user, id, { headers: { accept: 'image/*' } })
    expect(['queued', 'running']).toContain(json.status)
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
    expect(json).not.toHaveProperty('result')
    expect(await balanceOf(app, user)).toMatchObject({ tokens: 9 * PRICE, reservedTokens: PRICE })
    expect((await cancel(id)).status).toBe(200)
  })

  test('is one usage row under the id of its request, and names the job', async () => {
    const requestId = crypto.randomUUID()
    const id = await ordered(app, user, { headers: { 'x-request-id': requestId } })
    await outcomeOf(app, user, id)
    const rows = (await usageRows(user.id)).filter(({ request_id }) => request_id === requestId)
    expect(rows).toMatchObject([{ job_id: id, response_status: 'success', tokens_used: PRICE, provider: 'gemini' }])
    expect(await callsOf(requestId)).toMatchObject([{ provider: 'gemini', outcome: 'ok' }])
    expect(Number(rows[0]?.cost_micro_usd)).toBeGreaterThan(0)
  })

  test('drops the photo when it ends', async () => {
    const id = await ordered(app, user)
    await outcomeOf(app, user, id)
    expect(await jobRow(id)).toMatchObject({ input: null, input_text: null, status: 'succeeded' })
  })

  test('keeps a picture that is too large for a reply as a smaller one', async () => {
    stub.behave({ kind: 'ok', widthPx: 2100, heightPx: 2000 })
    const { json } = await outcomeOf(app, user, await ordered(app, user))
    const { result, reencoded, mimeType } = json.result
    expect({ status: json.status, reencoded }).toEqual({ status: 'succeeded', reencoded: true })
    expect(result.length).toBeLessThan(4_400_000)
    expect(mimeType).not.toBe('image/png')
  })
})

describe('a job that fails', () => {
  test('for good is not tried again, says why, and costs nothing', async () => {
    stub.behave({ kind: 'promptBlocked' })
    const id = await ordered(app, user)
    const { json } = await outcomeOf(app, user, id)
    expect(json).toMatchObject({
      status: 'failed',
      attempts: 1,
      error: { code: 'CONTENT_BLOCKED', message: expect.any(String), details: { provider: 'gemini' } },
    })
    expect(json).not.toHaveProperty('result')
    expect(await tokens()).toBe(10 * PRICE)
    expect(await ledgerViolations()).toEqual([])
  })

  test('for now is tried again, later each time, and charged once', async () => {
    stub.behave({ kind: 'status', status: 400 })
    const requestId = crypto.randomUUID()
    const id = await ordered(app, user, { headers: { 'x-request-id': requestId } })
    await waitsAfter(id, 1)
    const waiting = await askFor(app, user, id)
    expect(waiting.json).toMatchObject({ status: 'queued', attempts: 1 })
    expect(Number(waiting.headers.get('retry-after'))).toBeGreaterThan(1)
    stub.behave({ kind: 'ok' })
    const { json } = await outcomeOf(app, user, id)
    expect(json).toMatchObject({ status: 'succeeded', attempts: 2, result: { usage: { tokens: PRICE } } })
    expect((await callsOf(requestId)).map(({ outcome }) => outcome)).toEqual(['bad_request', 'ok'])
    expect(await tokens()).toBe(9 * PRICE)
  })

  test('each time stops after its tries, with the last failure, and gives back', async () => {
    stub.behave({ kind: 'status', status: 400 })
    const requestId = crypto.randomUUID()
    const { json } = await outcomeOf(app, user, await ordered(app, user, { headers: { 'x-request-id': requestId } }))
    expect(json).toMatchObject({ status: 'failed', attempts: 3, error: { code: 'PROVIDER_ERROR' } })
    expect((await callsOf(requestId)).map(({ outcome }) => outcome)).toEqual(Array(3).fill('bad_request'))
    expect(await tokens()).toBe(10 * PRICE)
    const rows = (await usageRows(user.id)).filter(({ request_id }) => request_id === requestId)
    expect(rows).toMatchObject([{ response_status: 'error', error_code: 'PROVIDER_ERROR', tokens_used: 0 }])
  })

  test('after attempts that were billed has all of them in its cost', async () => {
    stub.behave([{ kind: 'finish', reason: 'OTHER', billedTokens: 1290 }])
    const requestId = crypto.randomUUID()
    const { json } = await outcomeOf(app, user, await ordered(app, user, { headers: { 'x-request-id': requestId } }))
    const spent = (await callsOf(requestId)).reduce((sum, call) => sum + call.cost_micro_usd, 0)
    expect(json.status).toBe('succeeded')
    expect(json.result.cost).toBe(spent / 1e6)
    const [row] = (await usageRows(user.id)).filter(({ request_id }) => request_id === requestId)
    expect(row?.cost_micro_usd).toBe(spent)
  })
})

describe('DELETE /api/jobs/:id', () => {
  test('gives back at once, and the job stays cancelled although the provider answers', async () => {
    stub.requests.length = 0
    stub.behave({ kind: 'ok', delayMs: 700 })
    const requestId = crypto.randomUUID()
    const id = await ordered(app, user, { headers: { 'x-request-id': requestId } })
    await expect.poll(() => stub.requests.length, { timeout: 30_000 }).toBe(1)
    expect((await cancel(id)).json).toEqual({ id, status: 'cancelled' })
    expect(await balanceOf(app, user)).toMatchObject({ tokens: 10 * PRICE, reservedTokens: 0 })
    await expect.poll(async () => (await callsOf(requestId)).length, { timeout: 30_000 }).toBe(1)
    const { json } = await askFor(app, user, id)
    expect(json).toMatchObject({ id, status: 'cancelled', finishedAt: expect.any(String) })
    expect(json).not.toHaveProperty('result')
    expect(await tokens()).toBe(10 * PRICE)
    expect(await ledgerViolations()).toEqual([])
  })

  test.each(['succeeded', 'cancelled'] as const)('refuses what has %s', async (status) => {
    stub.behave(status === 'cancelled' ? { kind: 'hang' } : { kind: 'ok' })
    const id = await ordered(app, user)
    if (status === 'cancelled') await cancel(id)
    await outcomeOf(app, user, id)
    const before = await tokens()
    const { status: code, json } = await cancel(id)
    expect([code, json.error.code, json.error.details]).toEqual([409, 'CONFLICT', { status }])
    expect(await tokens()).toBe(before)
  })
})

describe('a job is its owner’s alone', () => {
  test('to others there is none, nor at an address that is no id', async () => {
    const id = await ordered(app, user)
    await outcomeOf(app, user, id)
    for (const reply of [
      await askFor(app, other, id),
      await cancel(id, other),
      await askFor(app, user, crypto.randomUUID()),
      await askFor(app, user, 'no-id'),
      await cancel('no-id'),
    ]) {
      expect([reply.status, reply.json.error.code]).toEqual([404, 'NOT_FOUND'])
    }
    expect((await call(app, `GET /api/jobs/${id}`)).status).toBe(401)
    expect((await call(app, 'GET /api/jobs', { token: other.token })).json.data).toEqual([])
  })

  test('a list shows them page by page, without results', async () => {
    const fresh = await givenUser(app)
    await leaveTokens(fresh.id, 10 * PRICE)
    const ids = []
    for (let n = 0; n < 3; n += 1) ids.unshift(await ordered(app, fresh))
    for (const id of ids) await outcomeOf(app, fresh, id)
    const first = (await call(app, 'GET /api/jobs?limit=2', { token: fresh.token })).json
    const rest = (await call(app, `GET /api/jobs?limit=2&cursor=${first.page.nextCursor}`, { token: fresh.token })).json
    expect([...first.data, ...rest.data].map(({ id }: { id: string }) => id)).toEqual(ids)
    expect([first.page.hasMore, rest.page.hasMore]).toEqual([true, false])
    expect(first.data[0]).toEqual({
      id: ids[0],
      status: 'succeeded',
      tool: expect.any(String),
      attempts: 1,
      createdAt: expect.any(String),
      startedAt: expect.any(String),
      finishedAt: expect.any(String),
    })
    const failed = await call(app, 'GET /api/jobs?status=failed', { token: fresh.token })
    expect(failed.json.data).toEqual([])
    expect((await call(app, 'GET /api/jobs?status=lost', { token: fresh.token })).status).toBe(400)
  })

  test('an administrator sees everybody’s, without pictures', async () => {
    const id = await ordered(app, user)
    await outcomeOf(app, user, id)
    const hidden = await call(app, 'GET /api/admin/jobs', { token: user.token })
    expect([hidden.status, hidden.json.error.code]).toEqual([404, 'NOT_FOUND'])
    const admin = await givenUser(app, 'Grace')
    await db().updateTable('users').set({ role: 'admin' }).where('id', '=', admin.id).execute()
    const { json } = await call(app, `GET /api/admin/jobs?status=succeeded&user=${user.id}&limit=1`, {
      token: admin.token,
    })
    expect(json.data).toMatchObject([{ id, userId: user.id, status: 'succeeded', attempts: 1 }])
    expect(JSON.stringify(json)).not.toContain('result')
  })

  test('a suspended owner’s are cancelled and given back', async () => {
    const fresh = await givenUser(app)
    await leaveTokens(fresh.id, PRICE)
    stub.behave({ kind: 'status', status: 400 })
    const id = await ordered(app, fresh)
    await waitsAfter(id, 1)
    await suspend(fresh.id)
    stub.behave({ kind: 'ok' })
    await hurry()
    await expect
      .poll(
        async () => {
          await sweep()
          return (await jobRow(id)).status
        },
        { timeout: 30_000 },
      )
      .toBe('cancelled')
    const { rows } = await sql<{ tokens: number }>`select tokens from ledger_balance(${fresh.id})`.execute(db())
    expect(rows).toEqual([{ tokens: PRICE }])
  })
})

describe('the sweep', () => {
  test('works on what is due', async () => {
    stub.behave({ kind: 'status', status: 400 })
    const id = await ordered(app, user)
    await waitsAfter(id, 1)
    stub.behave({ kind: 'ok' })
    await hurry()
    expect(await sweep()).toMatchObject({ jobsEnded: 1 })
    expect((await jobRow(id)).status).toBe('succeeded')
  })

  test('gives up what was not done in its day', async () => {
    stub.behave({ kind: 'status', status: 400 })
    const id = await ordered(app, user)
    await waitsAfter(id, 1)
    await sql`update jobs set expires_at = now(), run_after = now() where id = ${id}`.execute(db())
    await sweep()
    const { json } = await askFor(app, user, id)
    expect(json).toMatchObject({ status: 'failed', error: { code: 'PROVIDER_TIMEOUT' } })
    expect(await tokens()).toBe(10 * PRICE)
  })

  test('forgets what was kept for its day, which nobody sees even before', async () => {
    const id = await ordered(app, user)
    await outcomeOf(app, user, id)
    await sql`update jobs set expires_at = now() where id = ${id}`.execute(db())
    expect((await askFor(app, user, id)).status).toBe(404)
    expect((await sweep()).jobsForgotten).toBeGreaterThan(0)
    expect(await db().selectFrom('jobs').select('id').where('id', '=', id).execute()).toEqual([])
  })
})
