// What Clerk tells of a user, applied on real PostgreSQL: once each, in any order, without giving anybody what is another's.
import { sql, type Transaction } from 'kysely'
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { followClerkDeletion, followClerkUser, isTombstoned } from '../../lib/auth/clerk-sync.ts'
import { deleteAccount, reactivateAccount, restoreAccount, suspendAccount } from '../../lib/auth/lifecycle.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { beginSession } from '../../lib/auth/sessions.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import {
  actionsOf,
  auditOf,
  freshAddress,
  placeholderOf,
  rowOf,
  rowsOf,
  somebody,
  WEBHOOK,
} from '../support/clerk-people.ts'
import { clerkVariables } from '../support/clerk-stub.ts'
import { newInstance } from '../support/clerk-tokens.ts'
import { somebodyWaits } from '../support/waiting.ts'

const ADMIN_ADDRESS = 'root@example.com'

beforeAll(async () => {
  await startApp({
    ...clerkVariables(newInstance(), 'http://127.0.0.1:9'),
    FORK__AUTH__ADMINS: `["${ADMIN_ADDRESS}","second.${ADMIN_ADDRESS}"]`,
    FORK__TRIAL__PER_NETWORK_DAILY: '2',
  })
})

/** An account of local sign-in, with a session, a key, a mailed token and a second factor. */
async function localAccount(email: string, emailVerified: boolean): Promise<string> {
  return await db()
    .transaction()
    .execute(async (trx) => {
      const id = await createUser(trx, { name: 'Local', email, emailVerified, role: 'user', passwordHash: 'hash' })
      await beginSession(trx, id, { ip: 'unknown', userAgent: null })
      await trx
        .insertInto('api_keys')
        .values({ user_id: id, key_hash: id, key_prefix: id.slice(0, 8), name: 'robot', scopes: ['read'] })
        .execute()
      await trx.insertInto('mfa_factors').values({ user_id: id, secret: 'sealed' }).execute()
      await trx.insertInto('mfa_recovery_codes').values({ user_id: id, code_hash: 'hash', used_at: null }).execute()
      const token = { token_hash: id, user_id: id, purpose: 'change' as const, email, expires_at: '2100-01-01' }
      await trx.insertInto('email_tokens').values(token).execute()
      return id
    })
}

/** What would let somebody into an account of local sign-in. */
async function waysIn(userId: string) {
  const { password_hash } = await db()
    .selectFrom('users')
    .select('password_hash')
    .where('id', '=', userId)
    .executeTakeFirstOrThrow()
  const sessions = await db()
    .selectFrom('refresh_tokens')
    .select('id')
    .where('user_id', '=', userId)
    .where('revoked', '=', false)
    .execute()
  const keys = await db()
    .selectFrom('api_keys')
    .select('id')
    .where('user_id', '=', userId)
    .where('active', '=', true)
    .execute()
  const counts = { password: Number(password_hash !== null), sessions: sessions.length, keys: keys.length }
  const others: Record<string, number> = {}
  for (const table of ['mfa_factors', 'mfa_recovery_codes', 'email_tokens'] as const) {
    const rows = await db().selectFrom(table).select('user_id').where('user_id', '=', userId).execute()
    others[table] = rows.length
  }
  return { ...counts, ...others }
}

const ALL_WAYS = { password: 1, sessions: 1, keys: 1, mfa_factors: 1, mfa_recovery_codes: 1, email_tokens: 1 }
const NO_WAY = { password: 0, sessions: 0, keys: 0, mfa_factors: 0, mfa_recovery_codes: 0, email_tokens: 0 }

const trialOf = async (userId: string) => (await statementOf(db(), userId)).balance.trialGenerations

describe('somebody new', () => {
  test('gets a row, the free plan and the trial, and is on record', async () => {
    const ada = somebody({ name: 'Ada Lovelace' })
    expect(await followClerkUser(ada, WEBHOOK)).toBe('made')
    const row = await rowOf(ada.id)
    expect(row).toMatchObject({
      name: 'Ada Lovelace',
      email: ada.email,
      role: 'user',
      status: 'active',
      password_hash: null,
      clerk_updated_at: 1_000,
      clerk_pending: null,
      email_verified_at: expect.any(Date),
    })
    expect(await trialOf(row.id)).toBe(3)
    expect(await auditOf(row.id)).toEqual([
      {
        action: 'user.register',
        actor_type: 'webhook',
        actor_id: null,
        impersonator: null,
        request_id: 'msg_of_the_test',
        ip: null,
        before: null,
        after: null,
        details: {},
      },
    ])
  })

  test('who calls before any webhook does is the actor, or whoever acts in their name', async () => {
    const ada = somebody()
    await followClerkUser(ada, { type: 'user', ip: '192.0.2.1', impersonator: 'user_support' })
    const { id } = await rowOf(ada.id)
    expect(await auditOf(id)).toMatchObject([
      { action: 'user.register', actor_type: 'user', actor_id: id, impersonator: 'user_support', ip: '192.0.2.1' },
    ])
  })

  test.each([
    { what: 'no name', change: { name: undefined, email: 'grace.hopper@example.com' }, name: 'grace.hopper' },
    { what: 'neither name nor address', change: { name: undefined, email: undefined }, name: 'User' },
    { what: 'a name of blanks', change: { name: '  \u0000\t ', email: 'blank@example.com' }, name: 'blank' },
    { what: 'a name of control characters', change: { name: '\u0000Ada\u0007 L\n' }, name: 'Ada  L' },
    { what: 'half a character in the name', change: { name: 'Ada\ud83d' }, name: 'Ada' },
    { what: 'a long name', change: { name: `${'x'.repeat(99)}👩 and more` }, name: `${'x'.repeat(99)}👩` },
    { what: 'blanks before a long name', change: { name: `  ${'x'.repeat(100)}` }, name: 'x'.repeat(100) },
    { what: 'a name that is cut at a blank', change: { name: `${'x'.repeat(99)} y` }, name: 'x'.repeat(99) },
  ])('with $what is called "$name"', async ({ change, name }) => {
    const ada = somebody(change)
    await followClerkUser(ada, WEBHOOK)
    expect((await rowOf(ada.id)).name).toBe(name)
  })

  test('without an address gets one that belongs to nobody, and no trial', async () => {
    const ada = somebody({ email: undefined, emailVerified: false })
    await followClerkUser(ada, WEBHOOK)
    const row = await rowOf(ada.id)
    expect(row).toMatchObject({ email: placeholderOf(ada.id), email_verified_at: null, trial_withheld: 'unverified' })
    expect(await trialOf(row.id)).toBe(0)
  })

  test('with an address that is not proven gets the trial when it is', async () => {
    const ada = somebody({ emailVerified: false })
    await followClerkUser(ada, WEBHOOK)
    const row = await rowOf(ada.id)
    expect(row).toMatchObject({ email: ada.email, email_verified_at: null })
    expect(await trialOf(row.id)).toBe(0)
    expect(await followClerkUser({ ...ada, emailVerified: true, updatedAt: 1_001 }, WEBHOOK)).toBe('changed')
    expect((await rowOf(ada.id)).email_verified_at).toBeInstanceOf(Date)
    expect(await trialOf(row.id)).toBe(3)
  })

  test('who is banned is suspended from the start', async () => {
    const ada = somebody({ banned: true })
    await followClerkUser(ada, { type: 'user', ip: '192.0.2.1' })
    const row = await rowOf(ada.id)
    expect(row.status).toBe('suspended')
    expect(await auditOf(row.id)).toMatchObject([
      { action: 'user.register', actor_type: 'user' },
      { action: 'user.suspend', actor_type: 'webhook', before: { status: 'active' }, after: { status: 'suspended' } },
    ])
  })

  test('is an administrator only by auth.admins and a proven address', async () => {
    const claimant = somebody({ email: ADMIN_ADDRESS, emailVerified: false })
    await followClerkUser(claimant, WEBHOOK)
    expect((await rowOf(claimant.id)).role).toBe('user')
    const owner = somebody({ email: ADMIN_ADDRESS })
    await followClerkUser(owner, WEBHOOK)
    expect(await rowOf(owner.id)).toMatchObject({ role: 'admin', email: ADMIN_ADDRESS })
    expect(await rowOf(claimant.id)).toMatchObject({ role: 'user', email: placeholderOf(claimant.id) })
  })

  test('counts for the network they sign up from', async () => {
    const signUp = async (signUpIp?: string) => {
      const user = somebody()
      await followClerkUser(user, { ...WEBHOOK, signUpIp })
      return (await rowOf(user.id)).trial_withheld
    }
    expect([await signUp('198.51.100.7'), await signUp('198.51.100.8')]).toEqual([null, null])
    expect(await signUp('198.51.100.9')).toBe('network')
    expect(await signUp()).toBeNull()
  })
})

describe('an account of local sign-in with the same address', () => {
  test('that was proven is linked, and keeps everything', async () => {
    const email = freshAddress()
    const id = await localAccount(email, true)
    const ada = somebody({ email, name: 'At Clerk', updatedAt: 5 })
    expect(await followClerkUser(ada, WEBHOOK)).toBe('linked')
    expect(await rowOf(ada.id)).toMatchObject({ id, name: 'Local', email, clerk_updated_at: 5 })
    expect(await waysIn(id)).toEqual(ALL_WAYS)
    expect(await auditOf(id)).toMatchObject([
      { action: 'user.link', actor_type: 'webhook', details: { provider: 'clerk', accessEnded: false } },
    ])
  })

  test('that was never proven is linked, and whoever registered it is out', async () => {
    const email = freshAddress()
    const id = await localAccount(email, false)
    expect(await trialOf(id)).toBe(0)
    const ada = somebody({ email })
    expect(await followClerkUser(ada, { type: 'user', ip: '192.0.2.1' })).toBe('linked')
    expect(await waysIn(id)).toEqual(NO_WAY)
    const { revoked_reason, revoked_at } = await db()
      .selectFrom('api_keys')
      .select(['revoked_reason', 'revoked_at'])
      .where('user_id', '=', id)
      .executeTakeFirstOrThrow()
    expect([revoked_reason, revoked_at]).toEqual(['revoked', expect.any(Date)])
    expect((await rowOf(ada.id)).email_verified_at).toBeInstanceOf(Date)
    expect(await trialOf(id)).toBe(3)
    expect(await auditOf(id)).toMatchObject([
      { action: 'user.link', actor_type: 'user', actor_id: id, details: { accessEnded: true } },
    ])
  })

  test('of an administrator keeps that role only if it was proven', async () => {
    const roles: unknown[] = []
    for (const isProven of [true, false]) {
      const email = freshAddress()
      const id = await localAccount(email, isProven)
      await db().updateTable('users').set({ role: 'admin' }).where('id', '=', id).execute()
      const ada = somebody({ email })
      await followClerkUser(ada, { type: 'user', ip: '192.0.2.1' })
      roles.push((await rowOf(ada.id)).role, await actionsOf(id))
    }
    expect(roles).toEqual(['admin', ['user.link'], 'user', ['user.link', 'user.role']])
  })

  test('is not given to somebody who has not proven the address', async () => {
    const email = freshAddress()
    const id = await localAccount(email, false)
    const mallory = somebody({ email, emailVerified: false })
    expect(await followClerkUser(mallory, WEBHOOK)).toBe('made')
    expect(await rowOf(mallory.id)).toMatchObject({ email: placeholderOf(mallory.id), email_verified_at: null })
    expect((await rowOf(mallory.id)).id).not.toBe(id)
    expect(await waysIn(id)).toEqual(ALL_WAYS)
  })

  test('stays suspended, and is suspended if Clerk banned its owner', async () => {
    const suspended = freshAddress()
    const id = await localAccount(suspended, true)
    await db().updateTable('users').set({ status: 'suspended' }).where('id', '=', id).execute()
    const ada = somebody({ email: suspended })
    await followClerkUser(ada, WEBHOOK)
    expect((await rowOf(ada.id)).status).toBe('suspended')

    const email = freshAddress()
    const other = await localAccount(email, true)
    const banned = somebody({ email, banned: true })
    await followClerkUser(banned, WEBHOOK)
    expect((await rowOf(banned.id)).status).toBe('suspended')
    expect(await waysIn(other)).toMatchObject({ sessions: 0, keys: 0 })
  })

  test('that is deleted is nobody’s any more', async () => {
    const email = freshAddress()
    const id = await localAccount(email, true)
    await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', id).execute()
    const ada = somebody({ email })
    expect(await followClerkUser(ada, WEBHOOK)).toBe('made')
    expect((await rowOf(ada.id)).id).not.toBe(id)
  })
})

describe('an address that another user of Clerk has', () => {
  test('is not taken from who has proven it, nor told to anybody', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    const again = somebody({ email: ada.email })
    expect(await followClerkUser(again, WEBHOOK)).toBe('made')
    expect(console.log).toHaveBeenCalledExactlyOnceWith(
      expect.stringContaining(`"level":"warn","event":"clerk_address_taken","user":"${again.id}"`),
    )
    expect(await rowOf(ada.id)).toMatchObject({ email: ada.email })
    expect(await rowOf(again.id)).toMatchObject({ email: placeholderOf(again.id), email_verified_at: null })
    expect(await trialOf((await rowOf(again.id)).id)).toBe(0)
  })

  test('goes to its owner from who only claimed it, not the other way round', async () => {
    const claimant = somebody({ emailVerified: false })
    await followClerkUser(claimant, WEBHOOK)
    const second = somebody({ email: claimant.email, emailVerified: false })
    await followClerkUser(second, WEBHOOK)
    expect((await rowOf(second.id)).email).toBe(placeholderOf(second.id))
    const owner = somebody({ email: claimant.email })
    await followClerkUser(owner, WEBHOOK)
    expect((await rowOf(owner.id)).email).toBe(claimant.email)
    const loser = await rowOf(claimant.id)
    expect(loser.email).toBe(placeholderOf(claimant.id))
    expect(await auditOf(loser.id)).toMatchObject([
      { action: 'user.register' },
      { action: 'user.email', actor_type: 'system', details: { provider: 'clerk', claimedByOwner: true } },
    ])
  })
})

describe('somebody known', () => {
  test('gets a new name, and keeps the old one when Clerk has none', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    await followClerkUser({ ...ada, name: 'Ada King', updatedAt: 2_000 }, WEBHOOK)
    expect(await rowOf(ada.id)).toMatchObject({ name: 'Ada King', clerk_updated_at: 2_000 })
    await followClerkUser({ ...ada, name: undefined, updatedAt: 2_001 }, WEBHOOK)
    const row = await rowOf(ada.id)
    expect(row).toMatchObject({ name: 'Ada King', clerk_updated_at: 2_001 })
    expect((await auditOf(row.id)).slice(1)).toMatchObject([
      { action: 'user.profile', actor_type: 'webhook', details: { provider: 'clerk', fields: ['name'] } },
    ])
  })

  test('is not taken back to an older state, nor told the same one twice', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    for (const updatedAt of [999, 1_000])
      expect(
        await followClerkUser({ ...ada, name: 'Old', email: freshAddress(), banned: true, updatedAt }, WEBHOOK),
      ).toBe('stale')
    const row = await rowOf(ada.id)
    expect(row).toMatchObject({ name: 'Ada', email: ada.email, status: 'active', clerk_updated_at: 1_000 })
    expect(await actionsOf(row.id)).toEqual(['user.register'])
  })

  test('moves to a proven address, and is on record without it', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    const email = freshAddress()
    await followClerkUser({ ...ada, email, updatedAt: 2_000 }, WEBHOOK)
    const row = await rowOf(ada.id)
    expect(row).toMatchObject({ email, email_verified_at: expect.any(Date) })
    expect(await trialOf(row.id)).toBe(3)
    expect(await auditOf(row.id)).toMatchObject([
      { action: 'user.register' },
      { action: 'user.email', actor_type: 'webhook', details: { provider: 'clerk', verified: true } },
    ])
    expect(JSON.stringify(await auditOf(row.id))).not.toContain('@')
  })

  test('moves to an unproven address only from another unproven one', async () => {
    const proven = somebody()
    await followClerkUser(proven, WEBHOOK)
    const change = { email: freshAddress(), emailVerified: false, updatedAt: 2_000 }
    await followClerkUser({ ...proven, ...change }, WEBHOOK)
    expect(await rowOf(proven.id)).toMatchObject({ email: proven.email, email_verified_at: expect.any(Date) })

    const unproven = somebody({ emailVerified: false })
    await followClerkUser(unproven, WEBHOOK)
    await followClerkUser({ ...unproven, ...change }, WEBHOOK)
    expect(await rowOf(unproven.id)).toMatchObject({ email: change.email, email_verified_at: null })
    expect((await auditOf((await rowOf(unproven.id)).id)).at(-1)).toMatchObject({ details: { verified: false } })
  })

  test('keeps the address when Clerk knows none, or another account has the new one', async () => {
    const [ada, grace] = [somebody(), somebody()]
    await followClerkUser(ada, WEBHOOK)
    await followClerkUser(grace, WEBHOOK)
    await followClerkUser({ ...ada, email: undefined, emailVerified: false, updatedAt: 2_000 }, WEBHOOK)
    expect((await rowOf(ada.id)).email).toBe(ada.email)
    await followClerkUser({ ...ada, email: grace.email, updatedAt: 3_000 }, WEBHOOK)
    expect(await rowOf(ada.id)).toMatchObject({ email: ada.email, clerk_updated_at: 3_000 })
    expect((await rowOf(grace.id)).email).toBe(grace.email)
    expect(console.log).toHaveBeenCalledExactlyOnceWith(
      expect.stringContaining(`"level":"warn","event":"clerk_address_taken","user":"${ada.id}"`),
    )

    const email = freshAddress()
    const local = await localAccount(email, false)
    await followClerkUser({ ...ada, email, updatedAt: 4_000 }, WEBHOOK)
    expect((await rowOf(ada.id)).email).toBe(ada.email)
    expect(await waysIn(local)).toEqual(ALL_WAYS)
  })

  test('is followed from any state where none is known yet', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    await db().updateTable('users').set({ clerk_updated_at: null }).where('clerk_id', '=', ada.id).execute()
    expect(await followClerkUser({ ...ada, updatedAt: 0 }, WEBHOOK)).toBe('changed')
    expect(await followClerkUser({ ...ada, updatedAt: 0 }, WEBHOOK)).toBe('stale')
  })

  test('is not made an administrator again by a change of anything but the address', async () => {
    const owner = somebody({ email: `second.${ADMIN_ADDRESS}` })
    await followClerkUser(owner, WEBHOOK)
    await db().updateTable('users').set({ role: 'user' }).where('clerk_id', '=', owner.id).execute()
    await followClerkUser({ ...owner, name: 'Ada King', updatedAt: 2_000 }, WEBHOOK)
    expect(await rowOf(owner.id)).toMatchObject({ role: 'user', name: 'Ada King' })
  })

  test('whose address was a stand-in gets their own', async () => {
    const ada = somebody({ email: undefined, emailVerified: false, updatedAt: 0 })
    await followClerkUser(ada, { type: 'user', ip: '192.0.2.1' })
    const email = freshAddress()
    expect(await followClerkUser({ ...ada, email, emailVerified: true, updatedAt: 1 }, WEBHOOK)).toBe('changed')
    const row = await rowOf(ada.id)
    expect(row).toMatchObject({ email, email_verified_at: expect.any(Date) })
    expect(await trialOf(row.id)).toBe(3)
  })
})

describe('a ban at Clerk', () => {
  const by = { actor: { type: 'admin' as const } }

  test('suspends here and ends keys, until it is lifted there', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    const { id } = await rowOf(ada.id)
    const giveKey = (hash: string) =>
      db()
        .insertInto('api_keys')
        .values({ user_id: id, key_hash: hash, key_prefix: id.slice(0, 8), name: 'robot', scopes: ['read'] })
        .execute()
    await giveKey(id)
    await followClerkUser({ ...ada, banned: true, updatedAt: 2_000 }, WEBHOOK)
    expect(await rowOf(ada.id)).toMatchObject({ status: 'suspended', clerk_pending: null })
    expect((await waysIn(id)).keys).toBe(0)
    await giveKey(`${id} later`)
    await followClerkUser({ ...ada, banned: true, updatedAt: 2_001 }, WEBHOOK)
    await followClerkUser({ ...ada, banned: false, updatedAt: 3_000 }, WEBHOOK)
    expect(await rowOf(ada.id)).toMatchObject({ status: 'active', clerk_pending: null })
    const keys = await db()
      .selectFrom('api_keys')
      .select(['active', 'revoked_reason'])
      .where('user_id', '=', id)
      .orderBy('key_hash')
      .execute()
    expect(keys).toEqual([
      { active: false, revoked_reason: 'suspended' },
      { active: true, revoked_reason: null },
    ])
    expect((await auditOf(id)).slice(1)).toMatchObject([
      { action: 'user.suspend', actor_type: 'webhook', details: { provider: 'clerk' } },
      {
        action: 'user.reactivate',
        actor_type: 'webhook',
        before: { status: 'suspended' },
        after: { status: 'active' },
      },
    ])
  })

  test('that is lifted there lets nobody in whom an administrator suspended here', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    const { id } = await rowOf(ada.id)
    await db()
      .transaction()
      .execute((trx) => suspendAccount(trx, id, by))
    await db().updateTable('users').set({ clerk_pending: null }).where('id', '=', id).execute()
    await followClerkUser({ ...ada, banned: true, updatedAt: 2_000 }, WEBHOOK)
    await followClerkUser({ ...ada, banned: false, updatedAt: 3_000 }, WEBHOOK)
    expect((await rowOf(ada.id)).status).toBe('suspended')
    expect(await actionsOf(id)).toEqual(['user.register', 'user.suspend'])
  })

  test('loses to what an administrator decided since, while Clerk has yet to be told', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    await followClerkUser({ ...ada, banned: true, updatedAt: 2_000 }, WEBHOOK)
    const { id } = await rowOf(ada.id)
    await db()
      .transaction()
      .execute((trx) => reactivateAccount(trx, id, by))
    await followClerkUser({ ...ada, banned: true, name: 'Ada King', updatedAt: 3_000 }, WEBHOOK)
    expect(await rowOf(ada.id)).toMatchObject({ status: 'active', clerk_pending: 'unban', name: 'Ada King' })
  })
})

describe('a deletion at Clerk', () => {
  test('deletes the account, and Clerk need not be told', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    const { id } = await rowOf(ada.id)
    expect(await followClerkDeletion(ada.id, WEBHOOK)).toBe('changed')
    const row = await rowOf(ada.id)
    expect(row).toMatchObject({ status: 'deleted', clerk_pending: null, deleted_at: expect.any(Date) })
    expect(await followClerkDeletion(ada.id, WEBHOOK)).toBe('gone')
    expect(await auditOf(id)).toMatchObject([
      { action: 'user.register' },
      { action: 'user.delete', actor_type: 'webhook', request_id: 'msg_of_the_test' },
    ])
  })

  test('is for good, whatever arrives late', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    await followClerkDeletion(ada.id, WEBHOOK)
    expect(await followClerkUser({ ...ada, updatedAt: 9_000 }, WEBHOOK)).toBe('gone')
    expect((await rowOf(ada.id)).status).toBe('deleted')
    // Even once nothing names the person any more.
    await db().updateTable('users').set({ clerk_id: null }).where('clerk_id', '=', ada.id).execute()
    expect(await followClerkUser({ ...ada, updatedAt: 9_001 }, WEBHOOK)).toBe('gone')
    expect(await rowsOf(ada.id)).toEqual([])
  })

  test('need not be known for an account that is deleted here to stay so', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    await db().updateTable('users').set({ status: 'deleted' }).where('clerk_id', '=', ada.id).execute()
    expect(await followClerkUser({ ...ada, name: 'Ada King', updatedAt: 2_000 }, WEBHOOK)).toBe('gone')
    expect(await rowOf(ada.id)).toMatchObject({ name: 'Ada', status: 'deleted', clerk_updated_at: 1_000 })
  })

  test('of somebody deleted here already leaves nothing to tell Clerk, and nobody to restore', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    const { id } = await rowOf(ada.id)
    const by = { actor: { type: 'admin' as const } }
    const within = <T>(act: (trx: Transaction<Database>) => Promise<T>) => db().transaction().execute(act)
    await within((trx) => deleteAccount(trx, id, by))
    expect((await rowOf(ada.id)).clerk_pending).toBe('delete')
    await db().updateTable('users').set({ role: 'admin' }).where('id', '=', id).execute()
    expect(await followClerkDeletion(ada.id, WEBHOOK)).toBe('gone')
    expect(await rowOf(ada.id)).toMatchObject({ status: 'deleted', clerk_pending: null })
    await expect(within((trx) => restoreAccount(trx, id, by))).rejects.toMatchObject({ code: 'CONFLICT' })
    expect(await actionsOf(id)).toEqual(['user.register', 'user.delete'])
  })

  test('of somebody unknown is remembered', async () => {
    const ada = somebody()
    expect(await isTombstoned(db(), ada.id)).toBe(false)
    expect(await followClerkDeletion(ada.id, WEBHOOK)).toBe('gone')
    expect(await isTombstoned(db(), ada.id)).toBe(true)
    expect(await followClerkUser(ada, WEBHOOK)).toBe('gone')
    expect(await rowsOf(ada.id)).toEqual([])
  })

  test('takes the role of an administrator, even of the last one', async () => {
    await db().updateTable('users').set({ role: 'user' }).where('role', '=', 'admin').execute()
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    await db().updateTable('users').set({ role: 'admin' }).where('clerk_id', '=', ada.id).execute()
    expect(await followClerkDeletion(ada.id, WEBHOOK)).toBe('changed')
    const row = await rowOf(ada.id)
    expect(row).toMatchObject({ status: 'deleted', role: 'user' })
    expect(await auditOf(row.id)).toMatchObject([
      { action: 'user.register' },
      { action: 'user.role', actor_type: 'webhook', before: { role: 'admin' }, after: { role: 'user' } },
      { action: 'user.delete' },
    ])
  })

  test('frees the address for the next account, without a second trial', async () => {
    const ada = somebody()
    await followClerkUser(ada, WEBHOOK)
    await followClerkDeletion(ada.id, WEBHOOK)
    const again = somebody({ email: ada.email })
    expect(await followClerkUser(again, WEBHOOK)).toBe('made')
    expect(await rowOf(again.id)).toMatchObject({ email: ada.email, trial_withheld: 'repeat' })
  })
})

describe('what the database refuses', () => {
  test('is an error at once, or after a few tries where another could have come first', async () => {
    await expect(followClerkUser(somebody({ id: `user_${'a'.repeat(60)}` }), WEBHOOK)).rejects.toMatchObject({
      code: '22001',
    })
    const [upper, lower] = [somebody({ email: undefined }), somebody({ email: undefined })]
    await followClerkUser({ ...upper, id: 'user_2ABCdef' }, WEBHOOK)
    // Two ids with one stand-in: not to be expected of Clerk, and not to be tried for ever.
    await expect(followClerkUser({ ...lower, id: 'user_2abcDEF' }, WEBHOOK)).rejects.toMatchObject({ code: '23505' })
  })
})

describe('two at the same time', () => {
  const inOne = <T>(work: (trx: Transaction<Database>) => Promise<T>) => db().transaction().execute(work)

  test('one who makes an account of the address has made it before the other one looks again', async () => {
    const email = freshAddress()
    const [isMade, mayCommit] = [Promise.withResolvers<string>(), Promise.withResolvers<void>()]
    const making = inOne(async (trx) => {
      const id = await createUser(trx, { name: 'Local', email, emailVerified: true, role: 'user' })
      isMade.resolve(id)
      await mayCommit.promise
    })
    const id = await isMade.promise
    const ada = somebody({ email })
    const following = followClerkUser(ada, WEBHOOK)
    await somebodyWaits().finally(mayCommit.resolve)
    await making
    expect(await following).toBe('linked')
    expect((await rowOf(ada.id)).id).toBe(id)
  })

  test('news of one user wait for each other, not for those of another', async () => {
    const [ada, grace] = [somebody(), somebody()]
    const order: string[] = []
    const [isLocked, mayGo] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const first = inOne(async (trx) => {
      await sql`select pg_advisory_xact_lock(hashtextextended(${`clerk:${ada.id}`}, 0))`.execute(trx)
      isLocked.resolve()
      await mayGo.promise
    })
    await isLocked.promise
    const second = followClerkUser(ada, WEBHOOK).then(() => order.push('ada'))
    try {
      await somebodyWaits()
      await followClerkUser(grace, WEBHOOK)
      order.push('grace')
    } finally {
      mayGo.resolve()
      await Promise.all([first, second])
    }
    expect(order).toEqual(['grace', 'ada'])
  })

  test('users with one proven address: one has it, neither is lost', async () => {
    for (let times = 0; times < 5; times++) {
      const email = freshAddress()
      const both = [somebody({ email }), somebody({ email })]
      await Promise.all(both.map((user) => followClerkUser(user, WEBHOOK)))
      const addresses = await Promise.all(both.map(async ({ id }) => (await rowOf(id)).email))
      expect(addresses.filter((address) => address === email)).toHaveLength(1)
    }
  })
})
