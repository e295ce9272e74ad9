// How a job ends, once: tokens, row and event in one transaction, by the worker whose lease still stands.
import { sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import type { Made } from '../ai/router.ts'
import { config } from '../config.ts'
import { AppError } from '../http/errors.ts'
import { type Closing, recordCalls, recordLost, release, settle, type UsageRecord } from '../ledger/holds.ts'
import { log } from '../log.ts'
import { type OutgoingEvent, tell } from '../outgoing-webhooks.ts'
import type { Generation } from '../tools/generate.ts'
import { factsOf, mediaTypeOf } from '../tools/reply.ts'
import type { ClaimedJob } from './claim.ts'
import { forgetResult, type StoredResult, storeResult } from './result.ts'

/** The first wait before another try; doubled with each, up to the longest. */
const RETRY_SECONDS = 5
const RETRY_SECONDS_MAX = 600

/** 'lost': somebody else has the job by now, or it was cancelled; this worker changed nothing of it. */
export type Ending = { kind: 'succeeded' | 'failed' | 'cancelled' | 'lost' } | { kind: 'retry'; afterMs: number }

/** Undoes the transaction of a worker that may not end the job any more. */
class LeaseLost extends Error {
  override readonly name = 'LeaseLost'
}

/** Charges for the result, with `tokens` less than was held, and keeps it. Throws when it could not be kept; then nothing was charged. */
export async function succeed(
  job: ClaimedJob,
  { made, usage, tokens }: { made: Made; usage: UsageRecord; tokens: number | undefined },
): Promise<Ending> {
  const stored = await storeResult(job.id, made)
  const whole = { ...usage, costMicroUsd: usage.costMicroUsd + job.costMicroUsd }
  const end = () =>
    db()
      .transaction()
      .execute(async (trx) => {
        const closing = await charge(trx, job, whole, tokens)
        await requireSettled(trx, job, closing)
        await close(trx, job, 'succeeded', {
          result: stored.bytes,
          result_url: stored.url,
          result_type: mediaTypeOf(stored.result),
          facts: storable(
            factsOfJob(job, { made, closing, cached: usage.cached, stored, processingMs: usage.durationMs }),
          ),
        })
      })
  try {
    await twice(end)
    return { kind: 'succeeded' }
  } catch (error) {
    const ending = error instanceof LeaseLost ? await leave(job, usage) : undefined
    // After a lost connection it may be the job's result all the same; the store is swept of what is nobody's.
    if (ending ? ending.kind !== 'succeeded' : error instanceof AppError) await forgetResult(stored)
    if (ending) return ending
    throw error
  }
}

/** What costs nothing takes no trial generation either. */
async function charge(
  trx: Transaction<Database>,
  { holdId }: ClaimedJob,
  usage: UsageRecord,
  tokens: number | undefined,
): Promise<Closing> {
  if (tokens !== 0) return await settle(trx, holdId, usage, undefined, tokens)
  return { ...(await release(trx, holdId, usage)), trial: false }
}

/** Again on a lost connection: ending twice is ending once, and what is paid for must be kept. */
async function twice<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (error) {
    if (error instanceof LeaseLost || error instanceof AppError) throw error
    return await act()
  }
}

/** A hold that is gone under a lease that stands has outlived its time. */
async function requireSettled(trx: Transaction<Database>, job: ClaimedJob, { closed }: Closing): Promise<void> {
  if (closed) return
  if (!(await holdsLease(trx, job))) throw new LeaseLost()
  throw new AppError('PROVIDER_TIMEOUT', 'The work was not done in its time. Nothing was charged.')
}

/** Ends the job without a result; its tokens come back. */
export async function fail(job: ClaimedJob, failure: AppError, usage: UsageRecord): Promise<Ending> {
  const { code, message, details } = failure
  log('warn', 'job_failed', { job: job.id, code, attempts: job.attempts })
  const end = async (trx: Transaction<Database>): Promise<Ending> => {
    await release(trx, job.holdId, { ...usage, costMicroUsd: usage.costMicroUsd + job.costMicroUsd })
    await close(trx, job, 'failed', { error: storable({ code, message, details }) })
    return { kind: 'failed' }
  }
  return await unlessLost(job, usage, () => twice(() => db().transaction().execute(end)))
}

/**
 * Puts the job back for another try, after a wait that doubles each time, up to when it is given up; half of it is chance. Where
 * nobody was asked it loses no try, waits as long again as it has waited, and at least until somebody may be asked.
 */
export async function retryLater(
  job: ClaimedJob,
  usage: UsageRecord,
  nobodyAsked?: { retryAfterSeconds: number },
): Promise<Ending> {
  const seconds = nobodyAsked
    ? sql`extract(epoch from now() - started_at)`
    : sql`${RETRY_SECONDS * 2 ** (job.attempts - 1)}::float8`
  const wait = sql`greatest(${RETRY_SECONDS}, least(${RETRY_SECONDS_MAX}, ${seconds})) * (0.5 + random() / 2)`
  const atLeast = nobodyAsked?.retryAfterSeconds ?? 0
  return await unlessLost(job, usage, () =>
    db()
      .transaction()
      .execute(async (trx) => {
        const row = await trx
          .updateTable('jobs')
          .set({
            status: 'queued',
            lease: null,
            lease_until: null,
            run_after: sql<Date>`least(expires_at, now() + make_interval(secs => greatest(${atLeast}::float8, ${wait})))`,
            ...(nobodyAsked && { attempts: job.attempts - 1 }),
            cost_micro_usd: job.costMicroUsd + usage.costMicroUsd,
          })
          .where('id', '=', job.id)
          .where('lease', '=', job.lease)
          .where('status', '=', 'running')
          .returning(sql<number>`ceil(extract(epoch from run_after - now()) * 1000)::int`.as('afterMs'))
          .executeTakeFirst()
        if (!row) throw new LeaseLost()
        await recordCalls(trx, usage)
        return { kind: 'retry', afterMs: row.afterMs }
      }),
  )
}

/** Ends a job that nobody worked on this time: for `failure`, or for what its claim found. */
export async function endUnmade(job: ClaimedJob, failure?: AppError): Promise<Ending> {
  const reason = failure ?? REASONS[job.verdict]?.() ?? new AppError('INTERNAL_ERROR', 'The work was not done.')
  const usage = unmadeUsage({ ...job, jobId: job.id }, reason.code)
  if (job.verdict !== 'shut_out') return await fail(job, reason, usage)
  const end = async (trx: Transaction<Database>): Promise<Ending> => {
    await release(trx, job.holdId, { ...usage, costMicroUsd: job.costMicroUsd })
    await close(trx, job, 'cancelled', {})
    return { kind: 'cancelled' }
  }
  return await unlessLost(job, usage, () => twice(() => db().transaction().execute(end)))
}

const REASONS: Partial<Record<ClaimedJob['verdict'], () => AppError>> = {
  expired: () => new AppError('PROVIDER_TIMEOUT', 'The work was not done in its time. Nothing was charged.'),
  exhausted: () =>
    new AppError('INTERNAL_ERROR', 'The work was broken off each time it was tried. Nothing was charged.'),
  shut_out: () => new AppError('ACCOUNT_SUSPENDED', 'This account is suspended.'),
}

/** The usage row of a job for which no provider was asked this time. */
export function unmadeUsage(
  run: Pick<UsageRecord, 'userId' | 'toolId' | 'requestId' | 'freeTier' | 'jobId'>,
  errorCode: string,
): UsageRecord {
  const { userId, toolId, requestId, freeTier, jobId } = run
  return {
    userId,
    toolId,
    requestId,
    freeTier,
    jobId,
    errorCode,
    status: errorCode === 'PROVIDER_TIMEOUT' ? 'timeout' : 'error',
    durationMs: 0,
    provider: undefined,
    model: undefined,
    costMicroUsd: 0,
    fallback: false,
    cached: false,
    calls: [],
  }
}

/** What every end sets: the input goes, the row stays for as long as results are kept. */
export function ended() {
  return {
    finished_at: sql<Date>`now()`,
    expires_at: sql<Date>`now() + make_interval(hours => ${config().jobs.keepHours})`,
    input: null,
    input_text: null,
  }
}

/** Tells the operator's own program, in the transaction of the end. */
export async function tellEnd(
  trx: Transaction<Database>,
  status: 'succeeded' | 'failed' | 'cancelled',
  { id, userId, tool, requestId, attempts }: Pick<ClaimedJob, 'id' | 'userId' | 'tool' | 'requestId' | 'attempts'>,
): Promise<void> {
  const type: OutgoingEvent = `job.${status}`
  await tell(trx, { type, uniqueKey: `job:${id}`, data: { jobId: id, status, userId, tool, requestId, attempts } })
}

type ResultColumns = {
  result?: Buffer | null
  result_url?: string | null
  result_type?: string
  facts?: string
  error?: string
}

async function close(
  trx: Transaction<Database>,
  job: ClaimedJob,
  status: 'succeeded' | 'failed' | 'cancelled',
  columns: ResultColumns,
): Promise<void> {
  // The lease stays on the row: it says whose end this was.
  const { numUpdatedRows } = await trx
    .updateTable('jobs')
    .set({ status, ...columns, ...ended() })
    .where('id', '=', job.id)
    .where('lease', '=', job.lease)
    .where('status', '=', 'running')
    .executeTakeFirst()
  if (numUpdatedRows === 0n) throw new LeaseLost()
  await tellEnd(trx, status, job)
}

async function unlessLost(job: ClaimedJob, usage: UsageRecord, end: () => Promise<Ending>): Promise<Ending> {
  try {
    return await end()
  } catch (error) {
    if (error instanceof LeaseLost) return await leave(job, usage)
    throw error
  }
}

/** The job is not ours any more, but what we asked of providers was paid for; or it had its end from us, and the answer was lost. */
async function leave(job: ClaimedJob, usage: UsageRecord): Promise<Ending> {
  const { id, lease, holdId } = job
  const row = await db().selectFrom('jobs').select(['status', 'lease']).where('id', '=', id).executeTakeFirst()
  const status = row?.status
  if (row?.lease === lease && (status === 'succeeded' || status === 'failed' || status === 'cancelled'))
    return { kind: status }
  log('info', 'job_lease_lost', { job: id, attempt: job.attempts })
  await recordLost(db(), holdId, { ...usage, errorCode: status === 'cancelled' ? 'CANCELLED' : 'TAKEN_OVER' })
  return { kind: 'lost' }
}

async function holdsLease(trx: Transaction<Database>, { id, lease }: ClaimedJob): Promise<boolean> {
  const row = await trx
    .selectFrom('jobs')
    .select('status')
    .where('id', '=', id)
    .where('lease', '=', lease)
    .executeTakeFirst()
  return row?.status === 'running'
}

function factsOfJob(
  job: ClaimedJob,
  { made, stored, ...rest }: Omit<Generation, 'requestedProvider'> & { stored: StoredResult },
): Record<string, unknown> {
  const { result, reencoded } = stored
  const whole = { ...made, result, costMicroUsd: made.costMicroUsd + job.costMicroUsd }
  const requestedProvider = job.requestedProvider ?? undefined
  return { ...factsOf({ ...rest, made: whole, requestedProvider }, job.requestId), ...(reencoded && { reencoded }) }
}

/** JSON that PostgreSQL takes: models may write characters that it does not. */
function storable(value: unknown): string {
  return JSON.stringify(value, (_name, inner: unknown) =>
    typeof inner === 'string' ? inner.toWellFormed().replaceAll('\0', '') : inner,
  )
}
