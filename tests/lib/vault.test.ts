// Secrets at rest: opened where they were kept and nowhere else, under any key that is still there.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

const PLACE = { table: 'mfa_factors', row: 'row-1', column: 'secret' }
const SECRET = 'GEZDGNBVGY3TQOJQ – ünïcode'
const OLD = `old:${Buffer.alloc(32, 1).toString('base64')}`
const NEW = `new:${Buffer.alloc(32, 2).toString('base64')}`
const DEPLOYED = {
  POSTGRES_URL: 'postgres://u:p@host/db',
  VERCEL_ENV: 'production',
  AUTH_JWT_SECRET: 'a secret that is long enough for anybody',
}

let dataDir: string

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'test-vault-'))
  const names = ['ENCRYPTION_KEYS', 'AUTH_JWT_SECRET', 'POSTGRES_URL', 'DATABASE_URL', 'VERCEL', 'VERCEL_ENV']
  for (const name of names) vi.stubEnv(name, undefined)
  vi.stubEnv('DATA_DIR', dataDir)
})

afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(dataDir, { recursive: true })
})

/** The module as a process that starts now with these variables has it. */
async function vaultWith(variables: Record<string, string>) {
  for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value)
  vi.resetModules()
  return await import('../../lib/vault.ts')
}

const deployedWith = (...keys: string[]) => vaultWith({ ...DEPLOYED, ENCRYPTION_KEYS: keys.join(',') })

describe('a sealed secret', () => {
  test('opens where it is kept, and names the key it is under', async () => {
    const { open, seal } = await deployedWith(NEW, OLD)
    const sealed = seal(SECRET, PLACE)
    expect(sealed).toMatch(/^v1\.new\.[\w-]+$/)
    expect(sealed).not.toContain('GEZD')
    expect(open(sealed, PLACE)).toBe(SECRET)
    expect(open(seal('', PLACE), PLACE)).toBe('')
  })

  test('is another each time, of 28 bytes more than the secret', async () => {
    const { seal } = await deployedWith(NEW)
    expect(seal(SECRET, PLACE)).not.toBe(seal(SECRET, PLACE))
    const bytes = Buffer.from(seal('12345', PLACE).split('.')[2] ?? '', 'base64url')
    expect(bytes.length).toBe(12 + 16 + 5)
  })

  test.each([
    { table: 'tools', row: 'row-1', column: 'secret' },
    { table: 'mfa_factors', row: 'row-2', column: 'secret' },
    { table: 'mfa_factors', row: 'row-1', column: 'other' },
  ])('does not open at $table/$row/$column', async (elsewhere) => {
    const { open, seal } = await deployedWith(NEW)
    expect(() => open(seal(SECRET, PLACE), elsewhere)).toThrow()
  })

  test('does not open with any bit of it changed', async () => {
    const { open, seal } = await deployedWith(NEW)
    const [version, id, encoded = ''] = seal('12345', PLACE).split('.')
    const bytes = Buffer.from(encoded, 'base64url')
    for (let index = 0; index < bytes.length; index += 1) {
      const changed = Buffer.from(bytes)
      changed[index] = (changed[index] ?? 0) ^ 1
      expect(() => open([version, id, changed.toString('base64url')].join('.'), PLACE), `byte ${index}`).toThrow()
    }
    for (const length of [0, 11, 20, 27, bytes.length - 1]) {
      const cut = bytes.subarray(0, length).toString('base64url')
      expect(() => open([version, id, cut].join('.'), PLACE), `${length} bytes`).toThrow()
    }
  })

  test('does not open with a part of its tag, where that is all there is', async () => {
    const { open, seal } = await deployedWith(NEW)
    const [version, id, encoded = ''] = seal('', PLACE).split('.')
    for (const length of [16, 20, 24, 27]) {
      const cut = Buffer.from(encoded, 'base64url').subarray(0, length).toString('base64url')
      expect(() => open([version, id, cut].join('.'), PLACE), `${length} bytes`).toThrow()
    }
  })

  test.each(['', 'v1', 'v1.new', 'v2.new.AAAA', 'plain text'])('is not %o', async (text) => {
    const { open } = await deployedWith(NEW)
    expect(() => open(text, PLACE)).toThrow()
  })

  test('of another version is not opened as if it were of this one', async () => {
    const { open, seal } = await deployedWith(NEW)
    expect(() => open(seal(SECRET, PLACE).replace('v1', 'v2'), PLACE)).toThrow('No key opens')
  })

  test('says which key is missing, and nothing of the secret', async () => {
    const sealed = (await deployedWith(OLD)).seal(SECRET, PLACE)
    const { open } = await deployedWith(NEW)
    expect(() => open(sealed, PLACE)).toThrow('No key opens mfa_factors/row-1/secret: it was sealed under "old".')
    expect(() => open(sealed.replace('v1', 'v2'), PLACE)).toThrow('No key opens')
  })
})

describe('keys', () => {
  test('are rotated by putting a new one first: it seals, all of them open', async () => {
    const before = await deployedWith(OLD)
    const sealed = before.seal(SECRET, PLACE)
    expect(before.isSealedAnew(sealed)).toBe(true)
    const { isSealedAnew, open, seal } = await deployedWith(NEW, OLD)
    expect(open(sealed, PLACE)).toBe(SECRET)
    expect(isSealedAnew(sealed)).toBe(false)
    expect(isSealedAnew(seal(SECRET, PLACE))).toBe(true)
    expect(isSealedAnew('v2.new.AAAA')).toBe(false)
  })

  test('of one id but another value open nothing', async () => {
    const sealed = (await deployedWith(OLD)).seal(SECRET, PLACE)
    const { open } = await deployedWith(OLD.replace('AQEB', 'AQEC'))
    expect(() => open(sealed, PLACE)).toThrow()
  })

  test('are needed where a database is shared: without one, keeping secrets is off', async () => {
    const { isSealedAnew, open, seal, vaultOffReason } = await vaultWith(DEPLOYED)
    expect(vaultOffReason()).toBe('ENCRYPTION_KEYS is not set.')
    const error = catching(() => seal(SECRET, PLACE))
    expect(error).toMatchObject({
      code: 'FEATURE_DISABLED',
      message: expect.stringMatching(/\.$/),
      details: { reason: 'ENCRYPTION_KEYS is not set.' },
    })
    expect(() => open('v1.local.AAAA', PLACE), 'nor is there one of this machine').toThrow('No key opens')
    expect(isSealedAnew('v1.local.AAAA')).toBe(false)
    expect((await deployedWith(NEW)).vaultOffReason()).toBeUndefined()
  })

  test('are made by a machine that has its database to itself, and outlive a restart', async () => {
    const sealed = await vaultWith({}).then(({ seal, vaultOffReason }) => {
      expect(vaultOffReason()).toBeUndefined()
      return seal(SECRET, PLACE)
    })
    expect(sealed).toMatch(/^v1\.local\./)
    const restarted = await vaultWith({})
    expect(restarted.open(sealed, PLACE)).toBe(SECRET)
    const { keyFor } = await import('../../lib/auth/secret.ts')
    const bytes = Buffer.from(sealed.slice('v1.local.'.length), 'base64url')
    expect(restarted.decrypt(keyFor('vault'), bytes, PLACE).toString(), 'a key for this purpose alone').toBe(SECRET)
    const { isSealedAnew, open, seal } = await vaultWith({ ENCRYPTION_KEYS: NEW })
    expect(open(sealed, PLACE), 'a key in the environment comes first, and the own one still opens').toBe(SECRET)
    expect(isSealedAnew(sealed)).toBe(false)
    expect(seal(SECRET, PLACE)).toMatch(/^v1\.new\./)
  })
})

function catching(work: () => unknown): unknown {
  try {
    return work()
  } catch (error) {
    return error
  }
}
