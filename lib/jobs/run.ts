// One attempt at a job: the order as it was taken in, made by a provider outside any transaction, and brought to its end.
import * as v from 'valibot'
import { config } from '../config.ts'
import { validate } from '../http/body.ts'
import { AppError, type ErrorCode } from '../http/errors.ts'
import type { UsageRecord } from '../ledger/holds.ts'
import { describeError, log } from '../log.ts'
import { cachedPriceOf, optionsSchema } from '../tools/catalogue.ts'
import { failureOf } from '../tools/failure.ts'
import { make, type Outcome, usageOf } from '../tools/generate.ts'
import type { Order } from '../tools/order.ts'
import { keepResult, keptResult } from '../tools/result-cache.ts'
import type { ClaimedJob } from './claim.ts'
import { type Ending, endUnmade, fail, retryLater, succeed } from './end.ts'

/** Failures that another try may not meet. */
const WORTH_ANOTHER_TRY: readonly ErrorCode[] = [
  'PROVIDER_ERROR',
  'PROVIDER_TIMEOUT',
  'PROVIDER_UNAVAILABLE',
  'BUDGET_EXHAUSTED',
  'INTERNAL_ERROR',
]

/** Why nobody was asked that may be otherwise soon. */
const Passing = v.object({ kind: v.picklist(['circuit_open', 'switched_off']) })
/** So long a job waits for that without losing a try: longer than any circuit is open, and its user may still be waiting. */
const UNASKED_SECONDS_MAX = 1800

/** Works on a claimed job until it has ended, waits for another try, or turns out to be somebody else's by now. */
export async function runJob(job: ClaimedJob): Promise<Ending> {
  if (job.verdict !== 'work') return await endUnmade(job)
  const startedAt = performance.now()
  const order = orderOf(job)
  if (order instanceof AppError) return await endUnmade(job, order)
  const kept = await keptResult(order, job.userId)
  const outcome: Outcome = kept
    ? { made: kept, calls: [] }
    : await make(order, { freeTier: job.freeTier, requestId: job.requestId, onEvent: () => {} })
  const cached = kept !== undefined
  const { userId, toolId, requestId, freeTier } = job
  const run = { userId, toolId, requestId, freeTier, jobId: job.id, startedAt }
  if ('failure' in outcome) return await endFailure(job, outcome.failure, usageOf(run, outcome))
  const usage = usageOf(run, outcome, { cached })
  try {
    const tokens = cached ? cachedPriceOf(order.tool, order.options.quality) : undefined
    const ending = await succeed(job, { made: outcome.made, usage, tokens })
    if (ending.kind === 'succeeded' && !cached) await keepResult(order, userId, outcome.made)
    return ending
  } catch (error) {
    // The result could not be kept: nothing was charged, and what it cost is on record with the failure.
    const failure = failureOf(error)
    const failed = usageOf(run, { failure, calls: outcome.calls })
    // A hold that is gone does not come back; a picture that cannot be decoded may be whole the next time.
    const isGone = error instanceof AppError && error.code !== 'PROVIDER_ERROR'
    return isGone ? await fail(job, failure, failed) : await endFailure(job, failure, failed)
  }
}

async function endFailure(job: ClaimedJob, failure: AppError, usage: UsageRecord): Promise<Ending> {
  if (failure.code === 'INTERNAL_ERROR') {
    log('error', 'job_attempt_failed', { job: job.id, attempt: job.attempts, error: describeError(failure) })
  }
  const { providers } = failure.details
  const isPassing = Array.isArray(providers) && providers.some((provider) => v.is(Passing, provider))
  if (usage.calls.length === 0 && isPassing && job.startedSecondsAgo < UNASKED_SECONDS_MAX) {
    return await retryLater(job, usage, { retryAfterSeconds: Number(failure.headers['retry-after'] ?? 0) })
  }
  const again = WORTH_ANOTHER_TRY.includes(failure.code) && job.attempts < config().jobs.attemptsMax
  return again ? await retryLater(job, usage) : await fail(job, failure, usage)
}

/** The order as the configuration of now understands it; the error when it does not any more. */
function orderOf(job: ClaimedJob): Order | AppError {
  const tool = config().tools.find(({ name }) => name === job.tool)
  if (!tool) return new AppError('NOT_FOUND', 'This tool is not offered any more. Nothing was charged.')
  try {
    const { input, inputFormat, inputWidth, inputHeight } = job
    const known = tool.providers.some((id) => id === job.provider)
    return {
      tool,
      image:
        input && inputFormat && inputWidth !== null && inputHeight !== null
          ? { bytes: Buffer.from(input), format: inputFormat, width: inputWidth, height: inputHeight }
          : undefined,
      text: job.inputText ?? undefined,
      provider: known ? (job.provider ?? undefined) : undefined,
      requestedProvider: job.requestedProvider ?? undefined,
      options: validate(optionsSchema(tool), job.options, 'options'),
    }
  } catch (error) {
    return failureOf(error)
  }
}
