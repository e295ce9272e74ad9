// A provider whose budget is used up is passed over; with all of them used up nothing is made, and nothing charged.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { givenAccount } from '../support/accounts.ts'
import { type App, balanceOf, processImage, startApp } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { ledgerViolations } from '../support/money.ts'
import { type ProviderStubs, startProviderStubs } from '../support/provider-stubs.ts'

let app: App
let stubs: ProviderStubs

beforeAll(async () => {
  stubs = await startProviderStubs()
  app = await startApp({
    ...stubs.variables,
    FORK__TOOLS__0__PROVIDERS: '["gemini","openai"]',
    FORK__AI__PROVIDERS__OPENAI__COST_PER_IMAGE_USD: '0.03',
    FORK__AI__BUDGETS__PROVIDERS__GEMINI__DAILY_USD: '0',
    FORK__AI__BUDGETS__PROVIDERS__OPENAI__DAILY_USD: '0.06',
  })
})

afterAll(() => stubs.close())

describe('budgets in the router', () => {
  test('the next provider is asked; when its budget is used up as well, 503 names the budget and no amounts', async () => {
    expectErrorsInLog()
    const user = { ...(await givenAccount()), password: '' }
    // A reply costs what its usage says, so that how many fit is not known beforehand; at least one does.
    const first = await processImage(app, user)
    expect(first.json).toMatchObject({
      provider: 'openai',
      fallback: { used: true, failed: [{ provider: 'gemini', kind: 'budget', durationMs: 0 }] },
    })
    let before = await balanceOf(app, user)
    let reply = await processImage(app, user)
    for (let calls = 0; calls < 5 && reply.status === 200; calls += 1) {
      before = await balanceOf(app, user)
      reply = await processImage(app, user)
    }
    const { status, json } = reply
    expect([status, json.error.code]).toEqual([503, 'BUDGET_EXHAUSTED'])
    expect(json.error.details).toMatchObject({
      budget: 'gemini-day',
      providers: [
        { provider: 'gemini', kind: 'budget' },
        { provider: 'openai', kind: 'budget' },
      ],
    })
    expect(JSON.stringify(json.error)).not.toMatch(/0\.0[36]|[36]0000/)
    expect(await balanceOf(app, user)).toEqual(before)
    expect(stubs.asked('gemini')).toBe(0)
    expect(await ledgerViolations()).toEqual([])
  })
})
