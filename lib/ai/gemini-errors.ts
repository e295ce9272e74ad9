// Google's errors in our words.
import type { GoogleGenerativeAIFetchError } from '@google/generative-ai'
import * as v from 'valibot'
import { ProviderError, type ProviderErrorKind } from './provider.ts'

/** `details` of Google's errors: google.rpc.ErrorInfo, RetryInfo and QuotaFailure in one. */
const ErrorDetails = v.array(
  v.object({
    reason: v.nullish(v.string()),
    retryDelay: v.nullish(v.string()),
    violations: v.nullish(
      v.array(v.object({ quotaId: v.nullish(v.string()), quotaValue: v.nullish(v.union([v.string(), v.number()])) })),
    ),
  }),
)

/** What a refusal means; `costMicroUsd` is what was billed before it came. */
export function httpFailure(error: GoogleGenerativeAIFetchError, costMicroUsd: number): ProviderError {
  const { status = 0, message } = error
  const parsed = v.safeParse(ErrorDetails, error.errorDetails)
  const details = parsed.success ? parsed.output : []
  const fail = (kind: ProviderErrorKind, text: string, retryAfterMs?: number) =>
    new ProviderError(kind, text, { retryAfterMs, costMicroUsd, cause: error })

  const isBadKey = message.includes('API key not valid') || details.some(({ reason }) => reason === 'API_KEY_INVALID')
  const isRefused = status === 401 || status === 403 || (status === 400 && isBadKey)
  if (isRefused) return fail('auth', 'Gemini refused the API key.')
  if (status === 404) return fail('model_gone', 'Gemini does not have this model any more.')
  if (status === 429) return fail('rate_limited', 'Gemini is at its rate limit.', waitMs(details, message))
  if (status >= 500) return fail('overloaded', `Gemini is overloaded or down (${status}).`)
  return fail('bad_request', `Gemini refused the request (${status}).`)
}

/** Google's advice on when to try again; none for a day's quota or a quota of zero, where the advice it gives is wrong. */
function waitMs(details: v.InferOutput<typeof ErrorDetails>, message: string): number | undefined {
  const quotas = details.flatMap(({ violations }) => violations ?? [])
  const isSpent = quotas.some(({ quotaId, quotaValue }) => quotaId?.includes('PerDay') || Number(quotaValue ?? 1) === 0)
  if (isSpent || /limit: 0(?![.\d])/.test(message)) return undefined
  const delay = details.find(({ retryDelay }) => retryDelay)?.retryDelay
  const seconds = /^(\d+(?:\.\d+)?)s$/.exec(delay ?? '')?.[1]
  return seconds === undefined ? undefined : Math.ceil(Number(seconds) * 1000)
}
