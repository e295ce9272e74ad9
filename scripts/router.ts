// The whole product in one process, from source: api/ as functions, public/ as pages, with the rules of vercel.json.
import { globSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { staticMiddleware } from 'srvx/static'
import { type HeaderRule, headerRules } from './clerk-csp.ts'
import { callFunction, drain, type Inbound, provideWaitUntil } from './gateway.ts'

export interface App {
  fetch(request: Inbound): Promise<Response>
  /** Resolves when the work that functions left behind with `waitUntil` is done. */
  drain(): Promise<void>
}

interface VercelJson {
  rewrites: { source: string; destination: string }[]
  headers: HeaderRule[]
}

/**
 * Loads what stands under `root`; functions are imported by their first request. `frontendApis` are the hosts of Clerk that the
 * start page may load from, whatever vercel.json says of it.
 */
export async function loadApp(
  root = fileURLToPath(new URL('..', import.meta.url)),
  frontendApis: readonly string[] = [],
): Promise<App> {
  const rules: VercelJson = JSON.parse(await readFile(join(root, 'vercel.json'), 'utf8'))
  const rewrites = rules.rewrites.map(({ source, destination }) => ({ pattern: pathPattern(source), destination }))
  const pageHeaders = headerRules(rules.headers, frontendApis).map(({ source, headers }) => ({
    pattern: pathPattern(source),
    headers,
  }))
  const functions = findFunctions(root)
  const servePublic = staticMiddleware({ dir: join(root, 'public') })
  provideWaitUntil()

  function functionFor(path: string): string | undefined {
    const literal = functions.get(path.replace(/\/$/, ''))
    if (literal !== undefined) return literal
    for (const { pattern, destination } of rewrites) {
      const match = pattern.exec({ pathname: path })
      const file = match && functions.get(fill(destination, match.pathname.groups))
      if (file) return file
    }
    return undefined
  }

  async function servePage(request: Request, url: URL): Promise<Response> {
    const clean = cleanPath(url.pathname)
    if (clean !== url.pathname) return new Response(null, { status: 308, headers: { location: clean + url.search } })
    const { method, headers } = request
    return await servePublic(new Request(url, { method, headers }), () => notFoundPage(url, method))
  }

  async function notFoundPage(url: URL, method: string): Promise<Response> {
    const page = await servePublic(new Request(new URL('/404.html', url)), () => new Response('Not found\n'))
    // Read whole, because a file's stream that is handed on throws past every catch when the client hangs up.
    const body = await page.bytes()
    return new Response(method === 'HEAD' ? null : body, { status: 404, headers: page.headers })
  }

  async function fetch(request: Inbound): Promise<Response> {
    const url = new URL(request.url)
    if (url.pathname.startsWith('/api/')) return await callFunction(request, functionFor(url.pathname))
    const page = await servePage(request, url)
    for (const { pattern, headers } of pageHeaders) {
      if (!pattern.test({ pathname: url.pathname })) continue
      for (const { key, value } of headers) page.headers.set(key, value)
    }
    return page
  }

  return { fetch, drain }
}

function pathPattern(source: string): URLPattern {
  return new URLPattern({ pathname: source })
}

/** URL path → file, for every file that Vercel makes a function of. */
function findFunctions(root: string): Map<string, string> {
  const files = globSync('api/**/*.ts', { cwd: root }).filter((file) => !/[\\/][_.]|\.d\.ts$/.test(file))
  return new Map(files.map((file) => [`/${file.replaceAll('\\', '/').slice(0, -'.ts'.length)}`, join(root, file)]))
}

function fill(destination: string, groups: Record<string, string | undefined>): string {
  return destination.replaceAll(/:(\w+)/g, (_, name: string) => groups[name] ?? '')
}

/** What `cleanUrls` redirects to: no `.html`, no `index`. */
function cleanPath(path: string): string {
  const named = /^\/(?:(.+)\/)?index(?:\.html)?\/?$/.exec(path) ?? /^\/(.*)\.html\/?$/.exec(path)
  return named ? `/${(named[1] ?? '').replace(/^\/+/, '')}` : path
}
