// A tool that says what is in a picture: its words in every form of reply, charged like any other result.
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type App, balanceOf, call, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens, ledgerViolations, usageRows } from '../support/money.ts'

let app: App
let gemini: Awaited<ReturnType<typeof startGeminiStub>>
let user: TestUser

beforeAll(async () => {
  gemini = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'a key of the tests',
    GEMINI_BASE_URL: gemini.url,
    FORK__AI__CACHE_SECONDS: '3600',
    FORK__TOOLS: JSON.stringify([
      {
        name: 'caption',
        description: 'Says what is in a photo.',
        does: 'image->text',
        prompt: 'Say in one sentence what is in this photo. {{tone}}',
        priceTokens: 5,
        draftPriceTokens: 2,
        cachedPriceTokens: 1,
        providers: ['gemini'],
        options: { tone: { enum: ['plain', 'funny'], default: 'plain' } },
      },
    ]),
  })
  return gemini.close
})

beforeEach(async () => {
  gemini.requests.length = 0
  user = await givenUser(app)
  await leaveTokens(user.id, 100)
})

describe('a caption', () => {
  test('comes as JSON with its text, and the same in base64', async () => {
    const { status, json } = await processImage(app, user)
    expect(status).toBe(200)
    expect(json).toMatchObject({ mimeType: 'text/plain', provider: 'gemini', usage: { tokens: 5, images: 0 } })
    expect(json.text.length).toBeGreaterThan(0)
    expect(Buffer.from(json.result, 'base64').toString()).toBe(json.text)
    expect(json).not.toHaveProperty('width')
    expect(gemini.requests[0]?.images).toHaveLength(1)
    expect(await usageRows(user.id)).toMatchObject([{ tokens_used: 5, response_status: 'success' }])
    expect(await ledgerViolations()).toEqual([])
  })

  test('comes as the text itself for who accepts that, with the facts in headers', async () => {
    const { status, bytes, headers } = await processImage(app, user, { headers: { accept: 'text/plain' } })
    expect(status).toBe(200)
    expect(headers.get('content-type')).toBe('text/plain; charset=utf-8')
    expect(headers.get('x-tokens-charged')).toBe('5')
    expect(bytes.toString()).toBe((await processImage(app, user)).json.text)
  })

  test('comes as JSON for who accepts pictures alone, as there is none', async () => {
    const { json } = await processImage(app, user, { headers: { accept: 'image/*' } })
    expect(json.mimeType).toBe('text/plain')
  })

  test('is the last event of a stream', async () => {
    const { bytes } = await processImage(app, user, { headers: { accept: 'text/event-stream' } })
    const done = JSON.parse(/event: done\ndata: (.*)\n/.exec(bytes.toString())?.[1] ?? '{}')
    expect(done.text.length).toBeGreaterThan(0)
  })

  test('is kept and given again, in another form too', async () => {
    const first = await processImage(app, user)
    const again = await processImage(app, user)
    expect(again.json).toMatchObject({ cached: true, text: first.json.text, usage: { tokens: 1 } })
    const bare = await processImage(app, user, { headers: { accept: 'text/plain' } })
    expect(bare.bytes.toString()).toBe(first.json.text)
    expect(gemini.requests).toHaveLength(1)
    expect((await balanceOf(app, user)).tokens).toBe(100 - 5 - 1 - 1)
  })

  test('as a draft has the price of a draft, also when it was kept and would cost more', async () => {
    expect((await processImage(app, user, { query: '?quality=draft' })).json.usage.tokens).toBe(2)
    expect((await processImage(app, user, { query: '?quality=draft' })).json.usage.tokens).toBe(1)
  })

  test('has no format to choose', async () => {
    const { json } = await processImage(app, user, { query: '?format=png' })
    expect(json.error).toMatchObject({ code: 'VALIDATION_FAILED', details: { issues: [{ path: 'options.format' }] } })
  })

  test('needs a picture', async () => {
    const { json } = await call(app, 'POST /api/process-image', { token: user.token, body: { text: 'a cat' } })
    expect(json.error.code).toBe('VALIDATION_FAILED')
  })
})

test('the public configuration says what the tool does and at which prices', async () => {
  const { json } = await call(app, 'GET /api/config')
  expect(json.tools).toMatchObject([
    { name: 'caption', does: 'image->text', priceTokens: 5, draftPriceTokens: 2, cachedPriceTokens: 1 },
  ])
  expect(json.tools[0]).not.toHaveProperty('prompt')
})
