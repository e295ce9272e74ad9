// Polar asked to send again what it could not deliver, and to send at all after it gave up.
import type { Polar } from '@polar-sh/sdk/2026-10'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { seedAdmin } from '../../lib/auth/accounts.ts'
import { connectPolar } from '../../lib/billing/polar.ts'
import { type LoopbackPolar, startLoopbackPolar } from '../../scripts/loopback-polar/server.ts'
import { type App, balanceOf, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'

const ADMIN = { email: 'root@example.com', password: 'a password for the admin' }
const WEBHOOK_URL = 'http://localhost/api/webhooks/polar'

let app: App
let polar: LoopbackPolar
let client: Polar
let user: TestUser
let admin: { id: string; token: string }
/** While true, no delivery gets through. */
let down: boolean

beforeAll(async () => {
  polar = await startLoopbackPolar({
    webhookUrl: WEBHOOK_URL,
    timeScale: 1_000_000,
    limits: { attemptsMax: 2 },
    products: [{ name: 'Tokens', metadata: { kind: 'tokens' }, prices: [{ amount_type: 'fixed', price_amount: 500 }] }],
    deliver: async (request) => (down ? new Response(null, { status: 503 }) : await app.fetch(request)),
  })
  app = await startApp({
    ADMIN_EMAIL: ADMIN.email,
    ADMIN_PASSWORD: ADMIN.password,
    FORK__PAYMENTS__PROVIDER: 'polar',
    POLAR_ACCESS_TOKEN: polar.accessToken,
    POLAR_WEBHOOK_SECRET: polar.webhookSecret,
    POLAR_BASE_URL: polar.baseUrl,
  })
  client = await connectPolar({ accessToken: polar.accessToken, environment: 'sandbox', baseUrl: polar.baseUrl })
  await seedAdmin()
  const { json } = await call(app, 'POST /api/auth/login', { body: ADMIN })
  admin = { id: json.user.id, token: json.accessToken }
})

afterAll(() => polar.close())

beforeEach(async () => {
  down = false
  user = await givenUser(app)
})

const redeliver = (body: object = {}) => call(app, 'POST /api/admin/polar/redeliver', { token: admin.token, body })
const enable = () => call(app, 'POST /api/admin/polar/endpoint/enable', { token: admin.token })

async function lastAudit() {
  return await db().selectFrom('audit_log').selectAll().orderBy('id', 'desc').limit(1).executeTakeFirst()
}

/** The user buys 500 tokens, and Polar tells of it as well as it can. */
async function buy(): Promise<void> {
  const [product] = [...polar.shop.products.keys()]
  const metadata = { user_id: user.id }
  const { id } = await client.checkouts.create({ products: [product ?? ''], metadata, customer_email: user.email })
  polar.shop.pay(id)
  await polar.settled()
}

async function endpoint() {
  const { items } = await client.webhooks.listWebhookEndpoints()
  return items[0]
}

describe('POST /api/admin/polar/redeliver', () => {
  test('brings what was lost while this site was down, and nothing twice', async () => {
    down = true
    await buy()
    down = false
    expect((await balanceOf(app, user)).purchasedTokens).toBe(0)
    const lost = polar.deliveries.events.filter(({ succeeded }) => succeeded === false).length
    expect(lost).toBeGreaterThan(2)

    const { status, json } = await redeliver()
    await polar.settled()
    expect(status).toBe(200)
    expect(json).toEqual({ requested: lost, refused: 0, more: false })
    expect((await balanceOf(app, user)).purchasedTokens).toBe(500)
    expect(await lastAudit()).toMatchObject({
      actor_type: 'admin',
      actor_id: admin.id,
      action: 'polar.redeliver',
      details: { events: lost },
    })

    expect((await redeliver()).json, 'what got through is not asked for again').toEqual({
      requested: 0,
      refused: 0,
      more: false,
    })
    await polar.settled()
    expect((await balanceOf(app, user)).purchasedTokens).toBe(500)
  })

  test('asks only for what failed since then', async () => {
    down = true
    await buy()
    down = false
    const since = new Date(Date.now() + 60_000).toISOString()
    expect((await redeliver({ since })).json).toMatchObject({ requested: 0 })
    expect((await lastAudit())?.details).toEqual({ events: 0, since })
    const before = new Date(Date.now() - 60_000).toISOString()
    expect((await redeliver({ since: before })).json.requested).toBeGreaterThan(2)
    await polar.settled()
    expect((await balanceOf(app, user)).purchasedTokens).toBe(500)
  })

  test.each([{ since: 'yesterday' }, { since: 5 }, { endpoint: 'https://example.com' }])('refuses %j', async (body) => {
    expect((await redeliver(body)).status).toBe(400)
  })
})

describe('POST /api/admin/polar/endpoint/enable', () => {
  test('switches on the endpoint that Polar has switched off', async () => {
    const { id = '', url = '' } = (await endpoint()) ?? {}
    await client.webhooks.updateWebhookEndpoint(id, { enabled: false })
    const { status, json } = await enable()
    expect(status).toBe(200)
    expect(json).toEqual({ endpoints: [{ id, url, enabled: true, wasEnabled: false }] })
    expect((await endpoint())?.enabled).toBe(true)
    expect(await lastAudit()).toMatchObject({
      actor_id: admin.id,
      action: 'polar.endpoint.enable',
      details: { endpoints: [{ id, url, wasEnabled: false }] },
    })
    expect((await enable()).json.endpoints).toMatchObject([{ enabled: true, wasEnabled: true }])
    await buy()
    expect((await balanceOf(app, user)).purchasedTokens).toBe(500)
  })

  test("leaves other people's endpoints of the same organization alone", async () => {
    const other = await client.webhooks.createWebhookEndpoint({
      url: 'https://example.com/hooks',
      format: 'raw',
      events: ['order.paid'],
    })
    await client.webhooks.updateWebhookEndpoint(other.id, { enabled: false })
    expect((await enable()).json.endpoints).toHaveLength(1)
    expect((await client.webhooks.getWebhookEndpoint(other.id)).enabled).toBe(false)
    await client.webhooks.deleteWebhookEndpoint(other.id)
  })
})

describe('both', () => {
  test.each([
    { what: 'redeliver', act: () => redeliver() },
    { what: 'enable', act: () => enable() },
  ])('$what says so when Polar fails, and when it knows no endpoint of ours', async ({ act }) => {
    expectErrorsInLog()
    polar.failNext(1, 500)
    const failed = await act()
    expect(failed.status).toBe(502)
    expect(failed.json.error).toMatchObject({ code: 'PROVIDER_ERROR', details: { provider: 'polar' } })

    const { id = '', url = '' } = (await endpoint()) ?? {}
    await client.webhooks.updateWebhookEndpoint(id, { url: 'https://example.com/elsewhere' })
    const unknown = await act()
    expect(unknown.status).toBe(409)
    expect(unknown.json.error.message).toMatch(/no webhook endpoint/)
    await client.webhooks.updateWebhookEndpoint(id, { url })
  })
})
