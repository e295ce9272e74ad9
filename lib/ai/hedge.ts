// Two providers at work on one request: the second is asked when the first lets it wait, and the first good answer counts.
import { setTimeout as pause } from 'node:timers/promises'
import type { Progress } from './attempt.ts'
import type { Answer } from './turn.ts'

/** Takes a provider's turn, which ends early when `signal` aborts. */
export type Start = (signal: AbortSignal) => Promise<Answer | undefined>

/**
 * Starts `first`; after `afterMs` without an end of it, also what `nextRival` gives, if any. Whoever loses is broken off, and has ended and
 * is accounted for when this returns. A picture that one of them declines is declined: the other's answer is not waited for.
 */
export async function askHedged(
  first: Start,
  nextRival: () => Promise<Start | undefined>,
  { afterMs, progress }: { afterMs: number; progress: Progress },
): Promise<Answer | undefined> {
  const [one, other, timer] = [new AbortController(), new AbortController(), new AbortController()]
  const running = first(one.signal)
  const isSlow = await Promise.race([
    running.then(() => false),
    pause(afterMs, true, { signal: timer.signal }).catch(() => false),
  ]).finally(() => timer.abort())
  const rival = isSlow && !isBlocked(progress) ? await nextRival() : undefined
  if (!rival) return await running
  let winner: Answer | undefined
  const untilDecided = async (turn: Promise<Answer | undefined>, against: AbortController) => {
    const answer = await turn
    winner ??= answer
    if (answer || isBlocked(progress)) against.abort()
  }
  try {
    await Promise.all([untilDecided(running, other), untilDecided(rival(other.signal), one)])
  } finally {
    for (const turn of [one, other]) turn.abort() // Only a fault of our own leaves one of them at work.
  }
  return isBlocked(progress) ? undefined : winner
}

export function isBlocked({ failed }: Progress): boolean {
  return failed.some(({ kind }) => kind === 'blocked')
}
