// A loopback Clerk: the part of its API that is called here, in its replies, and its signed webhooks.
import { createHmac, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { vi } from 'vitest'
import { type App, call, type Reply, type TestUser } from './app.ts'
import { type ClerkInstance, clerkIdOf, keySet, mintToken, newInstance, type TokenOptions } from './clerk-tokens.ts'

/** A user in Clerk's JSON, as far as it matters here. */
export interface StubUser {
  id: string
  object: 'user'
  username: string | null
  first_name: string | null
  last_name: string | null
  primary_email_address_id: string | null
  email_addresses: {
    id: string
    object: 'email_address'
    email_address: string
    linked_to: never[]
    verification: { status: 'verified' | 'unverified'; strategy: string; attempts: number; expire_at: null }
  }[]
  phone_numbers: never[]
  external_accounts: never[]
  external_id: string | null
  public_metadata: Record<string, unknown>
  private_metadata: Record<string, unknown>
  unsafe_metadata: Record<string, unknown>
  banned: boolean
  locked: boolean
  created_at: number
  updated_at: number
  last_sign_in_at: number | null
}

interface UserDraft {
  id?: string
  name?: string | null
  /** null for a user who signs in otherwise. */
  email?: string | null
  verified?: boolean
  banned?: boolean
  updatedAt?: number
}

/** A body other than an object goes as it is, with the type text/html. */
type StubAnswer = { status: number; body: unknown } | 'hang' | undefined

export interface ClerkStub {
  url: string
  instance: ClerkInstance
  /** Environment under which the application signs people in through this Clerk. */
  variables: Record<string, string>
  users: Map<string, StubUser>
  /** What was asked, oldest first, as `GET /v1/users/user_…`. */
  calls: string[]
  /** An answer in place of the usual one. */
  answer: ((call: string) => StubAnswer | Promise<StubAnswer>) | undefined
  addUser(draft?: UserDraft): StubUser
  token(userId: string, options?: TokenOptions): string
  close(): Promise<void>
}

export const SIGNING_SECRET = `whsec_${Buffer.from('a signing secret of 32 bytes ok!').toString('base64')}`

const NOT_FOUND = { status: 404, body: clerkError('resource_not_found', 'not found') }
const USER_PATH = /^\/v1\/users\/(user_\w+)(?:\/(ban|unban))?$/

let drafts = 0

/** A user of Clerk, known or not to any stub. */
export function clerkUser({
  id,
  name = 'Ada',
  email,
  verified = true,
  banned = false,
  updatedAt,
}: UserDraft = {}): StubUser {
  drafts += 1
  const now = updatedAt ?? Date.now()
  const address = email === undefined ? `ada.${process.pid}.${drafts}.${Date.now()}@example.com` : email
  const emailId = clerkIdOf('idn')
  const [first = null, ...rest] = name?.split(' ') ?? []
  return {
    id: id ?? clerkIdOf('user'),
    object: 'user',
    username: null,
    first_name: first,
    last_name: rest.join(' ') || null,
    primary_email_address_id: address === null ? null : emailId,
    email_addresses:
      address === null
        ? []
        : [
            {
              id: emailId,
              object: 'email_address',
              email_address: address,
              linked_to: [],
              verification: {
                status: verified ? 'verified' : 'unverified',
                strategy: 'email_code',
                attempts: 1,
                expire_at: null,
              },
            },
          ],
    phone_numbers: [],
    external_accounts: [],
    external_id: null,
    public_metadata: {},
    private_metadata: {},
    unsafe_metadata: {},
    banned,
    locked: false,
    created_at: now,
    updated_at: now,
    last_sign_in_at: null,
  }
}

/** Starts a Clerk on 127.0.0.1 that knows nobody. The SDK reads a reply only when its type is exactly application/json. */
export async function startClerkStub(instance = newInstance()): Promise<ClerkStub> {
  const users = new Map<string, StubUser>()
  const calls: string[] = []
  const server = createServer((request, response) => {
    const what = `${request.method} ${request.url}`
    calls.push(what)
    const isOurs = request.headers.authorization === `Bearer ${instance.secretKey}`
    const refusal = { status: 401, body: clerkError('authentication_invalid', 'Invalid authentication') }
    Promise.resolve(stub.answer?.(what))
      .then((answer) => send(response, answer ?? (isOurs ? usual(what) : refusal)))
      .catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined))
  })
  function usual(what: string): StubAnswer {
    const [method, path = ''] = what.split(' ')
    if (path === '/v1/jwks') return { status: 200, body: keySet(instance) }
    const [, id = '', act] = USER_PATH.exec(path) ?? []
    const user = users.get(id)
    if (!user) return NOT_FOUND
    if (method === 'DELETE') {
      users.delete(id)
      return { status: 200, body: { object: 'user', id, deleted: true } }
    }
    if (act) Object.assign(user, { banned: act === 'ban', updated_at: Math.max(Date.now(), user.updated_at + 1) })
    return { status: 200, body: user }
  }
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The stub has no port.')
  const url = `http://127.0.0.1:${address.port}`
  const stub: ClerkStub = {
    url,
    instance,
    variables: clerkVariables(instance, url),
    users,
    calls,
    answer: undefined,
    addUser(draft) {
      const user = clerkUser(draft)
      users.set(user.id, user)
      return user
    },
    token: (userId, options) => mintToken(instance, userId, options),
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return stub
}

/** What comes of `ask` when Clerk never answers. Throws unless that comes after exactly so many milliseconds. */
export async function waitsInSilence<T>(clerk: ClerkStub, ms: number, ask: () => Promise<T>): Promise<T> {
  const { promise: asked, resolve } = Promise.withResolvers<void>()
  clerk.answer = () => {
    resolve()
    return 'hang'
  }
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  try {
    let isOver = false
    const outcome = ask().finally(() => {
      isOver = true
    })
    await asked
    await vi.advanceTimersByTimeAsync(ms - 1)
    if (isOver) throw new Error(`Clerk was given less than ${ms} ms.`)
    await vi.advanceTimersByTimeAsync(1)
    if (!isOver) throw new Error(`Clerk was given more than ${ms} ms.`)
    return await outcome
  } finally {
    vi.useRealTimers()
  }
}

/** The environment of an application that signs people in through Clerk. */
export function clerkVariables(instance: ClerkInstance, apiUrl: string): Record<string, string> {
  return {
    FORK__AUTH__PROVIDER: 'clerk',
    FORK__AUTH__CLERK__PUBLISHABLE_KEY: instance.publishableKey,
    CLERK_SECRET_KEY: instance.secretKey,
    CLERK_JWT_KEY: instance.jwtKey,
    CLERK_API_URL: apiUrl,
    CLERK_WEBHOOK_SIGNING_SECRET: SIGNING_SECRET,
  }
}

function clerkError(code: string, message: string) {
  return { errors: [{ code, message, long_message: message, meta: {} }], clerk_trace_id: 'trace_of_the_stub' }
}

function send(response: ServerResponse, answer: StubAnswer): void {
  if (answer === undefined || answer === 'hang') return
  const isJson = typeof answer.body === 'object'
  response.writeHead(answer.status, { 'content-type': isJson ? 'application/json' : 'text/html' })
  response.end(isJson ? JSON.stringify(answer.body) : String(answer.body))
}

/** A user of Clerk who has called once, as `givenUser` makes one of local sign-in. */
export async function givenClerkUser(app: App, stub: ClerkStub, name = 'Ada'): Promise<TestUser & { clerkId: string }> {
  drafts += 1
  const email = `${name.toLowerCase()}.${process.pid}.${drafts}.${Date.now()}@example.com`
  const { id: clerkId } = stub.addUser({ name, email })
  const token = stub.token(clerkId)
  const { status, json } = await call(app, 'GET /api/user/profile', { token })
  if (status !== 200) throw new Error(`The first call failed: ${JSON.stringify(json)}`)
  return { id: json.id, email, password: '', token, refreshToken: '', clerkId }
}

interface EventOptions {
  id?: string
  /** Seconds that the signature is old. */
  age?: number
  secret?: string
  clientIp?: string
}

/** Delivers an event as Clerk does: `data` is a user, or what is left of a deleted one. */
export async function deliverClerkEvent(
  app: App,
  type: string,
  data: unknown,
  { id = clerkIdOf('msg'), age = 0, secret = SIGNING_SECRET, clientIp = '' }: EventOptions = {},
): Promise<Reply> {
  const body = JSON.stringify({
    data,
    object: 'event',
    type,
    timestamp: Date.now(),
    instance_id: 'ins_1',
    event_attributes: { http_request: { client_ip: clientIp, user_agent: '' } },
  })
  return await call(app, 'POST /api/webhooks/clerk', { body, headers: signed(body, { id, age, secret }) })
}

export function signed(body: string, { id, age, secret }: { id: string; age: number; secret: string }) {
  const timestamp = String(Math.floor(Date.now() / 1000) - age)
  const key = Buffer.from(secret.slice('whsec_'.length), 'base64')
  const signature = createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')
  return {
    'content-type': 'application/json',
    'svix-id': id,
    'svix-timestamp': timestamp,
    'svix-signature': `v1,${signature}`,
  }
}

/** What Clerk tells of a deleted user. */
export const deletedUser = (id: string) => ({ id, object: 'user', deleted: true })

/** A signing secret that is not the application's. */
export const otherSecret = () => `whsec_${randomBytes(24).toString('base64')}`
