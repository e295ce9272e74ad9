// The headers every API reply carries: security, CORS, and the id of the request.
const SECURITY_HEADERS = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'strict-transport-security': 'max-age=63072000; includeSubDomains',
  'x-content-type-options': 'nosniff',
}

const EXPOSED_HEADERS = [
  'x-request-id',
  'ratelimit',
  'ratelimit-policy',
  'retry-after',
  'idempotent-replayed',
  'location',
  'preference-applied',
  'x-provider',
  'x-requested-provider',
  'x-model',
  'x-processing-time',
  'x-cost',
  'x-tokens-charged',
  'x-trial',
  'x-balance-tokens',
  'x-balance-trial-generations',
  'x-image-width',
  'x-image-height',
  'x-reencoded',
  'x-cached',
  'x-fallback-used',
]

const ALLOWED_HEADERS = [
  'authorization',
  'x-api-key',
  'content-type',
  'accept',
  'idempotency-key',
  'prefer',
  'x-request-id',
  'if-none-match',
]

/** Whether the request names a preference of RFC 7240, such as `respond-async`. */
export function prefers(request: Request, preference: 'respond-async' | 'return=representation'): boolean {
  const named = (request.headers.get('prefer') ?? '').toLowerCase().split(/[,;\s]+/)
  return named.includes(preference)
}

/** Adds what every reply carries; headers the handler set itself stay. */
export function addCommonHeaders(
  headers: Headers,
  request: Request,
  { requestId, corsOrigins }: { requestId: string; corsOrigins: string[] },
): void {
  headers.set('x-request-id', requestId)
  for (const [name, value] of Object.entries(SECURITY_HEADERS)) headers.set(name, value)
  if (!headers.has('cache-control')) headers.set('cache-control', 'no-store')
  addCorsHeaders(headers, request, corsOrigins)
}

/** The headers of a reply to a preflight request for a path that offers `methods`. */
export function preflightHeaders(methods: string[]): Record<string, string> {
  return {
    allow: methods.join(', '),
    'access-control-allow-methods': methods.join(', '),
    'access-control-allow-headers': ALLOWED_HEADERS.join(', '),
    'access-control-max-age': '86400',
  }
}

function addCorsHeaders(headers: Headers, request: Request, origins: string[]): void {
  headers.append('vary', 'Origin')
  const origin = request.headers.get('origin')
  if (origin === null || !origins.includes(origin)) return
  headers.set('access-control-allow-origin', origin)
  headers.set('access-control-expose-headers', EXPOSED_HEADERS.join(', '))
}
