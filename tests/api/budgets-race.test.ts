// A budget for ten pictures, and two hundred who ask at once: over HTTP, on the stores of every lane.
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { budgetStates } from '../../lib/ai/budget.ts'
import { givenAccount } from '../support/accounts.ts'
import { type App, balanceOf, processImage, type Reply, startApp, type TestUser } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens, ledgerViolations } from '../support/money.ts'
import { startWebhookReceiver } from '../support/webhook-receiver.ts'

const USERS = 10
const REQUESTS = 200
const PRICE = 100
const TOKENS = PRICE * REQUESTS

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let receiver: Awaited<ReturnType<typeof startWebhookReceiver>>
let users: TestUser[]
let replies: Reply[]

beforeAll(async () => {
  stub = await startGeminiStub()
  receiver = await startWebhookReceiver()
  app = await startApp({
    ...receiver.variables,
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    FORK__AI__PROVIDERS__GEMINI__COST_PER_IMAGE_USD: '0.039',
    FORK__AI__BUDGETS__FREE_TIER_DAILY_USD: '0.4',
  })
  users = []
  for (let index = 0; index < USERS; index += 1) {
    const account = await givenAccount()
    await leaveTokens(account.id, TOKENS)
    users.push({ ...account, password: '' })
  }
})

afterAll(async () => {
  await stub.close()
  await receiver.close()
})

const userOf = (index: number): TestUser => {
  const user = users[index % USERS]
  if (!user) throw new Error('There are no users.')
  return user
}

const loggedLines = () => vi.mocked(console.log).mock.calls.flat().map(String)

/** What this test has logged of budgets so far, by level. */
function loggedAlerts() {
  return loggedLines()
    .filter((line) => line.includes('"event":"budget_alert"'))
    .map((line) => JSON.parse(line))
    .map(({ level, budget, percent }) => ({ level, budget, percent }))
    .sort((a, b) => a.percent - b.percent)
}

describe(`${REQUESTS} requests at once`, () => {
  test('make exactly ten calls, and the others are told why they are refused', { timeout: 240_000 }, async () => {
    expectErrorsInLog() // What answers 503 is logged as an error.
    stub.behave({ kind: 'ok', delayMs: 50 })
    replies = await Promise.all(Array.from({ length: REQUESTS }, (_, index) => processImage(app, userOf(index))))
    const made = replies.filter(({ status }) => status === 200)
    const refused = replies.filter(({ status }) => status === 503)
    expect(made.length + refused.length).toBe(REQUESTS)
    // On a machine so busy that KV answers too late for some, what they held comes back after they were refused.
    const kvWasLate = loggedLines().some((line) => line.includes('"event":"budget_kv_down"'))
    if (!kvWasLate) expect(made).toHaveLength(10)
    for (let more = made.length; more < 10; more += 1) expect((await processImage(app, userOf(more))).status).toBe(200)
    expect(stub.requests).toHaveLength(10)
    for (const { json } of refused) {
      expect(json.error).toMatchObject({ code: 'BUDGET_EXHAUSTED', details: { budget: 'free-tier-day' } })
    }
    await expect.poll(loggedAlerts, { timeout: 20_000 }).toEqual([
      { level: 'warn', budget: 'free-tier-day', percent: 50 },
      { level: 'warn', budget: 'free-tier-day', percent: 80 },
      { level: 'warn', budget: 'free-tier-day', percent: 100 },
    ])
  })

  test('cost their users ten pictures and not a token more', async () => {
    const balances = await Promise.all(users.map((user) => balanceOf(app, user)))
    expect(balances.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(USERS * TOKENS - 10 * PRICE)
    expect(balances.every(({ reservedTokens }) => reservedTokens === 0)).toBe(true)
    expect(await ledgerViolations()).toEqual([])
  })

  test('leave the budget as full as the calls on record say', async () => {
    const { rows } = await sql<{ calls: number; micros: number }>`
      select count(*)::int as calls, sum(cost_micro_usd)::bigint as micros from provider_calls where free_tier
    `.execute(db())
    expect(rows[0]?.calls).toBe(10)
    const states = await budgetStates()
    for (const name of ['free-tier-day', 'day', 'month']) {
      expect(states.find((state) => state.name === name)).toMatchObject({
        spentMicroUsd: rows[0]?.micros,
        heldMicroUsd: 0,
      })
    }
  })

  test('tell the operator once of every level', async () => {
    expectErrorsInLog()
    const alerts = () => receiver.received.filter(({ event }) => event.type === 'budget.alert')
    await expect.poll(() => alerts().length, { timeout: 20_000 }).toBe(3)
    const levels = alerts().map(({ signed, event }) => [signed, event.data.budget, event.data.percent])
    expect(levels.sort((a, b) => a[2] - b[2])).toEqual([
      [true, 'free-tier-day', 50],
      [true, 'free-tier-day', 80],
      [true, 'free-tier-day', 100],
    ])
    expect(alerts()[0]?.event.data).toMatchObject({ window: expect.stringMatching(/^\d{4}-\d\d-\d\d$/), limitUsd: 0.4 })
    await Promise.all(Array.from({ length: 20 }, (_, index) => processImage(app, userOf(index))))
    const rows = await db().selectFrom('outgoing_webhooks').select('id').execute()
    expect(rows).toHaveLength(3)
    expect(stub.requests).toHaveLength(10)
  })
})
