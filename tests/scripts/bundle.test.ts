// Bundling: what a function becomes, and that its files, settings and worker threads are still found.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bundle } from '../../scripts/bundle.ts'

const FILES = {
  'api/draw.ts': `import { draw } from '../lib/ai/deep/pool.ts'
    import { colours } from '../lib/colours.ts'
export const config = { maxDuration: 60 }
    export default { fetch: async () => Response.json({ drawn: await draw(), colours: colours() }) }`,
  'api/webhooks/polar.ts': `import { colours } from '../../lib/colours.ts'
    export default { fetch: async () => Response.json(colours()) }`,
  'lib/colours.ts': `import { readFileSync } from 'node:fs'
    const read = (url: URL): string => JSON.parse(readFileSync(url, 'utf8'))
    export const colours = () => read(new URL('../colours.json', import.meta.url))`,
  'lib/ai/deep/pool.ts': `import { isMainThread, parentPort, Worker } from 'node:worker_threads'
    import { ink } from './ink.ts'
    if (!isMainThread) parentPort?.postMessage(ink())
    export const draw = () => new Promise((resolve) => new Worker(new URL(import.meta.url)).once('message', resolve))`,
  'lib/ai/deep/ink.ts': `import { readFileSync } from 'node:fs'
    export const ink = () => readFileSync(new URL('./ink.txt', import.meta.url), 'utf8')`,
  'lib/ai/deep/ink.txt': 'black',
  'colours.json': '["red"]',
  'package.json': '{"type":"module"}',
}

const root = mkdtempSync(join(tmpdir(), 'bundle-test-'))

beforeAll(async () => {
  for (const [file, content] of Object.entries(FILES)) {
    mkdirSync(dirname(join(root, file)), { recursive: true })
    writeFileSync(join(root, file), content)
  }
  expect(await bundle(root)).toBe(2)
})

afterAll(() => rmSync(root, { recursive: true }))

test('leaves a stub that keeps what Vercel reads from the file', () => {
  expect(readFileSync(join(root, 'api/draw.ts'), 'utf8')).toBe(
    "// @ts-nocheck\nexport { default } from '../bundled/api-draw.js'\nexport const config = { maxDuration: 60 }\n",
  )
  expect(readFileSync(join(root, 'api/webhooks/polar.ts'), 'utf8')).toContain("'../../bundled/api-webhooks-polar.js'")
})

test('files beside the source and at the root are still found, and a module still starts itself as a worker', async () => {
  const { default: draw } = await import(join(root, 'bundled/api-draw.js'))
  expect(await (await draw.fetch()).json()).toEqual({ drawn: 'black', colours: ['red'] })
  const { default: polar } = await import(join(root, 'bundled/api-webhooks-polar.js'))
  expect(await (await polar.fetch()).json()).toEqual(['red'])
})
