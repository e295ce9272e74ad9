// The limits as they are shipped: how often one may ask, who shares a quota with whom, and what a client is told.
import { beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { type App, type CallOptions, call, givenUser, type Reply, startApp, type TestUser } from '../support/app.ts'

const MINUTE_MS = 60_000

let app: App
let user: TestUser
let friends: TestUser[]
let minute: number

beforeAll(async () => {
  app = await startApp({
    FORK__LIMITS__GENERATE__PER_MINUTE: '10',
    FORK__LIMITS__SIGN_IN__PER_MINUTE: '60',
    FORK__LIMITS__READ__PER_MINUTE: '120',
  })
  user = await givenUser(app)
  friends = await Promise.all(Array.from({ length: 6 }, () => givenUser(app)))
  minute = Math.floor(Date.now() / MINUTE_MS) * MINUTE_MS
})

/** Every test has a minute of its own that nobody has asked in, of which ten seconds are over, and in which the clock stands still. */
beforeEach(() => {
  minute -= 5 * MINUTE_MS
  vi.useFakeTimers({ toFake: ['Date'], now: minute + 10_000 })
  return () => vi.useRealTimers()
})

const setClock = (seconds: number) => vi.setSystemTime(minute + seconds * 1_000)

/** Counted like any other request for an image, and refused for what it sends. */
const generate = (options: CallOptions = {}) =>
  call(app, 'POST /api/process-image', {
    token: user.token,
    body: 'no image',
    headers: { 'content-type': 'image/jpeg' },
    ...options,
  })

async function times(count: number, ask: () => Promise<Reply>): Promise<Reply[]> {
  const replies: Reply[] = []
  for (let round = 0; round < count; round += 1) replies.push(await ask())
  return replies
}

const limitsOf = ({ headers }: Reply) => ({
  policy: headers.get('ratelimit-policy'),
  limit: headers.get('ratelimit'),
  retryAfter: headers.get('retry-after'),
})

describe('generating', () => {
  test('is for each user ten times a minute; the eleventh says when to come back', async () => {
    const replies = await times(11, generate)
    expect(replies.map(({ status }) => status)).toEqual([...Array.from({ length: 10 }, () => 415), 429])
    const policy = '"generate-user";q=10;w=60, "generate-ip";q=60;w=60'
    expect(replies.map(limitsOf)).toEqual([
      ...Array.from({ length: 10 }, (_, index) => ({
        policy,
        limit: `"generate-user";r=${9 - index};t=50, "generate-ip";r=${59 - index};t=50`,
        retryAfter: null,
      })),
      { policy, limit: '"generate-user";r=0;t=50, "generate-ip";r=50;t=50', retryAfter: '51' },
    ])
    expect(replies[10]?.json.error).toMatchObject({
      code: 'RATE_LIMITED',
      message: 'Too many requests. Try again in 51 s.',
      details: { retryAfterSeconds: 51 },
    })
  })

  test('is possible again after the wait that was told', async () => {
    const [refused] = (await times(11, generate)).slice(-1)
    expect(refused?.status).toBe(429)
    setClock(10 + Number(refused?.headers.get('retry-after')))
    expect((await generate()).status).toBe(415)
  })

  test('comes back little by little, not all at once at the full minute', async () => {
    await times(10, generate)
    setClock(60 + 30)
    const statuses = (await times(10, generate)).map(({ status }) => status)
    expect(statuses.filter((status) => status === 415)).toHaveLength(5)
  })

  test('of one user leaves the others theirs', async () => {
    await times(11, generate)
    expect((await generate({ token: friends[0]?.token })).status).toBe(415)
  })

  test('of all users behind one address is sixty times a minute, and of another address its own', async () => {
    const ip = '203.0.113.7'
    for (const { token } of friends) {
      const replies = await times(10, () => generate({ token, ip }))
      expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([415]))
    }
    const refused = await generate({ ip })
    expect(refused.status).toBe(429)
    expect(refused.headers.get('ratelimit')).toBe('"generate-user";r=10;t=50, "generate-ip";r=0;t=50')
    expect((await generate({ ip: '203.0.113.8' })).status).toBe(415)
  })

  test('that was refused is not counted against the user', async () => {
    await times(20, generate)
    setClock(60 + 59)
    expect((await times(9, generate)).map(({ status }) => status)).toEqual(Array.from({ length: 9 }, () => 415))
  })

  test('costs strangers no quota: they are refused before they are counted', async () => {
    const replies = await times(70, () => generate({ token: 'garbage', ip: '203.0.113.9' }))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([401]))
    expect((await generate({ ip: '203.0.113.9' })).headers.get('ratelimit')).toContain('"generate-ip";r=59')
  })
})

describe('signing in', () => {
  const refresh = (ip: string) => call(app, 'POST /api/auth/refresh', { body: { refreshToken: 'rt_unknown' }, ip })

  test('is tried sixty times a minute from one address, by whatever door', async () => {
    const ip = '203.0.113.7'
    const replies = await times(60, () => refresh(ip))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([401]))
    expect(limitsOf(replies[59] ?? (await refresh(ip)))).toEqual({
      policy: '"sign-in-ip";q=60;w=60',
      limit: '"sign-in-ip";r=0;t=50',
      retryAfter: null,
    })
    const body = { email: user.email, password: user.password }
    for (const door of ['login', 'register', 'refresh', 'logout']) {
      const { status, headers } = await call(app, `POST /api/auth/${door}`, { body, ip })
      expect(status, door).toBe(429)
      expect(headers.get('retry-after')).toBe('51')
    }
    expect((await refresh('203.0.113.8')).status, 'another address').toBe(401)
  })

  test('is counted for the whole network of an IPv6 address, and for a mapped IPv4 address as that', async () => {
    await times(30, () => refresh('2001:db8:1:2::1'))
    const neighbour = await refresh('2001:0DB8:0001:0002:ffff::2')
    expect(neighbour.headers.get('ratelimit')).toBe('"sign-in-ip";r=29;t=50')
    expect((await refresh('2001:db8:1:3::1')).headers.get('ratelimit'), 'the next network').toBe(
      '"sign-in-ip";r=59;t=50',
    )
    await refresh('198.51.100.4')
    expect((await refresh('::ffff:198.51.100.4')).headers.get('ratelimit')).toBe('"sign-in-ip";r=58;t=50')
  })
})

describe('reading', () => {
  test('is done a hundred and twenty times a minute by a user, wherever they are', async () => {
    const profile = (ip = '203.0.113.7') => call(app, 'GET /api/user/profile', { token: user.token, ip })
    const replies = [...(await times(60, profile)), ...(await times(60, () => profile('203.0.113.8')))]
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]))
    const refused = await profile()
    expect(refused.status).toBe(429)
    expect(limitsOf(refused)).toEqual({ policy: '"read";q=120;w=60', limit: '"read";r=0;t=50', retryAfter: '51' })
    expect((await generate()).status, 'generating has its own').toBe(415)
  })

  test('is counted by address for who is not signed in', async () => {
    const config = (ip: string) => call(app, 'GET /api/config', { ip })
    await times(120, () => config('203.0.113.7'))
    expect((await config('203.0.113.7')).status).toBe(429)
    expect((await config('203.0.113.8')).status).toBe(200)
  })
})
