// The main job, metered: hold the price, make the result, then charge it — or give everything back.
import { randomUUID } from 'node:crypto'
import { db } from '../../db/client.ts'
import { type Made, makeResult, RouterError, type RouterEvent, usableProviders, usedFallback } from '../ai/router.ts'
import type { Spender } from '../auth/caller.ts'
import { config } from '../config.ts'
import { AppError } from '../http/errors.ts'
import type { Claim } from '../http/idempotency.ts'
import { type CallRecord, type Closing, type Receipt, release, settle, type UsageRecord } from '../ledger/holds.ts'
import { describeError, log } from '../log.ts'
import { cachedPriceOf, priceOf, toolId } from './catalogue.ts'
import { failureOf } from './failure.ts'
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

interface Metered {
  order: Order
  caller: Spender
  requestId: string
  claim: Claim | undefined
  onEvent(event: RouterEvent): void
}

/**
 * Makes what is ordered for its price, or gives what was kept of it. Throws 402 before any provider is asked when the caller cannot
 * pay; after a failure the hold is given back whole, and the failure is on record.
 */
export async function generate(metered: Metered): Promise<Generation> {
  const startedAt = performance.now()
  const { order, caller } = metered
  const kept = await keptResult(order, caller.userId)
  if (!kept) refuseWithoutProvider(order)
  const { made, closing } = kept ? await giveKept(kept, metered, startedAt) : await makeNow(metered, startedAt)
  const processingMs = Math.round(performance.now() - startedAt)
  return { made, closing, processingMs, cached: kept !== undefined, requestedProvider: order.requestedProvider }
}

async function makeNow(metered: Metered, startedAt: number): Promise<{ made: Made; closing: Closing }> {
  const { order, caller, onEvent } = metered
  const { holdId, freeTier } = await hold(metered, priceOf(order.tool, order.options.quality))
  const run = { ...runOf(metered, startedAt), freeTier }
  const outcome = await make(order, { freeTier, requestId: run.requestId, onEvent })
  if ('failure' in outcome) {
    await giveBack(holdId, await usageOf(run, outcome))
    throw outcome.failure
  }
  const { made } = outcome
  const closing = await charge(metered, holdId, made, run, { calls: outcome.calls, cached: false })
  await keepResult(order, caller.userId, made)
  return { made, closing }
}

async function giveKept(made: Made, metered: Metered, startedAt: number): Promise<{ made: Made; closing: Closing }> {
  const { order, caller } = metered
  const price = cachedPriceOf(order.tool, order.options.quality)
  if (price === 0) {
    const run = { ...runOf(metered, startedAt), freeTier: false }
    const usage = await usageOf(run, { made, calls: [] }, { cached: true })
    return { made, closing: await giveFree(db(), caller, usage, receiptOf(metered, made)) }
  }
  const { holdId, freeTier } = await hold(metered, price)
  const run = { ...runOf(metered, startedAt), freeTier }
  return { made, closing: await charge(metered, holdId, made, run, { calls: [], cached: true }) }
}

async function hold({ caller, claim }: Metered, tokens: number): Promise<{ holdId: string; freeTier: boolean }> {
  const holdId = claim?.holdId ?? randomUUID()
  const ttlMs = config().ai.deadlineMs + SETTLE_MARGIN_MS
  return { holdId, ...(await holdPrice(db(), caller, { id: holdId, tokens, ttlMs })) }
}

/** Settles a hold for what was made; gives it back and throws when that cannot be done. */
async function charge(
  metered: Metered,
  holdId: string,
  made: Made,
  run: Parameters<typeof usageOf>[0],
  { calls, cached }: { calls: CallRecord[]; cached: boolean },
): Promise<Closing> {
  try {
    const usage = await usageOf(run, { made, calls }, { cached })
    const settleIt = () => settle(db(), holdId, usage, receiptOf(metered, made))
    // Again on a lost connection: settling twice is settling once, and an image that is paid for must be delivered.
    const closing = await settleIt().catch(settleIt)
    if (closing.closed) return closing
    throw new AppError('PROVIDER_TIMEOUT', 'The image took too long. Nothing was charged.')
  } catch (error) {
    const failure = failureOf(error)
    await giveBack(holdId, await usageOf(run, { failure, calls }))
    throw failure
  }
}

function runOf({ order, caller, requestId }: Metered, startedAt: number) {
  return { userId: caller.userId, tool: order.tool.name, requestId, jobId: undefined, startedAt }
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
export async function usageOf(
  run: {
    userId: string
    tool: string
    requestId: string
    freeTier: boolean
    jobId: string | undefined
    /** As performance.now() gave it. */
    startedAt: number
  },
  outcome: Outcome,
  { cached = false }: { cached?: boolean } = {},
): Promise<UsageRecord> {
  const { userId, requestId, freeTier, jobId } = run
  const { calls } = outcome
  const common = {
    userId,
    toolId: await toolId(db(), run.tool),
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
async function giveBack(holdId: string, usage: UsageRecord): Promise<void> {
  try {
    await release(db(), holdId, usage)
  } catch (error) {
    log('error', 'release_failed', { holdId, error: describeError(error) })
  }
}

function isUuid(text: string): boolean {
  return /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(text)
}
