// The second factor over HTTP: set up, asked for, used once, lost and found, and what administrators need it for.

import { sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { hashSubject } from '../../lib/auth/throttle.ts'
import { type App, call, givenUser, type Reply, startApp, type TestUser } from '../support/app.ts'
import { codeOf, wrongCodeOf } from '../support/authenticator.ts'

const RECOVERY_CODE = /^[0-9a-hjkmnp-tv-z]{4}(-[0-9a-hjkmnp-tv-z]{4}){3}$/

let app: App

beforeAll(async () => {
  app = await startApp({ FORK__AUTH__MFA_FOR_ADMINS: 'true' })
})

beforeEach(async () => {
  await db().deleteFrom('sign_in_failures').execute()
})

const post = (path: string, body: unknown, token?: string) => call(app, `POST /api/auth/${path}`, { body, token })
const enroll = (user: { token: string }) => call(app, 'POST /api/auth/mfa/enroll', { token: user.token })
const confirm = (user: TestUser, code: string) => post('mfa/verify', { code }, user.token)
const renew = (user: TestUser, code: string) => post('mfa/recovery-codes', { code }, user.token)
const disable = (user: TestUser, code: string, password = user.password) =>
  post('mfa/disable', { password, code }, user.token)
const logIn = ({ email, password }: TestUser, code?: string) => post('login', { email, password, code })
const stateOf = async ({ token }: { token: string }) => (await call(app, 'GET /api/auth/mfa', { token })).json
const actions = async (userId: string) =>
  (await db().selectFrom('audit_log').selectAll().where('target_id', '=', userId).orderBy('id').execute()).map(
    ({ action }) => action,
  )

function refusalOf({ status, json }: Reply) {
  const { timestamp: _, requestId: __, ...error } = json.error
  return { status, error }
}

/** A user whose factor is in force; the code of the step before the current one is used up. */
async function givenFactor(user?: TestUser) {
  const owner = user ?? (await givenUser(app))
  const { secret } = (await enroll(owner)).json
  const { recoveryCodes } = (await confirm(owner, codeOf(secret, -1))).json
  return { ...owner, secret: String(secret), recoveryCodes: recoveryCodes as string[] }
}

describe('setting up', () => {
  test('gives a secret, asks for a code of it, and gives ten recovery codes', async () => {
    const user = await givenUser(app)
    expect(await stateOf(user)).toEqual({ enabled: false, recoveryCodesLeft: 0, required: false })
    const { status, json } = await enroll(user)
    expect(status).toBe(200)
    expect(json).toEqual({
      secret: expect.stringMatching(/^[A-Z2-7]{32}$/),
      otpauthUrl: expect.stringContaining(`otpauth://totp/ColoringBook%20AI:${encodeURIComponent(user.email)}?`),
    })
    expect((await logIn(user)).status, 'not in force yet').toBe(200)
    expect(await stateOf(user)).toMatchObject({ enabled: false })

    const confirmed = await confirm(user, codeOf(json.secret))
    expect(confirmed.status).toBe(200)
    expect(confirmed.json).toEqual({ recoveryCodes: Array(10).fill(expect.stringMatching(RECOVERY_CODE)) })
    expect(new Set(confirmed.json.recoveryCodes).size).toBe(10)
    expect(await stateOf(user)).toEqual({ enabled: true, recoveryCodesLeft: 10, required: false })
    expect((await call(app, 'GET /api/user/profile', { token: user.token })).json).toMatchObject({ mfaEnabled: true })
    expect(await actions(user.id)).toEqual(['user.register', 'mfa.enroll', 'mfa.enable'])
  })

  test('keeps the secret sealed, and of recovery codes only hashes', async () => {
    const { id, secret, recoveryCodes } = await givenFactor()
    const factor = await db().selectFrom('mfa_factors').selectAll().where('user_id', '=', id).executeTakeFirstOrThrow()
    expect(factor.secret).toMatch(/^v1\.local\.[\w-]+$/)
    const kept = JSON.stringify([
      factor,
      await db().selectFrom('mfa_recovery_codes').selectAll().where('user_id', '=', id).execute(),
      await db().selectFrom('audit_log').selectAll().where('actor_id', '=', id).execute(),
    ])
    for (const code of [secret, ...recoveryCodes]) expect(kept).not.toContain(code)
  })

  test('may begin anew until it is confirmed, and only the last secret counts', async () => {
    const user = await givenUser(app)
    const first = (await enroll(user)).json.secret
    const second = (await enroll(user)).json.secret
    expect(second).not.toBe(first)
    expect(refusalOf(await confirm(user, codeOf(first)))).toMatchObject({ status: 403, error: { code: 'FORBIDDEN' } })
    expect(await stateOf(user)).toMatchObject({ enabled: false })
    expect((await confirm(user, codeOf(second))).status).toBe(200)
    expect(refusalOf(await enroll(user))).toMatchObject({ status: 409, error: { code: 'CONFLICT' } })
    expect(refusalOf(await confirm(user, codeOf(second, 1)))).toMatchObject({ status: 409 })
    expect((await logIn(user, codeOf(second, 1))).status, 'the refused ones changed nothing').toBe(200)
  })

  test('is confirmed with the code of an enrolled factor only', async () => {
    const user = await givenUser(app)
    expect(refusalOf(await confirm(user, '123456'))).toMatchObject({ status: 409 })
    expect(refusalOf(await renew(user, '123456'))).toMatchObject({ status: 409 })
    expect(refusalOf(await disable(user, '123456'))).toMatchObject({ status: 409 })
  })

  test.each(['mfa/verify', 'mfa/recovery-codes'])(
    'POST /api/auth/%s refuses what is no code, and strangers',
    async (path) => {
      const { token } = await givenUser(app)
      for (const body of [{}, { code: '' }, { code: 123456 }, { code: 'x'.repeat(41) }]) {
        expect((await post(path, body, token)).json.error.details.issues).toMatchObject([{ path: 'code' }])
      }
      expect((await post(path, { code: '123456' })).status).toBe(401)
    },
  )

  test('gives a tenth guess no better chance: codes are throttled like passwords', async () => {
    const user = await givenUser(app)
    const { secret } = (await enroll(user)).json
    const replies: number[] = []
    for (let guess = 0; guess < 7; guess += 1) replies.push((await confirm(user, wrongCodeOf(secret))).status)
    expect(replies).toEqual([403, 403, 403, 403, 403, 429, 429])
    expect((await confirm(user, codeOf(secret))).status).toBe(429)
  })
})

describe('signing in', () => {
  test('takes password and code, and says so to who has the password', async () => {
    const user = await givenFactor()
    const wrongPassword = refusalOf(await logIn({ ...user, password: 'not the password' }))
    const withCode = refusalOf(await logIn({ ...user, password: 'not the password' }, codeOf(user.secret)))
    expect(wrongPassword).toMatchObject({ status: 401, error: { code: 'UNAUTHENTICATED' } })
    expect(withCode).toEqual(wrongPassword)
    expect(refusalOf(await logIn(user))).toMatchObject({
      status: 401,
      error: { code: 'MFA_REQUIRED', details: { methods: ['totp', 'recovery_code'] } },
    })
    expect(refusalOf(await logIn(user, wrongCodeOf(user.secret)))).toEqual(wrongPassword)
    expect(refusalOf(await logIn(user, 'abcd-abcd-abcd-abcd'))).toEqual(wrongPassword)
    const { status, json } = await logIn(user, ` ${codeOf(user.secret)} `)
    expect(status).toBe(200)
    expect(json.user).toMatchObject({ id: user.id, mfaEnabled: true })
    const begun = await db()
      .selectFrom('audit_log')
      .select('details')
      .where('actor_id', '=', user.id)
      .where('action', '=', 'session.begin')
      .execute()
    expect(begun).toEqual([{ details: { mfa: true } }])
  })

  test('takes every code once, and none of a step before one that was used', async () => {
    const user = await givenFactor()
    const code = codeOf(user.secret)
    expect((await logIn(user, code)).status).toBe(200)
    expect((await logIn(user, code)).status).toBe(401)
    expect((await logIn(user, codeOf(user.secret, -1))).status, 'used to set up').toBe(401)
    expect((await logIn(user, codeOf(user.secret, 1))).status).toBe(200)
    expect((await logIn(user, code)).status).toBe(401)
  })

  test('takes a recovery code once, however it is typed', async () => {
    const user = await givenFactor()
    const [first = '', second = ''] = user.recoveryCodes
    expect((await logIn(user, first)).status).toBe(200)
    expect((await logIn(user, first)).status).toBe(401)
    expect((await logIn(user, second.toUpperCase().replaceAll('-', ' '))).status).toBe(200)
    expect(await stateOf(user)).toMatchObject({ recoveryCodesLeft: 8 })
    const stranger = await givenFactor()
    expect((await logIn(stranger, user.recoveryCodes[2])).status, "another's").toBe(401)
  })

  test.each(['a code of the app', 'a recovery code'])(
    'begins one session with %s in a race of twenty',
    async (what) => {
      const user = await givenFactor()
      const code = what === 'a recovery code' ? user.recoveryCodes[0] : codeOf(user.secret)
      const replies = await Promise.all(Array.from({ length: 20 }, () => logIn(user, code)))
      expect(replies.filter(({ status }) => status === 200)).toHaveLength(1)
      const refused = replies.filter(({ status }) => status !== 200)
      for (const { status } of refused) expect([401, 429]).toContain(status)
    },
  )

  test('needs no code that is sent all the same where there is no factor', async () => {
    expect((await logIn(await givenUser(app), '123456')).status).toBe(200)
  })

  test('throttles codes by user: the right password makes no more of them possible', async () => {
    const user = await givenFactor()
    const failures = async () =>
      await db()
        .selectFrom('sign_in_failures')
        .select('failures')
        .where('email_hash', '=', hashSubject(`mfa:${user.id}`))
        .execute()
    for (const expected of [1, 2]) {
      expect((await logIn(user)).json.error.code).toBe('MFA_REQUIRED')
      expect((await logIn(user, wrongCodeOf(user.secret))).status).toBe(401)
      expect(await failures()).toEqual([{ failures: expected }])
    }
    await db()
      .updateTable('sign_in_failures')
      .set({ failures: 15, last_failure_at: sql`now()` })
      .where('email_hash', '=', hashSubject(`mfa:${user.id}`))
      .execute()
    expect((await logIn(user)).json.error.code, 'the password alone').toBe('MFA_REQUIRED')
    expect((await logIn(user, codeOf(user.secret))).status).toBe(429)
    expect(
      (await post('password', { currentPassword: user.password, newPassword: 'another good password' }, user.token))
        .status,
    ).toBe(204)
    expect((await renew(user, codeOf(user.secret))).status, 'nor does a new password').toBe(429)
  })

  test('asks nobody for a code who was suspended', async () => {
    const user = await givenFactor()
    await db().updateTable('users').set({ status: 'suspended' }).where('id', '=', user.id).execute()
    expect(refusalOf(await logIn(user))).toMatchObject({ status: 403, error: { code: 'ACCOUNT_SUSPENDED' } })
  })
})

describe('recovery codes', () => {
  test('are replaced all at once, for a code', async () => {
    const user = await givenFactor()
    expect(refusalOf(await renew(user, wrongCodeOf(user.secret)))).toMatchObject({ status: 403 })
    const { status, json } = await renew(user, codeOf(user.secret))
    expect(status).toBe(200)
    expect(json.recoveryCodes).toHaveLength(10)
    expect((await logIn(user, user.recoveryCodes[0])).status).toBe(401)
    expect((await logIn(user, json.recoveryCodes[0])).status).toBe(200)
    expect(await actions(user.id)).toContain('mfa.recovery_codes')
    expect((await renew(user, json.recoveryCodes[1])).status, 'with a recovery code').toBe(200)
  })
})

describe('taking it away', () => {
  test('takes password and code, and then none is asked for', async () => {
    const user = await givenFactor()
    expect(refusalOf(await disable(user, codeOf(user.secret), 'not the password'))).toMatchObject({ status: 403 })
    expect(refusalOf(await disable(user, wrongCodeOf(user.secret)))).toMatchObject({ status: 403 })
    expect(await stateOf(user)).toMatchObject({ enabled: true })
    expect((await disable(user, codeOf(user.secret))).status).toBe(204)
    expect(await stateOf(user)).toEqual({ enabled: false, recoveryCodesLeft: 0, required: false })
    expect((await logIn(user)).status).toBe(200)
    expect(await actions(user.id)).toContain('mfa.disable')
    const marked = await db()
      .selectFrom('refresh_tokens')
      .select('id')
      .where('user_id', '=', user.id)
      .where('mfa', '=', true)
    expect(await marked.execute(), 'no session counts as one that showed it').toEqual([])
    expect((await enroll(user)).status).toBe(200)
  })

  test('works with a recovery code, for who lost the app', async () => {
    const user = await givenFactor()
    expect((await disable(user, user.recoveryCodes[9] ?? '')).status).toBe(204)
  })
})

describe('an administrator, where they need a second factor', () => {
  const ordersWith = (token: string) => call(app, 'GET /api/admin/orders', { token })

  async function givenAdmin(): Promise<TestUser> {
    const admin = await givenUser(app)
    await db().updateTable('users').set({ role: 'admin' }).where('id', '=', admin.id).execute()
    return admin
  }

  test('is told to set one up, is in with the session that did, and stays in as it is refreshed', async () => {
    const admin = await givenAdmin()
    expect(refusalOf(await ordersWith(admin.token))).toMatchObject({
      status: 403,
      error: { code: 'FORBIDDEN', details: { reason: 'mfa_required' } },
    })
    expect(await stateOf(admin)).toEqual({ enabled: false, recoveryCodesLeft: 0, required: true })
    const other = (await logIn(admin)).json
    await givenFactor(admin)
    expect((await ordersWith(admin.token)).status).toBe(200)
    expect((await ordersWith(other.accessToken)).status, 'a session that showed none').toBe(403)

    let { refreshToken } = admin
    for (let round = 0; round < 2; round += 1) {
      const { json } = await post('refresh', { refreshToken })
      refreshToken = json.refreshToken
      expect((await ordersWith(json.accessToken)).status).toBe(200)
    }
    const rows = await db().selectFrom('refresh_tokens').select('mfa').where('user_id', '=', admin.id).execute()
    expect(
      rows.filter(({ mfa }) => mfa),
      'every token of that session',
    ).toHaveLength(3)
    expect((await post('refresh', { refreshToken: other.refreshToken })).status).toBe(200)
    expect((await ordersWith(other.accessToken)).status).toBe(403)
  })

  test('is in with a sign-in that showed it', async () => {
    const admin = await givenFactor(await givenAdmin())
    expect((await ordersWith((await logIn(admin, codeOf(admin.secret))).json.accessToken)).status).toBe(200)
  })

  test('cannot take it away', async () => {
    const admin = await givenFactor(await givenAdmin())
    expect(refusalOf(await disable(admin, codeOf(admin.secret)))).toMatchObject({ status: 409 })
    expect(await stateOf(admin)).toMatchObject({ enabled: true, required: true })
  })

  test('is hidden from who is none, factor or not', async () => {
    expect((await ordersWith((await givenFactor()).token)).status).toBe(404)
  })
})
