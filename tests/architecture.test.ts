// The promises of the architecture, executed: direction of imports, one adapter per SDK, twelve functions, documented routes.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, test } from 'vitest'
import { migrations } from '../db/migrate.ts'
import { allRoutes, resources, tableOf } from './support/routes.ts'

const FOLDERS = ['api', 'lib', 'db']
const FUNCTIONS_MAX = 12

/** Which module alone may import a package at run time. Types may be imported anywhere. */
const SDK_OWNERS: Record<string, string[]> = {
  '@google/generative-ai': ['lib/ai/gemini.ts'],
  '@polar-sh/sdk/2026-10': ['lib/billing/polar.ts'],
  '@vercel/postgres': ['db/client.ts'],
  pg: ['db/client.ts'],
  '@electric-sql/pglite': ['db/client.ts'],
  '@vercel/kv': ['lib/kv.ts'],
  '@upstash/ratelimit': ['lib/kv.ts'],
  '@node-rs/bcrypt': ['lib/auth/passwords.ts'],
  jose: ['lib/auth/access-token.ts'],
  '@clerk/backend': ['lib/auth/clerk.ts'],
  otpauth: ['lib/auth/totp.ts'],
  'disposable-email-domains-js': ['lib/auth/trial.ts'],
  sharp: ['lib/image/pixels.ts'],
  '@vercel/functions': ['db/client.ts', 'lib/after-answer.ts', 'lib/http/endpoint.ts'],
}

interface Module {
  file: string
  source: string
  /** Run-time imports: relative ones as paths from the root, packages by name. */
  imports: { target: string; dynamic: boolean }[]
}

const modules = FOLDERS.flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readModule(join(folder, name))),
)

describe('direction', () => {
  test('lib imports no api, db imports no lib but env', () => {
    const wrong = modules.flatMap(({ file, imports }) =>
      imports
        .filter(
          ({ target }) =>
            (file.startsWith('lib/') && target.startsWith('api/')) ||
            (file.startsWith('db/') && /^(api|lib)\//.test(target) && target !== 'lib/env.ts'),
        )
        .map(({ target }) => `${file} → ${target}`),
    )
    expect(wrong).toEqual([])
  })

  test('errors.ts imports nothing, and adapters know neither ledger nor accounts', () => {
    expect(moduleOf('lib/http/errors.ts').imports).toEqual([])
    const wrong = modules.filter(
      ({ file, imports }) =>
        file.startsWith('lib/ai/') && imports.some(({ target }) => /^lib\/(ledger|auth|tools|billing)\//.test(target)),
    )
    expect(wrong.map(({ file }) => file)).toEqual([])
  })

  test('there are no cycles', () => {
    expect(cycles()).toEqual([])
  })

  test('nothing only passes on what another module exports', () => {
    const barrels = modules.filter(({ source }) => /^export \* from/m.test(source))
    expect(barrels.map(({ file }) => file)).toEqual([])
  })
})

describe('edges', () => {
  test.each(Object.entries(SDK_OWNERS))('%s is imported by its adapter alone, on first use', (sdk, owners) => {
    const importers = modules.filter(({ imports }) => imports.some(({ target }) => target === sdk))
    expect(importers.map(({ file }) => file).sort()).toEqual([...owners].sort())
    for (const { file, imports } of importers) {
      expect(
        imports.filter(({ target }) => target === sdk).every(({ dynamic }) => dynamic),
        file,
      ).toBe(true)
    }
  })

  test('process.env is read in lib/env.ts alone', () => {
    const readers = modules.filter(({ source }) => source.includes('process.env')).map(({ file }) => file)
    expect(readers).toEqual(['lib/env.ts'])
  })

  test('NODE_ENV decides nothing', () => {
    expect(modules.filter(({ source }) => source.includes('NODE_ENV')).map(({ file }) => file)).toEqual([])
  })
})

describe('functions', () => {
  test(`there are at most ${FUNCTIONS_MAX}, and the first path segment of every route is its file`, async () => {
    expect(resources().length).toBeLessThanOrEqual(FUNCTIONS_MAX)
    for (const resource of resources()) {
      for (const key of Object.keys((await tableOf(resource)).routes))
        expect(key.split(/\s+/)[1]).toMatch(new RegExp(`^/api/${resource}(/|$)`))
    }
  })

  test('every route says who may call it, and an idempotent one knows its caller', async () => {
    for (const { method, path, route } of await allRoutes()) {
      expect(route.access, `${method} ${path}`).toBeTypeOf('string')
      if (route.idempotent) expect(['user', 'spender', 'admin'], `${method} ${path}`).toContain(route.access)
    }
  })

  test('the README lists exactly the routes there are', async () => {
    const listed = [
      ...readFileSync('README.md', 'utf8').matchAll(/^\| `(GET|POST|PUT|PATCH|DELETE) (\/api\/[^`]*)` \| (\w+)/gm),
    ]
    const actual = (await allRoutes()).map(({ method, path, route }) => `${method} ${path} ${route.access}`)
    expect(listed.map(([, method, path, access]) => `${method} ${path} ${access}`).sort()).toEqual(actual.sort())
  })
})

test('the map of migrations is the folder', () => {
  const files = readdirSync('db/migrations').map((file) => file.replace(/\.ts$/, ''))
  expect(Object.keys(migrations)).toEqual(files.sort())
})

function readModule(file: string): Module {
  const source = readFileSync(file, 'utf8')
  const found = [
    ...[...source.matchAll(/^import (?!type\b)(?:[^'"]*? from )?'([^']+)'/gms)].map(([, target = '']) => ({
      target,
      dynamic: false,
    })),
    ...[...source.matchAll(/^export (?!type\b)[^'"\n]*? from '([^']+)'/gm)].map(([, target = '']) => ({
      target,
      dynamic: false,
    })),
    ...[...source.matchAll(/(?<!typeof )\bimport\('([^']+)'\)/g)].map(([, target = '']) => ({ target, dynamic: true })),
  ]
  const imports = found.map(({ target, dynamic }) => ({
    target: target.startsWith('.') ? normalize(join(dirname(file), target)) : target,
    dynamic,
  }))
  return { file, source, imports }
}

function moduleOf(file: string): Module {
  const found = modules.find((module) => module.file === file)
  if (!found) throw new Error(`${file} is gone.`)
  return found
}

function cycles(): string[] {
  const done = new Set<string>()
  const found: string[] = []
  const visit = (file: string, path: string[]) => {
    if (path.includes(file)) {
      found.push([...path.slice(path.indexOf(file)), file].join(' → '))
      return
    }
    if (done.has(file)) return
    done.add(file)
    for (const { target } of modules.find((module) => module.file === file)?.imports ?? []) {
      if (target.endsWith('.ts')) visit(target, [...path, file])
    }
  }
  for (const { file } of modules) visit(file, [])
  return found
}
