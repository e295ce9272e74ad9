// npm run start:built: serves what `vercel build` made (Build Output API v3), the way Vercel routes it.
import { globSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { staticMiddleware } from 'srvx/static'
import { admit, drain, type Inbound, invoke, listen, provideWaitUntil, SetupError } from './gateway.ts'

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

interface BuiltFunction {
  name: string
  /** Absolute path of the compiled module. */
  file: string
}

/** Where a path leads: a function or a static file, or nothing; with the headers collected on the way. */
interface Destination {
  target?: BuiltFunction | string | undefined
  status: number
  headers: Record<string, string>
}

export interface BuiltApp {
  fetch(request: Inbound): Promise<Response>
  functions: ReadonlyMap<string, BuiltFunction>
  drain(): Promise<void>
}

/** Opens an output folder; a function is imported by its first request. Throws SetupError when nothing is built. */
export async function load(folder: string): Promise<BuiltApp> {
  const output = resolve(folder)
  const config = await readConfig(output)
  const functions = findFunctions(join(output, 'functions'))
  const pages = findPages(join(output, 'static'), config.overrides ?? {})
  const phases = phasesOf(config.routes)
  const serveStatic = staticMiddleware({ dir: join(output, 'static') })
  provideWaitUntil()

  function find(path: string): BuiltFunction | string | undefined {
    const name = path.replace(/^\/|\/$/g, '') || 'index'
    return functions.get(name) ?? pages.get(name) ?? pages.get(`${name}/index`)
  }

  /** Walks the routes: those before the file system, the file system itself, those after it, those for errors. */
  function route(path: string): Destination {
    const headers: Record<string, string> = {}
    for (const { pattern, route } of phases.first) {
      const match = pattern.exec(path)
      if (!match) continue
      for (const [name, value] of Object.entries(route.headers ?? {})) headers[name.toLowerCase()] = fill(value, match)
      if (!route.continue) return { status: route.status ?? 200, headers }
    }
    const exact = find(path)
    if (exact) return { target: exact, status: 200, headers }
    for (const { pattern, route } of phases.filesystem) {
      const match = pattern.exec(path)
      if (!match) continue
      const target = route.dest && find(fill(route.dest, match))
      if (target) return { target, status: 200, headers }
      if (route.status) break
    }
    const onError = phases.error.find(({ pattern }) => pattern.test(path))
    return { target: onError?.route.dest && find(onError.route.dest), status: 404, headers }
  }

  async function servePage(request: Request, file: string, status: number): Promise<Response> {
    if (status === 200) {
      const { method, headers } = request
      const url = new URL(`/${file}`, request.url)
      return await serveStatic(new Request(url, { method, headers }), () => new Response(null, { status: 405 }))
    }
    const bytes = await readFile(join(output, 'static', file))
    const body = request.method === 'HEAD' ? null : bytes
    return new Response(body, { status, headers: { 'content-type': 'text/html; charset=utf-8' } })
  }

  async function fetch(request: Inbound): Promise<Response> {
    const { target, status, headers } = route(new URL(request.url).pathname)
    const response = await answer(target, status)
    for (const [name, value] of Object.entries(headers)) {
      if (!response.headers.has(name)) response.headers.set(name, value)
    }
    return response

    async function answer(target: Destination['target'], status: number): Promise<Response> {
      if (typeof target === 'string') return await servePage(request, target, status)
      if (target) return await serveFunction(target, request)
      return status < 400 ? new Response(null, { status }) : platformError(status, 'NOT_FOUND')
    }
  }

  return { fetch, functions, drain }
}

async function readConfig(output: string): Promise<OutputConfig> {
  try {
    return JSON.parse(await readFile(join(output, 'config.json'), 'utf8'))
  } catch (cause) {
    throw new SetupError(`Nothing is built in ${output}. Run npm run build:vercel first.`, { cause })
  }
}

function findFunctions(folder: string): Map<string, BuiltFunction> {
  const configs = globSync('**/*.func/.vc-config.json', { cwd: folder })
  const functions = configs.map((config): BuiltFunction => {
    const { handler }: { handler: string } = JSON.parse(readFileSync(join(folder, config), 'utf8'))
    const name = config.replaceAll('\\', '/').slice(0, -'.func/.vc-config.json'.length)
    return { name, file: join(folder, `${name}.func`, handler) }
  })
  return new Map(functions.map((built) => [built.name, built]))
}

/** URL path → file; `cleanUrls` takes `.html` off by way of the overrides. */
function findPages(folder: string, overrides: NonNullable<OutputConfig['overrides']>): Map<string, string> {
  const entries = globSync('**/*', { cwd: folder, withFileTypes: true }).filter((entry) => entry.isFile())
  const files = entries.map((entry) =>
    join(entry.parentPath, entry.name)
      .slice(folder.length + 1)
      .replaceAll('\\', '/'),
  )
  return new Map(files.map((file) => [overrides[file]?.path ?? file, file]))
}

function phasesOf(routes: Route[]) {
  const phases = { first: compile([]), filesystem: compile([]), error: compile([]) }
  let current = phases.first
  for (const route of routes) {
    if (route.handle) current = phases[route.handle]
    else current.push(...compile([route]))
  }
  return phases
}

function compile(routes: Route[]) {
  return routes.map((route) => ({ route, pattern: new RegExp(route.src ?? '^') }))
}

function fill(template: string, match: RegExpExecArray): string {
  return template.replaceAll(/\$(\d+)/g, (_, group: string) => match[Number(group)] ?? '')
}

async function serveFunction({ name, file }: BuiltFunction, request: Inbound): Promise<Response> {
  const admitted = await admit(request)
  if (!admitted) return platformError(413, 'FUNCTION_PAYLOAD_TOO_LARGE')
  try {
    const response = await invoke(file, admitted)
    return new Response(response.body, response)
  } catch (error) {
    console.error(`${name} failed:`, error)
    return platformError(500, 'FUNCTION_INVOCATION_FAILED')
  }
}

const PLATFORM_MESSAGE = {
  NOT_FOUND: 'The page could not be found',
  FUNCTION_PAYLOAD_TOO_LARGE: 'Request Entity Too Large',
  FUNCTION_INVOCATION_FAILED: 'A server error has occurred',
}

/** What Vercel itself says where no function of ours had a say. */
function platformError(status: number, code: keyof typeof PLATFORM_MESSAGE): Response {
  return new Response(`${PLATFORM_MESSAGE[code]}\n\n${code}\n`, { status, headers: { 'x-vercel-error': code } })
}

if (import.meta.main) {
  try {
    const app = await load('.vercel/output')
    const port = Number(process.env.PORT ?? 3000)
    const url = await listen({ port, fetch: app.fetch, close: async () => {} })
    console.log(`${app.functions.size} built functions at ${url}`)
  } catch (error) {
    console.error(error instanceof SetupError ? error.message : error)
    process.exit(1)
  }
}
