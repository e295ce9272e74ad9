// Kept results that the fork shares between users and gives away: free of charge, but not for who may not spend.
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, balanceOf, call, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens, ledgerViolations, suspend, usageRows } from '../support/money.ts'

let app: App
let gemini: Awaited<ReturnType<typeof startGeminiStub>>
let ada: TestUser
let ben: TestUser

beforeAll(async () => {
  gemini = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'a key of the tests',
    GEMINI_BASE_URL: gemini.url,
    FORK__AI__CACHE_SECONDS: '3600',
    FORK__AI__CACHE_SHARED_BETWEEN_USERS: 'true',
    FORK__TOOLS__0__CACHED_PRICE_TOKENS: '0',
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
  })
  return gemini.close
})

beforeEach(async () => {
  await db().deleteFrom('result_cache').execute()
  ada = await givenUser(app, 'Ada')
  ben = await givenUser(app, 'Ben')
  await leaveTokens(ada.id, 100)
  await processImage(app, ada)
  gemini.requests.length = 0
})

test('one user gets what was made for another, at no price and without a hold', async () => {
  const before = await balanceOf(app, ben)
  const { status, json } = await processImage(app, ben)
  expect(status).toBe(200)
  expect(json).toMatchObject({ cached: true, cost: 0, usage: { tokens: 0, trial: false } })
  expect(json.balance).toEqual({ trialGenerations: 3, tokens: before.tokens })
  expect(await balanceOf(app, ben)).toEqual(before)
  expect(gemini.requests).toEqual([])
  const usage = await usageRows(ben.id)
  expect(usage).toMatchObject([{ cached: true, tokens_used: 0, trial: false, response_status: 'success' }])
  expect(await db().selectFrom('ledger_hold').select('id').where('user_id', '=', ben.id).execute()).toEqual([])
  expect(await ledgerViolations()).toEqual([])
})

test('nobody is named by a shared result', async () => {
  expect(await db().selectFrom('result_cache').select('user_id').execute()).toEqual([{ user_id: null }])
})

test('even who has nothing left gets it', async () => {
  expect((await balanceOf(app, ada)).tokens).toBe(0)
  expect((await processImage(app, ada)).json).toMatchObject({ cached: true, balance: { tokens: 0 } })
})

test('a hit under an Idempotency-Key is on record and replayed', async () => {
  const headers = { 'idempotency-key': crypto.randomUUID() }
  const hit = await processImage(app, ben, { headers })
  expect((await processImage(app, ben, { headers })).json).toEqual(hit.json)
  expect(await usageRows(ben.id)).toHaveLength(1)
  const { receipt } = await db()
    .selectFrom('idempotency_keys')
    .select('receipt')
    .where('user_id', '=', ben.id)
    .executeTakeFirstOrThrow()
  expect(receipt).toMatchObject({ provider: 'gemini' })
})

describe('who may not spend', () => {
  test.each([
    { who: 'is suspended', code: 'ACCOUNT_SUSPENDED', end: () => suspend(ben.id) },
    {
      who: 'has signed out',
      code: 'UNAUTHENTICATED',
      end: () => call(app, 'POST /api/auth/logout', { token: ben.token, body: { refreshToken: ben.refreshToken } }),
    },
  ])('because they $who, gets no kept result either', async ({ code, end }) => {
    await end()
    const { json } = await processImage(app, ben)
    expect(json.error?.code).toBe(code)
    expect(await usageRows(ben.id)).toEqual([])
  })

  test('an API key gets it until it is revoked, and its usage names the key', async () => {
    const made = await call(app, 'POST /api/api-keys', {
      token: ben.token,
      body: { name: 'shop', scopes: ['generate'] },
    })
    const asKey = () => processImage(app, { ...ben, token: made.json.key })
    expect((await asKey()).json).toMatchObject({ cached: true, usage: { tokens: 0 } })
    expect(await usageRows(ben.id)).toMatchObject([{ api_key_id: made.json.id }])
    await call(app, `DELETE /api/api-keys/${made.json.id}`, { token: ben.token })
    expect((await asKey()).status).toBe(401)
    expect(await usageRows(ben.id)).toHaveLength(1)
  })
})
