// What Clerk has yet to be told of users: banned, let in again, deleted. Our own database says so first.
import { sql } from 'kysely'
import { db } from '../../db/client.ts'
import { config } from '../config.ts'
import { env } from '../env.ts'
import { describeError, log } from '../log.ts'
import { actAtClerk, type ClerkAct } from './clerk.ts'

/** A newer act may be written while Clerk is told of an older one; more than this is left for the sweep. */
const ACTS_MAX = 3
/** Clerk is down, and every further try would cost its timeout. */
const FAILURES_IN_A_ROW_MAX = 5

/** Tells Clerk what users.clerk_pending says, if anything. Never throws: what fails is left for the sweep. */
export async function tellClerk(userId: string): Promise<void> {
  await tell(userId)
}

/** Tells Clerk what earlier tries could not, up to `limit` users; gives up early when nothing gets through. */
export async function sweepClerk(limit: number): Promise<{ told: number; failed: number }> {
  if (!canTell()) return { told: 0, failed: 0 }
  const waiting = await db()
    .selectFrom('users')
    .select('id')
    .where('clerk_pending', 'is not', null)
    .where('clerk_id', 'is not', null)
    .orderBy('updated_at')
    .limit(limit)
    .execute()
  let [told, failed, inARow] = [0, 0, 0]
  for (const { id } of waiting) {
    if (inARow === FAILURES_IN_A_ROW_MAX) break
    const isTold = await tell(id)
    inARow = isTold ? 0 : inARow + 1
    if (isTold) {
      told += 1
    } else {
      failed += 1
      await moveBack(id)
    }
  }
  return { told, failed }
}

/** Puts a user behind the others who wait: an update of any kind sets updated_at. */
async function moveBack(userId: string): Promise<void> {
  await db().updateTable('users').set({ clerk_pending: sql`clerk_pending` }).where('id', '=', userId).execute()
}

/** Whether nothing is left to be told. */
async function tell(userId: string): Promise<boolean> {
  try {
    if (!canTell()) return false
    for (let acts = 0; acts < ACTS_MAX; acts++) {
      const user = await db()
        .selectFrom('users')
        .select(['clerk_id', 'clerk_pending'])
        .where('id', '=', userId)
        .executeTakeFirst()
      if (!user?.clerk_id || user.clerk_pending === null) return true
      await actAtClerk(user.clerk_pending, user.clerk_id)
      await forget(userId, user.clerk_pending)
    }
    return false
  } catch (error) {
    log('warn', 'clerk_not_told', { user: userId, error: describeError(error) })
    return false
  }
}

function canTell(): boolean {
  return config().auth.provider === 'clerk' && env().clerk.secretKey !== undefined
}

/**
 * Clears what was told. When something newer was written and told meanwhile, nobody knows what reached Clerk last: it is told once
 * more, by what the account is now.
 */
async function forget(userId: string, act: ClerkAct): Promise<void> {
  const { numUpdatedRows } = await db()
    .updateTable('users')
    .set({ clerk_pending: null })
    .where('id', '=', userId)
    .where('clerk_pending', '=', act)
    .executeTakeFirst()
  if (numUpdatedRows > 0n || act === 'delete') return
  const opposite = act === 'ban' ? 'unban' : 'ban'
  await db()
    .updateTable('users')
    .set({ clerk_pending: opposite })
    .where('id', '=', userId)
    .where('clerk_pending', 'is', null)
    .where('status', '=', opposite === 'ban' ? 'suspended' : 'active')
    .execute()
}
