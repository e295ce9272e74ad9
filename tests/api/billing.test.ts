// What the caller has, what is for sale, and that nothing can be bought where payments are off.
import { sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { sessionOf } from '../../lib/auth/sessions.ts'
import { release, reserve } from '../../lib/ledger/holds.ts'
import { grant, takeBack } from '../../lib/ledger/ledger.ts'
import { toolId } from '../../lib/tools/catalogue.ts'
import { type App, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { ledgerViolations } from '../support/money.ts'

const NO_KEYS = 'POLAR_ACCESS_TOKEN and POLAR_WEBHOOK_SECRET are not set.'

let app: App
let user: TestUser

beforeAll(async () => {
  app = await startApp()
})

describe('GET /api/billing/status', () => {
  const status = async () => (await call(app, 'GET /api/billing/status', { token: user.token })).json

  beforeEach(async () => {
    user = await givenUser(app)
  })

  const hold = async (tokens: number, ttlMs = 60_000) => {
    const session = await sessionOf(db(), user.refreshToken)
    if (!session) throw new Error('The user has no session.')
    const id = crypto.randomUUID()
    expect(await reserve(db(), { id, ...session, tokens, ttlMs })).toMatchObject({ outcome: 'held' })
    return id
  }

  test('of a new user is the free plan, for a month from now', async () => {
    const { status: code, headers, json } = await call(app, 'GET /api/billing/status', { token: user.token })
    expect(code).toBe(200)
    expect(headers.get('cache-control')).toBe('no-store')
    expect(json).toEqual({
      plan: 'free',
      status: 'active',
      tokenLimit: 1000,
      tokensUsed: 0,
      periodStart: expect.any(String),
      periodEnd: expect.any(String),
      expiresAt: null,
      pendingPlan: null,
      balance: {
        trialGenerations: 3,
        planTokens: 1000,
        purchasedTokens: 0,
        reservedTokens: 0,
        debtTokens: 0,
        tokens: 1000,
      },
      payments: { enabled: false, reason: NO_KEYS },
    })
    const start = new Date(json.periodStart)
    expect(Math.abs(start.getTime() - Date.now())).toBeLessThan(60_000)
    const days = (Date.parse(json.periodEnd) - start.getTime()) / 86_400_000
    expect(days).toBeGreaterThanOrEqual(28)
    expect(days).toBeLessThanOrEqual(31)
  })

  test('shows what is held, apart from what can be spent', async () => {
    for (let trial = 0; trial < 3; trial += 1) await hold(100)
    const id = await hold(300)
    expect((await status()).balance).toMatchObject({
      trialGenerations: 0,
      planTokens: 700,
      reservedTokens: 300,
      tokens: 700,
    })
    const usage = {
      userId: user.id,
      toolId: await toolId(db(), 'coloring-page'),
      requestId: crypto.randomUUID(),
      durationMs: 1,
    }
    const outcome = {
      status: 'error' as const,
      provider: undefined,
      model: undefined,
      costMicroUsd: 0,
      errorCode: 'PROVIDER_ERROR',
      fallback: false,
      cached: false,
      jobId: undefined,
      freeTier: false,
      calls: [],
    }
    await release(db(), id, { ...usage, ...outcome })
    expect((await status()).balance).toMatchObject({ planTokens: 1000, reservedTokens: 0, tokens: 1000 })
  })

  test('gives back what a dead request held, without waiting for the sweep', async () => {
    for (let trial = 0; trial < 3; trial += 1) await hold(100)
    await hold(300, -1_000)
    expect((await status()).balance).toMatchObject({ planTokens: 1000, reservedTokens: 0, tokens: 1000 })
    expect(await ledgerViolations()).toEqual([])
  })

  test('counts what was bought beside the plan, and what is owed against it', async () => {
    const source = `test:${crypto.randomUUID()}`
    await grant(db(), { userId: user.id, kind: 'pack', tokens: 500, source })
    expect((await status()).balance).toMatchObject({ planTokens: 1000, purchasedTokens: 500, tokens: 1500 })
    await takeBack(db(), { source, tokens: 200 })
    expect((await status()).balance).toMatchObject({ purchasedTokens: 300, debtTokens: 0, tokens: 1300 })
  })

  test('leaves out what has expired, and begins the next period by itself', async () => {
    const past = new Date(Date.now() - 1_000)
    await grant(db(), { userId: user.id, kind: 'promo', tokens: 70, source: crypto.randomUUID(), expiresAt: past })
    expect((await status()).balance).toMatchObject({ purchasedTokens: 0, tokens: 1000 })
    await sql`
      update subscriptions set period_anchor = now() - interval '40 days', period_start = now() - interval '40 days',
        period_end = now() - interval '10 days', stands_until = now() - interval '10 days' where user_id = ${user.id}
    `.execute(db())
    const { periodStart, periodEnd, tokensUsed, tokenLimit } = await status()
    expect(Date.parse(periodStart)).toBeLessThanOrEqual(Date.now())
    expect(Date.parse(periodEnd)).toBeGreaterThan(Date.now())
    expect({ tokensUsed, tokenLimit }).toEqual({ tokensUsed: 0, tokenLimit: 1000 })
  })

  test("is the caller's alone", async () => {
    const { balance } = await status()
    const rich = await givenUser(app)
    await grant(db(), { userId: rich.id, kind: 'pack', tokens: 500, source: crypto.randomUUID() })
    expect((await status()).balance).toEqual(balance)
  })
})

describe('GET /api/billing/catalogue', () => {
  test('tells anybody what things cost, and nothing that is not theirs to know', async () => {
    const { status, json, bytes } = await call(app, 'GET /api/billing/catalogue')
    expect(status).toBe(200)
    expect(Object.keys(json).sort()).toEqual(['payments', 'plans', 'tools', 'trial'])
    expect(json.trial).toEqual({ generations: 3 })
    expect(json.plans).toEqual({
      free: { monthlyTokens: 1000 },
      pro: { monthlyTokens: 50_000, priceCents: 1900 },
      enterprise: { monthlyTokens: 500_000, priceCents: 9900 },
    })
    expect(json.payments).toEqual({
      provider: 'polar',
      currency: 'usd',
      minimumDepositCents: 500,
      tokensPerDollar: 100,
      packs: [
        { id: 'starter', priceCents: 500, tokens: 500 },
        { id: 'family', priceCents: 2000, tokens: 2400 },
      ],
    })
    expect(json.tools).toMatchObject([{ name: 'coloring-page', priceTokens: 100, highQualityPriceTokens: 200 }])
    expect(bytes.toString()).not.toMatch(/prompt"|polarProductId|costPerImageUsd|providers/)
  })
})

describe('payments without keys', () => {
  beforeAll(async () => {
    user = await givenUser(app)
  })

  test.each([
    { what: 'POST /api/billing/checkout', body: { pack: 'starter' } },
    { what: 'POST /api/billing/upgrade', body: { plan: 'pro' } },
    { what: 'POST /api/billing/cancel' },
    { what: 'POST /api/billing/resume' },
    { what: 'POST /api/billing/portal' },
    { what: 'POST /api/billing/checkouts/00000000-0000-4000-8000-000000000000/sync' },
    { what: 'GET /api/billing/invoices/00000000-0000-4000-8000-000000000000' },
    { what: 'POST /api/webhooks/polar', body: {} },
  ])('$what says so, and why', async ({ what, body }) => {
    const { status, json } = await call(app, what, { token: user.token, body })
    expect(status).toBe(503)
    expect(json.error).toMatchObject({
      code: 'FEATURE_DISABLED',
      message: 'Payments are switched off.',
      details: { reason: NO_KEYS },
    })
  })
})
