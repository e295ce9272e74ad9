// Jobs as their owners and administrators see them.
import { type Kysely, sql } from 'kysely'
import * as v from 'valibot'
import type { Database, JobStatus } from '../../db/schema.ts'
import { AppError } from '../http/errors.ts'
import { Cursor, isAfter, microsOf, type Page, PageLimit, pageOf, positionOf } from '../paging.ts'
import { sendBytes, wantsBytes, withResult } from '../tools/reply.ts'

const RUNNING_SECONDS = 2
const WAITING_SECONDS_MAX = 60

const JobsQuery = {
  status: v.optional(v.picklist(['queued', 'running', 'succeeded', 'failed', 'cancelled'])),
  limit: PageLimit,
  cursor: v.optional(
    v.pipe(
      Cursor,
      v.check(({ id }) => v.is(v.pipe(v.string(), v.uuid()), id), 'Not a cursor of ours.'),
    ),
  ),
}
export const OwnJobsQuery = v.strictObject(JobsQuery)
export const AllJobsQuery = v.strictObject({ ...JobsQuery, user: v.optional(v.pipe(v.string(), v.uuid())) })

interface ListedJob {
  id: string
  status: JobStatus
  tool: string
  attempts: number
  createdAt: Date
  startedAt: Date | null
  finishedAt: Date | null
  error?: Record<string, unknown>
}

/** The user's jobs, the newest first, without results. */
export async function listOwnJobs(
  db: Kysely<Database>,
  userId: string,
  query: v.InferOutput<typeof OwnJobsQuery>,
): Promise<Page<ListedJob>> {
  return await listJobs(db, { ...query, user: userId }, showJob)
}

/** Everybody's jobs, the newest first, without pictures. */
export async function listAllJobs(db: Kysely<Database>, query: v.InferOutput<typeof AllJobsQuery>) {
  return await listJobs(db, query, (row) => ({
    ...showJob(row),
    userId: row.user_id,
    requestId: row.request_id,
    provider: row.provider,
    costMicroUsd: row.cost_micro_usd,
    runAfter: row.run_after,
    leaseUntil: row.status === 'running' ? row.lease_until : null,
    expiresAt: row.expires_at,
  }))
}

async function listJobs<T>(
  db: Kysely<Database>,
  { status, limit, cursor, user }: v.InferOutput<typeof AllJobsQuery>,
  show: (row: JobRow) => T,
): Promise<Page<T>> {
  let jobs = keptJobs(db)
    .select(microsOf(sql.ref('created_at')).as('micros'))
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(limit + 1)
  if (user !== undefined) jobs = jobs.where('user_id', '=', user)
  if (status !== undefined) jobs = jobs.where('status', '=', status)
  if (cursor) jobs = jobs.where(isAfter(cursor, sql.ref('created_at'), sql.ref('id')))
  return pageOf(await jobs.execute(), limit, { position: positionOf, show })
}

type JobRow = Awaited<ReturnType<ReturnType<typeof keptJobs>['executeTakeFirstOrThrow']>>

/** An ended job is forgotten when its time is over, whether the sweep has come by or not. */
function keptJobs(db: Kysely<Database>) {
  return db
    .selectFrom('jobs')
    .select(['id', 'user_id', 'request_id', 'status', 'tool', 'provider', 'attempts', 'cost_micro_usd', 'error'])
    .select(['run_after', 'lease_until', 'created_at', 'started_at', 'finished_at', 'expires_at'])
    .where((eb) => eb.or([eb('finished_at', 'is', null), eb('expires_at', '>', sql<Date>`now()`)]))
}

function showJob({ id, status, tool, attempts, created_at, started_at, finished_at, error }: JobRow): ListedJob {
  return {
    id,
    status,
    tool,
    attempts,
    createdAt: created_at,
    startedAt: started_at,
    finishedAt: finished_at,
    ...(error && { error }),
  }
}

/** The job of this user with its result. Throws NOT_FOUND. */
export async function readJob(db: Kysely<Database>, userId: string, jobId: string) {
  const row = await keptJobs(db)
    .select(['result', 'result_url', 'result_type', 'facts'])
    .select(sql<boolean>`finished_at is null and coalesce(lease_until, run_after) <= now()`.as('due'))
    .select(sql<number>`ceil(extract(epoch from run_after - now()))::int`.as('waitSeconds'))
    .where('id', '=', jobId)
    .where('user_id', '=', userId)
    .executeTakeFirst()
  if (!row) throw new AppError('NOT_FOUND', 'There is no such job.')
  return row
}

/** The job as its owner asked for it: with its result as POST /api/process-image gives it, or that result alone. */
export function jobReply(job: Awaited<ReturnType<typeof readJob>>, accept: string): Response {
  const { result, result_url: url, result_type: type, facts, status } = job
  const shown = showJob(job)
  if (status === 'queued' || status === 'running') {
    const seconds = status === 'queued' ? Math.min(WAITING_SECONDS_MAX, Math.max(1, job.waitSeconds)) : RUNNING_SECONDS
    return Response.json(shown, { headers: { 'retry-after': String(seconds) } })
  }
  if (status !== 'succeeded' || facts === null || type === null) return Response.json(shown)
  const isBare = wantsBytes(accept, type)
  if (url !== null) {
    if (isBare) return new Response(null, { status: 303, headers: { location: url } })
    return Response.json({ ...shown, result: { resultUrl: url, ...facts } })
  }
  const bytes = Buffer.from(result ?? [])
  if (isBare) return sendBytes(bytes, { 'content-type': type })
  const start = Buffer.from(`${JSON.stringify(shown).slice(0, -1)},"result":`)
  return sendBytes(Buffer.concat([start, withResult(bytes, facts), Buffer.from('}')]), {
    'content-type': 'application/json',
  })
}
