// A table of routes becomes one Vercel function: matched, authenticated, limited, validated, answered, logged.
import { createHash, randomUUID } from 'node:crypto'
import type * as v from 'valibot'
import { type Access, type Admission, authenticate, type CallerFor, type Spender } from '../auth/caller.ts'
import { config, type ForkConfig } from '../config.ts'
import { describeError, log } from '../log.ts'
import { clientIp, countRequest, type RateLimitPolicy } from '../rate-limit.ts'
import { isJson, mediaType, parseJson, readBytes, validate } from './body.ts'
import { AppError, errorResponse } from './errors.ts'
import { Events, streamEvents } from './events.ts'
import { addCommonHeaders, preflightHeaders } from './headers.ts'
import { type Claim, claimKey, fingerprintOf, idempotencyKey, keepAnswer } from './idempotency.ts'

const JSON_BODY_BYTES_MAX = 100_000

type Schema = v.GenericSchema
/** Parses a body that is not plain JSON; its type is the media type without parameters. */
export type BodyReader<B> = (input: { bytes: Buffer; type: string; request: Request }) => B | Promise<B>

export interface Context<A extends Access, B = undefined> {
  request: Request
  url: URL
  requestId: string
  ip: string
  /** Named segments of the path, decoded. */
  params: Record<string, string>
  caller: CallerFor<A>
  body: B
  /** Set when the request carries an Idempotency-Key and the route honours it. */
  claim: Claim | undefined
  /** Adds fields to the request's log line. */
  note(fields: Record<string, unknown>): void
}

interface RouteCommon<A extends Access, B> extends Admission {
  access: A
  limit?: RateLimitPolicy
  /** Honour Idempotency-Key; needs a signed-in caller. 'sealed': the answer is a secret, and is kept encrypted. */
  idempotent?: boolean | 'sealed'
  bodyBytesMax?: number
  /** Returns a plain value (200, JSON), a Response, or Events. */
  handle(context: Context<A, B>): unknown
}

export type RouteTable = Record<string, Route>
export interface Route extends RouteCommon<Access, unknown> {
  body?: Schema
  read?: BodyReader<unknown>
}

/** Types one route: the handler's `caller` follows from `access`, its `body` from the valibot schema or from `read`. */
export function route<A extends Access, S extends Schema>(
  declared: RouteCommon<A, v.InferOutput<S>> & { body: S },
): Route
export function route<A extends Access, B>(declared: RouteCommon<A, B> & { read: BodyReader<B> }): Route
export function route<A extends Access>(declared: RouteCommon<A, undefined>): Route
export function route(declared: unknown): Route {
  return declared as Route // the overloads are what callers see; here every route is handled alike
}

/**
 * Turns a table of routes (`'GET /api/things/:id': route({…})`) into a `{ fetch }` function. Literal paths go before
 * parameters. Every failure leaves as `{ error: { code, message, details, timestamp, requestId } }`.
 */
export function endpoint(routes: RouteTable, options: EndpointOptions = {}) {
  const table = compile(routes)
  return { routes, ...options, fetch: (request: Request) => serve(table, request, options) }
}

interface EndpointOptions {
  /** There is nothing at these addresses under another provider of identities. */
  authProvider?: ForkConfig['auth']['provider']
}

interface Row {
  method: string
  path: string
  pattern: RegExp
  route: Route
}

function compile(routes: RouteTable): Row[] {
  return Object.entries(routes).map(([key, declared]) => {
    const [method = '', path = ''] = key.split(/\s+/)
    const pattern = new RegExp(`^${path.replaceAll(/:(\w+)/g, '(?<$1>[^/]+)')}$`)
    return { method, path, pattern, route: declared }
  })
}

async function serve(table: Row[], request: Request, options: EndpointOptions): Promise<Response> {
  const startedAt = performance.now()
  const requestId = requestIdOf(request)
  const notes: Record<string, unknown> = {}
  const progress: Progress = { requestId, notes, extraHeaders: {}, corsOrigins: [], fail }
  const report = (status: number, error?: unknown) => {
    const { pathname } = new URL(request.url)
    const line = {
      requestId,
      method: request.method,
      path: pathname,
      status,
      ms: Math.round(performance.now() - startedAt),
    }
    // A feature that is off is an answer, not a failure.
    const failed = status >= 500 && notes.code !== 'FEATURE_DISABLED'
    log(failed ? 'error' : 'info', 'request', {
      ...line,
      ...notes,
      ...(failed && error !== undefined && { error: describeError(error) }),
    })
  }
  // The handler's own response goes out: wrapping it in another would turn its bytes into a stream.
  const finish = (response: Response) => {
    const { headers, status } = response
    for (const [name, value] of Object.entries(progress.extraHeaders)) headers.set(name, value)
    addCommonHeaders(headers, request, progress)
    return request.method === 'HEAD' ? new Response(null, { status, headers }) : response
  }
  function fail(error: unknown) {
    const { code, response } = failureResponse(error, requestId)
    notes.code = code
    report(response.status, error)
    return response
  }
  try {
    const reply = await answer(offered(table, options), request, progress)
    if (reply.streaming) void reply.streaming.then((failed) => failed || report(reply.response.status))
    else report(reply.response.status)
    return finish(reply.response)
  } catch (error) {
    return finish(fail(error))
  }
}

function offered(table: Row[], { authProvider }: EndpointOptions): Row[] {
  return authProvider === undefined || authProvider === config().auth.provider ? table : []
}

interface Progress {
  requestId: string
  notes: Record<string, unknown>
  extraHeaders: Record<string, string>
  /** Set once the configuration is known to be readable. */
  corsOrigins: string[]
  /** Reports a failure and makes its response. */
  fail(error: unknown): Response
}

interface Reply {
  response: Response
  /** Set while the answer is still being made; resolves to whether it failed. */
  streaming?: Promise<boolean>
}

async function answer(table: Row[], request: Request, progress: Progress): Promise<Reply> {
  const { requestId, notes, extraHeaders } = progress
  const url = new URL(request.url)
  progress.corsOrigins = config().cors.origins
  const { row, params, methods } = match(table, request.method, url.pathname)
  if (request.method === 'OPTIONS')
    return { response: new Response(null, { status: 204, headers: preflightHeaders(methods) }) }
  notes.route = `${row.method} ${row.path}`

  const ip = clientIp(request)
  const caller = await authenticate(request, row.route, ip)
  if (caller?.key) notes.apiKey = caller.key.id
  if (caller) notes.user = createHash('sha256').update(caller.userId).digest('hex').slice(0, 12)
  if (row.route.limit) await countAgainst(row.route.limit, ip, caller, extraHeaders)

  const { bytes, body } = await readBody(row.route, request)
  const key = row.route.idempotent ? idempotencyKey(request) : undefined
  let claim: Claim | undefined
  if (key !== undefined && caller) {
    const sealed = row.route.idempotent === 'sealed'
    const claimed = await claimKey(caller, scopeOf(row, url), key, fingerprintOf(request, bytes), { sealed })
    if ('replay' in claimed) return { response: replayAs(request, claimed.replay) }
    claim = claimed.claim
  }
  const note = (fields: Record<string, unknown>) => void Object.assign(notes, fields)
  // `route` tied this handler to its access and body when it was declared.
  const context = { request, url, requestId, ip, params, caller, body, claim, note } as Context<Access, unknown>
  return await run(row.route, context, progress)
}

/** Counts the request; its headers go on the reply even when it is refused. */
async function countAgainst(
  policy: RateLimitPolicy,
  ip: string,
  caller: Spender | undefined,
  extraHeaders: Record<string, string>,
) {
  const counted = await countRequest(policy, { ip, userId: caller?.userId, key: caller?.key })
  Object.assign(extraHeaders, counted.headers)
  if (counted.allowed) return
  const { retryAfterSeconds } = counted
  throw new AppError('RATE_LIMITED', `Too many requests. Try again in ${retryAfterSeconds} s.`, {
    details: { retryAfterSeconds },
  })
}

/** Runs the handler, keeping its answer under the claimed key whether it comes at once or at the end of a stream. */
async function run(declared: Route, context: Context<Access, unknown>, { requestId, fail }: Progress): Promise<Reply> {
  const { claim } = context
  const kept = async (outcome: Promise<unknown>): Promise<Response> => {
    try {
      const response = toResponse(await outcome)
      return claim ? await keepAnswer(claim, response) : response
    } catch (error) {
      if (claim) await keepAnswer(claim, failureResponse(error, requestId).response)
      throw error
    }
  }
  const outcome = Promise.try(() => declared.handle(context))
  const result = await outcome.catch(() => undefined)
  if (!(result instanceof Events)) return { response: await kept(outcome) }

  let failed = false
  const { response, completion } = streamEvents(result, (last) =>
    kept(last).catch((error) => {
      failed = true
      return fail(error)
    }),
  )
  const streaming = completion.then(() => failed)
  const { waitUntil } = await import('@vercel/functions')
  waitUntil(streaming)
  return { response, streaming }
}

/** What keys are kept apart by. Cut to what its column takes; the fingerprint tells longer addresses apart. */
function scopeOf({ method }: Row, { pathname }: URL): string {
  return `${method} ${pathname}`.slice(0, 200)
}

function match(table: Row[], method: string, pathname: string) {
  const samePath = table.filter(({ pattern }) => pattern.test(pathname))
  const methods = [
    ...new Set(samePath.flatMap((row) => (row.method === 'GET' ? ['GET', 'HEAD'] : [row.method]))),
    'OPTIONS',
  ]
  const [first] = samePath
  if (!first) throw new AppError('NOT_FOUND', 'There is nothing at this address.')
  const row =
    method === 'OPTIONS'
      ? first
      : samePath.find((candidate) => candidate.method === (method === 'HEAD' ? 'GET' : method))
  if (!row) {
    throw new AppError('METHOD_NOT_ALLOWED', `${method} is not offered here.`, {
      headers: { allow: methods.join(', ') },
    })
  }
  return { row, params: decodeParams(row.pattern.exec(pathname)?.groups ?? {}), methods }
}

function decodeParams(groups: Record<string, string>): Record<string, string> {
  try {
    return Object.fromEntries(Object.entries(groups).map(([name, value]) => [name, decodeURIComponent(value)]))
  } catch {
    throw new AppError('NOT_FOUND', 'There is nothing at this address.')
  }
}

async function readBody(declared: Route, request: Request): Promise<{ bytes: Buffer; body: unknown }> {
  if (!declared.body && !declared.read) return { bytes: Buffer.alloc(0), body: undefined }
  const bytes = await readBytes(request, declared.bodyBytesMax ?? JSON_BODY_BYTES_MAX)
  const type = mediaType(request)
  if (declared.read) return { bytes, body: await declared.read({ bytes, type, request }) }
  if (!isJson(type)) throw new AppError('UNSUPPORTED_MEDIA_TYPE', `Send the body as application/json, not ${type}.`)
  return { bytes, body: declared.body && validate(declared.body, parseJson(bytes)) }
}

/** A kept JSON answer in the form this request asks for: a replay over a stream is its last event. */
function replayAs(request: Request, replay: Response): Response {
  const wantsEvents = request.headers.get('accept')?.includes('text/event-stream') ?? false
  if (!wantsEvents || !replay.headers.get('content-type')?.includes('json')) return replay
  const { response } = streamEvents(new Events(async () => replay), (outcome) => outcome)
  response.headers.set('idempotent-replayed', 'true')
  return response
}

function toResponse(result: unknown): Response {
  return result instanceof Response ? result : Response.json(result ?? null)
}

function failureResponse(error: unknown, requestId: string) {
  const known =
    error instanceof AppError
      ? error
      : new AppError('INTERNAL_ERROR', 'Something went wrong on our side.', { cause: error })
  return { code: known.code, response: errorResponse(known, requestId) }
}

/** A sane incoming id is kept, so that a request can be followed across services. */
function requestIdOf(request: Request): string {
  const incoming = request.headers.get('x-request-id')
  return incoming !== null && /^[\w-]{8,128}$/.test(incoming) ? incoming : randomUUID()
}
