// Two instances share what they know of a provider through a real Redis: one finds out that it is dead, both leave it alone.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { admitCall, newCallId, recordOutcome } from '../../lib/ai/circuit.ts'
import { kv } from '../../lib/kv.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, call, processImage, startApp } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { type ProviderStubs, startProviderStubs } from '../support/provider-stubs.ts'
import { startServer } from '../support/server.ts'

const KEPT_MS = 600_000

let here: App
let stubs: ProviderStubs
let admin: Account

beforeAll(async () => {
  stubs = await startProviderStubs()
  here = await startApp({
    ...stubs.variables,
    FORK__TOOLS__0__PROVIDERS: '["gemini","openai"]',
    FORK__AI__PROVIDER_TIMEOUT_MS: '15000',
  })
  admin = await givenAccount({ role: 'admin' })
})

afterAll(() => stubs.close())

async function generate(app: App) {
  const { status, json } = await processImage(app, { ...(await givenAccount()), password: '' })
  expect(status).toBe(200)
  return { provider: json.provider, why: json.fallback.failed[0]?.kind }
}

async function circuitOn(app: App): Promise<{ state: string; openUntil: string | null }> {
  const { json } = await call(app, 'GET /api/admin/health', { token: admin.token })
  return json.providers.find(({ provider }: { provider: string }) => provider === 'gemini').circuit
}

/** Ends the cooldown by what is kept of it, and waits until every instance has heard. */
async function endCooldown(apps: App[]) {
  const text = await kv().get('circuit:gemini')
  await kv().set('circuit:gemini', String(text).replace(/^\d+/, String(Date.now() - 1)), { ttlMs: KEPT_MS })
  for (const app of apps) {
    await expect
      .poll(async () => Date.parse((await circuitOn(app)).openUntil ?? ''), { timeout: 20_000 })
      .toBeLessThan(Date.now())
  }
}

describe('two instances', () => {
  test('one opens the circuit, the other calls nobody who is dead; one probe goes, and both come back', async () => {
    expectErrorsInLog()
    const there = await startServer(here.stores)
    const both = [here, there]
    stubs.behave('gemini', { kind: 'status', status: 503 })
    await expect.poll(async () => (await generate(here)).why, { timeout: 30_000 }).toBe('circuit_open')

    // The other one has never called it.
    stubs.forget()
    expect(await generate(there)).toEqual({ provider: 'openai', why: 'circuit_open' })
    expect(stubs.asked('gemini')).toBe(0)

    // The probe hangs: whoever comes meanwhile, to either of them, goes past it.
    stubs.behave('gemini', { kind: 'hang' })
    await endCooldown(both)
    const crowd = await Promise.all(Array.from({ length: 12 }, (_, index) => generate(both[index % 2] ?? here)))
    expect(stubs.asked('gemini')).toBe(1)
    expect(crowd.map(({ provider }) => provider)).toEqual(crowd.map(() => 'openai'))
    expect(crowd.map(({ why }) => why).sort()).toEqual([...crowd.slice(1).map(() => 'circuit_open'), 'timeout'])

    // It failed, so the circuit stays open; the next one finds the provider well.
    stubs.behave('gemini', { kind: 'ok' })
    stubs.forget()
    expect(await generate(there)).toEqual({ provider: 'openai', why: 'circuit_open' })
    await endCooldown(both)
    expect(await generate(there)).toEqual({ provider: 'gemini', why: undefined })
    for (const app of both) {
      await expect.poll(async () => (await circuitOn(app)).state, { timeout: 20_000 }).toBe('closed')
      expect(await generate(app)).toEqual({ provider: 'gemini', why: undefined })
    }
  })
})

describe('a closed circuit', () => {
  test('costs one request to KV for all calls that an instance makes in a moment', async () => {
    const provider = `provider-${crypto.randomUUID()}`
    const ask = async () => {
      expect(await admitCall(provider)).toEqual({ state: 'closed' })
      await recordOutcome(provider, { id: newCallId(), kind: 'ok', durationMs: 10 })
    }
    await ask() // Redis learns the script.
    const startedAt = Date.now()
    const before = here.stores.kvRequests()
    for (let index = 0; index < 500; index += 1) await Promise.all([ask(), ask()])
    const moments = Math.ceil((Date.now() - startedAt) / 1_500) + 1
    expect(here.stores.kvRequests() - before).toBeLessThanOrEqual(moments)
  })
})
