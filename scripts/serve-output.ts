// npm run start:built: serves what `vercel build` made (Build Output API v3), the way Vercel routes it.
import { createHash } from 'node:crypto'
import { globSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { registerHooks } from 'node:module'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { staticMiddleware } from 'srvx/static'
import { EnvError, env } from '../lib/env.ts'
import { callFunction, drain, type Inbound, listen, provideWaitUntil, SetupError } from './gateway.ts'

export interface BuiltApp {
  fetch(request: Inbound): Promise<Response>
  /** Name, such as `api/health` → the compiled module. */
  functions: ReadonlyMap<string, string>
  /** Resolves when the work that functions left behind with `waitUntil` is done. */
  drain(): Promise<void>
}

/** One entry of config.json's `routes`, as far as `vercel build` writes it for this product. */
interface Route {
  handle?: 'filesystem' | 'error'
  src?: string
  dest?: string
  status?: number
  headers?: Record<string, string>
  continue?: boolean
}

interface OutputConfig {
  routes: Route[]
  overrides?: Record<string, { path?: string }>
}

type Target = { function: string } | { page: string }

interface Destination {
  target: Target | undefined
  status: number
  /** Those which vercel.json adds to the reply. */
  headers: Record<string, string>
}

/** Opens an output folder; a function is imported by its first request. Throws SetupError when nothing is built. */
export async function load(folder: string): Promise<BuiltApp> {
  const output = resolve(folder)
  const { routes, overrides = {} } = await readConfig(output)
  const functions = findFunctions(join(output, 'functions'))
  const pages = findPages(join(output, 'static'), overrides)
  const servePage = pageServer(join(output, 'static'))
  provideWaitUntil()

  const route = router(routes, (path) => {
    const name = path.replace(/^\/|\/$/g, '') || 'index'
    const file = functions.get(name)
    if (file !== undefined) return { function: file }
    const page = pages.get(name) ?? pages.get(`${name}/index`)
    return page === undefined ? undefined : { page }
  })

  async function fetch(request: Inbound): Promise<Response> {
    const { target, status, headers } = route(new URL(request.url).pathname)
    const response = await respond(request, target, status)
    const merged = new Headers({ ...headers, ...Object.fromEntries(response.headers) })
    return new Response(response.body, { status: response.status, headers: merged })
  }

  async function respond(request: Inbound, target: Target | undefined, status: number): Promise<Response> {
    if (!target) return status < 400 ? new Response(null, { status }) : platformError(status, 'NOT_FOUND')
    return 'function' in target
      ? await callFunction(request, target.function)
      : await servePage(request, target.page, status)
  }

  return { fetch, functions, drain }
}

async function readConfig(output: string): Promise<OutputConfig> {
  try {
    const { routes, ...rest }: Partial<OutputConfig> = JSON.parse(await readFile(join(output, 'config.json'), 'utf8'))
    // A build that failed leaves a file without routes.
    if (routes) return { routes, ...rest }
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
  }
  throw new SetupError(`Nothing is built in ${output}. Run npm run build:vercel first.`)
}

function findFunctions(folder: string): Map<string, string> {
  const configs = globSync('**/*.func/.vc-config.json', { cwd: folder })
  return new Map(
    configs.map((config) => {
      const { handler }: { handler: string } = JSON.parse(readFileSync(join(folder, config), 'utf8'))
      const name = config.replaceAll('\\', '/').slice(0, -'.func/.vc-config.json'.length)
      return [name, join(folder, `${name}.func`, handler)]
    }),
  )
}

/** URL path → file; the overrides take `.html` off. */
function findPages(folder: string, overrides: NonNullable<OutputConfig['overrides']>): Map<string, string> {
  const entries = globSync('**/*', { cwd: folder, withFileTypes: true }).filter((entry) => entry.isFile())
  const files = entries.map((entry) =>
    join(entry.parentPath, entry.name)
      .slice(folder.length + 1)
      .replaceAll('\\', '/'),
  )
  return new Map(files.map((file) => [overrides[file]?.path ?? file, file]))
}

/** Walks the routes as Vercel does: those before the file system, the file system, those after it, those for errors. */
function router(routes: Route[], find: (path: string) => Target | undefined): (path: string) => Destination {
  const phases = { before: compile([]), filesystem: compile([]), error: compile([]) }
  let phase = phases.before
  for (const route of routes) {
    if (route.handle) phase = phases[route.handle]
    else phase.push(...compile([route]))
  }

  return (path) => {
    const headers: Record<string, string> = {}
    for (const route of phases.before) {
      const match = route.pattern.exec(path)
      if (!match) continue
      for (const [name, value] of Object.entries(route.headers ?? {})) headers[name.toLowerCase()] = fill(value, match)
      if (!route.continue) return { target: undefined, status: route.status ?? 200, headers }
    }
    const exact = find(path)
    if (exact) return { target: exact, status: 200, headers }
    for (const { pattern, dest } of phases.filesystem) {
      const match = pattern.exec(path)
      const target = match && dest ? find(fill(dest, match)) : undefined
      if (target) return { target, status: 200, headers }
    }
    const page = phases.error.find(({ pattern }) => pattern.test(path))?.dest
    return { target: page === undefined ? undefined : find(page), status: 404, headers }
  }
}

function compile(routes: Route[]) {
  return routes.map((route) => ({ ...route, pattern: new RegExp(route.src ?? '^') }))
}

function fill(template: string, match: RegExpExecArray): string {
  return template.replaceAll(/\$(\d+)/g, (_, group: string) => match[Number(group)] ?? '')
}

function pageServer(folder: string): (request: Request, file: string, status: number) => Promise<Response> {
  const serveStatic = staticMiddleware({ dir: folder })
  return async ({ method, headers, url }, file, status) => {
    if (status === 200) {
      const request = new Request(new URL(`/${file}`, url), { method, headers })
      return await serveStatic(request, () => platformError(405, 'INVALID_REQUEST_METHOD'))
    }
    const body = method === 'HEAD' ? null : await readFile(join(folder, file))
    return new Response(body, { status, headers: { 'content-type': 'text/html; charset=utf-8' } })
  }
}

const PLATFORM_MESSAGE = {
  INVALID_REQUEST_METHOD: 'This request method is not supported for this resource',
  NOT_FOUND: 'The page could not be found',
}

/** What Vercel says itself where no function has a say. */
function platformError(status: number, code: keyof typeof PLATFORM_MESSAGE): Response {
  return new Response(`${PLATFORM_MESSAGE[code]}\n\n${code}\n`, { status, headers: { 'x-vercel-error': code } })
}

/**
 * Functions are separate programs that meet in the database. The embedded one has room for a single program, so without
 * a database, modules that are alike in several functions are loaded once, and the functions share what is in them.
 */
function shareModules(): void {
  const urls = new Map<string, string>()
  registerHooks({
    resolve(specifier, context, nextResolve) {
      const resolved = nextResolve(specifier, context)
      const [, path] = /^file:.*\.func\/(.*)$/.exec(resolved.url) ?? []
      if (path === undefined) return resolved
      const content = createHash('sha256')
        .update(readFileSync(fileURLToPath(resolved.url)))
        .digest('base64')
      const key = `${content} ${path}`
      const url = urls.get(key) ?? resolved.url
      urls.set(key, url)
      return { ...resolved, url }
    },
  })
}

if (import.meta.main) {
  try {
    const { functions, fetch } = await load('.vercel/output')
    const { databaseUrl, port } = env()
    if (!databaseUrl) shareModules()
    const url = await listen({ port, fetch, close: async () => {} })
    console.log(`${functions.size} built functions are at ${url}`)
  } catch (error) {
    console.error(error instanceof SetupError || error instanceof EnvError ? error.message : error)
    process.exit(1)
  }
}
