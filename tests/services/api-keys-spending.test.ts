// Generating with a key on real PostgreSQL: what the client is told, and that the budget is exact over HTTP.
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import type { CallingKey } from '../../lib/auth/caller.ts'
import { reserve } from '../../lib/ledger/holds.ts'
import { defaultTool } from '../../lib/tools/catalogue.ts'
import { generate } from '../../lib/tools/generate.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, type CallOptions, call, photo, processImage, startApp } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens, ledgerViolations, usageRows } from '../support/money.ts'

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let user: Account

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    FORK__AI__CIRCUIT_BREAKERS: 'false',
  })
})

beforeEach(async () => {
  stub.behave({ kind: 'ok' })
  stub.requests.length = 0
  user = await givenAccount()
  await leaveTokens(user.id, 10_000)
})

afterEach(async () => {
  expect(await ledgerViolations()).toEqual([])
})

afterAll(() => stub.close())

interface Made {
  id: string
  key: string
}

async function givenKey(terms: Record<string, unknown>): Promise<Made> {
  const { json } = await call(app, 'POST /api/api-keys', { token: user.token, body: { name: 'CI', ...terms } })
  return json
}

const post = ({ key }: Made, options: CallOptions = {}) =>
  processImage(app, { ...user, token: key, password: '' }, options)
const shown = async () => (await call(app, 'GET /api/api-keys', { token: user.token })).json.data[0]

describe('generating with a key', () => {
  test('is charged to the user and to the budget, and the usage says which key it was', async () => {
    const key = await givenKey({ tokenBudget: 150 })
    const { status, json } = await post(key)
    expect(status).toBe(200)
    expect(json).toMatchObject({ usage: { tokens: 100 }, balance: { tokens: 9900 } })
    expect(await shown()).toMatchObject({ tokenBudget: 150, tokensUsed: 100 })
    await processImage(app, { ...user, password: '' })
    const { json: usage } = await call(app, 'GET /api/user/usage', { token: key.key })
    expect(usage.data).toMatchObject([
      { apiKeyId: null, tokens: 100 },
      { apiKeyId: key.id, tokens: 100 },
    ])
  })

  test('beyond the budget is refused in words of its own, before any provider is asked', async () => {
    const key = await givenKey({ tokenBudget: 150 })
    await post(key)
    stub.requests.length = 0
    const { status, json } = await post(key)
    expect(status).toBe(402)
    expect(json.error).toMatchObject({
      code: 'INSUFFICIENT_TOKENS',
      message: 'This needs 100 tokens; the budget of this API key has 50 left.',
    })
    expect(json.error.details).toEqual({
      required: 100,
      balance: 9900,
      apiKey: { tokenBudget: 150, tokensUsed: 100 },
    })
    expect(stub.requests).toEqual([])
    expect((await processImage(app, { ...user, password: '' })).status, 'the user goes on').toBe(200)
  })

  test('beyond the balance is refused as it is for anyone', async () => {
    const key = await givenKey({ tokenBudget: 150 })
    await leaveTokens(user.id, 99)
    const { status, json } = await post(key)
    expect(status).toBe(402)
    expect(json.error.details).toEqual({
      required: 100,
      balance: 99,
      missing: 1,
      checkoutPath: '/api/billing/checkout',
    })
  })

  test('fifty times at once under a budget for ten is done ten times', async () => {
    stub.behave({ kind: 'ok', delayMs: 30 })
    const key = await givenKey({ tokenBudget: 1099 })
    const replies = await Promise.all(Array.from({ length: 50 }, () => post(key)))
    const statuses = Object.groupBy(replies, ({ status }) => status)
    expect([statuses[200]?.length, statuses[402]?.length]).toEqual([10, 40])
    expect(stub.requests).toHaveLength(10)
    expect(await shown()).toMatchObject({ tokensUsed: 1000 })
  })

  test('costs the budget nothing when it fails', async () => {
    expectErrorsInLog()
    stub.behave({ kind: 'status', status: 503 })
    const key = await givenKey({ tokenBudget: 100 })
    for (const _ of [1, 2, 3]) expect((await post(key)).status).toBe(502)
    expect(await shown()).toMatchObject({ tokensUsed: 0 })
    expect((await usageRows(user.id)).map(({ api_key_id, tokens_used }) => [api_key_id, tokens_used])).toEqual(
      Array(3).fill([key.id, 0]),
    )
    stub.behave({ kind: 'ok' })
    expect((await post(key)).status).toBe(200)
  })

  test('costs the budget once, however often the request is repeated', async () => {
    const key = await givenKey({ tokenBudget: 1000 })
    const headers = { 'idempotency-key': 'once' }
    const first = await post(key, { headers })
    for (const _ of [1, 2]) expect((await post(key, { headers })).bytes).toEqual(first.bytes)
    expect(await shown()).toMatchObject({ tokensUsed: 100 })
  })

  test('gives back what a run that died held, when the request is repeated', async () => {
    const key = await givenKey({ tokenBudget: 100 })
    const headers = { 'idempotency-key': 'died' }
    stub.behave({ kind: 'status', status: 503 })
    expectErrorsInLog()
    expect((await post(key, { headers })).status).toBe(502)
    // As a process leaves it that ends in the middle of its second attempt.
    const { id, attempt } = await db()
      .updateTable('idempotency_keys')
      .set({ locked_until: sql<Date>`now()`, attempt: sql<number>`attempt + 1` })
      .where('user_id', '=', user.id)
      .where('key', '=', 'died')
      .returning(['id', 'attempt'])
      .executeTakeFirstOrThrow()
    const hold = { id: `${id}:${attempt}`, userId: user.id, sessionId: undefined, keyId: key.id }
    expect(await reserve(db(), { ...hold, tokens: 100, ttlMs: 600_000 })).toMatchObject({ outcome: 'held' })
    expect(await shown()).toMatchObject({ id: key.id, tokensUsed: 100 })
    stub.behave({ kind: 'ok' })
    expect((await post(key, { headers })).status).toBe(200)
    expect(await shown()).toMatchObject({ id: key.id, tokensUsed: 100 })
  })

  test('leaves the budget alone while there are trial generations', async () => {
    user = await givenAccount()
    const key = await givenKey({ tokenBudget: 1 })
    for (const _ of [1, 2, 3]) expect((await post(key)).json.usage).toMatchObject({ tokens: 0, trial: true })
    expect(await shown()).toMatchObject({ tokensUsed: 0 })
    expect((await post(key)).json.error.details.apiKey).toEqual({ tokenBudget: 1, tokensUsed: 0 })
  })

  test('is refused when the key ends between the door and the till', async () => {
    const key: CallingKey = { id: crypto.randomUUID(), scopes: ['generate'], requestsPerMinute: undefined }
    const job = generate({
      order: {
        tool: defaultTool(),
        image: { bytes: photo(), format: 'jpeg', width: 451, height: 300 },
        text: undefined,
        provider: undefined,
        requestedProvider: undefined,
        options: { quality: 'standard', format: 'png' },
      },
      caller: { userId: user.id, sessionId: undefined, key, impersonator: undefined },
      requestId: crypto.randomUUID(),
      claim: undefined,
      deliver: async (result) => ({ result, reencoded: false, resultUrl: undefined }),
      onEvent: () => {},
    })
    await expect(job).rejects.toMatchObject({ code: 'UNAUTHENTICATED', message: 'This API key has ended.' })
    expect(stub.requests).toEqual([])
  })
})
