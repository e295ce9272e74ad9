// Alerts of budgets that run out: each level once, however many processes notice it at once.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { givenAccount } from '../support/accounts.ts'
import { type App, processImage, startApp } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens } from '../support/money.ts'
import { startServer } from '../support/server.ts'
import { startWebhookReceiver } from '../support/webhook-receiver.ts'

const REQUESTS = 24
const LEVELS = [50, 80, 100]

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let receiver: Awaited<ReturnType<typeof startWebhookReceiver>>

beforeAll(async () => {
  stub = await startGeminiStub()
  receiver = await startWebhookReceiver()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    FORK__AI__PROVIDERS__GEMINI__COST_PER_IMAGE_USD: '0.039',
  })
})

afterAll(async () => {
  await stub.close()
  await receiver.close()
})

/** Two processes serve requests at once until the budget is used up; what both have logged of it, level by level. */
async function useUp(variables: Record<string, string>) {
  const servers = await Promise.all([startServer(app.stores, variables), startServer(app.stores, variables)])
  const account = await givenAccount()
  await leaveTokens(account.id, 100_000)
  const statuses = await Promise.all(
    Array.from({ length: REQUESTS }, async (_, index) => {
      const reply = await processImage(index % 2 === 0 ? servers[0] : servers[1], { ...account, password: '' })
      return reply.status
    }),
  )
  const logged = () =>
    servers
      .flatMap((server) => server.output().split('\n'))
      .filter((line) => line.includes('"event":"budget_alert"'))
      .map((line) => JSON.parse(line))
      .map(({ budget, percent }) => `${budget} ${percent}`)
  return { statuses, logged }
}

const expected = (budget: string) => LEVELS.map((percent) => `${budget} ${percent}`).sort()

describe('two processes that use a budget up', () => {
  test('tell each level once in the log, where no webhook is set', async () => {
    const { statuses, logged } = await useUp({ FORK__AI__BUDGETS__PROVIDERS__GEMINI__DAILY_USD: '0.2' })
    expect(statuses.filter((status) => status === 200)).toHaveLength(5)
    await expect.poll(() => logged().sort(), { timeout: 20_000 }).toEqual(expected('gemini-day'))
    expect(await db().selectFrom('outgoing_webhooks').select('id').execute()).toEqual([])
  })

  test('tell each level once in the log and to the webhook', async () => {
    const limits = {
      FORK__AI__BUDGETS__PROVIDERS__GEMINI__DAILY_USD: '20',
      FORK__AI__BUDGETS__PROVIDERS__GEMINI__MONTHLY_USD: '0.4',
    }
    const { statuses, logged } = await useUp({ ...receiver.variables, ...limits })
    expect(statuses.filter((status) => status === 200)).toHaveLength(5)
    await expect.poll(() => logged().sort(), { timeout: 20_000 }).toEqual(expected('gemini-month'))
    await expect.poll(() => receiver.received.length, { timeout: 20_000 }).toBeGreaterThanOrEqual(LEVELS.length)
    const told = receiver.received.map(({ event }) => `${event.data.budget} ${event.data.percent}`)
    expect(told.sort()).toEqual(expected('gemini-month'))
    expect(receiver.received.every(({ signed }) => signed)).toBe(true)
  })
})
