// Users in the hands of administrators: found, read, suspended, promoted, given plans and tokens, deleted and restored.
import { sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { seedAdmin } from '../../lib/auth/accounts.ts'
import { hashSubject } from '../../lib/auth/throttle.ts'
import { type App, balanceOf, call, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { givenDispute, givenOrder } from '../support/billing-rows.ts'
import { ledgerViolations } from '../support/money.ts'

const ADMIN = { email: 'root@example.com', password: 'a password for the admin' }
const NOBODY = '00000000-0000-4000-8000-000000000000'
const reason = 'A test.'

let app: App
let user: TestUser
let admin: { id: string; token: string }

beforeAll(async () => {
  app = await startApp({ ADMIN_EMAIL: ADMIN.email, ADMIN_PASSWORD: ADMIN.password })
  await seedAdmin()
  const { json } = await call(app, 'POST /api/auth/login', { body: ADMIN })
  admin = { id: json.user.id, token: json.accessToken }
})

beforeEach(async () => {
  user = await givenUser(app)
})

const get = (path: string) => call(app, `GET /api/admin/${path}`, { token: admin.token })
const patch = (body: object, id = user.id) =>
  call(app, `PATCH /api/admin/users/${id}`, { token: admin.token, body: { reason, ...body } })
const remove = (id = user.id, { body = { reason }, query = '' }: { body?: unknown; query?: string } = {}) =>
  call(app, `DELETE /api/admin/users/${id}${query}`, { token: admin.token, body })
const details = async (id = user.id) => (await get(`users/${id}`)).json
const signIn = () => call(app, 'POST /api/auth/login', { body: { email: user.email, password: user.password } })
const profile = (token = user.token) => call(app, 'GET /api/user/profile', { token })
const acts = async (id = user.id) =>
  await db()
    .selectFrom('audit_log')
    .select(['action', 'actor_type', 'actor_id', 'reason', 'before', 'after'])
    .where('target_id', '=', id)
    .where('actor_type', '=', 'admin')
    .orderBy('id')
    .execute()

describe('GET /api/admin/users', () => {
  const found = async (query: string) =>
    (await get(`users?${query}`)).json.data.map(({ id }: { id: string }) => id) as string[]
  const word = () => `w${crypto.randomUUID().slice(0, 12)}`

  test('shows a user with plan, balance and when they were last seen', async () => {
    const { status, json } = await get(`users?query=${user.id}`)
    expect(status).toBe(200)
    expect(json).toEqual({
      data: [
        {
          id: user.id,
          name: 'Ada',
          email: user.email,
          role: 'user',
          status: 'active',
          plan: 'free',
          tokens: 1000,
          createdAt: expect.stringMatching(/Z$/),
          lastSeenAt: expect.stringMatching(/Z$/),
        },
      ],
      page: { nextCursor: null, hasMore: false },
    })
  })

  test('finds a part of the address or the name, in any case, and wildcards as what they are', async () => {
    const name = word()
    const [one, two] = [await givenUser(app, `${name}-one`), await givenUser(app, `${name}-two`)]
    await db()
      .updateTable('users')
      .set({ name: `${name}_%two` })
      .where('id', '=', two.id)
      .execute()
    expect(await found(`query=${name.toUpperCase()}`)).toEqual([two.id, one.id])
    expect(await found(`query=${name}-one`)).toEqual([one.id])
    expect(await found(`query=${encodeURIComponent(one.email)}`)).toEqual([one.id])
    expect(await found(`query=${name}_`)).toEqual([two.id])
    expect(await found(`query=${encodeURIComponent('_%two')}`)).toEqual([two.id])
    expect(await found(`query=${encodeURIComponent('%')}${name}`)).toEqual([])
    expect(await found(`query=${encodeURIComponent('\\')}`)).toEqual([])
    expect(await found(`query=${one.id.toUpperCase()}`)).toEqual([one.id])
    expect(await found(`query=${one.id.slice(0, -1)}`)).toEqual([])
  })

  test('filters by status, role and plan', async () => {
    const name = word()
    const [suspended, boss, pro] = [
      await givenUser(app, `${name}a`),
      await givenUser(app, `${name}b`),
      await givenUser(app, `${name}c`),
    ]
    await patch({ status: 'suspended' }, suspended.id)
    await patch({ role: 'admin' }, boss.id)
    await patch({ plan: 'pro' }, pro.id)
    expect(await found(`query=${name}&status=suspended`)).toEqual([suspended.id])
    expect(await found(`query=${name}&status=active`)).toEqual([pro.id, boss.id])
    expect(await found(`query=${name}&role=admin`)).toEqual([boss.id])
    expect(await found(`query=${name}&plan=pro`)).toEqual([pro.id])
    expect(await found(`query=${name}&plan=free&status=active&role=user`)).toEqual([])
    await patch({ role: 'user' }, boss.id)
  })

  test.each([1, 3, 50])('walked %i at a time shows every user once, also of one instant', async (limit) => {
    const name = word()
    await sql`insert into users (name, email, created_at)
      select ${name}, ${name} || n || '@example.com', timestamptz '2026-01-01' + (n % 3) * interval '1 microsecond'
        from generate_series(1, 10) n`.execute(db())
    await sql`select ledger_open(id, '{"free": 1000}', 0, '') from users where name = ${name}`.execute(db())
    const seen: string[] = []
    for (let cursor: string | null = ''; cursor !== null; ) {
      const { json } = await get(`users?query=${name}&limit=${limit}${cursor && `&cursor=${cursor}`}`)
      seen.push(...json.data.map(({ id }: { id: string }) => id))
      cursor = json.page.nextCursor
      expect(seen.length).toBeLessThanOrEqual(10)
    }
    expect(new Set(seen).size).toBe(10)
  })

  test.each([
    'status=gone',
    'role=boss',
    'plan=gold',
    'limit=0',
    'limit=101',
    'cursor=x',
    'query=',
    'other=1',
    'query=%00',
  ])('refuses %s', async (query) => {
    const { status, json } = await get(`users?${query}`)
    expect(status).toBe(400)
    expect(json.error.code).toBe('VALIDATION_FAILED')
  })

  test('refuses a cursor of another list', async () => {
    const cursor = Buffer.from('1 no-uuid').toString('base64url')
    expect((await get(`users?cursor=${cursor}`)).status).toBe(400)
  })
})

describe('GET /api/admin/users/:id', () => {
  test('shows everything about one', async () => {
    await processImage(app, user)
    const order = await givenOrder({ user_id: user.id, ordered_at: '2026-03-01T00:00:00Z' })
    await db()
      .insertInto('api_keys')
      .values({ user_id: user.id, key_hash: crypto.randomUUID(), key_prefix: 'abcdefgh', name: 'ci', scopes: ['read'] })
      .execute()
    const { status, json } = await get(`users/${user.id}`)
    expect(status).toBe(200)
    expect(json).toMatchObject({
      id: user.id,
      email: user.email,
      plan: 'free',
      planGift: null,
      preferences: {},
      clerkId: null,
      deletedAt: null,
      purgeAfter: null,
      purgedAt: null,
      account: { plan: 'free', tokenLimit: 1000, debtTokens: 0 },
      balance: { trialGenerations: 2, tokens: 1000 },
      usage: { total: { calls: 1, succeeded: 1, tokens: 0 }, last30Days: { calls: 1, tokens: 0 } },
      sessions: 1,
      keys: [{ name: 'ci', keyPrefix: 'abcdefgh', active: true, scopes: ['read'], revokedReason: null }],
      orders: [{ id: order, userId: user.id }],
      risk: { signals: expect.any(Array) },
    })
    expect(JSON.stringify(json)).not.toContain('hash')
  })

  test('names what speaks against them, as facts', async () => {
    const signals = async () => (await details()).risk.signals
    await db().updateTable('users').set({ email_verified_at: sql`now()` }).where('id', '=', user.id).execute()
    await db()
      .updateTable('users')
      .set({ signup_network: null, trial_withheld: null })
      .where('id', '=', user.id)
      .execute()
    expect(await signals()).toEqual([])

    const network = crypto.randomUUID()
    const neighbour = await givenUser(app)
    await db()
      .updateTable('users')
      .set({ signup_network: network })
      .where('id', 'in', [user.id, neighbour.id])
      .execute()
    await db()
      .updateTable('users')
      .set({ email_verified_at: null, trial_withheld: 'network' })
      .where('id', '=', user.id)
      .execute()
    await db()
      .insertInto('sign_in_failures')
      .values({ email_hash: hashSubject(user.email), failures: 4 })
      .execute()
    const at = '2026-03-01T00:00:00Z'
    const order = await givenOrder({ user_id: user.id, ordered_at: at, refunded_cents: 200 })
    await givenDispute({ order_id: order, status: 'lost', disputed_at: at })
    await givenDispute({ order_id: order, status: 'won', disputed_at: at })
    const source = `test:${crypto.randomUUID()}`
    await sql`select ledger_credit(${user.id}, 'plan', 70, ${source}, now() - interval '1 hour')`.execute(db())
    await sql`insert into ledger_entry (user_id, op, amount, lot_id)
      select user_id, unnest(array['lapse', 'debt']), 70, id from ledger_lot where source = ${source}`.execute(db())
    expect(await signals()).toEqual([
      { signal: 'trial_withheld', why: 'network' },
      { signal: 'shared_network', accounts: 2 },
      { signal: 'failed_sign_ins', failures: 4 },
      { signal: 'debt', tokens: 70 },
      { signal: 'refunds', orders: 1, cents: 200 },
      { signal: 'disputes', disputes: 2, lost: 1 },
      { signal: 'email_unverified' },
    ])
  })

  test.each([NOBODY, 'me', 'x'.repeat(300), '%00'])('%s is nobody', async (id) => {
    for (const reply of [await get(`users/${id}`), await patch({ role: 'user' }, id), await remove(id)]) {
      expect(reply.status).toBe(404)
      expect(reply.json.error).toMatchObject({ code: 'NOT_FOUND', message: 'There is no such user.' })
    }
    const body = { tokens: 1, reason }
    for (const act of ['grant', 'revoke']) {
      expect((await call(app, `POST /api/admin/users/${id}/${act}`, { token: admin.token, body })).status).toBe(404)
    }
  })
})

describe('PATCH /api/admin/users/:id', () => {
  test('suspends: the very next request is refused, with whatever proof, and signing in too', async () => {
    const { status, json } = await patch({ status: 'suspended' })
    expect(status).toBe(200)
    expect(json).toMatchObject({ id: user.id, status: 'suspended', sessions: 0 })
    const refused = { status: 403, json: { error: { code: 'ACCOUNT_SUSPENDED' } } }
    expect(await profile()).toMatchObject(refused)
    expect(await processImage(app, user)).toMatchObject(refused)
    expect(await signIn()).toMatchObject(refused)
    expect((await call(app, 'POST /api/auth/refresh', { body: { refreshToken: user.refreshToken } })).status).toBeOneOf(
      [401, 403],
    )
    expect(await acts()).toEqual([
      {
        action: 'user.suspend',
        actor_type: 'admin',
        actor_id: admin.id,
        reason,
        before: { status: 'active' },
        after: { status: 'suspended' },
      },
    ])
  })

  test('lets in again, to sign in anew: what was ended stays ended', async () => {
    await patch({ status: 'suspended' })
    expect((await patch({ status: 'active' })).json).toMatchObject({ status: 'active' })
    expect((await profile()).status).toBe(401)
    const again = await signIn()
    expect(again.status).toBe(200)
    expect((await profile(again.json.accessToken)).status).toBe(200)
    expect((await acts()).map(({ action }) => action)).toEqual(['user.suspend', 'user.reactivate'])
  })

  test('gives and takes the role of an administrator, in force at once', async () => {
    const list = () => call(app, 'GET /api/admin/users', { token: user.token })
    expect((await list()).status).toBe(404)
    await patch({ role: 'admin' })
    expect((await list()).status).toBe(200)
    await patch({ role: 'user' })
    expect((await list()).status).toBe(404)
    expect((await acts()).map(({ action }) => action)).toEqual(['user.role', 'user.role'])
  })

  test('gives a plan with its tokens, and takes it back', async () => {
    expect((await patch({ plan: 'pro' })).json).toMatchObject({ plan: 'pro', planGift: 'pro' })
    expect(await balanceOf(app, user)).toMatchObject({ planTokens: 50_000 })
    expect((await patch({ plan: 'free' })).json).toMatchObject({ plan: 'free', planGift: null })
    expect(await balanceOf(app, user)).toMatchObject({ planTokens: 1000 })
    expect(await ledgerViolations()).toEqual([])
  })

  test('makes several changes with one record each, or none of them', async () => {
    expect((await patch({ status: 'suspended', role: 'admin', plan: 'enterprise' })).json).toMatchObject({
      status: 'suspended',
      role: 'admin',
      plan: 'enterprise',
    })
    expect((await acts()).map(({ action }) => action)).toEqual(['user.role', 'user.suspend', 'user.plan'])
    await remove()
    const { status, json } = await patch({ plan: 'free', role: 'user' })
    expect([status, json.error.code]).toEqual([409, 'CONFLICT'])
    expect(await details()).toMatchObject({ role: 'admin', planGift: 'enterprise' })
    expect((await acts()).map(({ action }) => action)).toEqual([
      'user.role',
      'user.suspend',
      'user.plan',
      'user.delete',
    ])
  })

  test('leaves alone what is so already', async () => {
    expect((await patch({ status: 'active', role: 'user', plan: 'free' })).status).toBe(200)
    expect(await acts()).toEqual([])
  })

  test('restores a deleted account within its grace', async () => {
    await remove()
    expect((await patch({ status: 'active' })).json).toMatchObject({
      status: 'active',
      deletedAt: null,
      purgeAfter: null,
    })
    expect((await signIn()).status).toBe(200)
    expect((await acts()).at(-1)).toMatchObject({ action: 'user.restore', reason })
    await remove()
    await db().updateTable('users').set({ purge_after: sql`now()` }).where('id', '=', user.id).execute()
    expect((await patch({ status: 'active' })).status).toBe(409)
  })

  test.each([{ status: 'active' }, { status: 'suspended' }, { role: 'user' }, { role: 'admin', plan: 'pro' }])(
    'is not for the own status and role: %j',
    async (body) => {
      const { status, json } = await patch(body, admin.id)
      expect([status, json.error.code]).toEqual([409, 'CONFLICT'])
      expect((await details(admin.id)).planGift).toBeNull()
    },
  )

  test('lets administrators have a plan of their own giving', async () => {
    expect((await patch({ plan: 'pro' }, admin.id)).json).toMatchObject({ plan: 'pro' })
    await patch({ plan: 'free' }, admin.id)
  })

  test.each([
    [{}, 'Name at least one'],
    [{ status: 'deleted' }, ''],
    [{ status: 'active', reason: undefined }, ''],
    [{ status: 'active', reason: '  ' }, 'A reason is needed.'],
    [{ status: 'active', reason: 'x'.repeat(501) }, ''],
    [{ role: 'root' }, ''],
    [{ plan: 'gold' }, ''],
    [{ tokens: 5, status: 'active' }, ''],
    [{ email: 'new@example.com' }, ''],
  ])('refuses %j', async (body, message) => {
    const { status, json } = await patch(body)
    expect([status, json.error.code]).toEqual([400, 'VALIDATION_FAILED'])
    expect(json.error.message).toContain(message)
  })
})

describe('DELETE /api/admin/users/:id', () => {
  test('deletes as users do themselves, with the reason on record', async () => {
    const { status, json } = await remove()
    expect(status).toBe(200)
    expect(json).toEqual({ status: 'deleted', purgeAfter: expect.stringMatching(/Z$/) })
    expect((await profile()).status).toBe(401)
    expect(await acts()).toMatchObject([{ action: 'user.delete', actor_id: admin.id, reason }])
    expect(await details()).toMatchObject({ status: 'deleted', purgeAfter: json.purgeAfter, sessions: 0 })
    expect((await remove()).json).toEqual(json)
    expect(await acts()).toHaveLength(1)
  })

  test('takes the reason from the address too', async () => {
    expect((await remove(user.id, { body: '', query: '?reason=By%20address.' })).status).toBe(200)
    expect(await acts()).toMatchObject([{ reason: 'By address.' }])
  })

  test.each(['', {}, { reason: '' }, { reason, more: 1 }])('needs a reason and nothing else: %j', async (body) => {
    expect((await remove(user.id, { body })).status).toBe(400)
    expect((await profile()).status).toBe(200)
  })

  test('is not for oneself', async () => {
    expect((await remove(admin.id)).status).toBe(409)
  })
})

describe('POST /api/admin/users/:id/revoke', () => {
  const send = (act: string, tokens: unknown, key?: string) =>
    call(app, `POST /api/admin/users/${user.id}/${act}`, {
      token: admin.token,
      body: { tokens, reason },
      headers: key === undefined ? {} : { 'idempotency-key': key },
    })

  test('takes given tokens back, as many as there are, and says how many', async () => {
    await send('grant', 200)
    expect((await send('revoke', 150)).json).toEqual({
      userId: user.id,
      asked: 150,
      revoked: 150,
      balance: { trialGenerations: 3, tokens: 1050 },
    })
    expect((await send('revoke', 150)).json).toMatchObject({ asked: 150, revoked: 50, balance: { tokens: 1000 } })
    expect((await send('revoke', 150)).json).toMatchObject({ asked: 150, revoked: 0, balance: { tokens: 1000 } })
    expect((await acts()).map(({ action }) => action)).toEqual([
      'tokens.grant',
      'tokens.revoke',
      'tokens.revoke',
      'tokens.revoke',
    ])
    expect(await ledgerViolations()).toEqual([])
  })

  test('repeated with its key takes nothing more, and answers the same', async () => {
    await send('grant', 200)
    const first = await send('revoke', 50, 'once')
    const replay = await send('revoke', 50, 'once')
    expect(replay.json).toEqual(first.json)
    expect(replay.headers.get('idempotent-replayed')).toBe('true')
    expect((await balanceOf(app, user)).tokens).toBe(1150)
  })

  test.each([0, -1, 1.5, '5', 100_000_001, null])('refuses %j tokens', async (tokens) => {
    expect((await send('revoke', tokens)).status).toBe(400)
  })
})

describe('nobody else', () => {
  test('finds anything here', async () => {
    for (const what of [
      'GET /api/admin/users',
      `GET /api/admin/users/${user.id}`,
      `PATCH /api/admin/users/${user.id}`,
      `DELETE /api/admin/users/${user.id}`,
      `POST /api/admin/users/${user.id}/revoke`,
      'GET /api/admin/audit',
      'GET /api/admin/audit/verify',
    ]) {
      const body = what.startsWith('GET') ? undefined : { reason }
      expect((await call(app, what, { token: user.token, body })).status, what).toBe(404)
      expect((await call(app, what, { body })).status, what).toBe(401)
    }
  })
})
