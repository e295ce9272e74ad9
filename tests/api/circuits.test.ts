// A provider that fails is left alone: requests go past it, readiness says so, and nobody waits when none is left.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, balanceOf, call, processImage, startApp } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { ledgerViolations } from '../support/money.ts'
import { type ProviderStubs, startProviderStubs } from '../support/provider-stubs.ts'

let app: App
let stubs: ProviderStubs
let admin: Account
let user: Account

beforeAll(async () => {
  stubs = await startProviderStubs()
  app = await startApp({ ...stubs.variables, FORK__TOOLS__0__PROVIDERS: '["gemini","openai"]' })
  admin = await givenAccount({ role: 'admin' })
})

afterAll(() => stubs.close())

beforeEach(async () => {
  stubs.forget()
  user = await givenAccount()
})

const generate = () => processImage(app, { ...user, password: '' })
const ready = (token?: string) => call(app, 'GET /api/health/ready', { token })
/** Each function believes for a moment what it last read. */
const READ_AGAIN = { timeout: 10_000 }
const health = async () => (await call(app, 'GET /api/admin/health', { token: admin.token })).json

// One story: the circuits of a process last longer than a test.
describe('circuits', () => {
  test('while all is well, readiness and the report say so', async () => {
    expect((await ready()).json).toMatchObject({ status: 'ok', checks: { providers: { status: 'ok' } } })
    expect(await health()).toMatchObject({
      generate: { off: false, reason: null },
      providers: [
        { provider: 'gemini', tools: ['coloring-page'], status: 'ok', circuit: { state: 'closed', openUntil: null } },
        { provider: 'openai', status: 'ok', circuit: { state: 'closed' } },
      ],
      kv: { status: 'ok' },
      database: { status: 'ok' },
    })
  })

  test('a provider that refuses our key is passed over from the next request on', async () => {
    stubs.behave('gemini', { kind: 'status', status: 401 })
    const first = await generate()
    expect(first.json).toMatchObject({ provider: 'openai', fallback: { used: true, failed: [{ kind: 'auth' }] } })
    stubs.behave('gemini', { kind: 'ok' })
    stubs.forget()
    const second = await generate()
    expect(second.json).toMatchObject({
      provider: 'openai',
      fallback: { used: true, failed: [{ provider: 'gemini', kind: 'circuit_open', durationMs: 0 }] },
    })
    expect(stubs.asked('gemini')).toBe(0)
    await expect.poll(async () => (await ready()).json.checks.providers.status, READ_AGAIN).toBe('degraded')
    expect((await ready()).json).toMatchObject({ status: 'degraded' })
    const asAdmin = (await ready(admin.token)).json.checks.providers.details
    expect(asAdmin).toMatchObject({ usable: ['openai'], skipped: [{ provider: 'gemini', status: 'circuit_open' }] })
    await expect.poll(async () => (await health()).providers[0].status, READ_AGAIN).toBe('circuit_open')
    expect((await health()).providers[0]).toMatchObject({
      provider: 'gemini',
      status: 'circuit_open',
      circuit: { state: 'open', failures: 1, openUntil: expect.stringMatching(/^\d{4}-/) },
    })
  })

  test('with every circuit open nobody waits: 503 with the reasons and when to come back, and nothing charged', async () => {
    expectErrorsInLog()
    stubs.behave('openai', { kind: 'status', status: 401 })
    expect((await generate()).json.error).toMatchObject({ code: 'PROVIDER_ERROR', details: { fallbackUsed: 'openai' } })
    stubs.forget()
    const before = await balanceOf(app, { ...user, password: '' })
    const { status, headers, json } = await generate()
    expect([status, json.error.code]).toEqual([503, 'PROVIDER_UNAVAILABLE'])
    expect(json.error.details.providers).toEqual([
      { provider: 'gemini', kind: 'circuit_open', reason: expect.any(String) },
      { provider: 'openai', kind: 'circuit_open', reason: expect.any(String) },
    ])
    const retryAfter = Number(headers.get('retry-after'))
    expect(retryAfter).toBeGreaterThan(0)
    expect(retryAfter).toBeLessThanOrEqual(300)
    expect(stubs.asked('gemini') + stubs.asked('openai')).toBe(0)
    expect(await balanceOf(app, { ...user, password: '' })).toEqual(before)
    expect(await ledgerViolations()).toEqual([])
    await expect.poll(async () => (await ready()).status, READ_AGAIN).toBe(503)
    const readiness = await ready()
    expect([readiness.status, readiness.json.checks.providers]).toEqual([503, { status: 'down' }])
  })
})
