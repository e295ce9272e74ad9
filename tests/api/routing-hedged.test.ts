// Two providers on one request: the one that answers first counts, and the other is paid for.
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, call, processImage, startApp } from '../support/app.ts'
import { usageRows } from '../support/money.ts'
import { type ProviderStubs, startProviderStubs } from '../support/provider-stubs.ts'

const GEMINI_MICRO_USD = 20_000

let app: App
let stubs: ProviderStubs
let admin: Account
let user: Account

beforeAll(async () => {
  stubs = await startProviderStubs()
  app = await startApp({
    ...stubs.variables,
    FORK__TOOLS__0__PROVIDERS: '["gemini","openai","sketch"]',
    FORK__AI__ROUTING: 'fastest',
    FORK__AI__HEDGE_AFTER_MS: '3000',
    FORK__AI__PROVIDERS__GEMINI__COST_PER_IMAGE_USD: String(GEMINI_MICRO_USD / 1e6),
  })
  admin = await givenAccount({ role: 'admin' })
})

afterAll(() => stubs.close())

beforeEach(async () => {
  stubs.forget()
  user = await givenAccount()
})

const generate = () => processImage(app, { ...user, password: '' })

const health = async () => (await call(app, 'GET /api/admin/health', { token: admin.token })).json

const spentOf = async (name: string): Promise<number> => {
  const { budgets } = await health()
  return budgets.find((budget: { name: string }) => budget.name === name).spentUsd
}

async function callsOf(): Promise<{ provider: string; outcome: string; cost: number }[]> {
  return await db()
    .selectFrom('provider_calls as c')
    .innerJoin('usage_logs as u', 'u.request_id', 'c.request_id')
    .select(['c.provider', 'c.outcome', 'c.cost_micro_usd as cost'])
    .where('u.user_id', '=', user.id)
    .orderBy('c.id')
    .execute()
}

describe('hedging', () => {
  test('the next provider is asked when the first one lets wait; the loser is broken off and accounted for', async () => {
    stubs.behave('gemini', { kind: 'hang' })
    stubs.behave('openai', { kind: 'ok' })
    const spent = await spentOf('day')
    const { status, json } = await generate()
    expect(status).toBe(200)
    expect(json).toMatchObject({ provider: 'openai', fallback: { used: false, failed: [] } })
    const calls = await callsOf()
    expect(calls).toMatchObject([
      { provider: 'gemini', outcome: 'cancelled', cost: GEMINI_MICRO_USD },
      { provider: 'openai', outcome: 'ok' },
    ])
    const costMicroUsd = calls.reduce((sum, { cost }) => sum + cost, 0)
    expect(costMicroUsd).toBeGreaterThan(GEMINI_MICRO_USD)
    expect(json.cost).toBeCloseTo(costMicroUsd / 1e6, 9)
    expect(await usageRows(user.id)).toMatchObject([{ provider: 'openai', cost_micro_usd: costMicroUsd }])
    expect(await spentOf('day')).toBeCloseTo(spent + costMicroUsd / 1e6, 9)
    expect((await health()).budgets).toContainEqual(expect.objectContaining({ name: 'day', heldUsd: 0 }))
  })

  test('who was quick is asked first from then on, and who was not measured in its fair turn', async () => {
    stubs.behave('gemini', { kind: 'ok' })
    stubs.behave('openai', { kind: 'ok' })
    const random = vi.spyOn(Math, 'random').mockReturnValue(0.99)
    // Good news is told with the news of a later call, and each function believes for a moment what it last read.
    const another = await givenAccount()
    const openai = async () => {
      await processImage(app, { ...another, password: '' })
      return (await health()).providers.find(({ provider }: { provider: string }) => provider === 'openai')
    }
    await expect
      .poll(openai, { timeout: 20_000, interval: 2_000 })
      .toMatchObject({ status: 'ok', circuit: { state: 'closed', latencyMs: expect.any(Number) } })
    await generate()
    expect((await callsOf())[0]).toMatchObject({ provider: 'openai' })
    user = await givenAccount()
    random.mockReturnValue(0)
    await generate()
    expect((await callsOf())[0]).toMatchObject({ provider: 'gemini' })
  })

  test('a picture that one declines while the other is at work is declined, and shown to nobody else', async () => {
    stubs.behave('openai', { kind: 'hang' })
    stubs.block('gemini')
    const { status, json } = await generate()
    expect([status, json.error.code]).toEqual([422, 'CONTENT_BLOCKED'])
    const calls = await callsOf()
    expect(calls).toContainEqual(expect.objectContaining({ provider: 'gemini', outcome: 'blocked' }))
    expect(calls.map(({ provider }) => provider)).not.toContain('sketch')
  })
})
