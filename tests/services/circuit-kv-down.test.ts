// Circuits while KV is away: calls go on, and this instance's own memory watches over them.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { admitCall, newCallId, recordOutcome } from '../../lib/ai/circuit.ts'
import { givenAccount } from '../support/accounts.ts'
import { type App, processImage, startApp } from '../support/app.ts'
import { serviceUrls } from '../support/lane.ts'
import { type ProviderStubs, startProviderStubs } from '../support/provider-stubs.ts'
import { startUpstashRest, type UpstashRest } from '../support/upstash-rest.ts'

let app: App
let stubs: ProviderStubs
let store: UpstashRest

beforeAll(async () => {
  stubs = await startProviderStubs()
  const token = crypto.randomUUID()
  store = await startUpstashRest({ redisUrl: serviceUrls().redis, token, keyPrefix: `test:${token}:` })
  app = await startApp({
    ...stubs.variables,
    KV_REST_API_URL: store.url,
    KV_REST_API_TOKEN: token,
    FORK__TOOLS__0__PROVIDERS: '["gemini","openai"]',
  })
})

afterAll(async () => {
  await store.close()
  await stubs.close()
})

describe('while KV is away', () => {
  test.each(['cut', 'unavailable', 'hang'] as const)(
    'by "%s", nobody is kept from calling, and failures count',
    async (how) => {
      const provider = `provider-${crypto.randomUUID()}`
      store.down(how)
      try {
        for (let call = 0; call < 5; call += 1) {
          expect(await admitCall(provider)).toEqual({ state: 'closed' })
          await recordOutcome(provider, { id: newCallId(), kind: 'overloaded', durationMs: 10 })
        }
        expect(await admitCall(provider)).toMatchObject({ state: 'open' })
      } finally {
        store.down(false)
      }
    },
  )

  test('requests are answered, and soon go past a provider that is dead', async () => {
    stubs.behave('gemini', { kind: 'ok' })
    store.down('cut')
    try {
      expect((await generate()).provider).toBe('gemini')
      stubs.behave('gemini', { kind: 'status', status: 503 })
      await expect.poll(async () => (await generate()).why, { timeout: 40_000 }).toBe('circuit_open')
      stubs.forget()
      expect(await generate()).toEqual({ provider: 'openai', why: 'circuit_open' })
      expect(stubs.asked('gemini')).toBe(0)
    } finally {
      store.down(false)
    }
  })
})

async function generate() {
  const { status, json } = await processImage(app, { ...(await givenAccount()), password: '' })
  expect(status).toBe(200)
  return { provider: json.provider, why: json.fallback.failed[0]?.kind }
}
