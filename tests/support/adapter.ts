// A provider's adapter before its stub, for tests of what goes over the wire and what becomes of the answer.
import { execFile } from 'node:child_process'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { getEventListeners } from 'node:events'
import { promisify } from 'node:util'
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { CAPABILITIES } from '../../lib/ai/capabilities.ts'
import { type ModelRequest, type Provider, ProviderError, type ProviderReply } from '../../lib/ai/provider.ts'
import type { ImageFormat } from '../../lib/image.ts'
import { noisePng } from './gemini-replies.ts'
import { type Behaviour, type StubProvider, startProviderStub } from './provider-stub.ts'

/** Wider than high, and large enough for everyone. */
export const SOURCE = noisePng(96, 64)
/** Forty characters: ten tokens, as the stubs count. */
export const PROMPT = 'Turn the photo into a page for colouring'

export const IMAGE_REQUEST: ModelRequest = {
  task: 'image->image',
  quality: 'standard',
  image: { bytes: SOURCE, format: 'png', width: 96, height: 64 },
  prompt: PROMPT,
  options: {},
}

export interface Failure {
  behaviour: Behaviour
  request?: Partial<ModelRequest>
  kind: string
  message?: string
  retryAfterMs?: number
  costMicroUsd?: number
}

/** Resolves when the next answer to a fetch of this process has begun, and whoever made it has heard of it. */
function headersArrive(): Promise<void> {
  return new Promise((resolve) => {
    const heard = () => {
      unsubscribe('undici:request:headers', heard)
      setImmediate(resolve)
    }
    subscribe('undici:request:headers', heard)
  })
}

/** Starts the stub for the file's tests. `usual` is what a call asks for unless it says otherwise. */
export function testAdapter(adapter: Provider, id: StubProvider, usual: ModelRequest) {
  const name = id.toUpperCase()
  let stub: Awaited<ReturnType<typeof startProviderStub>>
  beforeAll(async () => {
    stub = await startProviderStub(id)
    vi.stubEnv(`${name}_API_KEY`, 'test-key')
    vi.stubEnv(`${name}_BASE_URL`, stub.url)
  })
  afterAll(async () => {
    vi.unstubAllEnvs()
    await stub.close()
  })
  beforeEach(() => {
    stub.requests.length = 0
    stub.behave({ kind: 'ok' })
  })

  /** Runs the adapter and checks on every way out that nothing of it still hangs on the caller's signal. */
  async function run(
    changes: Partial<ModelRequest> = {},
    signal = new AbortController().signal,
  ): Promise<ProviderReply> {
    try {
      return await adapter.run({ ...usual, ...changes }, { signal })
    } finally {
      expect(getEventListeners(signal, 'abort')).toHaveLength(0)
    }
  }

  async function failure(changes?: Partial<ModelRequest>, signal?: AbortSignal): Promise<ProviderError> {
    const error = await run(changes, signal).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    if (!(error instanceof ProviderError)) throw new Error('The adapter did not fail as promised.', { cause: error })
    return error
  }

  /** The adapter as a new process with a further environment would have it. */
  async function fresh(variables: Record<string, string>): Promise<Provider> {
    for (const [variable, value] of Object.entries(variables)) vi.stubEnv(variable, value)
    vi.resetModules()
    const { PROVIDERS } = await import('../../lib/ai/registry.ts')
    const provider = PROVIDERS[id]
    if (!provider) throw new Error(`There is no adapter for ${id}.`)
    return provider
  }

  return {
    run,
    failure,
    behave: (next: Behaviour | Behaviour[]) => stub.behave(next),
    url: () => stub.url,
    sent: () => stub.requests,

    fresh,

    /** One test for each row: the name of the failure, the wait, what it cost, and one request. */
    failures(rows: Failure[]) {
      test.each(rows.map((row) => ({ ...row, named: `${JSON.stringify(row.behaviour)} ${row.request?.task ?? ''}` })))(
        '$kind: $named',
        async ({ behaviour, request, kind, message, retryAfterMs, costMicroUsd = 0 }) => {
          stub.behave(behaviour)
          const error = await failure(request)
          expect({ kind: error.kind, retryAfterMs: error.retryAfterMs, costMicroUsd: error.costMicroUsd }).toEqual({
            kind,
            retryAfterMs,
            costMicroUsd,
          })
          if (message) expect(error.message).toBe(message)
          expect(stub.requests).toHaveLength(1)
        },
      )
    },

    /** What every adapter does with its time. `lostMicroUsd` is what a reply costs that began well. */
    timeIsKept(lostMicroUsd: number) {
      test.each<[Behaviour, number]>([
        [{ kind: 'hang' }, 0],
        [{ kind: 'ok', delayMs: 60_000 }, 0],
        [{ kind: 'slowDrip' }, lostMicroUsd],
      ])('ends the request and the connection when it is over: %o', async (behaviour, costMicroUsd) => {
        stub.behave(behaviour)
        const abortion = new AbortController()
        const answered = headersArrive()
        const failing = failure({}, abortion.signal)
        await vi.waitFor(() => expect(stub.requests).toHaveLength(1), { timeout: 10_000 })
        if (behaviour.kind === 'slowDrip') await answered
        abortion.abort()
        expect(await failing).toMatchObject({ kind: 'timeout', costMicroUsd })
        await vi.waitFor(() => expect(stub.requests).toMatchObject([{ abandoned: true }]), { timeout: 10_000 })
      })

      test('nothing is sent when it is over already', async () => {
        expect(await failure({}, AbortSignal.abort())).toMatchObject({ kind: 'timeout', costMicroUsd: 0 })
        expect(stub.requests).toHaveLength(0)
      })

      test('nothing is left behind that keeps a process alive', async () => {
        const request = { ...usual, image: undefined }
        const script = `
          import { PROVIDERS } from './lib/ai/registry.ts'
          const bytes = Buffer.from('${SOURCE.toString('base64')}', 'base64')
          const request = { ...${JSON.stringify(request)}, image: { bytes, format: 'png', width: 96, height: 64 } }
          const signal = new AbortController().signal
          await PROVIDERS.${id}.run(request, { signal })
          await PROVIDERS.${id}.run(request, { signal })
          console.log(JSON.stringify(process.getActiveResourcesInfo()))`
        const variables = { ...process.env, [`${name}_API_KEY`]: 'test-key', [`${name}_BASE_URL`]: stub.url }
        const options = { timeout: 50_000, env: variables }
        const child = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], options)
        expect(JSON.parse(child.stdout)).not.toContain('Timeout')
        expect(stub.requests).toHaveLength(2)
      })

      test('network when no one listens', async () => {
        const closed = await startProviderStub(id)
        await closed.close()
        const provider = await fresh({ [`${name}_BASE_URL`]: closed.url })
        await expect(provider.run(usual, { signal: new AbortController().signal })).rejects.toMatchObject({
          kind: 'network',
          costMicroUsd: 0,
        })
      })

      test('a key that is refused is not told', async () => {
        const provider = await fresh({ [`${name}_BASE_URL`]: stub.url, [`${name}_API_KEY`]: 'an-invalid-key' })
        const error = await provider.run(usual, { signal: new AbortController().signal }).then(
          () => undefined,
          (reason: unknown) => reason,
        )
        expect(error).toMatchObject({ kind: 'auth', cause: expect.any(Error) })
        expect(`${error} ${error instanceof Error ? error.cause : ''}`).not.toContain('an-invalid-key')
      })
    },

    /** Where the calls go when no base URL is set. */
    address(url: string) {
      test(`is ${url} unless another one is set`, async () => {
        const provider = await fresh({ [`${name}_BASE_URL`]: '', [`${name}_API_KEY`]: 'test-key' })
        const asked = vi.spyOn(globalThis, 'fetch').mockRejectedValue(new TypeError('There is no network.'))
        await expect(provider.run(usual, { signal: new AbortController().signal })).rejects.toMatchObject({
          kind: 'network',
        })
        expect(asked.mock.calls.map(([address]) => address)).toEqual([url])
        asked.mockRestore()
      })
    },

    availability(reads: readonly ImageFormat[]) {
      test('tells its name, its work and what it reads', () => {
        expect(adapter).toMatchObject({ id, serves: CAPABILITIES[id], reads })
      })

      test('is given with a key', () => {
        expect(adapter.unavailable()).toBeNull()
      })

      test('names the variable that is missing', async () => {
        const provider = await fresh({ [`${name}_API_KEY`]: '' })
        expect(provider.unavailable()).toBe(`${name}_API_KEY is not set`)
      })

      test('names the setting that rules it out', async () => {
        const variables = { [`${name}_API_KEY`]: 'test-key', [`FORK__AI__PROVIDERS__${name}__ENABLED`]: 'false' }
        const provider = await fresh(variables)
        expect(provider.unavailable()).toBe(`ai.providers.${id}.enabled is false`)
        vi.stubEnv(`FORK__AI__PROVIDERS__${name}__ENABLED`, 'true')
      })
    },
  }
}
