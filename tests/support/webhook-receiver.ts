// The operator's own program on loopback: receives webhooks, checks their signatures by the letter of Standard Webhooks, answers as told.
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'

const HISTORY_MAX = 500

export const WEBHOOK_SECRET = `whsec_${Buffer.alloc(32, 'a key for tests').toString('base64')}`

/** A status with an optional body, an answer that never comes, or one of status 500 that never ends. */
type Behaviour = { status: number; body?: string; headers?: Record<string, string> } | 'hang' | 'endless'

interface Received {
  id: string
  /** Whether the signature is that of WEBHOOK_SECRET over id, time and body, made in the last five minutes. */
  signed: boolean
  path: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look into events of every type and fail where one is another
  event: any
}

/** Starts the receiver on 127.0.0.1. `behave` with a list answers one request with each and then returns to 204. */
export async function startWebhookReceiver() {
  const received: Received[] = []
  let queue: Behaviour[] = []

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const body = Buffer.concat(chunks).toString()
    const id = String(request.headers['webhook-id'])
    received.push({ id, signed: isSigned(request, body), path: request.url ?? '', event: JSON.parse(body || 'null') })
    if (received.length > HISTORY_MAX) received.shift()
    const behaviour = queue.shift() ?? { status: 204 }
    if (behaviour === 'endless') return babble(response)
    if (behaviour !== 'hang') response.writeHead(behaviour.status, behaviour.headers).end(behaviour.body)
  }

  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The receiver has no port.')
  const url = `http://127.0.0.1:${address.port}/events`
  return {
    url,
    /** Environment variables that lead here. */
    variables: { OUTGOING_WEBHOOK_URL: url, OUTGOING_WEBHOOK_SECRET: WEBHOOK_SECRET },
    received,
    behave: (next: Behaviour[]) => {
      queue = [...next]
    },
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Writes until the other side has heard enough. */
function babble(response: ServerResponse): void {
  response.writeHead(500)
  const timer = setInterval(() => response.write('on and on '), 10)
  response.on('close', () => clearInterval(timer))
}

function isSigned({ headers }: IncomingMessage, body: string): boolean {
  const timestamp = String(headers['webhook-timestamp'])
  const key = Buffer.from(WEBHOOK_SECRET.slice('whsec_'.length), 'base64')
  const expected = createHmac('sha256', key).update(`${headers['webhook-id']}.${timestamp}.${body}`).digest('base64')
  const isFresh = /^\d+$/.test(timestamp) && Math.abs(Date.now() / 1000 - Number(timestamp)) < 300
  return isFresh && headers['webhook-signature'] === `v1,${expected}`
}
