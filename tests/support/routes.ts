// Every route of the product, read from the route tables themselves: a new route is in every test that is made from them.
import { readdirSync } from 'node:fs'
import type { Route } from '../../lib/http/endpoint.ts'

export interface ListedRoute {
  method: string
  path: string
  route: Route
}

/** The files of api/ as resource names, such as 'auth' or 'webhooks/polar'. */
export function resources(): string[] {
  const files = readdirSync(new URL('../../api', import.meta.url), { recursive: true, encoding: 'utf8' })
  return files.filter((file) => file.endsWith('.ts')).map((file) => file.slice(0, -'.ts'.length))
}

export async function allRoutes(): Promise<ListedRoute[]> {
  const tables = await Promise.all(
    resources().map(async (resource) => {
      return Object.entries((await tableOf(resource)).routes)
    }),
  )
  return tables.flat().map(([key, route]) => {
    const [method = '', path = ''] = key.split(/\s+/)
    return { method, path, route }
  })
}

/** The endpoint of one file of api/. */
export async function tableOf(resource: string): Promise<{ routes: Record<string, Route> }> {
  // A path that is not written out: the bundler of the tests cannot follow one that is deeper for some files.
  const file = new URL(`../../api/${resource}.ts`, import.meta.url).href
  const module: { default: { routes: Record<string, Route> } } = await import(/* @vite-ignore */ file)
  return module.default
}

/** A concrete path of a route: parameters become an id that nobody has. */
export function examplePath(path: string): string {
  return path.replaceAll(/:\w+/g, '00000000-0000-4000-8000-000000000000')
}
