// Links in mails, called directly on real PostgreSQL: good once in any race, for as long as they say, for their owner alone.
import { hash } from '@node-rs/bcrypt'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { redeemAddress, requestAddressChange, sendVerification } from '../../lib/auth/addresses.ts'
import { endTokens, issueToken, ownerOf, redeemToken, sweepMailed } from '../../lib/auth/email-tokens.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { forgotPassword, resetPassword } from '../../lib/auth/password-reset.ts'
import { beginSession } from '../../lib/auth/sessions.ts'
import { countTry } from '../../lib/auth/throttle.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { type MailStub, startMailStub, tokenIn } from '../support/mail-stub.ts'
import { somebodyWaits } from '../support/waiting.ts'

const PASSWORD = 'correct horse battery staple'
const NEW_PASSWORD = 'a wholly new password'
const PAGES = 'http://localhost'
const ORIGIN = { ip: '203.0.113.7', userAgent: 'node', requestId: 'request-1' }

let stub: MailStub
let passwordHash: string
let userId: string
let email: string
let count = 0

beforeAll(async () => {
  stub = await startMailStub()
  await startApp({ ...stub.variables, ADMIN_EMAIL: 'root@example.com', ADMIN_PASSWORD: 'a password for the admin' })
  passwordHash = await hash(PASSWORD, { cost: 4 })
})

afterAll(() => stub.close())

beforeEach(async () => {
  ;({ userId, email } = await givenPerson())
})

async function givenPerson(): Promise<{ userId: string; email: string }> {
  count += 1
  const person = { name: 'Ada', email: `ada-${count}@example.com`, role: 'user' as const, passwordHash }
  const id = await db()
    .transaction()
    .execute((trx) => createUser(trx, person))
  return { userId: id, email: person.email }
}

type Purpose = 'verify' | 'change' | 'reset'

const issue = (purpose: Purpose, address = email) => issueToken(db(), { userId, purpose, email: address })
const redeem = (token: string, purposes: Purpose[]) =>
  db()
    .transaction()
    .execute((trx) => redeemToken(trx, token, purposes))
const open = (token: string, keptSessionId?: string) => redeemAddress(token, { keptSessionId, origin: ORIGIN })
const user = () => db().selectFrom('users').selectAll().where('id', '=', userId).executeTakeFirstOrThrow()
const tokens = () => db().selectFrom('email_tokens').selectAll().where('user_id', '=', userId).execute()
const age = () =>
  db().updateTable('email_tokens').set({ expires_at: sql`now()` }).where('user_id', '=', userId).execute()
const setStatus = (status: 'suspended' | 'deleted') =>
  db().updateTable('users').set({ status }).where('id', '=', userId).execute()

const audited = () => db().selectFrom('audit_log').selectAll().where('target_id', '=', userId).orderBy('id').execute()

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

/** A mail to somebody else has come, and with it all that was sent before; nothing failed on the way. */
async function nothingMoreComes(): Promise<void> {
  const next = await givenPerson()
  await sendVerification(next.userId, PAGES)
  await stub.arrived(next.email)
  expect(vi.mocked(console.log).mock.calls.join()).not.toContain('mail_failed')
}

describe('a token', () => {
  test('names its owner and what it proves, and is used up once in a race of ten', async () => {
    const token = await issue('change', 'new@example.com')
    expect(token).toMatch(/^[\w-]{43}$/)
    const expected = { purpose: 'change', provenEmail: 'new@example.com', user: { id: userId, name: 'Ada', email } }
    expect(await ownerOf(db(), token, ['verify', 'change'])).toEqual(expected)
    const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => redeem(token, ['change'])))
    const won = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
    expect(won).toEqual([expected])
    expect(await ownerOf(db(), token, ['change'])).toBeUndefined()
  })

  test.each([
    { why: 'of another kind', prepare: async () => {}, purposes: ['verify', 'change'] as Purpose[] },
    { why: 'that is too old', prepare: age, purposes: ['reset'] as Purpose[] },
    { why: 'of a deleted account', prepare: () => setStatus('deleted'), purposes: ['reset'] as Purpose[] },
  ])('$why is worth nothing, and stays', async ({ prepare, purposes }) => {
    const token = await issue('reset')
    await prepare()
    expect(await ownerOf(db(), token, purposes)).toBeUndefined()
    const issues = [{ path: 'token' }]
    await expect(redeem(token, purposes)).rejects.toMatchObject({ code: 'VALIDATION_FAILED', details: { issues } })
    expect(await tokens()).toHaveLength(1)
  })

  test('is good again when what it was for came to nothing', async () => {
    const token = await issue('reset')
    const failed = db()
      .transaction()
      .execute(async (trx) => {
        await redeemToken(trx, token, ['reset'])
        throw new Error('rolled back')
      })
    await expect(failed).rejects.toThrow('rolled back')
    expect(await redeem(token, ['reset'])).toMatchObject({ purpose: 'reset' })
  })

  test('is good for a day, or for half an hour when it is to let somebody in', async () => {
    for (const purpose of ['verify', 'change', 'reset'] as const) await issue(purpose)
    const lifetimes = await db()
      .selectFrom('email_tokens')
      .select(['purpose', sql<number>`round(extract(epoch from expires_at - created_at) / 60)::int`.as('minutes')])
      .where('user_id', '=', userId)
      .orderBy('purpose')
      .execute()
    expect(lifetimes).toEqual([
      { purpose: 'change', minutes: 24 * 60 },
      { purpose: 'reset', minutes: 30 },
      { purpose: 'verify', minutes: 24 * 60 },
    ])
  })

  test('is worth nothing when the account is deleted in the moment of its use', async () => {
    const token = await issue('reset')
    const trx = await db().startTransaction().execute()
    await trx.updateTable('users').set({ status: 'deleted' }).where('id', '=', userId).execute()
    const redeemed = refusal(redeem(token, ['reset']))
    try {
      await somebodyWaits()
    } finally {
      await trx.commit().execute()
    }
    expect(await redeemed).toBe('VALIDATION_FAILED')
    expect(await tokens(), 'it stays').toHaveLength(1)
  })

  test('names its user as they are when it is used', async () => {
    const token = await issue('reset')
    const trx = await db().startTransaction().execute()
    await trx.updateTable('users').set({ name: 'Grace' }).where('id', '=', userId).execute()
    const redeemed = redeem(token, ['reset'])
    try {
      await somebodyWaits()
    } finally {
      await trx.commit().execute()
    }
    expect((await redeemed).user).toEqual({ id: userId, name: 'Grace', email })
  })

  test('ends with its kind, and with its time', async () => {
    for (const purpose of ['verify', 'change', 'reset'] as const) await issue(purpose)
    await db()
      .transaction()
      .execute((trx) => endTokens(trx, userId, ['reset', 'change']))
    expect((await tokens()).map(({ purpose }) => purpose)).toEqual(['verify'])
    await db().deleteFrom('email_tokens').where('user_id', '!=', userId).execute()
    expect(await sweepMailed(db())).toEqual({ emailTokensDeleted: 0, trialNetworksForgotten: 0 })
    await db().updateTable('email_tokens').set({ expires_at: sql`now() - interval '1 second'` }).execute()
    expect(await sweepMailed(db())).toEqual({ emailTokensDeleted: 1, trialNetworksForgotten: 0 })
  })
})

describe('an address', () => {
  test('is proven once, however often its links are opened at the same time', async () => {
    const links = [await issue('verify'), await issue('verify')]
    const outcomes = await Promise.all([...links, ...links].map((token) => refusal(open(token))))
    expect(outcomes.filter((outcome) => outcome === 'none')).toHaveLength(2)
    expect((await user()).email_verified_at).not.toBeNull()
    expect((await statementOf(db(), userId)).balance.trialGenerations).toBe(3)
  })

  test('is proven on record, and without a mail that it was changed', async () => {
    await open(await issue('verify'))
    expect(await audited()).toMatchObject([
      {
        action: 'email.verify',
        actor_type: 'user',
        actor_id: userId,
        target_type: 'user',
        request_id: 'request-1',
        ip: ORIGIN.ip,
      },
    ])
    await nothingMoreComes()
    expect(stub.sentTo(email)).toEqual([])
  })

  test('that is no more the account’s is not proven, and its link stays', async () => {
    const token = await issue('verify', `former-${count}@example.com`)
    expect(await refusal(open(token))).toBe('VALIDATION_FAILED')
    expect((await user()).email_verified_at).toBeNull()
    expect(await tokens()).toHaveLength(1)
  })

  test('is changed in a race of several links to the one that was first, and the rest are worth nothing', async () => {
    const links = await Promise.all(
      ['one', 'two', 'three'].map((name) => issue('change', `${name}-${count}@example.com`)),
    )
    const outcomes = await Promise.all(links.map((token) => refusal(open(token))))
    expect(outcomes.toSorted()).toEqual(['VALIDATION_FAILED', 'VALIDATION_FAILED', 'none'])
    expect(await tokens()).toEqual([])
    expect((await user()).email).toBe(`${['one', 'two', 'three'][outcomes.indexOf('none')]}-${count}@example.com`)
  })

  test('is changed with all that hangs on it: proof, sessions, other links, a notice', async () => {
    const [kept, other] = [await beginSession(db(), userId, ORIGIN), await beginSession(db(), userId, ORIGIN)]
    await issue('reset')
    await issue('verify')
    const address = `new-${count}@example.com`
    await open(await issue('change', address), kept.sessionId)
    expect(await user()).toMatchObject({ email: address, email_verified_at: expect.any(Date) })
    expect(await tokens()).toEqual([])
    const sessions = await db()
      .selectFrom('refresh_tokens')
      .select(['family_id', 'revoked_reason'])
      .where('user_id', '=', userId)
      .execute()
    expect(sessions).toContainEqual({ family_id: kept.sessionId, revoked_reason: null })
    expect(sessions).toContainEqual({ family_id: other.sessionId, revoked_reason: 'email' })
    expect(await stub.arrived(email)).toMatchObject({ subject: 'Your e-mail address was changed – ColoringBook AI' })
    const audit = await db().selectFrom('audit_log').selectAll().where('target_id', '=', userId).execute()
    expect(audit).toMatchObject([
      {
        action: 'email.change',
        actor_type: 'user',
        actor_id: userId,
        target_type: 'user',
        request_id: 'request-1',
        ip: ORIGIN.ip,
      },
    ])
  })

  test('that belongs to somebody else by now, or to the admin of the environment, is not taken', async () => {
    const owner = await givenPerson()
    for (const address of [owner.email, 'root@example.com']) {
      const token = await issue('change', address)
      expect(await refusal(open(token))).toBe('EMAIL_TAKEN')
      expect((await user()).email).toBe(email)
    }
    await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', owner.userId).execute()
    expect(await refusal(open(await issue('change', owner.email))), 'one that is free again').toBe('none')
  })

  test('is asked for in a mail while it is not proven', async () => {
    await sendVerification(userId, PAGES)
    const mail = await stub.arrived(email)
    expect(mail.subject).toBe('Confirm your e-mail address – ColoringBook AI')
    await open(tokenIn(mail))
    await sendVerification(userId, PAGES)
    await nothingMoreComes()
    expect(stub.sentTo(email)).toHaveLength(1)
  })

  test('that is to change is asked for at the new place, on record without it', async () => {
    const by = { actor: { type: 'user' as const, id: userId }, requestId: 'request-2' }
    const address = `asked-${count}@example.com`
    await requestAddressChange(userId, { email: address, password: PASSWORD }, PAGES, by)
    expect(tokenIn(await stub.arrived(address))).toMatch(/^[\w-]{43}$/)
    const audit = await db().selectFrom('audit_log').selectAll().where('target_id', '=', userId).execute()
    expect(audit).toMatchObject([
      { action: 'email.request', actor_id: userId, target_type: 'user', request_id: 'request-2' },
    ])
    expect(JSON.stringify(audit)).not.toContain(address)
    const wrong = requestAddressChange(userId, { email: address, password: 'not the password' }, PAGES, by)
    expect(await refusal(wrong)).toBe('FORBIDDEN')
    const same = requestAddressChange(userId, { email, password: PASSWORD }, PAGES, by)
    await expect(same).rejects.toMatchObject({ code: 'VALIDATION_FAILED', details: { issues: [{ path: 'email' }] } })
    expect(await refusal(same)).toBe('VALIDATION_FAILED')
  })

  test('that somebody has is told to them alone, and one that is kept for the admin to nobody', async () => {
    const by = { actor: { type: 'user' as const, id: userId }, requestId: 'request-2' }
    const [owner, gone] = [await givenPerson(), await givenPerson()]
    await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', gone.userId).execute()
    for (const address of [owner.email, 'root@example.com', gone.email])
      await requestAddressChange(userId, { email: address, password: PASSWORD }, PAGES, by)
    expect((await stub.arrived(owner.email)).text).not.toContain('verify=')
    expect(tokenIn(await stub.arrived(gone.email)), 'one that is free again').toMatch(/^[\w-]{43}$/)
    await nothingMoreComes()
    expect(stub.sentTo('root@example.com')).toEqual([])
    expect(stub.sentTo(owner.email)).toHaveLength(1)
    expect((await tokens()).map(({ email: proven }) => proven)).toEqual([gone.email])
    expect(await audited()).toMatchObject([{ action: 'email.request' }])
  })
})

describe('a forgotten password', () => {
  const reset = (token: string, newPassword = NEW_PASSWORD) => resetPassword({ token, newPassword }, ORIGIN)

  test('is set once in a race, and ends what the old one began', async () => {
    await beginSession(db(), userId, ORIGIN)
    await countTry(db(), email)
    const links = [await issue('reset'), await issue('reset')]
    const outcomes = await Promise.all([...links, ...links].map((token) => refusal(reset(token))))
    expect(outcomes.toSorted()).toEqual(['VALIDATION_FAILED', 'VALIDATION_FAILED', 'VALIDATION_FAILED', 'none'])
    expect((await user()).password_hash).not.toBe(passwordHash)
    expect((await user()).email_verified_at).not.toBeNull()
    expect(await tokens()).toEqual([])
    const sessions = await db()
      .selectFrom('refresh_tokens')
      .select('revoked_reason')
      .where('user_id', '=', userId)
      .execute()
    expect(sessions).toEqual([{ revoked_reason: 'reset' }])
    const audit = await db().selectFrom('audit_log').selectAll().where('target_id', '=', userId).execute()
    expect(audit).toMatchObject([
      { action: 'user.password_reset', actor_id: userId, target_type: 'user', request_id: 'request-1' },
    ])
    expect(await refusal(countTry(db(), email)), 'failed tries are forgotten').toBe('none')
  })

  test('does not prove an address that the link did not go to', async () => {
    await reset(await issue('reset', 'former@example.com'))
    expect((await user()).email_verified_at).toBeNull()
  })

  test('of an address that was never proven ends what its registrant set up, and of a proven one does not', async () => {
    const strangers = userId
    ;({ userId, email } = await givenPerson())
    await db().updateTable('users').set({ email_verified_at: new Date() }).where('id', '=', userId).execute()
    for (const id of [strangers, userId])
      await db().insertInto('mfa_factors').values({ user_id: id, secret: 'sealed' }).execute()
    await reset(await issue('reset'))
    const { email: theirs } = await db()
      .selectFrom('users')
      .select('email')
      .where('id', '=', strangers)
      .executeTakeFirstOrThrow()
    await reset(await issueToken(db(), { userId: strangers, purpose: 'reset', email: theirs }))
    const factors = db().selectFrom('mfa_factors').select('user_id').where('user_id', 'in', [strangers, userId])
    expect(await factors.execute()).toEqual([{ user_id: userId }])
  })

  test('ends the other links of its kind, and no others, where the address was proven before', async () => {
    await db().updateTable('users').set({ email_verified_at: new Date() }).where('id', '=', userId).execute()
    await issue('change', `later-${count}@example.com`)
    await issue('reset')
    await reset(await issue('reset'))
    expect((await tokens()).map(({ purpose }) => purpose)).toEqual(['change'])
  })

  test('keeps the link when the new one is refused', async () => {
    const token = await issue('reset')
    for (const bad of ['short', email]) {
      const issues = [{ path: 'newPassword' }]
      await expect(reset(token, bad)).rejects.toMatchObject({ code: 'VALIDATION_FAILED', details: { issues } })
    }
    expect(await tokens()).toHaveLength(1)
    expect(await refusal(reset('x'.repeat(43)))).toBe('VALIDATION_FAILED')
    expect(await refusal(reset(await issue('verify')))).toBe('VALIDATION_FAILED')
  })

  test('is mailed to who is there and active', async () => {
    await forgotPassword(email, PAGES)
    const mail = await stub.arrived(email)
    expect(mail.subject).toBe('Choose a new password – ColoringBook AI')
    expect(tokenIn(mail, 'reset')).toMatch(/^[\w-]{43}$/)
    await setStatus('suspended')
    await forgotPassword(email, PAGES)
    await forgotPassword('nobody@example.com', PAGES)
    await nothingMoreComes()
    expect(stub.sentTo(email)).toHaveLength(1)
    expect(stub.sentTo('nobody@example.com')).toEqual([])
    expect(await tokens()).toHaveLength(1)
  })
})
