// One call to a provider: let through by its circuit and the budgets, ended in time, and accounted for whatever comes of it.
import { afterAnswer } from '../after-answer.ts'
import type { ForkConfig } from '../config.ts'
import { describeError, log } from '../log.ts'
import { type BudgetHold, holdBudget, settleBudget } from './budget.ts'
import { admitCall, beginProbe, newCallId, recordOutcome } from './circuit.ts'
import {
  type ModelRequest,
  type Provider,
  ProviderError,
  type ProviderErrorKind,
  type ProviderReply,
} from './provider.ts'
import { runsHere } from './registry.ts'

/** An adapter that minds its signal ends at once; nobody waits longer for one that does not. */
const GRACE_MS = 50
const PROBE_MARGIN_MS = 5_000

/** Why a provider was passed over without being called. */
export type SkipReason = 'circuit_open' | 'budget' | 'switched_off'

export interface Attempt {
  provider: string
  kind: ProviderErrorKind | SkipReason
  message: string
  durationMs: number
}

/** One call to a provider, for the record; 'cancelled' when another one answered first. */
export interface Call {
  provider: string
  model: string | undefined
  outcome: 'ok' | 'cancelled' | ProviderErrorKind
  durationMs: number
  costMicroUsd: number
}

/** What one request has come to so far, whoever worked on it. */
export interface Progress {
  failed: Attempt[]
  calls: Call[]
  /** Budgets that hear what a call cost, while others are at work. */
  settling: Promise<void>[]
  /** Which budgets refused, and when open circuits let somebody through again. */
  refusedBy: string[]
  retryAfterMs: number[]
}

/** One provider's part in a request. */
export interface Turn {
  provider: Provider
  request: ModelRequest
  freeTier: boolean
  settings: Pick<ForkConfig['ai'], 'circuitBreakers' | 'routing' | 'providerTimeoutMs' | 'deadlineMs'>
  /** When its time is over, epoch milliseconds. */
  endsAtMs: number
  /** Nobody is left to be asked after it. */
  isLast: boolean
  /** Aborts when another provider's answer came first. */
  signal: AbortSignal
}

export interface Admitted {
  callId: string
  isProbe: boolean
  hold: BudgetHold | undefined
}

export type Refusal = Pick<Attempt, 'kind' | 'message'>

/** Lets one call through, with its expected cost held, or says what is in its way. */
export async function admit({ provider, request, freeTier, settings }: Turn, progress: Progress) {
  const callId = newCallId()
  const watched = settings.circuitBreakers && !runsHere(provider)
  const circuit = watched ? await admitCall(provider.id) : { state: 'closed' as const }
  if (circuit.state === 'open') return circuitOpen(progress, circuit.retryAfterMs)
  let hold: BudgetHold | undefined
  if (!runsHere(provider)) {
    const estimateMicroUsd = provider.ceilingMicroUsd(request)
    const held = await holdBudget({ provider: provider.id, estimateMicroUsd, freeTier }).catch((error: unknown) => {
      log('warn', 'budget_unreadable', { provider: provider.id, error: describeError(error) })
    })
    if (!held) return refusal('budget', 'Whether there is budget left cannot be told now.')
    if ('refusedBy' in held) {
      progress.refusedBy.push(held.refusedBy)
      return refusal('budget', `The budget "${held.refusedBy}" is used up.`)
    }
    hold = held.hold
  }
  // After the budget, so that no probe is taken and then not made.
  const isProbe = circuit.state === 'due'
  if (isProbe && !(await beginProbe(provider.id, callId, settings.providerTimeoutMs + PROBE_MARGIN_MS))) {
    giveUp({ hold }, progress)
    return circuitOpen(progress, settings.providerTimeoutMs)
  }
  return { callId, isProbe, hold } satisfies Admitted
}

/** Gives back what was held for a call that is not made. */
export function giveUp({ hold }: Pick<Admitted, 'hold'>, progress: Progress): void {
  if (hold) progress.settling.push(settleBudget(hold, 0))
}

function circuitOpen(progress: Progress, retryAfterMs: number): Refusal {
  progress.retryAfterMs.push(retryAfterMs)
  return refusal('circuit_open', 'It failed too often of late and is left alone for a while.')
}

function refusal(kind: SkipReason, message: string): Refusal {
  return { kind, message }
}

type Ended = { reply: ProviderReply } | { failure: ProviderError }

/** Calls the provider, at most until its time is over. What it cost is settled in any case, of what comes too late as well. */
export async function callProvider(
  turn: Turn,
  admitted: Admitted,
  progress: Progress,
): Promise<Ended & { call: Call }> {
  const { provider, settings, signal } = turn
  const startedAtMs = Date.now()
  const timeoutMs = Math.max(1, Math.min(settings.providerTimeoutMs, turn.endsAtMs - startedAtMs))
  const call: Call = { provider: provider.id, model: undefined, outcome: 'ok', durationMs: 0, costMicroUsd: 0 }
  progress.calls.push(call)
  const { ended, late } = await runInTime(turn, timeoutMs)
  call.durationMs = Date.now() - startedAtMs
  const isCancelled = signal.aborted && 'failure' in ended && ended.failure.kind !== 'blocked'
  call.model = 'reply' in ended ? ended.reply.model : undefined
  call.outcome = 'reply' in ended ? 'ok' : isCancelled ? 'cancelled' : ended.failure.kind
  call.costMicroUsd = costOf(ended)
  // A call that was broken off may be billed all the same, and nobody says so any more.
  const isBrokenOff = isCancelled || call.outcome === 'timeout'
  if (isBrokenOff) call.costMicroUsd = Math.max(call.costMicroUsd, provider.estimateMicroUsd(turn.request))
  if (late) await settleLater(late, admitted.hold, call)
  else if (admitted.hold) progress.settling.push(settleBudget(admitted.hold, call.costMicroUsd))
  return { ...ended, call }
}

/** Lets the circuit know how a call ended, once that is certain. */
export async function tellCircuit({ provider, settings }: Turn, { callId }: Admitted, call: Call): Promise<void> {
  const { outcome, durationMs } = call
  // Without circuits only latencies are of use.
  const isWatched = settings.circuitBreakers || (settings.routing === 'fastest' && outcome === 'ok')
  // Too little time is no fault of the provider's.
  const timeMs = Math.min(settings.providerTimeoutMs, settings.deadlineMs / 2)
  const wasRushed = outcome === 'timeout' && durationMs < timeMs / 2
  if (!isWatched || runsHere(provider) || wasRushed || outcome === 'cancelled') return
  await afterAnswer('circuit_not_told', () => recordOutcome(provider.id, { id: callId, kind: outcome, durationMs }))
}

function costOf(ended: Ended): number {
  return 'reply' in ended ? ended.reply.costMicroUsd : ended.failure.costMicroUsd
}

/** `late` is the call itself, where it goes on after its end. */
async function runInTime(
  { provider, request, signal }: Turn,
  timeoutMs: number,
): Promise<{ ended: Ended; late?: Promise<Ended> }> {
  const abort = new AbortController()
  const { promise: overdue, resolve: endWaiting } = Promise.withResolvers<undefined>()
  let grace: NodeJS.Timeout | undefined
  const breakOff = () => {
    abort.abort()
    grace ??= setTimeout(endWaiting, GRACE_MS, undefined)
  }
  const timer = setTimeout(breakOff, timeoutMs)
  signal.addEventListener('abort', breakOff, { once: true })
  if (signal.aborted) breakOff()
  const running = runOnce(provider, request, abort.signal)
  const ended = await Promise.race([running, overdue])
  clearTimeout(timer)
  clearTimeout(grace)
  signal.removeEventListener('abort', breakOff)
  if (ended) return { ended }
  return { ended: { failure: new ProviderError('timeout', 'It did not answer in time.') }, late: running }
}

/** Never throws: a failure that is no ProviderError is the network's, until somebody knows better. */
async function runOnce(provider: Provider, request: ModelRequest, signal: AbortSignal): Promise<Ended> {
  try {
    return { reply: await provider.run(request, { signal }) }
  } catch (error) {
    if (error instanceof ProviderError) return { failure: error }
    return { failure: new ProviderError('network', 'The provider failed in an unknown way.', { cause: error }) }
  }
}

/** What a call costs that nobody waits for any more; when it never ends, its hold does. */
async function settleLater(late: Promise<Ended>, hold: BudgetHold | undefined, { provider, costMicroUsd }: Call) {
  await afterAnswer('late_call_not_settled', async () => {
    const ended = await late
    const lateMicroUsd = 'reply' in ended ? costOf(ended) : Math.max(costOf(ended), costMicroUsd)
    log('warn', 'late_call', { provider, costMicroUsd: lateMicroUsd, accountedMicroUsd: costMicroUsd })
    if (hold) await settleBudget(hold, lateMicroUsd)
  })
}
