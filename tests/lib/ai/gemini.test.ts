// The Gemini adapter with the real SDK against a loopback Gemini.
import { execFile } from 'node:child_process'
import { getEventListeners } from 'node:events'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { gemini } from '../../../lib/ai/gemini.ts'
import { FIRMER_INSTRUCTION } from '../../../lib/ai/prompt.ts'
import { type ImageRequest, ProviderError } from '../../../lib/ai/provider.ts'
import { config } from '../../../lib/config.ts'
import { checkResult } from '../../../lib/image.ts'
import { type Behaviour, noisePng } from '../../support/gemini-replies.ts'
import { startGeminiStub } from '../../support/gemini-stub.ts'

const source = noisePng(48, 32)
const request: ImageRequest = {
  image: { bytes: source, format: 'png', width: 48, height: 32 },
  prompt: 'Turn the photo into a colouring page.',
  options: {},
  quality: 'standard',
}
const IMAGE_MICRO_USD = 39_000

let stub: Awaited<ReturnType<typeof startGeminiStub>>

beforeAll(async () => {
  stub = await startGeminiStub()
  vi.stubEnv('GEMINI_API_KEY', 'test-key')
  vi.stubEnv('GEMINI_BASE_URL', `${stub.url}/`)
  vi.stubEnv('FORK__AI__PROVIDERS__GEMINI__COSTPERIMAGEUSD', '0.039')
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

/** Runs the adapter and checks on every way out that nothing of it still hangs on the caller's signal. */
async function run(signal = new AbortController().signal) {
  try {
    return await gemini.run(request, { signal })
  } finally {
    expect(getEventListeners(signal, 'abort')).toHaveLength(0)
  }
}

async function failure(signal?: AbortSignal): Promise<ProviderError> {
  const error = await run(signal).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!(error instanceof ProviderError)) throw new Error('The adapter did not fail as promised.', { cause: error })
  return error
}

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
  test('gives the image, the model and the price of one image', async () => {
    const reply = await run()
    expect(reply).toMatchObject({ model: config().ai.providers.gemini.model, costMicroUsd: IMAGE_MICRO_USD })
    expect(await checkResult(reply.bytes)).toEqual({ format: 'png', width: 64, height: 64 })
  })

  test('gives the very bytes that Gemini sent', async () => {
    stub.behave({ kind: 'echo' })
    expect((await run()).bytes.equals(source)).toBe(true)
  })

  test('is the last image that is no thought, and every image billed is paid', async () => {
    stub.behave({ kind: 'drafts' })
    const reply = await run()
    expect(await checkResult(reply.bytes)).toMatchObject({ width: 20 })
    expect(reply.costMicroUsd).toBe(2 * IMAGE_MICRO_USD)
  })

  test('is what its bytes are when its label is wrong', async () => {
    stub.behave({ kind: 'ok', format: 'jpeg', mimeType: 'image/png' })
    expect(await checkResult((await run()).bytes)).toMatchObject({ format: 'jpeg' })
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
    // The text took a tenth of the tokens of an image.
    expect(reply.costMicroUsd).toBe(IMAGE_MICRO_USD + IMAGE_MICRO_USD / 10)
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
    expect(await failure()).toMatchObject({ kind: 'overloaded', costMicroUsd: IMAGE_MICRO_USD / 10 })
  })
})

describe('a failure is named', () => {
  /** A 429 that speaks of its limit in the details alone. */
  const quotaOf = (quotaValue: string) =>
    JSON.stringify({
      error: { message: 'Slow down.', details: [{ violations: [{ quotaValue }] }, { retryDelay: '2s' }] },
    })
  const failures: { behaviour: Behaviour; kind: string; retryAfterMs?: number; costMicroUsd?: number }[] = [
    { behaviour: { kind: 'promptBlocked' }, kind: 'blocked' },
    { behaviour: { kind: 'promptBlocked', reason: 'MODEL_ARMOR' }, kind: 'blocked' },
    { behaviour: { kind: 'finish', reason: 'IMAGE_SAFETY' }, kind: 'blocked' },
    { behaviour: { kind: 'finish', reason: 'PROHIBITED_CONTENT' }, kind: 'blocked' },
    { behaviour: { kind: 'finish', reason: 'IMAGE_RECITATION' }, kind: 'blocked' },
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
    { behaviour: { kind: 'truncated' }, kind: 'network' },
    { behaviour: { kind: 'reset' }, kind: 'network' },
    { behaviour: { kind: 'raw', body: '<html>Welcome to the hotel</html>' }, kind: 'network' },
    { behaviour: { kind: 'raw', body: 'null' }, kind: 'network' },
    { behaviour: { kind: 'raw', body: '{"candidates":"none"}' }, kind: 'network' },
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
  const slow: Behaviour[] = [{ kind: 'hang' }, { kind: 'slowDrip' }, { kind: 'ok', delayMs: 60_000 }]
  test.each(slow)('ends the request and the connection: $kind', async (behaviour) => {
    stub.behave(behaviour)
    const error = await failure(AbortSignal.timeout(300))
    expect(error.kind).toBe('timeout')
    await vi.waitFor(() => expect(stub.requests).toMatchObject([{ abandoned: true }]))
  })

  test('in the second request carries the bill of the first', async () => {
    stub.behave([{ kind: 'textOnly' }, { kind: 'hang' }])
    expect(await failure(AbortSignal.timeout(300))).toMatchObject({
      kind: 'timeout',
      costMicroUsd: IMAGE_MICRO_USD / 10,
    })
  })

  test('leaves nothing behind that keeps a process alive', async () => {
    const script = `
      import { gemini } from './lib/ai/gemini.ts'
      const image = { bytes: Buffer.from('${source.toString('base64')}', 'base64'), format: 'png', width: 48, height: 32 }
      const run = () => gemini.run({ image, prompt: 'Draw.', options: {}, quality: 'standard' }, { signal: new AbortController().signal })
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
})

/** The adapter as a new process with another environment would have it. */
async function freshAdapter(baseUrl: string, apiKey = 'test-key') {
  vi.stubEnv('GEMINI_BASE_URL', baseUrl)
  vi.stubEnv('GEMINI_API_KEY', apiKey)
  vi.resetModules()
  return await import('../../../lib/ai/gemini.ts')
}

describe('the stand-in', () => {
  const post = (path: string, body: unknown, headers = {}) =>
    fetch(`${stub.url}${path}`, { method: 'POST', body: JSON.stringify(body), headers })

  test('is steered and read over HTTP by other processes', async () => {
    expect((await post('/__behave', [{ kind: 'status', status: 503 }])).status).toBe(200)
    expect((await failure()).kind).toBe('overloaded')
    await run()
    const sent = await (await fetch(`${stub.url}/__requests`)).json()
    expect(sent).toMatchObject([
      { prompt: request.prompt },
      { images: [{ mimeType: 'image/png', byteLength: source.length }] },
    ])
    await fetch(`${stub.url}/__requests`, { method: 'DELETE' })
    expect(stub.requests).toHaveLength(0)
    expect((await post('/__behave', { kind: 'dance' })).status).toBe(400)
  })

  const path = '/v1beta/models/gemini-2.5-flash-image:generateContent'
  const contents = (mimeType: string, data: string) => ({ contents: [{ parts: [{ inlineData: { mimeType, data } }] }] })
  const refused = [
    { why: 'no key', headers: {}, body: contents('image/png', 'AAAA'), status: 403 },
    { why: 'no contents', body: {}, status: 400 },
    { why: 'an unknown field', body: { ...contents('image/png', 'AAAA'), model: 'x' }, status: 400 },
    { why: 'a type Gemini does not read', body: contents('image/gif', 'AAAA'), status: 400 },
    { why: 'broken base64', body: contents('image/png', '?'), status: 400 },
  ]
  test.each(refused)('refuses $why as Google does', async ({ headers = { 'x-goog-api-key': 'k' }, body, status }) => {
    expect((await post(path, body, headers)).status).toBe(status)
  })

  test('knows no path with a double slash', async () => {
    expect((await post(`/${path}`, contents('image/png', 'AAAA'), { 'x-goog-api-key': 'k' })).status).toBe(404)
  })
})
