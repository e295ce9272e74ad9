// The content policy of the start page: what Clerk needs and not more, in vercel.json and in the local server.
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { loadConfig } from '../../lib/config.ts'
import {
  clerkHosts,
  fixPolicy,
  type HeaderRule,
  headerRules,
  policyWarnings,
  policyWithClerk,
} from '../../scripts/clerk-csp.ts'
import { loadApp } from '../../scripts/router.ts'

const HOST = 'happy-otter-1.clerk.accounts.dev'
const DOCTOR = new URL('../../scripts/doctor.ts', import.meta.url).pathname
const SHIPPED: { headers: HeaderRule[] } = JSON.parse(readFileSync('vercel.json', 'utf8'))
const GENERAL = SHIPPED.headers[0]?.headers.find(({ key }) => key === 'content-security-policy')?.value ?? ''

const keyOf = (host: string, kind = 'test') => `pk_${kind}_${Buffer.from(`${host}$`).toString('base64')}`
const withClerk = (key = keyOf(HOST)) => ({
  FORK__AUTH__PROVIDER: 'clerk',
  FORK__AUTH__CLERK__PUBLISHABLE_KEY: key,
})

let folder: string
let path: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'clerk-csp-'))
  path = join(folder, 'vercel.json')
  writeFileSync(path, `${JSON.stringify(SHIPPED, null, 2)}\n`)
})
afterEach(() => rmSync(folder, { recursive: true }))

const rules = (): HeaderRule[] => JSON.parse(readFileSync(path, 'utf8')).headers
const settings = (forkOverrides: Record<string, string> = {}, forkConfig?: string) => ({
  forkConfig,
  onVercel: false,
  stage: 'development' as const,
  forkOverrides,
})

describe('the policy with Clerk', () => {
  test('adds the sources that Clerk names, and takes nothing away', () => {
    expect(policyWithClerk(GENERAL, [HOST]).split('; ')).toEqual([
      "default-src 'none'",
      `script-src 'self' https://${HOST} https://challenges.cloudflare.com https://*.protect.clerk.com`,
      "style-src 'self' 'unsafe-inline'",
      "img-src 'self' data: blob: https://img.clerk.com",
      `connect-src 'self' https://${HOST} https://*.protect.clerk.com:*`,
      "font-src 'self'",
      "manifest-src 'self'",
      "base-uri 'none'",
      "form-action 'self'",
      "frame-ancestors 'none'",
      "worker-src 'self' blob:",
      'frame-src https://challenges.cloudflare.com https://*.protect.clerk.com',
    ])
  })

  test("replaces a 'none', which allows nothing beside it", () => {
    expect(policyWithClerk("worker-src 'none'; frame-src 'none'", [])).toBe(
      "worker-src 'self' blob:; frame-src https://challenges.cloudflare.com https://*.protect.clerk.com; script-src https://challenges.cloudflare.com https://*.protect.clerk.com; style-src 'unsafe-inline'; img-src https://img.clerk.com; connect-src https://*.protect.clerk.com:*",
    )
  })

  test('stands behind all other rules, for the start page alone, and only where Clerk is used', () => {
    const widened = headerRules(SHIPPED.headers, [HOST])
    expect(widened.slice(0, -1)).toEqual(SHIPPED.headers)
    expect(widened.at(-1)).toMatchObject({ source: '/', headers: [{ key: 'content-security-policy' }] })
    expect(headerRules(widened, [HOST])).toEqual(widened)
    expect(headerRules(widened, [])).toEqual(SHIPPED.headers)
  })

  test('leaves other headers of the start page alone', () => {
    const own = { source: '/', headers: [{ key: 'x-own', value: '1' }] }
    const widened = headerRules([...SHIPPED.headers, own], [HOST])
    expect(widened).toContainEqual(own)
    expect(headerRules(widened, [])).toEqual([...SHIPPED.headers, own])
  })
})

describe('the repository', () => {
  test('ships the strict policy for every page', () => {
    expect(SHIPPED.headers).toHaveLength(1)
    expect(JSON.stringify(SHIPPED)).not.toMatch(/clerk|cloudflare|unsafe/)
    expect(policyWarnings(settings())).toEqual([])
  })
})

describe('doctor', () => {
  test('finds what Clerk lacks, --fix writes it, and then nothing is left to find', () => {
    expect(policyWarnings(settings(withClerk()), path)).toEqual([
      `vercel.json: its policy for "/" keeps the scripts of ${HOST} out, so that nobody can sign in there; npm run doctor -- --fix writes what Clerk needs.`,
    ])
    expect(fixPolicy(settings(withClerk()), path)).toContain(HOST)
    expect(policyWarnings(settings(withClerk()), path)).toEqual([])
    expect(fixPolicy(settings(withClerk()), path)).toBeUndefined()
    expect(rules()).toEqual(headerRules(SHIPPED.headers, [HOST]))
  })

  test('finds what only Clerk needed, and --fix gives the file back as it was', () => {
    const before = readFileSync(path, 'utf8')
    fixPolicy(settings(withClerk()), path)
    expect(policyWarnings(settings(), path).join()).toContain('allows what only Clerk needs')
    expect(fixPolicy(settings(), path)).toContain('that of all pages again')
    expect(readFileSync(path, 'utf8')).toBe(before)
  })

  test('notices another key, a single missing source, and a policy of all pages that changed', () => {
    fixPolicy(settings(withClerk()), path)
    expect(policyWarnings(settings(withClerk(keyOf('clerk.my.app', 'live'))), path).join()).toContain('clerk.my.app')
    const good = readFileSync(path, 'utf8')
    writeFileSync(path, good.replace(' https://img.clerk.com', ''))
    expect(policyWarnings(settings(withClerk()), path).join()).toContain('lacks img-src https://img.clerk.com;')
    writeFileSync(path, good.replace("style-src 'self' 'unsafe-inline'", "style-src 'self' 'unsafe-inline' https:"))
    expect(policyWarnings(settings(withClerk()), path).join()).toContain('has needless sources')
    fixPolicy(settings(withClerk()), path)
    expect(readFileSync(path, 'utf8')).toBe(good)
  })

  test('counts the keys of every stage, since one file is deployed to all of them', () => {
    const file = join(folder, 'fork.config.json')
    const config = JSON.parse(readFileSync('fork.config.json', 'utf8'))
    const clerk = (key: string) => ({ auth: { provider: 'clerk', clerk: { publishableKey: key } } })
    const environments = { preview: clerk(keyOf(HOST)), production: clerk(keyOf('clerk.my.app', 'live')) }
    writeFileSync(file, JSON.stringify({ ...config, environments }))
    expect(loadConfig(settings({}, file)).auth.provider).toBe('local')
    expect(clerkHosts(settings({}, file)).sort()).toEqual(['clerk.my.app', HOST])
  })

  test('has nothing to say where there is no vercel.json', () => {
    rmSync(path)
    expect(policyWarnings(settings(withClerk()), path)).toEqual([])
    expect(fixPolicy(settings(withClerk()), path)).toBeUndefined()
  })

  test('--fix on the command line writes the file and needs no Polar for it', async () => {
    const { stdout, code } = await doctor(['--fix'], withClerk())
    expect(stdout).toContain(`wrote  vercel.json  its policy for "/" allows Clerk at ${HOST}`)
    expect(stdout).not.toContain('POLAR_ACCESS_TOKEN is not set: --fix needs it')
    expect(code).toBe(0)
    expect(rules()).toEqual(headerRules(SHIPPED.headers, [HOST]))
    const second = await doctor(['--fix'], withClerk())
    expect(second.stdout).not.toContain('wrote')
    expect(second.code).toBe(0)
    expect((await doctor(['--fix', '--json'], {})).stdout).toContain('"wrote": "wrote  vercel.json')
    expect(rules()).toEqual(SHIPPED.headers)
  })

  test('--fix still says what it needs to reach Polar when that is what it was for', async () => {
    const { stdout, code } = await doctor(['--fix'], { FORK__PAYMENTS__PROVIDER: 'none' })
    expect(stdout).toContain('there is nothing to make at Polar')
    expect(code).toBe(1)
  })

  function doctor(flags: string[], variables: Record<string, string>): Promise<{ stdout: string; code: unknown }> {
    const { PATH = '' } = process.env
    const options = { cwd: folder, env: { PATH, CLERK_SECRET_KEY: 'sk_test_of_nobody', ...variables } }
    return new Promise((resolve) => {
      execFile(process.execPath, [DOCTOR, ...flags], options, (error, stdout) =>
        resolve({ stdout, code: error ? error.code : 0 }),
      )
    })
  }
})

describe('the local server', () => {
  const policyOf = async (app: Awaited<ReturnType<typeof loadApp>>, page: string) =>
    (await app.fetch(new Request(`http://localhost${page}`))).headers.get('content-security-policy')

  test('widens the policy of the start page by itself, and of no other', async () => {
    const app = await loadApp(undefined, [HOST])
    expect(await policyOf(app, '/')).toBe(policyWithClerk(GENERAL, [HOST]))
    expect(await policyOf(app, '/?reset=token')).toBe(policyWithClerk(GENERAL, [HOST]))
    for (const page of ['/404', '/style.css', '/app/main.js', '/nowhere'])
      expect(await policyOf(app, page)).toBe(GENERAL)
  })

  test('keeps it strict without Clerk', async () => {
    expect(await policyOf(await loadApp(), '/')).toBe(GENERAL)
  })
})
