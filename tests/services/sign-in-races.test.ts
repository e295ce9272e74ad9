// Signing in against what happens in the same moment: on real PostgreSQL, with the moments held open by locks.
import { hash } from '@node-rs/bcrypt'
import { type ControlledTransaction, sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { changePassword, seedAdmin } from '../../lib/auth/accounts.ts'
import { deleteAccount, suspendAccount } from '../../lib/auth/lifecycle.ts'
import { confirmFactor, enrol } from '../../lib/auth/mfa.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { beginSession, revokeOtherSessions, rotateSession } from '../../lib/auth/sessions.ts'
import { restore, signIn } from '../../lib/auth/sign-in.ts'
import { startApp } from '../support/app.ts'
import { codeOf, wrongCodeOf } from '../support/authenticator.ts'
import { somebodyWaits } from '../support/waiting.ts'

const PASSWORD = 'correct horse battery staple'
const OTHER_PASSWORD = 'another good password'
const ORIGIN = { ip: '203.0.113.7', userAgent: 'node', requestId: 'request-1' }
const ROOT = { email: 'root@example.com', password: 'a password for the admin' }

/** bcrypt's least cost: these tests check many passwords. */
const CHEAP = { cost: 4 }

let passwordHash: string
let otherHash: string
let email: string
let userId: string
let count = 0

beforeAll(async () => {
  await startApp({ ADMIN_EMAIL: ROOT.email, ADMIN_PASSWORD: ROOT.password })
  passwordHash = await hash(PASSWORD, CHEAP)
  otherHash = await hash(OTHER_PASSWORD, CHEAP)
})

beforeEach(async () => {
  count += 1
  email = `ada-${count}@example.com`
  userId = await given({ email })
})

async function given(user: { email: string }): Promise<string> {
  return await db()
    .transaction()
    .execute((trx) => createUser(trx, { name: 'Ada', role: 'user', passwordHash, ...user }))
}

const living = () =>
  db()
    .selectFrom('refresh_tokens')
    .select('family_id')
    .where('user_id', '=', userId)
    .where('revoked', '=', false)
    .execute()

async function codeOfRefusal(attempt: Promise<unknown>): Promise<string> {
  return await attempt.then(
    () => 'none',
    (error: unknown) => (error instanceof Error && 'code' in error ? String(error.code) : String(error)),
  )
}

/** What a sign-in comes to when `act` is done in a transaction that ends while the sign-in waits for it. */
async function signInDuring(act: (trx: ControlledTransaction<Database>) => Promise<unknown>): Promise<string> {
  const trx = await db().startTransaction().execute()
  await act(trx)
  const attempt = codeOfRefusal(signIn({ email, password: PASSWORD }, ORIGIN))
  try {
    await somebodyWaits()
  } finally {
    await trx.commit().execute()
  }
  return await attempt
}

describe('a sign-in whose password was checked before', () => {
  test('the password was changed begins no session', async () => {
    const outcome = await signInDuring(async (trx) => {
      await trx.updateTable('users').set({ password_hash: otherHash }).where('id', '=', userId).execute()
      await revokeOtherSessions(trx, userId, null, 'password')
    })
    expect(outcome).toBe('UNAUTHENTICATED')
    expect(await living()).toEqual([])
  })

  test('the account was suspended begins no session', async () => {
    const outcome = await signInDuring((trx) => suspendAccount(trx, userId, { actor: { type: 'system' } }))
    expect(outcome).toBe('ACCOUNT_SUSPENDED')
    expect(await living()).toEqual([])
  })

  test('the account was deleted begins no session', async () => {
    const outcome = await signInDuring((trx) => deleteAccount(trx, userId, { actor: { type: 'system' } }))
    expect(outcome).toBe('UNAUTHENTICATED')
    expect(await living()).toEqual([])
  })

  test('a second factor came into force asks for it', async () => {
    await enrol(userId, { actor: { type: 'user', id: userId } })
    const outcome = await signInDuring(async (trx) => {
      await trx.updateTable('users').set({ name: 'Ada King' }).where('id', '=', userId).execute()
      await trx.updateTable('mfa_factors').set({ confirmed_at: sql`now()` }).where('user_id', '=', userId).execute()
    })
    expect(outcome).toBe('MFA_REQUIRED')
    expect(await living()).toEqual([])
  })

  test('nothing that matters was changed begins one', async () => {
    const outcome = await signInDuring((trx) =>
      trx.updateTable('users').set({ name: 'Ada King' }).where('id', '=', userId).execute(),
    )
    expect(outcome).toBe('none')
    expect(await living()).toHaveLength(1)
  })
})

describe('passwords', () => {
  test('changed three times at once are changed once, and no session begun with the old one is left', async () => {
    const { sessionId } = await beginSession(db(), userId, ORIGIN)
    const passwords = Array.from({ length: 3 }, (_, index) => `a good new password ${index}`)
    const attempts = passwords.map((newPassword) =>
      codeOfRefusal(changePassword({ userId, sessionId }, { currentPassword: PASSWORD, newPassword }, ORIGIN)),
    )
    const meanwhile = codeOfRefusal(signIn({ email, password: PASSWORD }, ORIGIN))
    const outcomes = await Promise.all(attempts)
    await meanwhile
    expect(outcomes.toSorted()).toEqual(['FORBIDDEN', 'FORBIDDEN', 'none'])
    expect(await living(), 'the one that changed it').toEqual([{ family_id: sessionId }])
    const audit = await db().selectFrom('audit_log').select('id').where('action', '=', 'user.password').execute()
    expect(audit).toHaveLength(1)
  })
})

describe('what is on record', () => {
  const records = () =>
    db()
      .selectFrom('audit_log')
      .select(['action', 'target_type', 'target_id', 'ip', 'user_agent', 'request_id', 'details'])
      .where('actor_id', '=', userId)
      .orderBy('id')
      .execute()

  test('is who signed in, from where', async () => {
    const { sessionId } = await signIn({ email, password: PASSWORD }, ORIGIN)
    expect(await records()).toEqual([
      {
        action: 'session.begin',
        target_type: 'session',
        target_id: sessionId,
        ip: ORIGIN.ip,
        user_agent: 'node',
        request_id: 'request-1',
        details: { mfa: false },
      },
    ])
  })

  test('is the theft of a token that comes back, however many times at once', async () => {
    const { sessionId, refreshToken } = await beginSession(db(), userId, ORIGIN)
    await rotateSession(db(), refreshToken, ORIGIN)
    await db()
      .updateTable('refresh_tokens')
      .set({ revoked_at: sql`now() - interval '31 seconds'` })
      .where('family_id', '=', sessionId)
      .where('revoked', '=', true)
      .execute()
    const outcomes = await Promise.all(Array.from({ length: 5 }, () => rotateSession(db(), refreshToken, ORIGIN)))
    expect(outcomes.every(({ reused }) => reused)).toBe(true)
    expect(await living()).toEqual([])
    const reuse = (await records()).filter(({ action }) => action === 'session.reuse')
    expect(reuse[0]).toMatchObject({ target_id: sessionId, request_id: 'request-1' })
  })
})

describe('a deleted account', () => {
  const remove = (id = userId) =>
    db()
      .transaction()
      .execute((trx) => deleteAccount(trx, id, { actor: { type: 'user', id } }))

  test('is given back within its grace to who has the password, signed in', async () => {
    await remove()
    expect(await codeOfRefusal(signIn({ email, password: PASSWORD }, ORIGIN))).toBe('UNAUTHENTICATED')
    expect(await codeOfRefusal(restore({ email, password: 'not the password' }, ORIGIN))).toBe('UNAUTHENTICATED')
    const session = await restore({ email, password: PASSWORD }, ORIGIN)
    expect(session.userId).toBe(userId)
    expect(await living()).toEqual([{ family_id: session.sessionId }])
    expect((await signIn({ email, password: PASSWORD }, ORIGIN)).userId).toBe(userId)
    const actions = (await db().selectFrom('audit_log').select('action').where('actor_id', '=', userId).execute()).map(
      ({ action }) => action,
    )
    expect(actions).toEqual(['user.delete', 'user.restore', 'session.begin', 'session.begin'])
  })

  test('is gone after its grace, as if it had never been', async () => {
    await remove()
    await db().updateTable('users').set({ purge_after: sql`now()` }).where('id', '=', userId).execute()
    expect(await codeOfRefusal(restore({ email, password: PASSWORD }, ORIGIN))).toBe('UNAUTHENTICATED')
  })

  test('is not what restoring a living one gives', async () => {
    expect(await codeOfRefusal(restore({ email, password: PASSWORD }, ORIGIN))).toBe('UNAUTHENTICATED')
  })

  test('frees its address, and is the one given back only while nobody else has it', async () => {
    await remove()
    const successor = await given({ email })
    expect((await signIn({ email, password: PASSWORD }, ORIGIN)).userId).toBe(successor)
    expect(await codeOfRefusal(restore({ email, password: PASSWORD }, ORIGIN))).toBe('CONFLICT')
    await remove(successor)
    expect((await restore({ email, password: PASSWORD }, ORIGIN)).userId, 'the latest').toBe(successor)
  })

  test('with a second factor is given back for a code of it', async () => {
    const { secret } = await enrol(userId, { actor: { type: 'user', id: userId } })
    await confirmFactor({ userId, sessionId: undefined }, codeOf(secret, -1), { actor: { type: 'user', id: userId } })
    await remove()
    const attempt = (code?: string) => restore({ email, password: PASSWORD, code }, ORIGIN)
    expect(await codeOfRefusal(attempt())).toBe('MFA_REQUIRED')
    expect(await codeOfRefusal(attempt(wrongCodeOf(secret)))).toBe('UNAUTHENTICATED')
    const user = db().selectFrom('users').select('status').where('id', '=', userId)
    expect(await user.execute(), 'a wrong code gives nothing back').toEqual([{ status: 'deleted' }])
    expect((await attempt(codeOf(secret))).userId).toBe(userId)
    expect(await user.execute()).toEqual([{ status: 'active' }])
    const sessions = await db().selectFrom('refresh_tokens').select('mfa').where('user_id', '=', userId).execute()
    expect(sessions).toEqual([{ mfa: true }])
  })

  test('is given back once in a race of four', async () => {
    await remove()
    const outcomes = await Promise.all(
      Array.from({ length: 4 }, () => codeOfRefusal(restore({ email, password: PASSWORD }, ORIGIN))),
    )
    expect(outcomes.filter((code) => code === 'none')).toHaveLength(1)
    expect(await living()).toHaveLength(1)
  })
})

describe('the seeded admin', () => {
  test('has a verified address, and is made once, also at the same time', async () => {
    expect((await Promise.all([seedAdmin(), seedAdmin()])).toSorted()).toEqual([false, true])
    expect(await seedAdmin()).toBe(false)
    const admins = db().selectFrom('users').select(['role', 'email_verified_at']).where('email', '=', ROOT.email)
    expect(await admins.execute()).toEqual([{ role: 'admin', email_verified_at: expect.any(Date) }])
  })

  test('is made anew when the one before was deleted', async () => {
    await seedAdmin()
    await db().updateTable('users').set({ status: 'deleted' }).where('email', '=', ROOT.email).execute()
    expect(await seedAdmin()).toBe(true)
    expect((await signIn(ROOT, ORIGIN)).userId).toMatch(/^[\da-f-]{36}$/)
  })
})
