// A loopback Resend: takes mails as its API does, keeps them for the test to read, and fails when it is told to.
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import * as v from 'valibot'

export const MAIL_API_KEY = 're_test_key'
export const MAIL_FROM = 'ColoringBook AI <hello@example.com>'

interface ReceivedMail {
  from: string
  to: string[]
  subject: string
  text: string
}

/** A status is answered and nothing taken; 'lost' takes the mail and hangs up; 'reset' hangs up; 'hang' says nothing. */
type Behaviour = number | 'lost' | 'reset' | 'hang'

const Body = v.strictObject({
  from: v.pipe(v.string(), v.includes('@')),
  to: v.pipe(v.array(v.pipe(v.string(), v.email())), v.minLength(1), v.maxLength(50)),
  subject: v.pipe(v.string(), v.minLength(1)),
  text: v.pipe(v.string(), v.minLength(1)),
})

export type MailStub = Awaited<ReturnType<typeof startMailStub>>

/** Each behaviour given to `behave` is for one request. An Idempotency-Key that comes again is answered, and sent no second time. */
export async function startMailStub() {
  const mails: ReceivedMail[] = []
  const ids = new Map<string, string>()
  const requests: { idempotencyKey: string }[] = []
  let queue: Behaviour[] = []

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    if (request.method !== 'POST' || request.url !== '/emails') return refuse(response, 404, 'not_found')
    if (request.headers.authorization !== `Bearer ${MAIL_API_KEY}`) return refuse(response, 401, 'invalid_api_key')
    const idempotencyKey = String(request.headers['idempotency-key'] ?? '')
    requests.push({ idempotencyKey })
    const behaviour = queue.shift()
    if (behaviour === 'hang') return
    if (behaviour === 'reset') return void request.socket.destroy()
    const body = v.safeParse(Body, JSON.parse(Buffer.concat(chunks).toString()))
    if (!body.success) return refuse(response, 422, 'validation_error')
    if (typeof behaviour === 'number') return refuse(response, behaviour, `Not sent to ${body.output.to}`)
    const id = ids.get(idempotencyKey) ?? crypto.randomUUID()
    if (!ids.has(idempotencyKey)) mails.push(body.output)
    ids.set(idempotencyKey, id)
    if (behaviour === 'lost') return void request.socket.destroy()
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ id }))
  }

  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The stub has no port.')
  const url = `http://127.0.0.1:${address.port}`

  const sentTo = (to: string) => mails.filter((mail) => mail.to.includes(to))
  return {
    url,
    /** What leads the application here. */
    variables: { RESEND_API_KEY: MAIL_API_KEY, RESEND_BASE_URL: url, MAIL_FROM },
    mails,
    requests,
    behave: (...next: Behaviour[]) => {
      queue = next
    },
    sentTo,
    /** The latest of so many mails to an address, once they are there. */
    async arrived(to: string, count = 1): Promise<ReceivedMail> {
      for (let waited = 0; waited < 500; waited += 1) {
        const mail = sentTo(to).at(count - 1)
        if (mail) return mail
        await pause(10)
      }
      throw new Error(`No mail number ${count} to ${to} in five seconds.`)
    },
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** The token in the link of a mail. */
export function tokenIn({ text }: { text: string }, parameter: 'verify' | 'reset' = 'verify'): string {
  const [, token] = new RegExp(`^http://localhost/\\?${parameter}=([\\w-]{43})$`, 'm').exec(text) ?? []
  if (token === undefined) throw new Error(`There is no link in: ${text}`)
  return token
}

function refuse(response: ServerResponse, statusCode: number, message: string): void {
  const body = JSON.stringify({ statusCode, name: 'refused', message })
  response.writeHead(statusCode, { 'content-type': 'application/json' }).end(body)
}
