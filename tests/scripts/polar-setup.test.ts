// The set-up at Polar, through the real SDK: what is missing is made once, what is there is found, nothing is spoilt.
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { models, Polar } from '@polar-sh/sdk/2026-10'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { HANDLED_EVENTS } from '../../lib/billing/inbox.ts'
import { connectPolar } from '../../lib/billing/polar.ts'
import { type ForkConfig, loadConfig, parseConfig } from '../../lib/config.ts'
import { parseEnv } from '../../lib/env.ts'
import { findings } from '../../scripts/doctor.ts'
import { startLoopbackPolar } from '../../scripts/loopback-polar/server.ts'
import { ensurePolarSetup } from '../../scripts/polar-setup.ts'

const SITE = 'https://my.app'
const WEBHOOK_URL = `${SITE}/api/webhooks/polar`

const shipped = loadConfig(parseEnv({}))

let polar: Awaited<ReturnType<typeof startLoopbackPolar>>
let client: Polar

beforeEach(async () => {
  polar = await startLoopbackPolar({})
  const { accessToken, baseUrl } = polar
  client = await connectPolar({ accessToken, environment: 'sandbox', baseUrl })
})

afterEach(() => polar.close())

function setUp(config: ForkConfig = shipped, webhookUrl: string | undefined = WEBHOOK_URL) {
  return ensurePolarSetup({ client, config, webhookUrl })
}

/** The configuration as it is once the printed ids stand in it. */
function withIds(ids: Awaited<ReturnType<typeof setUp>>['config']): ForkConfig {
  const { plans, payments } = shipped
  return {
    ...shipped,
    plans: {
      ...plans,
      pro: { ...plans.pro, ...ids.plans.pro },
      enterprise: { ...plans.enterprise, ...ids.plans.enterprise },
    },
    payments: { ...payments, ...ids.payments },
  }
}

async function allProducts(): Promise<models.Product[]> {
  return await Array.fromAsync(client.products.iterList({ limit: 100 }))
}

async function allEndpoints(): Promise<models.WebhookEndpoint[]> {
  return await Array.fromAsync(client.webhooks.iterListWebhookEndpoints({ limit: 100 }))
}

/** The first price of the product at `place`. */
async function priceAt({ products }: Awaited<ReturnType<typeof setUp>>, place: string) {
  const { prices } = await client.products.get(products.find((one) => one.place === place)?.id ?? '')
  return prices[0]
}

describe('the first set-up', () => {
  test('makes a product for everything on sale, at the price of the configuration', async () => {
    const setup = await setUp()
    expect(setup.products.map(({ place, created }) => [place, created])).toEqual([
      ['payments', true],
      ['payments.packs[0]', true],
      ['payments.packs[1]', true],
      ['plans.pro', true],
      ['plans.enterprise', true],
    ])
    expect(setup.warnings).toEqual([])
    expect(await priceAt(setup, 'payments')).toMatchObject({
      amount_type: 'custom',
      price_currency: 'usd',
      minimum_amount: 500,
      preset_amount: 1000,
    })
    expect(await priceAt(setup, 'payments.packs[0]')).toMatchObject({ amount_type: 'fixed', price_amount: 500 })
    expect(await priceAt(setup, 'payments.packs[1]')).toMatchObject({ amount_type: 'fixed', price_amount: 2000 })
    expect(await priceAt(setup, 'plans.pro')).toMatchObject({ amount_type: 'fixed', price_amount: 1900 })
    expect(await priceAt(setup, 'plans.enterprise')).toMatchObject({ amount_type: 'fixed', price_amount: 9900 })
    const products = await allProducts()
    expect(products.map(({ recurring_interval, metadata }) => ({ recurring_interval, ...metadata }))).toEqual(
      expect.arrayContaining([
        { recurring_interval: null, kind: 'tokens' },
        { recurring_interval: null, kind: 'tokens', pack: 'starter' },
        { recurring_interval: null, kind: 'tokens', pack: 'family' },
        { recurring_interval: 'month', kind: 'plan', plan: 'pro' },
        { recurring_interval: 'month', kind: 'plan', plan: 'enterprise' },
      ]),
    )
    expect(products).toHaveLength(5)
  })

  test('proposes no less than the minimum for a free amount', async () => {
    const payments = { ...shipped.payments, minimumDepositCents: 1500, packs: [] }
    const setup = await setUp({ ...shipped, payments })
    expect(await priceAt(setup, 'payments')).toMatchObject({ minimum_amount: 1500, preset_amount: 1500 })
  })

  test('makes the endpoint for exactly the events that are acted upon, and tells its secret', async () => {
    const { webhook } = await setUp()
    const [endpoint, ...others] = await allEndpoints()
    expect(others).toEqual([])
    expect(endpoint).toMatchObject({ url: WEBHOOK_URL, format: 'raw', api_version: '2026-10', enabled: true })
    expect([...(endpoint?.events ?? [])].sort()).toEqual([...HANDLED_EVENTS].sort())
    expect(webhook).toEqual({ id: endpoint?.id, url: WEBHOOK_URL, state: 'created', secret: endpoint?.secret })
    expect(webhook?.secret).toMatch(/^\S{16,}$/)
  })

  test('makes no endpoint without an address', async () => {
    const setup = await ensurePolarSetup({ client, config: shipped, webhookUrl: undefined })
    expect(setup).not.toHaveProperty('webhook')
    expect(await allEndpoints()).toEqual([])
  })

  test('gives the ids in the form the configuration takes, where nothing is missing then', async () => {
    const { config } = await setUp()
    const text = JSON.stringify({ ...shipped, environments: { production: config } })
    const merged = parseConfig(text, { file: 'fork.config.json', stage: 'production', forkOverrides: {} })
    expect(merged).toEqual(withIds(config))
    const ids = [merged.payments, ...merged.payments.packs, merged.plans.pro, merged.plans.enterprise]
    expect(new Set(ids.map(({ polarProductId }) => polarProductId))).toEqual(
      new Set((await allProducts()).map(({ id }) => id)),
    )
  })
})

describe('another set-up', () => {
  test.each([
    ['by their metadata, while the configuration names no ids', () => shipped],
    ['by the ids of the configuration', withIds],
  ])('makes nothing, and finds everything %s', async (_, configured) => {
    const first = await setUp()
    const before = { products: await allProducts(), endpoints: await allEndpoints() }
    const second = await setUp(configured(first.config))
    expect(second.products).toEqual(first.products.map((product) => ({ ...product, created: false })))
    expect(second).toMatchObject({ config: first.config, warnings: [], webhook: { state: 'unchanged' } })
    expect(second.webhook?.secret).toBe(first.webhook?.secret)
    expect({ products: await allProducts(), endpoints: await allEndpoints() }).toEqual(before)
  })

  test('makes what has come on sale since, and nothing else', async () => {
    const first = await setUp()
    const config = withIds(first.config)
    const packs = [...config.payments.packs, { id: 'school', priceCents: 9000, tokens: 12_000, polarProductId: '' }]
    const second = await setUp({ ...config, payments: { ...config.payments, packs } })
    expect(second.products.filter(({ created }) => created)).toMatchObject([{ place: 'payments.packs[2]' }])
    expect(await allProducts()).toHaveLength(6)
  })

  test('leaves a price that differs as it is, and says so', async () => {
    const { config } = await setUp()
    const { plans, payments } = withIds(config)
    const dearer = {
      ...shipped,
      payments: { ...payments, minimumDepositCents: 400 },
      plans: { ...plans, pro: { ...plans.pro, priceCents: 2400 } },
    }
    const before = await allProducts()
    const { warnings } = await setUp(dearer)
    expect(warnings).toEqual([
      expect.stringMatching(/^payments: .* costs 500 cents \(usd\) or more at Polar and 400 cents \(usd\) or more in/),
      expect.stringMatching(/^plans\.pro: .* costs 1900 cents \(usd\) at Polar and 2400 cents \(usd\) in the conf/),
    ])
    expect(await allProducts()).toEqual(before)
  })

  test('replaces an archived product that only its metadata names, and keeps one that is named by id', async () => {
    const first = await setUp()
    const pro = first.config.plans.pro.polarProductId
    await client.products.update(pro, { is_archived: true })
    expect((await setUp(withIds(first.config))).warnings).toEqual([
      expect.stringMatching(/^plans\.pro: .* is archived/),
    ])
    const { products } = await setUp()
    expect(products.filter(({ created }) => created)).toMatchObject([{ place: 'plans.pro' }])
    expect(products.find(({ place }) => place === 'plans.pro')?.id).not.toBe(pro)
  })

  test('says when the configuration names a product of another account', async () => {
    const { config } = await setUp()
    const { plans } = shipped
    const foreign = { ...shipped, plans: { ...plans, pro: { ...plans.pro, polarProductId: 'of-the-sandbox' } } }
    const { warnings, products } = await setUp(foreign)
    expect(warnings).toEqual([
      expect.stringContaining('plans.pro.polarProductId: Polar has no product "of-the-sandbox"'),
    ])
    expect(products.find(({ place }) => place === 'plans.pro')).toMatchObject({
      id: config.plans.pro.polarProductId,
      created: false,
    })
  })

  test('says when a plan is not billed monthly', async () => {
    const price: models.ProductPriceFixedCreate = { amount_type: 'fixed', price_currency: 'usd', price_amount: 1900 }
    await client.products.create({ name: 'Once', prices: [price], metadata: { kind: 'plan', plan: 'pro' } })
    expect((await setUp()).warnings).toEqual([
      expect.stringMatching(/^plans\.pro: .* is to be billed monthly and is not/),
    ])
  })

  test.each<[string, models.WebhookEndpointUpdate]>([
    ['lacks events', { events: ['order.paid', 'customer.created'] }],
    ['is switched off', { enabled: false }],
    ['speaks another version', { api_version: '2026-04' }],
    ['speaks to a chat', { format: 'slack' }],
  ])('mends an endpoint that %s, and keeps its secret', async (_, change) => {
    const first = await setUp()
    await client.webhooks.updateWebhookEndpoint(first.webhook?.id ?? '', change)
    const { webhook } = await setUp()
    expect(webhook).toEqual({ ...first.webhook, state: 'updated' })
    const endpoints = await allEndpoints()
    expect(endpoints).toMatchObject([{ url: WEBHOOK_URL, format: 'raw', api_version: '2026-10', enabled: true }])
    expect(endpoints[0]?.events).toEqual(expect.arrayContaining([...HANDLED_EVENTS, ...(change.events ?? [])]))
    expect((await setUp()).webhook?.state).toBe('unchanged')
  })

  test('leaves the endpoints of other sites alone', async () => {
    const other = await client.webhooks.createWebhookEndpoint({
      url: `${SITE}/other`,
      format: 'raw',
      events: ['order.paid'],
    })
    await setUp()
    const endpoints = await allEndpoints()
    expect(endpoints).toHaveLength(2)
    expect(endpoints).toContainEqual(other)
  })
})

describe('npm run doctor -- --fix', () => {
  let folder: string

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'polar-setup-'))
  })

  afterEach(() => rm(folder, { recursive: true }))

  function doctor(flags: string[], variables: Record<string, string> = {}) {
    const { PATH = '' } = process.env
    const given = { PATH, POLAR_ACCESS_TOKEN: polar.accessToken, POLAR_BASE_URL: polar.baseUrl, ...variables }
    return new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
      execFile(process.execPath, ['scripts/doctor.ts', ...flags], { env: given }, (error, stdout, stderr) =>
        resolve({ code: error ? error.code : 0, stdout, stderr }),
      )
    })
  }

  test('needs the token alone, and prints what to put where', async () => {
    const { code, stdout } = await doctor(['--fix', '--url', SITE])
    expect(code).toBe(0)
    const [endpoint] = await allEndpoints()
    expect(endpoint?.url).toBe(WEBHOOK_URL)
    expect(stdout).toContain(`POLAR_WEBHOOK_SECRET=${endpoint?.secret}\n`)
    const products = await allProducts()
    expect(products).toHaveLength(5)
    for (const { id } of products) expect(stdout).toContain(`"polarProductId": "${id}"`)
    expect(stdout).not.toContain(polar.accessToken)
  })

  test('has nothing left to print or to warn of once all is in its place', async () => {
    const { setup } = JSON.parse((await doctor(['--fix', '--json', '--url', SITE])).stdout)
    const file = join(folder, 'fork.json')
    await writeFile(file, JSON.stringify(withIds(setup.config)))
    const variables = { FORK_CONFIG: file, POLAR_WEBHOOK_SECRET: setup.webhook.secret }
    const { code, stdout } = await doctor(['--fix', '--url', SITE], variables)
    expect(code).toBe(0)
    expect(stdout).not.toContain(setup.webhook.secret)
    expect(stdout).not.toContain('polarProductId is missing')
    expect(await allProducts()).toHaveLength(5)
    expect(findings({ ...variables, POLAR_ACCESS_TOKEN: polar.accessToken }).ok).toBe(true)
  })

  test('takes the address that Vercel names, and says when there is none', async () => {
    const { stdout, code } = await doctor(['--fix'])
    expect(stdout).toContain('The webhook is not set up: name the address of the site with --url')
    expect(stdout).toContain('POLAR_ACCESS_TOKEN is set but POLAR_WEBHOOK_SECRET is not.')
    expect(code).toBe(1)
    expect(await allProducts()).toHaveLength(5)
    const named = await doctor(['--fix', '--json'], { VERCEL_PROJECT_PRODUCTION_URL: 'my.app' })
    expect(named.code).toBe(0)
    expect(JSON.parse(named.stdout)).toMatchObject({
      ok: true,
      setup: { products: expect.any(Array), webhook: { url: WEBHOOK_URL, state: 'created' } },
    })
  })

  test('says that the token is wrong without showing it', async () => {
    const { code, stdout } = await doctor(['--fix', '--url', SITE], { POLAR_ACCESS_TOKEN: 'polar_oat_wrong' })
    expect(code).toBe(1)
    expect(stdout).toContain('Is POLAR_ACCESS_TOKEN right for the production environment')
    expect(stdout).not.toContain('polar_oat_wrong')
    expect(await allProducts()).toEqual([])
  })

  test.each([
    ['there is no token', { POLAR_ACCESS_TOKEN: '' }, 'POLAR_ACCESS_TOKEN is not set: --fix needs it'],
    ['nobody takes the money', { FORK__PAYMENTS__PROVIDER: 'none' }, 'payments.provider is "none"'],
    ['the configuration is wrong', { FORK__PAYMENTS__CURRENCY: 'USD' }, 'must be a currency code'],
  ])('makes nothing while %s', async (_, variables: Record<string, string>, complaint) => {
    const { code, stdout } = await doctor(['--fix', '--url', SITE], variables)
    expect(code).toBe(1)
    expect(stdout).toContain(complaint)
    expect(await allProducts()).toEqual([])
  })

  test.each([
    ['--url', SITE],
    ['--fix', '--url'],
    ['--fix', '--url', 'my.app'],
    ['--fix', 'more'],
  ])('refuses %s %s %s', async (...flags) => {
    const { code, stderr, stdout } = await doctor(flags.filter((flag) => flag !== undefined))
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toContain('Usage: npm run doctor')
  })
})
