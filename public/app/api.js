// Talking to the API: JSON requests, the error envelope, and server-sent events read with fetch.

/** A failed call: the envelope's code, or `NETWORK` when no answer came. */
export class ApiError extends Error {
  constructor(
    { code = 'INTERNAL_ERROR', message = '', details = {}, requestId = '' } = {},
    retryAfterSeconds = undefined,
  ) {
    super(message)
    this.name = 'ApiError'
    this.code = code
    this.details = details ?? {}
    this.requestId = requestId
    this.retryAfterSeconds = retryAfterSeconds ?? this.details.retryAfterSeconds
  }
}

/** The server does not know the session any more, or never did. */
export function isRefusal(error) {
  return error instanceof ApiError && (error.code === 'UNAUTHENTICATED' || error.code === 'TOKEN_EXPIRED')
}

/** fetch() that fails with ApiError only: `NETWORK` without an answer, the server's own code otherwise. Aborts pass through. */
export async function call(path, { method = 'GET', body, headers = {}, signal, accept = 'application/json' } = {}) {
  const json = body !== undefined && !(body instanceof Blob)
  const init = { method, headers: { accept, ...(json ? { 'content-type': 'application/json' } : {}), ...headers } }
  if (body !== undefined) init.body = json ? JSON.stringify(body) : body
  if (signal) init.signal = signal
  const response = await fetch(path, init).catch((error) => {
    throw asNetworkError(error)
  })
  if (response.ok) return response
  throw await errorFrom(response)
}

/** The JSON of an answer; undefined when the server had nothing to say. */
export async function jsonOf(response) {
  if (response.status === 204) return undefined
  try {
    return await response.json()
  } catch (error) {
    throw asNetworkError(error)
  }
}

/** A random UUID; `crypto.randomUUID` itself is missing where the page is opened by plain http on a local network. */
export function newId() {
  if (crypto.randomUUID) return crypto.randomUUID()
  const hex = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join(
    '',
  )
  return hex.replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12})$/, '$1-$2-4$3-a$4-$5')
}

/** Yields `{ event, data }` for each server-sent event; comments (keep-alives) are skipped. */
export async function* serverEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let pending = ''
  try {
    for (;;) {
      const { value, done } = await reader.read()
      if (done) return
      // A picture comes in many chunks: only what is new can hold the end of the event.
      const newFrom = Math.max(0, pending.length - 1)
      pending += value.replaceAll('\r', '')
      let end = pending.indexOf('\n\n', newFrom)
      while (end !== -1) {
        const parsed = parseEvent(pending.slice(0, end))
        pending = pending.slice(end + 2)
        if (parsed) yield parsed
        end = pending.indexOf('\n\n')
      }
    }
  } catch (error) {
    throw asNetworkError(error)
  } finally {
    reader.cancel().catch(() => {})
  }
}

function parseEvent(block) {
  let event = 'message'
  const data = []
  for (const line of block.split('\n')) {
    if (line.startsWith('event:')) event = line.slice(6).trim()
    else if (line.startsWith('data:')) data.push(line.slice(5).trimStart())
  }
  return data.length === 0 ? undefined : { event, data: JSON.parse(data.join('\n')) }
}

async function errorFrom(response) {
  const envelope = await response.json().catch(() => undefined)
  const retryAfter = Number(response.headers.get('retry-after') ?? Number.NaN)
  const requestId = response.headers.get('x-request-id') ?? ''
  const error = envelope?.error ?? { code: response.status === 413 ? 'PAYLOAD_TOO_LARGE' : 'INTERNAL_ERROR' }
  return new ApiError({ requestId, ...error }, Number.isFinite(retryAfter) ? retryAfter : undefined)
}

function asNetworkError(error) {
  if (error instanceof ApiError || error.name === 'AbortError') return error
  return new ApiError({ code: 'NETWORK', message: String(error) })
}
