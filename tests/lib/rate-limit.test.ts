// Rate limits on both stores: in memory, and the real @upstash/ratelimit on a real Redis behind Upstash's protocol.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { clientIp } from '../../lib/rate-limit.ts'
import { startUpstashRest, type UpstashRest } from '../support/upstash-rest.ts'

type RateLimit = typeof import('../../lib/rate-limit.ts')

const redisUrl = process.env.TEST_REDIS_URL
const MINUTE_MS = 60_000
const MIDNIGHT = Date.UTC(2026, 0, 1)
const ada = { ip: '203.0.113.7', userId: 'user_ada' }

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: MIDNIGHT })
})

afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
})

describe('limits in memory', () => {
  let limits: RateLimit

  beforeEach(async () => {
    limits = await loadRateLimit()
  })

  keepsTheLimits(() => limits)
})

describe.skipIf(!redisUrl)('limits on a real Redis (TEST_REDIS_URL)', () => {
  let server: UpstashRest
  let limits: RateLimit

  beforeEach(async () => {
    const keyPrefix = `test:${crypto.randomUUID()}:`
    server = await startUpstashRest({ token: 'secret', keyPrefix, ...(redisUrl && { redisUrl }) })
    limits = await loadRateLimit(server)
  })

  afterEach(() => server.close())

  keepsTheLimits(() => limits)

  test('all windows of a request are counted in one round trip', async () => {
    const who = { ...ada, key: { id: 'key_1', requestsPerMinute: undefined } }
    await limits.countRequest('generate', who) // Redis learns the script of the limiter.
    const before = server.requests()
    await limits.countRequest('generate', who)
    expect(server.requests() - before).toBe(1)
    await limits.countRequest('generate', { ...ada, key: { id: 'key_1', requestsPerMinute: 5 } })
    expect(server.requests() - before).toBe(2)
  })

  test('instances of the same deployment share their counts', async () => {
    await countTimes(limits, 'generate', ada, 6)
    const other = await loadRateLimit(server)
    expect(await countTimes(other, 'generate', ada, 6)).toBe(4)
  })

  test.each(['cut', 'unavailable', 'hang'] as const)(
    'a store that fails by "%s" loosens nothing that costs money',
    async (how) => {
      server.down(how)
      const lines = logged()
      const startedAt = performance.now()
      expect(await allowedInParallel(limits, 'generate', 30)).toBe(10)
      expect(performance.now() - startedAt).toBeLessThan(1000)
      expect(lines()).toHaveLength(1)
    },
  )

  test('the store counts again as soon as it is back', async () => {
    logged()
    server.down(true)
    expect(await countTimes(limits, 'generate', ada, 12)).toBe(10)
    server.down(false)
    expect(await countTimes(limits, 'generate', ada, 12)).toBe(10)
  })
})

describe('with a KV store that cannot be reached', () => {
  let limits: RateLimit

  beforeEach(async () => {
    limits = await loadRateLimit({ url: 'http://127.0.0.1:1', token: 'secret' })
  })

  test('generating and signing in stay limited, by the memory of the instance', async () => {
    logged()
    expect(await allowedInParallel(limits, 'generate', 50)).toBe(10)
    expect(await allowedInParallel(limits, 'signIn', 80)).toBe(60)
    const refused = await limits.countRequest('generate', ada)
    expect(refused.headers).toEqual({
      'ratelimit-policy': '"generate-user";q=10;w=60, "generate-ip";q=60;w=60',
      ratelimit: '"generate-user";r=0;t=60, "generate-ip";r=50;t=60',
      'retry-after': '61',
    })
  })

  test('reading passes without a count', async () => {
    logged()
    expect(await allowedInParallel(limits, 'read', 200)).toBe(200)
    expect(await limits.countRequest('read', ada)).toEqual({
      allowed: true,
      retryAfterSeconds: 0,
      headers: { 'ratelimit-policy': '"read";q=120;w=60' },
    })
  })

  test('it is logged once a minute, without a word about the caller', async () => {
    const lines = logged()
    await allowedInParallel(limits, 'generate', 5)
    await allowedInParallel(limits, 'read', 5)
    expect(lines()).toHaveLength(1)
    vi.setSystemTime(MIDNIGHT + MINUTE_MS)
    await allowedInParallel(limits, 'read', 5)
    expect(lines()).toHaveLength(2)
    expect(lines()[0]).toMatchObject({ level: 'warn', event: 'kv_down', error: { name: 'KvError' } })
    expect(JSON.stringify(lines())).not.toMatch(/user_ada|203\.0\.113\.7/)
  })
})

describe('clientIp', () => {
  test.each([
    { why: 'an IPv4 address', header: '203.0.113.7', ip: '203.0.113.7' },
    { why: 'spaces around it', header: ' 203.0.113.7 ', ip: '203.0.113.7' },
    { why: 'IPv6 by its /64', header: '2001:db8:1:2:3:4:5:6', ip: '2001:db8:1:2::/64' },
    { why: 'another host of the same /64', header: '2001:0DB8:0001:0002::ffff', ip: '2001:db8:1:2::/64' },
    { why: 'a compression inside the network part', header: '2001:db8::1', ip: '2001:db8:0:0::/64' },
    { why: 'a compression at the end', header: 'fe80:1:2:3::', ip: 'fe80:1:2:3::/64' },
    { why: 'a zone', header: 'fe80::1%eth0', ip: 'fe80:0:0:0::/64' },
    { why: 'the loopback address', header: '::1', ip: '0:0:0:0::/64' },
    { why: 'IPv4 mapped into IPv6', header: '::ffff:203.0.113.7', ip: '203.0.113.7' },
    { why: 'the same in hexadecimal', header: '::FFFF:cb00:7107', ip: '203.0.113.7' },
    { why: 'a mapped address with zeros', header: '::ffff:10.0.0.1', ip: '10.0.0.1' },
    { why: 'no address', header: 'localhost', ip: 'unknown' },
    { why: 'a list', header: '203.0.113.7, 10.0.0.1', ip: 'unknown' },
    { why: 'nothing', header: '', ip: 'unknown' },
  ])('$why: "$header" is counted as $ip', ({ header, ip }) => {
    expect(clientIp(new Request('http://localhost/', { headers: { 'x-real-ip': header } }))).toBe(ip)
  })

  test('headers that anyone can send are not believed', () => {
    const headers = {
      'x-forwarded-for': '203.0.113.7',
      'x-vercel-forwarded-for': '203.0.113.7',
      forwarded: 'for=203.0.113.7',
    }
    expect(clientIp(new Request('http://localhost/', { headers }))).toBe('unknown')
  })

  test('on Vercel its own header stands in for a missing x-real-ip', async () => {
    vi.stubEnv('VERCEL', '1')
    const onVercel = await loadRateLimit()
    const headers = { 'x-vercel-forwarded-for': '203.0.113.7, 10.0.0.1' }
    expect(onVercel.clientIp(new Request('http://localhost/', { headers }))).toBe('203.0.113.7')
  })
})

/** The tests that hold on every store. */
function keepsTheLimits(current: () => RateLimit) {
  test('of 50 parallel requests of a user exactly 10 may generate', async () => {
    expect(await allowedInParallel(current(), 'generate', 50)).toBe(10)
  })

  test('the headers name every window, what is left in it and when it resets', async () => {
    vi.setSystemTime(MIDNIGHT + 17_500)
    const { countRequest } = current()
    expect(await countRequest('generate', { ...ada, key: { id: 'key_1', requestsPerMinute: undefined } })).toEqual({
      allowed: true,
      retryAfterSeconds: 0,
      headers: {
        'ratelimit-policy': '"generate-user";q=10;w=60, "generate-ip";q=60;w=60, "generate-key";q=10;w=60',
        ratelimit: '"generate-user";r=9;t=43, "generate-ip";r=59;t=43, "generate-key";r=9;t=43',
      },
    })
    expect((await countRequest('signIn', ada)).headers).toEqual({
      'ratelimit-policy': '"sign-in-ip";q=60;w=60',
      ratelimit: '"sign-in-ip";r=59;t=43',
    })
  })

  test('a refusal says when to come back, and then there is room', async () => {
    const limits = current()
    vi.setSystemTime(MIDNIGHT + 18_000)
    await countTimes(limits, 'generate', ada, 10)
    expect(await limits.countRequest('generate', ada)).toEqual({
      allowed: false,
      retryAfterSeconds: 43,
      headers: {
        'ratelimit-policy': '"generate-user";q=10;w=60, "generate-ip";q=60;w=60',
        ratelimit: '"generate-user";r=0;t=42, "generate-ip";r=50;t=42',
        'retry-after': '43',
      },
    })
    vi.setSystemTime(MIDNIGHT + 18_000 + 43_000)
    expect(await countTimes(limits, 'generate', ada, 1)).toBe(1)
  })

  test('a user who hammers does not lock out the others behind the same address', async () => {
    const limits = current()
    expect(await allowedInParallel(limits, 'generate', 50)).toBe(10)
    const { headers } = await limits.countRequest('generate', { ip: ada.ip, userId: 'user_grace' })
    expect(headers.ratelimit).toBe('"generate-user";r=9;t=60, "generate-ip";r=49;t=60')
  })

  test('many users behind one address share six times the quota', async () => {
    const limits = current()
    let allowedCount = 0
    for (let user = 0; user < 8; user += 1) {
      allowedCount += await countTimes(limits, 'generate', { ip: ada.ip, userId: `user_${user}` }, 10)
    }
    expect(allowedCount).toBe(60)
  })

  test('an API key has its own quota, whichever address it comes from', async () => {
    const limits = current()
    let allowedCount = 0
    for (let request = 0; request < 14; request += 1) {
      const who = {
        ip: `203.0.113.${request}`,
        userId: `user_${request}`,
        key: { id: 'key_shared', requestsPerMinute: undefined },
      }
      allowedCount += await countTimes(limits, 'generate', who, 1)
    }
    expect(allowedCount).toBe(10)
  })

  test('an API key with a limit of its own is counted by that one, whatever it does', async () => {
    const limits = current()
    const who = { ...ada, key: { id: 'key_own', requestsPerMinute: 3 } }
    expect((await limits.countRequest('generate', who)).headers).toEqual({
      'ratelimit-policy': '"generate-user";q=10;w=60, "generate-ip";q=60;w=60, "key";q=3;w=60',
      ratelimit: '"generate-user";r=9;t=60, "generate-ip";r=59;t=60, "key";r=2;t=60',
    })
    expect((await limits.countRequest('read', who)).headers).toEqual({
      'ratelimit-policy': '"read";q=120;w=60, "key";q=3;w=60',
      ratelimit: '"read";r=119;t=60, "key";r=1;t=60',
    })
    expect(await countTimes(limits, 'read', who, 3)).toBe(1)
    expect((await limits.countRequest('generate', who)).allowed).toBe(false)
    expect((await limits.countRequest('read', ada)).headers.ratelimit, 'refusals are not counted').toBe(
      '"read";r=117;t=60',
    )
    const other = { ...ada, key: { id: 'key_other', requestsPerMinute: 3 } }
    expect(await countTimes(limits, 'read', other, 4)).toBe(3)
  })

  test('an API key may ask more often than its user only in name', async () => {
    const who = { ...ada, key: { id: 'key_wide', requestsPerMinute: 1000 } }
    expect(await countTimes(current(), 'generate', who, 12)).toBe(10)
  })

  test('an API key without a limit of its own is not counted where only users are', async () => {
    const { headers } = await current().countRequest('read', {
      ...ada,
      key: { id: 'key_1', requestsPerMinute: undefined },
    })
    expect(headers['ratelimit-policy']).toBe('"read";q=120;w=60')
  })

  test('reading is counted per user, or per address when there is none', async () => {
    const limits = current()
    await limits.countRequest('read', ada)
    const elsewhere = await limits.countRequest('read', { ...ada, ip: '198.51.100.1' })
    expect(elsewhere.headers.ratelimit).toBe('"read";r=118;t=60')
    const signedOut = await limits.countRequest('read', { ip: ada.ip })
    expect(signedOut.headers.ratelimit).toBe('"read";r=119;t=60')
  })

  test('policies do not count for each other', async () => {
    const limits = current()
    await countTimes(limits, 'generate', ada, 10)
    expect((await limits.countRequest('signIn', ada)).headers.ratelimit).toBe('"sign-in-ip";r=59;t=60')
    expect((await limits.countRequest('read', ada)).headers.ratelimit).toBe('"read";r=119;t=60')
  })
}

type Policy = Parameters<RateLimit['countRequest']>[0]
type Who = Parameters<RateLimit['countRequest']>[1]

async function countTimes(limits: RateLimit, policy: Policy, who: Who, requestCount: number): Promise<number> {
  let allowedCount = 0
  for (let request = 0; request < requestCount; request += 1) {
    if ((await limits.countRequest(policy, who)).allowed) allowedCount += 1
  }
  return allowedCount
}

async function allowedInParallel(limits: RateLimit, policy: Policy, requestCount: number): Promise<number> {
  const verdicts = await Promise.all(Array.from({ length: requestCount }, () => limits.countRequest(policy, ada)))
  return verdicts.filter(({ allowed }) => allowed).length
}

/** Keeps the log off the terminal; the function it returns gives the lines written since. */
function logged(): () => unknown[] {
  const output = vi.spyOn(console, 'log').mockImplementation(() => {})
  return () => output.mock.calls.map(([line]) => JSON.parse(String(line)))
}

/** The module as a process with this store would load it; the quotas hold whatever fork.config.json says. */
async function loadRateLimit({ url, token } = { url: '', token: '' }): Promise<RateLimit> {
  vi.stubEnv('KV_REST_API_URL', url)
  vi.stubEnv('KV_REST_API_TOKEN', token)
  vi.stubEnv('FORK__LIMITS__GENERATE__PER_MINUTE', '10')
  vi.stubEnv('FORK__LIMITS__SIGN_IN__PER_MINUTE', '60')
  vi.stubEnv('FORK__LIMITS__READ__PER_MINUTE', '120')
  vi.resetModules()
  return await import('../../lib/rate-limit.ts')
}
