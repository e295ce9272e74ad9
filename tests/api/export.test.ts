// GET /api/user/export: everything that is held about the caller, of nobody else, and no secrets.
import { sql } from 'kysely'
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { toolId } from '../../lib/tools/catalogue.ts'
import { type App, call, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { givenDispute, givenOrder, givenRefund } from '../support/billing-rows.ts'

const AT = '2026-03-01T12:00:00Z'

let app: App
let user: TestUser
let other: TestUser

beforeAll(async () => {
  app = await startApp()
  user = await givenUser(app)
  other = await givenUser(app, 'Bob')
})

const exportOf = (of = user) => call(app, 'GET /api/user/export', { token: of.token })

describe('GET /api/user/export', () => {
  test('is one JSON document to keep as a file', async () => {
    const { status, headers, json } = await exportOf()
    expect(status).toBe(200)
    expect(headers.get('content-type')).toBe('application/json; charset=utf-8')
    expect(headers.get('content-disposition')).toBe('attachment; filename="export.json"')
    expect(headers.get('cache-control')).toBe('no-store')
    expect(Object.keys(json).sort()).toEqual(
      [
        ...['exportedAt', 'profile', 'preferences', 'mfa', 'planGift', 'plan', 'sessions', 'apiKeys', 'mailedTokens'],
        ...[
          'keptRequests',
          'keptResults',
          'jobs',
          'usage',
          'grants',
          'ledger',
          'orders',
          'refunds',
          'disputes',
          'subscriptions',
          'audit',
          'cut',
        ],
      ].sort(),
    )
    expect(json.exportedAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    expect(json.cut).toEqual([])
  })

  test('holds what there is of everything', async () => {
    await call(app, 'PUT /api/user/profile', { token: user.token, body: { preferences: { theme: 'dark' } } })
    await processImage(app, user, {
      headers: { 'idempotency-key': 'my-key', 'user-agent': 'camera' },
      ip: '203.0.113.7',
    })
    const order = await givenOrder({ user_id: user.id, description: 'Starter "pack"', ordered_at: AT })
    await givenRefund({ order_id: order, refunded_at: AT })
    await givenDispute({ order_id: order, status: 'won', disputed_at: AT })
    const key = { user_id: user.id, key_hash: 'the-hash-of-a-key', key_prefix: 'abcdefgh', name: 'ci' }
    await db()
      .insertInto('api_keys')
      .values({ ...key, scopes: ['read'] })
      .execute()
    await db()
      .insertInto('email_tokens')
      .values({
        token_hash: 'the-hash-of-a-mailed-token',
        user_id: user.id,
        purpose: 'change',
        email: 'new@example.com',
        expires_at: sql`now()`,
      })
      .execute()
    await db()
      .insertInto('mfa_factors')
      .values({ user_id: user.id, secret: 'the-sealed-secret', confirmed_at: sql`now()` })
      .execute()
    await db().insertInto('mfa_recovery_codes').values({ user_id: user.id, code_hash: 'the-hash-of-a-code' }).execute()

    const { json, bytes } = await exportOf()
    expect(json.profile).toMatchObject({ id: user.id, name: 'Ada', email: user.email, role: 'user', status: 'active' })
    expect(json.preferences).toEqual({ theme: 'dark' })
    expect(json.mfa).toEqual({ enrolledAt: expect.any(String), recoveryCodesLeft: 1 })
    expect(json.plan).toMatchObject({ plan: 'free', tokenLimit: 1000 })
    expect(json.sessions).toMatchObject([{ sessionId: expect.any(String), endedAt: null }])
    expect(json.apiKeys).toMatchObject([{ name: 'ci', keyPrefix: 'abcdefgh', scopes: ['read'], active: true }])
    expect(json.mailedTokens).toMatchObject([{ purpose: 'change', email: 'new@example.com' }])
    expect(json.keptRequests).toMatchObject([
      { request: 'POST /api/process-image', idempotencyKey: 'my-key', status: 200 },
    ])
    expect(json.usage).toMatchObject([{ tool: 'coloring-page', status: 'success', trial: true }])
    expect(json.grants.map(({ kind }: { kind: string }) => kind).sort()).toEqual(['plan', 'trial'])
    expect(json.ledger.map(({ op }: { op: string }) => op)).toEqual(['spend', 'reserve', 'grant', 'grant'])
    expect(json.orders).toMatchObject([{ id: order, description: 'Starter "pack"' }])
    expect(json.refunds).toMatchObject([{ orderId: order }])
    expect(json.disputes).toMatchObject([{ orderId: order }])
    expect(json.audit.map(({ action }: { action: string }) => action)).toContain('user.register')
    const { password_hash } = await db()
      .selectFrom('users')
      .select('password_hash')
      .where('id', '=', user.id)
      .executeTakeFirstOrThrow()
    for (const secret of ['the-hash', 'the-sealed', password_hash ?? 'none', user.refreshToken, user.token]) {
      expect(bytes.includes(secret)).toBe(false)
    }
  })

  test('holds nothing of anybody else, and not from where an administrator acted', async () => {
    await db()
      .insertInto('audit_log')
      .values({
        actor_type: 'admin',
        actor_id: other.id,
        action: 'user.suspend',
        target_type: 'user',
        target_id: user.id,
        details: '{}',
        ip: '198.51.100.1',
        user_agent: 'browser of the admin',
      })
      .execute()
    const { json, bytes } = await exportOf()
    expect(json.audit[0]).toMatchObject({ action: 'user.suspend', by: 'admin', own: false, ip: null, userAgent: null })
    for (const foreign of [other.id, other.email, '198.51.100.1']) expect(bytes.includes(foreign)).toBe(false)
    const theirs = await exportOf(other)
    expect(theirs.bytes.includes(user.email)).toBe(false)
    for (const section of ['apiKeys', 'mailedTokens', 'keptRequests', 'usage', 'orders', 'refunds', 'disputes']) {
      expect(theirs.json[section], section).toEqual([])
    }
  })

  test('of more than a page has every row once, the newest first', async () => {
    const reader = await givenUser(app, 'Cleo')
    const tool = await toolId(db(), 'coloring-page')
    await sql`insert into usage_logs (user_id, tool_id, tokens_used, request_id, response_status, timestamp)
      select ${reader.id}, ${tool}, 0, gen_random_uuid(), 'error', timestamptz '2026-01-01' + (n % 7) * interval '1 microsecond'
        from generate_series(1, 2500) n`.execute(db())
    const { json } = await exportOf(reader)
    expect(new Set(json.usage.map(({ id }: { id: string }) => id)).size).toBe(2500)
    expect(json.usage).toHaveLength(2500)
    expect(json.cut).toEqual([])
  })

  test('needs somebody signed in, and is sent to nobody else', async () => {
    expect((await call(app, 'GET /api/user/export')).status).toBe(401)
    expect((await call(app, 'HEAD /api/user/export', { token: user.token })).bytes).toHaveLength(0)
  })
})
