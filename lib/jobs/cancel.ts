// Jobs that are called off: their tokens come back at once, and whoever works on them finds the lease gone.
import { sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { AppError } from '../http/errors.ts'
import { release } from '../ledger/holds.ts'
import { ended, tellEnd, unmadeUsage } from './end.ts'

/** Cancels the user's job. Throws NOT_FOUND, or CONFLICT when it has ended. */
export async function cancelJob(userId: string, jobId: string): Promise<void> {
  const cancelled = await db()
    .transaction()
    .execute((trx) => cancelJobs(trx, userId, jobId))
  if (cancelled > 0) return
  const job = await db()
    .selectFrom('jobs')
    .select('status')
    .where('id', '=', jobId)
    .where('user_id', '=', userId)
    .executeTakeFirst()
  if (!job) throw new AppError('NOT_FOUND', 'There is no such job.')
  const { status } = job
  throw new AppError('CONFLICT', `This job has ended already: it is ${status}.`, { details: { status } })
}

/** Cancels whatever of the user's is waiting or running, or the one job, in the transaction that says why; returns how many. */
export async function cancelJobs(trx: Transaction<Database>, userId: string, jobId?: string): Promise<number> {
  // Whoever ends a job locks the account and then the job, and so do we.
  await sql`select 1 from ledger_account where user_id = ${userId} for no key update`.execute(trx)
  let cancelling = trx
    .updateTable('jobs')
    .from('tools')
    .whereRef('tools.name', '=', 'jobs.tool')
    .where('jobs.user_id', '=', userId)
    .where('jobs.status', 'in', ['queued', 'running'])
    .set({ ...ended(), status: 'cancelled', lease: null, lease_until: null })
    .returning(['jobs.id', 'tools.id as toolId', 'jobs.tool', 'jobs.request_id as requestId', 'jobs.attempts'])
    .returning(['jobs.hold_id as holdId', 'jobs.free_tier as freeTier', 'jobs.cost_micro_usd as costMicroUsd'])
  if (jobId !== undefined) cancelling = cancelling.where('jobs.id', '=', jobId)
  const jobs = await cancelling.execute()
  for (const job of jobs) {
    const usage = unmadeUsage({ ...job, userId, jobId: job.id }, 'CANCELLED')
    await release(trx, job.holdId, { ...usage, costMicroUsd: job.costMicroUsd })
    await tellEnd(trx, 'cancelled', { ...job, userId })
  }
  return jobs.length
}
