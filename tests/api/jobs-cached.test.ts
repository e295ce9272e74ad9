// A job for what was made before: answered from what was kept, for the price of that.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type App, balanceOf, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { ordered, outcomeOf } from '../support/jobs.ts'
import { leaveTokens, ledgerViolations, usageRows } from '../support/money.ts'

const PRICE = 100
const CACHED_PRICE = 30

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let user: TestUser

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    FORK__TOOLS__0__CACHED_PRICE_TOKENS: String(CACHED_PRICE),
    FORK__AI__CACHE_SECONDS: '3600',
  })
  user = await givenUser(app)
  await leaveTokens(user.id, 5 * PRICE)
})

afterAll(() => stub.close())

test('is charged in full for what it makes, less for what it finds, and the rest of what was held comes back', async () => {
  const made = (await outcomeOf(app, user, await ordered(app, user))).json.result
  expect(made).toMatchObject({ cached: false, usage: { tokens: PRICE } })
  const found = (await outcomeOf(app, user, await ordered(app, user))).json.result
  expect(found).toMatchObject({ cached: true, cost: 0, usage: { tokens: CACHED_PRICE }, result: made.result })
  expect(stub.requests).toHaveLength(1)
  expect(await balanceOf(app, user)).toMatchObject({ tokens: 5 * PRICE - PRICE - CACHED_PRICE, reservedTokens: 0 })
  const rows = await usageRows(user.id)
  expect(rows.map(({ tokens_used, cached }) => [tokens_used, cached])).toEqual([
    [PRICE, false],
    [CACHED_PRICE, true],
  ])
  expect(await ledgerViolations()).toEqual([])
})

test('gives what an answer at once kept', async () => {
  const now = (await processImage(app, user, { query: '?format=webp' })).json
  const later = (await outcomeOf(app, user, await ordered(app, user, { query: '?format=webp' }))).json.result
  expect(later).toMatchObject({ cached: true, result: now.result, width: now.width, height: now.height })
})
