// One generation from request to picture: progress events, one retry after a dropped connection, the same key throughout.
import { ApiError, jsonOf, serverEvents } from './api.js'
import { authorized } from './session.js'
import { makesPicture } from './tool.js'

const RETRY_AFTER_DROP_MS = 1000
const WAIT_FOR_RUNNING_MS = 2000
/** Longer than any deadline the server may have, so that a running picture is not given up too early. */
const RUNNING_LIMIT_MS = 120_000

/**
 * Yields `{ event, data }` (queued, provider, fallback, reconnecting) and last `done` with the reply. A repeat under the
 * same `key` never runs or charges twice: while the first is still running its end is waited for.
 */
export async function* generate({ tool, source, options, key, signal }) {
  const startedAt = Date.now()
  let dropsLeft = 1
  for (;;) {
    try {
      yield* attempt({ tool, source, options, key, signal })
      return
    } catch (error) {
      if (error.code === 'NETWORK' && dropsLeft > 0) {
        dropsLeft -= 1
        yield { event: 'reconnecting', data: {} }
        await pause(RETRY_AFTER_DROP_MS, signal)
      } else if (error.code === 'IDEMPOTENCY_IN_PROGRESS' && Date.now() - startedAt < RUNNING_LIMIT_MS) {
        await pause(error.retryAfterSeconds * 1000 || WAIT_FOR_RUNNING_MS, signal)
      } else {
        throw error
      }
    }
  }
}

/** The reply's base64, of a picture or a text, as a Blob (fetching a data: URL is not allowed by the page's content policy). */
export function resultOf({ result, mimeType }) {
  const bytes = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(result)
    : Uint8Array.from(atob(result), (character) => character.charCodeAt(0))
  return new Blob([bytes], { type: mimeType })
}

async function* attempt({ tool, source, options, key, signal }) {
  const chosen = makesPicture(tool) ? { ...options, format: 'png' } : options
  // The picture itself and no link to it: the page's content policy shows none from elsewhere.
  const headers = { 'idempotency-key': key, prefer: 'return=representation' }
  const { path, body } = source.blob
    ? { path: `/api/process-image?${new URLSearchParams(chosen)}`, body: source.blob }
    : { path: '/api/process-image', body: { text: source.words, options: chosen } }
  if (source.blob) headers['content-type'] = 'image/jpeg'
  const response = await authorized(path, { method: 'POST', body, headers, accept: 'text/event-stream', signal })
  if (!response.headers.get('content-type')?.startsWith('text/event-stream')) {
    yield { event: 'done', data: await jsonOf(response) }
    return
  }
  for await (const { event, data } of serverEvents(response)) {
    if (event === 'error') throw new ApiError(data.error ?? data)
    yield { event, data }
    if (event === 'done') return
  }
  throw new ApiError({ code: 'NETWORK', message: 'The stream ended before the picture came.' })
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(new DOMException('Stopped waiting.', 'AbortError'))
    if (signal.aborted) return stop()
    signal.addEventListener('abort', stop, { once: true })
    setTimeout(resolve, ms)
  })
}
