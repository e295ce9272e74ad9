// Circuit breakers, shared by all instances through KV: a provider that fails is left alone for a while, then tried once.
import { randomBytes } from 'node:crypto'
import { KvError, type KvScript, kv } from '../kv.ts'
import { log } from '../log.ts'
import {
  countOutcomes,
  type Outcome,
  outcomeArgs,
  PROBE,
  parseCircuit,
  RECORD,
  takeProbe,
  WINDOW_MS,
} from './circuit-script.ts'
import type { ProviderErrorKind } from './provider.ts'

/** How long an instance goes by what it last heard of a circuit, and keeps good news to itself. */
const BELIEVED_MS = 1_500
const UNTOLD_MAX = 50

/** 'due': the cooldown is over, and whoever takes the probe may call. */
export type Admission = { state: 'closed' } | { state: 'due' } | { state: 'open'; retryAfterMs: number }

export interface CircuitState {
  state: 'closed' | 'open'
  /** When the next probe may go; null while closed. */
  openUntil: string | null
  /** Of the current window. */
  calls: number
  failures: number
  /** Moving average of successful answers; null before the first. */
  latencyMs: number | null
}

/** What this instance knows of a circuit: all there is while KV is down, so that calls go on and are watched all the same. */
interface Mirror {
  text: string
  believedUntilMs: number
  refreshing: Promise<unknown> | undefined
  /** Good news that KV has not heard yet; it goes along with the next request to KV. */
  untold: Outcome[]
}

const mirrors = new Map<string, Mirror>()

/** Names a call: its outcome counts once, and only the call that took the probe ends it. */
export const newCallId = () => randomBytes(6).toString('hex')

/** Whether a provider may be called now. Asks KV when this instance has not heard from it for a moment. Never throws. */
export async function admitCall(provider: string): Promise<Admission> {
  const mirror = await freshMirror(provider)
  const nowMs = Date.now()
  const { openUntilMs, probeId, probeUntilMs } = parseCircuit(mirror.text)
  if (openUntilMs === 0) return { state: 'closed' }
  const untilMs = Math.max(openUntilMs, probeId === '' ? 0 : probeUntilMs)
  return untilMs > nowMs ? { state: 'open', retryAfterMs: untilMs - nowMs } : { state: 'due' }
}

/**
 * Makes `callId` the one call that finds out whether the provider is back; false when another has begun to. Whoever dies with it
 * is followed by another when `leaseMs` is over. Never throws.
 */
export async function beginProbe(provider: string, callId: string, leaseMs: number): Promise<boolean> {
  const args = [Date.now(), callId, leaseMs]
  const mirror = mirrorOf(provider)
  const told = await tell(provider, mirror, PROBE, args, () => takeProbe(mirror.text, args))
  const { openUntilMs, probeId } = parseCircuit(told)
  return openUntilMs === 0 || probeId === callId
}

/**
 * Tells how a call ended. A refused key opens the circuit at once; a provider that declines a picture or finds fault with the
 * request is alive. Good news of a closed circuit may wait to be told together. Never throws.
 */
export async function recordOutcome(
  provider: string,
  { id, kind, durationMs }: { id: string; kind: 'ok' | ProviderErrorKind; durationMs: number },
): Promise<void> {
  const nowMs = Date.now()
  const verdict = VERDICTS[kind]
  const latencyMs = kind === 'ok' ? Math.max(1, Math.round(durationMs)) : 0
  const outcome = { id, atMs: nowMs, verdict, latencyMs }
  const mirror = mirrorOf(provider)
  const wasClosed = parseCircuit(mirror.text).openUntilMs === 0
  mirror.text = countOutcomes(mirror.text, [nowMs, ...outcomeArgs(outcome)])
  mirror.untold.push(outcome)
  if (wasClosed && verdict === 'alive' && mirror.believedUntilMs > nowMs) {
    if (mirror.untold.length > UNTOLD_MAX) mirror.untold.shift()
    return
  }
  // What came of a probe is told alone: the news from before it opened count no more.
  const told = wasClosed ? mirror.untold : [outcome]
  const text = await tellOutcomes(provider, mirror, told)
  const { changedBy, openUntilMs, cooldownMs } = parseCircuit(text)
  if (!told.some((call) => call.id === changedBy)) return
  if (openUntilMs === 0) log('info', 'circuit_closed', { provider })
  else log('warn', 'circuit_opened', { provider, kind, cooldownMs })
}

const VERDICTS: Record<'ok' | ProviderErrorKind, Outcome['verdict']> = {
  ok: 'alive',
  blocked: 'alive',
  no_image: 'alive',
  bad_request: 'alive',
  timeout: 'failed',
  rate_limited: 'failed',
  overloaded: 'failed',
  network: 'failed',
  model_gone: 'failed',
  auth: 'refused',
}

/** Every provider's circuit as it stands. Never throws. */
export async function circuitStates(providers: string[]): Promise<Map<string, CircuitState>> {
  const states = await Promise.all(
    providers.map(async (provider) => {
      const { openUntilMs, calls, latencyMs } = parseCircuit((await freshMirror(provider)).text)
      const recent = calls.filter(({ atMs }) => atMs > Date.now() - WINDOW_MS)
      return [
        provider,
        {
          state: openUntilMs === 0 ? 'closed' : 'open',
          openUntil: openUntilMs === 0 ? null : new Date(openUntilMs).toISOString(),
          calls: recent.length,
          failures: recent.filter(({ failed }) => failed).length,
          latencyMs: latencyMs === 0 ? null : latencyMs,
        },
      ] as const
    }),
  )
  return new Map(states)
}

const keyOf = (provider: string) => `circuit:${provider}`

function mirrorOf(provider: string): Mirror {
  const mirror = mirrors.get(provider) ?? { text: '', believedUntilMs: 0, refreshing: undefined, untold: [] }
  mirrors.set(provider, mirror)
  return mirror
}

/** However many wait for it, KV is asked once. */
async function freshMirror(provider: string): Promise<Mirror> {
  const mirror = mirrorOf(provider)
  if (mirror.believedUntilMs <= Date.now()) {
    mirror.refreshing ??= refresh(provider, mirror).finally(() => {
      mirror.refreshing = undefined
    })
    await mirror.refreshing
  }
  return mirror
}

async function refresh(provider: string, mirror: Mirror): Promise<void> {
  if (mirror.untold.length > 0) {
    await tellOutcomes(provider, mirror, mirror.untold)
    return
  }
  try {
    mirror.text = (await kv().get(keyOf(provider))) ?? ''
  } catch (error) {
    if (!(error instanceof KvError)) throw error
  }
  mirror.believedUntilMs = Date.now() + BELIEVED_MS
}

async function tellOutcomes(provider: string, mirror: Mirror, told: Outcome[]): Promise<string> {
  mirror.untold = []
  const args = [Date.now(), ...told.flatMap(outcomeArgs)]
  return await tell(provider, mirror, RECORD, args, () => mirror.text)
}

/** Runs a step in KV and believes what it answers; with KV down, `alone` is what this instance makes of it. */
async function tell(
  provider: string,
  mirror: Mirror,
  script: KvScript,
  args: (string | number)[],
  alone: () => string,
): Promise<string> {
  let text: string
  try {
    text = String(await kv().run(script, [keyOf(provider)], args))
  } catch (error) {
    if (!(error instanceof KvError)) throw error
    text = alone()
  }
  mirror.text = text
  mirror.believedUntilMs = Date.now() + BELIEVED_MS
  return text
}
