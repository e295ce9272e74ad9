// Who may put a picture into our store, which costs the operator: whoever can pay for what is made of it, so many times a day.
import { db } from '../../db/client.ts'
import { AppError } from '../http/errors.ts'
import { KvError, kv, memoryKv } from '../kv.ts'
import { statementOf } from '../ledger/ledger.ts'
import { priceOf, qualitiesOf, type Tool } from './catalogue.ts'
import { insufficientTokens } from './hold.ts'

/** More pictures in a day than a person works on; uploads that come to nothing lie in the store until they are swept. */
const PER_USER = { quota: 100, windowMs: 24 * 60 * 60 * 1000 }

const localCounts = memoryKv()

/** Throws INSUFFICIENT_TOKENS when the user cannot pay the tool's lowest price now, and RATE_LIMITED after the uploads of a day. */
export async function admitUpload(userId: string, tool: Tool): Promise<void> {
  const { balance } = await statementOf(db(), userId)
  const price = Math.min(...qualitiesOf(tool).map((quality) => priceOf(tool, quality)))
  if (balance.trialGenerations === 0 && balance.tokens < price) throw insufficientTokens(price, balance.tokens)
  const windows = [{ key: `uploads:${userId}`, ...PER_USER }]
  const [state] = await kv()
    .countWindows(windows)
    .catch((error: unknown) => {
      if (!(error instanceof KvError)) throw error
      return localCounts.countWindows(windows)
    })
  if (state === undefined || state.allowed) return
  const retryAfterSeconds = Math.max(0, Math.floor((state.resetAtMs - Date.now()) / 1000)) + 1
  throw new AppError('RATE_LIMITED', `At most ${PER_USER.quota} pictures can be uploaded in a day.`, {
    details: { retryAfterSeconds },
    headers: { 'retry-after': String(retryAfterSeconds) },
  })
}
