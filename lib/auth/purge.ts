// What the sweep does about deleted accounts: no plan goes on charging, and after the grace what names the person goes.
import { type Kysely, sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { recordAudit } from '../audit.ts'
import { LIVING } from '../billing/manage.ts'
import { forgetJobsOf } from '../jobs/forget.ts'
import { describeError, log } from '../log.ts'
import { tellClerk } from './clerk-outbox.ts'
import { endCharges } from './deletion.ts'

/** Rows that name the person and that nothing else needs. */
const OWN_TABLES = [
  'refresh_tokens',
  'mfa_factors',
  'mfa_recovery_codes',
  'email_tokens',
  'idempotency_keys',
  'result_cache',
  'api_keys',
] as const

/**
 * Cancels plans that charge the owners of deleted accounts, and purges accounts whose grace is over; up to `limit` of each. What
 * fails for one user is left for the next sweep and holds up no other; so is who Clerk has yet to delete.
 */
export async function sweepDeletedAccounts(
  limit: number,
): Promise<{ plansCancelled: number; purged: number; postponed: number }> {
  const charged = await eachOf(await chargedOf(db(), limit), endCharges)
  const purges = await eachOf(await dueOf(db(), limit), purgeAccount)
  return { plansCancelled: charged.done, purged: purges.done, postponed: purges.postponed }
}

/** Purges the account if its time has come; false when it has not, when it is done, or when Clerk has yet to delete its user. */
export async function purgeAccount(userId: string): Promise<boolean> {
  await tellClerk(userId)
  return await db()
    .transaction()
    .execute(async (trx) => {
      const user = await trx
        .selectFrom('users')
        .select('id')
        .where('id', '=', userId)
        .where(isDue)
        .where((eb) => eb.or([eb('clerk_pending', 'is', null), eb('clerk_pending', '<>', 'delete')]))
        .forNoKeyUpdate()
        .executeTakeFirst()
      if (!user) return false
      await forget(trx, userId)
      return true
    })
}

/** What stays is what the books need: ledger, usage and orders, under an id that names nobody any more. */
async function forget(trx: Transaction<Database>, userId: string): Promise<void> {
  for (const table of OWN_TABLES) await trx.deleteFrom(table).where('user_id', '=', userId).execute()
  await forgetJobsOf(trx, userId)
  await trx
    .updateTable('users')
    .set({
      name: 'Deleted user',
      email: `deleted-${userId}@deleted.invalid`,
      password_hash: null,
      preferences: '{}',
      clerk_id: null,
      clerk_updated_at: null,
      clerk_pending: null,
      email_verified_at: null,
      signup_network: null,
      purged_at: sql<Date>`now()`,
    })
    .where('id', '=', userId)
    .execute()
  await recordAudit(trx, { actor: { type: 'system' }, action: 'user.purge', target: { type: 'user', id: userId } })
}

const isDue = sql<boolean>`status = 'deleted' and purged_at is null and purge_after <= now()`

/** Those whom Clerk waits for come last, so that they keep nobody else waiting. */
async function dueOf(database: Kysely<Database>, limit: number): Promise<string[]> {
  const due = await database
    .selectFrom('users')
    .select('id')
    .where(isDue)
    .orderBy(sql`clerk_pending is not null`)
    .orderBy('purge_after')
    .orderBy('id')
    .limit(limit)
    .execute()
  return due.map(({ id }) => id)
}

/** Whoever bought a plan in the moment of the deletion, or was deleted at Clerk. */
async function chargedOf(database: Kysely<Database>, limit: number): Promise<string[]> {
  const charged = await database
    .selectFrom('billing_subscriptions as subscription')
    .innerJoin('users', 'users.id', 'subscription.user_id')
    .select('users.id')
    .distinct()
    .where('users.status', '=', 'deleted')
    .where('subscription.status', 'in', LIVING)
    .where('subscription.cancel_at_period_end', '=', false)
    .limit(limit)
    .execute()
  return charged.map(({ id }) => id)
}

async function eachOf(userIds: string[], act: (userId: string) => Promise<boolean>) {
  let done = 0
  for (const userId of userIds) {
    try {
      if (await act(userId)) done += 1
    } catch (error) {
      log('warn', 'deleted_account_postponed', { userId, error: describeError(error) })
    }
  }
  return { done, postponed: userIds.length - done }
}
