// Whether asking the same provider again may help, and after how long.
import type { ProviderError, ProviderErrorKind } from './provider.ts'

const RETRIES_MAX = 1
const JITTER_BASE_MS = 600
const JITTER_MAX_MS = 5_000
/** Somebody else could be answering meanwhile. */
const WAIT_BEFORE_NEXT_MAX_MS = 3_000
/** A timeout is not among them: the time it took is the time the next provider needs. */
const RETRYABLE: readonly ProviderErrorKind[] = ['rate_limited', 'overloaded', 'network']

/**
 * How long to wait before the next try, or undefined when there should be none. The provider's own advice counts where it
 * gives one, and a rate limit without any is no matter of moments; anything else waits by chance ("full jitter"), so that
 * callers who failed together do not come back together.
 */
export function retryDelayMs(
  { kind, retryAfterMs }: ProviderError,
  { round, timeLeftMs, nobodyElse }: { round: number; timeLeftMs: number; nobodyElse: boolean },
): number | undefined {
  if (round >= RETRIES_MAX || !RETRYABLE.includes(kind)) return undefined
  if (kind === 'rate_limited' && retryAfterMs === undefined) return undefined
  const delayMs = retryAfterMs ?? Math.random() * Math.min(JITTER_MAX_MS, JITTER_BASE_MS * 2 ** round)
  return delayMs < timeLeftMs && (nobodyElse || delayMs <= WAIT_BEFORE_NEXT_MAX_MS) ? delayMs : undefined
}
