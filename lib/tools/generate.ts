// The main job, metered: hold the price, make the result, then charge it — or give everything back.
import { randomUUID } from 'node:crypto'
import { db } from '../../db/client.ts'
import {
  type Made,
  makeResult,
  type Result,
  RouterError,
  type RouterEvent,
  usableProviders,
  usedFallback,
} from '../ai/router.ts'
import type { Spender } from '../auth/caller.ts'
import { config } from '../config.ts'
import { AppError } from '../http/errors.ts'
import type { Claim } from '../http/idempotency.ts'
import { type CallRecord, type Closing, type Receipt, release, settle, type UsageRecord } from '../ledger/holds.ts'
import { describeError, log } from '../log.ts'
import { cachedPriceOf, priceOf, toolId } from './catalogue.ts'
import { failureOf, failureOfMaker } from './failure.ts'
import { giveFree, holdPrice } from './hold.ts'
import { type Order, promptOf } from './order.ts'
import { keepResult, keptResult } from './result-cache.ts'

/** How long after the deadline a hold outlives a run that is still being settled. */
const SETTLE_MARGIN_MS = 60_000

export interface Generation {
  made: Made
  closing: Closing
  processingMs: number
  cached: boolean
  requestedProvider: string | undefined
}

/** A result in the form in which it leaves. */
export interface Delivery {
  result: Result
  /** It had to be made smaller. */
  reencoded: boolean
  /** Where it lies when it leaves as a link. */
  resultUrl: string | undefined
}

/** `made.result` is what leaves, which may be smaller than what was made. */
export type Delivered = Generation & Omit<Delivery, 'result'>

interface Metered {
  order: Order
  caller: Spender
  requestId: string
  claim: Claim | undefined
  /** Brings a result into the form in which it leaves; what cannot be decoded for that is not charged. */
  deliver(result: Result): Promise<Delivery>
  onEvent(event: RouterEvent): void
}

interface Paid {
  made: Made
  closing: Closing
  delivery: Delivery
}

/**
 * Makes what is ordered for its price, or gives what was kept of it. Throws 402 before any provider is asked when the caller cannot
 * pay; after a failure the hold is given back whole, and the failure is on record.
 */
export async function generate(metered: Metered): Promise<Delivered> {
  const startedAt = performance.now()
  const { order, caller } = metered
  const kept = await keptResult(order, caller.userId)
  if (!kept) refuseWithoutProvider(order)
  const paid = kept ? await giveKept(kept, metered, startedAt) : await makeNow(metered, startedAt)
  const { closing, delivery } = paid
  const { result, ...form } = delivery
  const made = { ...paid.made, result }
  const processingMs = Math.round(performance.now() - startedAt)
  const cached = kept !== undefined
  return { made, closing, processingMs, cached, requestedProvider: order.requestedProvider, ...form }
}

async function makeNow(metered: Metered, startedAt: number): Promise<Paid> {
  const { order, caller, onEvent } = metered
  const begun = await runOf(metered, startedAt)
  const { holdId, freeTier } = await hold(metered, priceOf(order.tool, order.options.quality))
  const run = { ...begun, freeTier }
  const outcome = await make(order, { freeTier, requestId: run.requestId, onEvent })
  if ('failure' in outcome) {
    await giveBack(holdId, usageOf(run, outcome))
    throw outcome.failure
  }
  const { made } = outcome
  const delivery = await deliver(metered, made, async (failure) => {
    // The call that seemed to be one that went well.
    const calls = outcome.calls.map((call) =>
      call.outcome === 'ok' ? { ...call, outcome: 'no_image' as const } : call,
    )
    await giveBack(holdId, usageOf(run, { failure, calls }))
  })
  const closing = await charge(metered, holdId, made, run, { calls: outcome.calls, cached: false })
  await keepResult(order, caller.userId, made)
  return { made, closing, delivery }
}

async function giveKept(made: Made, metered: Metered, startedAt: number): Promise<Paid> {
  const { order, caller } = metered
  const price = cachedPriceOf(order.tool, order.options.quality)
  const begun = await runOf(metered, startedAt)
  if (price === 0) {
    const delivery = await deliver(metered, made)
    const usage = usageOf({ ...begun, freeTier: false }, { made, calls: [] }, { cached: true })
    return { made, delivery, closing: await giveFree(db(), caller, usage, receiptOf(metered, made)) }
  }
  const { holdId, freeTier } = await hold(metered, price)
  const run = { ...begun, freeTier }
  const delivery = await deliver(metered, made, async (failure) => {
    await giveBack(holdId, usageOf(run, { failure, calls: [] }))
  })
  return { made, delivery, closing: await charge(metered, holdId, made, run, { calls: [], cached: true }) }
}

/** Before anything is charged: a result that cannot leave was not made. */
async function deliver(metered: Metered, made: Made, giveUp?: (failure: AppError) => Promise<void>): Promise<Delivery> {
  try {
    return await metered.deliver(made.result)
  } catch (error) {
    const failure = failureOfMaker(error, made)
    await giveUp?.(failure)
    throw failure
  }
}

async function hold({ caller, claim }: Metered, tokens: number): Promise<{ holdId: string; freeTier: boolean }> {
  const holdId = claim?.holdId ?? randomUUID()
  const ttlMs = config().ai.deadlineMs + SETTLE_MARGIN_MS
  return { holdId, ...(await holdPrice(db(), caller, { id: holdId, tokens, ttlMs })) }
}

/** Settles a hold for what was made; gives it back and throws when that cannot be done. What is paid for is delivered. */
async function charge(
  metered: Metered,
  holdId: string,
  made: Made,
  run: Parameters<typeof usageOf>[0],
  { calls, cached }: { calls: CallRecord[]; cached: boolean },
): Promise<Closing> {
  try {
    const usage = usageOf(run, { made, calls }, { cached })
    const settleIt = () => settle(db(), holdId, usage, receiptOf(metered, made))
    // Again on a lost connection: settling twice is settling once, and an image that is paid for must be delivered.
    const closing = await settleIt().catch(settleIt)
    if (closing.closed) return closing
    throw new AppError('PROVIDER_TIMEOUT', 'The image took too long. Nothing was charged.')
  } catch (error) {
    const failure = failureOf(error)
    const closing = await giveBack(holdId, usageOf(run, { failure, calls }))
    // The hold was settled after all, and the answers that said so were lost.
    if (closing?.charged) return closing
    throw failure
  }
}

/** What a usage row needs of the tables is looked up before anything is held or paid for. */
async function runOf({ order, caller, requestId }: Metered, startedAt: number) {
  const tool = await toolId(db(), order.tool.name)
  return { userId: caller.userId, toolId: tool, requestId, jobId: undefined, startedAt }
}

function receiptOf({ order, requestId, claim }: Metered, { provider, model }: Made): Receipt | undefined {
  return claim && { claimId: claim.id, facts: { requestId, provider, model, tool: order.tool.name } }
}

/** What came of an order, with every call that was made for it. */
export type Outcome = { made: Made; calls: CallRecord[] } | { failure: AppError; calls: CallRecord[] }

/** Has an order made by the providers of its tool; moves no tokens. */
export async function make(
  order: Order,
  { freeTier, requestId, onEvent }: { freeTier: boolean; requestId: string; onEvent(event: RouterEvent): void },
): Promise<Outcome> {
  const { tool, image } = order
  const { quality, format, ...options } = order.options
  try {
    const request = {
      task: tool.does,
      quality,
      image,
      prompt: promptOf(order),
      options,
    }
    const made = await makeResult(request, {
      order: providerOrder(order),
      pinned: order.provider !== undefined,
      format,
      freeTier,
      settings: config().ai,
      requestId,
      onEvent,
    })
    return { made, calls: made.calls }
  } catch (error) {
    return { failure: failureOf(error), calls: error instanceof RouterError ? error.calls : [] }
  }
}

/** The usage row of a run that has come to its end. */
export function usageOf(
  run: {
    userId: string
    toolId: string
    requestId: string
    freeTier: boolean
    jobId: string | undefined
    /** As performance.now() gave it. */
    startedAt: number
  },
  outcome: Outcome,
  { cached = false }: { cached?: boolean } = {},
): UsageRecord {
  const { userId, toolId, requestId, freeTier, jobId } = run
  const { calls } = outcome
  const common = {
    userId,
    toolId,
    requestId: isUuid(requestId) ? requestId : randomUUID(),
    durationMs: Math.round(performance.now() - run.startedAt),
    costMicroUsd: calls.reduce((sum, call) => sum + call.costMicroUsd, 0),
    freeTier,
    jobId,
    cached,
    calls,
  }
  if ('made' in outcome) {
    const { provider, model } = outcome.made
    return { ...common, status: 'success', provider, model, errorCode: undefined, fallback: usedFallback(outcome.made) }
  }
  const { code } = outcome.failure
  return {
    ...common,
    status: code === 'PROVIDER_TIMEOUT' ? 'timeout' : 'error',
    provider: calls.at(-1)?.provider,
    model: undefined,
    errorCode: code,
    fallback: false,
  }
}

/** The tool's providers, the caller's choice first. */
function providerOrder({ tool, provider }: Order): string[] {
  return provider === undefined ? tool.providers : [provider, ...tool.providers.filter((id) => id !== provider)]
}

/** Throws PROVIDER_UNAVAILABLE when nobody could be asked; nothing needs to be held for that to be known. */
export function refuseWithoutProvider(order: Order): void {
  const { tool, image, options } = order
  const work = { task: tool.does, quality: options.quality, format: image?.format }
  const { usable, skipped } = usableProviders(tool.providers, work)
  if (usable.length > 0) return
  throw new AppError('PROVIDER_UNAVAILABLE', 'No provider of this tool can be used now. Nothing was charged.', {
    details: { providers: skipped },
  })
}

/** A hold that cannot be given back now returns by itself when it expires, so the caller still gets the first error. */
async function giveBack(holdId: string, usage: UsageRecord): Promise<Closing | undefined> {
  try {
    return await release(db(), holdId, usage)
  } catch (error) {
    log('error', 'release_failed', { holdId, error: describeError(error) })
    return undefined
  }
}

function isUuid(text: string): boolean {
  return /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(text)
}
