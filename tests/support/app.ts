// The application under test, in this process: from source or as Vercel built it, on the stores of the current lane.
import { readFileSync } from 'node:fs'
import { afterAll } from 'vitest'
import { currentLane, openStores, type Stores } from './lane.ts'

export interface App {
  fetch(request: Request): Promise<Response>
  stores: Stores
}

/** High enough that only the tests of the limits meet them. */
const WIDE_LIMITS = {
  FORK__LIMITS__GENERATE__PER_MINUTE: '100000',
  FORK__LIMITS__SIGN_IN__PER_MINUTE: '100000',
  FORK__LIMITS__READ__PER_MINUTE: '100000',
}

const started: Stores[] = []

afterAll(async () => {
  const { closeDatabase } = await import('../../db/client.ts')
  await closeDatabase()
  for (const stores of started) await stores.close()
})

/** Starts the application once per test file; the environment is set before any of its modules is loaded. */
export async function startApp(variables: Record<string, string> = {}): Promise<App> {
  const stores = await openStores()
  const secret = { AUTH_JWT_SECRET: 'a secret of the tests that is long enough' }
  Object.assign(process.env, secret, WIDE_LIMITS, stores.variables, variables)
  const fetch = currentLane() === 'built' ? await builtFetch() : sourceFetch
  started.push(stores)
  return { fetch, stores }
}

async function sourceFetch(request: Request): Promise<Response> {
  const [, , resource, name] = new URL(request.url).pathname.split('/')
  const module = await (resource === 'webhooks'
    ? import(`../../api/webhooks/${name}.ts`)
    : import(`../../api/${resource}.ts`))
  return await module.default.fetch(request)
}

async function builtFetch(): Promise<App['fetch']> {
  const { load } = await import('../../scripts/serve-output.ts')
  const { fetch } = await load('.vercel/output')
  return fetch
}

export interface CallOptions {
  token?: string | undefined
  /** An object goes as JSON, bytes as they are. */
  body?: unknown
  headers?: Record<string, string>
  ip?: string
}

export interface Reply {
  status: number
  headers: Headers
  bytes: Buffer
  /** The parsed JSON; undefined when the reply is none. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into replies of every shape and fail where it is another
  json: any
}

/** Calls the application: `call(app, 'POST /api/auth/login', { body: {…} })`. */
export async function call(
  app: App,
  what: string,
  { token, body, headers = {}, ip }: CallOptions = {},
): Promise<Reply> {
  const [method = 'GET', path = '/'] = what.split(' ')
  const plain = body === undefined || body instanceof Uint8Array || body instanceof FormData || typeof body === 'string'
  const request = new Request(`http://localhost${path}`, {
    method,
    body: plain ? ((body ?? null) as NonNullable<RequestInit['body']> | null) : JSON.stringify(body),
    headers: {
      ...(!plain && { 'content-type': 'application/json' }),
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(ip !== undefined && { 'x-real-ip': ip }),
      ...headers,
    },
  })
  const response = await app.fetch(request)
  const bytes = Buffer.from(await response.arrayBuffer())
  const isJson = response.headers.get('content-type')?.includes('json') ?? false
  return {
    status: response.status,
    headers: response.headers,
    bytes,
    json: isJson && bytes.length > 0 ? JSON.parse(bytes.toString()) : undefined,
  }
}

export interface TestUser {
  id: string
  email: string
  password: string
  token: string
  refreshToken: string
}

let users = 0

/** A new user, registered over the API. */
export async function givenUser(app: App, name = 'Ada'): Promise<TestUser> {
  users += 1
  const email = `${name.toLowerCase()}.${process.pid}.${users}.${Date.now()}@example.com`
  const password = 'correct horse battery staple'
  const { status, json } = await call(app, 'POST /api/auth/register', { body: { name, email, password } })
  if (status !== 201) throw new Error(`Registering failed: ${JSON.stringify(json)}`)
  return { id: json.user.id, email, password, token: json.accessToken, refreshToken: json.refreshToken }
}

/** What the user can spend and what is held, as the API says. */
export async function balanceOf(app: App, user: TestUser) {
  const { json } = await call(app, 'GET /api/billing/status', { token: user.token })
  return json.balance as {
    trialGenerations: number
    planTokens: number
    purchasedTokens: number
    reservedTokens: number
    tokens: number
  }
}

export function photo(name: 'cat' | 'coffee' | 'astronaut' | 'portrait-with-gps' = 'cat'): Buffer {
  return readFileSync(new URL(`../fixtures/photos/${name}.jpg`, import.meta.url))
}

/** Posts a photo as raw bytes. */
export async function processImage(
  app: App,
  user: TestUser,
  options: CallOptions & { query?: string; image?: Buffer } = {},
): Promise<Reply> {
  const { query = '', image = photo(), headers, ...rest } = options
  return await call(app, `POST /api/process-image${query}`, {
    token: user.token,
    body: image,
    ...rest,
    headers: { 'content-type': 'image/jpeg', ...headers },
  })
}
