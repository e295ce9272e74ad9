// The KV edge: Vercel KV over HTTP when the environment names one, this process's memory otherwise.
import { env } from './env.ts'

const REQUEST_TIMEOUT_MS = 500
const RETRY_DELAY_MS = 50
const MEMORY_ENTRIES_MAX = 50_000

/** At most `quota` counts in the last `windowMs`, whenever one looks. */
export interface SlidingWindow {
  key: string
  quota: number
  windowMs: number
}

export interface WindowState {
  allowed: boolean
  remaining: number
  /** Epoch milliseconds; after this instant the window has room for at least one count. */
  resetAtMs: number
}

/** The entries a script sees of the store in memory. */
export interface MemoryEntries {
  read(key: string): string | null
  write(key: string, value: string, ttlMs: number): void
}

/**
 * A step that nothing can come between: in Lua for Redis, and written again in JavaScript for the store in memory. It may run
 * twice for one call, when its first answer is lost on the way, and has to come to the same end then.
 */
export interface KvScript {
  lua: string
  memory(entries: MemoryEntries, keys: string[], args: string[]): unknown
}

/** Everything kept expires; every method of the remote store may throw KvError, and its caller decides what that means. */
export interface Kv {
  get(key: string): Promise<string | null>
  /** False when `ifAbsent` found the key taken; nothing is written then. */
  set(key: string, value: string, options: { ttlMs: number; ifAbsent?: boolean }): Promise<boolean>
  /** Runs a script on its keys; its arguments arrive as text, its answer is whatever it returns. */
  run(script: KvScript, keys: string[], args: (string | number)[]): Promise<unknown>
  /** Counts one request in all windows, in one round trip, or in none when any of them is full. */
  countWindows(windows: SlidingWindow[]): Promise<WindowState[]>
}

/** The store could not be reached, did not answer in time or answered with an error; the message holds no keys. */
export class KvError extends Error {
  override readonly name = 'KvError'
}

let store: Kv | undefined

/** The store of this deployment, decided by the environment on first use. */
export function kv(): Kv {
  const credentials = env().kv
  store ??= credentials ? vercelKv(credentials) : memoryKv()
  return store
}

/** A store for one process, bounded: at the limit, expired entries go first and then the oldest. */
export function memoryKv(entriesMax = MEMORY_ENTRIES_MAX): Kv {
  const entries = new Map<string, { value: string; expiresAtMs: number }>()

  function makeRoom() {
    for (const [key, { expiresAtMs }] of entries) if (expiresAtMs <= Date.now()) entries.delete(key)
    // A tenth at a time, so that a flood of new keys does not search the whole map for each of them.
    for (const key of entries.keys()) {
      if (entries.size <= entriesMax * 0.9) break
      entries.delete(key)
    }
  }

  function read(key: string): string | null {
    const entry = entries.get(key)
    if (entry && entry.expiresAtMs <= Date.now()) entries.delete(key)
    return entries.get(key)?.value ?? null
  }

  function write(key: string, value: string, ttlMs: number) {
    entries.delete(key) // The map's order is the order of writing.
    if (entries.size >= entriesMax) makeRoom()
    entries.set(key, { value, expiresAtMs: Date.now() + ttlMs })
  }

  /** The expiry starts with the first count, and later ones leave it. */
  function count(key: string, ttlMs: number) {
    const sum = Number(read(key) ?? 0) + 1
    const entry = entries.get(key)
    if (entry) entry.value = String(sum)
    else write(key, String(sum), ttlMs)
  }

  return {
    get: async (key) => read(key),
    set: async (key, value, { ttlMs, ifAbsent = false }) => {
      if (ifAbsent && read(key) !== null) return false
      write(key, value, ttlMs)
      return true
    },
    run: async (script, keys, args) => script.memory({ read, write }, keys, args.map(String)),
    // Written out, not the client on a fake backend: the client's Lua would need ports keyed by the sha of each release.
    // The arithmetic is that of @upstash/ratelimit: the previous bucket counts by the share of it still in sight.
    countWindows: async (windows) => {
      const now = Date.now()
      const seen = windows.map(({ key, quota, windowMs }) => {
        const bucket = Math.floor(now / windowMs)
        const previousShare = 1 - (now % windowMs) / windowMs
        const previous = Math.floor(previousShare * Number(read(`${key}:${bucket - 1}`) ?? 0))
        const room = quota - previous - Number(read(`${key}:${bucket}`) ?? 0)
        return { bucketKey: `${key}:${bucket}`, windowMs, room, resetAtMs: (bucket + 1) * windowMs }
      })
      const counts = seen.every(({ room }) => room > 0)
      if (counts) for (const { bucketKey, windowMs } of seen) count(bucketKey, 2 * windowMs)
      return seen.map(({ room, resetAtMs }) => ({
        allowed: room > 0,
        remaining: Math.max(0, counts ? room - 1 : room),
        resetAtMs,
      }))
    },
  }
}

/** Vercel KV; keys carry the stage, because previews usually share production's store. */
function vercelKv(credentials: { url: string; token: string }): Kv {
  const stage = env().stage
  let loading: ReturnType<typeof load> | undefined

  async function load() {
    const [{ createClient }, { Ratelimit }] = await Promise.all([import('@vercel/kv'), import('@upstash/ratelimit')])
    const client = createClient({
      ...credentials,
      automaticDeserialization: false,
      enableAutoPipelining: true, // Commands of one tick share a round trip.
      retry: { retries: 1, backoff: () => RETRY_DELAY_MS },
      signal: () => AbortSignal.timeout(REQUEST_TIMEOUT_MS), // One deadline for a request and its retry.
    })
    // A script's digest is made once, not for every call.
    const scripts = new Map<KvScript, ReturnType<typeof client.createScript>>()
    const scriptOf = (script: KvScript) => {
      const known = scripts.get(script) ?? client.createScript(script.lua)
      scripts.set(script, known)
      return known
    }
    return { client, Ratelimit, scriptOf }
  }

  function sdk() {
    loading ??= load()
    return loading
  }

  return {
    get: async (key) => {
      const { client } = await sdk()
      return await reach(() => client.get<string>(`${stage}:${key}`))
    },
    set: async (key, value, { ttlMs, ifAbsent = false }) => {
      const { client } = await sdk()
      const options = ifAbsent ? { px: ttlMs, nx: true as const } : { px: ttlMs }
      return (await reach(() => client.set(`${stage}:${key}`, value, options))) === 'OK'
    },
    run: async (script, keys, args) => {
      const { scriptOf } = await sdk()
      const names = keys.map((key) => `${stage}:${key}`)
      return await reach(() => scriptOf(script).exec(names, args.map(String)))
    },
    countWindows: async (windows) => {
      const { client, Ratelimit } = await sdk()
      // A limiter lives for one call: kept, its cache of refusals would refuse for longer than the window does.
      const limits = windows.map(({ key, quota, windowMs }) => {
        const limiter = new Ratelimit({
          redis: client,
          prefix: `${stage}:limit`,
          limiter: Ratelimit.slidingWindow(quota, `${windowMs} ms`),
          timeout: 0, // The client's own deadline throws; this one would let the request pass in silence.
        })
        return (rate: number) => limiter.limit(key, { rate })
      })
      const counted = await reach(() => Promise.all(limits.map((limit) => limit(1))))
      const states = counted.map(({ success, remaining, reset }) => ({ allowed: success, remaining, resetAtMs: reset }))
      if (states.every(({ allowed }) => allowed)) return states
      // The scripts know one window each, so the others did count: a second round trip takes that back. Until then they
      // look fuller than they are. Where it fails, or the bucket is over, the count stays: strict, and gone with the window.
      const takenBack = await Promise.allSettled(
        limits.map((limit, index) => {
          const state = states[index]
          return state?.allowed && Date.now() < state.resetAtMs ? limit(-1) : undefined
        }),
      )
      return states.map((state, index) => {
        const after = takenBack[index]
        return after?.status === 'fulfilled' && after.value ? { ...state, remaining: after.value.remaining } : state
      })
    },
  }
}

/** Runs one exchange with the remote store; whatever goes wrong there becomes a KvError. */
async function reach<T>(exchange: () => Promise<T>): Promise<T> {
  try {
    return await exchange()
  } catch (error) {
    // The client quotes the failed command, and with it user ids and addresses: only its reason and root cause go on.
    const [reason, cause] = error instanceof Error ? [error.message.split(', command was:')[0], error.cause] : [error]
    throw new KvError(`The KV store failed: ${reason}`, { cause })
  }
}
