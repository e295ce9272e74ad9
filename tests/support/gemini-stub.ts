// A loopback Gemini: generateContent with Google's replies, errors and bad moods, steered in code or over HTTP.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { parseArgs } from 'node:util'
import * as v from 'valibot'
import { type Answer, answerTo, Behaviour, googleError, JSON_TYPE, refuseKey } from './gemini-replies.ts'

interface RecordedRequest {
  model: string
  apiKey: string
  prompt: string
  responseModalities: string[]
  images: { mimeType: string; bytes: Buffer }[]
  /** The client hung up before its answer was complete. */
  abandoned: boolean
}

interface StubOptions {
  /** 0, the default, takes a free one. */
  port?: number
  /** Side of the image in an answer, 64 by default; 1024 makes a PNG of 1.05 MB. */
  sidePx?: number
  /** Neither reads nor records requests: for benchmarks, where the stub must cost little. */
  lean?: boolean
}

const RequestBody = v.strictObject({
  contents: v.pipe(
    v.array(
      v.object({
        role: v.optional(v.picklist(['user', 'model'])),
        parts: v.array(
          v.strictObject({
            text: v.optional(v.string()),
            inlineData: v.optional(v.strictObject({ mimeType: v.string(), data: v.string() })),
          }),
        ),
      }),
    ),
    v.minLength(1),
  ),
  generationConfig: v.optional(
    v.looseObject({ responseModalities: v.optional(v.array(v.picklist(['TEXT', 'IMAGE']))) }),
  ),
  safetySettings: v.optional(v.array(v.unknown())),
})

const MODEL_PATH = /^\/v1(?:beta)?\/models\/([\w.-]+):generateContent$/
const INPUT_MIME_TYPES = ['image/png', 'image/jpeg', 'image/webp', 'image/heic', 'image/heif']
const NO_SUCH_PATH = { status: 404, body: '<title>Error 404 (Not Found)!!1</title>', contentType: 'text/html' }
const HISTORY_MAX = 500

/**
 * Starts the stub on 127.0.0.1. `behave` with a list answers one request with each and then returns to 'ok'; with a single
 * behaviour it lasts. Other processes do the same with `POST /__behave` and read `GET /__requests`, where images are a length
 * and a SHA-256. An API key that contains "invalid" is refused, as is none.
 */
export async function startGeminiStub({ port = 0, sidePx = 64, lean = false }: StubOptions = {}) {
  const requests: RecordedRequest[] = []
  let lasting: Behaviour = { kind: 'ok' }
  let queue: Behaviour[] = []
  const behave = (next: Behaviour | Behaviour[]) => {
    lasting = Array.isArray(next) ? { kind: 'ok' } : next
    queue = Array.isArray(next) ? [...next] : []
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method, url = '', headers } = request
    if (url.startsWith('/__')) return send(response, control(`${method} ${url}`, await read(request)))
    const model = method === 'POST' ? MODEL_PATH.exec(url)?.[1] : undefined
    const body = await read(request)
    if (model === undefined) return send(response, NO_SUCH_PATH)
    const apiKey = String(headers['x-goog-api-key'] ?? '')
    const recorded: RecordedRequest = {
      model,
      apiKey,
      prompt: '',
      responseModalities: lean ? ['TEXT', 'IMAGE'] : [],
      images: [],
      abandoned: false,
    }
    const refusal = refuseKey(apiKey) ?? (lean ? undefined : record(recorded, body))
    if (!lean) requests.push(recorded)
    if (requests.length > HISTORY_MAX) requests.shift()
    response.on('close', () => {
      recorded.abandoned = !response.writableFinished
    })
    if (refusal) return send(response, refusal)
    await perform(queue.shift() ?? lasting, recorded, response, sidePx)
  }

  function control(call: string, body: Buffer): Answer {
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
  images: images.map(({ mimeType, bytes }) => ({
    mimeType,
    byteLength: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
  })),
})

async function read(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk)
  return Buffer.concat(chunks)
}

function send(response: ServerResponse, { status, body, contentType = JSON_TYPE }: Answer): void {
  response.writeHead(status, { 'content-type': contentType, 'content-length': Buffer.byteLength(body) }).end(body)
}

/** Notes what was asked, or gives Google's refusal of a body it does not understand. */
function record(recorded: RecordedRequest, raw: Buffer): Answer | undefined {
  let json: unknown
  try {
    json = JSON.parse(raw.toString())
  } catch {
    return invalidArgument('Invalid JSON payload received.')
  }
  const body = v.safeParse(RequestBody, json)
  if (!body.success) return invalidArgument(`Invalid JSON payload received. ${v.summarize(body.issues)}`)
  recorded.responseModalities = body.output.generationConfig?.responseModalities ?? ['TEXT']
  for (const { text = '', inlineData } of body.output.contents.flatMap(({ parts }) => parts)) {
    recorded.prompt += text
    if (inlineData === undefined) continue
    const { mimeType, data } = inlineData
    const bytes = Buffer.from(data, 'base64')
    if (!INPUT_MIME_TYPES.includes(mimeType)) return invalidArgument(`Unsupported MIME type: ${mimeType}`)
    if (bytes.toString('base64') !== data) return invalidArgument('Base64 decoding failed')
    recorded.images.push({ mimeType, bytes })
  }
  return undefined
}

const invalidArgument = (message: string) => googleError(400, 'INVALID_ARGUMENT', message)

async function perform(behaviour: Behaviour, request: RecordedRequest, response: ServerResponse, sidePx: number) {
  const { kind, delayMs = 0 } = behaviour
  if (delayMs > 0) await pause(delayMs, response)
  if (kind === 'hang') return
  const answer = await answerTo(behaviour, request, sidePx)
  if (kind !== 'truncated' && kind !== 'reset' && kind !== 'slowDrip') return send(response, answer)
  const body = Buffer.from(answer.body)
  if (kind === 'truncated') return send(response, { ...answer, body: body.subarray(0, body.length / 2) })
  response.writeHead(200, { 'content-type': JSON_TYPE, 'content-length': body.length })
  if (kind === 'reset')
    return response.write(body.subarray(0, body.length / 2), () => response.socket?.resetAndDestroy())
  for (let position = 0; position < body.length && !response.destroyed; position++) {
    response.write(body.subarray(position, position + 1))
    await pause(20, response)
  }
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
      port: { type: 'string', default: '4010' },
      side: { type: 'string', default: '64' },
      lean: { type: 'boolean' },
    },
  })
  const stub = await startGeminiStub({
    port: Number(values.port),
    sidePx: Number(values.side),
    lean: values.lean ?? false,
  })
  console.log(`A Gemini stub listens on ${stub.url}`)
}
