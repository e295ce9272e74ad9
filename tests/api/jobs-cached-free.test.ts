// Where the answer to what was made before is free, a job that finds one takes neither tokens nor a trial generation.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type App, balanceOf, givenUser, startApp } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { ordered, outcomeOf } from '../support/jobs.ts'
import { leaveTokens, ledgerViolations, usageRows } from '../support/money.ts'

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    FORK__TOOLS__0__CACHED_PRICE_TOKENS: '0',
    FORK__AI__CACHE_SECONDS: '3600',
  })
})

afterAll(() => stub.close())

test.each(['tokens', 'trial generations'])('of somebody with %s', async (means) => {
  const user = await givenUser(app)
  if (means === 'tokens') await leaveTokens(user.id, 300)
  await outcomeOf(app, user, await ordered(app, user))
  const before = await balanceOf(app, user)
  const { json } = await outcomeOf(app, user, await ordered(app, user))
  expect(json.result).toMatchObject({ cached: true, usage: { tokens: 0, trial: false } })
  expect(await balanceOf(app, user)).toEqual(before)
  const [, row] = await usageRows(user.id)
  expect(row).toMatchObject({ response_status: 'success', cached: true, tokens_used: 0, error_code: null })
  expect(await ledgerViolations()).toEqual([])
})
