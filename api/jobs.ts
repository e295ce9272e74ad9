// Work that is answered later, for whoever ordered it; and the housekeeping that the scheduler runs daily.
import { sql } from 'kysely'
import * as v from 'valibot'
import { db } from '../db/client.ts'
import { anchorAudit } from '../lib/audit-chain.ts'
import { sweepClerk } from '../lib/auth/clerk-outbox.ts'
import { sweepMailed } from '../lib/auth/email-tokens.ts'
import { sweepDeletedAccounts } from '../lib/auth/purge.ts'
import { paymentsOffReason } from '../lib/billing/payments.ts'
import { reconcile } from '../lib/billing/reconcile.ts'
import { blobOn, sweepBlobs } from '../lib/blob.ts'
import { config } from '../lib/config.ts'
import { env } from '../lib/env.ts'
import { validate } from '../lib/http/body.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { AppError } from '../lib/http/errors.ts'
import { cancelJob } from '../lib/jobs/cancel.ts'
import { forgetJobs } from '../lib/jobs/forget.ts'
import { jobReply, listOwnJobs, OwnJobsQuery, readJob } from '../lib/jobs/read.ts'
import { startWork, workDue } from '../lib/jobs/worker.ts'
import { sweepLedger } from '../lib/ledger/ledger.ts'
import { deliverWebhooks } from '../lib/outgoing-webhooks.ts'
import { sweepResults } from '../lib/tools/result-cache.ts'

const BATCH = 500
/** Each may wait for Clerk and Polar. */
const ACCOUNTS_MAX = 50
/** Well within a function's time, of which the rest of the sweep takes little. */
const RECONCILE_MS = 100_000
/** No job is begun after that; the last one may take as long as the providers may. */
const JOBS_MS = 60_000
/** For each kind of what is kept no longer. */
const FORGET_MS = 20_000

/** Each may wait for the operator's own program. */
const WEBHOOKS_MAX = 25

const JobId = v.pipe(v.string(), v.uuid(), v.toLowerCase())

export default endpoint({
  'GET /api/jobs': route({ access: 'user', scope: 'generate', limit: 'read', handle: list }),
  'GET /api/jobs/sweep': route({ access: 'cron', handle: sweep }),
  'POST /api/jobs/sweep': route({ access: 'cron', handle: sweep }),
  'GET /api/jobs/:id': route({ access: 'user', scope: 'generate', limit: 'read', handle: read }),
  'DELETE /api/jobs/:id': route({ access: 'user', scope: 'generate', limit: 'read', handle: cancel }),
})

async function list({ caller, url }: Context<'user'>) {
  return await listOwnJobs(db(), caller.userId, validate(OwnJobsQuery, Object.fromEntries(url.searchParams), 'query'))
}

/** Whoever asks for a job that nobody works on gets somebody to: a crash costs them no more than that. */
async function read({ caller, params, request }: Context<'user'>) {
  const job = await readJob(db(), caller.userId, jobIdOf(params.id))
  if (job.due) await startWork()
  return jobReply(job, request.headers.get('accept') ?? '')
}

async function cancel({ caller, params }: Context<'user'>) {
  const id = jobIdOf(params.id)
  await cancelJob(caller.userId, id)
  return { id, status: 'cancelled' }
}

/** Any other id is nobody's. */
function jobIdOf(id: string | undefined): string {
  const jobId = v.safeParse(JobId, id)
  if (jobId.success) return jobId.output
  throw new AppError('NOT_FOUND', 'There is no such job.')
}

/** Works on jobs that wait, gives back orphaned holds, lapses what expired, drops what need not be kept, hears from Polar what no webhook told, and anchors the audit log. */
async function sweep() {
  const jobsEnded = await workDue(JOBS_MS)
  const ledger = await sweepLedger(db(), BATCH)
  const keys = await db().deleteFrom('idempotency_keys').where('expires_at', '<', sql<Date>`now()`).executeTakeFirst()
  const bodies = await db()
    .updateTable('idempotency_keys')
    .set({ body: null })
    .where('body', 'is not', null)
    .where('body_expires_at', '<', sql<Date>`now()`)
    .executeTakeFirst()
  const sessions = await db()
    .deleteFrom('refresh_tokens')
    .where('absolute_expires_at', '<', sql<Date>`now() - interval '7 days'`)
    .executeTakeFirst()
  const failures = await db()
    .deleteFrom('sign_in_failures')
    .where('last_failure_at', '<', sql<Date>`now() - interval '1 day'`)
    .executeTakeFirst()
  const mailed = await sweepMailed(db())
  const billing = paymentsOffReason(config(), env()) === undefined ? await reconcile(RECONCILE_MS) : undefined
  const clerk = config().auth.provider === 'clerk' ? await sweepClerk(ACCOUNTS_MAX) : undefined
  const accounts = await sweepDeletedAccounts(ACCOUNTS_MAX)
  await anchorAudit(db())
  const jobsForgotten = await inBatches(forgetJobs)
  const resultsDeleted = await inBatches((limit) => sweepResults(db(), limit))
  const webhooks = env().outgoingWebhook ? await deliverWebhooks(WEBHOOKS_MAX) : undefined
  const blobs = blobOn() ? await sweepBlobs() : undefined
  return {
    jobsEnded,
    jobsForgotten,
    holdsReturned: ledger.expired,
    lotsLapsed: ledger.lapsed,
    plansMovedOn: ledger.plans,
    idempotencyKeysDeleted: Number(keys.numDeletedRows),
    idempotencyBodiesDeleted: Number(bodies.numUpdatedRows),
    sessionsDeleted: Number(sessions.numDeletedRows),
    signInFailuresForgotten: Number(failures.numDeletedRows),
    plansOfDeletedCancelled: accounts.plansCancelled,
    accountsPurged: accounts.purged,
    purgesPostponed: accounts.postponed,
    resultsDeleted,
    ...(webhooks && { webhooks }),
    ...blobs,
    ...mailed,
    ...(clerk && { clerk }),
    ...(billing && { billing }),
  }
}

/** Whatever a day left behind is gone by its sweep, however much it is, or at the end of the time for it. */
async function inBatches(work: (limit: number) => Promise<number>): Promise<number> {
  const endsAtMs = Date.now() + FORGET_MS
  let total = 0
  for (;;) {
    const done = await work(BATCH)
    total += done
    if (done < BATCH || Date.now() > endsAtMs) return total
  }
}
