// The order in which providers are asked, by cost and by measured latency.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { newCallId, recordOutcome } from '../../../lib/ai/circuit.ts'
import { arrange } from '../../../lib/ai/policy.ts'
import type { Provider } from '../../../lib/ai/provider.ts'
import { sketch } from '../../../lib/ai/sketch.ts'

const WORK = { task: 'image->image', quality: 'standard' } as const

let run: string

beforeEach(() => {
  run = crypto.randomUUID()
})

afterEach(() => vi.restoreAllMocks())

const named = (name: string) => `${name}-${run}`

function aProvider(name: string, estimateMicroUsd = 0): Provider {
  return {
    id: named(name),
    serves: {},
    reads: [],
    unavailable: () => null,
    estimateMicroUsd: () => estimateMicroUsd,
    ceilingMicroUsd: () => estimateMicroUsd,
    run: () => Promise.reject(new Error('Nobody is asked here.')),
  }
}

async function order(
  usable: Provider[],
  routing: 'ordered' | 'cheapest' | 'fastest',
  { list = usable.map(({ id }) => id), pinned = false } = {},
): Promise<string> {
  const plan = await arrange(usable, { list, pinned, routing, work: WORK })
  return plan.order.map(({ id }) => id.replace(`-${run}`, '')).join(' ')
}

const measured = (provider: Provider, durationMs: number) =>
  recordOutcome(provider.id, { id: newCallId(), kind: 'ok', durationMs })

describe('"ordered"', () => {
  test('is the list, whatever it costs', async () => {
    expect(await order([aProvider('dear', 9), sketch, aProvider('cheap', 1)], 'ordered')).toBe('dear sketch cheap')
  })
})

describe('"cheapest"', () => {
  const [dear, cheap, alike] = [() => aProvider('dear', 9), () => aProvider('cheap', 1), () => aProvider('alike', 1)]

  test('goes by expected cost, ties by the list', async () => {
    expect(await order([dear(), cheap(), alike()], 'cheapest')).toBe('cheap alike dear')
    expect(await order([dear(), alike(), cheap()], 'cheapest')).toBe('alike cheap dear')
  })

  test('what works on this machine comes last, unless the list begins with it', async () => {
    expect(await order([dear(), sketch, cheap()], 'cheapest')).toBe('cheap dear sketch')
    expect(await order([sketch, dear(), cheap()], 'cheapest')).toBe('sketch cheap dear')
  })

  test('it does not move up when who is listed before it cannot be asked', async () => {
    const list = ['keyless', 'sketch', named('dear'), named('cheap')]
    expect(await order([sketch, dear(), cheap()], 'cheapest', { list })).toBe('cheap dear sketch')
  })

  test("the caller's choice stays first", async () => {
    expect(await order([dear(), cheap(), sketch], 'cheapest', { pinned: true })).toBe('dear cheap sketch')
    expect(await order([sketch, dear(), cheap()], 'cheapest', { pinned: true })).toBe('sketch cheap dear')
  })
})

describe('"fastest"', () => {
  test('goes by latency, and by the list where nothing is measured', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0.99)
    const [slow, quick, unknown] = [aProvider('slow'), aProvider('quick'), aProvider('unknown')]
    expect(await order([slow, unknown, quick], 'fastest')).toBe('slow unknown quick')
    await measured(slow, 900)
    await measured(quick, 100)
    expect(await order([slow, unknown, sketch, quick], 'fastest')).toBe('quick slow unknown sketch')
  })

  test('who has not been measured gets as many turns as are fair', async () => {
    const providers = [aProvider('known'), aProvider('other'), aProvider('unknown')]
    for (const provider of providers.slice(0, 2)) await measured(provider, 100)
    const random = vi.spyOn(Math, 'random')
    const draws = Array.from({ length: 300 }, (_, index) => index / 300)
    const first = []
    for (const draw of draws) {
      random.mockReturnValue(draw)
      first.push((await order(providers, 'fastest')).split(' ')[0])
    }
    expect(first.filter((name) => name === 'unknown')).toHaveLength(100)
    expect(first.filter((name) => name === 'known')).toHaveLength(200)
  })
})
