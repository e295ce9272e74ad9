// Work that an answer neither waits for nor depends on.
import { describeError, log } from './log.ts'

/** Starts such work and keeps the function alive for it; what fails there is logged as a warning under `failure`. */
export async function afterAnswer(failure: string, work: () => Promise<void>): Promise<void> {
  const { waitUntil } = await import('@vercel/functions')
  waitUntil(work().catch((error: unknown) => log('warn', failure, { error: describeError(error) })))
}
