// Which provider does the work: the fork's policy, one deadline for all, and every call and failure on record.
import type { ForkConfig } from '../config.ts'
import type { ImageFormat } from '../image.ts'
import { log } from '../log.ts'
import { switchedOff } from '../switches.ts'
import type { Attempt, Call, Progress, Turn } from './attempt.ts'
import { circuitStates } from './circuit.ts'
import { askHedged, isBlocked, type Start } from './hedge.ts'
import { arrange } from './policy.ts'
import type { ModelRequest, Provider, Work } from './provider.ts'
import { PROVIDERS, runsHere } from './registry.ts'
import { type Answer, takeTurn } from './turn.ts'

export type { Attempt, Call } from './attempt.ts'
export type { Result } from './turn.ts'

/** Kept free at the end of the deadline for the next provider; one that runs here needs no more. */
const RESERVE_MS = 8_000

export interface Made extends Answer {
  /** What all calls together cost, failed ones that were billed included. */
  costMicroUsd: number
  failed: Attempt[]
  calls: Call[]
}

/** Whether another provider than the first one gave the answer. */
export function usedFallback({ failed, provider }: Pick<Made, 'failed' | 'provider'>): boolean {
  return failed.some((attempt) => attempt.provider !== provider)
}

export type RouterEvent =
  | { event: 'provider'; data: { provider: string } }
  | { event: 'fallback'; data: { from: string; to: string; reason: Attempt['kind'] } }

/** No provider did the work. `attempts` says what each answered, or why it was not asked; empty when none could be asked at all. */
export class RouterError extends Error {
  override readonly name = 'RouterError'
  readonly attempts: Attempt[]
  readonly calls: Call[]
  /** The budget that kept a provider from being asked. */
  readonly refusedBy: string | undefined
  /** When the first open circuit lets somebody through again. */
  readonly retryAfterMs: number | undefined

  constructor(message: string, { failed, calls, refusedBy, retryAfterMs }: Progress) {
    super(message)
    this.attempts = failed
    this.calls = calls
    this.refusedBy = refusedBy[0]
    this.retryAfterMs = retryAfterMs.length > 0 ? Math.min(...retryAfterMs) : undefined
  }
}

export interface RouteOptions {
  /** Provider ids in order of preference. */
  order: string[]
  /** The first of them is the caller's own choice and stays first, whatever the policy. */
  pinned: boolean
  /** What an image is converted to; left out for text. */
  format: 'png' | 'jpeg' | 'webp' | undefined
  /** The caller has never paid: a budget of its own applies. */
  freeTier: boolean
  settings: Pick<ForkConfig['ai'], 'routing' | 'hedgeAfterMs' | 'providerTimeoutMs' | 'deadlineMs' | 'circuitBreakers'>
  /** For the log. */
  requestId: string
  onEvent(event: RouterEvent): void
}

/** The providers of `order` that are able and set up to do the work, and why the others are not. */
export function usableProviders(order: string[], work: Work & { format: ImageFormat | undefined }) {
  const usable: Provider[] = []
  const skipped: { provider: string; reason: string }[] = []
  for (const id of order) {
    const provider = PROVIDERS[id]
    const reason = provider
      ? (provider.unavailable() ??
        (provider.serves[work.task]?.includes(work.quality)
          ? null
          : `It does not do ${work.task} in quality ${work.quality}.`) ??
        provider.cannot?.(work) ??
        (!work.format || provider.reads.includes(work.format) ? null : `It cannot read ${work.format}.`))
      : 'This version has no adapter for it.'
    if (provider && reason === null) usable.push(provider)
    else skipped.push({ provider: id, reason: reason ?? '' })
  }
  return { usable, skipped }
}

/**
 * Asks one provider after the other, as the policy sorts them, until one gives a result that can be used, converted to the asked
 * format. Passed over are those that are switched off, whose circuit is open or whose budget is used up. A blocked picture is
 * not shown to the next one. Throws RouterError when none did it; every call has been settled by then.
 */
export async function makeResult(request: ModelRequest, options: RouteOptions): Promise<Made> {
  const progress: Progress = { failed: [], calls: [], settling: [], refusedBy: [], retryAfterMs: [] }
  const { usable, skipped } = usableProviders(options.order, { ...request, format: request.image?.format })
  if (usable.length === 0) {
    throw new RouterError(skipped.map(({ provider, reason }) => `${provider}: ${reason}`).join(' '), progress)
  }
  const queue = await queueOf(usable, request, options, progress)
  try {
    const answer = await firstAnswer(queue, request, options, progress)
    const { failed, calls } = progress
    const costMicroUsd = calls.reduce((sum, call) => sum + call.costMicroUsd, 0)
    if (answer) return { ...answer, costMicroUsd, failed, calls }
  } finally {
    await Promise.all(progress.settling)
  }
  throw new RouterError('No provider did the work.', progress)
}

/** Who is asked, in which order; whom an operator switched off is on record as such. */
async function queueOf(
  usable: Provider[],
  work: Work,
  { order: list, pinned, settings, requestId }: RouteOptions,
  { failed }: Progress,
): Promise<Provider[]> {
  const on: Provider[] = []
  for (const provider of usable) {
    if ((await switchedOff(provider.id)) === undefined) on.push(provider)
    else failed.push({ provider: provider.id, kind: 'switched_off', message: 'It is switched off.', durationMs: 0 })
  }
  const { routing } = settings
  const { order, why } = await arrange(on, { list, pinned, routing, work })
  if (on.length > 1) log('info', 'route', { requestId, policy: routing, pinned, order: order.map(({ id }) => id), why })
  return order
}

/** Takes providers off the queue until one answers, or one blocks the picture. */
async function firstAnswer(
  queue: Provider[],
  request: ModelRequest,
  options: RouteOptions,
  progress: Progress,
): Promise<Answer | undefined> {
  const { settings, freeTier, format } = options
  const deadlineAtMs = Date.now() + settings.deadlineMs
  const turnOf = (provider: Provider): Start => {
    const reserveMs = queue.length > 0 ? Math.min(RESERVE_MS, settings.deadlineMs / 2) : 0
    const rest = { endsAtMs: deadlineAtMs - reserveMs, isLast: queue.length === 0 }
    return (signal) => {
      const turn: Turn = { provider, request, freeTier, settings, signal, ...rest }
      return takeTurn(turn, progress, { format, onAsk: () => announce(provider, progress, options) })
    }
  }
  const hedges = settings.routing === 'fastest' && settings.hedgeAfterMs > 0
  for (let provider = queue.shift(); provider && !isBlocked(progress); provider = queue.shift()) {
    const start = turnOf(provider)
    const nextRival = async () => {
      const rival = await takeRival(queue)
      return rival && turnOf(rival)
    }
    const hedged = { afterMs: settings.hedgeAfterMs, progress }
    // Nobody is paid to be quicker than what is free.
    const isHedged = hedges && !runsHere(provider)
    const answer = isHedged ? await askHedged(start, nextRival, hedged) : await start(new AbortController().signal)
    if (answer) return answer
  }
  return undefined
}

/** The next provider worth paying twice for: not one that runs here, which would always be first, nor one that may be down. */
async function takeRival(queue: Provider[]): Promise<Provider | undefined> {
  const states = await circuitStates(queue.filter((provider) => !runsHere(provider)).map(({ id }) => id))
  const index = queue.findIndex(({ id }) => states.get(id)?.state === 'closed')
  return index === -1 ? undefined : queue.splice(index, 1)[0]
}

function announce({ id }: Provider, { failed }: Progress, { onEvent }: RouteOptions): void {
  const before = failed.at(-1)
  if (before && before.provider !== id) {
    onEvent({ event: 'fallback', data: { from: before.provider, to: id, reason: before.kind } })
  }
  onEvent({ event: 'provider', data: { provider: id } })
}
