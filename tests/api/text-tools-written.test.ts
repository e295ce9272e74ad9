// Tools that begin with words: what they take, what they refuse, and what they make of it.
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  type App,
  balanceOf,
  type CallOptions,
  call,
  givenUser,
  photo,
  startApp,
  type TestUser,
} from '../support/app.ts'
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
        name: 'drawing',
        description: 'Draws what is written.',
        does: 'text->image',
        prompt: 'Draw this as {{style}}: {{text}}',
        priceTokens: 50,
        inputCharactersMax: 40,
        providers: ['gemini'],
        options: { style: { enum: ['ink', 'chalk'], default: 'ink' } },
      },
    ]),
  })
  return gemini.close
})

beforeEach(async () => {
  gemini.requests.length = 0
  user = await givenUser(app)
  await leaveTokens(user.id, 1000)
})

const post = (options: CallOptions) => call(app, 'POST /api/process-image', { token: user.token, ...options })
const draw = (body: object, headers = {}) => post({ body, headers })

describe('a drawing', () => {
  test('is made of the words, trimmed, and of nothing else the client says', async () => {
    const { status, json } = await draw({ text: '  a cat on a mat \n', options: { style: 'chalk', format: 'webp' } })
    expect(status).toBe(200)
    expect(json).toMatchObject({ mimeType: 'image/webp', usage: { tokens: 50, images: 1 } })
    expect(json).not.toHaveProperty('text')
    const [asked] = gemini.requests
    expect(asked?.prompt).toBe('Draw this as chalk: a cat on a mat')
    expect(asked?.images).toEqual([])
    expect(await ledgerViolations()).toEqual([])
  })

  test('comes as bytes for who accepts those', async () => {
    const { headers, bytes } = await draw({ text: 'a cat' }, { accept: 'image/png' })
    expect(headers.get('content-type')).toBe('image/png')
    expect(bytes.subarray(1, 4).toString()).toBe('PNG')
  })

  test('is kept by its words and options', async () => {
    await draw({ text: 'a cat' })
    expect((await draw({ text: ' a cat ' })).json.cached).toBe(true)
    expect((await draw({ text: 'a dog' })).json.cached).toBe(false)
    expect((await draw({ text: 'a cat', options: { style: 'chalk' } })).json.cached).toBe(false)
  })

  test('takes placeholders in the words for words', async () => {
    await draw({ text: '{{style}} and {{text}}' })
    expect(gemini.requests[0]?.prompt).toBe('Draw this as ink: {{style}} and {{text}}')
  })
})

const json = (body: unknown): CallOptions => ({ body })

test.each([
  { why: 'is empty', send: json({ text: '' }), path: 'text', says: /empty/ },
  { why: 'is blank', send: json({ text: ' \n\t' }), path: 'text', says: /empty/ },
  { why: 'is too long', send: json({ text: 'x'.repeat(41) }), path: 'text', says: /40 characters/ },
  { why: 'is missing', send: json({ options: {} }), path: 'text', says: /text/ },
  { why: 'is a number', send: json({ text: 5 }), path: 'text', says: /text/ },
  { why: 'has a NUL', send: json({ text: 'a\0b' }), path: 'text', says: /text/ },
  { why: 'is half a character', send: json({ text: 'a\ud800' }), path: 'text', says: /text/ },
  { why: 'comes with a picture', send: json({ text: 'a', imageData: 'QUJD' }), path: 'imageData', says: /Unknown/ },
  { why: 'comes with an upload', send: json({ text: 'a', imageUrl: 'x' }), path: 'imageUrl', says: /Unknown/ },
  { why: 'comes with a price', send: json({ text: 'a', priceTokens: 1 }), path: 'priceTokens', says: /Unknown/ },
  {
    why: 'comes with an option that is none',
    send: json({ text: 'a', options: { style: 'oil' } }),
    path: 'options.style',
    says: /style/,
  },
  { why: 'names a provider that is none', send: json({ text: 'a', provider: 'x' }), path: 'provider', says: /gemini/ },
])('a text that $why is refused free of charge', async ({ send, path, says }) => {
  const { status, json } = await post(send)
  expect({ status, code: json.error.code }).toEqual({ status: 400, code: 'VALIDATION_FAILED' })
  expect(json.error.details.issues[0].path).toBe(path)
  expect(json.error.message).toMatch(says)
  expect((await balanceOf(app, user)).tokens).toBe(1000)
  expect(await usageRows(user.id)).toEqual([])
  expect(gemini.requests).toEqual([])
})

test.each(['text/plain', 'image/jpeg', 'multipart/form-data; boundary=x'])(
  'a body of the type %s is not how words arrive',
  async (type) => {
    const { status, json } = await post({ body: photo(), headers: { 'content-type': type } })
    expect({ status, code: json.error.code }).toEqual({ status: 415, code: 'UNSUPPORTED_MEDIA_TYPE' })
  },
)

test.each([
  { why: 'no JSON', body: 'a cat' },
  { why: 'nothing', body: '' },
])('a body that is $why is said to be so', async ({ body }) => {
  const { json } = await post({ body, headers: { 'content-type': 'application/json' } })
  expect(json.error.code).toBe('INVALID_JSON')
})

test('the public configuration says how long the words may be', async () => {
  const { json } = await call(app, 'GET /api/config')
  expect(json.tools).toMatchObject([{ does: 'text->image', inputCharactersMax: 40 }])
})
