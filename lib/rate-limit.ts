// Named rate limits: which windows a request counts in, what the client is told, and what holds when the KV store is down.
import { isIP } from 'node:net'
import { config } from './config.ts'
import { env } from './env.ts'
import { KvError, kv, memoryKv, type SlidingWindow, type WindowState } from './kv.ts'
import { describeError, log } from './log.ts'

const WINDOW_SECONDS = 60

export type RateLimitPolicy = 'generate' | 'signIn' | 'read'

interface Requester {
  ip: string
  userId?: string | undefined
  key?: { id: string; requestsPerMinute: number | undefined } | undefined
}

interface Policy {
  /** What holds while the KV store is down: counting in this instance's memory, or no limit. */
  onKvDown: 'memory' | 'pass'
  /** Each window has `times` the policy's quota; one whose identity the request lacks is left out. */
  windows: { name: string; times: number; identity: (who: Requester) => string | undefined }[]
}

const POLICIES: Record<RateLimitPolicy, Policy> = {
  generate: {
    onKvDown: 'memory', // It costs money.
    windows: [
      { name: 'generate-user', times: 1, identity: ({ userId }) => userId },
      { name: 'generate-ip', times: 6, identity: ({ ip }) => ip }, // A school or an office shares one address.
      // A key with a limit of its own is counted by that one.
      { name: 'generate-key', times: 1, identity: ({ key }) => (key?.requestsPerMinute ? undefined : key?.id) },
    ],
  },
  signIn: {
    onKvDown: 'memory', // It holds off password guessing.
    windows: [{ name: 'sign-in-ip', times: 1, identity: ({ ip }) => ip }],
  },
  read: {
    onKvDown: 'pass',
    windows: [{ name: 'read', times: 1, identity: ({ userId, ip }) => userId ?? ip }],
  },
}

const localCounts = memoryKv()
let minuteLogged: number | undefined

export interface RateLimitVerdict {
  allowed: boolean
  /** Zero when allowed. An upper bound otherwise: capacity comes back gradually, and some of it may be sooner. */
  retryAfterSeconds: number
  /** RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-10, and Retry-After when refused. */
  headers: Record<string, string>
}

/**
 * Counts one request in every sliding window of its policy, in one KV round trip. A refused request is counted in none
 * of them (taking it back costs a second round trip); a dead KV store never throws, the policy says what holds then.
 */
export async function countRequest(policy: RateLimitPolicy, who: Requester): Promise<RateLimitVerdict> {
  const windows = windowsOf(policy, who)
  const policyHeader = windows.map(({ name, quota }) => `"${name}";q=${quota};w=${WINDOW_SECONDS}`).join(', ')
  const states = await countWindows(policy, windows)
  const now = Date.now()
  const counts = states.map(({ remaining, resetAtMs }, index) => {
    return `"${windows[index]?.name}";r=${remaining};t=${Math.max(0, Math.ceil((resetAtMs - now) / 1000))}`
  })
  const waitsMs = states.filter(({ allowed }) => !allowed).map(({ resetAtMs }) => resetAtMs - now)
  // One second more at least: a window has room again just after its reset, not at it.
  const retryAfterSeconds = waitsMs.length > 0 ? Math.max(0, Math.floor(Math.max(...waitsMs) / 1000)) + 1 : 0
  return {
    allowed: waitsMs.length === 0,
    retryAfterSeconds,
    headers: {
      'ratelimit-policy': policyHeader,
      ...(counts.length > 0 && { ratelimit: counts.join(', ') }),
      ...(retryAfterSeconds > 0 && { 'retry-after': String(retryAfterSeconds) }),
    },
  }
}

/**
 * The address a request is counted under: IPv6 by its /64, which is what one customer holds. Trusts headers that Vercel
 * and the local server overwrite whatever the client sent; 'unknown' (one bucket for all) when there is none.
 */
export function clientIp(request: Request): string {
  const forwarded = env().onVercel ? request.headers.get('x-vercel-forwarded-for')?.split(',')[0] : undefined
  const address = (request.headers.get('x-real-ip') ?? forwarded ?? '').trim()
  switch (isIP(address)) {
    case 4:
      return address
    case 6:
      return networkOf(address)
    default:
      return 'unknown'
  }
}

function windowsOf(policy: RateLimitPolicy, who: Requester): (SlidingWindow & { name: string })[] {
  const { perMinute } = config().limits[policy]
  const windows = POLICIES[policy].windows.flatMap(({ name, times, identity }) => {
    const id = identity(who)
    return id === undefined ? [] : [windowOf(name, id, perMinute * times)]
  })
  // One window for all that the key does, whichever policy it comes under.
  const { id, requestsPerMinute } = who.key ?? {}
  return id && requestsPerMinute ? [...windows, windowOf('key', id, requestsPerMinute)] : windows
}

function windowOf(name: string, id: string, quota: number) {
  return { name, key: `${name}:${id}`, quota, windowMs: WINDOW_SECONDS * 1000 }
}

/** The state of every window, or of none when the KV store is down and the policy lets requests pass. */
async function countWindows(policy: RateLimitPolicy, windows: SlidingWindow[]): Promise<WindowState[]> {
  try {
    return await kv().countWindows(windows)
  } catch (error) {
    if (!(error instanceof KvError)) throw error
    logKvDown(error)
    return POLICIES[policy].onKvDown === 'memory' ? await localCounts.countWindows(windows) : []
  }
}

/** Once a minute is enough to notice; once a request would bury everything else. */
function logKvDown(error: KvError): void {
  const minute = Math.floor(Date.now() / 60_000)
  if (minute === minuteLogged) return
  minuteLogged = minute
  log('warn', 'kv_down', { error: describeError(error) })
}

/** The /64 of an IPv6 address, or the IPv4 address mapped into it. */
function networkOf(address: string): string {
  // URL parsing gives every spelling of an address one form: lower case, hexadecimal, compressed at most once.
  const canonical = new URL(`http://[${address.split('%')[0]}]`).hostname.slice(1, -1)
  const [left = [], right = []] = canonical.split('::').map((side) => side.split(':').filter(Boolean))
  const groups = [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right]
  if (groups.slice(0, 6).join(':') !== '0:0:0:0:0:ffff') return `${groups.slice(0, 4).join(':')}::/64`
  return groups
    .slice(6)
    .flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255])
    .join('.')
}
