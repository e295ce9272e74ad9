// Deleting an account from end to end: no more charges, then the account itself, then word to Clerk.
import { db } from '../../db/client.ts'
import type { Actor } from '../audit.ts'
import { isCharged, setCancellation } from '../billing/manage.ts'
import { paymentsOffReason } from '../billing/payments.ts'
import { config } from '../config.ts'
import { env } from '../env.ts'
import { tellClerk } from './clerk-outbox.ts'
import { deleteAccount, requireDeletable } from './lifecycle.ts'

/**
 * Deletes the account, once the plan that it pays for is cancelled. Repeated, it changes nothing and answers the same. Throws
 * NOT_FOUND, CONFLICT for the last admin, or PROVIDER_ERROR when Polar cannot be told: then nothing was deleted.
 */
export async function closeAccount(
  userId: string,
  by: Actor,
): Promise<{ status: 'deleted'; purgeAfter: string | null }> {
  // Looked at before Polar is asked: who cannot be deleted keeps the plan.
  await db()
    .transaction()
    .execute((trx) => requireDeletable(trx, userId))
  await endCharges(userId)
  await db()
    .transaction()
    .execute((trx) => deleteAccount(trx, userId, by))
  await tellClerk(userId)
  const { purge_after } = await db()
    .selectFrom('users')
    .select('purge_after')
    .where('id', '=', userId)
    .executeTakeFirstOrThrow()
  return { status: 'deleted', purgeAfter: purge_after?.toISOString() ?? null }
}

/** Cancels what the user pays for; false when there is nothing. Throws PROVIDER_ERROR, or CONFLICT when Polar refuses and goes on charging. */
export async function endCharges(userId: string): Promise<boolean> {
  if (paymentsOffReason(config(), env()) !== undefined || !(await isCharged(userId))) return false
  try {
    await setCancellation(userId, true)
  } catch (error) {
    // What had ended at Polar already is known by now.
    if (await isCharged(userId)) throw error
  }
  return true
}
