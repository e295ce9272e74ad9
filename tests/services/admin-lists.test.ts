// What administrators look at, read directly on real PostgreSQL: users, one user, what speaks against them, and the audit log.
import { sql } from 'kysely'
import * as v from 'valibot'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { AuditQuery, listAudit } from '../../lib/admin/audit-list.ts'
import { riskOf } from '../../lib/admin/risk.ts'
import { listUsers, UsersQuery, userDetails } from '../../lib/admin/users.ts'
import { type AuditEvent, recordAudit } from '../../lib/audit.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { hashSubject } from '../../lib/auth/throttle.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { fullEvent } from '../support/audit-events.ts'
import { givenDispute, givenOrder, givenUsage } from '../support/billing-rows.ts'

const AT = '2026-03-01T00:00:00.000Z'

let word: string
let userId: string

beforeAll(async () => {
  await startApp()
})

beforeEach(async () => {
  word = `w${crypto.randomUUID().slice(0, 12)}`
  userId = await given(word)
})

async function given(name: string, changes: { role?: 'admin'; status?: 'suspended'; created_at?: string } = {}) {
  const email = `${crypto.randomUUID()}@example.com`
  const id = await db()
    .transaction()
    .execute((trx) => createUser(trx, { name, email, role: 'user' }))
  if (Object.keys(changes).length > 0) await db().updateTable('users').set(changes).where('id', '=', id).execute()
  return id
}

const emailOf = async (id: string) =>
  (await db().selectFrom('users').select('email').where('id', '=', id).executeTakeFirstOrThrow()).email
const users = async (query: Record<string, string>) => await listUsers(db(), v.parse(UsersQuery, query))
const found = async (query: Record<string, string>) => (await users(query)).data.map(({ id }) => id)
const audit = async (query: Record<string, string>) => await listAudit(db(), v.parse(AuditQuery, query))
const actions = async (query: Record<string, string>) => (await audit(query)).data.map(({ action }) => action)
const cursorAt = (position: string) => Buffer.from(position).toString('base64url')

/** Every row of a list, page by page, and the sizes of the pages. */
async function walk<T>(
  list: (
    query: Record<string, string>,
  ) => Promise<{ data: T[]; page: { nextCursor: string | null; hasMore: boolean } }>,
  query: Record<string, string>,
) {
  const [all, sizes]: [T[], number[]] = [[], []]
  for (let cursor: string | null = ''; cursor !== null; ) {
    const { data, page } = await list({ ...query, ...(cursor && { cursor }) })
    expect(page.hasMore).toBe(page.nextCursor !== null)
    all.push(...data)
    sizes.push(data.length)
    cursor = page.nextCursor
  }
  return { all, sizes }
}

describe('the list of users', () => {
  test('shows who they are, what they have, and when they were last seen', async () => {
    await db()
      .insertInto('api_keys')
      .values({
        ...{ user_id: userId, key_hash: word, key_prefix: 'abcdefgh', name: 'ci', scopes: ['read'], last_used_at: AT },
      })
      .execute()
    const seen = async () => (await users({ query: userId })).data[0]?.lastSeenAt
    expect(await users({ query: userId })).toEqual({
      data: [
        {
          ...{ id: userId, name: word, email: await emailOf(userId), role: 'user', status: 'active', plan: 'free' },
          ...{ tokens: 1000, createdAt: expect.any(Date), lastSeenAt: new Date(AT) },
        },
      ],
      page: { nextCursor: null, hasMore: false },
    })
    await givenUsage(userId, [{ at: '2026-03-02T00:00:00Z', tokens: 0 }])
    expect(await seen()).toEqual(new Date('2026-03-02T00:00:00Z'))
    expect((await users({ query: await given('x') })).data[0]?.lastSeenAt).toBeNull()
  })

  test('is searched for a part of the name or address in any case, for wildcards as they are, or for a whole id', async () => {
    const odd = await given(`${word}_%\\two`)
    expect(await found({ query: word.toUpperCase() })).toEqual([odd, userId])
    expect(await found({ query: (await emailOf(userId)).slice(3, -3) })).toEqual([userId])
    for (const query of [`${word}_`, '_%\\two', '%\\', `  ${word}_%  `]) expect(await found({ query })).toEqual([odd])
    for (const query of [`${word}%`, `%${word}`, userId.slice(0, -1), `x${userId}`, `${userId}x`])
      expect(await found({ query }), query).toEqual([])
    expect(await found({ query: userId.toUpperCase() })).toEqual([userId])
  })

  test('is filtered by status, role and plan', async () => {
    const [suspended, boss] = [await given(word, { status: 'suspended' }), await given(word, { role: 'admin' })]
    const pro = await given(word)
    await db().updateTable('subscriptions').set({ plan: 'pro' }).where('user_id', '=', pro).execute()
    expect(await found({ query: word, status: 'suspended' })).toEqual([suspended])
    expect(await found({ query: word, status: 'deleted' })).toEqual([])
    expect(await found({ query: word, role: 'admin' })).toEqual([boss])
    expect(await found({ query: word, plan: 'pro' })).toEqual([pro])
    expect(await found({ query: word, status: 'active', role: 'user', plan: 'free' })).toEqual([userId])
    expect(await found({ role: 'admin' })).toEqual([boss])
  })

  test('is walked page by page, the newest first, each user once', async () => {
    const name = `walk-${word}`
    const ids: string[] = []
    for (let n = 0; n < 5; n += 1) ids.push(await given(name, { created_at: n < 3 ? AT : `2026-03-02T00:00:0${n}Z` }))
    const order = [ids[4], ids[3], ...ids.slice(0, 3).sort().reverse()]
    for (const [limit, sizes] of [
      ['1', [1, 1, 1, 1, 1]],
      ['2', [2, 2, 1]],
      ['5', [5]],
    ] as const) {
      const walked = await walk(users, { query: name, limit })
      expect(walked.all.map(({ id }) => id)).toEqual(order)
      expect(walked.sizes).toEqual(sizes)
    }
  })

  test.each([
    { query: ' ' },
    { query: 'x'.repeat(256) },
    { status: 'gone' },
    { role: 'boss' },
    { plan: 'gold' },
    { limit: '0' },
    { cursor: cursorAt('1 no-uuid') },
    { cursor: cursorAt(`1 ${'0'.repeat(8)}-0000-0000-0000-${'0'.repeat(12)}x`) },
    { cursor: cursorAt(`1 x${'0'.repeat(8)}-0000-0000-0000-${'0'.repeat(12)}`) },
    { other: '1' },
  ])('is not asked for %j', (query) => {
    expect(v.safeParse(UsersQuery, query).success).toBe(false)
  })
})

describe('one user', () => {
  test('is shown with all that is known of them', async () => {
    const many = Array.from({ length: 12 }, (_, n) => `2026-03-${String(n + 1).padStart(2, '0')}T00:00:00Z`)
    const orders: string[] = []
    for (const ordered_at of many) orders.push(await givenOrder({ user_id: userId, ordered_at }))
    const changes = { preferences: '{"theme": "dark"}', clerk_id: `user_${word}`, email_verified_at: AT }
    const ends = { status: 'deleted' as const, deleted_at: AT, purge_after: AT, purged_at: AT }
    await db()
      .updateTable('users')
      .set({ ...changes, ...ends })
      .where('id', '=', userId)
      .execute()
    await db().insertInto('plan_gifts').values({ user_id: userId, plan: 'pro', granted_by: userId }).execute()
    const family = crypto.randomUUID()
    const session = { user_id: userId, family_id: family, absolute_expires_at: '2036-01-01' }
    const later = sql<Date>`now() + interval '1 day'`
    const ended = { revoked: true, revoked_at: AT, revoked_reason: 'logout' as const }
    await db()
      .insertInto('refresh_tokens')
      .values([
        { ...session, token_hash: `${word}1`, expires_at: later },
        { ...session, token_hash: `${word}2`, expires_at: later },
        { ...session, token_hash: `${word}3`, family_id: crypto.randomUUID(), expires_at: later, ...ended },
        {
          ...session,
          token_hash: `${word}4`,
          family_id: crypto.randomUUID(),
          created_at: AT,
          expires_at: '2026-03-02',
        },
      ])
      .execute()
    const key = { user_id: userId, key_prefix: 'abcdefgh', scopes: ['read' as const] }
    const [first, second] = await db()
      .insertInto('api_keys')
      .values([
        { ...key, key_hash: `${word}1`, name: 'one', created_at: AT, expires_at: AT, last_used_at: AT },
        {
          ...key,
          key_hash: `${word}2`,
          name: 'two',
          active: false,
          revoked_at: AT,
          revoked_reason: 'revoked' as const,
        },
      ])
      .returning('id')
      .execute()
    const recently = new Date(Date.now() - 29 * 86_400_000).toISOString()
    await givenUsage(userId, [
      { at: recently, tokens: 5 },
      { at: recently, tokens: 0, status: 'error' },
      { at: new Date(Date.now() - 31 * 86_400_000).toISOString(), tokens: 7 },
    ])
    const account = await statementOf(db(), userId)
    const shown = await userDetails(db(), userId)
    expect(shown).toEqual({
      ...{ id: userId, name: word, email: await emailOf(userId), role: 'user', status: 'deleted', plan: account.plan },
      ...{ tokens: account.balance.tokens, createdAt: expect.any(Date), lastSeenAt: expect.any(Date), planGift: 'pro' },
      ...{ preferences: { theme: 'dark' }, clerkId: `user_${word}`, emailVerifiedAt: new Date(AT) },
      ...{ deletedAt: new Date(AT), purgeAfter: new Date(AT), purgedAt: new Date(AT) },
      ...{ account, balance: account.balance, sessions: 1 },
      usage: { total: { calls: 3, succeeded: 2, tokens: 12 }, last30Days: { calls: 2, tokens: 5 } },
      keys: [
        {
          ...{ id: second?.id, name: 'two', keyPrefix: 'abcdefgh', active: false, scopes: ['read'] },
          ...{ createdAt: expect.any(Date), lastUsedAt: null, expiresAt: null, revokedReason: 'revoked' },
        },
        {
          ...{ id: first?.id, name: 'one', keyPrefix: 'abcdefgh', active: true, scopes: ['read'] },
          ...{ createdAt: new Date(AT), lastUsedAt: new Date(AT), expiresAt: new Date(AT), revokedReason: null },
        },
      ],
      orders: expect.any(Array),
      risk: { signals: await riskOf(db(), userId) },
    })
    expect(
      shown.orders.map(({ id }) => id),
      'the last ten',
    ).toEqual(orders.toReversed().slice(0, 10))
  })

  test('who has done nothing yet has used nothing', async () => {
    expect(await userDetails(db(), userId)).toMatchObject({
      ...{ planGift: null, sessions: 0, keys: [], orders: [], lastSeenAt: null, clerkId: null },
      usage: { total: { calls: 0, succeeded: 0, tokens: 0 }, last30Days: { calls: 0, tokens: 0 } },
    })
  })

  test('who is not there is not found', async () => {
    await expect(userDetails(db(), crypto.randomUUID())).rejects.toMatchObject({
      ...{ code: 'NOT_FOUND', message: 'There is no such user.' },
    })
  })
})

describe('what speaks against a user', () => {
  const clean = { email_verified_at: AT, signup_network: null, trial_withheld: null }
  const set = (changes: { email_verified_at?: null; signup_network?: string; trial_withheld?: 'network' }) =>
    db()
      .updateTable('users')
      .set({ ...clean, ...changes })
      .where('id', '=', userId)
      .execute()

  test('is nothing of somebody who did nothing, also on a network of their own, and of nobody', async () => {
    await set({ signup_network: word })
    expect(await riskOf(db(), userId)).toEqual([])
    await givenOrder({ user_id: userId, ordered_at: AT })
    expect(await riskOf(db(), userId), 'of somebody who bought').toEqual([])
    expect(await riskOf(db(), crypto.randomUUID())).toEqual([])
  })

  test('is each fact by itself', async () => {
    await set({ trial_withheld: 'network' })
    expect(await riskOf(db(), userId)).toEqual([{ signal: 'trial_withheld', why: 'network' }])
    await set({ email_verified_at: null })
    expect(await riskOf(db(), userId)).toEqual([{ signal: 'email_unverified' }])
    await set({ signup_network: word })
    const neighbour = await given(word)
    await db().updateTable('users').set({ signup_network: word }).where('id', '=', neighbour).execute()
    expect(await riskOf(db(), userId)).toEqual([{ signal: 'shared_network', accounts: 2 }])
    await set({})
    const failures = { email_hash: hashSubject(await emailOf(userId)), failures: 4 }
    await db().insertInto('sign_in_failures').values(failures).execute()
    expect(await riskOf(db(), userId)).toEqual([{ signal: 'failed_sign_ins', failures: 4 }])
    await sql`delete from sign_in_failures`.execute(db())
    const order = await givenOrder({ user_id: userId, ordered_at: AT, refunded_cents: 200 })
    await givenOrder({ user_id: userId, ordered_at: AT, refunded_cents: 50 })
    expect(await riskOf(db(), userId)).toEqual([{ signal: 'refunds', orders: 2, cents: 250 }])
    await db().updateTable('billing_orders').set({ refunded_cents: 0 }).where('user_id', '=', userId).execute()
    await givenDispute({ order_id: order, status: 'lost', disputed_at: AT })
    await givenDispute({ order_id: order, status: 'won', disputed_at: AT })
    expect(await riskOf(db(), userId)).toEqual([{ signal: 'disputes', disputes: 2, lost: 1 }])
  })

  test('is what they owe', async () => {
    await set({})
    await sql`select ledger_credit(${userId}, 'plan', 70, ${word}, now() - interval '1 hour')`.execute(db())
    await sql`insert into ledger_entry (user_id, op, amount, lot_id)
      select user_id, unnest(array['lapse', 'debt']), 70, id from ledger_lot where source = ${word}`.execute(db())
    expect(await riskOf(db(), userId)).toEqual([{ signal: 'debt', tokens: 70 }])
  })
})

describe('the audit log as it is read', () => {
  const record = async (...events: AuditEvent[]) => {
    for (const event of events) await recordAudit(db(), event)
  }

  test('shows an act with all that is known of it', async () => {
    await record({ ...fullEvent(word), target: { type: 'user', id: userId } })
    const { before, after, details, reason, ip, userAgent, requestId, impersonator, actor } = fullEvent(word)
    expect(await audit({ action: word })).toEqual({
      data: [
        {
          ...{
            id: expect.any(Number),
            seq: expect.any(Number),
            at: expect.any(Date),
            actor,
            impersonator,
            action: word,
          },
          ...{ target: { type: 'user', id: userId }, reason, before, after, details, ip, userAgent, requestId },
        },
      ],
      page: { nextCursor: null, hasMore: false },
    })
    await record({ actor: { type: 'system' }, action: `${word}.bare` })
    expect((await audit({ action: `${word}.bare` })).data).toMatchObject([
      { actor: { type: 'system', id: null }, target: null, before: null, after: null, details: {}, reason: null },
    ])
  })

  test('is filtered by actor, action, target and time', async () => {
    const actor = { type: 'user' as const, id: userId }
    await record({ actor, action: 'one' }, { actor, action: 'two' })
    await record({ actor: { type: 'webhook' }, action: 'three' })
    const { rows } = await sql<{ now: Date }>`select now()`.execute(db())
    const now = rows[0]?.now.toISOString() ?? ''
    await record({ actor, action: 'four' })
    expect(await actions({ actor: userId })).toEqual(['four', 'two', 'one'])
    expect(await actions({ actor: userId, action: 'two' })).toEqual(['two'])
    expect(await actions({ actor: 'webhook' })).toEqual(['three'])
    expect(await actions({ actor: 'api_key' })).toEqual([])
    expect(await actions({ actor: userId, from: now })).toEqual(['four'])
    expect(await actions({ actor: userId, to: now })).toEqual(['two', 'one'])
  })

  test('is filtered by a kind of target, and by one target whatever is in its id', async () => {
    const kind = `kind_${crypto.randomUUID().replaceAll(/[^a-f]/g, '')}`
    const actor = { type: 'system' as const }
    await record({ actor, action: 'one', target: { type: kind, id: 'a:b' } })
    await record({ actor, action: 'two', target: { type: kind, id: 'a' } })
    expect(await actions({ target: kind })).toEqual(['two', 'one'])
    expect(await actions({ target: `${kind}:a:b` })).toEqual(['one'])
    expect(await actions({ target: `${kind}:a` })).toEqual(['two'])
    expect(await actions({ target: `other:a` })).toEqual([])
  })

  test('from a time on, that time included; to a time, that time not', async () => {
    const at = new Date('2026-03-01T12:00:00Z')
    await sql`insert into audit_log (actor_type, action, at) values ('system', ${word}, ${at})`.execute(db())
    const [noon, after] = [at.toISOString(), '2026-03-01T12:00:00.001Z']
    expect(await actions({ action: word, from: noon })).toEqual([word])
    expect(await actions({ action: word, from: after })).toEqual([])
    expect(await actions({ action: word, to: noon })).toEqual([])
    expect(await actions({ action: word, to: after })).toEqual([word])
  })

  test('is walked page by page, the newest first, each act once', async () => {
    await sql`insert into audit_log (actor_type, action, at)
      select 'system', ${word}, timestamptz '2026-01-01' + (n / 3) * interval '1 microsecond'
        from generate_series(1, 7) n`.execute(db())
    const walked = await walk(audit, { action: word, limit: '2' })
    const ids = walked.all.map(({ id }) => id)
    expect(ids).toEqual([...new Set(ids)].sort((one, two) => two - one))
    expect(walked.sizes).toEqual([2, 2, 2, 1])
  })

  test.each([
    { actor: 'me' },
    { action: '' },
    { action: 'x'.repeat(81) },
    { target: 'Tool:1' },
    { target: ':1' },
    { target: 'tool:' },
    { target: `${'x'.repeat(41)}` },
    { target: `tool:${'x'.repeat(81)}` },
    { from: 'yesterday' },
    { to: 'tomorrow' },
    { limit: '0' },
    { cursor: cursorAt('1 abc') },
    { cursor: cursorAt('1 1x') },
    { cursor: cursorAt('1 x1') },
    { cursor: cursorAt(`1 ${'1'.repeat(16)}`) },
    { other: '1' },
  ])('is not asked for %j', (query) => {
    expect(v.safeParse(AuditQuery, query).success).toBe(false)
  })
})
