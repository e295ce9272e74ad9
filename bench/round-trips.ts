// How often each route waits for PostgreSQL and for the KV store on its happy path: counted, not timed.
import { randomUUID } from 'node:crypto'
import { globSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { closeDatabase } from '../db/client.ts'
import { startGeminiStub } from '../tests/support/gemini-stub.ts'
import { startUpstashRest } from '../tests/support/upstash-rest.ts'
import { photoOf } from './photo.ts'
import { printTable, saveResults } from './report.ts'
import { query, REDIS_URL, scratchDatabase } from './stores.ts'
import { measureWaits } from './waits.ts'

interface Call {
  path?: string
  body?: unknown
  headers?: Record<string, string>
}

interface Session {
  user: { id: string; email: string }
  accessToken: string
  refreshToken: string
}

interface FetchHandler {
  routes: Record<string, unknown>
  fetch(request: Request): Promise<Response>
}

const PASSWORD = 'correct horse battery staple'
const database = await scratchDatabase()
const token = randomUUID()
const kv = await startUpstashRest({ token, redisUrl: REDIS_URL, keyPrefix: `bench:${token}:` })
const gemini = await startGeminiStub({ lean: true })
Object.assign(process.env, {
  POSTGRES_URL: database.url,
  KV_REST_API_URL: kv.url,
  KV_REST_API_TOKEN: token,
  GEMINI_API_KEY: 'bench',
  GEMINI_BASE_URL: gemini.url,
  AUTH_JWT_SECRET: randomUUID(),
  CRON_SECRET: 'bench',
})
const print = console.log
console.log = () => {} // Where the product writes a line for every request.
const waits = measureWaits({ kv: undefined, provider: undefined })
const photo = await photoOf(600, 400)

/** How each route is called; every call makes what it uses up. A route without one is listed, so that none is forgotten. */
const CALLS: Record<string, () => Promise<Call>> = {
  'POST /api/process-image': async () => image(await signUp()),
  'POST /api/process-image +key': async () => image(await signUp(), { 'idempotency-key': randomUUID() }),
  'POST /api/auth/register': async () => ({ body: { name: 'Ada', email: newEmail(), password: PASSWORD } }),
  'POST /api/auth/login': async () => ({ body: { email: (await signUp()).user.email, password: PASSWORD } }),
  'POST /api/auth/refresh': async () => ({ body: { refreshToken: (await signUp()).refreshToken } }),
  'POST /api/auth/logout': async () => ({ body: { refreshToken: (await signUp()).refreshToken } }),
  'POST /api/auth/password': async () => ({
    body: { currentPassword: PASSWORD, newPassword: `${PASSWORD}r` },
    headers: bearer(await signUp()),
  }),
  'GET /api/auth/sessions': asUser,
  'DELETE /api/auth/sessions/:id': async () => {
    const session = await signUp()
    const response = await fetchRoute('GET /api/auth/sessions', { headers: bearer(session) })
    const { data }: { data: { id: string }[] } = JSON.parse(await response.text())
    return { path: `/api/auth/sessions/${data[0]?.id}`, headers: bearer(session) }
  },
  'GET /api/user/profile': asUser,
  'PUT /api/user/profile': async () => ({ body: { name: 'Grace' }, headers: bearer(await signUp()) }),
  'GET /api/user/usage': asUser,
  'GET /api/user/usage/summary': asUser,
  'GET /api/billing/status': asUser,
  'GET /api/billing/catalogue': async () => ({}),
  'POST /api/admin/users/:id/grant': async () => {
    const admin = await signUp()
    await query(database.url, `update users set role = 'admin' where id = '${admin.user.id}'`)
    const path = `/api/admin/users/${admin.user.id}/grant`
    return { path, body: { tokens: 1, reason: 'bench' }, headers: bearer(admin) }
  },
  'GET /api/config': async () => ({}),
  'GET /api/health': async () => ({}),
  'GET /api/health/ready': async () => ({}),
  'GET /api/jobs/sweep': async () => ({ headers: { authorization: 'Bearer bench' } }),
  'POST /api/jobs/sweep': async () => ({ headers: { authorization: 'Bearer bench' } }),
}

const handlers = new Map<string, FetchHandler>()
for (const file of globSync('../api/**/*.ts', { cwd: fileURLToPath(new URL('.', import.meta.url)) })) {
  const { default: handler } = await import(pathToFileURL(fileURLToPath(new URL(file, import.meta.url))).href)
  for (const route of Object.keys(handler.routes ?? {})) handlers.set(route.replace(/\s+/, ' '), handler)
}

try {
  const rows = []
  for (const [route, prepare] of Object.entries(CALLS)) rows.push(await count(route, prepare))
  const uncounted = [...handlers.keys()].filter((route) => !(route in CALLS))
  console.log = print
  printTable('round-trips: of one request on its happy path, everything warm', rows, [
    'A transaction costs two more than its statements: BEGIN and COMMIT.',
    ...(uncounted.length > 0 ? [`Not counted, since no call is written for them: ${uncounted.join(', ')}.`] : []),
  ])
  saveResults('round-trips', { rows, uncounted })
} finally {
  console.log = print
  await closeDatabase()
  await Promise.all([kv.close(), gemini.close()])
  await database.drop()
}

/** Calls the route twice, since the first request of a process also connects and prepares, and counts the second. */
async function count(route: string, prepare: () => Promise<Call>) {
  await fetchRoute(route, await prepare())
  const call = await prepare()
  const [sqlBefore, kvBefore] = [waits().sqlQueries, kv.requests()]
  const response = await fetchRoute(route, call)
  await response.arrayBuffer()
  return { route, status: response.status, sql: waits().sqlQueries - sqlBefore, kv: kv.requests() - kvBefore }
}

async function fetchRoute(route: string, { path, body, headers = {} }: Call): Promise<Response> {
  const [method = '', pattern = ''] = route.split(' ')
  const handler = handlers.get(`${method} ${pattern}`)
  if (!handler) throw new Error(`There is no route ${method} ${pattern}.`)
  const isJson = body !== undefined && !Buffer.isBuffer(body)
  const response = await handler.fetch(
    new Request(`http://localhost${path ?? pattern}`, {
      method,
      body: isJson ? JSON.stringify(body) : Buffer.isBuffer(body) ? new Uint8Array(body) : null,
      headers: { ...(isJson && { 'content-type': 'application/json' }), 'x-real-ip': newAddress(), ...headers },
    }),
  )
  if (!response.ok) throw new Error(`${route} answered ${response.status}: ${await response.text()}`)
  return response
}

async function asUser(): Promise<Call> {
  return { headers: bearer(await signUp()) }
}

async function signUp(): Promise<Session> {
  const body = { name: 'Ada', email: newEmail(), password: PASSWORD }
  const response = await fetchRoute('POST /api/auth/register', { body })
  return JSON.parse(await response.text())
}

function image(session: Session, headers: Record<string, string> = {}): Call {
  return { body: photo, headers: { 'content-type': 'image/jpeg', ...bearer(session), ...headers } }
}

function bearer({ accessToken }: Session): Record<string, string> {
  return { authorization: `Bearer ${accessToken}` }
}

function newEmail(): string {
  return `${randomUUID()}@example.com`
}

/** So that no call meets the limit of another one's address. */
function newAddress(): string {
  return `10.${[1, 2, 3].map(() => Math.floor(Math.random() * 256)).join('.')}`
}
