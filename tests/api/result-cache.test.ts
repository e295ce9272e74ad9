// Results kept to be given again: what counts as the same, who gets them, what a hit costs, and that nothing depends on it.
import { sql } from 'kysely'
import sharp from 'sharp'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, balanceOf, call, givenUser, photo, processImage, startApp, type TestUser } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens, ledgerViolations, usageRows } from '../support/money.ts'

let app: App
let gemini: Awaited<ReturnType<typeof startGeminiStub>>
let user: TestUser

beforeAll(async () => {
  gemini = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'a key of the tests',
    GEMINI_BASE_URL: gemini.url,
    FORK__AI__CACHE_SECONDS: '3600',
    FORK__TOOLS__0__CACHED_PRICE_TOKENS: '10',
    FORK__TOOLS__0__PROVIDERS: '["gemini", "sketch"]',
    CRON_SECRET: 'the-secret-of-the-scheduler',
  })
  return gemini.close
})

beforeEach(async () => {
  gemini.behave({ kind: 'ok' })
  await db().deleteFrom('result_cache').execute()
  user = await givenUser(app)
  await leaveTokens(user.id, 1000)
  gemini.requests.length = 0
})

const rows = () => db().selectFrom('result_cache').selectAll().execute()
const spent = async (who = user) => 1000 - (await balanceOf(app, who)).tokens

describe('the same order again', () => {
  test('gets the same bytes for the lower price, and no provider is asked', async () => {
    const first = await processImage(app, user)
    const second = await processImage(app, user)
    expect(first.json).toMatchObject({ cached: false, usage: { tokens: 100 } })
    expect(second.json).toMatchObject({
      cached: true,
      cost: 0,
      usage: { tokens: 10, images: 1, trial: false },
      provider: 'gemini',
      model: first.json.model,
      fallback: { used: false, failed: [] },
    })
    const { result, mimeType, width, height } = first.json
    expect(second.json).toMatchObject({ result, mimeType, width, height })
    expect(gemini.requests).toHaveLength(1)
    expect(await spent()).toBe(110)
    const usage = await usageRows(user.id)
    expect(usage.map((row) => [row.cached, row.tokens_used, Number(row.cost_micro_usd), row.response_status])).toEqual([
      [false, 100, expect.any(Number), 'success'],
      [true, 10, 0, 'success'],
    ])
    expect(Number(usage[0]?.cost_micro_usd)).toBeGreaterThan(0)
    expect(await ledgerViolations()).toEqual([])
  })

  test('counts the picture without its metadata, and says the same in every form of reply', async () => {
    const tagged = await sharp(photo()).toBuffer()
    const described = await sharp(photo())
      .withExif({ IFD0: { Copyright: 'somebody' } })
      .toBuffer()
    expect(described.equals(tagged)).toBe(false)
    const first = await processImage(app, user, { image: tagged })
    const bytes = await processImage(app, user, { image: described, headers: { accept: 'image/*' } })
    expect(bytes.headers.get('x-cached')).toBe('true')
    expect(bytes.headers.get('x-cost')).toBe('0')
    expect(bytes.bytes.toString('base64')).toBe(first.json.result)
  })

  test('is replayed, not looked up, under its Idempotency-Key', async () => {
    const headers = { 'idempotency-key': crypto.randomUUID() }
    await processImage(app, user)
    const hit = await processImage(app, user, { headers })
    const replay = await processImage(app, user, { headers })
    expect(hit.json.cached).toBe(true)
    expect(replay.json).toEqual(hit.json)
    expect(await spent()).toBe(110)
  })

  test.each([
    { what: 'another picture', query: '', image: () => photo('coffee') },
    { what: 'another quality', query: '?quality=high', image: () => photo() },
    { what: 'another format', query: '?format=webp', image: () => photo() },
    { what: 'another option', query: '?detail=detailed', image: () => photo() },
  ])('is another one with $what', async ({ query, image }) => {
    await processImage(app, user)
    expect((await processImage(app, user, { query, image: image() })).json.cached).toBe(false)
    expect(gemini.requests).toHaveLength(2)
    expect((await processImage(app, user, { query, image: image() })).json.cached).toBe(true)
  })

  test('is made again when its time is over, whatever the sweep does', async () => {
    await processImage(app, user)
    await db().updateTable('result_cache').set({ expires_at: sql<Date>`now()` }).execute()
    expect((await processImage(app, user)).json.cached).toBe(false)
    expect(await rows()).toHaveLength(1)
    expect((await processImage(app, user)).json.cached).toBe(true)
  })

  test('never meets what was made for another user', async () => {
    const other = await givenUser(app, 'Eve')
    await leaveTokens(other.id, 1000)
    await processImage(app, user)
    const theirs = await processImage(app, other)
    expect(theirs.json).toMatchObject({ cached: false, usage: { tokens: 100 } })
    expect(gemini.requests).toHaveLength(2)
    expect(await rows()).toHaveLength(2)
  })

  test('twenty times at once is right every time and keeps one row', async () => {
    await leaveTokens(user.id, 3000)
    const replies = await Promise.all(Array.from({ length: 20 }, () => processImage(app, user)))
    const hits = replies.filter(({ json }) => json.cached).length
    expect(new Set(replies.map(({ status, json }) => `${status} ${json.result}`)).size).toBe(1)
    expect(gemini.requests).toHaveLength(20 - hits)
    expect(3000 - (await balanceOf(app, user)).tokens).toBe((20 - hits) * 100 + hits * 10)
    expect(await rows()).toHaveLength(1)
    expect(await ledgerViolations()).toEqual([])
    expect((await processImage(app, user)).json.cached).toBe(true)
  })

  test('is refused like any other without the tokens', async () => {
    await processImage(app, user)
    await leaveTokens(user.id, 9)
    const { status, json } = await processImage(app, user)
    expect({ status, required: json.error.details.required }).toEqual({ status: 402, required: 10 })
  })
})

describe('an order that names its provider', () => {
  test('meets only what that provider made', async () => {
    await processImage(app, user)
    expect((await processImage(app, user, { query: '?provider=sketch' })).json).toMatchObject({
      cached: false,
      provider: 'sketch',
    })
    expect((await processImage(app, user, { query: '?provider=sketch' })).json).toMatchObject({
      cached: true,
      provider: 'sketch',
    })
    expect((await processImage(app, user, { query: '?provider=gemini' })).json).toMatchObject({
      cached: true,
      provider: 'gemini',
    })
    expect(gemini.requests).toHaveLength(1)
  })
})

test('what another provider made in the place of the first one is not kept', async () => {
  gemini.behave({ kind: 'status', status: 400 })
  expect((await processImage(app, user)).json).toMatchObject({ provider: 'sketch', fallback: { used: true } })
  expect(await rows()).toEqual([])
  gemini.behave({ kind: 'ok' })
  expect((await processImage(app, user)).json).toMatchObject({ provider: 'gemini', cached: false })
})

test('a cache that cannot be read or written fails no request', async () => {
  await sql`alter table result_cache rename to result_cache_gone`.execute(db())
  try {
    const { status, json } = await processImage(app, user)
    expect({ status, cached: json.cached }).toEqual({ status: 200, cached: false })
    expect(await spent()).toBe(100)
  } finally {
    await sql`alter table result_cache_gone rename to result_cache`.execute(db())
  }
})

test('the sweep drops what is over and nothing else', async () => {
  await processImage(app, user)
  await processImage(app, user, { query: '?quality=high' })
  const [first] = await rows()
  await db()
    .updateTable('result_cache')
    .set({ expires_at: sql<Date>`now()` })
    .where('key', '=', first?.key ?? '')
    .execute()
  const { json } = await call(app, 'POST /api/jobs/sweep', { token: 'the-secret-of-the-scheduler' })
  expect(json.resultsDeleted).toBe(1)
  expect(await rows()).toHaveLength(1)
})

test('the export counts what is kept of a user, and the purge leaves none of it', async () => {
  await processImage(app, user)
  const { json } = await call(app, 'GET /api/user/export', { token: user.token })
  expect(json.keptResults).toEqual([
    expect.objectContaining({ type: 'image/png', provider: 'gemini', bytes: expect.any(Number) }),
  ])
  await call(app, 'DELETE /api/user/profile', { token: user.token, body: { password: user.password } })
  await db().updateTable('users').set({ purge_after: sql<Date>`now()` }).where('id', '=', user.id).execute()
  await call(app, 'POST /api/jobs/sweep', { token: 'the-secret-of-the-scheduler' })
  expect(await rows()).toEqual([])
})
