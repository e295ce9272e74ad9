// Why nothing was made, in the words and codes that callers see.
import { type Made, RouterError } from '../ai/router.ts'
import { AppError } from '../http/errors.ts'

/** The error a caller gets for whatever went wrong while an order was worked on. */
export function failureOf(error: unknown): AppError {
  if (error instanceof AppError) return error
  if (!(error instanceof RouterError))
    return new AppError('INTERNAL_ERROR', 'Something went wrong on our side. Nothing was charged.', { cause: error })
  const { attempts, calls } = error
  if (calls.length === 0) return notAsked(error)
  const asked = new Set(calls.map(({ provider }) => provider))
  const last = calls.at(-1)?.provider
  const details = {
    provider: attempts[0]?.provider,
    attempts,
    fallbackUsed: last === attempts[0]?.provider ? null : last,
  }
  const fail = (code: 'CONTENT_BLOCKED' | 'PROVIDER_TIMEOUT' | 'PROVIDER_ERROR', message: string) =>
    new AppError(code, `${message} Nothing was charged.`, { details, cause: error })

  const answered = attempts.filter(({ provider }) => asked.has(provider))
  if (answered.some(({ kind }) => kind === 'blocked')) {
    return fail('CONTENT_BLOCKED', 'The provider declined to work on this image.')
  }
  const final = answered.at(-1)
  if (final?.provider === 'sketch' && final.kind === 'bad_request') {
    return new AppError('IMAGE_UNREADABLE', 'The image is damaged. Nothing was charged.', { cause: error })
  }
  if (answered.every(({ kind }) => kind === 'timeout')) {
    return fail('PROVIDER_TIMEOUT', 'The provider took too long.')
  }
  return fail('PROVIDER_ERROR', 'The provider could not make the image.')
}

/** The error for a result that could not be brought into the form in which it leaves: one that is damaged is its maker's failure. */
export function failureOfMaker(error: unknown, { provider, failed }: Pick<Made, 'provider' | 'failed'>): AppError {
  if (!(error instanceof AppError) || error.code !== 'IMAGE_UNREADABLE') return failureOf(error)
  const damaged = { provider, kind: 'no_image', message: 'The provider sent a damaged image.', durationMs: 0 }
  const attempts = [...failed, damaged]
  const first = attempts[0]?.provider
  return new AppError('PROVIDER_ERROR', `${damaged.message} Nothing was charged.`, {
    details: { provider: first, attempts, fallbackUsed: provider === first ? null : provider },
    cause: error,
  })
}

/** No call was made: a budget is used up, or there was nobody to ask. */
function notAsked(error: RouterError): AppError {
  const { attempts, refusedBy, retryAfterMs } = error
  const providers = attempts.map(({ provider, kind, message }) => ({ provider, kind, reason: message }))
  if (refusedBy !== undefined) {
    return new AppError('BUDGET_EXHAUSTED', 'Nothing more is made for now: a budget is used up. Nothing was charged.', {
      details: { budget: refusedBy, providers },
      cause: error,
    })
  }
  return new AppError('PROVIDER_UNAVAILABLE', 'No provider of this tool can be used now. Nothing was charged.', {
    details: { providers },
    ...(retryAfterMs !== undefined && { headers: { 'retry-after': String(Math.ceil(retryAfterMs / 1000)) } }),
    cause: error,
  })
}
