// An Upstash-compatible REST server in front of a real Redis: the real @vercel/kv client runs against it, in tests and locally.
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis'

const REDIS_URL = 'redis://127.0.0.1:6379'
const BODY_BYTES_MAX = 10_000_000

/** How the server is broken: sockets are cut before an answer, after the work and before its answer, every answer is a 503, or none ever comes. */
type Fault = 'cut' | 'lost' | 'unavailable' | 'hang'
type Command = [name: string, ...args: string[]]
type Reply = { result: unknown } | { error: string }

interface Options {
  token: string
  redisUrl?: string
  port?: number
  /** Put before every key, so that suites sharing one Redis never meet. */
  keyPrefix?: string
}

export interface UpstashRest {
  url: string
  token: string
  /** HTTP requests received so far, refused ones included. */
  requests(): number
  /** Breaks the server on purpose, at once, and heals it with `false`; `true` is 'cut'. */
  down(how: Fault | boolean): void
  close(): Promise<void>
}

/** Starts the server on a free port; rejects when Redis cannot be reached. */
export async function startUpstashRest({
  token,
  redisUrl = REDIS_URL,
  port = 0,
  keyPrefix = '',
}: Options): Promise<UpstashRest> {
  // One attempt and RESP2: a missing Redis is an error at once, and replies have the shapes Upstash sends.
  const redis = new Redis(redisUrl, { keyPrefix, protocol: 2, lazyConnect: true, retryStrategy: () => null })
  redis.on('error', () => {}) // Reported by the command or the connect() that failed; an unheard event would end the process.
  await redis.connect()
  const run = commandRunner(redis)
  let requestCount = 0
  let fault: Fault | undefined

  const server = createServer(async (request, response) => {
    requestCount += 1
    if (fault === 'cut') return request.socket.destroy()
    if (fault === 'hang') return
    if (fault === 'unavailable') return send(response, 503, { error: 'Service Unavailable' })
    if (fault === 'lost') {
      response.writeHead = () => {
        request.socket.destroy()
        return response
      }
    }
    await answer(request, response, token, run)
  })
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The server has no port.')

  return {
    url: `http://127.0.0.1:${address.port}`,
    token,
    requests: () => requestCount,
    down: (how) => {
      fault = how === true ? 'cut' : how || undefined
    },
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      redis.disconnect()
    },
  }
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  token: string,
  run: ReturnType<typeof commandRunner>,
) {
  if (request.headers.authorization !== `Bearer ${token}`) return send(response, 401, { error: 'Unauthorized' })
  if (request.method !== 'POST') return send(response, 405, { error: 'Only POST is served.' })
  try {
    const body = await readJson(request)
    const path = request.url?.split('?')[0] ?? '/'
    const encode = request.headers['upstash-encoding'] === 'base64' ? toBase64 : (reply: Reply) => reply
    if (path === '/pipeline') return send(response, 200, (await run.pipeline(commandsOf(body))).map(encode))
    if (path === '/multi-exec') return send(response, 200, (await run.multiExec(commandsOf(body))).map(encode))
    return send(response, 200, encode({ result: await run.one(commandOf(body)) }))
  } catch (error) {
    send(response, 400, { error: messageOf(error) })
  }
}

/** Runs commands on Redis the way Upstash does, and undoes the two differences between the services. */
function commandRunner(redis: Redis) {
  // @upstash/ratelimit's scripts open with a flag only Upstash knows. Redis refuses it, and without it the script has
  // another sha: the client's sha is translated from here on.
  const strippedShas = new Map<string, string>()

  function translate([name, ...args]: Command): Command {
    const [script, ...rest] = args
    if (script === undefined) return [name]
    if (/^eval(_ro)?$/i.test(name)) {
      const stripped = script.replace(/^#!lua flags=allow-key-locking\n/, '\n')
      strippedShas.set(sha1(script), sha1(stripped))
      return [name, stripped, ...rest]
    }
    if (/^evalsha(_ro)?$/i.test(name)) return [name, strippedShas.get(script) ?? script, ...rest]
    return [name, ...args]
  }

  async function all(batch: ReturnType<Redis['pipeline']>, commands: Command[]): Promise<Reply[]> {
    for (const command of commands) batch.call(...translate(command))
    const replies = await batch.exec()
    if (replies === null) throw new Error('EXECABORT Transaction discarded because of previous errors.')
    return replies.map(([error, reply]) => (error ? { error: error.message } : { result: flat(reply) }))
  }

  return {
    one: async (command: Command) => flat(await redis.call(...translate(command))),
    pipeline: (commands: Command[]) => all(redis.pipeline(), commands),
    multiExec: (commands: Command[]) => all(redis.multi(), commands),
  }
}

/** ioredis makes objects of HGETALL and its like; the wire format is a flat list of names and values. */
function flat(reply: unknown): unknown {
  if (reply === null || reply === undefined) return null
  return typeof reply === 'object' && !Array.isArray(reply) ? Object.entries(reply).flat() : reply
}

/** Base64 of every string in a reply, however deep; "OK" stays as it is, as the client expects. */
function toBase64(reply: Reply): Reply {
  const encode = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(encode)
    return typeof value === 'string' && value !== 'OK' ? Buffer.from(value).toString('base64') : value
  }
  return 'result' in reply ? { result: encode(reply.result) } : reply
}

function commandsOf(body: unknown): Command[] {
  if (!Array.isArray(body)) throw new Error('ERR an array of commands was expected')
  return body.map(commandOf)
}

function commandOf(body: unknown): Command {
  if (!Array.isArray(body) || body.length === 0) throw new Error('ERR a command is a filled array')
  const [name, ...args] = body.map((part) => (typeof part === 'string' ? part : JSON.stringify(part)))
  return [name ?? '', ...args]
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request) {
    bytes += chunk.length
    if (bytes > BODY_BYTES_MAX) throw new Error('ERR max request size exceeded')
    chunks.push(chunk)
  }
  return JSON.parse(Buffer.concat(chunks).toString())
}

function send(response: ServerResponse, status: number, body: unknown) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

function sha1(text: string) {
  return createHash('sha1').update(text).digest('hex')
}

function messageOf(error: unknown) {
  return error instanceof Error ? error.message : String(error)
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '8079' },
      token: { type: 'string', default: 'local' },
      redis: { type: 'string', default: REDIS_URL },
    },
  })
  const server = await startUpstashRest({ port: Number(values.port), token: values.token, redisUrl: values.redis })
  console.log(`KV_REST_API_URL=${server.url} KV_REST_API_TOKEN=${server.token}`)
}
