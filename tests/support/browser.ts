// Pages under test: the whole product on a port of its own, in a real Chromium that reports everything it complains about.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { afterAll } from 'vitest'
import { chromiumPath } from './chromium.ts'

const START_TIMEOUT_MS = 60_000
const PROJECT_ROOT = join(import.meta.dirname, '../..')
const CHROMIUM_ARGUMENTS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]
let browser: Promise<Browser> | undefined

// Registered while the test file is collected: a hook that is registered by another hook would never run.
const cleanups: (() => Promise<unknown>)[] = []
afterAll(async () => {
  for (const cleanUp of cleanups.toReversed()) await cleanUp()
})

/**
 * Starts the product as `npm start` does, with data of its own, and resolves to its address. `variables` go into its
 * environment. It is stopped after the tests of the file.
 */
export async function pageUrl(variables: Record<string, string> = {}): Promise<string> {
  const dataDir = await mkdtemp(join(tmpdir(), 'test-pages-'))
  const server = spawn(process.execPath, ['scripts/dev.ts'], {
    cwd: PROJECT_ROOT,
    env: { PATH: process.env.PATH, PORT: '0', DATA_DIR: dataDir, ...variables },
  })
  cleanups.push(async () => {
    await stop(server)
    await rm(dataDir, { recursive: true, force: true })
  })
  return await addressOf(server)
}

/** A page and what its browser complained about: console errors, exceptions, refusals of the content policy. */
export interface OpenPage {
  page: Page
  problems: string[]
}

/** Opens an address in a context of its own: no cookies, no storage of other tests. `prepare` sees the page before it is opened. */
export async function openPage(
  url: string,
  options: BrowserContextOptions = {},
  prepare: (page: Page) => Promise<void> = async () => {},
): Promise<OpenPage> {
  browser ??= launch()
  const context = await (await browser).newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await context.newPage()
  const problems: string[] = []
  page.on('console', (message) => {
    if (message.type() === 'error') problems.push(message.text())
  })
  page.on('pageerror', (error) => problems.push(String(error.stack)))
  await prepare(page)
  await page.goto(url)
  return { page, problems }
}

async function launch(): Promise<Browser> {
  if (!chromiumPath) throw new Error('Chromium was not found. Set CHROMIUM_PATH to its executable.')
  const launched = await chromium.launch({ executablePath: chromiumPath, args: CHROMIUM_ARGUMENTS })
  cleanups.push(() => launched.close())
  return launched
}

function addressOf(server: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let output = ''
    const fail = () => reject(new Error(`The server did not start:\n${output}`))
    const timer = setTimeout(fail, START_TIMEOUT_MS)
    const read = (chunk: Buffer) => {
      output += chunk
      const url = / is at (http:\S+)/.exec(output)?.[1]
      if (!url) return
      clearTimeout(timer)
      resolve(url)
    }
    server.stdout?.on('data', read)
    server.stderr?.on('data', read)
    server.once('exit', fail)
  })
}

function stop(server: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (server.exitCode !== null) return resolve()
    server.once('exit', () => resolve())
    server.kill('SIGTERM')
  })
}
