// Deletions with Clerk and Polar at the other end, on real PostgreSQL: nobody is charged or kept on, and nobody holds up the rest.
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { closeAccount, endCharges } from '../../lib/auth/deletion.ts'
import { purgeAccount, sweepDeletedAccounts } from '../../lib/auth/purge.ts'
import { type ClerkStub, startClerkStub } from '../support/clerk-stub.ts'
import { makeClock } from '../support/clock.ts'
import { type DirectShop, refusal, startDirectShop, subscribed } from '../support/direct-shop.ts'
import { givenAccount } from '../support/ledger-account.ts'
import { ledgerViolations } from '../support/money.ts'
import { OPENED } from '../support/paid-plans.ts'
import { subscriptionRow } from '../support/polar-states.ts'

let clerk: ClerkStub
let shop: DirectShop
let userId: string

beforeAll(async () => {
  clerk = await startClerkStub()
  shop = await startDirectShop(clerk.variables)
  await makeClock(db())
})

afterAll(() => clerk.close())

beforeEach(async () => {
  await db().updateTable('users').set({ purged_at: sql`now()` }).where('status', '=', 'deleted').execute()
  userId = (await givenAccount(OPENED)).userId
  shop.answer = undefined
  clerk.answer = undefined
  clerk.calls.length = 0
  shop.calls.length = 0
})

const by = () => ({ actor: { type: 'user' as const, id: userId } })
const row = (id = userId) => db().selectFrom('users').selectAll().where('id', '=', id).executeTakeFirstOrThrow()

async function atClerk(id = userId): Promise<string> {
  const { id: clerkId } = clerk.addUser()
  await db().updateTable('users').set({ clerk_id: clerkId }).where('id', '=', id).execute()
  return clerkId
}

async function givenDeleted({ ago = '1 day', clerkId = false } = {}): Promise<string> {
  const { userId: id } = await givenAccount(OPENED)
  if (clerkId) await atClerk(id)
  await db()
    .updateTable('users')
    .set({
      status: 'deleted',
      deleted_at: sql`now() - interval '30 days'`,
      purge_after: sql`now() - ${ago}::interval`,
      ...(clerkId && { clerk_pending: 'delete' as const }),
    })
    .where('id', '=', id)
    .execute()
  return id
}

describe('a deletion', () => {
  test('cancels the paid plan first', async () => {
    const { subscription } = await subscribed(shop, userId, 'pro')
    await closeAccount(userId, by())
    expect(shop.calls[0]).toBe(`PATCH /v1/subscriptions/${subscription.id}`)
    expect(await subscriptionRow(subscription.id)).toMatchObject({ cancel_at_period_end: true })
    expect(await row()).toMatchObject({ status: 'deleted' })
  })

  test('asks Polar for nothing without a plan that charges', async () => {
    await closeAccount(userId, by())
    expect(shop.calls).toEqual([])
    userId = (await givenAccount(OPENED)).userId
    const { subscription } = await subscribed(shop, userId, 'pro')
    expect(await endCharges(userId)).toBe(true)
    expect(await endCharges(userId)).toBe(false)
    shop.calls.length = 0
    await closeAccount(userId, by())
    expect(shop.calls).toEqual([])
    expect(await subscriptionRow(subscription.id)).toMatchObject({ cancel_at_period_end: true })
  })

  test('is not made while Polar does not answer', async () => {
    await subscribed(shop, userId, 'pro')
    shop.answer = () => refusal(500)
    await expect(closeAccount(userId, by())).rejects.toMatchObject({ code: 'PROVIDER_ERROR' })
    expect(await row()).toMatchObject({ status: 'active', deleted_at: null })
    const acts = db().selectFrom('audit_log').select('id').where('action', '=', 'user.delete')
    expect(await acts.where('target_id', '=', userId).execute()).toEqual([])
  })

  test('is not made when Polar refuses and goes on charging; it is when the plan had ended there', async () => {
    const { subscription } = await subscribed(shop, userId, 'pro')
    const refuse = (call: string) => (call.startsWith('PATCH') ? refusal(403) : undefined)
    shop.answer = refuse
    await expect(closeAccount(userId, by())).rejects.toMatchObject({ code: 'CONFLICT' })
    expect(await row()).toMatchObject({ status: 'active' })
    shop.answer = undefined
    const known = shop.polar.shop.subscriptions.get(subscription.id)
    if (known)
      Object.assign(known, { cancel_at_period_end: true, modified_at: new Date(Date.now() + 1000).toISOString() })
    shop.answer = refuse
    await closeAccount(userId, by())
    expect(await row()).toMatchObject({ status: 'deleted' })
  })

  test('of the last administrator leaves the plan as it is', async () => {
    const { subscription } = await subscribed(shop, userId, 'pro')
    await db().updateTable('users').set({ role: 'admin' }).where('id', '=', userId).execute()
    await expect(closeAccount(userId, by())).rejects.toMatchObject({ code: 'CONFLICT' })
    expect(shop.calls).toEqual([])
    expect(await subscriptionRow(subscription.id)).toMatchObject({ cancel_at_period_end: false })
    await db().updateTable('users').set({ role: 'user' }).where('id', '=', userId).execute()
  })

  test('is told to Clerk after it was made', async () => {
    const clerkId = await atClerk()
    await closeAccount(userId, by())
    expect(clerk.calls).toEqual([`DELETE /v1/users/${clerkId}`])
    expect(await row()).toMatchObject({ status: 'deleted', clerk_pending: null })
  })

  test('repeated, answers the same', async () => {
    const first = await closeAccount(userId, by())
    expect(first).toEqual({ status: 'deleted', purgeAfter: (await row()).purge_after?.toISOString() })
    expect(await closeAccount(userId, by())).toEqual(first)
    await expect(closeAccount(crypto.randomUUID(), by())).rejects.toMatchObject({ code: 'NOT_FOUND' })
  })
})

describe('the sweep', () => {
  const nothing = { plansCancelled: 0, purged: 0, postponed: 0 }

  test('purges whose grace is over, once, and nobody else', async () => {
    const due = [await givenDeleted(), await givenDeleted({ ago: '0 seconds' })]
    const waiting = await givenDeleted({ ago: '-1 minute' })
    const sweeps = await Promise.all([1, 2, 3].map(() => sweepDeletedAccounts(10)))
    expect(sweeps.reduce((sum, { purged }) => sum + purged, 0)).toBe(2)
    for (const id of due) {
      expect(await row(id)).toMatchObject({
        name: 'Deleted user',
        email: `deleted-${id}@deleted.invalid`,
        purged_at: expect.any(Date),
      })
      const acts = db()
        .selectFrom('audit_log')
        .select(['action', 'actor_type', 'target_type'])
        .where('target_id', '=', id)
      expect(await acts.execute()).toEqual([{ action: 'user.purge', actor_type: 'system', target_type: 'user' }])
    }
    for (const id of [waiting, userId]) expect(await row(id)).toMatchObject({ name: 'Ada', purged_at: null })
    expect(await purgeAccount(waiting)).toBe(false)
    expect(await purgeAccount(userId)).toBe(false)
    expect(await sweepDeletedAccounts(10)).toEqual(nothing)
    expect(await ledgerViolations()).toEqual([])
  })

  test('purges no more at once than it is told to, the longest due first', async () => {
    const [late, later] = [await givenDeleted({ ago: '1 day' }), await givenDeleted({ ago: '2 days' })]
    expect(await sweepDeletedAccounts(1)).toEqual({ ...nothing, purged: 1 })
    expect(await row(later)).toMatchObject({ name: 'Deleted user' })
    expect(await row(late)).toMatchObject({ name: 'Ada' })
  })

  test('tells Clerk first', async () => {
    const id = await givenDeleted({ clerkId: true })
    const { clerk_id } = await row(id)
    expect(await sweepDeletedAccounts(10)).toEqual({ ...nothing, purged: 1 })
    expect(clerk.calls).toEqual([`DELETE /v1/users/${clerk_id}`])
    expect(await row(id)).toMatchObject({ clerk_id: null, clerk_pending: null })
  })

  test('leaves for later whom Clerk does not answer for, and holds up nobody else', async () => {
    const stuck = await givenDeleted({ ago: '9 days', clerkId: true })
    const free = await givenDeleted()
    clerk.answer = () => new Response(null, { status: 500 })
    expect(await sweepDeletedAccounts(1), 'whom nobody waits for').toEqual({ ...nothing, purged: 1 })
    expect(await row(free)).toMatchObject({ name: 'Deleted user' })
    expect(await sweepDeletedAccounts(10)).toEqual({ ...nothing, postponed: 1 })
    expect(await row(stuck)).toMatchObject({ name: 'Ada', clerk_pending: 'delete' })
    expect(await purgeAccount(stuck)).toBe(false)
    clerk.answer = undefined
    expect(await sweepDeletedAccounts(10)).toEqual({ ...nothing, purged: 1 })
  })

  test('forgets every word of the person, and ends what lets them in', async () => {
    const id = await givenDeleted()
    const times = { expires_at: sql<Date>`now() + interval '1 day'` }
    await db()
      .updateTable('users')
      .set({
        ...{ password_hash: 'hash', preferences: '{"theme": "dark"}', clerk_id: `user_${id}`, clerk_updated_at: 1 },
        ...{ clerk_pending: 'ban' as const, email_verified_at: sql<Date>`now()`, signup_network: 'network' },
      })
      .where('id', '=', id)
      .execute()
    for (const of of [id, userId]) {
      const key = { user_id: of, key_hash: of, key_prefix: 'abcdefgh', name: 'ci', scopes: ['read' as const] }
      const claim = { user_id: of, scope: 'POST /x', key: 'k', fingerprint: 'f'.repeat(64), ...times }
      await db().insertInto('api_keys').values(key).execute()
      await db().insertInto('idempotency_keys').values(claim).execute()
      await db()
        .insertInto('email_tokens')
        .values({ user_id: of, token_hash: of, purpose: 'reset', email: 'ada@example.com', ...times })
        .execute()
      await db().insertInto('mfa_factors').values({ user_id: of, secret: 'sealed' }).execute()
      await db().insertInto('mfa_recovery_codes').values({ user_id: of, code_hash: of }).execute()
    }
    expect(await sweepDeletedAccounts(10)).toEqual({ ...nothing, purged: 1 })
    expect(await row(id)).toMatchObject({
      ...{ status: 'deleted', name: 'Deleted user', password_hash: null, preferences: {}, clerk_id: null },
      ...{ clerk_updated_at: null, clerk_pending: null, email_verified_at: null, signup_network: null },
    })
    const own = ['refresh_tokens', 'mfa_factors', 'mfa_recovery_codes', 'email_tokens', 'idempotency_keys', 'api_keys']
    for (const table of own) {
      const { rows } = await sql<{ user_id: string }>`select user_id from ${sql.table(table)}
        where user_id in (${id}, ${userId})`.execute(db())
      expect(rows, table).toEqual([{ user_id: userId }])
    }
  })

  test('cancels no more plans at once than it is told to, and no plan twice', async () => {
    const owners = [userId, (await givenAccount(OPENED)).userId]
    for (const owner of owners) await subscribed(shop, owner, 'pro')
    await db()
      .updateTable('users')
      .set({ status: 'deleted', deleted_at: sql`now()`, purge_after: sql`now() + interval '1 day'` })
      .where('id', 'in', owners)
      .execute()
    expect(await sweepDeletedAccounts(1)).toEqual({ ...nothing, plansCancelled: 1 })
    expect(await sweepDeletedAccounts(5)).toEqual({ ...nothing, plansCancelled: 1 })
    expect(shop.calls.filter((call) => call.startsWith('PATCH'))).toHaveLength(2)
  })

  test('cancels what was bought in the moment of the deletion, and tries again what failed', async () => {
    const { subscription } = await subscribed(shop, userId, 'pro')
    await db()
      .updateTable('users')
      .set({ status: 'deleted', deleted_at: sql`now()`, purge_after: sql`now() + interval '1 day'` })
      .where('id', '=', userId)
      .execute()
    shop.answer = () => refusal(500)
    const said = vi.spyOn(console, 'log')
    expect(await sweepDeletedAccounts(10)).toEqual(nothing)
    expect(said.mock.calls.map(([line]) => JSON.parse(String(line)))).toContainEqual({
      ...{ time: expect.any(String), level: 'warn', event: 'deleted_account_postponed', userId },
      error: expect.objectContaining({ message: expect.any(String) }),
    })
    shop.answer = undefined
    expect(await sweepDeletedAccounts(10)).toEqual({ ...nothing, plansCancelled: 1 })
    expect(await subscriptionRow(subscription.id)).toMatchObject({ cancel_at_period_end: true })
    expect(await sweepDeletedAccounts(10)).toEqual(nothing)
  })
})
