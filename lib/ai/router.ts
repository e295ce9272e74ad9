// Which provider makes the image: the tool's own order, one deadline for all, and every failure on record.
import type { ForkConfig } from '../config.ts'
import { checkResult, convertImage, type ImageFormat } from '../image.ts'
import { gemini } from './gemini.ts'
import { type ImageRequest, type Provider, ProviderError, type ProviderErrorKind } from './provider.ts'
import { sketch } from './sketch.ts'

/** Every provider this version has an adapter for. Adding one: its file, and its line here. */
const PROVIDERS: Record<string, Provider> = { gemini, sketch }

/** Kept free at the end of the deadline for a provider that runs here and cannot hang on a network. */
const LOCAL_RESERVE_MS = 8_000
const RETRY_AFTER_MAX_MS = 3_000
const RETRY_JITTER_MS = 600
const RETRYABLE: readonly ProviderErrorKind[] = ['rate_limited', 'overloaded', 'network']

export interface Attempt {
  provider: string
  kind: ProviderErrorKind
  message: string
  durationMs: number
}

export interface Made {
  bytes: Buffer
  format: ImageFormat
  width: number
  height: number
  provider: string
  model: string
  /** What all attempts together cost, failed ones that were billed included. */
  costMicroUsd: number
  failed: Attempt[]
}

export type RouterEvent =
  | { event: 'provider'; data: { provider: string } }
  | { event: 'fallback'; data: { from: string; to: string; reason: ProviderErrorKind } }

/** No provider made an image. `attempts` says what each answered; empty when none could be asked. */
export class RouterError extends Error {
  override readonly name = 'RouterError'
  readonly attempts: Attempt[]
  readonly costMicroUsd: number

  constructor(message: string, attempts: Attempt[], costMicroUsd: number) {
    super(message)
    this.attempts = attempts
    this.costMicroUsd = costMicroUsd
  }
}

export interface RouteOptions {
  /** Provider ids in order of preference. */
  order: string[]
  format: 'png' | 'jpeg' | 'webp'
  limits: Pick<ForkConfig['ai'], 'providerTimeoutMs' | 'deadlineMs'>
  onEvent(event: RouterEvent): void
}

/** The providers of `order` that could be asked now, and why the others could not. */
export function usableProviders(order: string[], request: { format: ImageFormat }) {
  const usable: Provider[] = []
  const skipped: { provider: string; reason: string }[] = []
  for (const id of order) {
    const provider = PROVIDERS[id]
    const reason = provider
      ? (provider.unavailable() ??
        (provider.reads.includes(request.format) ? null : `It cannot read ${request.format}.`))
      : 'This version has no adapter for it.'
    if (provider && reason === null) usable.push(provider)
    else skipped.push({ provider: id, reason: reason ?? '' })
  }
  return { usable, skipped }
}

/**
 * Asks one provider after the other until one gives an image that can be read, converted to the asked format.
 * A blocked picture is not shown to the next one. Throws RouterError when none did.
 */
export async function makeImage(request: ImageRequest, options: RouteOptions): Promise<Made> {
  const { usable, skipped } = usableProviders(options.order, request.image)
  if (usable.length === 0) {
    throw new RouterError(skipped.map(({ provider, reason }) => `${provider}: ${reason}`).join(' '), [], 0)
  }
  const deadlineAt = Date.now() + options.limits.deadlineMs
  const failed: Attempt[] = []
  let costMicroUsd = 0
  for (const [index, provider] of usable.entries()) {
    const next = usable[index + 1]
    const reserveMs = next ? Math.min(LOCAL_RESERVE_MS, options.limits.deadlineMs / 2) : 0
    options.onEvent({ event: 'provider', data: { provider: provider.id } })
    const result = await attempt(provider, request, options, deadlineAt - reserveMs)
    costMicroUsd += result.costMicroUsd
    failed.push(...result.failed)
    if (result.image) return { ...result.image, provider: provider.id, costMicroUsd, failed }
    const kind = result.failed.at(-1)?.kind ?? 'network'
    if (kind === 'blocked' || !next) break
    options.onEvent({ event: 'fallback', data: { from: provider.id, to: next.id, reason: kind } })
  }
  throw new RouterError('No provider made an image.', failed, costMicroUsd)
}

interface AttemptResult {
  image: Omit<Made, 'provider' | 'costMicroUsd' | 'failed'> | undefined
  costMicroUsd: number
  failed: Attempt[]
}

/** One provider's turn: a second try where it may help, within the time that is left. */
async function attempt(
  provider: Provider,
  request: ImageRequest,
  options: RouteOptions,
  deadlineAt: number,
): Promise<AttemptResult> {
  const failed: Attempt[] = []
  let costMicroUsd = 0
  for (let round = 0; ; round += 1) {
    const startedAt = Date.now()
    const timeoutMs = Math.max(1, Math.min(options.limits.providerTimeoutMs, deadlineAt - startedAt))
    try {
      const image = await runOnce(provider, request, options.format, timeoutMs, (micro) => {
        costMicroUsd += micro
      })
      return { image, costMicroUsd, failed }
    } catch (error) {
      const failure =
        error instanceof ProviderError
          ? error
          : new ProviderError('network', 'The provider failed in an unknown way.', { cause: error })
      costMicroUsd += failure.costMicroUsd
      failed.push({
        provider: provider.id,
        kind: failure.kind,
        message: failure.message,
        durationMs: Date.now() - startedAt,
      })
      const delayMs = retryDelayMs(failure, round)
      if (delayMs === undefined || Date.now() + delayMs >= deadlineAt) return { image: undefined, costMicroUsd, failed }
      await new Promise((resolve) => setTimeout(resolve, delayMs))
    }
  }
}

async function runOnce(
  provider: Provider,
  request: ImageRequest,
  format: RouteOptions['format'],
  timeoutMs: number,
  onCost: (micro: number) => void,
) {
  const abort = new AbortController()
  const timer = setTimeout(() => abort.abort(), timeoutMs)
  try {
    const reply = await provider.run(request, { signal: abort.signal })
    onCost(reply.costMicroUsd)
    const checked = await checkResult(reply.bytes)
    const image = await convertImage({ bytes: reply.bytes, ...checked }, format).catch((cause) => {
      throw new ProviderError('no_image', 'The provider sent a damaged image.', { cause })
    })
    return { ...image, format, model: reply.model }
  } finally {
    clearTimeout(timer)
  }
}

/** Once, and only where another try may go better: full jitter, or the provider's own delay when it is short. */
function retryDelayMs(failure: ProviderError, round: number): number | undefined {
  if (round > 0 || !RETRYABLE.includes(failure.kind)) return undefined
  if (failure.kind === 'rate_limited') {
    const delayMs = failure.retryAfterMs
    return delayMs !== undefined && delayMs <= RETRY_AFTER_MAX_MS ? delayMs : undefined
  }
  return Math.random() * RETRY_JITTER_MS
}
