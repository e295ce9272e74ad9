// Local accounts, called directly on real PostgreSQL: registering, changing the password, and the seeded admin.
import { hash } from '@node-rs/bcrypt'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { isUniqueViolation } from '../../db/errors.ts'
import { changePassword, personalWords, register, requireActive, seedAdmin } from '../../lib/auth/accounts.ts'
import { issueToken } from '../../lib/auth/email-tokens.ts'
import { verifyPassword } from '../../lib/auth/passwords.ts'
import { beginSession } from '../../lib/auth/sessions.ts'
import { networkHash } from '../../lib/auth/trial.ts'
import { env } from '../../lib/env.ts'
import { AppError } from '../../lib/http/errors.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { startApp } from '../support/app.ts'

const PASSWORD = 'correct horse battery staple'
const ORIGIN = { ip: '203.0.113.7', userAgent: 'node', requestId: 'request-1' }
const ROOT = { email: 'root@example.com', password: 'a password for the admin' }

let email: string

beforeAll(() => startApp())

beforeEach(() => {
  email = `${crypto.randomUUID()}@example.com`
  env().admin = undefined
})

const person = () => ({ name: 'Ada', email, password: PASSWORD })
const usersOf = (address: string) => db().selectFrom('users').selectAll().where('email', '=', address).execute()
const records = (targetId: string) =>
  db()
    .selectFrom('audit_log')
    .select(['action', 'actor_type', 'actor_id', 'target_type', 'ip', 'user_agent', 'request_id'])
    .where('target_id', '=', targetId)
    .execute()

/** The error of a refusal, which says why. */
async function errorOf(attempt: Promise<unknown>): Promise<AppError> {
  const error = await attempt.then(() => undefined).catch((error: unknown) => error)
  if (!(error instanceof AppError)) throw error ?? new Error('Nothing was refused.')
  expect(error.message, 'why').toMatch(/^[A-Z].+\.$/)
  return error
}

const refusal = async (attempt: Promise<unknown>) => (await errorOf(attempt)).code

describe('registering', () => {
  test('makes a user with one session, from where they are, on record', async () => {
    const session = await register(person(), ORIGIN)
    const [user, ...more] = await usersOf(email)
    expect(more).toEqual([])
    expect(user).toMatchObject({ id: session.userId, name: 'Ada', role: 'user', email_verified_at: null })
    expect(user?.signup_network).toBe(networkHash(ORIGIN.ip))
    expect(await verifyPassword(PASSWORD, user?.password_hash ?? '')).toBe(true)
    const tokens = db().selectFrom('refresh_tokens').select(['family_id', 'ip']).where('user_id', '=', session.userId)
    expect(await tokens.execute()).toEqual([{ family_id: session.sessionId, ip: ORIGIN.ip }])
    expect(await records(session.userId)).toEqual([
      {
        action: 'user.register',
        actor_type: 'user',
        actor_id: session.userId,
        target_type: 'user',
        ip: ORIGIN.ip,
        user_agent: 'node',
        request_id: 'request-1',
      },
    ])
  })

  test('at an address that is taken makes nobody, at the same time neither', async () => {
    const outcomes = await Promise.allSettled([register(person(), ORIGIN), register(person(), ORIGIN)])
    expect(outcomes.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
    expect(await refusal(register(person(), ORIGIN))).toBe('EMAIL_TAKEN')
    expect(await usersOf(email)).toHaveLength(1)
  })

  test('at the address that is promised to the admin makes nobody', async () => {
    env().admin = { email, password: PASSWORD }
    expect(await refusal(register(person(), ORIGIN))).toBe('EMAIL_TAKEN')
    expect(await usersOf(email)).toEqual([])
  })

  test('with a password that anybody would try makes nobody, and names the field', async () => {
    for (const password of ['password1234', email, email.slice(0, 36)]) {
      const { code, details } = await errorOf(register({ ...person(), password }, ORIGIN))
      expect({ code, details }).toMatchObject({
        code: 'VALIDATION_FAILED',
        details: { issues: [{ path: 'password' }] },
      })
    }
    expect(await usersOf(email)).toEqual([])
  })

  test('that fails for another reason does not say that the address is taken', async () => {
    await expect(register({ ...person(), email: `${'a'.repeat(400)}@example.com` }, ORIGIN)).rejects.toThrow('too long')
  })
})

describe('a password', () => {
  const NEW = { currentPassword: PASSWORD, newPassword: 'a good new password' }

  let user: Account

  beforeEach(async () => {
    user = await givenAccount()
    const password_hash = await hash(PASSWORD, { cost: 4 })
    await db().updateTable('users').set({ password_hash }).where('id', '=', user.id).execute()
  })

  const living = async () =>
    (
      await db()
        .selectFrom('refresh_tokens')
        .select('family_id')
        .where('user_id', '=', user.id)
        .where('revoked', '=', false)
        .execute()
    ).map(({ family_id: id }) => id)
  const change = (sessionId: string | undefined, values = NEW) =>
    changePassword({ userId: user.id, sessionId }, values, ORIGIN)
  const isPassword = async (password: string) => {
    const [row] = await usersOf(user.email)
    return await verifyPassword(password, row?.password_hash ?? undefined)
  }

  test('is changed on record, and ends the other sessions and the links to reset it', async () => {
    await beginSession(db(), user.id, ORIGIN)
    for (const purpose of ['reset', 'verify'] as const)
      await issueToken(db(), { userId: user.id, purpose, email: user.email })
    await change(user.sessionId)
    expect(await isPassword(NEW.newPassword)).toBe(true)
    expect(await living()).toEqual([user.sessionId])
    const ended = db().selectFrom('refresh_tokens').select('revoked_reason').where('user_id', '=', user.id)
    expect(await ended.where('revoked', '=', true).execute()).toEqual([{ revoked_reason: 'password' }])
    const links = db().selectFrom('email_tokens').select('purpose').where('user_id', '=', user.id)
    expect(await links.execute()).toEqual([{ purpose: 'verify' }])
    expect(await records(user.id)).toEqual([
      {
        action: 'user.password',
        actor_type: 'user',
        actor_id: user.id,
        target_type: 'user',
        ip: ORIGIN.ip,
        user_agent: 'node',
        request_id: 'request-1',
      },
    ])
  })

  test('changed outside any session ends them all', async () => {
    await change(undefined)
    expect(await living()).toEqual([])
  })

  test('is changed for its owner alone', async () => {
    const other = await givenAccount()
    const [before] = await usersOf(other.email)
    await change(user.sessionId)
    expect(await usersOf(other.email)).toEqual([before])
  })

  test('stays when the current one is wrong', async () => {
    expect(await refusal(change(user.sessionId, { ...NEW, currentPassword: 'not the password' }))).toBe('FORBIDDEN')
    expect(await isPassword(PASSWORD)).toBe(true)
  })

  test('stays when the new one is one that anybody would try, and names the field', async () => {
    for (const newPassword of ['password1234', user.email]) {
      const { code, details } = await errorOf(change(user.sessionId, { ...NEW, newPassword }))
      expect({ code, details }).toMatchObject({
        code: 'VALIDATION_FAILED',
        details: { issues: [{ path: 'newPassword' }] },
      })
    }
    expect(await isPassword(PASSWORD)).toBe(true)
  })

  test('is changed once by two who change it at the same time, and the other one learns so', async () => {
    const outcomes = await Promise.allSettled([change(user.sessionId), change(user.sessionId)])
    const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []))
    expect(refused).toHaveLength(1)
    expect(await refusal(Promise.reject(refused[0]))).toBe('FORBIDDEN')
    expect(await records(user.id)).toHaveLength(1)
  })

  test('is none of what is known of a person', () => {
    expect(personalWords({ name: 'Ada', email: 'ada.king@example.com' })).toEqual([
      'Ada',
      'ada.king@example.com',
      'ada.king',
    ])
  })
})

describe('whether a user may act', () => {
  test.each([
    { status: 'suspended', code: 'ACCOUNT_SUSPENDED' },
    { status: 'deleted', code: 'UNAUTHENTICATED' },
  ] as const)('$status: $code', async ({ status, code }) => {
    expect(await refusal(requireActive(db(), (await givenAccount({ status })).id))).toBe(code)
  })

  test('active: yes, with or without a session', async () => {
    const { id } = await givenAccount()
    await db().deleteFrom('refresh_tokens').where('user_id', '=', id).execute()
    await expect(requireActive(db(), id)).resolves.toBeUndefined()
  })

  test('never heard of: no', async () => {
    expect(await refusal(requireActive(db(), crypto.randomUUID()))).toBe('UNAUTHENTICATED')
  })
})

describe('the seeded admin', () => {
  test('is none where none is set', async () => {
    expect(await seedAdmin()).toBe(false)
  })

  test('is made on record by nobody, once, and keeps the password they have', async () => {
    env().admin = ROOT
    expect((await Promise.all([seedAdmin(), seedAdmin()])).toSorted()).toEqual([false, true])
    const [admin, ...more] = await usersOf(ROOT.email)
    expect(more).toEqual([])
    expect(admin).toMatchObject({ role: 'admin', name: 'Admin', email_verified_at: expect.any(Date) })
    expect(await records(admin?.id ?? '')).toMatchObject([
      { action: 'admin.seed', actor_type: 'system', actor_id: null, target_type: 'user' },
    ])
    env().admin = { ...ROOT, password: 'another good password' }
    expect(await seedAdmin()).toBe(false)
    expect(await usersOf(ROOT.email)).toEqual([admin])
    expect(await verifyPassword(ROOT.password, admin?.password_hash ?? '')).toBe(true)
  })

  test('is made anew once the one before was deleted', async () => {
    env().admin = { ...ROOT, email }
    await db().insertInto('users').values({ name: 'Admin', email, role: 'admin', status: 'deleted' }).execute()
    expect(await seedAdmin()).toBe(true)
    expect((await usersOf(email)).map(({ status }) => status).toSorted()).toEqual(['active', 'deleted'])
  })

  test('that cannot be made says why', async () => {
    env().admin = { ...ROOT, email: `${'a'.repeat(400)}@example.com` }
    await expect(seedAdmin()).rejects.toThrow('too long')
  })
})

test('a unique violation is what PostgreSQL calls one, and nothing else', () => {
  const failing = (code: string) => Object.assign(new Error('It failed.'), { code })
  const causes = [failing('23505'), failing('23503'), new Error('23505'), { code: '23505' }, undefined]
  expect(causes.map(isUniqueViolation)).toEqual([true, false, false, false, false])
})
