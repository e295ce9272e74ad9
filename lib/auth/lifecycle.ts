// The life of an account: suspended, taken back, promoted, deleted, restored. Each act is one with its audit row, in the caller's
// transaction; Clerk is told after the commit (clerk-outbox.ts).
import { sql, type Transaction } from 'kysely'
import { isUniqueViolation } from '../../db/errors.ts'
import type { Database, Role, UserStatus } from '../../db/schema.ts'
import { type Actor, recordAudit } from '../audit.ts'
import { config } from '../config.ts'
import { AppError } from '../http/errors.ts'
import { cancelJobs } from '../jobs/cancel.ts'
import { revokeOtherSessions } from './sessions.ts'

type Trx = Transaction<Database>

/** Ends every session, every key and all waiting work of the user, inside the transaction that says why. */
export async function endAccess(trx: Trx, userId: string, reason: 'suspended' | 'deleted'): Promise<void> {
  await revokeOtherSessions(trx, userId, null, reason)
  await endKeys(trx, userId, reason)
  await cancelJobs(trx, userId)
}

/**
 * Takes everything away that lets somebody in, for an address that its owner proves only now: whoever registered it may have been
 * somebody else. The password is the caller's to change.
 */
export async function shutOutRegistrant(trx: Trx, userId: string): Promise<void> {
  await revokeOtherSessions(trx, userId, null, 'session')
  await endKeys(trx, userId, 'revoked')
  for (const table of ['email_tokens', 'mfa_recovery_codes', 'mfa_factors'] as const) {
    await trx.deleteFrom(table).where('user_id', '=', userId).execute()
  }
}

async function endKeys(trx: Trx, userId: string, reason: 'revoked' | 'suspended' | 'deleted'): Promise<void> {
  // Whoever spends by key locks the account and then the key, and so do we.
  await sql`select 1 from ledger_account where user_id = ${userId} for no key update`.execute(trx)
  await trx
    .updateTable('api_keys')
    .set({ active: false, revoked_at: sql<Date>`now()`, revoked_reason: reason })
    .where('user_id', '=', userId)
    .where('active', '=', true)
    .execute()
}

/** Shuts the user out at once: false when they are out already. Throws NOT_FOUND, or CONFLICT for the last admin. */
export async function suspendAccount(trx: Trx, userId: string, by: Actor): Promise<boolean> {
  const user = await lockUser(trx, userId)
  if (user.status === 'deleted') throw new AppError('CONFLICT', 'A deleted account cannot be suspended.')
  if (user.status === 'suspended') return false
  await requireAnotherAdmin(trx, user)
  await changeStatus(trx, user, 'suspended', by)
  await endAccess(trx, userId, 'suspended')
  return true
}

/** Lets a suspended user sign in anew; false when they could already. Throws NOT_FOUND, or CONFLICT when the account is deleted. */
export async function reactivateAccount(trx: Trx, userId: string, by: Actor): Promise<boolean> {
  const user = await lockUser(trx, userId)
  if (user.status === 'deleted') throw new AppError('CONFLICT', 'A deleted account is restored, not reactivated.')
  if (user.status === 'active') return false
  // What was being made in the moment of the suspension must not come to life now.
  await endAccess(trx, userId, 'suspended')
  await changeStatus(trx, user, 'active', by)
  return true
}

/** Gives the user a role, in force with the next request. False when it was theirs. Throws NOT_FOUND, or CONFLICT for the last admin. */
export async function changeRole(trx: Trx, userId: string, role: Role, by: Actor): Promise<boolean> {
  const user = await lockUser(trx, userId)
  if (user.status === 'deleted') throw new AppError('CONFLICT', 'A deleted account has no role to change.')
  if (user.role === role) return false
  await requireAnotherAdmin(trx, user)
  await trx.updateTable('users').set({ role }).where('id', '=', userId).execute()
  await recordAudit(trx, {
    ...by,
    action: 'user.role',
    target: { type: 'user', id: userId },
    before: { role: user.role },
    after: { role },
  })
  return true
}

/** Throws NOT_FOUND, or CONFLICT for the last admin, unless the account can be deleted now or is deleted already. */
export async function requireDeletable(trx: Trx, userId: string): Promise<void> {
  await requireAnotherAdmin(trx, await lockUser(trx, userId))
}

/**
 * Marks the account as deleted and audits it; the sweep purges it after the grace. False when it was deleted before. Throws
 * NOT_FOUND, or CONFLICT for the last admin. What the user pays for is ended before (see deletion.ts).
 */
export async function deleteAccount(trx: Trx, userId: string, by: Actor): Promise<boolean> {
  const user = await lockUser(trx, userId)
  if (user.status === 'deleted') return false
  await requireAnotherAdmin(trx, user)
  const graceDays = config().auth.deletionGraceDays
  await trx
    .updateTable('users')
    .set({
      status: 'deleted',
      deleted_by: by.actor.type,
      deleted_at: sql<Date>`now()`,
      purge_after: sql<Date>`now() + make_interval(days => ${graceDays})`,
      ...(user.clerk_id !== null && { clerk_pending: 'delete' as const }),
    })
    .where('id', '=', userId)
    .execute()
  if (user.clerk_id !== null) {
    const tombstone = { clerk_id: user.clerk_id }
    await trx
      .insertInto('clerk_tombstones')
      .values(tombstone)
      .onConflict((conflict) => conflict.doNothing())
      .execute()
  }
  await endAccess(trx, userId, 'deleted')
  await recordAudit(trx, {
    ...by,
    action: 'user.delete',
    target: { type: 'user', id: userId },
    before: { status: user.status },
    after: { status: 'deleted' },
    details: { graceDays },
  })
  return true
}

/**
 * Takes a deletion back within the grace; users only their own. Throws NOT_FOUND, or CONFLICT when there is none to take back, when the
 * address belongs to another account by now, or when Clerk has deleted its user already.
 */
export async function restoreAccount(trx: Trx, userId: string, by: Actor): Promise<void> {
  const user = await lockUser(trx, userId)
  if (user.status !== 'deleted') throw new AppError('CONFLICT', 'This account is not deleted.')
  if (by.actor.type === 'user' && user.deleted_by !== 'user') {
    throw new AppError('CONFLICT', 'This account was deleted by an administrator. Please write to us.')
  }
  if (!user.in_grace) throw new AppError('CONFLICT', 'The time to restore this account is over.')
  if (user.clerk_id !== null && user.clerk_pending !== 'delete') {
    throw new AppError('CONFLICT', 'Clerk has deleted this user already: they can sign up again.')
  }
  if (user.clerk_id !== null) {
    await trx.deleteFrom('clerk_tombstones').where('clerk_id', '=', user.clerk_id).execute()
  }
  await endAccess(trx, userId, 'deleted')
  await trx
    .updateTable('users')
    // Whoever was suspended before the deletion is banned at Clerk.
    .set({
      status: 'active',
      deleted_by: null,
      deleted_at: null,
      purge_after: null,
      clerk_pending: user.clerk_id === null ? null : 'unban',
    })
    .where('id', '=', userId)
    .execute()
    .catch((cause) => {
      throw isUniqueViolation(cause) ? addressTaken(cause) : cause
    })
  await recordAudit(trx, {
    ...by,
    action: 'user.restore',
    target: { type: 'user', id: userId },
    before: { status: 'deleted' },
    after: { status: 'active' },
  })
}

type LockedUser = Awaited<ReturnType<typeof lockUser>>

/** The user, locked until the transaction ends: acts on one account take turns. */
async function lockUser(trx: Trx, userId: string) {
  const user = await trx
    .selectFrom('users')
    .select(['id', 'role', 'status', 'deleted_by', 'clerk_id', 'clerk_pending'])
    .select(sql<boolean>`coalesce(purge_after > now() and purged_at is null, false)`.as('in_grace'))
    .where('id', '=', userId)
    .forNoKeyUpdate()
    .executeTakeFirst()
  if (!user) throw new AppError('NOT_FOUND', 'There is no such user.')
  return user
}

/** Acts that take an admin away take turns too, so that two admins cannot take each other away. */
async function requireAnotherAdmin(trx: Trx, { id, role, status }: LockedUser): Promise<void> {
  if (role !== 'admin' || status !== 'active') return
  await sql`select pg_advisory_xact_lock(hashtextextended('last_admin', 0))`.execute(trx)
  const other = await trx
    .selectFrom('users')
    .select('id')
    .where('role', '=', 'admin')
    .where('status', '=', 'active')
    .where('id', '<>', id)
    .limit(1)
    .executeTakeFirst()
  if (!other) throw new AppError('CONFLICT', 'This is the last administrator: make another one first.')
}

async function changeStatus(
  trx: Trx,
  user: LockedUser,
  status: Exclude<UserStatus, 'deleted'>,
  by: Actor,
): Promise<void> {
  const clerkPending = status === 'suspended' ? 'ban' : 'unban'
  await trx
    .updateTable('users')
    .set({ status, ...(user.clerk_id !== null && { clerk_pending: clerkPending }) })
    .where('id', '=', user.id)
    .execute()
  await recordAudit(trx, {
    ...by,
    action: status === 'suspended' ? 'user.suspend' : 'user.reactivate',
    target: { type: 'user', id: user.id },
    before: { status: user.status },
    after: { status },
  })
}

function addressTaken(cause: unknown): AppError {
  return new AppError('CONFLICT', 'The e-mail address of this account belongs to another one by now.', { cause })
}
