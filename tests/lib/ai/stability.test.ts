// The Stability AI adapter against a loopback Stability AI.
import sharp from 'sharp'
import { describe, expect, test } from 'vitest'
import type { ModelRequest } from '../../../lib/ai/provider.ts'
import { stability } from '../../../lib/ai/stability.ts'
import { checkResult } from '../../../lib/image.ts'
import { IMAGE_REQUEST, PROMPT, SOURCE, testAdapter } from '../../support/adapter.ts'

const adapter = testAdapter(stability, 'stability', IMAGE_REQUEST)
const { run, failure, behave, sent } = adapter
const FROM_WORDS: Partial<ModelRequest> = { task: 'text->image', image: undefined }
const IMAGE = { name: 'image', mimeType: 'image/png', bytes: SOURCE }

const bytesOf = ({ output }: Awaited<ReturnType<typeof run>>) => ('bytes' in output ? output.bytes : Buffer.alloc(0))

async function plain(width: number, height: number) {
  const bytes = await sharp({ create: { width, height, channels: 3, background: '#888' } })
    .png()
    .toBuffer()
  return { bytes, format: 'png', width, height } as const
}

describe('a picture', () => {
  test.each([
    {
      request: {},
      path: 'control/structure',
      model: 'control-structure',
      prompt: PROMPT,
      fields: { control_strength: 0.7, output_format: 'png' },
      images: [IMAGE],
      costMicroUsd: 50_000,
    },
    {
      request: { task: 'remove-background', quality: 'draft' } as const,
      path: 'edit/remove-background',
      model: 'remove-background',
      prompt: '',
      fields: { output_format: 'png' },
      images: [IMAGE],
      costMicroUsd: 50_000,
    },
    {
      request: FROM_WORDS,
      path: 'generate/core',
      model: 'core',
      prompt: PROMPT,
      fields: { output_format: 'png' },
      images: [],
      costMicroUsd: 30_000,
    },
  ])('by $path', async ({ request, path, model, prompt, fields, images, costMicroUsd }) => {
    const reply = await run(request)
    expect(reply).toMatchObject({ model, costMicroUsd })
    expect(await checkResult(bytesOf(reply))).toEqual({ format: 'png', width: 64, height: 64 })
    expect(sent()).toEqual([
      { path: `/v2beta/stable-image/${path}`, key: 'test-key', model, prompt, fields, images, abandoned: false },
    ])
    expect(stability.ceilingMicroUsd({ ...IMAGE_REQUEST, ...request })).toBe(costMicroUsd)
  })

  test('is what its bytes are, whatever the reply says', async () => {
    behave({ kind: 'wrongMime' })
    expect(await checkResult(bytesOf(await run()))).toMatchObject({ format: 'jpeg' })
  })
})

describe('the source', () => {
  test('is missing: nothing is sent', async () => {
    expect(await failure({ image: undefined })).toMatchObject({ kind: 'bad_request', message: 'There is no picture.' })
    expect(sent()).toHaveLength(0)
  })

  test.each([
    ['image->image', 4000, 2400, 3072, 1843],
    ['remove-background', 2100, 2000, 2048, 1950],
  ] as const)('of %s with more pixels than the API takes is scaled down', async (task, width, height, ...size) => {
    await run({ task, image: await plain(width, height) })
    const [image] = sent()[0]?.images ?? []
    const sentSize = await checkResult(image?.bytes ?? Buffer.alloc(0))
    expect(sentSize).toEqual({ format: 'jpeg', width: size[0], height: size[1] })
  })

  test('of more bytes than the API takes is made smaller', async () => {
    const noise = { type: 'gaussian', mean: 128, sigma: 60 } as const
    const bytes = await sharp({ create: { width: 2000, height: 1800, channels: 3, background: '#888', noise } })
      .png({ compressionLevel: 0 })
      .toBuffer()
    expect(bytes.length).toBeGreaterThan(10 * 1024 * 1024)
    await run({ image: { bytes, format: 'png', width: 2000, height: 1800 } })
    expect(sent()[0]?.images[0]?.mimeType).toBe('image/jpeg')
  })

  test.each([
    ['image->image', 3072, 3072],
    ['remove-background', 2048, 2048],
  ] as const)('of %s with as many is sent as it is', async (task, width, height) => {
    const image = await plain(width, height)
    await run({ task, image })
    expect(sent()[0]?.images[0]?.bytes.equals(image.bytes)).toBe(true)
  })

  test.each([
    [64, 64],
    [160, 64],
    [64, 160],
  ])('of %i × %i pixels is sent as it is', async (width, height) => {
    const image = await plain(width, height)
    await run({ image })
    expect(sent()[0]?.images[0]?.bytes.equals(image.bytes)).toBe(true)
  })

  test.each([
    [63, 100, /at least 64 pixels/],
    [100, 63, /at least 64 pixels/],
    [161, 64, /2.5 times/],
    [64, 161, /2.5 times/],
  ])('of %i × %i pixels is refused here, with the reason', async (width, height, message) => {
    const error = await failure({ image: await plain(width, height) })
    expect(error).toMatchObject({ kind: 'bad_request', message: expect.stringMatching(message), costMicroUsd: 0 })
    expect(sent()).toHaveLength(0)
  })

  test('may be of any proportions where a background is removed', async () => {
    await run({ task: 'remove-background', image: await plain(200, 64) })
    expect(sent()).toHaveLength(1)
  })
})

describe('the prompt', () => {
  test('may be as long as the API says', async () => {
    await run({ prompt: 'x'.repeat(10_000) })
    expect(sent()[0]?.prompt).toHaveLength(10_000)
  })

  test('beyond that is refused here', async () => {
    expect(await failure({ prompt: 'x'.repeat(10_001) })).toMatchObject({
      kind: 'bad_request',
      message: 'Stability AI takes prompts of at most 10000 characters.',
    })
    expect(sent()).toHaveLength(0)
  })

  test('does not matter where a background is removed', async () => {
    await run({ task: 'remove-background', prompt: 'x'.repeat(10_001) })
    expect(sent()).toHaveLength(1)
  })
})

describe('a failure is named', () => {
  const named = (status: number, name: string) => ({
    kind: 'raw' as const,
    status,
    body: JSON.stringify({ id: 'x', name, errors: ['No.'] }),
  })
  adapter.failures([
    { behaviour: { kind: 'status', status: 400 }, kind: 'bad_request' },
    { behaviour: { kind: 'status', status: 401 }, kind: 'auth' },
    { behaviour: { kind: 'status', status: 402 }, kind: 'auth', message: 'Stability AI asks for payment.' },
    { behaviour: { kind: 'status', status: 403 }, kind: 'auth' },
    { behaviour: named(403, 'content_moderation'), kind: 'blocked', message: 'Stability AI refused the content.' },
    { behaviour: { kind: 'status', status: 413 }, kind: 'bad_request' },
    { behaviour: { kind: 'status', status: 422 }, kind: 'bad_request' },
    { behaviour: { kind: 'status', status: 500 }, kind: 'overloaded' },
    { behaviour: { kind: 'status', status: 503 }, kind: 'overloaded' },
    { behaviour: { kind: 'html502' }, kind: 'overloaded' },
    { behaviour: { kind: 'raw', status: 404, body: '<h1>Not here</h1>' }, kind: 'bad_request' },
    { behaviour: { kind: 'rateLimited' }, kind: 'rate_limited' },
    { behaviour: { kind: 'rateLimited', retryAfterMs: 60_000 }, kind: 'rate_limited', retryAfterMs: 60_000 },
    { behaviour: { kind: 'quotaSpent' }, kind: 'auth' },
    { behaviour: { kind: 'blocked' }, kind: 'blocked', costMicroUsd: 50_000 },
    { behaviour: { kind: 'blocked' }, request: FROM_WORDS, kind: 'blocked', costMicroUsd: 30_000 },
    { behaviour: { kind: 'noImage' }, kind: 'no_image', costMicroUsd: 50_000 },
    { behaviour: { kind: 'raw', body: '{"image":"AAAA"}' }, kind: 'no_image' },
    { behaviour: { kind: 'raw', body: '<html>Welcome</html>', contentType: 'text/html' }, kind: 'no_image' },
    { behaviour: { kind: 'reset' }, kind: 'network', costMicroUsd: 50_000 },
    { behaviour: { kind: 'oversized' }, kind: 'no_image', costMicroUsd: 50_000 },
  ])
})

describe('time', () => {
  adapter.timeIsKept(50_000)
})

describe('models', () => {
  const signal = new AbortController().signal
  const settings = (variables: Record<string, string>) =>
    adapter.fresh({
      STABILITY_API_KEY: 'test-key',
      STABILITY_BASE_URL: adapter.url(),
      FORK__AI__PROVIDERS__STABILITY__MODEL: 'control-structure',
      FORK__AI__PROVIDERS__STABILITY__SUCCESSORS: '[]',
      ...variables,
    })
  const model = (name: string, successors = '[]') =>
    settings({ FORK__AI__PROVIDERS__STABILITY__MODEL: name, FORK__AI__PROVIDERS__STABILITY__SUCCESSORS: successors })

  test.each([
    ['sd3.5-large', 65_000],
    ['sd3.5-large-turbo', 40_000],
    ['sd3.5-medium', 35_000],
  ])('%s makes pictures of pictures and of words', async (name, costMicroUsd) => {
    const provider = await model(name)
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ model: name, costMicroUsd })
    expect(await provider.run({ ...IMAGE_REQUEST, ...FROM_WORDS }, { signal })).toMatchObject({
      model: name,
      costMicroUsd,
    })
    expect(sent()).toMatchObject([
      { path: '/v2beta/stable-image/generate/sd3', model: name, fields: { mode: 'image-to-image', strength: 0.6 } },
      { path: '/v2beta/stable-image/generate/sd3', model: name, fields: { mode: 'text-to-image' } },
    ])
  })

  test('that can do only the other task leave this one to the usual model', async () => {
    const provider = await model('ultra')
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ model: 'control-structure' })
    expect(await provider.run({ ...IMAGE_REQUEST, ...FROM_WORDS }, { signal })).toMatchObject({
      model: 'ultra',
      costMicroUsd: 80_000,
    })
    behave({ kind: 'modelGone' })
    await expect(provider.run(IMAGE_REQUEST, { signal })).rejects.toMatchObject({ kind: 'model_gone' })
    expect(sent()).toHaveLength(3)
  })

  test('of which one is among the successors are taken from there', async () => {
    const provider = await model('control-structure', '["ultra"]')
    expect(await provider.run({ ...IMAGE_REQUEST, ...FROM_WORDS }, { signal })).toMatchObject({ model: 'ultra' })
  })

  test('that are unknown are gone: the next one does the work, or none', async () => {
    const provider = await model('stable-doodle', '["sd3.5-medium"]')
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ model: 'sd3.5-medium' })
    const lost = await model('stable-doodle')
    await expect(lost.run(IMAGE_REQUEST, { signal })).rejects.toMatchObject({
      kind: 'model_gone',
      message: expect.stringContaining('stable-doodle'),
    })
    expect(sent()).toHaveLength(1)
  })

  test('that are gone make room for their successors', async () => {
    const provider = await model('control-structure', '["sd3.5-large"]')
    behave({ kind: 'modelGone', models: ['control-structure'] })
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ model: 'sd3.5-large' })
  })

  test('with the name of the past are the living ones', async () => {
    const provider = await model('stable-diffusion-xl')
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ model: 'control-structure' })
  })

  test('cost what the operator says', async () => {
    const provider = await settings({ FORK__AI__PROVIDERS__STABILITY__COSTPERIMAGEUSD: '0.07' })
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ costMicroUsd: 70_000 })
  })

  test.each(['/', '/v2beta', '/v2beta/'])('are asked under a base URL that ends in %s', async (ending) => {
    const provider = await settings({ STABILITY_BASE_URL: adapter.url() + ending })
    await provider.run(IMAGE_REQUEST, { signal })
    expect(sent()).toHaveLength(1)
  })
})

describe('the address', () => {
  adapter.address('https://api.stability.ai/v2beta/stable-image/control/structure')
})

describe('availability', () => {
  adapter.availability(['jpeg', 'png', 'webp'])
})
