// A pretend Polar on this machine: its API, its checkout pages and its webhooks, with play money and no account.
import type { models } from '@polar-sh/sdk/2026-10'
import { serve } from 'srvx'
import { openBooks } from './books.ts'
import { stockProduct } from './catalogue.ts'
import { createDeliveries, POLAR_DELIVERY } from './delivery.ts'
import { ALL_EVENTS, createEndpoint } from './endpoints.ts'
import type { ProductDraft } from './objects.ts'
import { PAGE_ROUTES } from './pages.ts'
import { notFound, Refusal } from './refusals.ts'
import { API_ROUTES, type Handler, type Site } from './routes.ts'
import { createShop } from './shop.ts'
import { newSecret, type SigningScheme } from './signing.ts'

export interface LoopbackOptions {
  /** Any free port when missing. */
  port?: number
  accessToken?: string
  /** Makes an endpoint for every event; without it there is none until the API creates one. */
  webhookUrl?: string
  webhookSecret?: string
  signing?: SigningScheme
  products?: ProductDraft[]
  /** Products get ids that follow from name and metadata, the same in every run. */
  stableProductIds?: boolean
  /** The shop's clock, in milliseconds, for every timestamp of an object. */
  now?: () => number
  /** Waits between delivery attempts are divided by this. */
  timeScale?: number
  /** The rules of delivery that differ from Polar's. */
  limits?: Partial<typeof POLAR_DELIVERY>
  /** Takes the webhooks in place of the network. */
  deliver?: (request: Request) => Promise<Response>
}

/** One request that the API has answered. */
export interface LoggedRequest {
  method: string
  path: string
  query: string
  status: number
}

export type LoopbackPolar = Awaited<ReturnType<typeof startLoopbackPolar>>

const REQUEST_LOG_MAX = 10_000

/** Starts a Polar that knows nobody and sells nothing but `products`. Everything it holds is gone when it closes. */
export async function startLoopbackPolar(options: LoopbackOptions = {}) {
  const { accessToken = 'polar_oat_loopback', webhookSecret = newSecret(), signing = 'standard' } = options
  const now = options.now ?? Date.now
  const endpoints = new Map<string, models.WebhookEndpoint>()
  const deliveries = createDeliveries({
    endpoints,
    scheme: signing,
    secret: webhookSecret,
    now,
    timeScale: options.timeScale ?? 1,
    limits: { ...POLAR_DELIVERY, ...options.limits },
    deliver: options.deliver,
  })
  const books = openBooks(now, deliveries.publish)
  const stableProductIds = options.stableProductIds ?? false
  const site: Site = { books, endpoints, deliveries, sessions: new Map(), baseUrl: '', stableProductIds }
  for (const product of options.products ?? []) stockProduct(books, product, stableProductIds)
  if (options.webhookUrl !== undefined) {
    const isLegacy = signing === 'legacy'
    createEndpoint(books, endpoints, { url: options.webhookUrl, events: ALL_EVENTS, secret: webhookSecret, isLegacy })
  }

  const answeredRequests: LoggedRequest[] = []
  const requests: readonly LoggedRequest[] = answeredRequests
  const failures: number[] = []
  const server = serve({
    port: options.port ?? 0,
    hostname: '127.0.0.1',
    silent: true,
    gracefulShutdown: false,
    fetch: async (request) => {
      const { pathname, search, searchParams } = new URL(request.url)
      const isApi = pathname.startsWith('/v1/')
      const response = await answered(async () => {
        if (isApi) admit(request, accessToken, failures)
        return await route(isApi ? API_ROUTES : PAGE_ROUTES, site, request, pathname, searchParams)
      })
      if (isApi && answeredRequests.length < REQUEST_LOG_MAX) {
        answeredRequests.push({ method: request.method, path: pathname, query: search, status: response.status })
      }
      return response
    },
  })
  await server.ready()
  site.baseUrl = (server.url ?? '').replace(/\/$/, '')

  return {
    baseUrl: site.baseUrl,
    accessToken,
    webhookSecret,
    /** What buyers, banks and time do; and all that the shop holds, to be read. */
    shop: createShop(site),
    deliveries,
    /** What the API was asked, oldest first. */
    requests,
    /** Resolves once no webhook is on its way and no attempt is to come. */
    settled: () => deliveries.settled(),
    /** Makes the API refuse the next `count` requests with `status`, whatever they ask. Nothing is done for them. */
    failNext(count: number, status: number): void {
      for (let index = 0; index < count; index += 1) failures.push(status)
    },
    async close(): Promise<void> {
      await deliveries.close()
      await server.close(true)
    },
  }
}

/** Throws what Polar answers to a stranger, and what the test has ordered. */
function admit(request: Request, accessToken: string, failures: number[]): void {
  if (request.headers.get('authorization') !== `Bearer ${accessToken}`) {
    const error_description = 'The access token provided is expired, revoked, malformed, or invalid for other reasons.'
    const body = { error: 'invalid_token', error_description }
    throw new Refusal(401, body, { 'www-authenticate': 'Bearer' })
  }
  const status = failures.shift()
  if (status === undefined) return
  const body = { error: status < 500 ? 'OrderedFailure' : 'InternalServerError', detail: 'Ordered failure' }
  throw new Refusal(status, body, status === 429 ? { 'retry-after': '1' } : {})
}

async function route(
  routes: Record<string, Handler>,
  site: Site,
  request: Request,
  pathname: string,
  query: URLSearchParams,
): Promise<Response> {
  for (const [pattern, handler] of Object.entries(routes)) {
    const params = matched(pattern, `${request.method} ${pathname}`)
    if (params) return await handler({ ...site, request, query, params })
  }
  // Polar's framework sends the client to the path with, or without, a slash at its end.
  const other = pathname.endsWith('/') ? pathname.slice(0, -1) : `${pathname}/`
  if (Object.keys(routes).some((pattern) => matched(pattern, `${request.method} ${other}`))) {
    return new Response(null, { status: 307, headers: { location: other } })
  }
  throw notFound()
}

/** The named parts of `path` where it fits the pattern. */
function matched(pattern: string, path: string): Record<string, string> | undefined {
  const [wanted, given] = [pattern.split('/'), path.split('/')]
  if (wanted.length !== given.length) return undefined
  const params: Record<string, string> = {}
  for (const [index, part] of wanted.entries()) {
    const value = given[index] ?? ''
    if (part.startsWith(':') && value !== '') params[part.slice(1)] = decodeURIComponent(value)
    else if (part !== value) return undefined
  }
  return params
}

async function answered(work: () => Promise<Response>): Promise<Response> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof Refusal) return Response.json(error.body, { status: error.status, headers: error.headers })
    const detail = error instanceof Error ? error.stack : String(error)
    return Response.json({ error: 'InternalServerError', detail }, { status: 500 })
  }
}
