// The circuit's scripts in Lua on real Redis, beside their JavaScript: the same history, the same state, step by step.
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { outcomeArgs, PROBE, parseCircuit, RECORD, type Verdict } from '../../lib/ai/circuit-script.ts'
import { type Kv, kv, memoryKv } from '../../lib/kv.ts'
import { startApp } from '../support/app.ts'
import { seed } from '../support/seed.ts'

const EPOCH_MS = Date.UTC(2026, 0, 1)

type Step =
  | { do: 'record'; calls: { call: number; verdict: Verdict; latencyMs: number }[] }
  | { do: 'probe'; call: number; leaseMs: number }
  | { do: 'wait'; ms: number }
  | { do: 'again' }

/** Few ids, so that calls are told twice and probes are told by others. */
const calls = fc.nat(30)
const record = fc.record({
  do: fc.constant('record' as const),
  calls: fc.array(
    fc.record({
      call: calls,
      verdict: fc.constantFrom<Verdict>('alive', 'failed', 'failed', 'failed', 'refused'),
      latencyMs: fc.constantFrom(0, 1, 999, 30_000),
    }),
    { minLength: 1, maxLength: 12 },
  ),
})
const probe = fc.record({ do: fc.constant('probe' as const), call: calls, leaseMs: fc.constantFrom(1_000, 35_000) })
const wait = fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(1, 900, 15_000, 40_000, 300_000) })
const again = fc.record({ do: fc.constant('again' as const) })
const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: record },
    { weight: 3, arbitrary: probe },
    { weight: 3, arbitrary: wait },
    { weight: 1, arbitrary: again },
  ),
  { minLength: 5, maxLength: 25 },
) satisfies fc.Arbitrary<Step[]>

let redis: Kv

beforeAll(async () => {
  await startApp()
  redis = kv()
})

describe('the scripts of a circuit', () => {
  test(`come to the same state in Redis and in memory, and to no other when they are run twice (seed ${seed})`, async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (history) => {
        const memory = memoryKv()
        const key = `circuit:${crypto.randomUUID()}`
        let nowMs = EPOCH_MS
        let last: (() => Promise<string[]>) | undefined
        for (const step of history) {
          if (step.do === 'wait') nowMs += step.ms
          else if (step.do !== 'again') {
            const script = step.do === 'probe' ? PROBE : RECORD
            const { probeId } = parseCircuit(await redis.get(key))
            const args = [nowMs, ...argsOf(step, nowMs, probeId)]
            last = async () =>
              (await Promise.all([redis, memory].map((store) => store.run(script, [key], args)))).map(String)
          }
          if (step.do === 'wait' || !last) continue
          const [inRedis, inMemory] = await last()
          expect(inRedis).toBe(inMemory)
          if (step.do === 'again') continue
          expect(await last(), 'told twice').toEqual([inRedis, inMemory])
          expect((await redis.get(key)) ?? inRedis, 'what is kept is what was answered').toBe(inRedis)
        }
      }),
      { numRuns: 80, seed },
    )
  })

  test('of many that want to probe at the same instant, one does', async () => {
    const key = `circuit:${crypto.randomUUID()}`
    const failures = Array.from({ length: 5 }, (_, index) => failed(`f${index}`, EPOCH_MS))
    await redis.run(RECORD, [key], [EPOCH_MS, ...failures.flatMap(outcomeArgs)])
    const due = EPOCH_MS + 15_000
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => redis.run(PROBE, [key], [due, `p${index}`, 1_000])),
    )
    const winners = new Set(answers.map((answer) => parseCircuit(answer).probeId))
    expect(winners.size).toBe(1)
    // It crashes: nothing is told of it, and when its lease is over the next one may.
    expect(parseCircuit(await redis.run(PROBE, [key], [due + 999, 'early', 1_000])).probeId).not.toBe('early')
    expect(parseCircuit(await redis.run(PROBE, [key], [due + 1_000, 'next', 1_000])).probeId).toBe('next')
  })
})

function failed(id: string, atMs: number) {
  return { id, atMs, verdict: 'failed' as const, latencyMs: 0 }
}

/** What came of a probe is told alone. */
function argsOf(step: Exclude<Step, { do: 'wait' | 'again' }>, nowMs: number, probeId: string): (string | number)[] {
  if (step.do === 'probe') return [`c${step.call}`, step.leaseMs]
  const probe = step.calls.filter(({ call }) => `c${call}` === probeId).slice(0, 1)
  return (probe.length > 0 ? probe : step.calls).flatMap(({ call, verdict, latencyMs }) => {
    return outcomeArgs({ id: `c${call}`, atMs: nowMs, verdict, latencyMs })
  })
}
