// A provider's turn: ended in time whatever its adapter does, and accounted for in full; and two turns at once.
import { setTimeout as pause } from 'node:timers/promises'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import type { Progress, Turn } from '../../../lib/ai/attempt.ts'
import { circuitStates } from '../../../lib/ai/circuit.ts'
import { askHedged } from '../../../lib/ai/hedge.ts'
import { type Provider, ProviderError, type ProviderReply } from '../../../lib/ai/provider.ts'
import { takeTurn } from '../../../lib/ai/turn.ts'

const REQUEST = {
  task: 'text->text' as const,
  quality: 'standard' as const,
  image: undefined,
  prompt: 'Say something.',
  options: {},
}
const SETTINGS = { circuitBreakers: true, routing: 'ordered' as const, providerTimeoutMs: 30_000, deadlineMs: 60_000 }
const REPLY: ProviderReply = { output: { text: 'done' }, model: 'model-1', costMicroUsd: 7 }

let provider: string
let logged: Record<string, unknown>[]

beforeEach(() => {
  provider = `provider-${crypto.randomUUID()}`
  logged = []
  vi.spyOn(console, 'log').mockImplementation((line) => void logged.push(JSON.parse(line)))
})

const newProgress = (): Progress => ({ failed: [], calls: [], settling: [], refusedBy: [], retryAfterMs: [] })

/** Free of charge, so that no budget is asked; `price` is what broken off calls count for. */
function adapter(run: Provider['run'], id = provider, price = 0): Provider {
  return {
    id,
    serves: {},
    reads: [],
    unavailable: () => null,
    estimateMicroUsd: () => price,
    ceilingMicroUsd: () => 0,
    run,
  }
}

function turnOf(run: Provider['run'], change: Partial<Turn> = {}): Turn {
  return {
    provider: adapter(run),
    request: REQUEST,
    freeTier: false,
    settings: SETTINGS,
    endsAtMs: Date.now() + 60_000,
    isLast: true,
    signal: new AbortController().signal,
    ...change,
  }
}

async function take(turn: Turn, progress = newProgress()) {
  const answer = await takeTurn(turn, progress, { format: undefined, onAsk: () => {} })
  return { answer, ...progress }
}

const never = () => new Promise<ProviderReply>(() => {})

/** Ends when it is told to, as adapters do. */
const obedient: Provider['run'] = (_, { signal }) => {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(new ProviderError('timeout', 'Broken off.')))
  })
}

describe('a turn', () => {
  test('gives the answer, and what it cost', async () => {
    const { answer, calls, failed } = await take(turnOf(async () => REPLY))
    expect(answer).toEqual({ result: { text: 'done' }, provider, model: 'model-1' })
    expect(calls).toMatchObject([{ provider, model: 'model-1', outcome: 'ok', costMicroUsd: 7 }])
    expect(failed).toEqual([])
  })

  test('tries once more where that may help, and counts what both calls cost', async () => {
    let round = 0
    const { answer, calls, failed } = await take(
      turnOf(async () => {
        round += 1
        if (round === 1) throw new ProviderError('overloaded', 'Later.', { costMicroUsd: 3, retryAfterMs: 1 })
        return REPLY
      }),
    )
    expect(answer?.provider).toBe(provider)
    expect(calls.map(({ outcome, costMicroUsd }) => [outcome, costMicroUsd])).toEqual([
      ['overloaded', 3],
      ['ok', 7],
    ])
    expect(failed).toMatchObject([{ provider, kind: 'overloaded', message: 'Later.' }])
  })

  test('takes whatever an adapter throws for a failure of the network', async () => {
    const { answer, failed } = await take(
      turnOf(() => {
        throw new TypeError('a fault of our own')
      }),
    )
    expect(answer).toBeUndefined()
    expect(failed.map(({ kind }) => kind)).toEqual(['network', 'network'])
    expect(JSON.stringify(failed)).not.toContain('a fault of our own')
  })

  test('does not wait for an adapter that ignores its signal, and tells what it cost in the end', async () => {
    const { promise, resolve } = Promise.withResolvers<ProviderReply>()
    const settings = { ...SETTINGS, providerTimeoutMs: 20 }
    const { answer, calls, failed } = await take(turnOf(() => promise, { settings }))
    expect(answer).toBeUndefined()
    expect(failed).toMatchObject([{ kind: 'timeout' }])
    expect(calls).toMatchObject([{ outcome: 'timeout', costMicroUsd: 0 }])
    resolve(REPLY)
    await expect
      .poll(() => logged.find(({ event }) => event === 'late_call'))
      .toMatchObject({ provider, costMicroUsd: 7, accountedMicroUsd: 0 })
  })

  test('is not begun when there is no time left for a call', async () => {
    const run = vi.fn(async () => REPLY)
    const { answer, calls, failed } = await take(turnOf(run, { endsAtMs: Date.now() + 900 }))
    expect(answer).toBeUndefined()
    expect(run).not.toHaveBeenCalled()
    expect(calls).toEqual([])
    expect(failed).toMatchObject([{ provider, kind: 'timeout', durationMs: 0 }])
  })

  test('of little time does not count against the provider', async () => {
    const endsAtMs = Date.now() + 1_300
    expect((await take(turnOf(obedient, { endsAtMs }))).failed).toMatchObject([{ kind: 'timeout' }])
    expect((await circuitStates([provider])).get(provider)).toMatchObject({ calls: 0, failures: 0 })
  })

  test('leaves a provider alone whose circuit is open, and says when it may be asked again', async () => {
    const refuses = turnOf(async () => Promise.reject(new ProviderError('auth', 'Wrong key.')))
    expect((await take(refuses)).failed).toMatchObject([{ kind: 'auth' }])
    const run = vi.fn(async () => REPLY)
    const { answer, calls, failed, retryAfterMs } = await take(turnOf(run))
    expect([answer, calls]).toEqual([undefined, []])
    expect(run).not.toHaveBeenCalled()
    expect(failed).toMatchObject([{ provider, kind: 'circuit_open' }])
    expect(retryAfterMs[0]).toBeGreaterThan(60_000)
  })

  test('goes on where the fork switched circuits off', async () => {
    const settings = { ...SETTINGS, circuitBreakers: false }
    for (let call = 0; call < 8; call += 1) {
      const { failed } = await take(turnOf(() => Promise.reject(new ProviderError('auth', 'Wrong key.')), { settings }))
      expect(failed).toMatchObject([{ kind: 'auth' }])
    }
  })
})

describe('two turns at once', () => {
  const slow = `slow-${crypto.randomUUID()}`
  const quick = `quick-${crypto.randomUUID()}`

  /** Takes the turns as the router would; answers with both and what was recorded. */
  async function race(first: Provider['run'], second: Provider['run'], afterMs = 5) {
    const progress = newProgress()
    // Without circuits, and priced only after it has been let in: the budgets of this test are nobody's.
    const start = (id: string, run: Provider['run']) => (signal: AbortSignal) => {
      let price = 0
      const priced: Provider['run'] = (...call) => {
        price = 50
        return run(...call)
      }
      const turn = turnOf(run, { provider: { ...adapter(priced, id), estimateMicroUsd: () => price }, signal })
      return takeTurn(turn, progress, { format: undefined, onAsk: () => {} })
    }
    const rival = vi.fn(async () => start(quick, second))
    const answer = await askHedged(start(slow, first), rival, { afterMs, progress })
    return { answer, rival, ...progress }
  }

  const after = (ms: number, reply = REPLY) => pause(ms).then(() => reply)

  test('the second is not asked while the first is quick', async () => {
    const { answer, rival, calls } = await race(() => after(1), never, 20_000)
    expect(answer?.provider).toBe(slow)
    expect(rival).not.toHaveBeenCalled()
    expect(calls).toHaveLength(1)
  })

  test('nor when the first failed: that is what the fallback is for', async () => {
    const { answer, rival } = await race(() => Promise.reject(new ProviderError('model_gone', 'Gone.')), never, 20_000)
    expect(answer).toBeUndefined()
    expect(rival).not.toHaveBeenCalled()
  })

  test('the first good answer counts; the other is broken off and paid for as expected', async () => {
    const { answer, calls, failed } = await race(obedient, () => after(1))
    expect(answer?.provider).toBe(quick)
    expect(failed).toEqual([])
    expect(calls.map(({ provider, outcome, costMicroUsd }) => [provider, outcome, costMicroUsd])).toEqual([
      [slow, 'cancelled', 50],
      [quick, 'ok', 7],
    ])
  })

  test('a loser that ignores its signal holds nobody up', async () => {
    const { answer, calls } = await race(never, () => after(1))
    expect(answer?.provider).toBe(quick)
    expect(calls[0]).toMatchObject({ outcome: 'cancelled', costMicroUsd: 50 })
  })

  test('a loser that is done in that moment costs what it says', async () => {
    const finishing: Provider['run'] = (_, { signal }) => {
      return new Promise((resolve) => signal.addEventListener('abort', () => resolve(REPLY)))
    }
    const { answer, calls } = await race(finishing, () => after(1))
    expect(answer?.provider).toBe(quick)
    expect(calls[0]).toMatchObject({ outcome: 'ok', costMicroUsd: 7 })
  })

  test('the first goes on when the second fails', async () => {
    const { answer, failed } = await race(
      () => after(200),
      () => Promise.reject(new ProviderError('bad_request', 'No.')),
    )
    expect(answer?.provider).toBe(slow)
    expect(failed).toMatchObject([{ provider: quick, kind: 'bad_request' }])
  })

  test('a picture that either declines is declined', async () => {
    const blocked: Provider['run'] = () => Promise.reject(new ProviderError('blocked', 'No.'))
    const bySecond = await race(obedient, blocked)
    expect(bySecond.answer).toBeUndefined()
    expect(bySecond.calls.map(({ outcome }) => outcome)).toEqual(['cancelled', 'blocked'])
    const late: Provider['run'] = (request, context) => pause(100).then(() => blocked(request, context))
    const byFirst = await race(late, obedient)
    expect(byFirst.answer).toBeUndefined()
    expect(byFirst.failed).toMatchObject([{ provider: slow, kind: 'blocked' }])
  })
})
