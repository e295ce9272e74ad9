// A model that answered 404 to one instance is passed over by the others: two copies of the module on a real Redis.
import { afterEach, expect, test, vi } from 'vitest'
import { serviceUrls } from '../support/lane.ts'
import { startUpstashRest } from '../support/upstash-rest.ts'

const CHAIN = ['one', 'two']

afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllEnvs()
})

test('other instances learn of it from KV, also those that asked a while ago', async () => {
  const { redis } = serviceUrls()
  const kv = await startUpstashRest({ token: 'token', redisUrl: redis, keyPrefix: crypto.randomUUID() })
  vi.stubEnv('KV_REST_API_URL', kv.url)
  vi.stubEnv('KV_REST_API_TOKEN', kv.token)
  const instance = async () => {
    vi.resetModules()
    return await import('../../lib/ai/gone-models.ts')
  }
  try {
    const [first, second] = [await instance(), await instance()]
    expect(await second.presentModels('gemini', CHAIN)).toEqual(CHAIN)
    await first.rememberGone('gemini', 'one')
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 11_000 })
    expect(await second.presentModels('gemini', CHAIN)).toEqual(['two'])
    expect(await (await instance()).presentModels('gemini', CHAIN)).toEqual(['two'])
  } finally {
    await kv.close()
  }
})

test('an instance asks KV once in ten seconds for each model, however many requests it serves', async () => {
  const { redis } = serviceUrls()
  const kv = await startUpstashRest({ token: 'token', redisUrl: redis, keyPrefix: crypto.randomUUID() })
  vi.stubEnv('KV_REST_API_URL', kv.url)
  vi.stubEnv('KV_REST_API_TOKEN', kv.token)
  vi.resetModules()
  const { presentModels } = await import('../../lib/ai/gone-models.ts')
  try {
    for (let request = 0; request < 50; request++) await presentModels('gemini', CHAIN)
    // The commands of one tick share a request, which is made once more when its answer is late.
    expect(kv.requests()).toBeLessThanOrEqual(2)
  } finally {
    await kv.close()
  }
})
