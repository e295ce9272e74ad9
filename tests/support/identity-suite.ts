// What a signed-in person can do and see, whichever provider vouches for them: one suite, run on each.
import { createHash } from 'node:crypto'
import { sql } from 'kysely'
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, call, processImage, type Reply } from './app.ts'
import { ledgerViolations } from './money.ts'

export interface Person {
  id: string
  email: string
  token: string
}

export interface IdentityProvider {
  start(): Promise<App>
  /** Somebody new, signed in. */
  signUp(app: App, name: string): Promise<Person>
  /** The same address as a new account, after the first one was deleted. */
  signUpAgain(app: App, person: Person): Promise<Person>
  /** A new session of somebody who is known. */
  signIn(app: App, person: Person): Promise<string>
  /** A token of the person's that was good until a moment ago. */
  expiredToken(person: Person): Promise<string>
}

export function identitySuite(provider: IdentityProvider): void {
  let app: App
  let admin: Person

  beforeAll(async () => {
    app = await provider.start()
    admin = await provider.signUp(app, 'Root')
    await db().updateTable('users').set({ role: 'admin' }).where('id', '=', admin.id).execute()
  })

  const ask = (what: string, token: string, body?: object): Promise<Reply> =>
    call(app, what, { token, ...(body && { body }) })
  const answerOf = ({ status, json }: Reply) => (json?.error ? `${status} ${json.error.code}` : String(status))
  const generate = (token: string) => processImage(app, { id: '', email: '', password: '', refreshToken: '', token })

  describe('the first call', () => {
    test('finds a profile with the free plan and the trial', async () => {
      const ada = await provider.signUp(app, 'Ada')
      const { json, status } = await ask('GET /api/user/profile', ada.token)
      expect(status).toBe(200)
      expect(json).toMatchObject({
        id: ada.id,
        name: 'Ada',
        email: ada.email,
        role: 'user',
        status: 'active',
        plan: 'free',
        balance: { trialGenerations: 3, tokens: 1000 },
        preferences: {},
        createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      })
    })

    test('is refused without a token, with garbage, and with a token that has expired', async () => {
      const ada = await provider.signUp(app, 'Ada')
      expect(answerOf(await call(app, 'GET /api/user/profile'))).toBe('401 UNAUTHENTICATED')
      expect(answerOf(await ask('GET /api/user/profile', 'abc.def.ghi'))).toBe('401 UNAUTHENTICATED')
      expect(answerOf(await ask('GET /api/user/profile', `${ada.token}x`))).toBe('401 UNAUTHENTICATED')
      expect(answerOf(await ask('GET /api/user/profile', await provider.expiredToken(ada)))).toBe('401 TOKEN_EXPIRED')
    })
  })

  describe('a user', () => {
    test('changes name and preferences, and finds them again', async () => {
      const ada = await provider.signUp(app, 'Ada')
      const change = { name: 'Ada Lovelace', preferences: { theme: 'dark' } }
      expect((await ask('PUT /api/user/profile', ada.token, change)).status).toBe(200)
      expect((await ask('GET /api/user/profile', ada.token)).json).toMatchObject(change)
    })

    test('cannot set role, status, plan or balance', async () => {
      const ada = await provider.signUp(app, 'Ada')
      for (const field of ['role', 'status', 'plan', 'balance', 'email', 'id'])
        expect(answerOf(await ask('PUT /api/user/profile', ada.token, { [field]: 'admin' }))).toBe(
          '400 VALIDATION_FAILED',
        )
    })

    test('spends the trial, and reads of it in usage, status and history', async () => {
      const ada = await provider.signUp(app, 'Ada')
      const made = await generate(ada.token)
      expect(made.status).toBe(200)
      expect(made.json).toMatchObject({
        usage: { tokens: 0, images: 1, trial: true },
        balance: { trialGenerations: 2 },
      })
      const { json: usage } = await ask('GET /api/user/usage', ada.token)
      expect(usage.data).toMatchObject([{ tool: 'coloring-page', status: 'success', tokens: 0, trial: true }])
      const { json: status } = await ask('GET /api/billing/status', ada.token)
      expect(status).toMatchObject({ plan: 'free', balance: { trialGenerations: 2, tokens: 1000 } })
    })

    test('makes a key that generates and reads, and nothing else, until it is revoked', async () => {
      const ada = await provider.signUp(app, 'Ada')
      const { json: made, status } = await ask('POST /api/api-keys', ada.token, { name: 'robot' })
      expect(status).toBe(201)
      expect((await ask('GET /api/user/profile', made.key)).json.id).toBe(ada.id)
      expect((await generate(made.key)).status).toBe(200)
      expect(answerOf(await ask('POST /api/api-keys', made.key, { name: 'another' }))).toBe('403 FORBIDDEN')
      expect(answerOf(await ask('POST /api/billing/checkout', made.key, { pack: 'starter' }))).toBe('403 FORBIDDEN')
      expect(answerOf(await ask('GET /api/admin/users', made.key))).toBe('404 NOT_FOUND')
      expect((await ask(`DELETE /api/api-keys/${made.id}`, ada.token)).status).toBe(204)
      expect(answerOf(await ask('GET /api/user/profile', made.key))).toBe('401 UNAUTHENTICATED')
    })

    test('takes everything along that is kept about them, without any secret', async () => {
      const ada = await provider.signUp(app, 'Ada')
      const { json: key } = await ask('POST /api/api-keys', ada.token, { name: 'robot' })
      await generate(ada.token)
      const exported = await ask('GET /api/user/export', ada.token)
      expect(exported.status).toBe(200)
      const text = exported.bytes.toString()
      expect(text).toContain(ada.email)
      expect(text).toContain(key.id)
      expect(text).toContain('coloring-page')
      expect(text).not.toContain(key.key)
      expect(text).not.toContain(createHash('sha256').update(key.key).digest('hex'))
      expect(text).not.toMatch(/password|\$2b\$|token_hash|key_hash/i)
    })
  })

  describe('an account that is suspended', () => {
    test('is refused at the next request, by token, by key and to generate; reactivated, it signs in anew', async () => {
      const ada = await provider.signUp(app, 'Ada')
      const { json: key } = await ask('POST /api/api-keys', ada.token, { name: 'robot' })
      const suspended = await ask(`PATCH /api/admin/users/${ada.id}`, admin.token, {
        status: 'suspended',
        reason: 'abuse',
      })
      expect(suspended.json).toMatchObject({ status: 'suspended' })
      expect(answerOf(await ask('GET /api/user/profile', ada.token))).toBe('403 ACCOUNT_SUSPENDED')
      expect(answerOf(await generate(ada.token))).toBe('403 ACCOUNT_SUSPENDED')
      expect(answerOf(await ask('GET /api/user/profile', key.key))).toMatch(
        /^(401 UNAUTHENTICATED|403 ACCOUNT_SUSPENDED)$/,
      )
      expect(answerOf(await generate(key.key))).toMatch(/^(401 UNAUTHENTICATED|403 ACCOUNT_SUSPENDED)$/)

      await ask(`PATCH /api/admin/users/${ada.id}`, admin.token, { status: 'active', reason: 'a mistake' })
      expect((await ask('GET /api/user/profile', await provider.signIn(app, ada))).json.id).toBe(ada.id)
      expect(answerOf(await ask('GET /api/user/profile', key.key))).toBe('401 UNAUTHENTICATED')
    })
  })

  describe('an account that is deleted', () => {
    test('is gone at once; the same person gets no second trial', async () => {
      const ada = await provider.signUp(app, 'Ada')
      await generate(ada.token)
      const deleted = await ask('DELETE /api/user/profile', ada.token)
      expect(deleted.json).toMatchObject({ status: 'deleted', purgeAfter: expect.any(String) })
      expect(answerOf(await ask('GET /api/user/profile', ada.token))).toBe('401 UNAUTHENTICATED')
      expect(answerOf(await generate(ada.token))).toBe('401 UNAUTHENTICATED')

      const again = await provider.signUpAgain(app, ada)
      expect(again.id).not.toBe(ada.id)
      const { json } = await ask('GET /api/user/profile', again.token)
      expect(json).toMatchObject({ email: ada.email, balance: { trialGenerations: 0, tokens: 1000 } })
    })

    test('by an admin needs a reason', async () => {
      const ada = await provider.signUp(app, 'Ada')
      expect(answerOf(await ask(`DELETE /api/admin/users/${ada.id}`, admin.token, {}))).toBe('400 VALIDATION_FAILED')
      expect((await ask(`DELETE /api/admin/users/${ada.id}`, admin.token, { reason: 'asked us to' })).status).toBe(200)
      expect(answerOf(await ask('GET /api/user/profile', ada.token))).toBe('401 UNAUTHENTICATED')
    })
  })

  describe('an admin', () => {
    test('finds a user by address and sees what they have', async () => {
      const ada = await provider.signUp(app, 'Ada')
      const { json: found } = await ask(`GET /api/admin/users?query=${encodeURIComponent(ada.email)}`, admin.token)
      expect(found.data).toMatchObject([{ id: ada.id, email: ada.email, status: 'active', role: 'user' }])
      const { json: read } = await ask(`GET /api/admin/users/${ada.id}`, admin.token)
      expect(read).toMatchObject({ id: ada.id, balance: { trialGenerations: 3, tokens: 1000 } })
    })

    test('gives tokens and takes them back, exactly', async () => {
      const ada = await provider.signUp(app, 'Ada')
      const tokens = { tokens: 500, reason: 'sorry' }
      expect((await ask(`POST /api/admin/users/${ada.id}/grant`, admin.token, tokens)).status).toBe(201)
      expect((await ask('GET /api/billing/status', ada.token)).json.balance.tokens).toBe(1500)
      await ask(`POST /api/admin/users/${ada.id}/revoke`, admin.token, tokens)
      expect((await ask('GET /api/billing/status', ada.token)).json.balance.tokens).toBe(1000)
      expect(await ledgerViolations()).toEqual([])
    })

    test('makes another admin, and leaves a trace of every act', async () => {
      const ada = await provider.signUp(app, 'Ada')
      const change = { role: 'admin', reason: 'she helps' }
      expect((await ask(`PATCH /api/admin/users/${ada.id}`, admin.token, change)).json).toMatchObject({ role: 'admin' })
      expect((await ask('GET /api/admin/users', ada.token)).status).toBe(200)
      const { rows } = await sql<{ action: string; actor_id: string; reason: string | null }>`
        select action, actor_id, reason from audit_log where target_id = ${ada.id} order by id
      `.execute(db())
      expect(rows.at(-1)).toMatchObject({ action: 'user.role', actor_id: admin.id, reason: 'she helps' })
      expect(rows[0]).toMatchObject({ action: 'user.register' })
    })

    test('can check the whole trail', async () => {
      const { json } = await ask('GET /api/admin/audit/verify', admin.token)
      expect(json).toMatchObject({ ok: true, problems: [] })
    })
  })
}
