// Serving built functions: the routes that `vercel build` writes, the platform's own answers, and its output checked.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { problemsOf } from '../../scripts/check-output.ts'
import { BODY_BYTES_MAX } from '../../scripts/gateway.ts'
import { type BuiltApp, load } from '../../scripts/serve-output.ts'

/** As `vercel build` 64.0.2 writes it for vercel.json, with one of its headers. */
const CONFIG = {
  version: 3,
  routes: [
    { src: '^/(?:(.+)/)?index(?:\\.html)?/?$', headers: { Location: '/$1' }, status: 308 },
    { src: '^/(.*)\\.html/?$', headers: { Location: '/$1' }, status: 308 },
    { src: '^(?:/((?!api/).*))$', headers: { 'x-content-type-options': 'nosniff' }, continue: true },
    { src: '^/(api(?:.+)?)/index(?:\\.(?:ts))?/?$', headers: { Location: '/$1' }, status: 308 },
    { src: '^/api/(.+)(?:\\.(?:ts))/?$', headers: { Location: '/api/$1' }, status: 308 },
    { handle: 'filesystem' },
    { src: '^/api(?:/([^/]+?))(?:/((?:[^/]+?)(?:/(?:[^/]+?))*))$', dest: '/api/$1', check: true },
    { src: '^/api(/.*)?$', status: 404 },
    { handle: 'error' },
    { status: 404, src: '^(?!/api).*$', dest: '/404' },
  ],
  overrides: {
    '404.html': { path: '404' },
    'index.html': { path: 'index' },
    'docs/index.html': { path: 'docs/index' },
  },
}

const ECHO = `export default {
  async fetch({ method, url, body }) {
    return Response.json({ method, url, hasBody: body !== null })
  },
}`

const FUNCTIONS = {
  'api/echo': ECHO,
  'api/broken': "export default { fetch() { throw new Error('a secret of the server') } }",
  'api/webhooks/echo': ECHO,
}

const PAGES = {
  'index.html': '<title>Home</title>',
  'docs/index.html': '<title>Docs</title>',
  '404.html': '<title>Nothing here</title>',
  'app/main.js': '1',
}

const folder = mkdtempSync(join(tmpdir(), 'serve-output-test-'))
let app: BuiltApp

beforeAll(async () => {
  write('config.json', JSON.stringify(CONFIG))
  for (const [name, content] of Object.entries(FUNCTIONS)) writeFunction(name, content)
  for (const [file, content] of Object.entries(PAGES)) {
    write(`static/${file}`, content)
    write(`public/${file}`, content)
  }
  app = await load(folder)
})

afterAll(() => rmSync(folder, { recursive: true }))

function write(file: string, content: string): void {
  mkdirSync(dirname(join(folder, file)), { recursive: true })
  writeFileSync(join(folder, file), content)
}

function writeFunction(name: string, content: string): void {
  const home = `functions/${name}.func`
  write(`${home}/.vc-config.json`, JSON.stringify({ handler: `${name}.js`, runtime: 'nodejs24.x' }))
  write(`${home}/package.json`, '{"type":"module"}')
  write(`${home}/${name}.js`, content)
}

async function get(path: string, init?: RequestInit): Promise<Response> {
  return await app.fetch(new Request(`http://localhost${path}`, init))
}

describe('routes', () => {
  test('a function answers at its own path and below it, and sees the path as it was sent', async () => {
    for (const path of ['/api/echo', '/api/webhooks/echo', '/api/echo/one/two?resource=evil']) {
      const response = await get(path)
      expect(await response.json()).toMatchObject({ url: `http://localhost${path}` })
      expect(response.headers.get('x-content-type-options')).toBeNull()
    }
  })

  test.each([
    ['/', 'Home'],
    ['/docs', 'Docs'],
    ['/app/main.js', '1'],
  ])('%s is a file, under the headers of vercel.json', async (path, content) => {
    const response = await get(path)
    expect(response.status).toBe(200)
    expect(await response.text()).toContain(content)
    expect(response.headers.get('x-content-type-options')).toBe('nosniff')
  })

  test('HEAD has no body, and a file takes no POST', async () => {
    expect(await (await get('/', { method: 'HEAD' })).text()).toBe('')
    expect((await get('/', { method: 'POST' })).status).toBe(405)
  })

  test('.html and index are redirected away', async () => {
    const response = await get('/docs/index.html')
    expect(response.status).toBe(308)
    expect(response.headers.get('location')).toBe('/docs')
  })

  test('a missing page is the page for that; a missing function is the platform speaking', async () => {
    const page = await get('/nothing')
    expect(page.status).toBe(404)
    expect(await page.text()).toContain('Nothing here')
    const platform = await get('/api/nothing/here')
    expect(platform.status).toBe(404)
    expect(await platform.text()).toContain('NOT_FOUND')
  })

  test.each(['/../config.json', '/..%2fconfig.json', '/functions/api/echo.func/api/echo.js', '/404/../../config.json'])(
    '%s does not lead out of the static files',
    async (path) => {
      expect((await get(path)).status).toBe(404)
    },
  )
})

describe('functions', () => {
  test.each([
    ['declares', { 'content-length': String(BODY_BYTES_MAX + 1) }],
    ['does not declare', {}],
  ])('a request that %s a body over the limit is refused in the platform’s words', async (_, headers) => {
    const body = new Uint8Array(BODY_BYTES_MAX + 1)
    const response = await get('/api/echo', { method: 'POST', headers, body })
    expect(response.status).toBe(413)
    expect(await response.json()).toMatchObject({ error: { code: 'PAYLOAD_TOO_LARGE' } })
  })

  test('one that throws says so on the server only', async () => {
    const response = await get('/api/broken')
    expect(response.status).toBe(500)
    expect(await response.json()).toMatchObject({ error: { code: 'INTERNAL_ERROR' } })
  })

  test('nothing built is an answer, not a crash', async () => {
    await expect(load(join(folder, 'static'))).rejects.toThrow('Run npm run build:vercel first.')
  })
})

describe('the check of an output', () => {
  const problems = () => problemsOf(folder, join(folder, 'public'))

  test('finds nothing where nothing is wrong', async () => {
    expect(await problems()).toEqual([])
  })

  test('finds a function that cannot be imported, and a package that is missing when it is needed', async () => {
    writeFunction('api/dead', "import './gone.js'")
    writeFunction('api/late', `export default { fetch: () => import('sharp') }`)
    writeFunction('api/formless', 'export const GET = () => new Response()')
    expect(await problems()).toEqual([
      expect.stringMatching(/^api\/dead\.func cannot be imported: .*gone\.js/),
      'api/formless.func cannot be imported: Error: It has no default export with a fetch function.',
      expect.stringMatching(/^api\/late\.func cannot be imported: .*sharp/),
    ])
    for (const name of ['dead', 'late', 'formless'])
      rmSync(join(folder, `functions/api/${name}.func`), { recursive: true })
  })

  test('finds a file that was never meant to be public, and one function too many', async () => {
    write('static/fork.config.json', '{}')
    for (let number = 1; number <= 10; number++) writeFunction(`api/more-${number}`, ECHO)
    expect(await problems()).toEqual([
      'fork.config.json would be served to anyone: it is not from public/.',
      "There are 13 functions; Vercel's Hobby plan takes 12.",
    ])
  })
})
