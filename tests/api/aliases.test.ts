// Names of models that are gone, as callers still say them: who answers, and that the reply tells both.
import { beforeAll, describe, expect, test } from 'vitest'
import { type App, balanceOf, call, givenUser, photo, processImage, startApp, type TestUser } from '../support/app.ts'
import { type ProviderStubs, startProviderStubs } from '../support/provider-stubs.ts'

let app: App
let stubs: ProviderStubs
let user: TestUser

beforeAll(async () => {
  stubs = await startProviderStubs()
  app = await startApp({
    ...stubs.variables,
    FORK__TOOLS__0__PROVIDERS: '["sketch", "gemini", "openai", "stability"]',
    FORK__TOOLS__0__DRAFT_PRICE_TOKENS: '20',
  })
  user = await givenUser(app)
  return stubs.close
})

const ask = (provider: string, options = {}) =>
  call(app, 'POST /api/process-image', {
    token: user.token,
    body: { imageData: photo().toString('base64'), provider, options },
  })

describe('a request that names a model of old', () => {
  test.each([
    { alias: 'dall-e-3', provider: 'openai' },
    { alias: 'stable-diffusion-xl', provider: 'stability' },
  ] as const)('$alias is answered by $provider first, and says so', async ({ alias, provider }) => {
    stubs.forget()
    const { status, json } = await ask(alias)
    expect(status).toBe(200)
    expect(json).toMatchObject({ provider, requestedProvider: alias, fallback: { used: false, failed: [] } })
    expect(json.model).not.toBe(alias)
    expect(stubs.asked(provider)).toBe(1)
  })

  test('says so in the headers of bytes as well', async () => {
    const { headers } = await processImage(app, user, {
      query: '?provider=dall-e-3',
      headers: { accept: 'image/*' },
    })
    expect(headers.get('x-provider')).toBe('openai')
    expect(headers.get('x-requested-provider')).toBe('dall-e-3')
  })

  test.each(['gpt-5', 'claude-3-sonnet', 'anthropic', 'DALL-E-3', '', 'constructor', '__proto__'])(
    'is refused free of charge for %j, which is no provider of the tool',
    async (provider) => {
      const before = await balanceOf(app, user)
      const { status, json } = await ask(provider)
      expect({ status, code: json.error?.code }).toEqual({ status: 400, code: 'VALIDATION_FAILED' })
      expect(json.error.details.issues).toMatchObject([{ path: 'provider' }])
      expect(await balanceOf(app, user)).toEqual(before)
    },
  )
})

test('a provider by its own name is no alias', async () => {
  const { json } = await ask('openai')
  expect(json.provider).toBe('openai')
  expect(json).not.toHaveProperty('requestedProvider')
})
