// Whether and when a provider is asked again: only where that may help, and only in the time that is left.
import { afterEach, describe, expect, test, vi } from 'vitest'
import { ProviderError, type ProviderErrorKind } from '../../../lib/ai/provider.ts'
import { retryDelayMs } from '../../../lib/ai/retry.ts'

const AMPLE = { round: 0, timeLeftMs: 30_000, nobodyElse: false }

const failure = (kind: ProviderErrorKind, retryAfterMs?: number) => new ProviderError(kind, 'no', { retryAfterMs })

afterEach(() => vi.restoreAllMocks())

describe('asking again', () => {
  test.each<ProviderErrorKind>(['blocked', 'auth', 'bad_request', 'model_gone', 'no_image', 'timeout'])(
    'is out of the question after %s, whatever the provider advises',
    (kind) => {
      for (const advice of [undefined, 0, 100]) {
        expect(retryDelayMs(failure(kind, advice), { ...AMPLE, nobodyElse: true })).toBeUndefined()
      }
    },
  )

  test.each<ProviderErrorKind>(['overloaded', 'network'])('after %s waits anything from nothing to its cap', (kind) => {
    const random = vi.spyOn(Math, 'random')
    random.mockReturnValue(0)
    expect(retryDelayMs(failure(kind), AMPLE)).toBe(0)
    random.mockReturnValue(0.999)
    expect(retryDelayMs(failure(kind), AMPLE)).toBeCloseTo(599.4)
  })

  test('happens once', () => {
    expect(retryDelayMs(failure('overloaded'), { ...AMPLE, round: 1 })).toBeUndefined()
  })

  test('waits as long as the provider says, when that fits the time that is left', () => {
    expect(retryDelayMs(failure('rate_limited', 2_000), AMPLE)).toBe(2_000)
    expect(retryDelayMs(failure('overloaded', 2_000), AMPLE)).toBe(2_000)
    expect(retryDelayMs(failure('rate_limited', 2_000), { ...AMPLE, timeLeftMs: 2_000 })).toBeUndefined()
    expect(retryDelayMs(failure('overloaded', 2_000), { ...AMPLE, timeLeftMs: 1_999 })).toBeUndefined()
  })

  test('waits long only for a provider that nobody can stand in for', () => {
    expect(retryDelayMs(failure('rate_limited', 10_000), AMPLE)).toBeUndefined()
    expect(retryDelayMs(failure('rate_limited', 10_000), { ...AMPLE, nobodyElse: true })).toBe(10_000)
  })

  test('is no use at a rate limit that names no end', () => {
    expect(retryDelayMs(failure('rate_limited'), { ...AMPLE, nobodyElse: true })).toBeUndefined()
  })
})
