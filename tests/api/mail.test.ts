// Addresses and forgotten passwords where a mailer is: links that are good once, and answers that tell a stranger nothing.
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, call, givenUser, type Reply, startApp, type TestUser } from '../support/app.ts'
import { type MailStub, startMailStub, tokenIn } from '../support/mail-stub.ts'

const NEW_PASSWORD = 'a wholly new password'
const BOSS = 'boss@example.com'
const ROOT = 'root@example.com'

let app: App
let stub: MailStub
let count = 0

beforeAll(async () => {
  stub = await startMailStub()
  app = await startApp({
    ...stub.variables,
    ADMIN_EMAIL: ROOT,
    ADMIN_PASSWORD: 'a password for the admin',
    FORK__AUTH__ADMINS: JSON.stringify([BOSS]),
  })
})

afterAll(() => stub.close())

beforeEach(async () => {
  await db().deleteFrom('sign_in_failures').execute()
})

function newAddress(): string {
  count += 1
  return `address-${count}@example.com`
}

const post = (path: string, body?: unknown, token?: string) => call(app, `POST /api/auth/${path}`, { body, token })
const verify = (token: string, bearer?: string) => post('email/verify', { token }, bearer)
const forgot = (email: string) => post('password/forgot', { email })
const reset = (token: string, newPassword = NEW_PASSWORD) => post('password/reset', { token, newPassword })
const change = (user: TestUser, email: string, password = user.password) =>
  post('email/change', { email, password }, user.token)
const logIn = (email: string, password: string) => post('login', { email, password })
const profile = async ({ token }: { token: string }) => await call(app, 'GET /api/user/profile', { token })
const actions = async (userId: string) =>
  (await db().selectFrom('audit_log').selectAll().where('target_id', '=', userId).orderBy('id').execute()).map(
    ({ action }) => action,
  )

async function givenLink(user: TestUser): Promise<string> {
  return tokenIn(await stub.arrived(user.email))
}

function expectWorthless({ status, json }: Reply) {
  expect(status).toBe(400)
  expect(json.error).toMatchObject({ code: 'VALIDATION_FAILED', details: { issues: [{ path: 'token' }] } })
}

describe('registering', () => {
  test('mails a link that proves the address, and the trial that waited for it', async () => {
    const user = await givenUser(app)
    const waiting = { emailVerified: false, balance: { trialGenerations: 0, tokens: 1000 } }
    expect((await profile(user)).json).toMatchObject(waiting)
    const mail = await stub.arrived(user.email)
    expect(mail).toMatchObject({ from: 'ColoringBook AI <hello@example.com>', to: [user.email] })
    expect((await verify(tokenIn(mail))).status).toBe(204)
    expect((await profile(user)).json).toMatchObject({
      emailVerified: true,
      balance: { trialGenerations: 3, tokens: 1000 },
    })
    expect(await actions(user.id)).toEqual(['user.register', 'email.verify'])
    expectWorthless(await verify(tokenIn(mail)))
  })

  test('succeeds when no mail can be sent', async () => {
    stub.behave(500, 500)
    const user = await givenUser(app)
    const lines = () => vi.mocked(console.log).mock.calls.map(([line]) => String(line))
    await expect.poll(() => lines().join(), { timeout: 5_000 }).toContain('"event":"mail_failed"')
    expect(lines().join()).toContain('Resend answered 500.')
    expect(lines().join()).not.toMatch(/@|verify=/)
    expect((await profile(user)).json).toMatchObject({ emailVerified: false })
    stub.behave()
    expect((await post('email/verification', undefined, user.token)).status).toBe(202)
    expect((await verify(await givenLink(user))).status).toBe(204)
  })

  test('makes an administrator of who is promised the role, once the address is proven', async () => {
    const body = { name: 'Boss', email: BOSS, password: NEW_PASSWORD }
    const { json } = await post('register', body)
    expect(json.user.role).toBe('user')
    expect((await call(app, 'GET /api/admin/orders', { token: json.accessToken })).status).toBe(404)
    await verify(tokenIn(await stub.arrived(BOSS)))
    expect((await profile({ token: json.accessToken })).json).toMatchObject({ role: 'admin' })
    expect(await actions(json.user.id)).toEqual(['user.register', 'user.role', 'email.verify'])
  })
})

describe('POST /api/auth/email/verification', () => {
  test('mails again while the address is not proven, and five times an hour at most', async () => {
    const user = await givenUser(app)
    await stub.arrived(user.email)
    for (let mails = 2; mails <= 5; mails += 1) {
      expect((await post('email/verification', undefined, user.token)).status).toBe(202)
      await stub.arrived(user.email, mails)
    }
    expect((await post('email/verification', undefined, user.token)).status).toBe(202)
    const other = await givenUser(app)
    await stub.arrived(other.email)
    expect(stub.sentTo(user.email)).toHaveLength(5)
    const tokens = stub.sentTo(user.email).map((mail) => tokenIn(mail))
    expect(new Set(tokens).size).toBe(5)
    expect((await verify(tokens[0] ?? '')).status, 'an earlier link is good as well').toBe(204)
  })

  test('is silent once it is', async () => {
    const user = await givenUser(app)
    await verify(await givenLink(user))
    expect((await post('email/verification', undefined, user.token)).status).toBe(202)
    await stub.arrived((await givenUser(app)).email)
    expect(stub.sentTo(user.email)).toHaveLength(1)
  })

  test('is for who is signed in', async () => {
    expect((await post('email/verification')).status).toBe(401)
  })
})

describe('POST /api/auth/email/verify', () => {
  test('takes a link once in a race of ten', async () => {
    const user = await givenUser(app)
    const token = await givenLink(user)
    const replies = await Promise.all(Array.from({ length: 10 }, () => verify(token)))
    expect(replies.map(({ status }) => status).sort()).toEqual([204, ...Array<number>(9).fill(400)])
    expect((await profile(user)).json.balance).toMatchObject({ trialGenerations: 3 })
  })

  test('refuses a link that is a day old, one of another kind, and one that nobody made', async () => {
    const user = await givenUser(app)
    const token = await givenLink(user)
    await forgot(user.email)
    expectWorthless(await verify(tokenIn(await stub.arrived(user.email, 2), 'reset')))
    const expires = await db()
      .selectFrom('email_tokens')
      .select(['purpose', sql<number>`round(extract(epoch from expires_at - created_at) / 60)::int`.as('minutes')])
      .where('user_id', '=', user.id)
      .orderBy('purpose')
      .execute()
    expect(expires).toEqual([
      { purpose: 'reset', minutes: 30 },
      { purpose: 'verify', minutes: 24 * 60 },
    ])
    await db().updateTable('email_tokens').set({ expires_at: sql`now()` }).where('user_id', '=', user.id).execute()
    expectWorthless(await verify(token))
    expectWorthless(await verify('x'.repeat(43)))
    expect((await profile(user)).json.emailVerified).toBe(false)
  })

  test('refuses the link of an account that was deleted, or that has another address by now', async () => {
    const [deleted, moved] = [await givenUser(app), await givenUser(app)]
    await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', deleted.id).execute()
    expectWorthless(await verify(await givenLink(deleted)))
    await db().updateTable('users').set({ email: newAddress() }).where('id', '=', moved.id).execute()
    const token = await givenLink(moved)
    expectWorthless(await verify(token))
    await db().updateTable('users').set({ email: moved.email }).where('id', '=', moved.id).execute()
    expect((await verify(token)).status, 'refusing it did not use it up').toBe(204)
  })

  test('keeps only hashes of what is in the links', async () => {
    const user = await givenUser(app)
    const token = await givenLink(user)
    const kept = await db().selectFrom('email_tokens').selectAll().where('user_id', '=', user.id).execute()
    expect(kept).toHaveLength(1)
    expect(JSON.stringify(kept)).not.toContain(token)
  })
})

describe('POST /api/auth/email/change', () => {
  test('puts the new address in the place of the old once its link was opened, and ends other sessions', async () => {
    const user = await givenUser(app)
    const other = (await logIn(user.email, user.password)).json
    await forgot(user.email)
    const resetToken = tokenIn(await stub.arrived(user.email, 2), 'reset')
    const email = newAddress()
    expect((await change(user, ` ${email.toUpperCase()} `)).status).toBe(202)
    const token = tokenIn(await stub.arrived(email))
    expect((await profile(user)).json).toMatchObject({ email: user.email, emailVerified: false })

    expect((await verify(token, user.token)).status).toBe(204)
    expect((await profile(user)).json).toMatchObject({
      email,
      emailVerified: true,
      balance: { trialGenerations: 3, tokens: 1000 },
    })
    expect((await profile({ token: other.accessToken })).status).toBe(401)
    expect((await logIn(user.email, user.password)).status).toBe(401)
    expect((await logIn(email, user.password)).status).toBe(200)
    expectWorthless(await reset(resetToken))
    expectWorthless(await verify(token, user.token))
    const notice = await stub.arrived(user.email, 3)
    expect(notice.text).toContain('another e-mail address')
    expect(notice.text, 'the old address is not told the new one').not.toContain(email)
    expect(await actions(user.id)).toEqual(['user.register', 'email.request', 'email.change'])
    const audit = await db().selectFrom('audit_log').selectAll().where('target_id', '=', user.id).execute()
    expect(JSON.stringify(audit)).not.toContain('@')
    const ended = await db()
      .selectFrom('refresh_tokens')
      .select('revoked_reason')
      .where('user_id', '=', user.id)
      .execute()
    expect(ended).toContainEqual({ revoked_reason: 'email' })
  })

  test('ends every session when nobody signed in opens the link', async () => {
    const user = await givenUser(app)
    const stranger = await givenUser(app)
    for (const bearer of [undefined, stranger.token]) {
      const session = (await logIn((await profileOf(user)).email, user.password)).json
      const email = newAddress()
      await change({ ...user, token: session.accessToken }, email)
      expect((await verify(tokenIn(await stub.arrived(email)), bearer)).status).toBe(204)
      expect((await profile({ token: session.accessToken })).status).toBe(401)
      expect((await profile(stranger)).status).toBe(200)
    }
  })

  const profileOf = ({ id }: TestUser) =>
    db().selectFrom('users').select('email').where('id', '=', id).executeTakeFirstOrThrow()

  test('tells a taken address to its owner alone', async () => {
    const [user, owner] = [await givenUser(app), await givenUser(app)]
    const free = newAddress()
    const [taken, fine, admins] = [await change(user, owner.email), await change(user, free), await change(user, ROOT)]
    for (const { status, bytes } of [taken, fine, admins]) {
      expect(status).toBe(202)
      expect(bytes).toHaveLength(0)
    }
    const notice = await stub.arrived(owner.email, 2)
    expect(notice.text).toContain('You have an account with it already')
    expect(notice.text).not.toMatch(/verify=|@/)
    await stub.arrived(free)
    expect(stub.sentTo(ROOT)).toEqual([])
    const tokens = await db()
      .selectFrom('email_tokens')
      .select('email')
      .where('user_id', '=', user.id)
      .where('purpose', '=', 'change')
      .execute()
    expect(tokens).toEqual([{ email: free }])
  })

  test('that somebody else completed first is refused, and changes nothing', async () => {
    const users = [await givenUser(app), await givenUser(app)]
    const email = newAddress()
    for (const user of users) await change(user, email)
    await stub.arrived(email, 2)
    const tokens = stub.sentTo(email).map((mail) => tokenIn(mail))
    const replies = await Promise.all(tokens.map((token) => verify(token)))
    expect(replies.map(({ status }) => status).sort()).toEqual([204, 409])
    expect(replies.find(({ status }) => status === 409)?.json.error.code).toBe('EMAIL_TAKEN')
    expect(await db().selectFrom('users').select('id').where('email', '=', email).execute()).toHaveLength(1)
  })

  test('needs the password, and an address that is another', async () => {
    const user = await givenUser(app)
    const wrong = await change(user, newAddress(), 'not the password')
    expect([wrong.status, wrong.json.error.code]).toEqual([403, 'FORBIDDEN'])
    expect(await db().selectFrom('sign_in_failures').select('failures').execute()).toEqual([{ failures: 1 }])
    const same = await change(user, user.email)
    expect(same.json.error.details.issues).toMatchObject([{ path: 'email' }])
    expect((await post('email/change', { email: newAddress(), password: user.password })).status).toBe(401)
  })
})

describe('a forgotten password', () => {
  test('is set anew with a link, which ends every session and forgets failed tries', async () => {
    const user = await givenUser(app)
    await logIn(user.email, 'not the password')
    expect((await forgot(` ${user.email.toUpperCase()}`)).status).toBe(202)
    const mail = await stub.arrived(user.email, 2)
    const token = tokenIn(mail, 'reset')
    expect((await reset(token)).status).toBe(204)
    expect((await profile(user)).status).toBe(401)
    expect((await post('refresh', { refreshToken: user.refreshToken })).status).toBe(401)
    expect(await db().selectFrom('sign_in_failures').selectAll().execute()).toEqual([])
    expect((await logIn(user.email, user.password)).status).toBe(401)
    const { status, json } = await logIn(user.email, NEW_PASSWORD)
    expect(status).toBe(200)
    expect(json.user, 'the mail proves the address as well').toMatchObject({
      emailVerified: true,
      balance: { trialGenerations: 3 },
    })
    expect(await actions(user.id)).toEqual(['user.register', 'user.password_reset'])
    const ended = await db()
      .selectFrom('refresh_tokens')
      .select('revoked_reason')
      .where('user_id', '=', user.id)
      .execute()
    expect(ended).toContainEqual({ revoked_reason: 'reset' })
  })

  test('of an address that was never proven shuts out whoever registered it, and of a proven one leaves keys alone', async () => {
    const keyOf = async ({ token }: TestUser) =>
      (await call(app, 'POST /api/api-keys', { token, body: { name: 'robot' } })).json.key
    const [stranger, owner] = [await givenUser(app), await givenUser(app)]
    expect((await verify(await givenLink(owner))).status).toBe(204)
    const keys = { stranger: await keyOf(stranger), owner: await keyOf(owner) }
    await post('mfa/enroll', undefined, stranger.token)
    for (const { email } of [stranger, owner]) {
      await forgot(email)
      expect((await reset(tokenIn(await stub.arrived(email, 2), 'reset'))).status).toBe(204)
    }
    expect((await profile({ token: keys.stranger })).status).toBe(401)
    expect((await profile({ token: keys.owner })).status).toBe(200)
    const factors = db().selectFrom('mfa_factors').select('user_id').where('user_id', '=', stranger.id)
    expect(await factors.execute()).toEqual([])
    expect((await logIn(stranger.email, NEW_PASSWORD)).status).toBe(200)
  })

  test('has links that are good once, all of them', async () => {
    const user = await givenUser(app)
    for (const mails of [2, 3]) {
      await forgot(user.email)
      await stub.arrived(user.email, mails)
    }
    const [, first, second] = stub.sentTo(user.email)
    if (!first || !second) throw new Error('There are no mails.')
    const tokens = [tokenIn(first, 'reset'), tokenIn(second, 'reset')]
    const replies = await Promise.all([0, 0, 0, 1].map((index) => reset(tokens[index] ?? '')))
    expect(replies.map(({ status }) => status).sort()).toEqual([204, 400, 400, 400])
    for (const token of tokens) expectWorthless(await reset(token))
  })

  test('keeps its link when the new password is refused', async () => {
    const user = await givenUser(app)
    await forgot(user.email)
    const token = tokenIn(await stub.arrived(user.email, 2), 'reset')
    for (const bad of ['short', user.email]) {
      expect((await reset(token, bad)).json.error.details.issues).toMatchObject([{ path: 'newPassword' }])
    }
    expect((await reset(token)).status).toBe(204)
  })

  test('is over after half an hour, and when the password was changed meanwhile', async () => {
    const [late, changed] = [await givenUser(app), await givenUser(app)]
    for (const { email } of [late, changed]) await forgot(email)
    const tokens = [
      tokenIn(await stub.arrived(late.email, 2), 'reset'),
      tokenIn(await stub.arrived(changed.email, 2), 'reset'),
    ]
    await db().updateTable('email_tokens').set({ expires_at: sql`now()` }).where('user_id', '=', late.id).execute()
    const passwords = { currentPassword: changed.password, newPassword: NEW_PASSWORD }
    expect((await post('password', passwords, changed.token)).status).toBe(204)
    for (const token of tokens) expectWorthless(await reset(token))
    expectWorthless(await reset(await givenLink(late)))
  })

  test('is answered alike for known and unknown, suspended and deleted, and only the known are written to', async () => {
    const [user, suspended, deleted] = [await givenUser(app), await givenUser(app), await givenUser(app)]
    await db().updateTable('users').set({ status: 'suspended' }).where('id', '=', suspended.id).execute()
    await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', deleted.id).execute()
    for (const email of [suspended.email, deleted.email, 'nobody@example.com', user.email]) {
      const { status, bytes } = await forgot(email)
      expect([status, bytes.length], email).toEqual([202, 0])
    }
    await stub.arrived(user.email, 2)
    expect(stub.sentTo('nobody@example.com')).toEqual([])
    for (const { email } of [suspended, deleted]) expect(stub.sentTo(email)).toHaveLength(1)
  })

  test('is answered in the same time, as nothing is looked up before', async () => {
    const user = await givenUser(app)
    const times: Record<string, number[]> = { [user.email]: [], 'nobody@example.com': [] }
    for (let round = 0; round < 15; round += 1) {
      for (const [email, list] of Object.entries(times)) {
        const startedAt = performance.now()
        await forgot(email)
        list.push(performance.now() - startedAt)
      }
    }
    const [known = 0, unknown = 0] = Object.values(times).map(median)
    expect(known / unknown).toBeGreaterThan(1 / 4)
    expect(known / unknown).toBeLessThan(4)
  })
})

test.each([
  ['password/forgot', { email: 'nobody' }, 'email'],
  ['password/reset', { token: '', newPassword: NEW_PASSWORD }, 'token'],
  ['password/reset', { token: 'x', newPassword: NEW_PASSWORD, email: 'a@example.com' }, 'email'],
  ['email/verify', { token: 'x'.repeat(201) }, 'token'],
  ['email/verify', {}, 'token'],
])('POST /api/auth/%s refuses %o', async (path, body, field) => {
  const { status, json } = await post(path, body)
  expect(status).toBe(400)
  expect(json.error.details.issues).toMatchObject([{ path: field }])
})

function median(values: number[]): number {
  return values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)] ?? 0
}
