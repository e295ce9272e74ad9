// Signing in to local accounts and confirming a password, called directly on real PostgreSQL: what each answer is, counts and records.
import { hash } from '@node-rs/bcrypt'
import { sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { confirmPassword } from '../../lib/auth/confirm.ts'
import { deleteAccount } from '../../lib/auth/lifecycle.ts'
import { confirmFactor, enrol } from '../../lib/auth/mfa.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { restore, signIn } from '../../lib/auth/sign-in.ts'
import { hashSubject } from '../../lib/auth/throttle.ts'
import { AppError } from '../../lib/http/errors.ts'
import { startApp } from '../support/app.ts'
import { codeOf, wrongCodeOf } from '../support/authenticator.ts'

const PASSWORD = 'correct horse battery staple'
const WRONG = 'not the password'
const ORIGIN = { ip: '203.0.113.7', userAgent: 'node', requestId: 'request-1' }

let passwordHash: string
let email: string
let userId: string

beforeAll(async () => {
  await startApp()
  passwordHash = await hash(PASSWORD, { cost: 4 })
})

beforeEach(async () => {
  email = `${crypto.randomUUID()}@example.com`
  userId = await given(email)
})

async function given(address: string): Promise<string> {
  return await db()
    .transaction()
    .execute((trx) => createUser(trx, { name: 'Ada', role: 'user', email: address, passwordHash }))
}

const enter = (password = PASSWORD, code?: string) => signIn({ email, password, code }, ORIGIN)
const reenter = (password = PASSWORD, code?: string) => restore({ email, password, code }, ORIGIN)
const change = (values: { status?: 'suspended'; password_hash?: null }) =>
  db().updateTable('users').set(values).where('id', '=', userId).execute()
const remove = () =>
  db()
    .transaction()
    .execute((trx) => deleteAccount(trx, userId, { actor: { type: 'user', id: userId } }))
const sessions = () =>
  db().selectFrom('refresh_tokens').select(['family_id', 'mfa', 'ip']).where('user_id', '=', userId).execute()

async function givenFactor(): Promise<string> {
  const by = { actor: { type: 'user' as const, id: userId } }
  const { secret } = await enrol(userId, by)
  await confirmFactor({ userId, sessionId: undefined }, codeOf(secret, -1), by)
  return secret
}

/** How many failures are counted for a subject. */
async function failuresOf(subject: string): Promise<number> {
  const row = await db()
    .selectFrom('sign_in_failures')
    .select('failures')
    .where('email_hash', '=', hashSubject(subject))
    .executeTakeFirst()
  return row?.failures ?? 0
}

/** The error of a refusal, which says why. */
async function errorOf(attempt: Promise<unknown>): Promise<AppError> {
  const error = await attempt.then(() => undefined).catch((error: unknown) => error)
  if (!(error instanceof AppError)) throw error ?? new Error('Nothing was refused.')
  expect(error.message, 'why').toMatch(/^[A-Z].+\.$/)
  return error
}

const refusal = async (attempt: Promise<unknown>) => (await errorOf(attempt)).code

async function times(count: number, attempt: () => Promise<unknown>): Promise<void> {
  for (let index = 0; index < count; index += 1) await attempt()
}

describe('a password', () => {
  test('begins a session, on record', async () => {
    const session = await enter()
    expect(session).toEqual({
      userId,
      sessionId: expect.any(String),
      refreshToken: expect.stringMatching(/^rt_/),
    })
    expect(await sessions()).toEqual([{ family_id: session.sessionId, mfa: false, ip: ORIGIN.ip }])
    const records = db().selectFrom('audit_log').selectAll().where('target_id', '=', session.sessionId)
    expect(await records.execute()).toMatchObject([
      {
        action: 'session.begin',
        actor_type: 'user',
        actor_id: userId,
        target_type: 'session',
        ip: ORIGIN.ip,
        user_agent: 'node',
        request_id: 'request-1',
        details: { mfa: false },
      },
    ])
  })

  test('that is wrong, and an address that nobody has, get one answer, and each counts', async () => {
    const wrong = await errorOf(enter(WRONG))
    const nobody = `nobody.${email}`
    const unknown = await errorOf(signIn({ email: nobody, password: PASSWORD }, ORIGIN))
    expect(wrong.code).toBe('UNAUTHENTICATED')
    const { code, message, details } = wrong
    expect(unknown).toMatchObject({ code, message, details })
    expect([await failuresOf(email), await failuresOf(nobody)]).toEqual([1, 1])
    expect(await sessions()).toEqual([])
  })

  test('that nobody set lets nobody in', async () => {
    await change({ password_hash: null })
    expect(await refusal(enter())).toBe('UNAUTHENTICATED')
    expect(await refusal(confirmPassword(userId, PASSWORD))).toBe('FORBIDDEN')
  })

  test('has to wait after five wrong ones, the right one too, until a sign-in makes them forgotten', async () => {
    await times(4, () => refusal(enter(WRONG)))
    await enter()
    expect(await failuresOf(email)).toBe(0)
    await times(5, () => refusal(enter(WRONG)))
    expect(await refusal(enter())).toBe('RATE_LIMITED')
  })

  test('of a suspended account learns so, which does not count, and a wrong one does not', async () => {
    await change({ status: 'suspended' })
    expect(await refusal(enter(WRONG))).toBe('UNAUTHENTICATED')
    expect(await refusal(enter())).toBe('ACCOUNT_SUSPENDED')
    expect(await failuresOf(email)).toBe(0)
    expect(await sessions()).toEqual([])
  })

  test('of a deleted account is wrong', async () => {
    await remove()
    expect(await refusal(enter())).toBe('UNAUTHENTICATED')
  })

  test('is confirmed by its owner, wrong ones count as failed sign-ins, and a right one makes them forgotten', async () => {
    expect(await refusal(confirmPassword(userId, WRONG))).toBe('FORBIDDEN')
    expect(await failuresOf(email)).toBe(1)
    expect(await confirmPassword(userId, PASSWORD)).toEqual({ name: 'Ada', email, passwordHash })
    expect(await failuresOf(email)).toBe(0)
    await times(5, () => refusal(confirmPassword(userId, WRONG)))
    expect(await refusal(confirmPassword(userId, PASSWORD))).toBe('RATE_LIMITED')
    expect(await refusal(enter())).toBe('RATE_LIMITED')
  })
})

describe('a second factor', () => {
  test('is asked for by who has the password, and no one else', async () => {
    await givenFactor()
    expect(await refusal(enter(WRONG))).toBe('UNAUTHENTICATED')
    expect(await errorOf(enter())).toMatchObject({
      code: 'MFA_REQUIRED',
      details: { methods: ['totp', 'recovery_code'] },
    })
    expect(await failuresOf(email), 'a right password is no failure').toBe(0)
    expect(await failuresOf(`mfa:${userId}`), 'nor is it a try of a code').toBe(0)
    expect(await sessions()).toEqual([])
  })

  test('marks the session, on record', async () => {
    const secret = await givenFactor()
    const { sessionId } = await enter(PASSWORD, codeOf(secret))
    expect(await sessions()).toMatchObject([{ mfa: true }])
    const record = db().selectFrom('audit_log').select('details').where('target_id', '=', sessionId)
    expect(await record.execute()).toEqual([{ details: { mfa: true } }])
  })

  test('that is wrong gets the answer of a wrong password, and counts until it is right', async () => {
    const secret = await givenFactor()
    const { code, message } = await errorOf(enter(WRONG))
    expect(await errorOf(enter(PASSWORD, wrongCodeOf(secret)))).toMatchObject({ code, message })
    expect([await failuresOf(email), await failuresOf(`mfa:${userId}`)]).toEqual([2, 1])
    await enter(PASSWORD, codeOf(secret))
    expect([await failuresOf(email), await failuresOf(`mfa:${userId}`)]).toEqual([0, 0])
  })

  test('has to wait after five wrong codes, which no right password makes forgotten', async () => {
    const secret = await givenFactor()
    for (let index = 0; index < 5; index += 1) {
      expect(await refusal(enter(PASSWORD, wrongCodeOf(secret)))).toBe('UNAUTHENTICATED')
      expect(await refusal(enter())).toBe('MFA_REQUIRED')
    }
    expect(await refusal(enter(PASSWORD, codeOf(secret)))).toBe('RATE_LIMITED')
    expect(await sessions()).toEqual([])
  })

  test('that was never confirmed is none', async () => {
    await enrol(userId, { actor: { type: 'user', id: userId } })
    await enter()
    expect(await sessions()).toMatchObject([{ mfa: false }])
  })

  test('is not asked for where there is none, and no code counts for one', async () => {
    await times(7, () => enter(PASSWORD, '123456'))
    expect(await sessions()).toHaveLength(7)
    expect((await sessions()).some(({ mfa }) => mfa)).toBe(false)
  })
})

describe('a deleted account', () => {
  test('is given back to its owner, on record as their act, and signed in to', async () => {
    await remove()
    const { sessionId } = await reenter()
    expect(await sessions()).toMatchObject([{ family_id: sessionId }])
    const record = db()
      .selectFrom('audit_log')
      .select(['actor_type', 'actor_id', 'ip', 'request_id'])
      .where('action', '=', 'user.restore')
      .where('target_id', '=', userId)
    const { ip, requestId: request_id } = ORIGIN
    expect(await record.execute()).toEqual([{ actor_type: 'user', actor_id: userId, ip, request_id }])
  })

  test('is given back to nobody else', async () => {
    await remove()
    expect(await refusal(reenter(WRONG))).toBe('UNAUTHENTICATED')
    expect(await failuresOf(email)).toBe(1)
    await given(`other.${email}`)
    expect(await refusal(restore({ email: `other.${email}`, password: PASSWORD }, ORIGIN))).toBe('UNAUTHENTICATED')
  })

  test('is not what a living or a suspended one is', async () => {
    expect(await refusal(reenter())).toBe('UNAUTHENTICATED')
    await change({ status: 'suspended' })
    expect(await refusal(reenter())).toBe('UNAUTHENTICATED')
  })

  test.each(['purge_after', 'purged_at'])('is gone past %s', async (moment) => {
    await remove()
    await db()
      .updateTable('users')
      .set({ [moment]: sql`now()` })
      .where('id', '=', userId)
      .execute()
    expect(await refusal(reenter())).toBe('UNAUTHENTICATED')
  })
})
