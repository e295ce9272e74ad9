// What the stubs of all providers share: a loopback server that is steered in code or over HTTP, remembers, and misbehaves on the wire.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import * as v from 'valibot'

export interface Answer {
  status: number
  body: string | Buffer
  headers?: Record<string, string>
}

export interface Incoming {
  method: string
  path: string
  headers: Record<string, string>
  body: Buffer
}

interface Remembered {
  images: { bytes: Buffer }[]
  /** The client hung up before its answer was complete. */
  abandoned: boolean
}

/** Ways of sending an answer that no well-behaved server has. */
const BAD_MANNERS = ['truncated', 'reset', 'slowDrip'] as const

const HISTORY_MAX = 500

/**
 * Starts a stub on 127.0.0.1. `handle` answers a request with the behaviour whose turn it is, which it takes by `next`, and
 * `remember`s it. `behave` with a list answers one request with each and then returns to 'ok'; with a single behaviour it lasts.
 * Other processes do the same with `POST /__behave` and read `GET /__requests`, where images are a length and a SHA-256.
 */
export async function startStub<B extends { kind: string }, R extends Remembered>({
  port,
  Behaviour,
  ok,
  handle,
}: {
  /** 0 takes a free one. */
  port: number
  Behaviour: v.GenericSchema<unknown, B>
  ok: B
  handle(
    request: Incoming,
    response: ServerResponse,
    stub: { next(): B; remember(request: R): void },
  ): Promise<void> | void
}) {
  const requests: R[] = []
  let lasting = ok
  let queue: B[] = []
  const behave = (next: B | B[]) => {
    lasting = Array.isArray(next) ? ok : next
    queue = Array.isArray(next) ? [...next] : []
  }

  function control({ method, path, body }: Incoming): Answer {
    const call = `${method} ${path}`
    if (call === 'POST /__behave') {
      const next = v.safeParse(v.union([v.array(Behaviour), Behaviour]), JSON.parse(body.toString() || 'null'))
      if (!next.success) return { status: 400, body: JSON.stringify(next.issues.map(({ message }) => message)) }
      behave(next.output)
    } else if (call === 'DELETE /__requests') requests.length = 0
    else if (call !== 'GET /__requests') return { status: 404, body: '{}' }
    return { status: 200, body: JSON.stringify(requests.map(summary)) }
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const incoming = await readRequest(request)
    if (incoming.path.startsWith('/__')) return send(response, control(incoming))
    const remember = (recorded: R) => {
      requests.push(recorded)
      if (requests.length > HISTORY_MAX) requests.shift()
      response.on('close', () => {
        recorded.abandoned = !response.writableFinished
      })
    }
    await handle(incoming, response, { next: () => queue.shift() ?? lasting, remember })
  }

  const server = createServer((request, response) => {
    serve(request, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined))
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

function summary<R extends Remembered>({ images, ...request }: R) {
  return {
    ...request,
    images: images.map(({ bytes, ...image }) => ({
      ...image,
      byteLength: bytes.length,
      sha256: createHash('sha256').update(bytes).digest('hex'),
    })),
  }
}

async function readRequest(request: IncomingMessage): Promise<Incoming> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk)
  const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]))
  return { method: request.method ?? '', path: request.url ?? '', headers, body: Buffer.concat(chunks) }
}

/** Sends an answer: whole, or by the bad manners of this name. */
export async function sendAs(kind: string, response: ServerResponse, answer: Answer): Promise<void> {
  const manner = BAD_MANNERS.find((name) => name === kind)
  if (!manner) return send(response, answer)
  const body = Buffer.from(answer.body)
  if (manner === 'truncated') return send(response, { ...answer, body: body.subarray(0, body.length / 2) })
  response.writeHead(answer.status, headersOf(answer, body.length))
  if (manner === 'reset') {
    response.write(body.subarray(0, body.length / 2), () => response.socket?.resetAndDestroy())
    return
  }
  for (let position = 0; position < body.length && !response.destroyed; position++) {
    response.write(body.subarray(position, position + 1))
    await pause(20, response)
  }
}

export function send(response: ServerResponse, answer: Answer): void {
  response.writeHead(answer.status, headersOf(answer, Buffer.byteLength(answer.body))).end(answer.body)
}

function headersOf({ headers }: Answer, length: number): Record<string, string> {
  return { 'content-type': 'application/json', 'content-length': String(length), ...headers }
}

/** Waits, or until the client hangs up. */
export function pause(ms: number, response: ServerResponse): Promise<void> {
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
