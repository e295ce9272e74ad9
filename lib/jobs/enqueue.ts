// Work that is answered later: its price held and the order on record in one transaction, and a worker started after the answer.
import { randomUUID } from 'node:crypto'
import { sql, type Transaction } from 'kysely'
import * as v from 'valibot'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import type { Spender } from '../auth/caller.ts'
import { config } from '../config.ts'
import { AppError } from '../http/errors.ts'
import { type Claim, keepReceipt } from '../http/idempotency.ts'
import { priceOf, toolId } from '../tools/catalogue.ts'
import { refuseWithoutProvider } from '../tools/generate.ts'
import { holdPrice } from '../tools/hold.ts'
import type { Order } from '../tools/order.ts'
import { keptResult } from '../tools/result-cache.ts'
import { leaseMs } from './claim.ts'
import { startWork } from './worker.ts'

/** A job that has not ended by then is given up. */
const LIFE_MS = 24 * 60 * 60 * 1000
const TRY_AGAIN_SECONDS = '10'

interface Job {
  order: Order
  caller: Spender
  requestId: string
  claim: Claim | undefined
}

/**
 * Holds the price and puts the order on record, in one transaction; the work begins after the answer. Throws what keeps the caller
 * from spending, and RATE_LIMITED when they have as many jobs waiting or running as they may.
 */
export async function enqueue(job: Job): Promise<{ id: string }> {
  if (!config().features.asyncJobs) {
    throw new AppError('FEATURE_DISABLED', 'Work that is answered later is switched off.', {
      details: { reason: 'features.asyncJobs is false.' },
    })
  }
  // What was kept may be gone when the work begins, so that the whole price is held all the same.
  if (!(await keptResult(job.order, job.caller.userId))) refuseWithoutProvider(job.order)
  // The row of the tool, which whoever ends the job relies on.
  await toolId(db(), job.order.tool.name)
  const id = randomUUID()
  await db()
    .transaction()
    .execute((trx) => record(trx, id, job))
  await startWork()
  return { id }
}

async function record(trx: Transaction<Database>, id: string, { order, caller, requestId, claim }: Job): Promise<void> {
  const { tool, image, options } = order
  const { freeTier } = await holdPrice(trx, caller, {
    id,
    tokens: priceOf(tool, options.quality),
    // It outlives the job, whose last worker may have begun in the last moment.
    ttlMs: LIFE_MS + 2 * leaseMs(),
  })
  await refuseTooMany(trx, caller.userId)
  await trx
    .insertInto('jobs')
    .values({
      id,
      user_id: caller.userId,
      request_id: v.is(v.pipe(v.string(), v.uuid()), requestId) ? requestId : randomUUID(),
      tool: tool.name,
      provider: order.provider ?? null,
      requested_provider: order.requestedProvider ?? null,
      options: JSON.stringify(options),
      input: image?.bytes ?? null,
      input_format: image?.format ?? null,
      input_width: image?.width ?? null,
      input_height: image?.height ?? null,
      input_text: order.text ?? null,
      free_tier: freeTier,
      hold_id: id,
      expires_at: sql<Date>`now() + make_interval(secs => ${LIFE_MS / 1000})`,
    })
    .execute()
  if (claim) await keepReceipt(trx, claim, { jobId: id })
}

/** The reservation has locked the account, so that nobody counts between another's count and insert. */
async function refuseTooMany(trx: Transaction<Database>, userId: string): Promise<void> {
  const { perUserMax } = config().jobs
  const { living } = await trx
    .selectFrom('jobs')
    .select((eb) => eb.fn.countAll<number>().as('living'))
    .where('user_id', '=', userId)
    .where('status', 'in', ['queued', 'running'])
    .where('expires_at', '>', sql<Date>`now()`)
    .executeTakeFirstOrThrow()
  if (living < perUserMax) return
  throw new AppError('RATE_LIMITED', `You have ${living} jobs waiting or running, as many as you may.`, {
    details: { jobsMax: perUserMax },
    headers: { 'retry-after': TRY_AGAIN_SECONDS },
  })
}
