// What the adapters without an SDK share: one bounded request, and the names of its failures.
import { ProviderError, type ProviderErrorKind } from './provider.ts'

interface Call {
  /** As it stands in messages. */
  provider: string
  url: string
  headers: Record<string, string>
  body: string | FormData
  signal: AbortSignal
  /** What is taken to be billed for an answer that began well and was lost on its way. */
  expectedMicroUsd: number
}

export interface Answer {
  status: number
  headers: Headers
  bytes: Buffer
}

/** Three times the largest picture that is ever asked for. */
const ANSWER_BYTES_MAX = 32 * 1024 * 1024
/** Of a refusal nobody needs more. */
const REFUSAL_BYTES_MAX = 64 * 1024
const UPSTREAM_TEXT_MAX = 500

/** Inflating a megabyte of base64 costs more CPU than the rest of a request. */
const COMMON_HEADERS = { 'accept-encoding': 'identity' }

/**
 * One POST, whatever status it ends with. Throws ProviderError: 'timeout' when the signal aborts, 'network' when no whole
 * answer came, 'no_image' for one without end. Nothing of the call outlives it, on the caller's signal neither. A redirect is
 * not followed: it would take the key elsewhere.
 */
export async function post(call: Call): Promise<Answer> {
  const { provider, url, headers, body, signal, expectedMicroUsd } = call
  const abortion = new AbortController()
  const abort = () => abortion.abort()
  let costMicroUsd = 0
  try {
    signal.throwIfAborted()
    signal.addEventListener('abort', abort, { once: true })
    const response = await fetch(url, {
      method: 'POST',
      headers: { ...COMMON_HEADERS, ...headers },
      body,
      signal: abortion.signal,
      redirect: 'manual',
    })
    if (response.ok && /json|^image\//.test(response.headers.get('content-type') ?? '')) costMicroUsd = expectedMicroUsd
    const bytes = response.ok
      ? await read(response, ANSWER_BYTES_MAX)
      : ((await read(response, REFUSAL_BYTES_MAX)) ?? Buffer.alloc(0))
    if (!bytes) throw new ProviderError('no_image', `${provider}'s reply has no end.`, { costMicroUsd })
    return { status: response.status, headers: response.headers, bytes }
  } catch (cause) {
    if (cause instanceof ProviderError) throw cause
    if (signal.aborted) throw new ProviderError('timeout', `${provider} ran out of time.`, { costMicroUsd, cause })
    const message = costMicroUsd > 0 ? `${provider}'s reply broke off.` : `${provider} could not be reached.`
    throw new ProviderError('network', message, { costMicroUsd, cause })
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** The body, or undefined when it is longer than `bytesMax`; leaving the loop hangs up. */
async function read(response: Response, bytesMax: number): Promise<Buffer | undefined> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body ?? []) {
    length += chunk.length
    if (length > bytesMax) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks, length)
}

/** The base of an API without the path that every one of its addresses begins with: operators set it either way. */
export function apiBase(baseUrl: string | undefined, standard: string, path: string): string {
  const base = (baseUrl ?? standard).replace(/\/+$/, '')
  return (base.endsWith(path) ? base.slice(0, -path.length) : base) + path
}

/** An answer's JSON; undefined when it is none. */
export function parseJson({ bytes }: Answer): unknown {
  try {
    return JSON.parse(bytes.toString())
  } catch {
    return undefined
  }
}

/** What a reply that cannot be read is called. It is billed like any other when it came from the API and not from something before it. */
export function unreadable(provider: string, answer: Answer, expectedMicroUsd: number): ProviderError {
  const isJson = answer.headers.get('content-type')?.includes('json') ?? false
  const costMicroUsd = isJson ? expectedMicroUsd : 0
  return new ProviderError('network', `${provider}'s reply could not be read.`, { costMicroUsd })
}

const KINDS: Record<number, ProviderErrorKind> = {
  401: 'auth',
  402: 'auth',
  403: 'auth',
  408: 'overloaded',
  409: 'overloaded',
  429: 'rate_limited',
}

const MESSAGES: Partial<Record<ProviderErrorKind, (provider: string, status: number) => string>> = {
  auth: (provider, status) =>
    status === 402 ? `${provider} asks for payment.` : `${provider} refused the API key (${status}).`,
  rate_limited: (provider) => `${provider} is at its rate limit.`,
  overloaded: (provider, status) => `${provider} is overloaded or down (${status}).`,
  model_gone: (provider) => `${provider} does not have this model any more.`,
  blocked: (provider) => `${provider} refused the content.`,
}

interface Refusal {
  /** Where the status alone does not say it. */
  kind?: ProviderErrorKind | undefined
  message?: string | undefined
  /** What the provider says, for the log. */
  upstream?: string | undefined
}

/** The name of a status that is no success. A wait is passed on with 'rate_limited' and 'overloaded' alone. */
export function refusal(provider: string, { status, headers }: Answer, known: Refusal = {}): ProviderError {
  const kind = known.kind ?? KINDS[status] ?? (status >= 500 ? 'overloaded' : 'bad_request')
  const message = known.message ?? MESSAGES[kind]?.(provider, status) ?? `${provider} refused the request (${status}).`
  const requestId = headers.get('x-request-id') ?? headers.get('request-id') ?? 'none'
  // Providers repeat a refused key in their answer, in part.
  const upstream = kind === 'auth' ? '' : (known.upstream ?? '').slice(0, UPSTREAM_TEXT_MAX)
  return new ProviderError(kind, message, {
    retryAfterMs: kind === 'rate_limited' || kind === 'overloaded' ? retryAfterMs(headers) : undefined,
    cause: new Error(`HTTP ${status}, request ${requestId}: ${upstream}`),
  })
}

/**
 * When a provider wants to be asked again: by retry-after-ms, else Retry-After (seconds or a date), else the latest reset of
 * a limit of which nothing remains.
 */
export function retryAfterMs(headers: Headers, now = Date.now()): number | undefined {
  const exact = Number(headers.get('retry-after-ms') ?? Number.NaN)
  if (exact >= 0) return Math.ceil(exact)
  const advised = headers.get('retry-after')
  if (advised !== null) {
    const ms = /^\d+(\.\d+)?$/.test(advised) ? Number(advised) * 1000 : Date.parse(advised) - now
    return Number.isFinite(ms) ? Math.max(0, Math.ceil(ms)) : undefined
  }
  const resets = [...headers].flatMap(([name, value]) => {
    const remaining = name.includes('ratelimit') ? headers.get(name.replace('reset', 'remaining')) : null
    const ms = name.includes('reset') && Number(remaining ?? 1) === 0 ? resetMs(value, now) : undefined
    return ms === undefined ? [] : [ms]
  })
  return resets.length > 0 ? Math.max(...resets) : undefined
}

const UNIT_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** "1.2s", "6m0s", "120ms" as OpenAI writes it; a time of day as Anthropic does. */
function resetMs(value: string, now: number): number | undefined {
  if (/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(value)) {
    const parts = value.matchAll(/([\d.]+)(ms|[smhd])/g)
    return Math.ceil([...parts].reduce((sum, [, count, unit = '']) => sum + Number(count) * (UNIT_MS[unit] ?? 0), 0))
  }
  const ms = /^\d{4}-/.test(value) ? Date.parse(value) - now : Number.NaN
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined
}
