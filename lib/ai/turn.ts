// One provider's turn: a second try where it may help, and a result that can be used; or two turns at once.
import { setTimeout as pause } from 'node:timers/promises'
import { checkResult, convertImage } from '../image.ts'
import { type Admitted, admit, callProvider, giveUp, type Progress, type Turn, tellCircuit } from './attempt.ts'
import { ProviderError, type ProviderReply } from './provider.ts'
import { retryDelayMs } from './retry.ts'

/** Less is not worth a call that costs money; a small deadline has to make do with a quarter of itself. */
const CALL_MIN_MS = 1_000

export type Result =
  | { bytes: Buffer; format: 'png' | 'jpeg' | 'webp'; width: number; height: number }
  | { text: string }

export interface Answer {
  result: Result
  provider: string
  model: string
}

/**
 * Has one provider do the work, converted to `format`; undefined when it could not be asked or failed, which `progress` then tells.
 * `onAsk` hears of the first call before it is made.
 */
export async function takeTurn(
  turn: Turn,
  progress: Progress,
  { format, onAsk }: { format: 'png' | 'jpeg' | 'webp' | undefined; onAsk(): void },
): Promise<Answer | undefined> {
  const { provider, settings, endsAtMs, signal } = turn
  const callMinMs = Math.min(CALL_MIN_MS, settings.deadlineMs / 4)
  for (let round = 0; ; round += 1) {
    const admitted = await enter(turn, progress, { round, callMinMs })
    if (!admitted) return undefined
    if (round === 0) onAsk()
    const startedAtMs = Date.now()
    const ended = await callProvider(turn, admitted, progress)
    let failure = 'failure' in ended ? ended.failure : undefined
    if ('reply' in ended) {
      const { model } = ended.reply
      try {
        const result = await resultOf(ended.reply, format)
        await tellCircuit(turn, admitted, ended.call)
        return { result, provider: provider.id, model }
      } catch (error) {
        if (!(error instanceof ProviderError)) throw error
        failure = error
        ended.call.outcome = error.kind
      }
    }
    await tellCircuit(turn, admitted, ended.call)
    if (!failure || (signal.aborted && failure.kind !== 'blocked')) return undefined
    const { kind, message } = failure
    progress.failed.push({ provider: provider.id, kind, message, durationMs: Date.now() - startedAtMs })
    const timeLeftMs = endsAtMs - Date.now() - callMinMs
    // A probe is one call: the circuit has been told what came of it.
    const delayMs = admitted.isProbe ? undefined : retryDelayMs(failure, { round, timeLeftMs, nobodyElse: turn.isLast })
    if (delayMs === undefined) return undefined
    await pause(delayMs, undefined, { signal }).catch(() => {})
  }
}

/** Admission of a try; what is in the way of the first is on record, a later one is left out in silence. */
async function enter(
  turn: Turn,
  progress: Progress,
  { round, callMinMs }: { round: number; callMinMs: number },
): Promise<Admitted | undefined> {
  const refuse = (kind: Progress['failed'][number]['kind'], message: string) => {
    if (round === 0) progress.failed.push({ provider: turn.provider.id, kind, message, durationMs: 0 })
    return undefined
  }
  if (turn.signal.aborted) return undefined
  if (turn.endsAtMs - Date.now() < callMinMs) return refuse('timeout', 'There was no time left for it.')
  const admitted = await admit(turn, progress)
  if ('kind' in admitted) return refuse(admitted.kind, admitted.message)
  if (!turn.signal.aborted) return admitted
  giveUp(admitted, progress)
  return undefined
}

async function resultOf({ output }: ProviderReply, format: 'png' | 'jpeg' | 'webp' | undefined): Promise<Result> {
  if ('text' in output) return { text: output.text }
  const { bytes } = output
  const checked = await checkResult(bytes)
  const target = format ?? 'png'
  const image = await convertImage({ bytes, ...checked }, target).catch((cause) => {
    throw new ProviderError('no_image', 'The provider sent a damaged image.', { cause })
  })
  return { ...image, format: target }
}
