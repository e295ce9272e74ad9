// Payments under test: the application and a loopback Polar that reports to it, with a wire between them that can be cut.
import type { models, Polar } from '@polar-sh/sdk/2026-10'
import { sql } from 'kysely'
import { serve } from 'srvx'
import { afterAll } from 'vitest'
import { db } from '../../db/client.ts'
import { seedAdmin } from '../../lib/auth/accounts.ts'
import { connectPolar, WEBHOOK_PATH } from '../../lib/billing/polar.ts'
import { loadConfig } from '../../lib/config.ts'
import { parseEnv } from '../../lib/env.ts'
import { type LoopbackPolar, startLoopbackPolar } from '../../scripts/loopback-polar/server.ts'
import { ensurePolarSetup, type PolarSetup } from '../../scripts/polar-setup.ts'
import { type App, call, processImage, type Reply, startApp, type TestUser } from './app.ts'
import { picture } from './pictures.ts'

const CRON_SECRET = 'the-secret-of-the-scheduler'
const ADMIN = { email: 'root@example.com', password: 'a password for the admin' }
/** What one picture costs. */
const PRICE_TOKENS = 100

export const WEBHOOK_URL = `http://localhost${WEBHOOK_PATH}`
/** The free plan's month, which every new user has; there is no trial here. */
export const FREE_TOKENS = 1000

export interface Payments {
  app: App
  polar: LoopbackPolar
  shop: LoopbackPolar['shop']
  /** Polar's API as the seller reaches it, past the wire. */
  client: Polar
  webhookSecret: string
  /** The shop's clock: the real time, unless it was set. */
  clock: { at: Date | undefined }
  wire: Wire
  admin: { id: string; token: string }
}

/** What the application's calls to Polar go through. */
interface Wire {
  /** What was asked, oldest first, as `POST /v1/checkouts/`. */
  calls: string[]
  /** An answer in Polar's place; undefined lets the call through. */
  answer: ((what: string) => Response | undefined) | undefined
  /** Nobody listens any more. */
  cut(): Promise<void>
  mend(): Promise<void>
}

// Registered while the test file is collected, and after the application's own, so that it runs before that one.
const cleanups: (() => Promise<void>)[] = []
afterAll(async () => {
  for (const cleanUp of cleanups.toReversed()) await cleanUp()
})

/** Starts a shop on a loopback Polar as `npm run doctor -- --fix` would set it up, and the application that sells through it. */
export async function startPayments(variables: Record<string, string> = {}): Promise<Payments> {
  const clock: Payments['clock'] = { at: undefined }
  const target: { app?: App } = {}
  const polar = await startLoopbackPolar({
    now: () => clock.at?.getTime() ?? Date.now(),
    timeScale: 1_000_000,
    deliver: async (request) => (await target.app?.fetch(request)) ?? new Response(null, { status: 503 }),
  })
  cleanups.push(() => polar.close())
  const { accessToken, baseUrl } = polar
  const wire = await openWire(baseUrl)
  const client = await connectPolar({ accessToken, environment: 'sandbox', baseUrl })
  const config = loadConfig(parseEnv({ ...variables }))
  const setup = await ensurePolarSetup({ client, config, webhookUrl: WEBHOOK_URL })
  const webhookSecret = setup.webhook?.secret ?? ''
  const app = await startApp({
    ...idVariables(setup),
    FORK__PAYMENTS__PROVIDER: 'polar',
    FORK__TRIAL__GENERATIONS: '0',
    POLAR_ACCESS_TOKEN: accessToken,
    POLAR_WEBHOOK_SECRET: webhookSecret,
    POLAR_BASE_URL: wire.url,
    CRON_SECRET,
    ADMIN_EMAIL: ADMIN.email,
    ADMIN_PASSWORD: ADMIN.password,
    ...variables,
  })
  target.app = app
  await seedAdmin()
  const { json } = await call(app, 'POST /api/auth/login', { body: ADMIN })
  const admin = { id: json.user.id, token: json.accessToken }
  return { app, polar, shop: polar.shop, client, webhookSecret, clock, wire, admin }
}

function idVariables({ config: { payments, plans } }: PolarSetup): Record<string, string> {
  return {
    FORK__PLANS__PRO__POLAR_PRODUCT_ID: plans.pro.polarProductId,
    FORK__PLANS__ENTERPRISE__POLAR_PRODUCT_ID: plans.enterprise.polarProductId,
    FORK__PAYMENTS__POLAR_PRODUCT_ID: payments.polarProductId,
    FORK__PAYMENTS__PACKS: JSON.stringify(payments.packs),
  }
}

async function openWire(baseUrl: string): Promise<Wire & { url: string }> {
  const calls: string[] = []
  const listen = async (port: number) => {
    const server = serve({
      port,
      hostname: '127.0.0.1',
      silent: true,
      gracefulShutdown: false,
      fetch: async (request) => {
        const { pathname, search } = new URL(request.url)
        const what = `${request.method} ${pathname}`
        calls.push(what)
        const answer = wire.answer?.(what)
        if (answer) return answer
        const { method, headers } = request
        const body = method === 'GET' ? null : await request.arrayBuffer()
        return await fetch(baseUrl + pathname + search, { method, headers, body })
      },
    })
    await server.ready()
    return server
  }
  let server = await listen(0)
  const url = (server.url ?? '').replace(/\/$/, '')
  const wire: Wire & { url: string } = {
    url,
    calls,
    answer: undefined,
    cut: () => server.close(true),
    async mend() {
      server = await listen(Number(new URL(url).port))
    },
  }
  cleanups.push(() => wire.cut())
  return wire
}

/** Opens a checkout and returns its id. */
export async function checkout({ app }: Payments, { token }: TestUser, body: object): Promise<string> {
  const reply = await call(app, 'POST /api/billing/checkout', { token, body })
  if (reply.status !== 201) throw new Error(`No checkout was opened: ${JSON.stringify(reply.json)}`)
  return reply.json.checkoutId
}

type Payment = Parameters<LoopbackPolar['shop']['pay']>[1]

/** The user buys, and everything that Polar tells of it has arrived. */
export async function buy(payments: Payments, user: TestUser, body: object, payment?: Payment): Promise<models.Order> {
  const order = payments.shop.pay(await checkout(payments, user, body), payment)
  await payments.polar.settled()
  return order
}

/** Like `buy`, for a plan. */
export async function subscribe(
  payments: Payments,
  user: TestUser,
  plan: 'pro' | 'enterprise',
  payment?: Payment,
): Promise<{ order: models.Order; subscription: models.Subscription }> {
  const { status, json } = await post(payments, user, 'upgrade', { plan })
  if (status !== 201) throw new Error(`No checkout was opened: ${JSON.stringify(json)}`)
  const order = payments.shop.pay(json.checkoutId, payment)
  await payments.polar.settled()
  const subscription = payments.shop.subscriptions.get(order.subscription_id ?? '')
  if (!subscription) throw new Error('The order has no subscription.')
  return { order, subscription }
}

/** Calls a payment route and waits for what Polar tells of it. */
export async function post(
  { app, polar }: Payments,
  { token }: TestUser,
  action: string,
  body?: object,
  headers: Record<string, string> = {},
): Promise<Reply> {
  const reply = await call(app, `POST /api/billing/${action}`, { token, body, headers })
  await polar.settled()
  return reply
}

/** Spends tokens on pictures, 100 for each. */
export async function spend({ app }: Payments, user: TestUser, tokens: number): Promise<void> {
  const image = await picture().jpeg().toBuffer()
  for (let left = tokens; left > 0; left -= PRICE_TOKENS) {
    const { status, json } = await processImage(app, user, { image })
    if (status !== 200) throw new Error(`Nothing was drawn: ${JSON.stringify(json)}`)
  }
}

/** What the API says of the user's plan and balance, which is what the subscriptions row has to say too. */
export async function standing({ app }: Payments, { id, token }: TestUser) {
  const { json } = await call(app, 'GET /api/billing/status', { token })
  const row = await db().selectFrom('subscriptions').selectAll().where('user_id', '=', id).executeTakeFirstOrThrow()
  const { plan, status, token_limit: tokenLimit, tokens_used: tokensUsed } = row
  const told = { plan: json.plan, status: json.status, tokenLimit: json.tokenLimit, tokensUsed: json.tokensUsed }
  if (JSON.stringify(told) !== JSON.stringify({ plan, status, tokenLimit, tokensUsed })) {
    throw new Error(`The row of the plan differs from what was told: ${JSON.stringify({ told, row })}`)
  }
  const { planTokens, purchasedTokens, reservedTokens, debtTokens, tokens } = json.balance
  if (reservedTokens !== 0) throw new Error(`${reservedTokens} tokens are reserved, and nothing is running.`)
  return { plan, status, tokenLimit, tokensUsed, planTokens, purchasedTokens, debtTokens, tokens }
}

type Standing = Awaited<ReturnType<typeof standing>>

/** A user of the free plan who has spent nothing of it, but for what is said. */
export function freeWith(changes: Partial<Standing> = {}): Standing {
  const { planTokens = FREE_TOKENS, purchasedTokens = 0, debtTokens = 0 } = changes
  return {
    plan: 'free',
    status: 'active',
    tokenLimit: FREE_TOKENS,
    tokensUsed: FREE_TOKENS - planTokens,
    planTokens,
    purchasedTokens,
    debtTokens,
    tokens: planTokens + purchasedTokens - debtTokens,
    ...changes,
  }
}

/** A user of a paid plan with this allowance, of which nothing is spent, but for what is said. */
export function planWith(plan: 'pro' | 'enterprise', tokenLimit: number, changes: Partial<Standing> = {}): Standing {
  const { planTokens = tokenLimit } = changes
  return freeWith({ plan, tokenLimit, tokensUsed: tokenLimit - planTokens, planTokens, ...changes })
}

/** The user's orders in the books, the oldest first. */
export async function ordersOf({ id }: { id: string }) {
  return await db()
    .selectFrom('billing_orders')
    .select([
      ...(['id', 'kind', 'plan', 'status', 'paid', 'currency', 'net_cents', 'refunded_cents'] as const),
      ...(['dispute_lost', 'problem', 'tokens_granted', 'tokens_taken_back'] as const),
    ])
    .where('user_id', '=', id)
    .orderBy('ordered_at')
    .orderBy('id')
    .execute()
}

const MONEY_TABLES = [
  ...['billing_orders', 'billing_refunds', 'billing_disputes', 'billing_subscriptions', 'webhook_events'],
  ...['ledger_lot', 'ledger_entry', 'ledger_hold'],
]

/** How many rows there are of everything that a payment may leave behind. */
export async function rowCounts(): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const table of MONEY_TABLES) {
    const { rows } = await sql<{ count: number }>`select count(*)::int as count from ${sql.table(table)}`.execute(db())
    counts[table] = rows[0]?.count ?? 0
  }
  return counts
}

/** Runs the scheduled sweep; returns what it did about payments. */
export async function sweep({ app }: Payments) {
  const { status, json } = await call(app, 'POST /api/jobs/sweep', { token: CRON_SECRET })
  if (status !== 200) throw new Error(`The sweep failed: ${JSON.stringify(json)}`)
  return json.billing
}

/** A customer at Polar that has this user's address and is not linked to them. */
export async function givenStranger(
  { client }: Payments,
  { email }: TestUser,
  externalId: string | null,
): Promise<models.Customer> {
  const name = 'Somebody Else'
  return await client.customers.create({ email, name, ...(externalId !== null && { external_id: externalId }) })
}
