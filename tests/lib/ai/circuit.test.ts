// When a circuit opens, how long it stays so, and who may look whether the provider is back.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { admitCall, beginProbe, circuitStates, newCallId, recordOutcome } from '../../../lib/ai/circuit.ts'
import type { ProviderErrorKind } from '../../../lib/ai/provider.ts'

const NOW = Date.UTC(2026, 0, 1)
const SECOND_MS = 1_000
const MINUTE_MS = 60_000

let provider: string
let logged: { event: string; provider: string }[]

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: NOW })
  provider = `provider-${crypto.randomUUID()}`
  logged = []
  vi.spyOn(console, 'log').mockImplementation((line) => void logged.push(JSON.parse(line)))
})

afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

const tell = (kind: 'ok' | ProviderErrorKind, id = newCallId(), durationMs = 100) =>
  recordOutcome(provider, { id, kind, durationMs })
const pass = (ms: number) => vi.setSystemTime(Date.now() + ms)
const state = async () => (await admitCall(provider)).state
const events = () => logged.filter((line) => line.provider === provider).map(({ event }) => event)

async function tellAll(...kinds: ('ok' | ProviderErrorKind)[]) {
  for (const kind of kinds) await tell(kind)
}

const times = (count: number, kind: 'ok' | ProviderErrorKind) => Array.from({ length: count }, () => kind)

/** Lets the probe go, and tells what came of it. */
async function probe(kind: 'ok' | ProviderErrorKind) {
  const id = newCallId()
  expect(await state()).toBe('due')
  expect(await beginProbe(provider, id, MINUTE_MS)).toBe(true)
  await tell(kind, id)
}

describe('a circuit', () => {
  test('opens at the fifth failure in a row, for 15 seconds', async () => {
    await tellAll(...times(4, 'overloaded'))
    expect(await state()).toBe('closed')
    await tell('network')
    expect(await admitCall(provider)).toEqual({ state: 'open', retryAfterMs: 15 * SECOND_MS })
    pass(15 * SECOND_MS - 1)
    expect(await state()).toBe('open')
    pass(1)
    expect(await state()).toBe('due')
  })

  test('opens when half of ten calls failed, however they are mixed', async () => {
    await tellAll('ok', 'timeout', 'ok', 'timeout', 'ok', 'timeout', 'ok', 'timeout', 'ok')
    expect(await state()).toBe('closed')
    await tell('timeout')
    expect(await state()).toBe('open')
  })

  test('stays closed while most calls succeed', async () => {
    for (let round = 0; round < 20; round += 1) await tellAll('ok', 'overloaded', 'ok')
    expect(await state()).toBe('closed')
  })

  test('opens at the fifth failure in a row, minutes apart as well', async () => {
    for (let round = 0; round < 4; round += 1) {
      await tell('timeout')
      pass(2 * MINUTE_MS)
    }
    expect(await state()).toBe('closed')
    expect((await circuitStates([provider])).get(provider)).toMatchObject({ calls: 0, failures: 0 })
    await tell('timeout')
    expect(await state()).toBe('open')
  })

  test('takes its rate from the last minute alone', async () => {
    await tellAll(...times(5, 'ok'), ...times(4, 'overloaded'))
    pass(MINUTE_MS)
    await tellAll('ok', 'overloaded')
    expect(await state()).toBe('closed')
    expect((await circuitStates([provider])).get(provider)).toMatchObject({ calls: 2, failures: 1 })
  })

  test.each<ProviderErrorKind>(['blocked', 'no_image', 'bad_request'])('takes %s for a sign of life', async (kind) => {
    await tellAll(...times(30, kind))
    expect(await state()).toBe('closed')
    expect((await circuitStates([provider])).get(provider)).toMatchObject({ failures: 0, latencyMs: null })
  })

  test.each<ProviderErrorKind>(['timeout', 'rate_limited', 'overloaded', 'network', 'model_gone'])(
    'counts %s as a failure',
    async (kind) => {
      await tellAll(...times(5, kind))
      expect(await state()).toBe('open')
    },
  )

  test('opens at the first refused key, for five minutes', async () => {
    await tellAll(...times(20, 'ok'), 'auth')
    expect(await admitCall(provider)).toEqual({ state: 'open', retryAfterMs: 5 * MINUTE_MS })
  })

  test('waits twice as long after each probe that fails, five minutes at most, and 15 seconds again after a success', async () => {
    await tellAll(...times(5, 'overloaded'))
    for (const seconds of [15, 30, 60, 120, 240, 300, 300]) {
      expect(await admitCall(provider)).toMatchObject({ retryAfterMs: seconds * SECOND_MS })
      pass(seconds * SECOND_MS)
      await probe('overloaded')
    }
    pass(300 * SECOND_MS)
    await probe('ok')
    expect(await state()).toBe('closed')
    await tellAll(...times(5, 'overloaded'))
    expect(await admitCall(provider)).toMatchObject({ retryAfterMs: 15 * SECOND_MS })
  })

  test('lets one probe go at a time, and another when that one never came back', async () => {
    await tellAll(...times(5, 'overloaded'))
    pass(15 * SECOND_MS)
    const [first, second, third] = [newCallId(), newCallId(), newCallId()]
    expect(await Promise.all([first, second].map((id) => beginProbe(provider, id, MINUTE_MS)))).toEqual([true, false])
    expect(await state()).toBe('open')
    pass(MINUTE_MS)
    expect(await beginProbe(provider, third, MINUTE_MS)).toBe(true)
    // The first one is back after all: it is no longer its word that counts.
    await tell('ok', first)
    expect(await state()).toBe('open')
    await tell('ok', third)
    expect(await state()).toBe('closed')
  })

  test('is not moved by calls that began before it opened', async () => {
    await tellAll(...times(5, 'overloaded'), 'ok', 'overloaded', 'auth')
    expect(await admitCall(provider)).toEqual({ state: 'open', retryAfterMs: 15 * SECOND_MS })
  })

  test('closes at a probe whose picture was declined: the provider is there', async () => {
    await tellAll(...times(5, 'overloaded'))
    pass(15 * SECOND_MS)
    await probe('blocked')
    expect(await state()).toBe('closed')
  })

  test('tells once when it opens and once when it closes', async () => {
    await tellAll(...times(9, 'overloaded'))
    pass(15 * SECOND_MS)
    await probe('overloaded')
    pass(30 * SECOND_MS)
    await probe('ok')
    await tellAll(...times(3, 'ok'))
    expect(events()).toEqual(['circuit_opened', 'circuit_closed'])
  })
})

describe('latency', () => {
  test('is an average of successes that moves with them', async () => {
    expect((await circuitStates([provider])).get(provider)).toMatchObject({ state: 'closed', latencyMs: null })
    await tell('ok', newCallId(), 1_000)
    await tell('overloaded', newCallId(), 1)
    await tell('no_image', newCallId(), 1)
    expect((await circuitStates([provider])).get(provider)?.latencyMs).toBe(1_000)
    await tell('ok', newCallId(), 2_000)
    expect((await circuitStates([provider])).get(provider)?.latencyMs).toBe(1_300)
  })

  test('is forgotten when nobody called for a quarter of an hour', async () => {
    await tell('ok')
    pass(15 * MINUTE_MS)
    expect((await circuitStates([provider])).get(provider)).toMatchObject({ calls: 0, latencyMs: null })
  })
})
