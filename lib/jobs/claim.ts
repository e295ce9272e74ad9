// The next job that is due, given to one worker alone for a limited time.
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { db } from '../../db/client.ts'
import type { SourceImage } from '../ai/provider.ts'
import { config } from '../config.ts'
import { switchedOff } from '../switches.ts'

/** Left after the deadline of the providers for keeping the result. */
const END_MARGIN_MS = 30_000

/**
 * What is to be done with a claimed job: 'work', or end it, because it is not done in its time ('expired'), has killed its workers
 * ('exhausted'), or its owner may not act any more ('shut_out').
 */
type Verdict = 'work' | 'expired' | 'exhausted' | 'shut_out'

export interface ClaimedJob {
  id: string
  userId: string
  requestId: string
  verdict: Verdict
  tool: string
  toolId: string
  provider: string | null
  requestedProvider: string | null
  options: unknown
  input: Uint8Array | null
  inputFormat: SourceImage['format'] | null
  inputWidth: number | null
  inputHeight: number | null
  inputText: string | null
  freeTier: boolean
  holdId: string
  /** This one included. */
  attempts: number
  /** Since the first attempt began. */
  startedSecondsAgo: number
  /** What the attempts before this one cost. */
  costMicroUsd: number
  /** Whoever shows it may end the job, until somebody else has claimed it. */
  lease: string
}

/** How long a worker may take before another one takes over. */
export function leaseMs(): number {
  return config().ai.deadlineMs + END_MARGIN_MS
}

/**
 * Claims the job that has waited longest: a new one, one whose next try is due, or one whose worker died. The attempt is counted
 * here, so that a job that kills its workers comes to an end. While making images is switched off, no work is given out.
 */
export async function claimJob(): Promise<ClaimedJob | undefined> {
  const working = config().features.generate && (await switchedOff('generate')) === undefined
  const { attemptsMax } = config().jobs
  const { rows } = await sql<ClaimedJob>`
    with due as (
      select j.id, t.id as tool_id, case when u.status <> 'active' then 'shut_out' when j.expires_at <= now() then 'expired'
          when j.attempts >= ${attemptsMax} then 'exhausted' else 'work' end as verdict
        from jobs j join users u on u.id = j.user_id join tools t on t.name = j.tool
        where j.status in ('queued', 'running') and coalesce(j.lease_until, j.run_after) <= now()
          and (${working} or u.status <> 'active' or j.expires_at <= now() or j.attempts >= ${attemptsMax})
        order by coalesce(j.lease_until, j.run_after) limit 1
        for update of j skip locked
    )
    update jobs set status = 'running', lease = ${randomUUID()}::uuid,
        lease_until = now() + make_interval(secs => ${leaseMs() / 1000}),
        attempts = attempts + case verdict when 'work' then 1 else 0 end,
        started_at = case verdict when 'work' then coalesce(started_at, now()) else started_at end
      from due where jobs.id = due.id
      returning jobs.id, user_id as "userId", request_id as "requestId", verdict, tool, tool_id as "toolId", provider,
        requested_provider as "requestedProvider", options, input, input_format as "inputFormat", input_width as "inputWidth",
        input_height as "inputHeight", input_text as "inputText", free_tier as "freeTier", hold_id as "holdId", attempts,
        extract(epoch from now() - coalesce(started_at, now()))::float8 as "startedSecondsAgo", cost_micro_usd as "costMicroUsd", lease
  `.execute(db())
  return rows[0]
}
