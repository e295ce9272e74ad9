// What the Gemini adapter does beside pictures of photos, and what it says that its work cost.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { gemini } from '../../../lib/ai/gemini.ts'
import { config } from '../../../lib/config.ts'
import { checkResult } from '../../../lib/image.ts'
import { bytesOf, failure, freshAdapter, request, run, source } from '../../support/gemini-adapter.ts'
import { type Behaviour, WORDS } from '../../support/gemini-replies.ts'
import { startGeminiStub } from '../../support/gemini-stub.ts'

/** What fork.config.json says of a picture. */
const EXPECTED_MICRO_USD = 39_000

let stub: Awaited<ReturnType<typeof startGeminiStub>>

beforeAll(async () => {
  stub = await startGeminiStub()
  vi.stubEnv('GEMINI_API_KEY', 'test-key')
  vi.stubEnv('GEMINI_BASE_URL', `${stub.url}/`)
})
afterAll(async () => {
  vi.unstubAllEnvs()
  await stub.close()
})
beforeEach(() => {
  stub.requests.length = 0
  stub.behave({ kind: 'ok' })
})
afterEach(() => {
  vi.useRealTimers()
})

describe('a request for words', () => {
  test('goes to the model for words, with the photo and without a word of pictures', async () => {
    const reply = await run(undefined, { task: 'image->text' })
    expect(reply).toEqual({
      output: { text: WORDS },
      model: config().ai.providers.gemini.textModel,
      // At the rates of gemini-3.5-flash-lite: 40 + 258 in × 0.3 and 9 × 2.5, which is 111.9.
      costMicroUsd: 112,
    })
    expect(stub.requests).toMatchObject([{ responseModalities: ['TEXT'], images: [{ bytes: source }] }])
  })

  test('needs no photo when it begins with words', async () => {
    const reply = await run(undefined, { task: 'text->text', image: undefined })
    // 40 × 0.3 and 9 × 2.5, which is 34.5.
    expect(reply).toMatchObject({ output: { text: WORDS }, costMicroUsd: 35 })
    expect(stub.requests).toMatchObject([{ prompt: request.prompt, images: [] }])
  })

  test('goes to the model that takes over when the one for words is gone before its day', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: new Date('2026-11-21T00:00:00Z') })
    const { gemini: configured } = await freshAdapter(stub.url, 'test-key', { textModel: 'gemini-2.5-flash' })
    stub.behave({ kind: 'modelGone', models: ['gemini-2.5-flash'] })
    const asked = { ...request, task: 'image->text' as const }
    const reply = await configured.run(asked, { signal: new AbortController().signal })
    expect(reply.model).toBe('gemini-3.5-flash-lite')
    expect(stub.requests.map(({ model }) => model)).toEqual(['gemini-2.5-flash', 'gemini-3.5-flash-lite'])
  })

  test('gives no thoughts, but pays for them', async () => {
    const parts = [{ text: 'Hm.', thought: true }, { text: 'A cat' }, { text: ' on a mat. ' }]
    const usageMetadata = { promptTokenCount: 100, candidatesTokenCount: 10, thoughtsTokenCount: 200 }
    stub.behave({ kind: 'raw', body: JSON.stringify({ candidates: [{ content: { parts } }], usageMetadata }) })
    // 100 × 0.3 and (10 + 200) × 2.5.
    expect(await run(undefined, { task: 'image->text' })).toMatchObject({
      output: { text: 'A cat on a mat.' },
      costMicroUsd: 555,
    })
  })

  test.each<Behaviour>([
    { kind: 'noCandidates' },
    { kind: 'finish', reason: 'OTHER' },
    { kind: 'raw', body: '{"candidates":[{"content":{"parts":[{"text":" "}]}}]}' },
  ])('is not asked again when it stays without an answer: $kind', async (behaviour) => {
    stub.behave(behaviour)
    expect(await failure(undefined, { task: 'image->text' })).toMatchObject({
      kind: 'no_image',
      message: 'Gemini answered without a word.',
    })
    expect(stub.requests).toHaveLength(1)
  })

  test.each([
    // 40 × 0.3 and 8192 × 2.5.
    [{ promptTokenCount: 40, candidatesTokenCount: 8192 }, 20_492],
    // As expected: 400 × 0.3 and 500 × 2.5.
    [undefined, 1_370],
  ])('is refused with its cost when it ends at the limit: %j', async (usageMetadata, costMicroUsd) => {
    const candidates = [{ finishReason: 'MAX_TOKENS', content: { parts: [{ text: 'A cat on' }] } }]
    stub.behave({ kind: 'raw', body: JSON.stringify({ candidates, usageMetadata }) })
    expect(await failure(undefined, { task: 'text->text', image: undefined })).toMatchObject({
      kind: 'no_image',
      message: "Gemini's answer was not finished.",
      costMicroUsd,
    })
    expect(stub.requests).toHaveLength(1)
  })

  test.each([{}, { promptTokenCount: 300 }, { promptTokenCount: 300, candidatesTokenCount: 0 }])(
    'costs what is expected when the usage leaves the words out: %j',
    async (usageMetadata) => {
      const candidates = [{ finishReason: 'STOP', content: { parts: [{ text: 'A cat.' }] } }]
      stub.behave({ kind: 'raw', body: JSON.stringify({ candidates, usageMetadata }) })
      // 400 × 0.3 and 500 × 2.5.
      expect((await run(undefined, { task: 'text->text', image: undefined })).costMicroUsd).toBe(1_370)
    },
  )

  test('is blocked when a filter cut the answer off', async () => {
    const candidates = [{ finishReason: 'SAFETY', content: { parts: [{ text: 'How to' }] } }]
    stub.behave({ kind: 'raw', body: JSON.stringify({ candidates }) })
    expect((await failure(undefined, { task: 'text->text', image: undefined })).kind).toBe('blocked')
  })
})

describe('a picture from words', () => {
  test('is drawn without a photo', async () => {
    const reply = await run(undefined, { task: 'text->image', image: undefined })
    expect(await checkResult(bytesOf(reply))).toMatchObject({ width: 64 })
    expect(stub.requests).toMatchObject([{ responseModalities: ['TEXT', 'IMAGE'], images: [] }])
  })

  test('a task that begins with a photo is refused without one, before anything is sent', async () => {
    expect((await failure(undefined, { image: undefined })).kind).toBe('bad_request')
    expect(stub.requests).toHaveLength(0)
  })
})

describe('a bill', () => {
  const parts = [{ inlineData: { mimeType: 'image/png', data: source.toString('base64') } }]
  const billed = (usageMetadata?: object) =>
    stub.behave({ kind: 'raw', body: JSON.stringify({ candidates: [{ content: { parts } }], usageMetadata }) })

  test('that does not tell pictures from words counts as pictures', async () => {
    billed({ promptTokenCount: 300, candidatesTokenCount: 1290 })
    // 300 × 0.3 and 1290 × 30.
    expect((await run()).costMicroUsd).toBe(38_790)
  })

  test('tells words and thoughts beside a picture from the picture', async () => {
    billed({
      promptTokenCount: 300,
      candidatesTokenCount: 1300,
      candidatesTokensDetails: [{ modality: 'IMAGE', tokenCount: 1290 }],
      thoughtsTokenCount: 90,
    })
    // 300 × 0.3, 1290 × 30 and (10 + 90) × 2.5.
    expect((await run()).costMicroUsd).toBe(39_040)
  })

  test('may leave out what is nothing', async () => {
    billed({ candidatesTokensDetails: [{ modality: 'IMAGE', tokenCount: 1290 }, { modality: 'TEXT' }, {}] })
    // 1290 × 30.
    expect((await run()).costMicroUsd).toBe(38_700)
  })

  test.each([
    { promptTokenCount: 300 },
    { promptTokensDetails: [{ modality: 'IMAGE' }], candidatesTokenCount: 0 },
    { candidatesTokenCount: 1290, candidatesTokensDetails: [{ modality: 'TEXT', tokenCount: 1290 }] },
  ])('that leaves the picture out is no bill: %j', async (usage) => {
    billed(usage)
    expect((await run()).costMicroUsd).toBe(EXPECTED_MICRO_USD)
  })

  test('that is missing is what the operator expects a picture to cost', async () => {
    const { gemini: configured } = await freshAdapter(stub.url, 'test-key', { costPerImageUsd: 0.05 })
    billed()
    const reply = await configured.run(request, { signal: new AbortController().signal })
    expect(reply.costMicroUsd).toBe(50_000)
    expect(configured.ceilingMicroUsd({ task: 'image->image', quality: 'standard' })).toBe(50_000)
  })

  test('of a model that the price table does not know is what the operator says, whatever its usage', async () => {
    const settings = { model: 'gemini-9-image', costPerImageUsd: 0.07 }
    const { gemini: configured } = await freshAdapter(stub.url, 'test-key', settings)
    billed({ promptTokenCount: 300, candidatesTokenCount: 1290 })
    const reply = await configured.run(request, { signal: new AbortController().signal })
    expect(reply).toMatchObject({ model: 'gemini-9-image', costMicroUsd: 70_000 })
  })

  test('is expected by task: pictures by the first model, words by the one for words', () => {
    // What fork.config.json says of a picture; for words (400 + 1090) × 0.3 and 500 × 2.5.
    expect(gemini.ceilingMicroUsd({ task: 'image->image', quality: 'standard' })).toBe(39_000)
    expect(gemini.ceilingMicroUsd({ task: 'image->text', quality: 'standard' })).toBe(1_697)
  })
})
