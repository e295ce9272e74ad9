// What is not kept: jobs whose time is over, and those of accounts that are purged.
import { sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { blobOn, deleteBlobs } from '../blob.ts'
import { describeError, log } from '../log.ts'
import { cancelJobs } from './cancel.ts'

/** Deletes ended jobs that are kept no longer, up to `limit`, with what the store has of them; returns how many. */
export async function forgetJobs(limit: number): Promise<number> {
  const over = await db()
    .selectFrom('jobs')
    .select(['id', 'result_url'])
    .where('finished_at', 'is not', null)
    .where('expires_at', '<=', sql<Date>`now()`)
    // First what needs no store, so that one that is away keeps nothing else.
    .orderBy(sql`result_url is not null`)
    .orderBy('expires_at')
    .limit(limit)
    .execute()
  // The store first: once the row is gone, nobody knows of the picture any more.
  const stored = over.flatMap(({ result_url }) => (result_url === null ? [] : [result_url]))
  const gone = stored.length === 0 || !blobOn() || (await deleteStored(stored))
  const ids = over.filter(({ result_url }) => gone || result_url === null).map(({ id }) => id)
  if (ids.length === 0) return 0
  const { numDeletedRows } = await db().deleteFrom('jobs').where('id', 'in', ids).executeTakeFirst()
  return Number(numDeletedRows)
}

/** False when the store cannot be reached: the next sweep tries again. */
async function deleteStored(urls: string[]): Promise<boolean> {
  try {
    await deleteBlobs(urls)
    return true
  } catch (error) {
    log('warn', 'job_results_not_deleted', { error: describeError(error) })
    return false
  }
}

/** Empties the user's jobs of everything that came from them or was made for them; the next sweep deletes the rows. */
export async function forgetJobsOf(trx: Transaction<Database>, userId: string): Promise<void> {
  await cancelJobs(trx, userId)
  await trx
    .updateTable('jobs')
    .set({ input: null, input_text: null, options: '{}', result: null, facts: null, error: null })
    .set({ expires_at: sql<Date>`now()` })
    .where('user_id', '=', userId)
    .execute()
}
