// One suite for both stores: this process's memory, and the real @vercel/kv client on a real Redis behind Upstash's protocol.
import { Redis } from 'ioredis'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Kv, type KvScript, memoryKv } from '../../lib/kv.ts'
import { startUpstashRest, type UpstashRest } from '../support/upstash-rest.ts'

const redisUrl = process.env.TEST_REDIS_URL
const MINUTE_MS = 60_000
/** Doubles what is kept, or keeps what is given; answers with it and what else was given. */
const DOUBLE: KvScript = {
  lua: `
local text = redis.call('get', KEYS[1])
local value = text and tostring(tonumber(text) * 2) or ARGV[1]
redis.call('set', KEYS[1], value, 'PX', ARGV[2])
return { value, ARGV[3] }
`,
  memory({ read, write }, [key = ''], [first = '', ttlMs, extra]) {
    const text = read(key)
    const value = text === null ? first : String(Number(text) * 2)
    write(key, value, Number(ttlMs))
    return [value, extra]
  },
}

const MIDNIGHT = Date.UTC(2026, 0, 1) // The beginning of a bucket, whatever the window.

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: MIDNIGHT })
})

afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllEnvs()
})

describe('in memory', () => {
  keepsTheContract(() => memoryKv())

  test('is the store when the environment names none', async () => {
    const { kv } = await loadKv({ url: '', token: '' })
    await kv().set('key', 'value', { ttlMs: MINUTE_MS })
    expect(await kv().get('key')).toBe('value')
  })

  test('a value is gone when its time is over', async () => {
    const store = memoryKv()
    await store.set('key', 'value', { ttlMs: 1000 })
    vi.setSystemTime(MIDNIGHT + 999)
    expect(await store.get('key')).toBe('value')
    vi.setSystemTime(MIDNIGHT + 1000)
    expect(await store.get('key')).toBeNull()
    expect(await store.set('key', 'next', { ttlMs: 1000, ifAbsent: true })).toBe(true)
  })

  test('a full store lets expired entries go before living ones', async () => {
    const store = memoryKv(100)
    await store.set('old but alive', 'value', { ttlMs: 10 * MINUTE_MS })
    for (let index = 1; index < 100; index += 1) await store.set(`short ${index}`, 'value', { ttlMs: 1000 })
    vi.setSystemTime(MIDNIGHT + 2000)
    await store.set('one more', 'value', { ttlMs: 1000 })
    expect(await store.get('old but alive')).toBe('value')
    expect(await store.get('one more')).toBe('value')
  })

  test('a store full of living entries drops the oldest and never grows', async () => {
    const store = memoryKv(100)
    const keys = Array.from({ length: 1000 }, (_, index) => `key ${index}`)
    for (const key of keys) await store.set(key, 'value', { ttlMs: MINUTE_MS })
    const kept = []
    for (const key of keys) if ((await store.get(key)) !== null) kept.push(key)
    expect(kept.length).toBeLessThanOrEqual(100)
    expect(kept.length).toBeGreaterThanOrEqual(90)
    expect(kept).toEqual(keys.slice(-kept.length))
  })
})

describe.skipIf(!redisUrl)('Vercel KV on a real Redis (TEST_REDIS_URL)', () => {
  let server: UpstashRest
  let redis: Redis
  let store: Kv
  let keyPrefix: string

  beforeEach(async () => {
    keyPrefix = `test:${crypto.randomUUID()}:`
    server = await startUpstashRest({ token: 'secret', keyPrefix, ...(redisUrl && { redisUrl }) })
    redis = new Redis(redisUrl ?? '', { keyPrefix })
    store = (await loadKv(server)).kv()
  })

  afterEach(async () => {
    await server.close()
    redis.disconnect()
  })

  keepsTheContract(() => store)

  test('several windows are one round trip, a refusal is two', async () => {
    const [user, address] = [aWindow({ quota: 1 }), aWindow({ quota: 9 })]
    await store.countWindows([aWindow({}), aWindow({})]) // Redis learns the scripts of the limiter.
    expect(await roundTrips(() => store.countWindows([user, address, aWindow({})]))).toBe(1)
    expect(await roundTrips(() => store.countWindows([user, address, aWindow({})]))).toBe(2)
  })

  test('scripts of the same moment are one round trip, once Redis knows them', async () => {
    const double = () => store.run(DOUBLE, ['key'], [1, MINUTE_MS, ''])
    await double()
    expect(await roundTrips(() => Promise.all([double(), double()]))).toBe(1)
  })

  test('everything written expires', async () => {
    await store.set('key', 'value', { ttlMs: 5000 })
    await store.run(DOUBLE, ['sum'], [1, 5000, ''])
    await store.countWindows([{ key: 'window', quota: 5, windowMs: 2000 }])
    const keys = ['key', 'sum', `limit:window:${MIDNIGHT / 2000}`].map((key) => `development:${key}`)
    for (const ttlMs of await Promise.all(keys.map((key) => redis.pttl(key)))) {
      expect(ttlMs).toBeGreaterThan(0)
      expect(ttlMs).toBeLessThanOrEqual(5000)
    }
  })

  test('previews and production do not see each other in a shared store', async () => {
    await store.set('key', 'of development', { ttlMs: MINUTE_MS })
    vi.stubEnv('VERCEL_ENV', 'preview')
    const preview = (await loadKv(server)).kv()
    expect(await preview.get('key')).toBeNull()
  })

  test.each(['cut', 'unavailable', 'hang'] as const)(
    'a server that fails by "%s" is a KvError in time',
    async (how) => {
      const { kv, KvError } = await loadKv(server)
      server.down(how)
      const startedAt = performance.now()
      const failures = await Promise.allSettled([
        kv().get('private'),
        kv().set('private', 'value', { ttlMs: MINUTE_MS }),
        kv().run(DOUBLE, ['private'], [1, MINUTE_MS, '']),
        kv().countWindows([aWindow({ key: 'private' })]),
      ])
      expect(performance.now() - startedAt).toBeLessThan(1000)
      for (const failure of failures) {
        if (failure.status === 'fulfilled') throw new Error('A dead store answered.')
        expect(failure.reason).toBeInstanceOf(KvError)
        expect(String(failure.reason)).not.toContain('private')
      }
      server.down(false)
      expect(await kv().get('private')).toBeNull()
    },
  )

  test('a wrong token is a KvError that quotes no key', async () => {
    const { kv, KvError } = await loadKv({ url: server.url, token: 'wrong' })
    const refused = await kv()
      .get('private')
      .catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(KvError)
    expect(String(refused)).toBe('KvError: The KV store failed: Unauthorized')
  })

  async function roundTrips(work: () => Promise<unknown>): Promise<number> {
    const before = server.requests()
    await work()
    return server.requests() - before
  }
})

/** The tests that hold for every store. */
function keepsTheContract(current: () => Kv) {
  test.each(['text', '12', '{"a":1}', 'OK', 'null', '', 'žluťoučký kůň 🎨'])(
    '%j comes back as it was kept',
    async (value) => {
      const store = current()
      expect(await store.get('key')).toBeNull()
      expect(await store.set('key', value, { ttlMs: MINUTE_MS })).toBe(true)
      expect(await store.get('key')).toBe(value)
    },
  )

  test('of parallel writers that want the key absent one wins, and its value stays', async () => {
    const store = current()
    const values = Array.from({ length: 20 }, (_, index) => `writer ${index}`)
    const won = await Promise.all(values.map((value) => store.set('key', value, { ttlMs: MINUTE_MS, ifAbsent: true })))
    expect(won.filter(Boolean)).toHaveLength(1)
    expect(await store.get('key')).toBe(values[won.indexOf(true)])
  })

  test('a script reads and writes with nothing in between, and its arguments arrive as text', async () => {
    const store = current()
    expect(await store.run(DOUBLE, ['key'], [3, MINUTE_MS, 'žluťoučký'])).toEqual(['3', 'žluťoučký'])
    const answers = await Promise.all(Array.from({ length: 8 }, () => store.run(DOUBLE, ['key'], [3, MINUTE_MS, ''])))
    expect(answers.map((answer) => String(answer).replace(',', '')).sort((a, b) => Number(a) - Number(b))).toEqual(
      Array.from({ length: 8 }, (_, index) => String(3 * 2 ** (index + 1))),
    )
    expect(await store.get('key')).toBe(String(3 * 2 ** 8))
  })

  test('of 50 parallel requests exactly the quota is allowed', async () => {
    const store = current()
    const window = aWindow({ quota: 10 })
    const answers = await Promise.all(Array.from({ length: 50 }, () => store.countWindows([window])))
    const states = answers.flat()
    expect(states.filter(({ allowed }) => allowed)).toHaveLength(10)
    const remaining = states.filter(({ allowed }) => allowed).map((state) => state.remaining)
    expect(remaining.sort((a, b) => b - a)).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
  })

  test('a window says how much is left and when its bucket ends', async () => {
    vi.setSystemTime(MIDNIGHT + 18_000)
    expect(await current().countWindows([aWindow({ quota: 2 }), aWindow({ quota: 7, windowMs: 20_000 })])).toEqual([
      { allowed: true, remaining: 1, resetAtMs: MIDNIGHT + MINUTE_MS },
      { allowed: true, remaining: 6, resetAtMs: MIDNIGHT + 20_000 },
    ])
  })

  test('a request that one window refuses is counted in no other', async () => {
    const store = current()
    const [narrow, wide] = [aWindow({ quota: 1 }), aWindow({ quota: 5 })]
    await store.countWindows([narrow, wide])
    for (let attempt = 0; attempt < 8; attempt += 1) {
      expect(await store.countWindows([narrow, wide])).toEqual([
        { allowed: false, remaining: 0, resetAtMs: MIDNIGHT + MINUTE_MS },
        { allowed: true, remaining: 4, resetAtMs: MIDNIGHT + MINUTE_MS },
      ])
    }
    const [state] = await store.countWindows([wide])
    expect(state?.remaining).toBe(3)
  })

  test('the window slides: half a minute on, half of the last bucket still counts', async () => {
    const store = current()
    const window = aWindow({ quota: 10 })
    expect(await allowedOf(store, window, 12)).toBe(10)
    vi.setSystemTime(MIDNIGHT + MINUTE_MS)
    expect(await allowedOf(store, window, 12)).toBe(0)
    vi.setSystemTime(MIDNIGHT + 1.5 * MINUTE_MS)
    expect(await allowedOf(store, window, 12)).toBe(5)
    vi.setSystemTime(MIDNIGHT + 3 * MINUTE_MS)
    expect(await allowedOf(store, window, 12)).toBe(10)
  })

  test('just after its reset a full window has room again', async () => {
    const store = current()
    const window = aWindow({ quota: 3 })
    await allowedOf(store, window, 3)
    const [state] = await store.countWindows([window])
    vi.setSystemTime((state?.resetAtMs ?? 0) + 1)
    expect(await allowedOf(store, window, 1)).toBe(1)
  })
}

async function allowedOf(store: Kv, window: ReturnType<typeof aWindow>, requestCount: number): Promise<number> {
  let allowedCount = 0
  for (let request = 0; request < requestCount; request += 1) {
    const [state] = await store.countWindows([window])
    if (state?.allowed) allowedCount += 1
  }
  return allowedCount
}

function aWindow({ key = crypto.randomUUID() as string, quota = 10, windowMs = MINUTE_MS }) {
  return { key, quota, windowMs }
}

/** The module as a process with this environment would load it. */
async function loadKv({ url, token }: { url: string; token: string }) {
  vi.stubEnv('KV_REST_API_URL', url)
  vi.stubEnv('KV_REST_API_TOKEN', token)
  vi.resetModules()
  return await import('../../lib/kv.ts')
}
