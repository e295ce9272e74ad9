// A shop on a loopback Polar for tests that call the library itself: fixed product ids, no news by webhook, and a wire in between.
import { serve } from 'srvx'
import { afterAll } from 'vitest'
import { syncCheckout } from '../../lib/billing/checkout.ts'
import { changePlan } from '../../lib/billing/manage.ts'
import type { ProductDraft } from '../../scripts/loopback-polar/objects.ts'
import { type LoopbackPolar, startLoopbackPolar } from '../../scripts/loopback-polar/server.ts'
import { type App, startApp } from './app.ts'
import { SHOP_VARIABLES } from './polar-states.ts'

export interface DirectShop {
  app: App
  /** The Polar behind the wire. */
  polar: LoopbackPolar
  /** Its clock: the real time, unless it was set. */
  clock: { at: string | undefined }
  /** What was asked over the wire, oldest first, as `GET /v1/orders/?page=1`. */
  calls: string[]
  /** An answer in Polar's place; undefined lets the call through. */
  answer: ((call: string) => Response | undefined) | undefined
  /** Puts another Polar behind the wire, which has sold nothing yet. */
  reopen(): Promise<void>
}

/** Polar's ids of what is on sale. */
export const PRODUCTS = {
  tokens: '5d0f4a4e-0000-4000-8000-000000000001',
  starter: '5d0f4a4e-0000-4000-8000-000000000002',
  family: '5d0f4a4e-0000-4000-8000-000000000003',
  pro: '5d0f4a4e-0000-4000-8000-000000000004',
  enterprise: '5d0f4a4e-0000-4000-8000-000000000005',
}

const VARIABLES = {
  ...SHOP_VARIABLES,
  FORK__PAYMENTS__POLAR_PRODUCT_ID: PRODUCTS.tokens,
  FORK__PAYMENTS__PACKS: JSON.stringify([
    { id: 'starter', priceCents: 500, tokens: 500, polarProductId: PRODUCTS.starter },
    { id: 'family', priceCents: 2000, tokens: 2400, polarProductId: PRODUCTS.family },
  ]),
  FORK__PLANS__PRO__POLAR_PRODUCT_ID: PRODUCTS.pro,
  FORK__PLANS__ENTERPRISE__POLAR_PRODUCT_ID: PRODUCTS.enterprise,
}

const custom = { amount_type: 'custom', price_currency: 'usd', minimum_amount: 500 } as const
const fixed = (price_amount: number) => ({ amount_type: 'fixed', price_currency: 'usd', price_amount }) as const
const plan = (name: 'pro' | 'enterprise', priceCents: number): ProductDraft => ({
  id: PRODUCTS[name],
  name,
  metadata: { kind: 'plan', plan: name },
  prices: [fixed(priceCents)],
  recurring_interval: 'month',
  recurring_interval_count: 1,
})

// The free amount stands between the packs, whose mark it shares: whichever way they are listed, a pack comes first.
const ON_SALE: ProductDraft[] = [
  { id: PRODUCTS.starter, name: 'Starter', metadata: { kind: 'tokens', pack: 'starter' }, prices: [fixed(500)] },
  { id: PRODUCTS.tokens, name: 'Tokens', metadata: { kind: 'tokens' }, prices: [custom] },
  { id: PRODUCTS.family, name: 'Family', metadata: { kind: 'tokens', pack: 'family' }, prices: [fixed(2000)] },
  plan('pro', 1900),
  plan('enterprise', 9900),
]

// Registered while the test file is collected, and after the application's own, so that it runs before that one.
const cleanups: (() => Promise<void>)[] = []
afterAll(async () => {
  for (const cleanUp of cleanups.toReversed()) await cleanUp()
})

export async function startDirectShop(variables: Record<string, string> = {}): Promise<DirectShop> {
  const clock: DirectShop['clock'] = { at: undefined }
  const open = () =>
    startLoopbackPolar({
      now: () => (clock.at === undefined ? Date.now() : Date.parse(clock.at)),
      products: ON_SALE,
      accessToken: SHOP_VARIABLES.POLAR_ACCESS_TOKEN,
      deliver: async () => new Response(null, { status: 202 }), // Taken, and nobody here is told.
    })
  const calls: string[] = []
  const polar = await open()
  const wire = serve({
    port: 0,
    hostname: '127.0.0.1',
    silent: true,
    gracefulShutdown: false,
    fetch: async (request) => {
      const { pathname, search } = new URL(request.url)
      const what = `${request.method} ${pathname}${decodeURIComponent(search)}`
      calls.push(what)
      const answer = shop.answer?.(what)
      if (answer) return answer
      const { method, headers } = request
      const body = method === 'GET' ? null : await request.arrayBuffer()
      return await fetch(shop.polar.baseUrl + pathname + search, { method, headers, body })
    },
  })
  await wire.ready()
  cleanups.push(
    () => wire.close(true),
    () => shop.polar.close(),
  )
  const app = await startApp({
    ...VARIABLES,
    POLAR_BASE_URL: (wire.url ?? '').replace(/\/$/, ''),
    ...variables,
  })
  const shop: DirectShop = {
    app,
    polar,
    clock,
    calls,
    answer: undefined,
    async reopen() {
      const before = shop.polar
      shop.polar = await open()
      await before.close()
    },
  }
  return shop
}

/** What Polar says when it refuses. */
export function refusal(status: number): Response {
  return Response.json({ error: 'Refused', detail: 'Refused by the test.' }, { status })
}

/** The user has paid for a plan, and it is known here. */
export async function subscribed(shop: DirectShop, userId: string, plan: 'pro' | 'enterprise') {
  const checkout = await changePlan(userId, plan, 'https://shop.example/account')
  if (!checkout) throw new Error('There is no checkout.')
  const order = shop.polar.shop.pay(checkout.checkoutId)
  await syncCheckout(userId, checkout.checkoutId)
  const subscription = shop.polar.shop.subscriptions.get(order.subscription_id ?? '')
  if (!subscription) throw new Error('There is no subscription.')
  shop.calls.length = 0
  return { order, subscription, checkoutId: checkout.checkoutId }
}
