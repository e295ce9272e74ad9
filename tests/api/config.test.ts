// The public configuration: what pages need to look and behave like this fork, cached by its tag, without a secret.
import { readFileSync } from 'node:fs'
import { beforeAll, describe, expect, test, vi } from 'vitest'
import { type App, call, startApp } from '../support/app.ts'
import { currentLane } from '../support/lane.ts'

const SECRETS = {
  GEMINI_API_KEY: 'AIza-a-key-that-nobody-may-see',
  CRON_SECRET: 'a secret of the scheduler',
  ADMIN_EMAIL: 'root@example.com',
  ADMIN_PASSWORD: 'a password for the admin',
  FORK__AUTH__ADMINS: '["boss@example.com"]',
  FORK__PLANS__PRO__POLAR_PRODUCT_ID: 'prod_of_polar',
  POLAR_ACCESS_TOKEN: 'polar_oat_that-nobody-may-see',
  POLAR_WEBHOOK_SECRET: 'whsec_dGhhdC1ub2JvZHktbWF5LXNlZQ==',
}

let app: App

beforeAll(async () => {
  app = await startApp({ ...SECRETS, FORK__BRAND__NAME: 'Ink & Co', FORK__TOOLS__0__PRICE_TOKENS: '150' })
})

const get = (headers: Record<string, string> = {}) => call(app, 'GET /api/config', { headers })

describe('GET /api/config', () => {
  test('shows anybody the brand, tools, prices and limits in force, overrides of the environment included', async () => {
    const { status, headers, json } = await get()
    expect(status).toBe(200)
    expect(headers.get('content-type')).toBe('application/json')
    expect(Object.keys(json).sort()).toEqual([
      'auth',
      'brand',
      'features',
      'limits',
      'payments',
      'plans',
      'tools',
      'trial',
    ])
    expect(json.brand.name).toBe('Ink & Co')
    expect(json.tools).toMatchObject([{ name: 'coloring-page', priceTokens: 150, highQualityPriceTokens: 200 }])
    expect(json.tools[0].options.detail).toMatchObject({ enum: ['simple', 'detailed'], default: 'simple' })
    expect(json.auth).toEqual({ provider: 'local', passwordLengthMin: 12, passwordReset: true })
    expect(json.limits).toMatchObject({
      imageBytesMax: 4_000_000,
      imagePixelsMax: 24_000_000,
      generatePerMinute: 100_000,
    })
    expect(json.features).toMatchObject({ generate: true, payments: true })
    expect(json.payments).toMatchObject({ provider: 'polar', currency: 'usd', minimumDepositCents: 500 })
    expect(json.payments.packs[0]).toEqual({ id: 'starter', priceCents: 500, tokens: 500 })
    expect(json.plans).toMatchObject({ pro: { priceCents: 1900 }, enterprise: { priceCents: 9900 } })
  })

  // What is built cannot be loaded a second time with another environment.
  if (currentLane() !== 'built')
    test.each([
      ['without the keys', { POLAR_ACCESS_TOKEN: '', POLAR_WEBHOOK_SECRET: '' }],
      ['while nobody takes the money', { FORK__PAYMENTS__PROVIDER: 'none' }],
      ['while the switch is off', { FORK__FEATURES__PAYMENTS: 'false' }],
      ['on Vercel without a database', { VERCEL: '1', POSTGRES_URL: '', DATABASE_URL: '' }],
    ])('offers no payments %s', async (_, variables) => {
      for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value)
      vi.resetModules()
      try {
        expect((await get()).json.features.payments).toBe(false)
      } finally {
        vi.unstubAllEnvs()
        vi.resetModules()
      }
    })

  test('shows no secret, no prompt, no cost, and who administers nothing', async () => {
    const text = (await get()).bytes.toString()
    for (const secret of [...Object.values(SECRETS), 'boss@example.com', process.env.AUTH_JWT_SECRET ?? '']) {
      expect(text).not.toContain(secret)
    }
    const file = JSON.parse(readFileSync('fork.config.json', 'utf8'))
    expect(text).not.toContain(file.tools[0].prompt)
    expect(text).not.toContain(file.tools[0].options.detail.phrases.simple)
    expect(text).not.toMatch(/costPerImageUsd|"model"|polarProductId|budgets|prod_of_polar/)
  })

  test('has a tag that stays while nothing changes, and is asked again each time', async () => {
    const [one, two] = [await get(), await get()]
    expect(one.headers.get('etag')).toMatch(/^"[\w-]{22}"$/)
    expect(two.headers.get('etag')).toBe(one.headers.get('etag'))
    expect(one.headers.get('cache-control')).toBe('public, max-age=0, must-revalidate')
  })

  test.each([
    { how: 'its tag', header: (tag: string) => tag },
    { how: 'its tag made weak by a proxy', header: (tag: string) => `W/${tag}` },
    { how: 'its tag among others', header: (tag: string) => `"other", ${tag} ,"third"` },
    { how: 'any tag', header: () => '*' },
  ])('is 304 without a body to who has $how', async ({ header }) => {
    const { headers } = await get()
    const tag = headers.get('etag') ?? ''
    const reply = await get({ 'if-none-match': header(tag) })
    expect(reply.status).toBe(304)
    expect(reply.bytes).toHaveLength(0)
    expect(reply.headers.get('etag')).toBe(tag)
    expect(reply.headers.get('cache-control')).toBe(headers.get('cache-control'))
    expect(reply.headers.get('vary')).toBe('Origin')
  })

  test.each(['"other"', '', 'garbage', 'W/"other"', '"'])('is sent whole to who has %s', async (header) => {
    const { status, bytes } = await get({ 'if-none-match': header })
    expect(status).toBe(200)
    expect(bytes.length).toBeGreaterThan(100)
  })

  test('is the same to who is signed in with nonsense: it asks for nothing', async () => {
    expect((await get({ authorization: 'Bearer nonsense' })).status).toBe(200)
  })
})
