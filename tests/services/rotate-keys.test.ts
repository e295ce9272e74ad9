// npm run rotate-keys, on real PostgreSQL: every secret under the first key, none lost, also beside a server that writes.
import { execFile } from 'node:child_process'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { open, seal } from '../../lib/vault.ts'
import { rotateKeys } from '../../scripts/rotate-keys.ts'
import { type App, startApp } from '../support/app.ts'
import { somebodyWaits } from '../support/waiting.ts'

const NEW_KEY = `new:${Buffer.alloc(32, 9).toString('base64')}`
const FIRST_KEY = `first:${Buffer.alloc(32, 1).toString('base64')}`

let app: App
let count = 0

beforeAll(async () => {
  app = await startApp({ ENCRYPTION_KEYS: FIRST_KEY, VERCEL_ENV: 'production' })
})

beforeEach(async () => {
  await db().deleteFrom('mfa_factors').execute()
})

const placeOf = (row: string) => ({ table: 'mfa_factors', row, column: 'secret' })

/** Users with a factor, whose secrets are `secret-0` and so on. */
async function givenFactors(
  number: number,
  secretOf = (index: number, id: string) => seal(`secret-${index}`, placeOf(id)),
) {
  const ids: string[] = []
  await db()
    .transaction()
    .execute(async (trx) => {
      for (let index = 0; index < number; index += 1) {
        count += 1
        const id = await createUser(trx, { name: 'Ada', email: `ada-${count}@example.com`, role: 'user' })
        await trx
          .insertInto('mfa_factors')
          .values({ user_id: id, secret: secretOf(index, id) })
          .execute()
        ids.push(id)
      }
    })
  return ids
}

async function secretOf(id: string): Promise<string> {
  const row = await db().selectFrom('mfa_factors').select('secret').where('user_id', '=', id).executeTakeFirstOrThrow()
  return row.secret
}

/** The command in a process of its own, with these keys. */
async function run(keys: string | undefined): Promise<{ code: unknown; stdout: string; stderr: string }> {
  const { ENCRYPTION_KEYS: _, ...rest } = process.env
  const env = { ...rest, ...app.stores.variables, ...(keys !== undefined && { ENCRYPTION_KEYS: keys }) }
  return await new Promise((resolve) => {
    execFile(process.execPath, ['scripts/rotate-keys.ts'], { env }, (error, stdout, stderr) => {
      resolve({ code: error ? error.code : 0, stdout, stderr })
    })
  })
}

describe('npm run rotate-keys', () => {
  test('seals everything anew, in batches, and finds nothing to do the second time', async () => {
    const ids = await givenFactors(450)
    const first = await run(`${NEW_KEY},${FIRST_KEY}`)
    expect(first).toMatchObject({ code: 0, stderr: '' })
    expect(first.stdout).toContain('mfa_factors.secret  450 sealed anew, 0 current, 0 changed meanwhile')
    const secrets = await Promise.all(ids.map(secretOf))
    expect(secrets.every((secret) => secret.startsWith('v1.new.'))).toBe(true)
    const second = await run(`${NEW_KEY},${FIRST_KEY}`)
    expect(second.stdout).toContain('0 sealed anew, 450 current')
    expect(await Promise.all(ids.map(secretOf)), 'nothing was written').toEqual(secrets)
    const back = await run(`${FIRST_KEY},${NEW_KEY}`)
    expect(back.stdout).toContain('450 sealed anew')
    expect(open(await secretOf(ids[449] ?? ''), placeOf(ids[449] ?? ''))).toBe('secret-449')
  })

  test('names what it cannot open, leaves that as it is, does the rest, and fails', async () => {
    const [fine = '', broken = ''] = await givenFactors(2, (index, id) =>
      index === 0 ? seal('secret', placeOf(id)) : seal('secret', placeOf('another row')),
    )
    const before = await secretOf(broken)
    const { code, stdout, stderr } = await run(`${NEW_KEY},${FIRST_KEY}`)
    expect(code).toBe(1)
    expect(stdout).toContain('1 sealed anew')
    expect(stderr).toBe(`mfa_factors.secret of ${broken} cannot be opened with these keys\n`)
    expect(await secretOf(broken)).toBe(before)
    expect(await secretOf(fine)).toMatch(/^v1\.new\./)
  })

  test('fails where there is no key', async () => {
    expect(await run(undefined)).toMatchObject({ code: 1, stderr: 'ENCRYPTION_KEYS is not set.\n' })
  })
})

describe('beside a server', () => {
  test('does not undo what was written after it looked', async () => {
    const ids = await givenFactors(3, (_, id) => seal('old', placeOf(id)).replace('v1.first.', 'v1.gone.'))
    expect((await rotateKeys(db()))[0]).toMatchObject({ rotated: 0, unreadable: ids.toSorted() })
    const [changed = ''] = await givenFactors(1, (_, id) => seal('kept', placeOf(id)))
    const trx = await db().startTransaction().execute()
    await trx
      .updateTable('mfa_factors')
      .set({ secret: seal('enrolled anew', placeOf(changed)) })
      .where('user_id', '=', changed)
      .execute()
    const running = run(`${NEW_KEY},${FIRST_KEY}`)
    try {
      await somebodyWaits()
    } finally {
      await trx.commit().execute()
    }
    expect((await running).stdout).toContain('1 changed meanwhile')
    expect(open(await secretOf(changed), placeOf(changed))).toBe('enrolled anew')
  })
})
