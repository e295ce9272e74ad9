// The Gemini adapter with the real SDK against a loopback Gemini.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { gemini } from '../../../lib/ai/gemini.ts'
import { livingModel } from '../../../lib/ai/models.ts'
import { FIRMER_INSTRUCTION } from '../../../lib/ai/prompt.ts'
import { config } from '../../../lib/config.ts'
import { checkResult } from '../../../lib/image.ts'
import { kv } from '../../../lib/kv.ts'
import { bytesOf, failure, freshAdapter, request, run, source } from '../../support/gemini-adapter.ts'
import type { Behaviour } from '../../support/gemini-replies.ts'
import { startGeminiStub } from '../../support/gemini-stub.ts'

/** At the rates of gemini-2.5-flash-image: 40 + 258 tokens in × 0.3, which is 89.4, and for a picture 1290 × 30. */
const QUESTION_MICRO_USD = 90
const IMAGE_MICRO_USD = 38_790
/** What fork.config.json says of a picture, for an answer that was lost on its way. */
const EXPECTED_MICRO_USD = 39_000
/** The question, and 129 × 2.5 for words. */
const WORDS_MICRO_USD = 412

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

describe('the request', () => {
  test('carries the prompt, the image bytes and the modalities to the configured model', async () => {
    await run()
    expect(stub.requests).toEqual([
      {
        model: config().ai.providers.gemini.model,
        apiKey: 'test-key',
        prompt: request.prompt,
        responseModalities: ['TEXT', 'IMAGE'],
        images: [{ mimeType: 'image/png', bytes: source }],
        abandoned: false,
      },
    ])
  })

  test('is not sent when time is over already', async () => {
    const error = await failure(AbortSignal.abort())
    expect(error.kind).toBe('timeout')
    expect(stub.requests).toHaveLength(0)
  })
})

describe('the reply', () => {
  test('gives the image, the model and what its tokens cost', async () => {
    const reply = await run()
    expect(reply).toMatchObject({ model: config().ai.providers.gemini.model, costMicroUsd: IMAGE_MICRO_USD })
    expect(await checkResult(bytesOf(reply))).toEqual({ format: 'png', width: 64, height: 64 })
  })

  test('gives the very bytes that Gemini sent', async () => {
    stub.behave({ kind: 'echo' })
    expect(bytesOf(await run()).equals(source)).toBe(true)
  })

  test('is the last image that is no thought, and every image billed is paid', async () => {
    stub.behave({ kind: 'drafts' })
    const reply = await run()
    expect(await checkResult(bytesOf(reply))).toMatchObject({ width: 20 })
    // 40 + 258 in × 0.3, and 2580 × 30.
    expect(reply.costMicroUsd).toBe(77_490)
  })

  test('is what its bytes are when its label is wrong', async () => {
    stub.behave({ kind: 'ok', format: 'jpeg', mimeType: 'image/png' })
    expect(await checkResult(bytesOf(await run()))).toMatchObject({ format: 'jpeg' })
  })

  test('is waited for', async () => {
    stub.behave({ kind: 'ok', delayMs: 100 })
    expect((await run()).costMicroUsd).toBe(IMAGE_MICRO_USD)
  })
})

describe('a reply without an image', () => {
  test('is asked for once more, for an image alone and in firmer words', async () => {
    stub.behave([{ kind: 'textOnly' }])
    const reply = await run()
    expect(stub.requests.map(({ responseModalities }) => responseModalities)).toEqual([['TEXT', 'IMAGE'], ['IMAGE']])
    expect(stub.requests[1]?.prompt).toBe(`${request.prompt} ${FIRMER_INSTRUCTION}`)
    expect(reply.costMicroUsd).toBe(WORDS_MICRO_USD + IMAGE_MICRO_USD)
  })

  const silent: Behaviour[] = [
    { kind: 'textOnly' },
    { kind: 'noCandidates' },
    { kind: 'finish', reason: 'NO_IMAGE' },
    { kind: 'finish', reason: 'MALFORMED_RESPONSE' },
    { kind: 'raw', body: '{}' },
  ]
  test.each(silent)('fails as no_image the second time: $kind $reason', async (behaviour) => {
    stub.behave(behaviour)
    expect((await failure()).kind).toBe('no_image')
    expect(stub.requests).toHaveLength(2)
  })

  test('carries what both requests were billed', async () => {
    stub.behave({ kind: 'finish', reason: 'IMAGE_OTHER', billedTokens: 1290 })
    expect((await failure()).costMicroUsd).toBe(2 * IMAGE_MICRO_USD)
  })

  test('carries the first bill when the second request fails otherwise', async () => {
    stub.behave([{ kind: 'textOnly' }, { kind: 'status', status: 503 }])
    expect(await failure()).toMatchObject({ kind: 'overloaded', costMicroUsd: WORDS_MICRO_USD })
  })
})

describe('a failure is named', () => {
  /** A 429 that speaks of its limit in the details alone. */
  const quotaOf = (quotaValue: string) =>
    JSON.stringify({
      error: { message: 'Slow down.', details: [{ violations: [{ quotaValue }] }, { retryDelay: '2s' }] },
    })
  const failures: { behaviour: Behaviour; kind: string; retryAfterMs?: number; costMicroUsd?: number }[] = [
    { behaviour: { kind: 'promptBlocked' }, kind: 'blocked', costMicroUsd: QUESTION_MICRO_USD },
    { behaviour: { kind: 'promptBlocked', reason: 'MODEL_ARMOR' }, kind: 'blocked', costMicroUsd: QUESTION_MICRO_USD },
    { behaviour: { kind: 'finish', reason: 'IMAGE_SAFETY' }, kind: 'blocked', costMicroUsd: QUESTION_MICRO_USD },
    { behaviour: { kind: 'finish', reason: 'PROHIBITED_CONTENT' }, kind: 'blocked', costMicroUsd: QUESTION_MICRO_USD },
    { behaviour: { kind: 'finish', reason: 'IMAGE_RECITATION' }, kind: 'blocked', costMicroUsd: QUESTION_MICRO_USD },
    {
      behaviour: { kind: 'finish', reason: 'SAFETY', billedTokens: 1290 },
      kind: 'blocked',
      costMicroUsd: IMAGE_MICRO_USD,
    },
    { behaviour: { kind: 'rateLimited', retryDelay: '37.5s' }, kind: 'rate_limited', retryAfterMs: 37_500 },
    { behaviour: { kind: 'rateLimited' }, kind: 'rate_limited' },
    { behaviour: { kind: 'rateLimited', quota: 'day', retryDelay: '37s' }, kind: 'rate_limited' },
    { behaviour: { kind: 'rateLimited', quota: 'zero', retryDelay: '37s' }, kind: 'rate_limited' },
    { behaviour: { kind: 'status', status: 500 }, kind: 'overloaded' },
    { behaviour: { kind: 'status', status: 503 }, kind: 'overloaded' },
    { behaviour: { kind: 'status', status: 504 }, kind: 'overloaded' },
    { behaviour: { kind: 'html502' }, kind: 'overloaded' },
    { behaviour: { kind: 'invalidKey' }, kind: 'auth' },
    { behaviour: { kind: 'status', status: 401 }, kind: 'auth' },
    { behaviour: { kind: 'status', status: 403 }, kind: 'auth' },
    { behaviour: { kind: 'status', status: 400 }, kind: 'bad_request' },
    {
      behaviour: { kind: 'raw', status: 429, body: '{"error":{"message":"slow","details":{}}}' },
      kind: 'rate_limited',
    },
    { behaviour: { kind: 'raw', status: 429, body: quotaOf('0') }, kind: 'rate_limited' },
    { behaviour: { kind: 'raw', status: 429, body: quotaOf('10') }, kind: 'rate_limited', retryAfterMs: 2000 },
    { behaviour: { kind: 'truncated' }, kind: 'network', costMicroUsd: EXPECTED_MICRO_USD },
    { behaviour: { kind: 'reset' }, kind: 'network', costMicroUsd: EXPECTED_MICRO_USD },
    { behaviour: { kind: 'raw', body: '<html>Welcome to the hotel</html>' }, kind: 'network' },
    { behaviour: { kind: 'raw', body: 'null' }, kind: 'network', costMicroUsd: EXPECTED_MICRO_USD },
    { behaviour: { kind: 'raw', body: '{"candidates":"none"}' }, kind: 'network', costMicroUsd: EXPECTED_MICRO_USD },
  ]
  test.each(failures.map((row) => ({ ...row, named: JSON.stringify(row.behaviour) })))(
    '$kind: $named',
    async ({ behaviour, kind, retryAfterMs, costMicroUsd = 0 }) => {
      stub.behave(behaviour)
      const error = await failure()
      expect({ kind: error.kind, retryAfterMs: error.retryAfterMs, costMicroUsd: error.costMicroUsd }).toEqual({
        kind,
        retryAfterMs,
        costMicroUsd,
      })
      expect(stub.requests).toHaveLength(1)
    },
  )

  test('network when no one listens', async () => {
    const closed = await startGeminiStub()
    await closed.close()
    const { gemini: unreachable } = await freshAdapter(closed.url)
    await expect(unreachable.run(request, { signal: new AbortController().signal })).rejects.toMatchObject({
      kind: 'network',
    })
  })

  test('auth when the key is refused, without a word of the key', async () => {
    const { gemini: locked } = await freshAdapter(stub.url, 'invalid-key')
    const run = locked.run(request, { signal: new AbortController().signal })
    await expect(run).rejects.toMatchObject({ kind: 'auth', message: expect.not.stringContaining('invalid-key') })
  })
})

describe('time running out', () => {
  const slow: { behaviour: Behaviour; timeoutMs: number; costMicroUsd: number }[] = [
    { behaviour: { kind: 'hang' }, timeoutMs: 300, costMicroUsd: 0 },
    { behaviour: { kind: 'ok', delayMs: 60_000 }, timeoutMs: 300, costMicroUsd: 0 },
    // Long enough for its first byte.
    { behaviour: { kind: 'slowDrip' }, timeoutMs: 3000, costMicroUsd: EXPECTED_MICRO_USD },
  ]
  test.each(slow)(
    'ends the request and the connection: $behaviour.kind',
    async ({ behaviour, timeoutMs, costMicroUsd }) => {
      stub.behave(behaviour)
      expect(await failure(AbortSignal.timeout(timeoutMs))).toMatchObject({ kind: 'timeout', costMicroUsd })
      await vi.waitFor(() => expect(stub.requests).toMatchObject([{ abandoned: true }]))
    },
  )

  test('in the second request carries the bill of the first', async () => {
    stub.behave([{ kind: 'textOnly' }, { kind: 'hang' }])
    expect(await failure(AbortSignal.timeout(300))).toMatchObject({
      kind: 'timeout',
      costMicroUsd: WORDS_MICRO_USD,
    })
  })

  test('leaves nothing behind that keeps a process alive', async () => {
    const script = `
      import { gemini } from './lib/ai/gemini.ts'
      const image = { bytes: Buffer.from('${source.toString('base64')}', 'base64'), format: 'png', width: 48, height: 32 }
      const run = () => gemini.run({ task: 'image->image', image, prompt: 'Draw.', options: {}, quality: 'standard' }, { signal: new AbortController().signal })
      await run()
      await run()
      console.log(JSON.stringify(process.getActiveResourcesInfo()))`
    const environment = { ...process.env, GEMINI_API_KEY: 'test-key', GEMINI_BASE_URL: stub.url }
    const options = { timeout: 10_000, env: environment }
    const child = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], options)
    expect(JSON.parse(child.stdout)).not.toContain('Timeout')
    expect(stub.requests).toHaveLength(2)
  })
})

describe('a model that is gone', () => {
  test('makes room for its successor, is passed over for ten minutes and then asked again', async () => {
    const { model, successors } = config().ai.providers.gemini
    const successor = successors[0] ?? ''
    // A day long past, so that no other test remembers it.
    vi.useFakeTimers({ toFake: ['Date'], now: new Date('2001-01-01T00:00:00Z') })
    stub.behave({ kind: 'modelGone', models: [model] })
    expect((await run()).model).toBe(successor)
    expect((await run()).model).toBe(successor)
    expect(stub.requests.map((sent) => sent.model)).toEqual([model, successor, successor])

    stub.behave({ kind: 'ok' })
    vi.setSystemTime(new Date('2001-01-01T00:10:01Z'))
    expect((await run()).model).toBe(model)
  })

  test('is passed over by other instances, which have it from KV', async () => {
    const { model, successors } = config().ai.providers.gemini
    // The one store in memory of this process stands for the KV that instances share.
    vi.useFakeTimers({ toFake: ['Date'], now: new Date('2001-06-01T00:00:00Z') })
    await kv().set(`model-gone:gemini:${model}`, String(Date.now() + 60_000), { ttlMs: 60_000 })
    expect((await run()).model).toBe(successors[0])
    expect(stub.requests.map((sent) => sent.model)).toEqual([successors[0]])
  })

  test('a seed name stands for the model that lives', async () => {
    const { gemini: configured } = await freshAdapter(stub.url, 'test-key', { textModel: 'gpt-4' })
    const reply = await configured.run({ ...request, task: 'image->text' }, { signal: new AbortController().signal })
    expect(reply.model).toBe(livingModel('gpt-4'))
  })

  test('fails as model_gone when no successor is left, and the chain is tried afresh the next time', async () => {
    const { model, successors } = config().ai.providers.gemini
    vi.useFakeTimers({ toFake: ['Date'], now: new Date('2002-01-01T00:00:00Z') })
    stub.behave({ kind: 'modelGone' })
    expect((await failure()).kind).toBe('model_gone')
    expect(stub.requests.map((sent) => sent.model)).toEqual([model, ...successors])
    stub.behave({ kind: 'ok' })
    expect((await run()).model).toBe(model)
  })
})

describe('availability', () => {
  test('is given with a key', () => {
    expect(gemini.unavailable()).toBeNull()
  })

  test('names the variable that is missing', async () => {
    const { gemini: keyless } = await freshAdapter(stub.url, '')
    expect(keyless.unavailable()).toBe('GEMINI_API_KEY is not set')
  })

  test('ends with the setting', async () => {
    const { gemini: disabled } = await freshAdapter(stub.url, 'test-key', { enabled: false })
    expect(disabled.unavailable()).toBe('ai.providers.gemini.enabled is false')
  })
})
