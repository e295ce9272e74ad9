// The life of accounts, called directly on real PostgreSQL: what each act changes, ends and puts on record, and the last admin.
import { sql, type Transaction } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { closeAccount, endCharges } from '../../lib/auth/deletion.ts'
import {
  changeRole,
  deleteAccount,
  endAccess,
  reactivateAccount,
  requireDeletable,
  restoreAccount,
  shutOutRegistrant,
  suspendAccount,
} from '../../lib/auth/lifecycle.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { beginSession, rotateSession } from '../../lib/auth/sessions.ts'
import { startApp } from '../support/app.ts'
import { somebodyWaits } from '../support/waiting.ts'

const ORIGIN = { ip: '203.0.113.9', userAgent: 'a test' }
const NOBODY = '00000000-0000-4000-8000-000000000000'

let boss: string
let userId: string
let by: { actor: { type: 'admin'; id: string }; reason: string }

beforeAll(async () => {
  await startApp({ FORK__AUTH__DELETION_GRACE_DAYS: '14' })
  boss = await givenOne({ role: 'admin' })
})

beforeEach(async () => {
  userId = await givenOne()
  by = { actor: { type: 'admin', id: boss }, reason: 'A test.' }
})

async function givenOne({ role = 'user' as 'user' | 'admin', clerkId = '' } = {}) {
  const email = `${crypto.randomUUID()}@example.com`
  return await within((trx) =>
    createUser(trx, { name: 'Ada', email, role, ...(clerkId && { clerk: { id: clerkId, updatedAt: 1 } }) }),
  )
}

type Trx = Transaction<Database>

async function within<T>(work: (trx: Trx) => Promise<T>): Promise<T> {
  return await db().transaction().execute(work)
}

const user = (id = userId) => db().selectFrom('users').selectAll().where('id', '=', id).executeTakeFirstOrThrow()

async function givenKey(of = userId) {
  const { id } = await db()
    .insertInto('api_keys')
    .values({
      user_id: of,
      key_hash: crypto.randomUUID(),
      key_prefix: 'abcdefgh',
      name: 'one',
      scopes: ['generate', 'read'],
    })
    .returning('id')
    .executeTakeFirstOrThrow()
  return id
}

const keys = async (of = userId) =>
  await db()
    .selectFrom('api_keys')
    .select(['active', 'revoked_reason', 'revoked_at'])
    .where('user_id', '=', of)
    .execute()
const sessions = async (of = userId) =>
  await db().selectFrom('refresh_tokens').select(['revoked', 'revoked_reason']).where('user_id', '=', of).execute()
const acts = async (of = userId) =>
  await db()
    .selectFrom('audit_log')
    .select(['action', 'actor_type', 'actor_id', 'reason', 'before', 'after', 'details', 'target_type'])
    .where('target_id', '=', of)
    .orderBy('id')
    .execute()
const stateOf = async (id = userId) => {
  const { rows } = await sql<{ state: string }>`select account_state(${id}, null) as state`.execute(db())
  return rows[0]?.state
}
const refusedAs = (code: string, message: string | RegExp) =>
  expect.objectContaining({ code, message: typeof message === 'string' ? message : expect.stringMatching(message) })

describe('ending access', () => {
  test.each(['suspended', 'deleted'] as const)(
    'ends every session and key, and says that the account was %s',
    async (reason) => {
      const other = await givenOne()
      await Promise.all([
        beginSession(db(), userId, ORIGIN),
        beginSession(db(), userId, ORIGIN),
        givenKey(),
        givenKey(),
      ])
      await Promise.all([beginSession(db(), other, ORIGIN), givenKey(other)])
      await within((trx) => endAccess(trx, userId, reason))
      expect(await sessions()).toEqual(Array(2).fill({ revoked: true, revoked_reason: reason }))
      expect(await keys()).toEqual(
        Array(2).fill({ active: false, revoked_reason: reason, revoked_at: expect.any(Date) }),
      )
      expect(await sessions(other)).toEqual([{ revoked: false, revoked_reason: null }])
      expect(await keys(other)).toEqual([{ active: true, revoked_reason: null, revoked_at: null }])
    },
  )

  test('leaves the reason of what had ended before', async () => {
    await givenKey()
    await within((trx) => endAccess(trx, userId, 'suspended'))
    const before = await keys()
    await within((trx) => endAccess(trx, userId, 'deleted'))
    expect(await keys()).toEqual(before)
  })

  test('leaves no session alive whose rotation is in flight', async () => {
    for (let round = 0; round < 20; round += 1) {
      const { refreshToken } = await beginSession(db(), userId, ORIGIN)
      await Promise.allSettled([
        rotateSession(db(), refreshToken, ORIGIN),
        within((trx) => endAccess(trx, userId, 'suspended')),
      ])
      await within((trx) => endAccess(trx, userId, 'suspended'))
    }
    expect((await sessions()).filter(({ revoked }) => !revoked)).toEqual([])
  })
})

describe('acts on one account', () => {
  test('take turns: of many at once, one is made and is on record', async () => {
    for (const [act, undo] of [
      [suspendAccount, reactivateAccount],
      [deleteAccount, restoreAccount],
    ] as const) {
      const made = await Promise.all(Array.from({ length: 6 }, () => within((trx) => act(trx, userId, by))))
      expect(made.filter(Boolean)).toHaveLength(1)
      await within<unknown>((trx) => undo(trx, userId, by))
    }
    expect((await acts()).map(({ action }) => action)).toEqual([
      ...['user.suspend', 'user.reactivate', 'user.delete', 'user.restore'],
    ])
  })

  test('wait for the account before they touch a key, as spending by key does', async () => {
    const key = await givenKey()
    let ending: Promise<unknown> = Promise.resolve()
    await within(async (trx) => {
      await sql`select 1 from ledger_account where user_id = ${userId} for no key update`.execute(trx)
      ending = within((inner) => endAccess(inner, userId, 'suspended'))
      await somebodyWaits()
      expect((await keys())[0]).toMatchObject({ active: true })
      await sql`select 1 from api_keys where id = ${key} for update nowait`.execute(trx)
    })
    await ending
    expect((await keys())[0]).toMatchObject({ active: false })
  })
})

describe('shutting out whoever registered an address', () => {
  test('ends all that lets anybody in, and nothing of anybody else', async () => {
    const other = await givenOne()
    for (const of of [userId, other]) {
      await Promise.all([beginSession(db(), of, ORIGIN), givenKey(of)])
      const hash = crypto.randomUUID()
      const token = { token_hash: hash, user_id: of, purpose: 'reset' as const, email: 'ada@example.com' }
      await db()
        .insertInto('email_tokens')
        .values({ ...token, expires_at: sql`now()` })
        .execute()
      await db().insertInto('mfa_factors').values({ user_id: of, secret: 'sealed', confirmed_at: null }).execute()
      await db().insertInto('mfa_recovery_codes').values({ user_id: of, code_hash: hash }).execute()
    }
    const waysOf = async (of: string) => {
      const tables = ['email_tokens', 'mfa_factors', 'mfa_recovery_codes'] as const
      const rows = tables.map((table) => db().selectFrom(table).select('user_id').where('user_id', '=', of).execute())
      return (await Promise.all(rows)).map(({ length }) => length)
    }
    await within((trx) => shutOutRegistrant(trx, userId))
    expect(await sessions()).toEqual([{ revoked: true, revoked_reason: 'session' }])
    expect(await keys()).toEqual([{ active: false, revoked_reason: 'revoked', revoked_at: expect.any(Date) }])
    expect(await waysOf(userId)).toEqual([0, 0, 0])
    expect(await sessions(other)).toMatchObject([{ revoked: false }])
    expect(await keys(other)).toMatchObject([{ active: true }])
    expect(await waysOf(other)).toEqual([1, 1, 1])
    expect(await user()).toMatchObject({ status: 'active', password_hash: null })
  })
})

describe('a suspension', () => {
  test('shuts the user out, ends what they have, and is on record', async () => {
    await Promise.all([beginSession(db(), userId, ORIGIN), givenKey()])
    expect(await within((trx) => suspendAccount(trx, userId, by))).toBe(true)
    expect(await user()).toMatchObject({ status: 'suspended', clerk_pending: null })
    expect(await stateOf()).toBe('suspended')
    expect(await sessions()).toEqual([{ revoked: true, revoked_reason: 'suspended' }])
    expect(await keys()).toMatchObject([{ active: false, revoked_reason: 'suspended' }])
    expect(await acts()).toEqual([
      {
        action: 'user.suspend',
        actor_type: 'admin',
        actor_id: boss,
        reason: 'A test.',
        before: { status: 'active' },
        after: { status: 'suspended' },
        details: {},
        target_type: 'user',
      },
    ])
  })

  test('repeated, changes nothing and writes nothing', async () => {
    await within((trx) => suspendAccount(trx, userId, by))
    expect(await within((trx) => suspendAccount(trx, userId, by))).toBe(false)
    expect(await acts()).toHaveLength(1)
  })

  test('taken back lets the user in, with nothing of what they had', async () => {
    await givenKey()
    await within((trx) => suspendAccount(trx, userId, by))
    const late = await beginSession(db(), userId, ORIGIN)
    expect(await within((trx) => reactivateAccount(trx, userId, by))).toBe(true)
    expect(await stateOf()).toBe('active')
    expect(await keys()).toMatchObject([{ active: false, revoked_reason: 'suspended' }])
    await expect(rotateSession(db(), late.refreshToken, ORIGIN)).rejects.toThrow('This session has ended')
    expect((await acts()).at(-1)).toMatchObject({
      action: 'user.reactivate',
      before: { status: 'suspended' },
      after: { status: 'active' },
    })
    expect(await within((trx) => reactivateAccount(trx, userId, by))).toBe(false)
    expect(await acts()).toHaveLength(2)
  })

  test('is for Clerk to hear of, and its end too', async () => {
    userId = await givenOne({ clerkId: `user_${crypto.randomUUID()}` })
    await within((trx) => suspendAccount(trx, userId, by))
    expect(await user()).toMatchObject({ clerk_pending: 'ban' })
    await within((trx) => reactivateAccount(trx, userId, by))
    expect(await user()).toMatchObject({ clerk_pending: 'unban' })
  })

  test('is not for deleted accounts, nor is its end', async () => {
    await within((trx) => deleteAccount(trx, userId, by))
    const refused = (message: string) => refusedAs('CONFLICT', message)
    await expect(within((trx) => suspendAccount(trx, userId, by))).rejects.toEqual(
      refused('A deleted account cannot be suspended.'),
    )
    await expect(within((trx) => reactivateAccount(trx, userId, by))).rejects.toEqual(
      refused('A deleted account is restored, not reactivated.'),
    )
    await expect(within((trx) => changeRole(trx, userId, 'admin', by))).rejects.toEqual(
      refused('A deleted account has no role to change.'),
    )
    expect(await acts()).toHaveLength(1)
  })
})

describe('a role', () => {
  test('is given and taken with a record of both', async () => {
    expect(await within((trx) => changeRole(trx, userId, 'admin', by))).toBe(true)
    expect(await user()).toMatchObject({ role: 'admin' })
    expect(await within((trx) => changeRole(trx, userId, 'admin', by))).toBe(false)
    expect(await within((trx) => changeRole(trx, userId, 'user', by))).toBe(true)
    expect(await user()).toMatchObject({ role: 'user' })
    expect(await acts()).toMatchObject([
      { action: 'user.role', before: { role: 'user' }, after: { role: 'admin' }, target_type: 'user' },
      { action: 'user.role', before: { role: 'admin' }, after: { role: 'user' }, target_type: 'user' },
    ])
  })
})

describe('a deletion', () => {
  test('ends everything at once, and says when the rest goes', async () => {
    await Promise.all([beginSession(db(), userId, ORIGIN), givenKey()])
    expect(await within((trx) => deleteAccount(trx, userId, by))).toBe(true)
    const { deleted_at, purge_after, ...row } = await user()
    expect(row).toMatchObject({ status: 'deleted', purged_at: null, clerk_pending: null, name: 'Ada' })
    expect(purge_after?.getTime()).toBe((deleted_at?.getTime() ?? 0) + 14 * 86_400_000)
    expect(await stateOf()).toBe('unknown_user')
    expect(await sessions()).toEqual([{ revoked: true, revoked_reason: 'deleted' }])
    expect(await keys()).toMatchObject([{ active: false, revoked_reason: 'deleted' }])
    expect(await acts()).toEqual([
      {
        action: 'user.delete',
        actor_type: 'admin',
        actor_id: boss,
        reason: 'A test.',
        before: { status: 'active' },
        after: { status: 'deleted' },
        details: { graceDays: 14 },
        target_type: 'user',
      },
    ])
    const { rows } = await sql`select 1 from clerk_tombstones`.execute(db())
    expect(rows).toEqual([])
  })

  test('repeated, changes nothing: the grace does not begin anew', async () => {
    await within((trx) => deleteAccount(trx, userId, by))
    const before = await user()
    expect(await within((trx) => deleteAccount(trx, userId, by))).toBe(false)
    expect(await user()).toEqual(before)
    expect(await acts()).toHaveLength(1)
  })

  test("buries the user's id at Clerk, also where it is buried already", async () => {
    const clerkId = `user_${crypto.randomUUID()}`
    userId = await givenOne({ clerkId })
    await db().insertInto('clerk_tombstones').values({ clerk_id: clerkId }).execute()
    await within((trx) => deleteAccount(trx, userId, by))
    expect(await user()).toMatchObject({ clerk_pending: 'delete' })
    const tombs = await db().selectFrom('clerk_tombstones').select('clerk_id').where('clerk_id', '=', clerkId).execute()
    expect(tombs).toHaveLength(1)
  })

  test('frees the address at once', async () => {
    const { email } = await user()
    await within((trx) => deleteAccount(trx, userId, by))
    const again = await within((trx) => createUser(trx, { name: 'Ada', email, role: 'user' }))
    expect(again).not.toBe(userId)
  })

  test.each([suspendAccount, reactivateAccount, deleteAccount, restoreAccount])(
    'of nobody is not found',
    async (act) => {
      await expect(within<unknown>((trx) => act(trx, NOBODY, by))).rejects.toEqual(
        refusedAs('NOT_FOUND', 'There is no such user.'),
      )
    },
  )
})

describe('a deletion without payments', () => {
  test('is made whatever was paid for before they were switched off', async () => {
    await db()
      .insertInto('billing_subscriptions')
      .values({
        ...{ id: userId, user_id: userId, plan: 'pro', status: 'active', cancel_at_period_end: false },
        ...{ period_start: '2026-03-01', period_end: '2036-03-01', modified_at: '2026-03-01' },
        ...{ customer_id: 'customer', product_id: 'product' },
      })
      .execute()
    expect(await endCharges(userId)).toBe(false)
    const { purgeAfter } = await closeAccount(userId, by)
    expect((await user()).purge_after?.toISOString()).toBe(purgeAfter)
  })
})

describe('a restoration', () => {
  beforeEach(async () => {
    await within((trx) => deleteAccount(trx, userId, by))
  })

  test('takes the deletion back, but not what it ended', async () => {
    await givenKey()
    await beginSession(db(), userId, ORIGIN)
    await within((trx) => restoreAccount(trx, userId, by))
    expect(await user()).toMatchObject({ status: 'active', deleted_at: null, purge_after: null, clerk_pending: null })
    expect(await stateOf()).toBe('active')
    expect(await sessions()).toEqual([{ revoked: true, revoked_reason: 'deleted' }])
    expect(await keys()).toMatchObject([{ active: false, revoked_reason: 'deleted' }])
    expect((await acts()).at(-1)).toMatchObject({
      action: 'user.restore',
      reason: 'A test.',
      before: { status: 'deleted' },
      after: { status: 'active' },
      target_type: 'user',
    })
  })

  test('is for deleted accounts alone', async () => {
    await within((trx) => restoreAccount(trx, userId, by))
    await expect(within((trx) => restoreAccount(trx, userId, by))).rejects.toEqual(
      refusedAs('CONFLICT', 'This account is not deleted.'),
    )
  })

  test('comes too late when the grace is over, or the purge was made', async () => {
    const late = refusedAs('CONFLICT', 'The time to restore this account is over.')
    await db().updateTable('users').set({ purge_after: sql`now()` }).where('id', '=', userId).execute()
    await expect(within((trx) => restoreAccount(trx, userId, by))).rejects.toEqual(late)
    const soon = { purge_after: sql<Date>`now() + interval '1 day'`, purged_at: sql<Date>`now()` }
    await db().updateTable('users').set(soon).where('id', '=', userId).execute()
    await expect(within((trx) => restoreAccount(trx, userId, by))).rejects.toEqual(late)
    expect(await user()).toMatchObject({ status: 'deleted' })
  })

  test('is refused while the address is taken by another account, also by one of this moment', async () => {
    const { email } = await user()
    const taken = refusedAs('CONFLICT', 'The e-mail address of this account belongs to another one by now.')
    const other = await within((trx) => createUser(trx, { name: 'Ada', email, role: 'user' }))
    await expect(within((trx) => restoreAccount(trx, userId, by))).rejects.toEqual(taken)
    await within((trx) => deleteAccount(trx, other, by))

    let restoring: Promise<unknown> = Promise.resolve()
    await within(async (trx) => {
      await createUser(trx, { name: 'Ada', email, role: 'user' })
      restoring = within((inner) => restoreAccount(inner, userId, by)).catch((error: unknown) => error)
      await somebodyWaits()
    })
    expect(await restoring).toEqual(taken)
    expect(await restoring).toMatchObject({ cause: { code: '23505' } })
    expect(await user()).toMatchObject({ status: 'deleted' })
  })

  test('that the database refuses for another reason says so', async () => {
    const refused = within(async (trx) => {
      await sql.raw(`alter table users add check (id <> '${userId}' or status = 'deleted')`).execute(trx)
      await restoreAccount(trx, userId, by)
    })
    await expect(refused).rejects.toMatchObject({ code: '23514' })
  })

  test('is not for the user when an administrator deleted the account', async () => {
    userId = await givenOne()
    const self = { actor: { type: 'user' as const, id: userId } }
    await within((trx) => deleteAccount(trx, userId, by))
    expect(await user()).toMatchObject({ deleted_by: by.actor.type })
    await expect(within((trx) => restoreAccount(trx, userId, self))).rejects.toEqual(
      refusedAs('CONFLICT', 'This account was deleted by an administrator. Please write to us.'),
    )
    await within((trx) => restoreAccount(trx, userId, by))
    await within((trx) => deleteAccount(trx, userId, self))
    await within((trx) => restoreAccount(trx, userId, self))
    expect(await user()).toMatchObject({ status: 'active', deleted_by: null })
  })

  test('reaches Clerk in time, or finds the user deleted there', async () => {
    const clerkId = `user_${crypto.randomUUID()}`
    userId = await givenOne({ clerkId })
    await within((trx) => deleteAccount(trx, userId, by))
    await within((trx) => restoreAccount(trx, userId, by))
    expect(await user()).toMatchObject({ status: 'active', clerk_id: clerkId, clerk_pending: 'unban' })
    const tombs = db().selectFrom('clerk_tombstones').select('clerk_id').where('clerk_id', '=', clerkId)
    expect(await tombs.execute()).toEqual([])

    await within((trx) => deleteAccount(trx, userId, by))
    await db().updateTable('users').set({ clerk_pending: null }).where('id', '=', userId).execute()
    await expect(within((trx) => restoreAccount(trx, userId, by))).rejects.toEqual(
      refusedAs('CONFLICT', 'Clerk has deleted this user already: they can sign up again.'),
    )
    expect(await tombs.execute()).toHaveLength(1)
  })
})

describe('the last living admin', () => {
  const last = refusedAs('CONFLICT', 'This is the last administrator: make another one first.')

  test('is neither suspended, demoted nor deleted; admins who cannot act do not count', async () => {
    const [suspended, deleted] = [await givenOne({ role: 'admin' }), await givenOne({ role: 'admin' })]
    await within((trx) => suspendAccount(trx, suspended, by))
    await within((trx) => deleteAccount(trx, deleted, by))
    await expect(within((trx) => suspendAccount(trx, boss, by))).rejects.toEqual(last)
    await expect(within((trx) => changeRole(trx, boss, 'user', by))).rejects.toEqual(last)
    await expect(within((trx) => deleteAccount(trx, boss, by))).rejects.toEqual(last)
    await expect(within((trx) => requireDeletable(trx, boss))).rejects.toEqual(last)
    expect(await user(boss)).toMatchObject({ role: 'admin', status: 'active' })
    await within((trx) => requireDeletable(trx, userId))
    await within((trx) => requireDeletable(trx, deleted))
    await within((trx) => changeRole(trx, suspended, 'user', by))
  })

  test('is left by any number of acts at once', async () => {
    const { rows } = await sql<{ id: string }>`update users set role = 'user' where id <> ${boss} returning id`.execute(
      db(),
    )
    expect(rows.length).toBeGreaterThan(0)
    for (let round = 0; round < 5; round += 1) {
      const admins = [boss, ...(await Promise.all([1, 2, 3, 4, 5].map(() => givenOne({ role: 'admin' }))))]
      const takeAway = [suspendAccount, deleteAccount, (trx: Trx, id: string) => changeRole(trx, id, 'user', by)]
      const outcomes = await Promise.allSettled(
        admins.map((id, index) => within<unknown>((trx) => (takeAway[index % 3] ?? suspendAccount)(trx, id, by))),
      )
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(admins.length - 1)
      const left = await db()
        .selectFrom('users')
        .select('id')
        .where('role', '=', 'admin')
        .where('status', '=', 'active')
        .execute()
      expect(left).toHaveLength(1)
      boss = left[0]?.id ?? ''
    }
  })
})
