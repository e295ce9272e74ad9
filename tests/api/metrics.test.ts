// GET /api/admin/metrics: every figure counted by hand over a few rows.
import { randomUUID } from 'node:crypto'
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, call, startApp } from '../support/app.ts'
import { givenOrder, givenRefund } from '../support/billing-rows.ts'

const DAY = '2026-03-02'
const PERIOD = `from=${DAY}&to=2026-03-05`

let app: App
let admin: Account
let ada: Account
let bob: Account

/** One run with its calls, at an hour of DAY or of the days after it. */
interface Run {
  hour: number
  user: Account
  tool: 'metered' | 'captions'
  durationMs: number
  status?: 'success' | 'error' | 'timeout'
  code?: string
  fallback?: boolean
  cached?: boolean
  calls: { provider: string; outcome: string; micros: number; durationMs: number }[]
}

const gemini = (durationMs: number) => ({ provider: 'gemini', outcome: 'ok', micros: 39_000, durationMs })
const openai = (durationMs: number) => ({ provider: 'openai', outcome: 'ok', micros: 13_000, durationMs })
const failed = (provider: string, outcome: string, micros = 0) => ({ provider, outcome, micros, durationMs: 50 })

function runs(): Run[] {
  return [
    { hour: 9, user: ada, tool: 'metered', durationMs: 1_000, calls: [gemini(900)] },
    { hour: 9, user: ada, tool: 'metered', durationMs: 2_000, calls: [gemini(1_900)] },
    {
      hour: 10,
      user: bob,
      tool: 'metered',
      durationMs: 9_000,
      fallback: true,
      calls: [failed('gemini', 'timeout'), openai(400)],
    },
    { hour: 33, user: bob, tool: 'metered', durationMs: 5, cached: true, calls: [] },
    { hour: 33, user: bob, tool: 'captions', durationMs: 300, calls: [openai(200)] },
    {
      hour: 34,
      user: bob,
      tool: 'captions',
      durationMs: 100,
      status: 'error',
      code: 'CONTENT_BLOCKED',
      calls: [failed('openai', 'blocked', 1_000)],
    },
    {
      hour: 34,
      user: ada,
      tool: 'captions',
      durationMs: 30_000,
      status: 'timeout',
      code: 'PROVIDER_TIMEOUT',
      calls: [failed('openai', 'timeout'), failed('gemini', 'cancelled')],
    },
    { hour: -1, user: ada, tool: 'metered', durationMs: 1, calls: [gemini(1)] }, // Before the period.
    { hour: 72, user: ada, tool: 'metered', durationMs: 1, calls: [gemini(1)] }, // Its end is not part of it.
  ]
}

beforeAll(async () => {
  app = await startApp()
  admin = await givenAccount({ role: 'admin' })
  ada = await givenAccount()
  bob = await givenAccount()
  const tools = new Map<string, string>()
  for (const name of ['metered', 'captions']) {
    const tool = { name, description: 'A tool of this test', api_endpoint: 'builtin' }
    tools.set(name, (await db().insertInto('tools').values(tool).returning('id').executeTakeFirstOrThrow()).id)
  }
  for (const run of runs()) await record(run, tools.get(run.tool) ?? '')
})

async function record(
  { hour, user, durationMs, status = 'success', code, fallback, cached, calls }: Run,
  toolId: string,
) {
  const at = new Date(Date.parse(`${DAY}T00:00:00Z`) + hour * 3_600_000)
  const common = { request_id: randomUUID(), tool_id: toolId }
  await db()
    .insertInto('usage_logs')
    .values({
      ...common,
      user_id: user.id,
      timestamp: at,
      tokens_used: status === 'success' ? 100 : 0,
      response_status: status,
      duration_ms: durationMs,
      provider: calls.at(-1)?.provider ?? 'gemini',
      cost_micro_usd: calls.reduce((sum, { micros }) => sum + micros, 0),
      error_code: code ?? null,
      fallback: fallback ?? false,
      cached: cached ?? false,
    })
    .execute()
  for (const { provider, outcome, micros, durationMs } of calls) {
    const row = { ...common, at, provider, outcome, cost_micro_usd: micros, duration_ms: durationMs }
    await db().insertInto('provider_calls').values(row).execute()
  }
}

const metrics = async (query: string) => await call(app, `GET /api/admin/metrics?${query}`, { token: admin.token })

describe('GET /api/admin/metrics', () => {
  test('counts users, money and usage of the whole time', async () => {
    const { status, json } = await metrics(PERIOD)
    expect(status).toBe(200)
    expect(json).toMatchObject({ from: `${DAY}T00:00:00.000Z`, to: '2026-03-05T00:00:00.000Z', interval: 'day' })
    expect(json.users).toEqual({ total: 3, new: 0, active: 2 })
    expect(json.money).toMatchObject({
      currency: 'usd',
      revenueCents: 0,
      feesCents: 0,
      aiCostUsd: 0.105,
      marginCents: -11,
    })
    expect(json.usage).toEqual({
      requests: 7,
      succeeded: 5,
      failed: 2,
      tokens: 500,
      costUsd: 0.105,
      fallbackRate: 0.2,
      cacheHits: 1,
      activeUsers: 2,
      latencyMs: { p50: 1_000, p95: 9_000 },
      errors: { CONTENT_BLOCKED: 1, PROVIDER_TIMEOUT: 1 },
    })
  })

  test('takes providers and tools apart', async () => {
    const { json } = await metrics(PERIOD)
    expect(json.providers).toEqual([
      {
        provider: 'gemini',
        calls: 4,
        succeeded: 2,
        failed: 1,
        costUsd: 0.078,
        latencyMs: { p50: 900, p95: 1_900 },
        errors: { timeout: 1 },
      },
      {
        provider: 'openai',
        calls: 4,
        succeeded: 2,
        failed: 2,
        costUsd: 0.027,
        latencyMs: { p50: 200, p95: 400 },
        errors: { blocked: 1, timeout: 1 },
      },
    ])
    expect(json.tools).toEqual([
      {
        tool: 'captions',
        requests: 3,
        succeeded: 1,
        failed: 2,
        tokens: 100,
        costUsd: 0.014,
        fallbackRate: 0,
        cacheHits: 0,
        activeUsers: 2,
        latencyMs: { p50: 300, p95: 300 },
        errors: { CONTENT_BLOCKED: 1, PROVIDER_TIMEOUT: 1 },
      },
      {
        tool: 'metered',
        requests: 4,
        succeeded: 4,
        failed: 0,
        tokens: 400,
        costUsd: 0.091,
        fallbackRate: 0.25,
        cacheHits: 1,
        activeUsers: 2,
        latencyMs: { p50: 2_000, p95: 9_000 },
        errors: {},
      },
    ])
  })

  test('goes through time without gaps, by day and by hour', async () => {
    const { json } = await metrics(PERIOD)
    expect(json.series.map(({ at }: { at: string }) => at.slice(0, 10))).toEqual([DAY, '2026-03-03', '2026-03-04'])
    expect(json.series[0]).toEqual({
      at: `${DAY}T00:00:00.000Z`,
      requests: 3,
      succeeded: 3,
      failed: 0,
      tokens: 300,
      costUsd: 0.091,
      fallbackRate: 1 / 3,
      cacheHits: 0,
      activeUsers: 2,
      latencyMs: { p50: 2_000, p95: 9_000 },
      calls: { total: 4, failed: 1 },
    })
    expect(json.series[1]).toMatchObject({ requests: 4, succeeded: 2, failed: 2, calls: { total: 4, failed: 2 } })
    const nothing = { requests: 0, costUsd: 0, fallbackRate: null, activeUsers: 0, latencyMs: { p50: null, p95: null } }
    expect(json.series[2]).toMatchObject({ ...nothing, calls: { total: 0, failed: 0 } })

    const byHour = (await metrics(`from=${DAY}T08:30:00Z&to=${DAY}T11:00:00Z&interval=hour`)).json
    expect(byHour.series).toMatchObject([
      { at: `${DAY}T08:00:00.000Z`, requests: 0 },
      { at: `${DAY}T09:00:00.000Z`, requests: 2, activeUsers: 1 },
      { at: `${DAY}T10:00:00.000Z`, requests: 1, activeUsers: 1 },
    ])
  })

  test('answers for one tool, one provider, or both', async () => {
    const { json: captions } = await metrics(`${PERIOD}&tool=captions`)
    expect(captions.usage).toMatchObject({ requests: 3, costUsd: 0.014 })
    expect(captions.providers).toMatchObject([
      { provider: 'gemini', calls: 1 },
      { provider: 'openai', calls: 3 },
    ])
    const { json: openai } = await metrics(`${PERIOD}&provider=openai`)
    expect(openai.usage).toMatchObject({ requests: 3 })
    expect(openai.providers).toMatchObject([{ provider: 'openai', calls: 4 }])
    const { json: both } = await metrics(`${PERIOD}&provider=openai&tool=metered`)
    expect(both.usage).toMatchObject({ requests: 1, fallbackRate: 1 })
    expect(both.providers).toMatchObject([{ provider: 'openai', calls: 1 }])
    expect(both.users, 'of the whole fork').toEqual({ total: 3, new: 0, active: 2 })
  })

  test('takes the fees and the AI cost off what was taken', async () => {
    const order_id = await givenOrder({ ordered_at: `${DAY}T12:00:00Z`, net_cents: 1_000, fee_cents: 90 })
    await givenRefund({ order_id, refunded_at: `${DAY}T13:00:00Z`, amount_cents: 200 })
    const { json } = await metrics(PERIOD)
    expect(json.money).toEqual({
      currency: 'usd',
      revenueCents: 1_000,
      refundedCents: 200,
      disputedCents: 0,
      feesCents: 90,
      netCents: 710,
      aiCostUsd: 0.105,
      marginCents: 699,
    })
  })

  test('is about the last 30 days by itself, or the last 2 by hour', async () => {
    const { json } = await metrics('')
    expect(json.series.length).toBeGreaterThanOrEqual(30)
    expect(json.series.length).toBeLessThanOrEqual(31)
    expect(json.users).toMatchObject({ new: 3 })
    const byHour = (await metrics('interval=hour')).json.series.length
    expect([48, 49]).toContain(byHour)
  })

  test.each([
    { why: 'more than 92 days', query: 'from=2026-01-01&to=2026-04-04', path: 'from' },
    { why: 'more than 1,000 hours', query: 'from=2026-01-01&to=2026-02-12&interval=hour', path: 'from' },
    { why: 'a time that ends before it begins', query: 'from=2026-01-02&to=2026-01-01', path: 'from' },
    { why: 'a minute', query: 'interval=minute', path: 'interval' },
    { why: 'no instant', query: 'from=yesterday', path: 'from' },
    { why: 'a field it does not know', query: 'user=ada', path: 'user' },
  ])('refuses $why', async ({ query, path }) => {
    const { status, json } = await metrics(query)
    expect(status).toBe(400)
    expect(json.error).toMatchObject({ code: 'VALIDATION_FAILED', details: { issues: [{ path }] } })
  })

  test('is there for admins alone', async () => {
    const { status } = await call(app, `GET /api/admin/metrics?${PERIOD}`, { token: ada.token })
    expect(status).toBe(404)
  })
})
