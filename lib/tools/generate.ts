// The main job, metered: hold the price, make the image, then charge it — or give everything back.
import { randomUUID } from 'node:crypto'
import { db } from '../../db/client.ts'
import { buildPrompt } from '../ai/prompt.ts'
import type { ImageRequest, SourceImage } from '../ai/provider.ts'
import { type Attempt, type Made, makeImage, RouterError, type RouterEvent, usableProviders } from '../ai/router.ts'
import { refusalOf } from '../auth/account-state.ts'
import type { Spender } from '../auth/caller.ts'
import { config } from '../config.ts'
import { AppError } from '../http/errors.ts'
import { type Closing, type Reservation, release, reserve, settle, type UsageRecord } from '../ledger/ledger.ts'
import { describeError, log } from '../log.ts'
import { priceOf, type Tool, toolId } from './catalogue.ts'

/** How long after the deadline a hold outlives a run that is still being settled. */
const SETTLE_MARGIN_MS = 60_000

export interface Job {
  tool: Tool
  caller: Spender
  image: SourceImage
  provider: string | undefined
  options: { quality: 'standard' | 'high'; format: 'png' | 'jpeg' | 'webp' } & Record<string, string>
  requestId: string
  claim: { id: string; holdId: string } | undefined
  onEvent(event: RouterEvent): void
}

export interface Generation {
  made: Made
  closing: Closing
  processingMs: number
}

/**
 * Runs a job for its price. Throws 402 before any provider is asked when the caller cannot pay; after a failure the
 * hold is given back whole, and the failure is on record.
 */
export async function generate(job: Job): Promise<Generation> {
  const startedAt = performance.now()
  const { quality, format, ...options } = job.options
  const order = providerOrder(job.tool, job.provider)
  refuseWithoutProvider(order, job.image)
  const tool = await toolId(db(), job.tool.name)
  const holdId = await hold(job, priceOf(job.tool, quality))
  const usage = (outcome: Partial<UsageRecord> & Pick<UsageRecord, 'status'>): UsageRecord => ({
    userId: job.caller.userId,
    toolId: tool,
    requestId: isUuid(job.requestId) ? job.requestId : randomUUID(),
    durationMs: Math.round(performance.now() - startedAt),
    provider: undefined,
    model: undefined,
    costMicroUsd: 0,
    errorCode: undefined,
    ...outcome,
  })
  let made: Made | undefined
  try {
    const request: ImageRequest = {
      image: job.image,
      prompt: buildPrompt(job.tool, options, job.image),
      options,
      quality,
    }
    made = await makeImage(request, { order, format, limits: config().ai, onEvent: job.onEvent })
    const { provider, model, costMicroUsd } = made
    const facts = { requestId: job.requestId, provider, model, tool: job.tool.name }
    const success = usage({ status: 'success', provider, model, costMicroUsd })
    const charge = () => settle(db(), holdId, success, job.claim && { claimId: job.claim.id, facts })
    // Again on a lost connection: settling twice is settling once, and an image that is paid for must be delivered.
    const closing = await charge().catch(charge)
    if (!closing.closed) throw new AppError('PROVIDER_TIMEOUT', 'The image took too long. Nothing was charged.')
    return { made, closing, processingMs: Math.round(performance.now() - startedAt) }
  } catch (error) {
    const failure = asAppError(error)
    const attempts = error instanceof RouterError ? error.attempts : []
    const costMicroUsd = error instanceof RouterError ? error.costMicroUsd : (made?.costMicroUsd ?? 0)
    const status = failure.code === 'PROVIDER_TIMEOUT' ? 'timeout' : 'error'
    const provider = made?.provider ?? attempts.at(-1)?.provider
    await giveBack(holdId, usage({ status, provider, costMicroUsd, errorCode: failure.code }))
    throw failure
  }
}

/** The tool's providers, the caller's choice first. */
function providerOrder(tool: Tool, chosen: string | undefined): string[] {
  if (chosen === undefined) return tool.providers
  if (tool.providers.some((id) => id === chosen)) return [chosen, ...tool.providers.filter((id) => id !== chosen)]
  const message = `Not a provider of ${tool.name}. Choose one of: ${tool.providers.join(', ')}.`
  throw new AppError('VALIDATION_FAILED', `provider: ${message}`, {
    details: { issues: [{ path: 'provider', message }] },
  })
}

function refuseWithoutProvider(order: string[], image: SourceImage): void {
  const { usable, skipped } = usableProviders(order, image)
  if (usable.length > 0) return
  throw new AppError('PROVIDER_UNAVAILABLE', 'No provider of this tool can be used now. Nothing was charged.', {
    details: { providers: skipped },
  })
}

async function hold(job: Job, tokens: number): Promise<string> {
  const id = job.claim?.holdId ?? randomUUID()
  const { userId, sessionId, key } = job.caller
  const reservation = await reserve(db(), {
    id,
    userId,
    sessionId,
    keyId: key?.id,
    tokens,
    ttlMs: config().ai.deadlineMs + SETTLE_MARGIN_MS,
  })
  if (reservation.outcome === 'held') return id
  throw refusalOfReservation(reservation, tokens)
}

function refusalOfReservation(reservation: Exclude<Reservation, { outcome: 'held' }>, tokens: number): AppError {
  if (reservation.outcome === 'refused') return refusalOf(reservation.state)
  if (reservation.outcome === 'key_ended') return new AppError('UNAUTHENTICATED', 'This API key has ended.')
  const { balance } = reservation
  if (reservation.outcome === 'over_budget') {
    const { tokenBudget, tokensUsed } = reservation
    const left = tokenBudget - tokensUsed
    return new AppError(
      'INSUFFICIENT_TOKENS',
      `This needs ${tokens} tokens; the budget of this API key has ${left} left.`,
      {
        details: { required: tokens, balance: balance.tokens, apiKey: { tokenBudget, tokensUsed } },
      },
    )
  }
  return new AppError('INSUFFICIENT_TOKENS', `This needs ${tokens} tokens; ${balance.tokens} are left.`, {
    details: {
      required: tokens,
      balance: balance.tokens,
      missing: tokens - balance.tokens,
      checkoutPath: '/api/billing/checkout',
    },
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

function asAppError(error: unknown): AppError {
  if (error instanceof AppError) return error
  if (!(error instanceof RouterError))
    return new AppError('INTERNAL_ERROR', 'Something went wrong on our side. Nothing was charged.', { cause: error })
  const { attempts } = error
  const last = attempts.at(-1)
  if (last === undefined) {
    return new AppError('PROVIDER_UNAVAILABLE', 'No provider of this tool can be used now. Nothing was charged.', {
      cause: error,
    })
  }
  const details = {
    provider: attempts[0]?.provider,
    attempts,
    fallbackUsed: last.provider === attempts[0]?.provider ? null : last.provider,
  }
  if (last.kind === 'blocked') {
    return new AppError('CONTENT_BLOCKED', 'The provider declined to work on this image. Nothing was charged.', {
      details,
      cause: error,
    })
  }
  if (last.provider === 'sketch' && last.kind === 'bad_request') {
    return new AppError('IMAGE_UNREADABLE', 'The image is damaged. Nothing was charged.', { cause: error })
  }
  if (attempts.every((attempt: Attempt) => attempt.kind === 'timeout')) {
    return new AppError('PROVIDER_TIMEOUT', 'The provider took too long. Nothing was charged.', {
      details,
      cause: error,
    })
  }
  return new AppError('PROVIDER_ERROR', 'The provider could not make the image. Nothing was charged.', {
    details,
    cause: error,
  })
}

function isUuid(text: string): boolean {
  return /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(text)
}
