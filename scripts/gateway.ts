// What stands between a client and a function on Vercel, for both local servers: limits, trusted headers, waitUntil.
import { randomUUID } from 'node:crypto'
import { pathToFileURL } from 'node:url'
import { serve } from 'srvx'
import { AppError, type ErrorCode, errorResponse } from '../lib/http/errors.ts'
import { addCommonHeaders } from '../lib/http/headers.ts'
import { describeError, log } from '../lib/log.ts'
import { beginShutdown } from '../lib/shutdown.ts'

/** Vercel refuses a larger body before it reaches a function. */
export const BODY_BYTES_MAX = 4.5 * 1024 * 1024

const DISCARDED_BYTES_MAX = 64 * 1024 * 1024

/** Below the ten seconds after which Docker and npm kill a process that was asked to stop. */
const SHUTDOWN_TIMEOUT_MS = 8_000

/** Something that whoever starts the server can put right: they need its message, not its stack. */
export class SetupError extends Error {
  override readonly name = 'SetupError'
}

const PLATFORM_HEADER = /^(forwarded|x-real-ip|x-forwarded-.+|x-vercel-.+)$/

/** A request from a socket has the address of its client; one made in this process has none. */
export type Inbound = Request & { ip?: string | undefined }

/** Calls the function in `file`. Whatever keeps it from answering becomes an error in the form functions give theirs. */
export async function callFunction(request: Inbound, file: string | undefined): Promise<Response> {
  if (file === undefined) return refusal(request, 'NOT_FOUND', 'There is nothing at this address.')
  const admitted = await admit(request)
  if (!admitted) return refusal(request, 'PAYLOAD_TOO_LARGE', 'The body is larger than 4.5 MB.')
  try {
    return await invoke(file, admitted)
  } catch (error) {
    log('error', 'function_failed', { file, error: describeError(error) })
    return refusal(request, 'INTERNAL_ERROR', 'Something went wrong on our side.')
  }
}

function refusal(request: Request, code: ErrorCode, message: string): Response {
  const requestId = randomUUID()
  const response = errorResponse(new AppError(code, message), requestId)
  addCommonHeaders(response.headers, request, { requestId, corsOrigins: [] })
  return response
}

/**
 * The request as a function sees it, its body read whole: address headers say what the socket says, whatever the client
 * sent. Undefined when the body is larger than BODY_BYTES_MAX, declared or not. As on Vercel, no abort reaches it.
 */
async function admit(request: Inbound): Promise<Request | undefined> {
  if (Number(request.headers.get('content-length')) > BODY_BYTES_MAX) return undefined
  const body = request.body ? await readBody(request.body) : new Uint8Array()
  if (body === undefined) return undefined
  return new Request(request.url, {
    method: request.method,
    headers: trustedHeaders(request),
    body: body.length > 0 ? body : null,
  })
}

async function readBody(stream: ReadableStream<Uint8Array>): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const reader = stream.getReader()
  const chunks: Uint8Array[] = []
  let length = 0
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    length += next.value.length
    if (length > BODY_BYTES_MAX) {
      // Cancelling would cut the connection before the client has read why.
      void discard(reader)
      return undefined
    }
    chunks.push(next.value)
  }
  return Buffer.concat(chunks)
}

/** Reads on to the end, within bounds: who sends more than that is cut off. */
async function discard(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  let length = 0
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      length += next.value.length
      if (length > DISCARDED_BYTES_MAX) return await reader.cancel()
    }
  } catch {
    // The client has gone, and the rest of its body with it.
  }
}

function trustedHeaders({ headers: sent, ip }: Inbound): Headers {
  const headers = new Headers(sent)
  if (ip === undefined) return headers
  for (const name of [...headers.keys()]) if (PLATFORM_HEADER.test(name)) headers.delete(name)
  headers.set('x-real-ip', ip.replace(/^::ffff:/, ''))
  return headers
}

/** Calls the function in `file`, importing it the first time. Throws what it throws. */
async function invoke(file: string, request: Request): Promise<Response> {
  const { default: handler }: { default?: unknown } = await import(pathToFileURL(file).href)
  if (!isFetchHandler(handler)) throw new TypeError(`${file} has no default export with a fetch function.`)
  return await handler.fetch(request)
}

interface FetchHandler {
  fetch(request: Request): Response | Promise<Response>
}

function isFetchHandler(value: unknown): value is FetchHandler {
  return typeof value === 'object' && value !== null && 'fetch' in value && typeof value.fetch === 'function'
}

const pending = new Set<Promise<unknown>>()

/** Gives functions of this process the `waitUntil` that @vercel/functions looks for; elsewhere it does nothing. */
export function provideWaitUntil(): void {
  const waitUntil = (work: Promise<unknown>) => {
    const settled = Promise.resolve(work)
      .catch((error) => console.error('Work handed to waitUntil failed:', error))
      .finally(() => pending.delete(settled))
    pending.add(settled)
  }
  Reflect.set(globalThis, Symbol.for('@vercel/request-context'), { get: () => ({ waitUntil }) })
}

/** Resolves when everything that was handed to `waitUntil` is done. */
export async function drain(): Promise<void> {
  while (pending.size > 0) await Promise.all(pending)
}

interface Listening {
  port: number
  fetch(request: Inbound): Promise<Response>
  /** Runs last, when no request is open any more. */
  close(): Promise<void>
}

/**
 * Serves on every interface; resolves to the URL, which has the real port when 0 was asked for. SIGTERM and SIGINT
 * finish what is open and end the process. Throws SetupError when the port is taken.
 */
export async function listen({ port, fetch, close }: Listening): Promise<string> {
  const server = serve({ port, fetch, silent: true, gracefulShutdown: false })
  try {
    await server.ready()
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EADDRINUSE')) throw error
    throw new SetupError(`Port ${port} is in use. Choose another one with PORT=${port + 1}.`, { cause: error })
  }
  let stopping = false
  const stop = async () => {
    // Ctrl+C reaches this process twice: from the terminal and from npm.
    if (stopping) return
    stopping = true
    beginShutdown()
    const cut = setTimeout(() => void server.close(true), SHUTDOWN_TIMEOUT_MS)
    await server.close()
    clearTimeout(cut)
    await drain()
    await close()
    process.exit()
  }
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, stop)
  return `http://localhost:${new URL(server.url ?? '').port}`
}
