// The paid provider behind the endpoint: what each of its failures becomes, and that none of them costs the user anything.
import sharp from 'sharp'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type App, balanceOf, givenUser, photo, processImage, startApp, type TestUser } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import type { Behaviour } from '../support/gemini-replies.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { ledgerViolations, usageRows } from '../support/money.ts'

const NOT_AN_IMAGE = JSON.stringify({
  candidates: [
    { finishReason: 'STOP', content: { parts: [{ inlineData: { mimeType: 'image/png', data: 'bm90IGFuIGltYWdl' } }] } },
  ],
})

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let user: TestUser

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    FORK__AI__CIRCUIT_BREAKERS: 'false',
    FORK__AI__PROVIDER_TIMEOUT_MS: '1000',
    FORK__AI__DEADLINE_MS: '4000',
  })
})

afterAll(() => stub.close())

beforeEach(async () => {
  user = await givenUser(app)
  stub.requests.length = 0
})

interface Failure {
  why: string
  behaviour: Behaviour
  status: number
  code: string
  kind: string
  /** Requests that reached Gemini: more than one where a second try may help. */
  calls: number
  costMicroUsd?: number
}

const FAILURES: Failure[] = [
  {
    why: '429 with a long RetryInfo',
    behaviour: { kind: 'rateLimited', retryDelay: '37.5s' },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'rate_limited',
    calls: 1,
  },
  {
    why: '429 with a short RetryInfo',
    behaviour: { kind: 'rateLimited', retryDelay: '0.05s' },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'rate_limited',
    calls: 2,
  },
  {
    why: '429 of a quota of zero',
    behaviour: { kind: 'rateLimited', quota: 'zero', retryDelay: '1s' },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'rate_limited',
    calls: 1,
  },
  {
    why: '500',
    behaviour: { kind: 'status', status: 500 },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'overloaded',
    calls: 2,
  },
  {
    why: '503',
    behaviour: { kind: 'status', status: 503 },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'overloaded',
    calls: 2,
  },
  {
    why: 'an HTML error page',
    behaviour: { kind: 'html502' },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'overloaded',
    calls: 2,
  },
  { why: 'silence', behaviour: { kind: 'hang' }, status: 504, code: 'PROVIDER_TIMEOUT', kind: 'timeout', calls: 1 },
  {
    why: 'a slow drip',
    behaviour: { kind: 'slowDrip' },
    status: 504,
    code: 'PROVIDER_TIMEOUT',
    kind: 'timeout',
    calls: 1,
  },
  {
    why: 'a connection that breaks',
    behaviour: { kind: 'reset' },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'network',
    calls: 2,
  },
  {
    why: 'truncated JSON',
    behaviour: { kind: 'truncated' },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'network',
    calls: 2,
  },
  {
    why: 'IMAGE_SAFETY',
    behaviour: { kind: 'finish', reason: 'IMAGE_SAFETY' },
    status: 422,
    code: 'CONTENT_BLOCKED',
    kind: 'blocked',
    calls: 1,
  },
  {
    why: 'a blocked prompt',
    behaviour: { kind: 'promptBlocked', reason: 'PROHIBITED_CONTENT' },
    status: 422,
    code: 'CONTENT_BLOCKED',
    kind: 'blocked',
    calls: 1,
  },
  {
    why: 'text instead of an image',
    behaviour: { kind: 'textOnly' },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'no_image',
    calls: 2,
  },
  {
    why: 'no candidates',
    behaviour: { kind: 'noCandidates' },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'no_image',
    calls: 2,
  },
  {
    why: 'bytes that are no image',
    behaviour: { kind: 'raw', status: 200, body: NOT_AN_IMAGE },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'no_image',
    calls: 1,
    costMicroUsd: 39_000,
  },
  {
    why: 'an invalid key',
    behaviour: { kind: 'invalidKey' },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'auth',
    calls: 1,
  },
  {
    why: 'a refused request',
    behaviour: { kind: 'status', status: 400 },
    status: 502,
    code: 'PROVIDER_ERROR',
    kind: 'bad_request',
    calls: 1,
  },
]

describe('POST /api/process-image with Gemini', () => {
  test('gives the picture Gemini made, its model and its cost', async () => {
    stub.behave({ kind: 'ok' })
    const { status, json } = await processImage(app, user)
    expect(status).toBe(200)
    expect(json).toMatchObject({
      provider: 'gemini',
      model: 'gemini-2.5-flash-image',
      // (40 + 258) × 0.3 and 1290 × 30 micro-dollars, rounded up.
      cost: 0.03879,
      usage: { tokens: 0, trial: true },
    })
    expect((await sharp(Buffer.from(json.result, 'base64')).metadata()).format).toBe('png')
    expect(stub.requests).toHaveLength(1)
    expect((await usageRows(user.id))[0]).toMatchObject({
      provider: 'gemini',
      cost_micro_usd: 38_790,
      response_status: 'success',
    })
  })

  test.each(FAILURES)(
    '$why becomes $code and costs the user nothing',
    async ({ behaviour, status, code, kind, calls, costMicroUsd }) => {
      expectErrorsInLog()
      stub.behave(behaviour)
      const before = await balanceOf(app, user)
      const reply = await processImage(app, user)
      expect(reply.json).toMatchObject({ error: { code } })
      expect(reply.status).toBe(status)
      expect(reply.json.error.details.attempts.at(-1)).toMatchObject({ provider: 'gemini', kind })
      expect(stub.requests).toHaveLength(calls)
      expect(await balanceOf(app, user)).toEqual(before)
      const rows = await usageRows(user.id)
      expect(rows).toHaveLength(1)
      expect(rows[0]).toMatchObject({
        tokens_used: 0,
        response_status: status === 504 ? 'timeout' : 'error',
        error_code: code,
        provider: 'gemini',
      })
      if (costMicroUsd !== undefined) expect(rows[0]?.cost_micro_usd).toBe(costMicroUsd)
      expect(await ledgerViolations()).toEqual([])
    },
  )
  test('says over the event stream what failed, and keeps nothing of it', async () => {
    expectErrorsInLog()
    stub.behave({ kind: 'status', status: 503 })
    const key = crypto.randomUUID()
    const headers = { accept: 'text/event-stream', 'idempotency-key': key }
    const failed = await processImage(app, user, { headers })
    expect(failed.status).toBe(200)
    expect(failed.bytes.toString()).toMatch(/event: error\ndata: {"error":{"code":"PROVIDER_ERROR"/)
    stub.behave({ kind: 'ok' })
    const retried = await processImage(app, user, { headers })
    expect(retried.bytes.toString()).toMatch(/event: done\ndata: {"result":/)
    expect((await balanceOf(app, user)).trialGenerations).toBe(2)
  })

  test('takes the last of several images, and gives the asked format whatever came', async () => {
    stub.behave({ kind: 'drafts' })
    expect((await processImage(app, user)).json).toMatchObject({ width: 20, height: 20 })
    stub.behave({ kind: 'ok', format: 'jpeg', mimeType: 'image/png' })
    const { json } = await processImage(app, user)
    expect(json.mimeType).toBe('image/png')
    expect((await sharp(Buffer.from(json.result, 'base64')).metadata()).format).toBe('png')
  })

  test('sends no metadata of the photo, and none comes back', async () => {
    expect(photo('portrait-with-gps').includes('Exif')).toBe(true)
    stub.behave({ kind: 'echo' })
    const { bytes } = await processImage(app, user, {
      image: photo('portrait-with-gps'),
      query: '?format=jpeg',
      headers: { accept: 'image/jpeg' },
    })
    const sent = stub.requests[0]?.images[0]?.bytes ?? Buffer.alloc(0)
    for (const image of [sent, bytes]) {
      const { exif, width, height } = await sharp(image).metadata()
      expect(exif).toBeUndefined()
      expect(height).toBeGreaterThan(width)
    }
  })

  test('moves to the successor when a model is gone, and remembers', async () => {
    stub.behave({ kind: 'modelGone', models: ['gemini-2.5-flash-image'] })
    for (const calls of [2, 1]) {
      stub.requests.length = 0
      const { json } = await processImage(app, user)
      expect(json.model).toBe('gemini-nano-banana-2.1')
      expect(stub.requests).toHaveLength(calls)
    }
  })
  test('says so when every model is gone, and asks the first again next time', async () => {
    expectErrorsInLog()
    stub.behave({ kind: 'modelGone' })
    const { status, json } = await processImage(app, user)
    expect(status).toBe(502)
    expect(json.error.details.attempts).toMatchObject([{ provider: 'gemini', kind: 'model_gone' }])
    stub.behave({ kind: 'ok' })
    expect((await processImage(app, user)).json.model).toBe('gemini-2.5-flash-image')
  })
})
