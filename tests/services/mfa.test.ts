// The second factor, called directly on real PostgreSQL: every code good once in any race, and by the database's clock.
import { createHash } from 'node:crypto'
import { hash } from '@node-rs/bcrypt'
import { sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import {
  confirmFactor,
  countCodeTry,
  disableMfa,
  enrol,
  forgetCodeTries,
  hasFactor,
  mfaOf,
  renewRecoveryCodes,
  spendCode,
} from '../../lib/auth/mfa.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { beginSession, rotateSession } from '../../lib/auth/sessions.ts'
import { config } from '../../lib/config.ts'
import { open } from '../../lib/vault.ts'
import { startApp } from '../support/app.ts'
import { codeOf, wrongCodeOf } from '../support/authenticator.ts'

const PASSWORD = 'correct horse battery staple'
const ORIGIN = { ip: '203.0.113.7', userAgent: 'node' }

let passwordHash: string
let userId: string
let sessionId: string
let refreshToken: string
let count = 0

beforeAll(async () => {
  await startApp()
  passwordHash = await hash(PASSWORD, { cost: 4 })
})

beforeEach(async () => {
  count += 1
  const person = { name: 'Ada', email: `ada-${count}@example.com`, role: 'user' as const, passwordHash }
  userId = await db()
    .transaction()
    .execute((trx) => createUser(trx, person))
  const session = await beginSession(db(), userId, ORIGIN)
  sessionId = session.sessionId
  refreshToken = session.refreshToken
})

const by = () => ({ actor: { type: 'user' as const, id: userId }, requestId: 'request-1' })
const spend = (code: string) =>
  db()
    .transaction()
    .execute((trx) => spendCode(trx, userId, code))
const enrolled = async () => (await enrol(userId, by())).secret
const owner = (role: 'user' | 'admin' = 'user') => ({ userId, role })
const failures = async () =>
  (await db().selectFrom('sign_in_failures').selectAll().execute()).map(({ failures: number }) => number)

async function inForce() {
  const secret = await enrolled()
  const recoveryCodes = await confirmFactor({ userId, sessionId }, codeOf(secret, -1), by())
  return { secret, recoveryCodes }
}

/** The code of a refusal, which says why in a sentence; 'none' when there was none. */
async function refusal(attempt: Promise<unknown>): Promise<unknown> {
  return await attempt.then(
    () => 'none',
    (error: unknown) => {
      if (!(error instanceof Error && 'code' in error)) return error
      expect(error.message).toMatch(/^[A-Z].*\.$/)
      return error.code
    },
  )
}

/** A recovery code as an earlier release kept it. */
async function keepRecoveryCode(plain: string): Promise<void> {
  const code_hash = createHash('sha256').update(`${userId}:${plain}`).digest('hex')
  await db().insertInto('mfa_recovery_codes').values({ user_id: userId, code_hash }).execute()
}

describe('a code', () => {
  test('is spent once in a race of twenty', async () => {
    const { secret } = await inForce()
    const spent = await Promise.all(Array.from({ length: 20 }, () => spend(codeOf(secret))))
    expect(spent.filter(Boolean)).toHaveLength(1)
  })

  test('to recover is spent once in a race of twenty, and leaves nine', async () => {
    const { recoveryCodes } = await inForce()
    const spent = await Promise.all(Array.from({ length: 20 }, () => spend(recoveryCodes[3] ?? '')))
    expect(spent.filter(Boolean)).toHaveLength(1)
    expect(await mfaOf(owner())).toEqual({ enabled: true, recoveryCodesLeft: 9, required: false })
    const again = await Promise.all(recoveryCodes.map(spend))
    expect(again.filter(Boolean)).toHaveLength(9)
    expect(await mfaOf(owner())).toMatchObject({ recoveryCodesLeft: 0 })
  })

  test('is unspent when what it was for came to nothing', async () => {
    const { secret, recoveryCodes } = await inForce()
    for (const code of [codeOf(secret), recoveryCodes[0] ?? '']) {
      const failed = db()
        .transaction()
        .execute(async (trx) => {
          expect(await spendCode(trx, userId, code)).toBe(true)
          throw new Error('rolled back')
        })
      await expect(failed).rejects.toThrow('rolled back')
      expect(await spend(code)).toBe(true)
    }
  })

  test('of the step before is worth nothing once the current one was used', async () => {
    const { secret } = await inForce()
    expect(await spend(codeOf(secret, 1))).toBe(true)
    expect(await spend(codeOf(secret))).toBe(false)
  })

  test.each(['', '123', '0000000', 'abcd-abcd-abcd-abcd', '１２３４５６'])('is not %o', async (code) => {
    await inForce()
    expect(await spend(code)).toBe(false)
  })

  test('of a factor that is not in force is worth nothing', async () => {
    expect(await spend('123456')).toBe(false)
    expect(await spend(codeOf(await enrolled()))).toBe(false)
    expect(await hasFactor(db(), userId)).toBe(false)
  })

  test.each([
    ['as it was shown', '0a1b-1c0d-01ef-10gh'],
    ['with the letters that its digits look like, in either case', 'Oa1B-iC0D-oLeF-IOgh'],
    ['with spaces, and other dashes', ' 0a1b1c 0d-01-ef10gh '],
  ])('to recover is read %s, for as long as it is kept', async (_, typed) => {
    await keepRecoveryCode('0a1b1c0d01ef10gh')
    expect(await spend(typed)).toBe(true)
    expect(await spend(typed)).toBe(false)
  })

  test.each(['012345abcdefghjk', 'abcdefghjk012345'])('to recover is %s, whatever digits are in it', async (code) => {
    await inForce()
    await keepRecoveryCode(code)
    expect(await spend(code)).toBe(true)
  })

  test('to recover is that of one user alone', async () => {
    const { recoveryCodes } = await inForce()
    const stranger = await db()
      .transaction()
      .execute((trx) => createUser(trx, { name: 'Eve', email: `stranger-${count}@example.com`, role: 'user' }))
    const stolen = db()
      .transaction()
      .execute((trx) => spendCode(trx, stranger, recoveryCodes[0] ?? ''))
    expect(await stolen).toBe(false)
    expect(await spend(recoveryCodes[0] ?? '')).toBe(true)
  })
})

describe('enrolling', () => {
  test('names the brand and the address in the app, and keeps the secret where the vault knows it', async () => {
    const { secret, otpauthUrl } = await enrol(userId, by())
    const label = decodeURIComponent(new URL(otpauthUrl).pathname)
    expect(label).toBe(`/${config().brand.name}:ada-${count}@example.com`)
    expect(new URL(otpauthUrl).searchParams.get('secret')).toBe(secret)
    const kept = await db()
      .selectFrom('mfa_factors')
      .selectAll()
      .where('user_id', '=', userId)
      .executeTakeFirstOrThrow()
    expect(kept.confirmed_at).toBeNull()
    expect(open(kept.secret, { table: 'mfa_factors', row: userId, column: 'secret' })).toBe(secret)
  })

  test('anew replaces a secret that was never confirmed', async () => {
    const [first, second] = [await enrolled(), await enrolled()]
    expect(await refusal(confirmFactor({ userId, sessionId }, codeOf(first), by()))).toBe('FORBIDDEN')
    expect(await refusal(confirmFactor({ userId, sessionId }, codeOf(second), by()))).toBe('none')
  })

  test('is refused while a factor is in force, which stays', async () => {
    const { secret } = await inForce()
    expect(await refusal(enrol(userId, by()))).toBe('CONFLICT')
    expect(await spend(codeOf(secret))).toBe(true)
    const enrolments = await db()
      .selectFrom('audit_log')
      .select('id')
      .where('target_id', '=', userId)
      .where('action', '=', 'mfa.enroll')
      .execute()
    expect(enrolments).toHaveLength(1)
  })
})

describe('confirming', () => {
  test('gives ten codes to recover, of four groups that cannot be misread', async () => {
    const { recoveryCodes } = await inForce()
    expect(new Set(recoveryCodes).size).toBe(10)
    const group = '[0-9a-hj-km-np-tv-z]{4}'
    for (const code of recoveryCodes) expect(code).toMatch(new RegExp(`^${group}-${group}-${group}-${group}$`))
  })

  test('needs a factor that was enrolled and is not in force', async () => {
    expect(await refusal(confirmFactor({ userId, sessionId }, '123456', by()))).toBe('CONFLICT')
    const { secret, recoveryCodes } = await inForce()
    expect(await refusal(confirmFactor({ userId, sessionId }, codeOf(secret), by()))).toBe('CONFLICT')
    expect(await spend(recoveryCodes[0] ?? ''), 'the codes stay').toBe(true)
  })

  test('happens once in a race of four, and only one set of codes is left', async () => {
    const secret = await enrolled()
    const attempts = await Promise.allSettled(
      Array.from({ length: 4 }, () => confirmFactor({ userId, sessionId }, codeOf(secret), by())),
    )
    const given = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []))
    expect(given).toHaveLength(1)
    expect(await Promise.all((given[0] ?? []).map(spend))).toEqual(Array(10).fill(true))
    expect(await spend(codeOf(secret)), 'the code that confirmed').toBe(false)
  })

  test('marks the session it happened in, and every token that follows', async () => {
    const other = await beginSession(db(), userId, ORIGIN)
    await inForce()
    await rotateSession(db(), refreshToken, ORIGIN)
    const rows = await db()
      .selectFrom('refresh_tokens')
      .select(['family_id', 'mfa'])
      .where('user_id', '=', userId)
      .orderBy('created_at')
      .execute()
    expect(rows.filter(({ family_id }) => family_id === sessionId).map(({ mfa }) => mfa)).toEqual([true, true])
    expect(rows.filter(({ family_id }) => family_id === other.sessionId).map(({ mfa }) => mfa)).toEqual([false])
  })

  test('forgets the tries before, and a wrong code is one', async () => {
    await db().deleteFrom('sign_in_failures').execute()
    const secret = await enrolled()
    expect(await refusal(confirmFactor({ userId, sessionId }, wrongCodeOf(secret), by()))).toBe('FORBIDDEN')
    expect(await failures()).toEqual([1])
    await confirmFactor({ userId, sessionId: undefined }, codeOf(secret), by())
    expect(await failures()).toEqual([])
  })

  test('goes by the clock of the database', async () => {
    const secret = await enrolled()
    for (const steps of [-3, 3]) {
      expect(await refusal(confirmFactor({ userId, sessionId }, codeOf(secret, steps), by()))).toBe('FORBIDDEN')
    }
  })

  test('of two enrolments at once leaves one secret', async () => {
    const made = await Promise.all([enrolled(), enrolled(), enrolled()])
    const good = await Promise.all(
      made.map((secret) => refusal(confirmFactor({ userId, sessionId }, codeOf(secret), by()))),
    )
    expect(good.filter((outcome) => outcome === 'none')).toHaveLength(1)
  })
})

describe('recovery codes', () => {
  test('are renewed for a code, and the old ones are worth nothing', async () => {
    const { secret, recoveryCodes } = await inForce()
    expect(await refusal(renewRecoveryCodes(userId, wrongCodeOf(secret), by()))).toBe('FORBIDDEN')
    expect(await mfaOf(owner())).toMatchObject({ recoveryCodesLeft: 10 })
    const renewed = await renewRecoveryCodes(userId, codeOf(secret), by())
    expect(new Set([...renewed, ...recoveryCodes]).size).toBe(20)
    expect(await spend(recoveryCodes[0] ?? '')).toBe(false)
    expect(await spend(renewed[0] ?? '')).toBe(true)
    const records = await db()
      .selectFrom('audit_log')
      .select(['actor_id', 'target_type', 'target_id'])
      .where('action', '=', 'mfa.recovery_codes')
      .where('target_id', '=', userId)
      .execute()
    expect(records).toEqual([{ actor_id: userId, target_type: 'user', target_id: userId }])
  })

  test('are renewed without a trace of the wrong codes before', async () => {
    const { secret } = await inForce()
    await db().deleteFrom('sign_in_failures').execute()
    expect(await refusal(renewRecoveryCodes(userId, wrongCodeOf(secret), by()))).toBe('FORBIDDEN')
    expect(await failures()).toEqual([1])
    await renewRecoveryCodes(userId, codeOf(secret), by())
    expect(await failures()).toEqual([])
  })

  test('need a factor in force', async () => {
    expect(await refusal(renewRecoveryCodes(userId, '123456', by()))).toBe('CONFLICT')
    const secret = await enrolled()
    expect(await refusal(renewRecoveryCodes(userId, codeOf(secret), by()))).toBe('CONFLICT')
  })
})

describe('disabling', () => {
  test('takes factor, codes and marks away, on record', async () => {
    const { secret } = await inForce()
    await disableMfa(owner(), { password: PASSWORD, code: codeOf(secret) }, by())
    expect(await mfaOf(owner())).toEqual({ enabled: false, recoveryCodesLeft: 0, required: false })
    const tokens = await db().selectFrom('refresh_tokens').select('mfa').where('user_id', '=', userId).execute()
    expect(tokens).toEqual([{ mfa: false }])
    const audit = await db()
      .selectFrom('audit_log')
      .select(['action', 'actor_id', 'target_type', 'target_id', 'request_id'])
      .where('target_id', '=', userId)
      .orderBy('id')
      .execute()
    const record = { actor_id: userId, target_type: 'user', target_id: userId, request_id: 'request-1' }
    expect(audit).toEqual(['mfa.enroll', 'mfa.enable', 'mfa.disable'].map((action) => ({ action, ...record })))
  })

  test('is refused to an administrator who needs one, and allowed to one who does not', async () => {
    const { secret } = await inForce()
    config().auth.mfaForAdmins = true
    try {
      expect(await mfaOf(owner('admin'))).toMatchObject({ required: true })
      expect(await mfaOf(owner('user'))).toMatchObject({ required: false })
      const attempt = disableMfa(owner('admin'), { password: PASSWORD, code: codeOf(secret) }, by())
      expect(await refusal(attempt)).toBe('CONFLICT')
    } finally {
      config().auth.mfaForAdmins = false
    }
    expect(await mfaOf(owner('admin'))).toMatchObject({ required: false })
    await disableMfa(owner('admin'), { password: PASSWORD, code: codeOf(secret) }, by())
  })

  test('leaves everything as it was when the password or the code is wrong', async () => {
    const { secret } = await inForce()
    await db().deleteFrom('sign_in_failures').execute()
    const wrong = [
      { password: 'not the password', code: codeOf(secret) },
      { password: PASSWORD, code: wrongCodeOf(secret) },
    ]
    for (const given of wrong) expect(await refusal(disableMfa(owner(), given, by()))).toBe('FORBIDDEN')
    expect(await failures(), 'the right password is forgiven, the wrong code is not').toEqual([1])
    expect(await mfaOf(owner())).toMatchObject({ enabled: true, recoveryCodesLeft: 10 })
    expect(await spend(codeOf(secret)), 'a code that did nothing is good still').toBe(true)
  })
})

describe('guessing codes', () => {
  test('waits after five tries of a user, and nobody else does', async () => {
    const tries = await Promise.all(Array.from({ length: 8 }, () => refusal(countCodeTry(userId))))
    expect(tries.filter((outcome) => outcome === 'RATE_LIMITED').length).toBeGreaterThanOrEqual(3)
    expect(await refusal(countCodeTry(crypto.randomUUID()))).toBe('none')
    await forgetCodeTries(db(), userId)
    expect(await refusal(countCodeTry(userId))).toBe('none')
  })
})

test('a secret cannot be moved to another user', async () => {
  const { secret } = await inForce()
  const thief = await db()
    .transaction()
    .execute((trx) => createUser(trx, { name: 'Eve', email: `eve-${count}@example.com`, role: 'user' }))
  await sql`
    insert into mfa_factors (user_id, secret, confirmed_at)
      select ${thief}, secret, now() from mfa_factors where user_id = ${userId}
  `.execute(db())
  const attempt = db()
    .transaction()
    .execute((trx) => spendCode(trx, thief, codeOf(secret)))
  await expect(attempt).rejects.toThrow()
})
