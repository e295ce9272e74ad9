// A loopback OpenAI, Anthropic or Stability AI: their replies, errors and bad moods, steered in code or over HTTP.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { parseArgs } from 'node:util'
import * as v from 'valibot'
import { anthropicFace } from './anthropic-replies.ts'
import { openaiFace } from './openai-replies.ts'
import { stabilityFace } from './stability-replies.ts'

/** What the stub does with a request that the provider would accept. */
export const Behaviour = v.strictObject({
  kind: v.picklist([
    'ok',
    'status', // The provider's own error for `status`.
    'modelGone', // For the `models`, or for all of them; others answer.
    'rateLimited', // With the wait when `retryAfterMs` is given.
    'quotaSpent',
    'hang', // Nothing at all.
    'slowDrip', // One byte at a time.
    'reset', // Half a body, then the connection breaks.
    'truncated', // A body that stops in the middle, sent as if it were whole.
    'html502',
    'blocked', // By the provider's moderation.
    'noImage', // A success without what was asked for, billed all the same.
    'wrongMime', // Bytes of another format than the reply says.
    'notAnImage',
    'oversized', // A success that begins well and has no end.
    'raw', // `status`, `body` and `contentType` as they are.
  ]),
  /** Waits before anything is sent. */
  delayMs: v.optional(v.number()),
  status: v.optional(v.number()),
  models: v.optional(v.array(v.string())),
  retryAfterMs: v.optional(v.number()),
  body: v.optional(v.string()),
  contentType: v.optional(v.string()),
})
export type Behaviour = v.InferOutput<typeof Behaviour>

export interface SentImage {
  /** The field or part it came in. */
  name: string
  mimeType: string
  bytes: Buffer
}

export interface RecordedRequest {
  /** Without its query, which no call has. */
  path: string
  /** The proof of who calls, as it came. */
  key: string
  model: string
  prompt: string
  /** Every further field that is plain text or a number. */
  fields: Record<string, unknown>
  images: SentImage[]
  /** The client hung up before its answer was complete. */
  abandoned: boolean
}

export interface Incoming {
  method: string
  path: string
  headers: Record<string, string>
  body: Buffer
}

export interface Answer {
  status: number
  body: string | Buffer
  headers?: Record<string, string>
}

/** What a provider makes of a call it understands. */
export interface Asked extends Omit<RecordedRequest, 'abandoned' | 'path' | 'key'> {
  wants: 'image' | 'text'
}

/** One provider's side of the stub. */
export interface Face {
  /** Who calls, or the provider's refusal. */
  authenticate(request: Incoming): { key: string } | Answer
  /** What is asked, or the provider's refusal of what its documentation does not allow. */
  understand(request: Incoming): Promise<Asked | Answer>
  ok(asked: Asked, sidePx: number): Promise<Answer> | Answer
  blocked(asked: Asked, sidePx: number): Promise<Answer> | Answer
  noImage(asked: Asked): Answer
  wrongMime(asked: Asked, sidePx: number): Promise<Answer> | Answer
  notAnImage(asked: Asked): Answer
  /** How a success begins that never ends. */
  endless(asked: Asked): Answer
  status(status: number): Answer
  modelGone(model: string): Answer
  rateLimited(retryAfterMs: number | undefined): Answer
  quotaSpent(): Answer
}

const FACES: Record<'openai' | 'anthropic' | 'stability', Face> = {
  openai: openaiFace,
  anthropic: anthropicFace,
  stability: stabilityFace,
}
export type StubProvider = keyof typeof FACES

interface StubOptions {
  /** 0, the default, takes a free one. */
  port?: number
  /** Width of the image in an answer, 64 by default. */
  sidePx?: number
}

const HISTORY_MAX = 500
const ENDLESS_BYTES_MAX = 512 * 1024 * 1024
const FILLER = Buffer.alloc(256 * 1024, 'A')

/**
 * Starts the stub on 127.0.0.1. `behave` with a list answers one request with each and then returns to 'ok'; with a single
 * behaviour it lasts. Other processes do the same with `POST /__behave` and read `GET /__requests`, where images are a length
 * and a SHA-256. An API key that contains "invalid" is refused, as is none.
 */
export async function startProviderStub(provider: StubProvider, { port = 0, sidePx = 64 }: StubOptions = {}) {
  const face = FACES[provider]
  const requests: RecordedRequest[] = []
  let lasting: Behaviour = { kind: 'ok' }
  let queue: Behaviour[] = []
  const behave = (next: Behaviour | Behaviour[]) => {
    lasting = Array.isArray(next) ? { kind: 'ok' } : next
    queue = Array.isArray(next) ? [...next] : []
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const incoming = await readRequest(request)
    if (incoming.path.startsWith('/__')) return send(response, control(incoming))
    const caller = face.authenticate(incoming)
    if ('status' in caller) return send(response, caller)
    const asked = await face.understand(incoming)
    if ('status' in asked) return send(response, asked)
    const { wants: _wants, ...sent } = asked
    const recorded = { path: incoming.path, key: caller.key, ...sent, abandoned: false }
    requests.push(recorded)
    if (requests.length > HISTORY_MAX) requests.shift()
    response.on('close', () => {
      recorded.abandoned = !response.writableFinished
    })
    await perform(face, queue.shift() ?? lasting, asked, response, sidePx)
  }

  function control({ method, path, body }: Incoming): Answer {
    const call = `${method} ${path}`
    if (call === 'POST /__behave') {
      const next = v.safeParse(v.union([v.array(Behaviour), Behaviour]), JSON.parse(body.toString() || 'null'))
      if (!next.success) return { status: 400, body: JSON.stringify(v.flatten(next.issues)) }
      behave(next.output)
    } else if (call === 'DELETE /__requests') requests.length = 0
    else if (call !== 'GET /__requests') return { status: 404, body: '{}' }
    return { status: 200, body: JSON.stringify(requests.map(summary)) }
  }

  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined))
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The stub has no port.')
  return {
    url: `http://127.0.0.1:${address.port}`,
    requests,
    behave,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

const summary = ({ images, ...request }: RecordedRequest) => ({
  ...request,
  images: images.map(({ name, mimeType, bytes }) => ({
    name,
    mimeType,
    byteLength: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
  })),
})

async function readRequest(request: IncomingMessage): Promise<Incoming> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk)
  const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]))
  return { method: request.method ?? '', path: request.url ?? '', headers, body: Buffer.concat(chunks) }
}

function send(response: ServerResponse, { status, body, headers }: Answer): void {
  const length = { 'content-length': Buffer.byteLength(body) }
  response.writeHead(status, { 'content-type': 'application/json', ...length, ...headers }).end(body)
}

function answerTo(face: Face, { kind, ...how }: Behaviour, asked: Asked, sidePx: number): Promise<Answer> | Answer {
  switch (kind) {
    case 'status':
      return face.status(how.status ?? 500)
    case 'modelGone':
      return how.models?.includes(asked.model) === false ? face.ok(asked, sidePx) : face.modelGone(asked.model)
    case 'rateLimited':
      return face.rateLimited(how.retryAfterMs)
    case 'quotaSpent':
      return face.quotaSpent()
    case 'html502':
      return {
        status: 502,
        body: '<html><title>502 Bad Gateway</title></html>',
        headers: { 'content-type': 'text/html' },
      }
    case 'blocked':
      return face.blocked(asked, sidePx)
    case 'noImage':
      return face.noImage(asked)
    case 'wrongMime':
      return face.wrongMime(asked, sidePx)
    case 'notAnImage':
      return face.notAnImage(asked)
    case 'oversized':
      return face.endless(asked)
    case 'raw': {
      const { status = 200, body = '', contentType = 'application/json' } = how
      return { status, body, headers: { 'content-type': contentType } }
    }
    default:
      return face.ok(asked, sidePx)
  }
}

async function perform(face: Face, behaviour: Behaviour, asked: Asked, response: ServerResponse, sidePx: number) {
  const { kind, delayMs = 0 } = behaviour
  if (delayMs > 0) await pause(delayMs, response)
  if (kind === 'hang') return
  const answer = await answerTo(face, behaviour, asked, sidePx)
  const body = Buffer.from(answer.body)
  if (kind === 'truncated') return send(response, { ...answer, body: body.subarray(0, body.length / 2) })
  if (kind === 'oversized') return await pour(response, answer)
  if (kind !== 'reset' && kind !== 'slowDrip') return send(response, answer)
  const headers = { 'content-type': 'application/json', ...answer.headers, 'content-length': body.length }
  response.writeHead(answer.status, headers)
  if (kind === 'reset') {
    response.write(body.subarray(0, body.length / 2), () => response.socket?.resetAndDestroy())
    return
  }
  for (let position = 0; position < body.length && !response.destroyed; position++) {
    response.write(body.subarray(position, position + 1))
    await pause(20, response)
  }
}

/** As fast as the client takes it, until it hangs up. */
async function pour(response: ServerResponse, { status, body, headers }: Answer): Promise<void> {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).write(body)
  const closed = once(response, 'close')
  for (let sent = 0; sent < ENDLESS_BYTES_MAX && !response.destroyed; sent += FILLER.length) {
    if (!response.write(FILLER)) await Promise.race([drained(response), closed])
  }
  response.destroy()
}

/** Without an error listener of its own, of which a long pour would gather hundreds. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    response.once('drain', resolve)
  })
}

/** Waits, or until the client hangs up. */
function pause(ms: number, response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms)
    function done() {
      clearTimeout(timer)
      response.off('close', done)
      resolve()
    }
    response.on('close', done)
  })
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      provider: { type: 'string', default: 'openai' },
      port: { type: 'string', default: '4011' },
      side: { type: 'string', default: '64' },
    },
  })
  const provider = v.parse(v.picklist(['openai', 'anthropic', 'stability']), values.provider)
  const { url } = await startProviderStub(provider, { port: Number(values.port), sidePx: Number(values.side) })
  console.log(`A stub of ${provider} listens on ${url}`)
}
