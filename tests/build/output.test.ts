// What `npm run build:vercel` made, before it is deployed: complete, nothing more than meant, and alive on its own.
import { execFileSync } from 'node:child_process'
import { cpSync, globSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { problemsOf } from '../../scripts/check-output.ts'
import { BODY_BYTES_MAX } from '../../scripts/gateway.ts'
import { type BuiltApp, load } from '../../scripts/serve-output.ts'
import { photo } from '../support/app.ts'

const OUTPUT = '.vercel/output'

/** Calls one function from its own folder and prints what it answered, its body as base64. */
const CALL = `
  const [handler, url, init, body] = process.argv.slice(1)
  const { default: { fetch } } = await import(handler)
  const response = await fetch(new Request(url, { ...JSON.parse(init), body: Buffer.from(body, 'base64') }))
  const bytes = Buffer.from(await response.arrayBuffer())
  process.stdout.write('\\n' + JSON.stringify({ status: response.status, body: bytes.toString('base64') }))
  process.exit()
`

const away = mkdtempSync(join(tmpdir(), 'output-test-'))
let app: BuiltApp

beforeAll(async () => {
  app = await load(OUTPUT)
})

afterAll(() => rmSync(away, { recursive: true }))

describe('the output of vercel build', () => {
  test('has a function for each file of api/, no more than Vercel takes, each importable alone', async () => {
    const sources = globSync('api/**/*.ts').map((file) => file.replace(/\.ts$/, ''))
    expect([...app.functions.keys()].sort()).toEqual(sources.sort())
    expect(await problemsOf(OUTPUT, 'public')).toEqual([])
  })

  test.each(['/', '/app/main.js', '/robots.txt'])('%s is served under the security headers', async (path) => {
    const response = await app.fetch(new Request(`http://localhost${path}`))
    expect(response.status).toBe(200)
    expect(await response.text()).not.toBe('')
    expect(response.headers.get('content-security-policy')).toContain("script-src 'self'")
    expect(response.headers.get('strict-transport-security')).toBe('max-age=63072000')
  })

  test.each(['/fork.config.json', '/package.json', '/lib/env.ts', '/vercel.json'])('%s is not served', async (path) => {
    expect((await app.fetch(new Request(`http://localhost${path}`))).status).toBe(404)
  })

  test('a deeper path reaches its resource, whose headers are its own', async () => {
    const response = await app.fetch(new Request('http://localhost/api/user/profile'))
    expect(response.status).toBe(401)
    expect(response.headers.get('content-security-policy')).toBe("default-src 'none'; frame-ancestors 'none'")
  })

  test('a body over the limit is refused before it reaches a function', async () => {
    const body = new Uint8Array(BODY_BYTES_MAX + 1)
    const response = await app.fetch(new Request('http://localhost/api/process-image', { method: 'POST', body }))
    expect(response.status).toBe(413)
    expect(await response.json()).toMatchObject({ error: { code: 'PAYLOAD_TOO_LARGE' } })
  })
})

describe('a function away from the checkout', () => {
  test('has all it takes to make a colouring page: embedded database, bcrypt, sharp and the drawing thread', async () => {
    const headers = { 'content-type': 'application/json' }
    const person = { name: 'Ada', email: 'ada@example.com', password: 'correct horse battery staple' }
    const registered = call('auth', '/api/auth/register', headers, Buffer.from(JSON.stringify(person)))
    expect(registered.status).toBe(201)
    const { accessToken } = JSON.parse(registered.bytes.toString())

    const sending = { authorization: `Bearer ${accessToken}`, 'content-type': 'image/jpeg', accept: 'image/*' }
    const made = call('process-image', '/api/process-image?provider=sketch&format=png', sending, photo())
    expect(made.status).toBe(200)
    expect((await sharp(made.bytes).metadata()).format).toBe('png')
  })
})

/** Calls a copy of one function, in a process that knows nothing but where data goes. */
function call(name: string, path: string, headers: Record<string, string>, body: Buffer) {
  const home = join(away, `${name}.func`)
  cpSync(join(OUTPUT, `functions/api/${name}.func`), home, { recursive: true, verbatimSymlinks: true })
  const init = JSON.stringify({ method: 'POST', headers })
  const handler = join(home, `api/${name}.js`)
  const args = [
    '--input-type=module',
    '--eval',
    CALL,
    handler,
    `http://localhost${path}`,
    init,
    body.toString('base64'),
  ]
  const env = { DATA_DIR: join(away, 'data') }
  const printed = execFileSync(process.execPath, args, { cwd: home, env, encoding: 'utf8', maxBuffer: 16e6 })
  const reply: { status: number; body: string } = JSON.parse(printed.slice(printed.lastIndexOf('\n')))
  return { status: reply.status, bytes: Buffer.from(reply.body, 'base64') }
}
