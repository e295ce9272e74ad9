// The secret of local sign-in: given by the environment, or made once for a machine that nobody shares.
import type { KeyObject } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { missingSecret } from '../../lib/auth/secret.ts'
import { parseEnv } from '../../lib/env.ts'

const SECRET = 'a secret that is long enough for anybody'
const DATABASE = 'postgres://u:p@host/db'
let dataDir: string

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'test-secret-'))
  for (const name of ['AUTH_JWT_SECRET', 'POSTGRES_URL', 'DATABASE_URL', 'VERCEL', 'VERCEL_ENV', 'CLERK_SECRET_KEY'])
    vi.stubEnv(name, undefined)
  vi.stubEnv('DATA_DIR', join(dataDir, 'deep', 'down'))
})

afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(dataDir, { recursive: true })
})

/** The module as a process that starts now has it. */
async function startedAfresh() {
  vi.resetModules()
  return await import('../../lib/auth/secret.ts')
}

const hexOf = (key: KeyObject) => key.export().toString('hex')

describe('keyFor', () => {
  test('gives every purpose a key of its own, the same ones wherever the secret is the same', async () => {
    vi.stubEnv('AUTH_JWT_SECRET', SECRET)
    const purposes = ['access-token', 'refresh-token', 'trial', 'sign-in-failures'] as const
    const { keyFor } = await startedAfresh()
    const keys = purposes.map((purpose) => hexOf(keyFor(purpose)))
    expect(new Set(keys).size).toBe(purposes.length)
    expect(keys.every((key) => key.length === 64)).toBe(true)
    const other = await startedAfresh()
    expect(purposes.map((purpose) => hexOf(other.keyFor(purpose)))).toEqual(keys)
    vi.stubEnv('AUTH_JWT_SECRET', `${SECRET}!`)
    const changed = await startedAfresh()
    expect(hexOf(changed.keyFor('access-token'))).not.toBe(keys[0])
  })

  test('makes a secret where there is none, once, for this machine and its owner alone', async () => {
    const { keyFor } = await startedAfresh()
    const key = keyFor('access-token')
    const file = join(dataDir, 'deep', 'down', 'auth-secret')
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(readFileSync(file, 'utf8')).toMatch(/^[\w-]{43}$/)
    const restarted = await startedAfresh()
    expect(hexOf(restarted.keyFor('access-token')), 'a restart signs nobody out').toBe(hexOf(key))
    expect(restarted.keyFor('access-token'), 'which it is asked for once').toBe(restarted.keyFor('access-token'))
  })

  test('refuses a secret that was cut short', async () => {
    const { keyFor } = await startedAfresh()
    keyFor('trial')
    const file = join(dataDir, 'deep', 'down', 'auth-secret')
    for (const length of [0, 42]) {
      truncateSync(file, length)
      const restarted = await startedAfresh()
      expect(() => restarted.keyFor('trial')).toThrow(/auth-secret is damaged/)
    }
  })

  test('writes nothing where the secret is given', async () => {
    vi.stubEnv('AUTH_JWT_SECRET', SECRET)
    const { keyFor } = await startedAfresh()
    keyFor('access-token')
    expect(() => statSync(join(dataDir, 'deep'))).toThrow('ENOENT')
  })

  test("is Clerk's secret where Clerk signs people in, and there alone", async () => {
    vi.stubEnv('CLERK_SECRET_KEY', 'sk_test_one')
    const local = await startedAfresh()
    const own = hexOf(local.keyFor('vault'))
    vi.stubEnv('FORK__AUTH__PROVIDER', 'clerk')
    vi.stubEnv('FORK__AUTH__CLERK__PUBLISHABLE_KEY', `pk_test_${btoa('test-app-1.clerk.accounts.dev$')}`)
    const one = hexOf((await startedAfresh()).keyFor('vault'))
    const again = hexOf((await startedAfresh()).keyFor('vault'))
    vi.stubEnv('CLERK_SECRET_KEY', 'sk_test_two')
    const two = hexOf((await startedAfresh()).keyFor('vault'))
    expect(again).toBe(one)
    expect(new Set([own, one, two]).size).toBe(3)
    vi.stubEnv('CLERK_SECRET_KEY', undefined)
    expect(hexOf((await startedAfresh()).keyFor('vault')), "without it, this machine's").toBe(own)
  })

  test.runIf(process.platform === 'linux')('says what is wrong with a folder that it cannot write to', async () => {
    vi.stubEnv('DATA_DIR', '/sys')
    const { keyFor } = await startedAfresh()
    expect(() => keyFor('access-token')).toThrow(/EACCES|EROFS|EPERM/)
  })

  test('refuses to make one where instances share a database', async () => {
    vi.stubEnv('POSTGRES_URL', DATABASE)
    vi.stubEnv('VERCEL_ENV', 'production')
    const { keyFor } = await startedAfresh()
    expect(() => keyFor('access-token')).toThrow(
      expect.objectContaining({
        code: 'FEATURE_DISABLED',
        message: expect.stringMatching(/^[A-Z].+\.$/),
        details: { reason: expect.stringContaining('AUTH_JWT_SECRET') },
      }),
    )
    expect(() => statSync(join(dataDir, 'deep'))).toThrow('ENOENT')
  })
})

describe('missingSecret', () => {
  test.each([
    { where: 'on a developer machine', variables: {}, missing: false },
    { where: 'on a developer machine with PostgreSQL', variables: { POSTGRES_URL: DATABASE }, missing: false },
    { where: "in production of one's own", variables: { VERCEL_ENV: 'production' }, missing: true },
    {
      where: "in production of one's own with PostgreSQL",
      variables: { VERCEL_ENV: 'production', POSTGRES_URL: DATABASE },
      missing: true,
    },
    {
      where: 'on Vercel without a database, which is a demo',
      variables: { VERCEL: '1', VERCEL_ENV: 'production' },
      missing: false,
    },
    {
      where: 'in a preview on Vercel with a database',
      variables: { VERCEL: '1', VERCEL_ENV: 'preview', DATABASE_URL: DATABASE },
      missing: true,
    },
    {
      where: 'in production on Vercel with a database',
      variables: { VERCEL: '1', VERCEL_ENV: 'production', DATABASE_URL: DATABASE },
      missing: true,
    },
  ])('$where: $missing', ({ variables, missing }) => {
    expect(missingSecret(parseEnv(variables)) !== null).toBe(missing)
    expect(missingSecret(parseEnv({ ...variables, AUTH_JWT_SECRET: SECRET }))).toBeNull()
  })
})
