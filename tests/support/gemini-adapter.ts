// The Gemini adapter in tests: a request for it, its failures, and the adapter under other settings.
import { getEventListeners } from 'node:events'
import { expect, vi } from 'vitest'
import { gemini } from '../../lib/ai/gemini.ts'
import { type ModelRequest, ProviderError, type ProviderReply } from '../../lib/ai/provider.ts'
import { noisePng } from './gemini-replies.ts'

export const source = noisePng(48, 32)
export const request: ModelRequest = {
  task: 'image->image',
  image: { bytes: source, format: 'png', width: 48, height: 32 },
  prompt: 'Turn the photo into a colouring page.',
  options: {},
  quality: 'standard',
}

/** Runs the adapter and checks on every way out that nothing of it still hangs on the caller's signal. */
export async function run(signal = new AbortController().signal, asked: Partial<ModelRequest> = {}) {
  try {
    return await gemini.run({ ...request, ...asked }, { signal })
  } finally {
    expect(getEventListeners(signal, 'abort')).toHaveLength(0)
  }
}

export async function failure(signal?: AbortSignal, asked?: Partial<ModelRequest>): Promise<ProviderError> {
  const error = await run(signal, asked).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!(error instanceof ProviderError)) throw new Error('The adapter did not fail as promised.', { cause: error })
  return error
}

export function bytesOf({ output }: ProviderReply): Buffer {
  if (!('bytes' in output)) throw new Error('The reply is no picture.')
  return output.bytes
}

/** The adapter as a new process with another environment and other settings would have it. */
export async function freshAdapter(baseUrl: string, apiKey = 'test-key', settings?: object) {
  vi.stubEnv('GEMINI_BASE_URL', baseUrl)
  vi.stubEnv('GEMINI_API_KEY', apiKey)
  vi.stubEnv('FORK__AI__PROVIDERS__GEMINI', settings && JSON.stringify(settings))
  vi.resetModules()
  return await import('../../lib/ai/gemini.ts')
}
