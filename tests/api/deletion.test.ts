// Deleting one's own account: what ends at once, what is free again, and what the sweep forgets when the grace is over.
import { sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { seedAdmin } from '../../lib/auth/accounts.ts'
import { type App, balanceOf, call, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { ledgerViolations } from '../support/money.ts'

const CRON_SECRET = 'the-secret-of-the-scheduler'
const ADMIN = { email: 'root@example.com', password: 'a password for the admin' }

let app: App
let user: TestUser

beforeAll(async () => {
  app = await startApp({ CRON_SECRET, ADMIN_EMAIL: ADMIN.email, ADMIN_PASSWORD: ADMIN.password })
  await seedAdmin()
})

beforeEach(async () => {
  user = await givenUser(app)
})

const deleteSelf = (token = user.token) => call(app, 'DELETE /api/user/profile', { token })
const sweep = async () => (await call(app, 'POST /api/jobs/sweep', { token: CRON_SECRET })).json
const rowOf = () => db().selectFrom('users').selectAll().where('id', '=', user.id).executeTakeFirstOrThrow()
const graceIsOver = () =>
  db().updateTable('users').set({ purge_after: sql`now() - interval '1 second'` }).where('id', '=', user.id).execute()

describe('DELETE /api/user/profile', () => {
  test('ends the token, the session and the password at once, and says when the data goes', async () => {
    const { status, json } = await deleteSelf()
    expect(status).toBe(200)
    const { deleted_at, purge_after } = await rowOf()
    expect(json).toEqual({ status: 'deleted', purgeAfter: purge_after?.toISOString() })
    expect((purge_after?.getTime() ?? 0) - (deleted_at?.getTime() ?? 0)).toBe(30 * 86_400_000)

    const refused = { status: 401, json: { error: { code: 'UNAUTHENTICATED' } } }
    expect(await deleteSelf()).toMatchObject(refused)
    expect(await call(app, 'GET /api/user/profile', { token: user.token })).toMatchObject(refused)
    expect(await processImage(app, user)).toMatchObject(refused)
    const refresh = { body: { refreshToken: user.refreshToken } }
    expect(await call(app, 'POST /api/auth/refresh', refresh)).toMatchObject(refused)
    const { email, password } = user
    expect(await call(app, 'POST /api/auth/login', { body: { email, password } })).toMatchObject(refused)
  })

  test('is on record as the act of the user', async () => {
    await call(app, 'DELETE /api/user/profile', { token: user.token, ip: '203.0.113.7' })
    const acts = await db()
      .selectFrom('audit_log')
      .selectAll()
      .where('target_id', '=', user.id)
      .where('action', '=', 'user.delete')
      .execute()
    expect(acts).toMatchObject([
      {
        actor_type: 'user',
        actor_id: user.id,
        before: { status: 'active' },
        after: { status: 'deleted' },
        details: { graceDays: 30 },
        ip: '203.0.113.7',
      },
    ])
  })

  test('frees the address at once, for an account that gets no second trial', async () => {
    await deleteSelf()
    const again = { name: 'Ada', email: user.email, password: 'another horse battery staple' }
    const { status, json } = await call(app, 'POST /api/auth/register', { body: again })
    expect(status).toBe(201)
    expect(json.user.id).not.toBe(user.id)
    const next: TestUser = { ...user, id: json.user.id, token: json.accessToken }
    expect(await balanceOf(app, next)).toMatchObject({ trialGenerations: 0, planTokens: 1000 })
    expect((await call(app, 'GET /api/user/profile', { token: user.token })).status).toBe(401)
    expect(await ledgerViolations()).toEqual([])
  })

  test('asked for many times at once is one deletion', async () => {
    const replies = await Promise.all(Array.from({ length: 8 }, () => deleteSelf()))
    const answers = replies.filter(({ status }) => status === 200).map(({ json }) => json.purgeAfter)
    expect(answers.length).toBeGreaterThan(0)
    expect(new Set(answers).size).toBe(1)
    expect(replies.every(({ status }) => status === 200 || status === 401)).toBe(true)
    const acts = db().selectFrom('audit_log').select('id').where('action', '=', 'user.delete')
    expect(await acts.where('target_id', '=', user.id).execute()).toHaveLength(1)
  })

  test('is refused to the last administrator', async () => {
    const { json } = await call(app, 'POST /api/auth/login', { body: ADMIN })
    const reply = await deleteSelf(json.accessToken)
    expect(reply.status).toBe(409)
    expect(reply.json.error).toMatchObject({ code: 'CONFLICT', message: expect.stringContaining('last administrator') })
    expect((await call(app, 'GET /api/user/profile', { token: json.accessToken })).status).toBe(200)
  })

  test('needs somebody signed in', async () => {
    expect((await call(app, 'DELETE /api/user/profile')).status).toBe(401)
  })
})

describe('the purge', () => {
  test('waits for the grace', async () => {
    await deleteSelf()
    expect(await sweep()).toMatchObject({ accountsPurged: 0 })
    expect(await rowOf()).toMatchObject({ name: 'Ada', purged_at: null })
    await graceIsOver()
    expect(await sweep()).toMatchObject({ accountsPurged: 1, purgesPostponed: 0 })
    expect(await sweep()).toMatchObject({ accountsPurged: 0, purgesPostponed: 0 })
  })

  test('leaves no word of the person in any column of any table, and the books as they were', async () => {
    const name = `Zaphod${crypto.randomUUID().slice(0, 8)}`
    user = await givenUser(app, name)
    const headers = { 'idempotency-key': crypto.randomUUID() }
    await call(app, 'PUT /api/user/profile', { token: user.token, body: { preferences: { nickname: `the ${name}` } } })
    expect((await processImage(app, user, { headers })).status).toBe(200)
    await db()
      .insertInto('idempotency_keys')
      .values({
        user_id: user.id,
        scope: 'POST /api/x',
        key: name,
        fingerprint: 'f'.repeat(64),
        status: 200,
        body: Buffer.from(JSON.stringify({ name })),
        expires_at: sql`now() + interval '1 day'`,
      })
      .execute()
    await db()
      .insertInto('email_tokens')
      .values({ token_hash: name, user_id: user.id, purpose: 'change', email: user.email, expires_at: sql`now()` })
      .execute()
    await db().insertInto('mfa_factors').values({ user_id: user.id, secret: name, confirmed_at: sql`now()` }).execute()
    await db().insertInto('mfa_recovery_codes').values({ user_id: user.id, code_hash: name }).execute()
    const key = { user_id: user.id, key_hash: name, key_prefix: 'abcdefgh', name: `Key of ${name}` }
    await db()
      .insertInto('api_keys')
      .values({ ...key, scopes: ['read'] })
      .execute()
    const words = [name, user.email]
    expect(await tablesWith(words)).toEqual(
      expect.arrayContaining([
        'users',
        'api_keys',
        'email_tokens',
        'idempotency_keys',
        'mfa_factors',
        'mfa_recovery_codes',
      ]),
    )

    const books = async () =>
      await Promise.all(
        (['ledger_lot', 'ledger_entry', 'ledger_hold', 'usage_logs', 'subscriptions'] as const).map(async (table) => {
          const { rows } = await sql`select * from ${sql.table(table)} where user_id = ${user.id} order by 1`.execute(
            db(),
          )
          return rows
        }),
      )
    const before = await books()
    expect(before.every((rows) => rows.length > 0)).toBe(true)
    await deleteSelf()
    await graceIsOver()
    expect(await sweep()).toMatchObject({ accountsPurged: 1 })

    expect(await tablesWith(words)).toEqual([])
    expect(await books()).toEqual(before)
    expect(await rowOf()).toMatchObject({
      name: 'Deleted user',
      email: `deleted-${user.id}@deleted.invalid`,
      password_hash: null,
      preferences: {},
      clerk_id: null,
      signup_network: null,
      email_verified_at: null,
      status: 'deleted',
      purged_at: expect.any(Date),
    })
    const acts = db().selectFrom('audit_log').select(['actor_type', 'action']).where('target_id', '=', user.id)
    expect(await acts.orderBy('id', 'desc').limit(1).execute()).toEqual([
      { actor_type: 'system', action: 'user.purge' },
    ])
    expect(await ledgerViolations()).toEqual([])
  })

  /**
   * Tables with a row that holds one of the words, as text or as bytes. Left out is what Polar wrote: it keeps the buyer's name and
   * address by law, and its events are kept as they came.
   */
  async function tablesWith(words: string[]): Promise<string[]> {
    const { rows } = await sql<{ name: string }>`
      select table_name as name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'
        and table_name not in ('webhook_events', 'billing_cursors')`.execute(db())
    expect(rows.length).toBeGreaterThan(20)
    const found: string[] = []
    for (const { name } of rows) {
      for (const word of words) {
        const hex = Buffer.from(word).toString('hex')
        const { rows: hits } = await sql`
          select 1 from ${sql.table(name)} t
            where strpos(lower(t::text), ${word.toLowerCase()}) > 0 or strpos(t::text, ${hex}) > 0 limit 1`.execute(
          db(),
        )
        if (hits.length > 0 && !found.includes(name)) found.push(name)
      }
    }
    return found
  }
})
