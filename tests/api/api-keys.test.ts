// API keys over HTTP: made and shown once, listed, ended, replaced; and what a key may and may not do.
import { sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { createKey } from '../../lib/auth/api-keys.ts'
import { hashOfKey, newKey } from '../../lib/auth/key-format.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, type CallOptions, call, processImage, startApp } from '../support/app.ts'
import { suspend } from '../support/money.ts'

const DAY_MS = 86_400_000
const UUID = expect.stringMatching(/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/)
const TIME = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
const NOBODYS = '00000000-0000-4000-8000-000000000000'

let app: App
let user: Account
let other: Account

beforeAll(async () => {
  app = await startApp({ FORK__API_KEYS__TAG: 'fox', FORK__API_KEYS__PER_USER_MAX: '4' })
})

beforeEach(async () => {
  user = await givenAccount()
  other = await givenAccount()
})

const make = (body: Record<string, unknown> = {}, { headers = {}, as = user } = {}) =>
  call(app, 'POST /api/api-keys', { token: as.token, body: { name: 'CI', ...body }, headers })
const list = (query = '', as = user) => call(app, `GET /api/api-keys${query}`, { token: as.token })
const revoke = (id: string, as = user) => call(app, `DELETE /api/api-keys/${id}`, { token: as.token })
const rotate = (id: string, body: unknown = {}, { headers = {}, as = user } = {}) =>
  call(app, `POST /api/api-keys/${id}/rotate`, { token: as.token, body, headers })
const profile = (key: string) => call(app, 'GET /api/user/profile', { token: key })
const rowOf = (id: string) => db().selectFrom('api_keys').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
const auditOf = (id: string) =>
  db().selectFrom('audit_log').selectAll().where('target_id', '=', id).orderBy('id').execute()
const expire = (id: string) =>
  db().updateTable('api_keys').set({ expires_at: sql<Date>`now()` }).where('id', '=', id).execute()

describe('POST /api/api-keys', () => {
  test('makes a key that may do everything, for ever, and shows it', async () => {
    const { status, json } = await make()
    expect(status).toBe(201)
    expect(json).toEqual({
      id: UUID,
      name: 'CI',
      key: expect.stringMatching(/^fox_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}$/),
      keyPrefix: json.key.split('_')[1],
      scopes: ['generate', 'read'],
      expiresAt: null,
      tokenBudget: null,
      tokensUsed: 0,
      requestsPerMinute: null,
      active: true,
      createdAt: TIME,
      lastUsedAt: null,
      revokedAt: null,
      rotatedTo: null,
    })
    expect(await rowOf(json.id)).toMatchObject({ user_id: user.id, key_hash: hashOfKey(json.key), active: true })
  })

  test('makes it as narrow as it is asked to be', async () => {
    const expiresAt = new Date(Date.now() + DAY_MS).toISOString()
    const terms = { name: ' Print shop ', expiresAt, scopes: ['read'], tokenBudget: 500, requestsPerMinute: 7 }
    const { status, json } = await make(terms)
    expect(status).toBe(201)
    expect(json).toMatchObject({ ...terms, name: 'Print shop' })
  })

  test('is on record, without the key', async () => {
    const { json } = await make({ scopes: ['generate'], tokenBudget: 5, requestsPerMinute: 6 })
    const records = await auditOf(json.id)
    expect(records).toMatchObject([
      {
        actor_type: 'user',
        actor_id: user.id,
        action: 'api_key.create',
        target_type: 'api_key',
        details: { scopes: ['generate'], expiresAt: null, tokenBudget: 5, requestsPerMinute: 6 },
      },
    ])
    expect(JSON.stringify(records)).not.toMatch(/fox_|CI/)
  })

  test.each([
    ['no name', { name: undefined }, 'name'],
    ['a name of spaces', { name: '  ' }, 'name'],
    ['a name of 101 characters', { name: 'x'.repeat(101) }, 'name'],
    ['a scope that does not exist', { scopes: ['admin'] }, 'scopes.0'],
    ['no scope', { scopes: [] }, 'scopes'],
    ['a scope twice', { scopes: ['read', 'read'] }, 'scopes'],
    ['an end in the past', { expiresAt: '2020-01-01T00:00:00Z' }, 'expiresAt'],
    ['an end that has just been', { expiresAt: new Date(Date.now() - 1000).toISOString() }, 'expiresAt'],
    ['an end in eleven years', { expiresAt: new Date(Date.now() + 11 * 366 * DAY_MS).toISOString() }, 'expiresAt'],
    ['an end without a zone', { expiresAt: '2035-01-01T00:00:00' }, 'expiresAt'],
    ['a budget of nothing', { tokenBudget: 0 }, 'tokenBudget'],
    ['a budget of one token and a half', { tokenBudget: 1.5 }, 'tokenBudget'],
    ['a budget beyond all bounds', { tokenBudget: 1_000_000_001 }, 'tokenBudget'],
    ['no requests', { requestsPerMinute: 0 }, 'requestsPerMinute'],
    ['too many requests', { requestsPerMinute: 100_001 }, 'requestsPerMinute'],
    ['an owner', { userId: NOBODYS }, 'userId'],
    ['tokens used', { tokensUsed: 0 }, 'tokensUsed'],
  ])('refuses %s', async (_, body, path) => {
    const { status, json } = await make(body)
    expect(status).toBe(400)
    expect(json.error).toMatchObject({ code: 'VALIDATION_FAILED', details: { issues: [{ path }] } })
    expect((await list()).json.data).toEqual([])
  })

  test('takes an end almost ten years away, and the largest numbers', async () => {
    const expiresAt = new Date(Date.now() + 10 * 365 * DAY_MS).toISOString()
    const terms = { name: 'x'.repeat(100), expiresAt, tokenBudget: 1_000_000_000, requestsPerMinute: 100_000 }
    expect((await make(terms)).json).toMatchObject(terms)
  })

  test('gives nobody more living keys than the limit, whoever else has them', async () => {
    for (const each of [1, 2, 3, 4]) expect((await make({ name: `${each}` })).status).toBe(201)
    const { status, json } = await make()
    expect(status).toBe(409)
    expect(json.error).toMatchObject({ code: 'CONFLICT', details: { perUserMax: 4 } })
    expect((await make({}, { as: other })).status).toBe(201)
    const [first, second] = (await list()).json.data
    await revoke(first.id)
    await expire(second.id)
    expect((await make()).status).toBe(201)
    expect((await make()).status).toBe(201)
    expect((await make()).status).toBe(409)
  })
})

describe('GET /api/api-keys', () => {
  test('gives the caller’s keys page by page, the newest first, living and ended, and never a key', async () => {
    const made = []
    for (const name of ['one', 'two', 'three']) made.push((await make({ name })).json)
    await make({}, { as: other })
    await revoke(made[1].id)
    await expire(made[0].id)
    const first = await list('?limit=2')
    expect(first.json).toMatchObject({
      data: [
        { id: made[2].id, name: 'three', active: true, revokedAt: null },
        { id: made[1].id, name: 'two', active: false, revokedAt: TIME },
      ],
      page: { hasMore: true, nextCursor: expect.any(String) },
    })
    const second = await list(`?limit=2&cursor=${first.json.page.nextCursor}`)
    expect(second.json).toMatchObject({
      data: [{ id: made[0].id, name: 'one', active: false, revokedAt: null }],
      page: { hasMore: false, nextCursor: null },
    })
    const { key: _, ...shown } = made[2]
    expect(first.json.data[0]).toEqual(shown)
    const text = first.bytes.toString() + second.bytes.toString()
    expect(text).not.toMatch(/fox_|"key"|hash/i)
    for (const { key } of made) expect(text).not.toContain(hashOfKey(key))
  })

  test.each(['?limit=0', '?limit=101', '?cursor=nonsense', '?userId=1'])('refuses %s', async (query) => {
    expect((await list(query)).status).toBe(400)
  })
})

describe('DELETE /api/api-keys/:id', () => {
  test('ends the key at once, and again is ending it once', async () => {
    const { json } = await make()
    expect((await profile(json.key)).status).toBe(200)
    expect((await revoke(json.id)).status).toBe(204)
    const { status, json: refusal } = await profile(json.key)
    expect(status).toBe(401)
    expect(refusal.error).toMatchObject({
      code: 'UNAUTHENTICATED',
      message: 'This API key was revoked.',
      details: { reason: 'revoked' },
    })
    const row = await rowOf(json.id)
    expect(row).toMatchObject({ active: false, revoked_reason: 'revoked' })
    expect((await revoke(json.id)).status).toBe(204)
    expect(await rowOf(json.id)).toEqual(row)
    const records = await auditOf(json.id)
    expect(records.map(({ action }) => action)).toEqual(['api_key.create', 'api_key.revoke'])
    expect(records[1]).toMatchObject({ actor_id: user.id, details: { scopes: ['generate', 'read'] } })
  })

  test('knows no key but the caller’s own', async () => {
    const { json } = await make()
    for (const reply of [await revoke(json.id, other), await revoke(NOBODYS), await revoke('x')]) {
      expect(reply).toMatchObject({ status: 404, json: { error: { code: 'NOT_FOUND' } } })
    }
    expect((await profile(json.key)).status).toBe(200)
  })
})

describe('POST /api/api-keys/:id/rotate', () => {
  const TERMS = {
    name: 'Shop',
    scopes: ['read'],
    tokenBudget: 300,
    requestsPerMinute: 50,
    expiresAt: '2030-05-01T12:00:00.000Z',
  }

  test('gives a new key on the same terms, and the old one ends', async () => {
    const { json: old } = await make(TERMS)
    const { status, json } = await rotate(old.id)
    expect(status).toBe(201)
    expect(json).toMatchObject({ ...TERMS, active: true, tokensUsed: 0, rotatedTo: null })
    expect([json.id, json.key, json.keyPrefix]).not.toEqual([old.id, old.key, old.keyPrefix])
    expect((await profile(json.key)).status).toBe(200)
    expect((await profile(old.key)).json.error).toMatchObject({
      code: 'UNAUTHENTICATED',
      message: 'This API key has expired.',
      details: { reason: 'expired' },
    })
    expect((await list()).json.data).toMatchObject([
      { id: json.id, active: true },
      { id: old.id, active: false, rotatedTo: json.id, revokedAt: null, tokenBudget: 0 },
    ])
    expect((await auditOf(old.id)).at(-1)).toMatchObject({
      action: 'api_key.rotate',
      actor_id: user.id,
      details: { successorId: json.id, overlapSeconds: 0, scopes: ['read'], tokenBudget: 300 },
    })
  })

  test('leaves the old key its overlap, but never beyond its own end', async () => {
    const soon = new Date(Date.now() + DAY_MS).toISOString()
    const [{ json: endless }, { json: ending }] = [await make(), await make({ expiresAt: soon })]
    const [a, b] = [
      await rotate(endless.id, { overlapSeconds: 3600 }),
      await rotate(ending.id, { overlapSeconds: 2_592_000 }),
    ]
    expect([a.status, b.status]).toEqual([201, 201])
    for (const { key } of [endless, ending, a.json, b.json]) expect((await profile(key)).status).toBe(200)
    const { expires_at } = await rowOf(endless.id)
    expect(Math.abs(Number(expires_at) - Date.now() - 3_600_000)).toBeLessThan(30_000)
    expect((await rowOf(ending.id)).expires_at?.toISOString()).toBe(soon)
    expect([a.json.expiresAt, b.json.expiresAt], 'the new keys have the ends of the old ones').toEqual([null, soon])
  })

  test('is refused for a key that has ended, or was replaced before', async () => {
    const [{ json: revoked }, { json: expired }, { json: replaced }] = [await make(), await make(), await make()]
    await revoke(revoked.id)
    await expire(expired.id)
    await rotate(replaced.id, { overlapSeconds: 60 })
    for (const { id } of [revoked, expired, replaced]) {
      expect(await rotate(id), id).toMatchObject({ status: 409, json: { error: { code: 'CONFLICT' } } })
    }
    expect((await list()).json.data).toHaveLength(4)
  })

  test('knows no key but the caller’s own', async () => {
    const { json } = await make()
    for (const reply of [await rotate(json.id, {}, { as: other }), await rotate(NOBODYS), await rotate('x')]) {
      expect(reply).toMatchObject({ status: 404, json: { error: { code: 'NOT_FOUND' } } })
    }
  })

  test.each([{ overlapSeconds: -1 }, { overlapSeconds: 2_592_001 }, { overlapSeconds: 1.5 }, { scopes: ['read'] }])(
    'refuses %j',
    async (body) => {
      const { json } = await make()
      expect((await rotate(json.id, body)).json.error.code).toBe('VALIDATION_FAILED')
    },
  )

  test('needs room for two keys while both live, and none without an overlap', async () => {
    const ids: string[] = []
    for (const name of ['1', '2', '3', '4']) ids.push((await make({ name })).json.id)
    expect((await rotate(ids[0] ?? '', { overlapSeconds: 1 })).status).toBe(409)
    expect((await rotate(ids[0] ?? '')).status).toBe(201)
  })
})

describe('a key that is shown once', () => {
  test('is shown again to the repeat of the same request, and to nothing else', async () => {
    const headers = { 'idempotency-key': 'make-one' }
    const first = await make({}, { headers })
    const again = await make({}, { headers })
    expect(again.bytes).toEqual(first.bytes)
    expect([again.status, again.headers.get('idempotent-replayed')]).toEqual([201, 'true'])
    expect((await make({ name: 'other' }, { headers })).json.error.code).toBe('IDEMPOTENCY_KEY_REUSED')
    expect((await make({}, { headers, as: other })).json.id, 'another’s request is their own').not.toBe(first.json.id)
    expect((await list()).json.data).toHaveLength(1)
    const rotated = await rotate(first.json.id, {}, { headers })
    expect((await rotate(first.json.id, {}, { headers })).json).toEqual(rotated.json)
    expect((await list()).json.data).toHaveLength(2)
  })

  test('stands in no column of any table', async () => {
    const headers = { 'idempotency-key': 'look-everywhere' }
    const [made, madeAgain] = [await make({}, { headers }), await make({}, { headers })]
    const rotated = await rotate(made.json.id, { overlapSeconds: 60 }, { headers })
    const rotatedAgain = await rotate(made.json.id, { overlapSeconds: 60 }, { headers })
    expect([madeAgain.json.key, rotatedAgain.json.key]).toEqual([made.json.key, rotated.json.key])
    await profile(made.json.key)
    for (const { key, keyPrefix } of [made.json, rotated.json]) {
      expect(await columnsWith(keyPrefix), 'what is public is found').toEqual(['api_keys.key_prefix'])
      for (const part of [key, key.split('_')[2], key.slice(-20)]) expect(await columnsWith(part)).toEqual([])
    }
  })

  test('cannot be read when its answer is moved to another request', async () => {
    const [a, b] = ['a', 'b'].map((key) => ({ headers: { 'idempotency-key': key } }))
    const [made, refused] = [await make({}, a), await make({}, b)]
    await sql`
      update idempotency_keys set body = (select body from idempotency_keys where user_id = ${user.id} and key = 'a')
        where user_id = ${user.id} and key = 'b'
    `.execute(db())
    const { status, json } = await make({}, b)
    expect(status).toBe(409)
    expect(json.error).toMatchObject({ code: 'CONFLICT', details: { receipt: { apiKeyId: refused.json.id } } })
    expect((await make({}, a)).json).toEqual(made.json)
  })

  test('is not made twice when the answer was lost: the receipt says which it was', async () => {
    const headers = { 'idempotency-key': 'lost' }
    const { json } = await make({}, { headers })
    await sql`
      update idempotency_keys set status = null, headers = null, body = null, body_expires_at = null, locked_until = now()
        where user_id = ${user.id}
    `.execute(db())
    const repeat = await make({}, { headers })
    expect(repeat.status).toBe(409)
    expect(repeat.json.error.details).toEqual({ receipt: { apiKeyId: json.id } })
    expect((await list()).json.data).toHaveLength(1)
  })
})

describe('a request with a key', () => {
  const RECENTLY = 5_000

  test.each([
    ['Authorization: Bearer', (key: string) => ({ token: key })],
    ['X-API-Key', (key: string) => ({ headers: { 'x-api-key': key } })],
  ])('is its owner’s: %s', async (_, proof) => {
    const { json } = await make()
    const { status, json: found } = await call(app, 'GET /api/user/profile', proof(json.key))
    expect(status).toBe(200)
    expect(found).toMatchObject({ id: user.id, email: user.email })
  })

  test('notes its use, at most once a minute', async () => {
    const { json } = await make()
    const lastUsed = async () => Number((await rowOf(json.id)).last_used_at)
    const usedBefore = async (seconds: number) => {
      const time = sql<Date>`now() - make_interval(secs => ${seconds})`
      await db().updateTable('api_keys').set({ last_used_at: time }).where('id', '=', json.id).execute()
      await profile(json.key)
      return Date.now() - (await lastUsed())
    }
    expect(await lastUsed()).toBe(0)
    await profile(json.key)
    expect(Date.now() - (await lastUsed())).toBeLessThan(RECENTLY)
    expect(await usedBefore(50), 'used 50 seconds ago').toBeGreaterThan(49_000)
    expect(await usedBefore(61), 'used 61 seconds ago').toBeLessThan(RECENTLY)
    expect((await list()).json.data[0].lastUsedAt).toEqual(TIME)
  })

  test('notes nothing when it is refused', async () => {
    const keys = [(await make()).json, (await make()).json, (await make()).json]
    await revoke(keys[0].id)
    await expire(keys[1].id)
    expect((await profile(keys[0].key)).status).toBe(401)
    expect((await profile(keys[1].key)).status).toBe(401)
    await suspend(user.id)
    expect((await profile(keys[2].key)).status).toBe(403)
    for (const { id } of keys) expect((await rowOf(id)).last_used_at).toBeNull()
  })

  test('is refused with one message for whatever is not a key of anybody’s', async () => {
    const { json } = await make()
    const typo = json.key.slice(0, -1) + (json.key.endsWith('0') ? '1' : '0')
    const gone = await make({}, { as: other })
    await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', other.id).execute()
    for (const key of [typo, newKey('fox').key, newKey('key').key, gone.json.key, 'fox_00000000_']) {
      for (const proof of [{ token: key }, { headers: { 'x-api-key': key } }] satisfies CallOptions[]) {
        const { status, json: refusal } = await call(app, 'GET /api/user/profile', proof)
        expect(status).toBe(401)
        expect(refusal.error).toMatchObject({
          code: 'UNAUTHENTICATED',
          message: 'This API key is not valid.',
          details: {},
        })
      }
    }
  })

  test('is refused as soon as the owner is suspended, and passes when they are back', async () => {
    const { json } = await make()
    await suspend(user.id)
    for (const what of ['GET /api/user/profile', 'POST /api/process-image', 'GET /api/billing/status']) {
      const reply = await call(app, what, { token: json.key })
      expect(reply, what).toMatchObject({ status: 403, json: { error: { code: 'ACCOUNT_SUSPENDED' } } })
    }
    await db().updateTable('users').set({ status: 'active' }).where('id', '=', user.id).execute()
    expect((await profile(json.key)).status).toBe(200)
  })

  test('passes under an older tag', async () => {
    const { key, keyPrefix, hash } = newKey('older')
    const row = { user_id: user.id, key_hash: hash, key_prefix: keyPrefix, name: 'old', scopes: ['read' as const] }
    await db().insertInto('api_keys').values(row).execute()
    expect((await profile(key)).json.id).toBe(user.id)
  })

  test('may do what its scopes say', async () => {
    const [{ json: reading }, { json: generating }] = [
      await make({ scopes: ['read'] }),
      await make({ scopes: ['generate'] }),
    ]
    expect((await profile(reading.key)).status).toBe(200)
    expect((await profile(generating.key)).json.error).toMatchObject({ code: 'FORBIDDEN', details: { scope: 'read' } })
    const image = (key: string) => processImage(app, { ...user, token: key, password: '' })
    expect((await image(reading.key)).json.error).toMatchObject({ code: 'FORBIDDEN', details: { scope: 'generate' } })
    expect((await image(generating.key)).status).toBe(200)
  })

  test.each([
    ['GET /api/api-keys', 403],
    ['POST /api/api-keys', 403],
    [`DELETE /api/api-keys/${NOBODYS}`, 403],
    [`POST /api/api-keys/${NOBODYS}/rotate`, 403],
    ['PUT /api/user/profile', 403],
    ['POST /api/billing/checkout', 403],
    ['GET /api/auth/sessions', 403],
    ['GET /api/admin/orders', 404],
    ['GET /api/admin/revenue', 404],
  ])('may not do what is for people: %s', async (what, status) => {
    const admin = await givenAccount({ role: 'admin' })
    const { json } = await make({}, { as: admin })
    const reply = await call(app, what, { token: json.key, ...(!what.startsWith('GET') && { body: { name: 'x' } }) })
    expect(reply.status).toBe(status)
    expect(reply.json.error.code).toBe(status === 403 ? 'FORBIDDEN' : 'NOT_FOUND')
  })

  test('is not an admin’s, even where admins only see more', async () => {
    const admin = await givenAccount({ role: 'admin' })
    const { json } = await make({}, { as: admin })
    const checks = async (token: string) => (await call(app, 'GET /api/health/ready', { token })).json.checks
    expect((await checks(admin.token)).database.details).toBeDefined()
    expect((await checks(json.key)).database.details).toBeUndefined()
  })

  test('counts in the key’s own window on every limited route', async () => {
    const { json } = await make({ requestsPerMinute: 2 })
    const first = await profile(json.key)
    expect(first.headers.get('ratelimit-policy')).toContain('"key";q=2;w=60')
    expect(first.headers.get('ratelimit')).toContain('"key";r=1;t=')
    expect((await call(app, 'GET /api/user/usage', { token: json.key })).status).toBe(200)
    const refused = await processImage(app, { ...user, token: json.key, password: '' })
    expect(refused).toMatchObject({ status: 429, json: { error: { code: 'RATE_LIMITED' } } })
    expect((await call(app, 'GET /api/user/profile', { token: user.token })).status, 'the owner goes on').toBe(200)
  })
})

describe('an account that may not act', () => {
  const TERMS = { name: 'late', scopes: ['read'] } as const
  const create = (userId: string) =>
    db()
      .transaction()
      .execute((trx) => createKey(trx, userId, TERMS, { actor: { type: 'user', id: userId } }))

  test('gets no key, even from a request that was let in before', async () => {
    await suspend(user.id)
    await expect(create(user.id)).rejects.toMatchObject({ code: 'ACCOUNT_SUSPENDED' })
    await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', other.id).execute()
    await expect(create(other.id)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' })
    await expect(create(NOBODYS)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' })
  })
})

/** The columns of this database that hold the text anywhere, be it inside JSON or bytes. */
async function columnsWith(text: string): Promise<string[]> {
  const { rows: columns } = await sql<{ table: string; column: string; type: string }>`
    select table_name as table, column_name as column, data_type as type from information_schema.columns
      join information_schema.tables using (table_schema, table_name)
      where table_schema = 'public' and table_type = 'BASE TABLE'
  `.execute(db())
  expect(columns.length).toBeGreaterThan(100)
  const held = await Promise.all(
    columns.map(async ({ table, column, type }) => {
      const [where, what] = [sql.ref(column), sql`${text}::text`]
      const holds =
        type === 'bytea'
          ? sql`position(convert_to(${what}, 'UTF8') in ${where})`
          : sql`position(${what} in ${where}::text)`
      const { rows } = await sql`select 1 from ${sql.table(table)} where ${holds} > 0 limit 1`.execute(db())
      return rows.length > 0 ? [`${table}.${column}`] : []
    }),
  )
  return held.flat()
}
