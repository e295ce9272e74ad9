// The Anthropic adapter against a loopback Anthropic.
import sharp from 'sharp'
import { describe, expect, test } from 'vitest'
import { anthropic } from '../../../lib/ai/anthropic.ts'
import type { ModelRequest, Quality } from '../../../lib/ai/provider.ts'
import { config } from '../../../lib/config.ts'
import { checkResult } from '../../../lib/image.ts'
import { IMAGE_REQUEST, PROMPT, SOURCE, testAdapter } from '../../support/adapter.ts'

const WORDS: ModelRequest = { ...IMAGE_REQUEST, task: 'image->text' }
const DRAFT: Partial<ModelRequest> = { task: 'image->image', quality: 'draft' }
const adapter = testAdapter(anthropic, 'anthropic', WORDS)
const { run, failure, behave, sent } = adapter

const MODEL = 'claude-haiku-5-5'
const WRITTEN = 'A grey picture of fine noise.'
/** Expected of a caption: (400 + 1446) × 0.1 + (500 + 400) × 0.5, rounded up; of a draft with 8000 tokens of SVG. */
const EXPECTED = 635
const EXPECTED_DRAFT = 4385
/** Billed by the stub: (1446 + 10) × 0.1 + 90 × 0.5; and of a drawing of 700 tokens. */
const BILLED = 191
const BILLED_DRAFT = 496

const said = (text: string, more: object = {}) => ({
  kind: 'raw' as const,
  body: JSON.stringify({
    content: [{ type: 'text', text }],
    stop_reason: 'end_turn',
    usage: { input_tokens: 1000, output_tokens: 100 },
    ...more,
  }),
})

describe('words', () => {
  test.each<Quality>(['draft', 'standard', 'high'])('about a picture, in quality %s', async (quality) => {
    const reply = await run({ quality })
    expect(reply).toEqual({ output: { text: WRITTEN }, model: MODEL, costMicroUsd: BILLED })
    expect(sent()).toEqual([
      {
        path: '/v1/messages',
        key: 'test-key',
        model: MODEL,
        prompt: PROMPT,
        fields: { max_tokens: 2000 },
        images: [{ name: 'image', mimeType: 'image/png', bytes: SOURCE }],
        abandoned: false,
      },
    ])
  })

  test('about words, without a picture', async () => {
    const reply = await run({ task: 'text->text', image: undefined })
    // 10 × 0.1 + 90 × 0.5.
    expect(reply).toMatchObject({ output: { text: WRITTEN }, costMicroUsd: 46 })
    expect(sent()[0]?.images).toEqual([])
  })

  test('are all text parts of the reply, trimmed; thoughts are none of them', async () => {
    const parts = [
      { type: 'thinking', thinking: 'Hm.' },
      { type: 'text', text: ' One, ' },
      { type: 'text', text: 'two. ' },
    ]
    behave(said('', { content: parts }))
    expect((await run()).output).toEqual({ text: 'One, two.' })
  })

  test('cost what cached input does in full', async () => {
    const usage = {
      input_tokens: 1000,
      cache_creation_input_tokens: 2000,
      cache_read_input_tokens: 4000,
      output_tokens: 20,
    }
    behave(said('Words.', { usage }))
    expect((await run()).costMicroUsd).toBe(7000 * 0.1 + 20 * 0.5)
  })

  test('cost what of their tokens is told', async () => {
    behave(said('Words.', { usage: { output_tokens: 20 } }))
    expect((await run()).costMicroUsd).toBe(10)
  })

  test.each([undefined, {}, { input_tokens: 100 }, { input_tokens: 100, output_tokens: 0 }, { output_tokens: -1 }])(
    'cost what is expected when no usage has them: %j',
    async (usage) => {
      behave(said('Words.', { usage }))
      expect((await run()).costMicroUsd).toBe(EXPECTED)
    },
  )

  test('are held to what the dearest model of the list would cost', () => {
    // claude-haiku-4-5: (400 + 1434) × 1 + 500 × 5.
    expect(anthropic.ceilingMicroUsd(WORDS)).toBe(4334)
  })
})

describe('a picture', () => {
  test('is missing: nothing is sent', async () => {
    expect(await failure({ image: undefined })).toMatchObject({ kind: 'bad_request' })
    expect(sent()).toHaveLength(0)
  })

  test('beyond the size of the API is scaled down', async () => {
    const bytes = await sharp({ create: { width: 8100, height: 810, channels: 3, background: '#888' } })
      .png()
      .toBuffer()
    await run({ image: { bytes, format: 'png', width: 8100, height: 810 } })
    const [image] = sent()[0]?.images ?? []
    expect(image?.mimeType).toBe('image/jpeg')
    expect(await checkResult(image?.bytes ?? Buffer.alloc(0))).toEqual({ format: 'jpeg', width: 1568, height: 157 })
  })

  test.each([
    [3, 'image/jpeg'],
    [4, 'image/webp'],
  ] as const)('beyond the bytes of the API is made smaller, with %i channels as %s', async (channels, mimeType) => {
    const noise = { type: 'gaussian', mean: 128, sigma: 60 } as const
    const bytes = await sharp({ create: { width: 1300, height: 1000, channels, background: '#8888', noise } })
      .png({ compressionLevel: 0 })
      .toBuffer()
    expect(bytes.length).toBeGreaterThan(3_700_000)
    await run({ image: { bytes, format: 'png', width: 1300, height: 1000 } })
    const [image] = sent()[0]?.images ?? []
    expect(image?.mimeType).toBe(mimeType)
    expect(await checkResult(image?.bytes ?? Buffer.alloc(0))).toMatchObject({ width: 1300, height: 1000 })
  })

  test('that cannot be scaled down is refused', async () => {
    const image = { bytes: Buffer.from('\x89PNG no picture'), format: 'png', width: 9000, height: 10 } as const
    expect(await failure({ image })).toMatchObject({
      kind: 'bad_request',
      message: 'The picture could not be made smaller.',
      costMicroUsd: 0,
    })
    expect(sent()).toHaveLength(0)
  })
})

describe('a draft', () => {
  test('is asked for as SVG of the proportions of the picture, and comes as PNG', async () => {
    const { output, ...reply } = await run(DRAFT)
    expect(reply).toEqual({ model: MODEL, costMicroUsd: BILLED_DRAFT })
    expect(sent()).toMatchObject([
      {
        prompt: PROMPT,
        fields: { max_tokens: 8192, system: expect.stringContaining('viewBox="0 0 1024 683"') },
        images: [{ mimeType: 'image/png', bytes: SOURCE }],
      },
    ])
    const bytes = 'bytes' in output ? output.bytes : Buffer.alloc(0)
    expect(await checkResult(bytes)).toEqual({ format: 'png', width: 1024, height: 683 })
    const { channels, isOpaque } = await sharp(bytes).stats()
    // Mostly white, with black lines in it.
    expect({ isOpaque, darkest: channels[0]?.min, lightest: channels[0]?.max }).toEqual({
      isOpaque: true,
      darkest: 0,
      lightest: 255,
    })
    expect(channels[0]?.mean).toBeGreaterThan(235)
    expect(channels[0]?.mean).toBeLessThan(252)
  })

  test.each([
    [100, 400, 256, 1024],
    [4000, 1, 1024, 1],
    [300, 300, 1024, 1024],
  ])('of %i × %i pixels is %i × %i', async (width, height, drawnWidth, drawnHeight) => {
    const bytes = await sharp({ create: { width, height, channels: 3, background: '#888' } })
      .png()
      .toBuffer()
    const { output } = await run({ ...DRAFT, image: { bytes, format: 'png', width, height } })
    const drawn = 'bytes' in output ? output.bytes : Buffer.alloc(0)
    expect(await checkResult(drawn)).toEqual({ format: 'png', width: drawnWidth, height: drawnHeight })
  })

  test('is held to what its tokens would cost with the dearest model of the list', () => {
    // claude-haiku-4-5: (400 + 1434) × 1 + 8000 × 5.
    expect(anthropic.ceilingMicroUsd({ task: 'image->image', quality: 'draft' })).toBe(41_834)
  })
})

describe('a failure is named', () => {
  const unfinished = said('<svg viewBox="0 0 9 9"><path d="M1 1h4"/></svg>', { stop_reason: 'max_tokens' })
  adapter.failures([
    { behaviour: { kind: 'status', status: 400 }, kind: 'bad_request' },
    { behaviour: { kind: 'status', status: 401 }, kind: 'auth' },
    { behaviour: { kind: 'status', status: 402 }, kind: 'auth', message: 'Anthropic asks for payment.' },
    { behaviour: { kind: 'status', status: 403 }, kind: 'auth' },
    { behaviour: { kind: 'status', status: 413 }, kind: 'bad_request' },
    { behaviour: { kind: 'status', status: 500 }, kind: 'overloaded' },
    { behaviour: { kind: 'status', status: 503 }, kind: 'overloaded' },
    { behaviour: { kind: 'status', status: 504 }, kind: 'overloaded' },
    {
      behaviour: { kind: 'status', status: 529 },
      kind: 'overloaded',
      message: 'Anthropic is overloaded or down (529).',
    },
    { behaviour: { kind: 'html502' }, kind: 'overloaded' },
    { behaviour: { kind: 'raw', status: 404, body: '<h1>Not here</h1>' }, kind: 'bad_request' },
    { behaviour: { kind: 'rateLimited' }, kind: 'rate_limited' },
    { behaviour: { kind: 'rateLimited', retryAfterMs: 12_000 }, kind: 'rate_limited', retryAfterMs: 12_000 },
    { behaviour: { kind: 'quotaSpent' }, kind: 'auth' },
    { behaviour: { kind: 'blocked' }, kind: 'blocked', message: 'Anthropic refused the content.', costMicroUsd: 147 },
    { behaviour: { kind: 'blocked' }, request: DRAFT, kind: 'blocked', costMicroUsd: 147 },
    {
      behaviour: { kind: 'noImage' },
      kind: 'no_image',
      message: 'Anthropic answered without a word.',
      costMicroUsd: BILLED,
    },
    {
      behaviour: { kind: 'noImage' },
      request: DRAFT,
      kind: 'no_image',
      message: 'Anthropic answered without a drawing.',
      costMicroUsd: BILLED,
    },
    { behaviour: { kind: 'notAnImage' }, request: DRAFT, kind: 'no_image', costMicroUsd: BILLED_DRAFT },
    {
      behaviour: unfinished,
      request: DRAFT,
      kind: 'no_image',
      message: "Anthropic's drawing was not finished.",
      costMicroUsd: 150,
    },
    {
      behaviour: said('A picture of', { stop_reason: 'max_tokens' }),
      kind: 'no_image',
      message: "Anthropic's answer was not finished.",
      costMicroUsd: 150,
    },
    {
      behaviour: {
        kind: 'raw',
        status: 400,
        body: '{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}',
      },
      kind: 'auth',
      message: "Anthropic's credit is used up.",
    },
    { behaviour: { kind: 'truncated' }, kind: 'network', costMicroUsd: EXPECTED },
    { behaviour: { kind: 'truncated' }, request: DRAFT, kind: 'network', costMicroUsd: EXPECTED_DRAFT },
    { behaviour: { kind: 'reset' }, kind: 'network', costMicroUsd: EXPECTED },
    { behaviour: { kind: 'oversized' }, kind: 'no_image', costMicroUsd: EXPECTED },
    { behaviour: { kind: 'raw', body: 'null' }, kind: 'network', costMicroUsd: EXPECTED },
    { behaviour: { kind: 'raw', body: '{"content":"words"}' }, kind: 'network', costMicroUsd: EXPECTED },
    { behaviour: { kind: 'raw', body: '{}' }, kind: 'no_image', costMicroUsd: EXPECTED },
    { behaviour: { kind: 'raw', body: '<html>Welcome</html>', contentType: 'text/html' }, kind: 'network' },
  ])
})

describe('time', () => {
  adapter.timeIsKept(EXPECTED)
})

describe('models', () => {
  const signal = new AbortController().signal
  const settings = (variables: Record<string, string>) =>
    adapter.fresh({ ANTHROPIC_API_KEY: 'test-key', ANTHROPIC_BASE_URL: adapter.url(), ...variables })

  test('that are gone make room for their successors, and are remembered', async () => {
    const provider = await settings({})
    const { model, successors } = config().ai.providers.anthropic
    behave({ kind: 'modelGone', models: [model] })
    // (1446 + 10) × 1 + 90 × 5 at the successor's rates.
    expect(await provider.run(WORDS, { signal })).toMatchObject({ model: successors[0], costMicroUsd: 1906 })
    expect(await provider.run({ ...WORDS, ...DRAFT }, { signal })).toMatchObject({ model: successors[0] })
    expect(sent().map((request) => request.model)).toEqual([model, successors[0], successors[0]])
  })

  test('that are all gone fail as model_gone', async () => {
    const provider = await settings({})
    behave({ kind: 'modelGone' })
    await expect(provider.run(WORDS, { signal })).rejects.toMatchObject({ kind: 'model_gone' })
    expect(sent()).toHaveLength(2)
  })

  test('with the name of the past are the living ones', async () => {
    const provider = await settings({ FORK__AI__PROVIDERS__ANTHROPIC__MODEL: 'claude-3-sonnet' })
    expect(await provider.run(WORDS, { signal })).toMatchObject({ model: 'claude-sonnet-5' })
  })

  test.each(['/', '/v1', '/v1/'])('are asked under a base URL that ends in %s', async (ending) => {
    const provider = await settings({ ANTHROPIC_BASE_URL: adapter.url() + ending })
    await provider.run(WORDS, { signal })
    expect(sent()).toHaveLength(1)
  })
})

describe('the address', () => {
  adapter.address('https://api.anthropic.com/v1/messages')
})

describe('availability', () => {
  adapter.availability(['jpeg', 'png', 'webp', 'gif'])
})
