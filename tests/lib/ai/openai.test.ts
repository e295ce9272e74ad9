// The OpenAI adapter against a loopback OpenAI.
import { describe, expect, test } from 'vitest'
import { openai } from '../../../lib/ai/openai.ts'
import type { ModelRequest, Quality } from '../../../lib/ai/provider.ts'
import { checkResult } from '../../../lib/image.ts'
import { IMAGE_REQUEST, PROMPT, SOURCE, testAdapter } from '../../support/adapter.ts'
import { noisePng } from '../../support/gemini-replies.ts'

const adapter = testAdapter(openai, 'openai', IMAGE_REQUEST)
const { run, failure, behave, sent } = adapter

const MODEL = 'gpt-image-2.5-flare'
const WORDS: Partial<ModelRequest> = { task: 'image->text' }
const WRITTEN = 'A grey picture of fine noise.'
/** Expected of an edit in standard quality: 400 × 5 + 1500 × 8 + 659 × 30. */
const EXPECTED_EDIT = 33_770
/** What the stub bills for one: 10 × 5 + 1024 × 8 + 659 × 30. */
const BILLED_EDIT = 28_012
/** Expected of a caption: (400 + 1659) × 0.4 + 500 × 1.6, rounded up. */
const EXPECTED_CAPTION = 1624
/** Billed for one: (10 + 765) × 0.4 + 60 × 1.6. */
const BILLED_CAPTION = 406

const bytesOf = ({ output }: Awaited<ReturnType<typeof run>>) => ('bytes' in output ? output.bytes : Buffer.alloc(0))

describe('a picture made of another', () => {
  test.each<[Quality, string, number]>([
    ['draft', 'low', 17_062],
    ['standard', 'medium', BILLED_EDIT],
    ['high', 'high', 87_262],
  ])('in quality %s is asked for as %s and costs what its tokens do', async (quality, asked, costMicroUsd) => {
    const reply = await run({ quality })
    expect(sent()).toEqual([
      {
        path: '/v1/images/edits',
        key: 'test-key',
        model: MODEL,
        prompt: PROMPT,
        fields: { quality: asked, size: '1536x1024', output_format: 'png', background: 'auto' },
        images: [{ name: 'image[]', mimeType: 'image/png', bytes: SOURCE }],
        abandoned: false,
      },
    ])
    expect(reply).toMatchObject({ model: MODEL, costMicroUsd })
    expect(await checkResult(bytesOf(reply))).toEqual({ format: 'png', width: 64, height: 43 })
  })

  test.each([
    [96, 96, '1024x1024'],
    [120, 100, '1024x1024'],
    [125, 100, '1536x1024'],
    [400, 100, '1536x1024'],
    [100, 121, '1024x1024'],
    [100, 125, '1024x1536'],
  ])('of %i × %i pixels has the size %s', async (width, height, size) => {
    await run({ image: { bytes: noisePng(width, height), format: 'png', width, height } })
    expect(sent()[0]?.fields.size).toBe(size)
  })

  test('is sent as what it is', async () => {
    const bytes = await (await import('sharp')).default(SOURCE).jpeg().toBuffer()
    await run({ image: { bytes, format: 'jpeg', width: 96, height: 64 } })
    expect(sent()[0]?.images).toEqual([{ name: 'image[]', mimeType: 'image/jpeg', bytes }])
  })

  test('is missing: nothing is sent', async () => {
    expect(await failure({ image: undefined })).toMatchObject({ kind: 'bad_request' })
    expect(sent()).toHaveLength(0)
  })

  test('is what its bytes are, whatever the reply says', async () => {
    behave({ kind: 'wrongMime' })
    expect(await checkResult(bytesOf(await run()))).toMatchObject({ format: 'jpeg' })
  })
})

describe('other work', () => {
  test('a background is removed by an edit with a transparent one', async () => {
    await run({ task: 'remove-background' })
    expect(sent()[0]).toMatchObject({ path: '/v1/images/edits', prompt: PROMPT, fields: { background: 'transparent' } })
  })

  test('a background is removed without a prompt', async () => {
    await run({ task: 'remove-background', prompt: '' })
    expect(sent()[0]?.prompt).toMatch(/background/)
  })

  test('a picture is made from words alone, square', async () => {
    const reply = await run({ task: 'text->image', image: undefined })
    expect(sent()).toMatchObject([
      {
        path: '/v1/images/generations',
        model: MODEL,
        prompt: PROMPT,
        fields: { quality: 'medium', size: '1024x1024' },
      },
    ])
    // 10 × 5 + 439 × 30.
    expect(reply.costMicroUsd).toBe(13_220)
    expect(await checkResult(bytesOf(reply))).toEqual({ format: 'png', width: 64, height: 64 })
  })

  test.each<[Quality, string]>([
    ['draft', 'low'],
    ['standard', 'auto'],
    ['high', 'high'],
  ])('words about a picture in quality %s look at it in detail %s', async (quality, detail) => {
    const reply = await run({ ...WORDS, quality })
    expect(reply).toEqual({ output: { text: WRITTEN }, model: 'gpt-4.1-mini', costMicroUsd: BILLED_CAPTION })
    expect(sent()).toEqual([
      {
        path: '/v1/chat/completions',
        key: 'test-key',
        model: 'gpt-4.1-mini',
        prompt: PROMPT,
        fields: { max_completion_tokens: 2000, detail },
        images: [{ name: 'image_url', mimeType: 'image/png', bytes: SOURCE }],
        abandoned: false,
      },
    ])
  })

  test('words about words show no picture', async () => {
    const reply = await run({ task: 'text->text', image: undefined })
    // 10 × 0.4 + 60 × 1.6.
    expect(reply).toMatchObject({ output: { text: WRITTEN }, costMicroUsd: 100 })
    expect(sent()[0]?.images).toEqual([])
  })
})

describe('a failure is named', () => {
  const failed = (status: number, error: object) => ({
    kind: 'raw' as const,
    status,
    body: JSON.stringify({ error: { message: 'No.', type: null, param: null, code: null, ...error } }),
  })
  adapter.failures([
    { behaviour: { kind: 'status', status: 400 }, kind: 'bad_request', message: 'OpenAI refused the request (400).' },
    { behaviour: { kind: 'status', status: 401 }, kind: 'auth', message: 'OpenAI refused the API key (401).' },
    { behaviour: { kind: 'status', status: 403 }, kind: 'auth' },
    { behaviour: { kind: 'status', status: 408 }, kind: 'overloaded' },
    { behaviour: { kind: 'status', status: 409 }, kind: 'overloaded' },
    { behaviour: { kind: 'status', status: 500 }, kind: 'overloaded' },
    { behaviour: { kind: 'status', status: 503 }, kind: 'overloaded', message: 'OpenAI is overloaded or down (503).' },
    { behaviour: { kind: 'status', status: 529 }, kind: 'overloaded' },
    { behaviour: { kind: 'html502' }, kind: 'overloaded' },
    { behaviour: { kind: 'rateLimited' }, kind: 'rate_limited', message: 'OpenAI is at its rate limit.' },
    { behaviour: { kind: 'rateLimited', retryAfterMs: 1250 }, kind: 'rate_limited', retryAfterMs: 1250 },
    { behaviour: { kind: 'quotaSpent' }, kind: 'auth', message: "OpenAI's quota is used up." },
    {
      behaviour: failed(400, { code: 'billing_hard_limit_reached', type: 'billing_limit_user_error' }),
      kind: 'auth',
      message: "OpenAI's quota is used up.",
    },
    { behaviour: { kind: 'blocked' }, kind: 'blocked', message: 'OpenAI refused the content.' },
    { behaviour: failed(400, { code: 'content_policy_violation' }), kind: 'blocked' },
    { behaviour: failed(400, { code: 'content_filter' }), kind: 'blocked' },
    { behaviour: failed(400, { code: 'invalid_value', param: 'size' }), kind: 'bad_request' },
    { behaviour: failed(404, {}), kind: 'bad_request' },
    { behaviour: failed(422, { param: 'model' }), kind: 'bad_request' },
    { behaviour: { kind: 'raw', status: 301, body: '' }, kind: 'bad_request' },
    { behaviour: { kind: 'raw', status: 204, body: '' }, kind: 'bad_request' },
    { behaviour: { kind: 'raw', status: 400, body: '{"error":"no"}' }, kind: 'bad_request' },
    { behaviour: { kind: 'noImage' }, kind: 'no_image', costMicroUsd: BILLED_EDIT },
    { behaviour: { kind: 'noImage' }, request: WORDS, kind: 'no_image', costMicroUsd: BILLED_CAPTION },
    { behaviour: { kind: 'blocked' }, request: WORDS, kind: 'blocked', costMicroUsd: BILLED_CAPTION },
    { behaviour: { kind: 'truncated' }, kind: 'network', costMicroUsd: EXPECTED_EDIT },
    { behaviour: { kind: 'truncated' }, request: WORDS, kind: 'network', costMicroUsd: EXPECTED_CAPTION },
    {
      behaviour: { kind: 'reset' },
      kind: 'network',
      message: "OpenAI's reply broke off.",
      costMicroUsd: EXPECTED_EDIT,
    },
    { behaviour: { kind: 'oversized' }, kind: 'no_image', costMicroUsd: EXPECTED_EDIT },
    { behaviour: { kind: 'raw', body: 'null' }, kind: 'network', costMicroUsd: EXPECTED_EDIT },
    { behaviour: { kind: 'raw', body: '{"data":"none"}' }, kind: 'network', costMicroUsd: EXPECTED_EDIT },
    { behaviour: { kind: 'raw', body: '<html>Welcome</html>', contentType: 'text/html' }, kind: 'network' },
    { behaviour: { kind: 'raw', body: 'null' }, request: WORDS, kind: 'network', costMicroUsd: EXPECTED_CAPTION },
    {
      behaviour: { kind: 'raw', body: '{"choices":[]}' },
      request: WORDS,
      kind: 'no_image',
      costMicroUsd: EXPECTED_CAPTION,
    },
    {
      behaviour: {
        kind: 'raw',
        body: '{"choices":[{"message":{"refusal":"I will not."}}],"usage":{"prompt_tokens":10}}',
      },
      request: WORDS,
      kind: 'blocked',
      costMicroUsd: EXPECTED_CAPTION,
    },
    {
      behaviour: {
        kind: 'raw',
        body: '{"choices":[{"finish_reason":"length","message":{"content":"A picture of"}}],"usage":{"prompt_tokens":10,"completion_tokens":2000}}',
      },
      request: WORDS,
      kind: 'no_image',
      message: "OpenAI's answer was not finished.",
      // 10 × 0.4 + 2000 × 1.6.
      costMicroUsd: 3204,
    },
  ])

  test('hangs up on an answer without end', async () => {
    behave({ kind: 'oversized' })
    expect((await failure()).message).toBe("OpenAI's reply has no end.")
    await expect.poll(() => sent()[0]?.abandoned, { timeout: 10_000 }).toBe(true)
  })
})

describe('time', () => {
  adapter.timeIsKept(EXPECTED_EDIT)
})

describe('the address', () => {
  adapter.address('https://api.openai.com/v1/images/edits')
})

describe('availability', () => {
  adapter.availability(['jpeg', 'png', 'webp'])
})
