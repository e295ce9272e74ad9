// A loopback OpenAI, Anthropic or Stability AI: their replies, errors and bad moods, steered in code or over HTTP.
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { parseArgs } from 'node:util'
import * as v from 'valibot'
import { anthropicFace } from './anthropic-replies.ts'
import { openaiFace } from './openai-replies.ts'
import { stabilityFace } from './stability-replies.ts'
import { type Answer, type Incoming, pause, send, sendAs, startStub } from './stub-server.ts'

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

const ENDLESS_BYTES_MAX = 512 * 1024 * 1024
const FILLER = Buffer.alloc(256 * 1024, 'A')

/** Starts the stub; see startStub for how it is steered. An API key that contains "invalid" is refused, as is none. */
export async function startProviderStub(provider: StubProvider, { port = 0, sidePx = 64 }: StubOptions = {}) {
  const face = FACES[provider]
  return await startStub<Behaviour, RecordedRequest>({
    port,
    Behaviour,
    ok: { kind: 'ok' },
    async handle(incoming, response, { next, remember }) {
      const caller = face.authenticate(incoming)
      if ('status' in caller) return send(response, caller)
      const asked = await face.understand(incoming)
      if ('status' in asked) return send(response, asked)
      const { wants: _wants, ...sent } = asked
      remember({ path: incoming.path, key: caller.key, ...sent, abandoned: false })
      await perform(face, next(), asked, response, sidePx)
    },
  })
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
  if (kind === 'oversized') return await pour(response, answer)
  await sendAs(kind, response, answer)
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
