// People who sign in through Clerk: their first call, their account from before, and what an administrator's word does to them.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { beginSession } from '../../lib/auth/sessions.ts'
import { type App, call, processImage, startApp, type TestUser } from '../support/app.ts'
import { type ClerkStub, givenClerkUser, startClerkStub } from '../support/clerk-stub.ts'
import { expectErrorsInLog } from '../support/console.ts'

const CRON_SECRET = 'the-secret-of-the-scheduler'
const SUPPORT = { iss: 'https://dashboard.clerk.com', sid: 'sess_support', sub: 'user_2support' }

let clerk: ClerkStub
let app: App
let admin: TestUser & { clerkId: string }

beforeAll(async () => {
  clerk = await startClerkStub()
  app = await startApp({ ...clerk.variables, CRON_SECRET })
  admin = await givenClerkUser(app, clerk, 'Root')
  await db().updateTable('users').set({ role: 'admin' }).where('id', '=', admin.id).execute()
})

afterAll(() => clerk.close())

beforeEach(() => {
  clerk.answer = undefined
})

const profile = (token: string) => call(app, 'GET /api/user/profile', { token })

async function codeOf(reply: ReturnType<typeof call>): Promise<string> {
  const { status, json } = await reply
  return json?.error ? `${status} ${json.error.code}` : String(status)
}

describe('the first call', () => {
  test('finds a profile as Clerk knows it, with the free plan and the trial', async () => {
    const { id, email_addresses: addresses } = clerk.addUser({ name: 'Ada Lovelace' })
    const { status, json } = await profile(clerk.token(id))
    expect(status).toBe(200)
    expect(json).toMatchObject({
      name: 'Ada Lovelace',
      email: addresses[0]?.email_address,
      role: 'user',
      status: 'active',
      plan: 'free',
      balance: { trialGenerations: 3, tokens: 1000 },
    })
    expect((await profile(clerk.token(id))).json.id).toBe(json.id)
  })

  test('may be any call, also one that generates', async () => {
    const { id } = clerk.addUser()
    const user = { id: '', email: '', password: '', refreshToken: '', token: clerk.token(id) }
    const made = await processImage(app, user)
    expect(made.status).toBe(200)
    expect(made.json.balance).toMatchObject({ trialGenerations: 2 })
  })

  test('many at once find one account', async () => {
    const { id } = clerk.addUser()
    const replies = await Promise.all(Array.from({ length: 10 }, () => profile(clerk.token(id))))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]))
    expect(new Set(replies.map(({ json }) => json.id)).size).toBe(1)
  })

  test('while Clerk is away is answered 503, and the next one works', async () => {
    const { id } = clerk.addUser()
    expectErrorsInLog()
    clerk.answer = () => ({ status: 502, body: 'Bad gateway' })
    const { status, headers, json } = await profile(clerk.token(id))
    expect([status, json.error.code, json.error.details]).toEqual([503, 'PROVIDER_UNAVAILABLE', { provider: 'clerk' }])
    expect(headers.get('retry-after')).toBe('5')
    // Whoever is known does not notice.
    expect((await profile(admin.token)).status).toBe(200)
    clerk.answer = undefined
    expect((await profile(clerk.token(id))).status).toBe(200)
  })

  test('finds the account of local sign-in with the same proven address, and its keys and sessions are gone', async () => {
    const email = `switch.${Date.now()}@example.com`
    const local = await db()
      .transaction()
      .execute(async (trx) => {
        const id = await createUser(trx, { name: 'Local', email, role: 'user', passwordHash: 'hash' })
        return await beginSession(trx, id, { ip: 'unknown', userAgent: null })
      })
    const { id } = clerk.addUser({ name: 'At Clerk', email })
    const { json } = await profile(clerk.token(id))
    expect(json).toMatchObject({ id: local.userId, email, name: 'Local' })
    const alive = await db()
      .selectFrom('refresh_tokens')
      .select('id')
      .where('user_id', '=', local.userId)
      .where('revoked', '=', false)
      .execute()
    expect(alive).toEqual([])
  })

  test('finds another account when the address is not proven', async () => {
    const email = `mallory.${Date.now()}@example.com`
    const local = await db()
      .transaction()
      .execute((trx) => createUser(trx, { name: 'Local', email, role: 'admin', emailVerified: true }))
    const { id } = clerk.addUser({ email, verified: false })
    const { json } = await profile(clerk.token(id))
    expect(json.id).not.toBe(local)
    expect(json).toMatchObject({ email: `${id}@users.clerk.invalid`.toLowerCase(), role: 'user' })
    expect(json.balance).toMatchObject({ trialGenerations: 0 })
  })
})

describe('a role', () => {
  test('is ours to give: what a token says of it is nothing', async () => {
    const { id } = clerk.addUser()
    const claims = { metadata: { role: 'admin' }, role: 'admin', o: { id: 'org_1', rol: 'admin' } }
    const token = clerk.token(id, { claims })
    expect((await profile(token)).json.role).toBe('user')
    expect(await codeOf(call(app, 'GET /api/admin/users', { token }))).toBe('404 NOT_FOUND')
    expect(await codeOf(call(app, 'GET /api/admin/users', { token: admin.token }))).toBe('200')
  })
})

describe('a suspension', () => {
  const set = async (id: string, status: 'suspended' | 'active') =>
    await call(app, `PATCH /api/admin/users/${id}`, { token: admin.token, body: { status, reason: 'a test' } })

  test('bites at the next request, whether it is looked up or spends, with a token that is good', async () => {
    const ada = await givenClerkUser(app, clerk)
    expect((await processImage(app, ada)).status).toBe(200)
    expect((await set(ada.id, 'suspended')).status).toBe(200)
    expect(await codeOf(profile(ada.token))).toBe('403 ACCOUNT_SUSPENDED')
    expect(await codeOf(processImage(app, ada))).toBe('403 ACCOUNT_SUSPENDED')
    expect(clerk.users.get(ada.clerkId)?.banned).toBe(true)
    expect((await set(ada.id, 'active')).status).toBe(200)
    expect(clerk.users.get(ada.clerkId)?.banned).toBe(false)
    expect((await profile(clerk.token(ada.clerkId))).status).toBe(200)
  })

  test('bites here while Clerk is away, and the sweep tells Clerk', async () => {
    const ada = await givenClerkUser(app, clerk)
    clerk.answer = () => ({ status: 500, body: { errors: [] } })
    expect((await set(ada.id, 'suspended')).status).toBe(200)
    expect(await codeOf(profile(ada.token))).toBe('403 ACCOUNT_SUSPENDED')
    expect(clerk.users.get(ada.clerkId)?.banned).toBe(false)
    clerk.answer = undefined
    const { json } = await call(app, 'POST /api/jobs/sweep', { token: CRON_SECRET })
    expect(json.clerk).toEqual({ told: 1, failed: 0 })
    expect(clerk.users.get(ada.clerkId)?.banned).toBe(true)
  })
})

describe('a deletion', () => {
  test('by the user is for good, here and at Clerk, whatever token is left', async () => {
    const ada = await givenClerkUser(app, clerk)
    const again = clerk.token(ada.clerkId)
    expect(
      (await call(app, 'DELETE /api/user/profile', { token: ada.token, body: { confirm: ada.email } })).status,
    ).toBeLessThan(300)
    expect(clerk.users.has(ada.clerkId)).toBe(false)
    expect(await codeOf(profile(again))).toBe('401 UNAUTHENTICATED')
    expect(await codeOf(processImage(app, { ...ada, token: again }))).toBe('401 UNAUTHENTICATED')
  })
})

describe('whoever acts in the name of a user', () => {
  test('sees what the user sees, and may not do what is for the person alone', async () => {
    const { id } = clerk.addUser()
    const token = clerk.token(id, { claims: { act: SUPPORT } })
    expect((await profile(token)).status).toBe(200)
    expect(await codeOf(call(app, 'POST /api/api-keys', { token, body: { name: 'robot' } }))).toBe('403 FORBIDDEN')
    expect(await codeOf(call(app, 'POST /api/billing/checkout', { token, body: { pack: 'starter' } }))).toBe(
      '403 FORBIDDEN',
    )
  })

  test('is on record with the first call', async () => {
    const { id } = clerk.addUser()
    const { json } = await profile(clerk.token(id, { claims: { act: SUPPORT } }))
    const rows = await db()
      .selectFrom('audit_log')
      .select(['action', 'actor_id', 'impersonator'])
      .where('target_id', '=', json.id)
      .execute()
    expect(rows).toEqual([{ action: 'user.register', actor_id: json.id, impersonator: SUPPORT.sub }])
  })

  test('finds no administration, even in the name of an administrator', async () => {
    const token = clerk.token(admin.clerkId, { claims: { act: SUPPORT } })
    expect(await codeOf(call(app, 'GET /api/admin/users', { token }))).toBe('404 NOT_FOUND')
  })
})

test('readiness says that sign-in is on', async () => {
  const { json } = await call(app, 'GET /api/health/ready', { token: admin.token })
  expect(json.checks.signIn).toEqual({
    status: 'ok',
    details: `Clerk, ${clerk.instance.frontendApi}: CLERK_JWT_KEY is set`,
  })
})
