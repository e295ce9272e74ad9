// The local server: which address leads where, what a client cannot do, and how the process starts and ends.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type IncomingMessage, type RequestOptions, request } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type Server, serve } from 'srvx'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BODY_BYTES_MAX } from '../../scripts/gateway.ts'
import { type App, loadApp } from '../../scripts/router.ts'

const ECHO = `export default {
  async fetch(request) {
    const { method, url, headers } = request
    const { length } = await request.bytes()
    return Response.json({ method, url, length, headers: Object.fromEntries(headers) })
  },
}`

const LATER = `import { waitUntil } from '${import.meta.resolve('@vercel/functions')}'
export const done = []
export default {
  async fetch() {
    waitUntil(new Promise((resolve) => setImmediate(() => resolve(done.push('work')))))
    return Response.json({ doneAlready: done.length })
  },
}`

const FILES = {
  'api/echo.ts': ECHO,
  'api/later.ts': LATER,
  'api/broken.ts': "export default { fetch() { throw new Error('a secret of the server') } }",
  'api/webhooks/echo.ts': ECHO,
  'api/_private.ts': ECHO,
  'public/index.html': '<title>Home</title>',
  'public/docs/index.html': '<title>Docs</title>',
  'public/terms.html': '<title>Terms</title>',
  'public/404.html': '<title>Nothing here</title>',
  'package.json': '{"type":"module"}',
}

const root = mkdtempSync(join(tmpdir(), 'dev-test-'))
let app: App
let server: Server

beforeAll(async () => {
  for (const [file, content] of Object.entries(FILES)) {
    mkdirSync(dirname(join(root, file)), { recursive: true })
    writeFileSync(join(root, file), content)
  }
  cpSync('vercel.json', join(root, 'vercel.json'))
  app = await loadApp(root)
  server = serve({ port: 0, fetch: app.fetch, silent: true, gracefulShutdown: false })
  await server.ready()
})

afterAll(async () => {
  await server.close(true)
  rmSync(root, { recursive: true })
})

async function get(path: string, init?: RequestInit): Promise<Response> {
  return await app.fetch(new Request(`http://localhost${path}`, init))
}

/** Over a real socket, with nothing normalised on the way. */
async function send(path: string, options: RequestOptions = {}, body: Buffer[] = []) {
  const { port } = new URL(server.url ?? '')
  const sent = request({ host: '127.0.0.1', port, path, ...options })
  const response = once(sent, 'response')
  for (const chunk of body) sent.write(chunk)
  sent.end()
  const [reply]: IncomingMessage[] = await response
  return { status: reply?.statusCode, body: reply ? await text(reply) : '' }
}

describe('functions', () => {
  test('a file answers at its own path', async () => {
    expect((await get('/api/echo')).status).toBe(200)
    expect((await get('/api/echo/')).status).toBe(200)
    expect((await get('/api/webhooks/echo')).status).toBe(200)
  })

  test('a deeper path reaches the resource, which sees the path and the query as they were sent', async () => {
    const response = await get('/api/echo/one/two?resource=evil')
    expect(await response.json()).toMatchObject({ url: 'http://localhost/api/echo/one/two?resource=evil' })
  })

  test.each(['/api/nothing', '/api/nothing/here', '/api/_private', '/api/echo.ts', '/api/'])(
    '%s is no function, and the refusal has the form of every error',
    async (path) => {
      const response = await get(path)
      expect(response.status).toBe(404)
      const { error } = JSON.parse(await response.text())
      expect(error).toMatchObject({ code: 'NOT_FOUND', details: {} })
      expect(response.headers.get('x-request-id')).toBe(error.requestId)
    },
  )

  test('HEAD and OPTIONS reach a function as they are', async () => {
    const response = await get('/api/echo', { method: 'OPTIONS' })
    expect(await response.json()).toMatchObject({ method: 'OPTIONS' })
    expect((await get('/api/echo', { method: 'HEAD' })).status).toBe(200)
  })

  test('what a function throws stays on the server', async () => {
    const response = await get('/api/broken')
    expect(response.status).toBe(500)
    expect(await response.text()).not.toContain('a secret of the server')
  })

  test('work handed to waitUntil goes on after the answer, and drain waits for it', async () => {
    expect(await (await get('/api/later')).json()).toEqual({ doneAlready: 0 })
    await app.drain()
    expect(await (await get('/api/later')).json()).toEqual({ doneAlready: 1 })
    await app.drain()
  })
})

describe('a request', () => {
  test('cannot choose the address it is counted under', async () => {
    const headers = {
      'X-Real-IP': '6.6.6.6',
      'X-Forwarded-For': '6.6.6.6',
      'X-Vercel-Forwarded-For': '6.6.6.6',
      Forwarded: 'for=6.6.6.6',
      Accept: 'kept',
    }
    const { body } = await send('/api/echo', { headers })
    const seen = JSON.parse(body).headers
    expect(body).not.toContain('6.6.6.6')
    expect(seen).toMatchObject({ accept: 'kept', 'x-real-ip': '127.0.0.1' })
  })

  test('as large as Vercel takes arrives whole', async () => {
    const body = new Uint8Array(BODY_BYTES_MAX)
    expect(await (await get('/api/echo', { method: 'POST', body })).json()).toMatchObject({ length: BODY_BYTES_MAX })
  })

  test.each([
    ['declares', { 'content-length': BODY_BYTES_MAX + 1 }],
    ['does not declare', { 'transfer-encoding': 'chunked' }],
  ])('that %s more is refused as Vercel would, and hears why', async (_, headers) => {
    const body = [Buffer.alloc(BODY_BYTES_MAX), Buffer.alloc(1)]
    const reply = await send('/api/echo', { method: 'POST', headers }, body)
    expect(reply.status).toBe(413)
    expect(JSON.parse(reply.body).error).toMatchObject({ code: 'PAYLOAD_TOO_LARGE' })
  })
})

describe('pages', () => {
  test.each([
    ['/', 'Home'],
    ['/docs', 'Docs'],
    ['/terms', 'Terms'],
  ])('%s is a page, under the headers of vercel.json', async (path, title) => {
    const response = await get(path)
    expect(await response.text()).toContain(title)
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8')
    expect(response.headers.get('content-security-policy')).toContain("script-src 'self'")
    expect(response.headers.get('x-content-type-options')).toBe('nosniff')
  })

  test.each([
    ['/index.html', '/'],
    ['/terms.html?from=mail', '/terms?from=mail'],
    ['//evil.example/index.html', '/evil.example'],
  ])('%s leads to %s', async (path, location) => {
    const response = await get(path)
    expect(response.status).toBe(308)
    expect(response.headers.get('location')).toBe(location)
  })

  test('a missing one is the page for that, with status 404', async () => {
    const response = await get('/nothing')
    expect(response.status).toBe(404)
    expect(response.headers.get('content-security-policy')).toContain("default-src 'none'")
    expect(await response.text()).toContain('Nothing here')
    expect(await (await get('/nothing', { method: 'HEAD' })).text()).toBe('')
  })

  test.each(['/../package.json', '/%2e%2e/package.json', '/..%2fpackage.json', '/docs/../../package.json', '/%00'])(
    '%s does not lead out of public/',
    async (path) => {
      const { status, body } = await send(path)
      expect(status).toBeGreaterThanOrEqual(400)
      expect(body).not.toContain('"type"')
    },
  )
})

describe('npm start', () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'dev-data-'))
  afterAll(() => rmSync(dataDir, { recursive: true }))

  test('says what is on, finishes the request in hand when asked to stop, and leaves no error behind', async () => {
    const { process, output, url } = await start({ PORT: '0', DATA_DIR: dataDir })
    expect(await output()).toMatch(/on {3}database .*\n.*off {2}kv .*KV_REST_API_URL/)
    const login = request(new URL('/api/auth/login', url), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
    })
    const answered = once(login, 'response')
    login.write('{"email":')
    await once(request(new URL('/api/health', url)).end(), 'response')

    process.kill('SIGTERM')
    process.kill('SIGINT')
    await refused(url)
    login.end('"ada@example.com","password":"not hers at all"}')
    const [reply]: IncomingMessage[] = await answered
    expect(reply?.statusCode).toBe(401)
    reply?.resume()
    expect(await once(process, 'exit')).toEqual([0, null])
  })

  test('names the port that is taken', async () => {
    const { port } = new URL(server.url ?? '')
    const { code, errors } = await failedStart({ PORT: port, DATA_DIR: dataDir })
    expect(code).toBe(1)
    expect(errors).toMatch(new RegExp(`^Port ${port} is in use`))
  })

  test('names what is wrong with the configuration, and does not start', async () => {
    const file = join(dataDir, 'fork.json')
    writeFileSync(file, '{ "version": 1, "brnad": {} }')
    const { code, errors } = await failedStart({ PORT: '0', DATA_DIR: dataDir, FORK_CONFIG: file })
    expect(code).toBe(1)
    expect(errors).toMatch(/fork\.json:1:17 .*brnad.*"brand"/)
  })
})

function run(variables: Record<string, string>): ChildProcess {
  const { POSTGRES_URL: _, DATABASE_URL: __, ...inherited } = process.env
  return spawn(process.execPath, ['scripts/dev.ts'], { env: { ...inherited, ...variables }, stdio: 'pipe' })
}

/** Resolves once the server says where it is. */
async function start(variables: Record<string, string>) {
  const child = run(variables)
  let printed = ''
  const complete = Promise.withResolvers<string>()
  const located = Promise.withResolvers<string>()
  child.once('exit', (code) => located.reject(new Error(`It ended with ${code}.`)))
  child.stdout?.on('data', (chunk) => {
    printed += chunk
    const [, url] = /(http:\/\/localhost:\d+)/.exec(printed) ?? []
    if (url) located.resolve(url)
    if (printed.includes('sweep')) complete.resolve(printed)
  })
  return { process: child, url: await located.promise, output: () => complete.promise }
}

async function failedStart(variables: Record<string, string>) {
  const child = run(variables)
  const [errors, [code]] = await Promise.all([child.stderr ? text(child.stderr) : '', once(child, 'exit')])
  return { code, errors }
}

/** Resolves once nothing new is accepted. */
async function refused(url: string): Promise<void> {
  for (;;) {
    try {
      await fetch(new URL('/api/health', url), { headers: { connection: 'close' } })
    } catch {
      return
    }
  }
}
