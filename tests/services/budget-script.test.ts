// The budgets' scripts in Lua on real Redis, beside their JavaScript and a plain list of calls: the same history, the same state.
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { HOLD, heldIn, parseWindow, SETTLE } from '../../lib/ai/budget-script.ts'
import { type Kv, type KvScript, kv, memoryKv } from '../../lib/kv.ts'
import { startApp } from '../support/app.ts'
import { seed } from '../support/seed.ts'

const TTL_MS = 3_600_000
const LEASE_MS = 100
const SEED_BELIEVED_MS = 150
const WINDOWS = ['day', 'month', 'gemini-day']
const LIMITS = [100, 140, 60]

type Step =
  | { do: 'hold'; call: number; windows: number[]; amount: number; seed: number }
  | { do: 'settle'; call: number; cost: number }
  | { do: 'wait'; ms: number }
  | { do: 'lose'; window: number }

const calls = fc.nat(7)
const steps = fc.array(
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constant('hold' as const),
        call: calls,
        windows: fc.subarray([0, 1, 2], { minLength: 1 }),
        amount: fc.integer({ min: 1, max: 40 }),
        seed: fc.nat(60),
      }),
    },
    {
      weight: 5,
      arbitrary: fc.record({ do: fc.constant('settle' as const), call: calls, cost: fc.nat(45) }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(1, 30, 100) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('lose' as const), window: fc.nat(2) }) },
  ),
  { minLength: 8, maxLength: 24 },
) satisfies fc.Arbitrary<Step[]>

/** The same bookkeeping without cleverness: every call in a list. */
class Model {
  calls = new Map<number, { windows: number[]; amount: number; untilMs: number; state: 'held' | 'settled' }>()
  windows = WINDOWS.map(() => ({ epoch: 0, seededMs: 0, spent: 0 }))
  epochs = new Map<number, number[]>()

  held(window: number, nowMs: number): number {
    let sum = 0
    for (const [id, call] of this.calls) {
      const sameLife = this.epochs.get(id)?.[window] === this.windows[window]?.epoch
      const counts = call.state === 'held' && call.untilMs > nowMs && sameLife
      if (counts && call.windows.includes(window)) sum += call.amount
    }
    return sum
  }

  hold(step: Extract<Step, { do: 'hold' }>, nowMs: number): string {
    if (this.calls.has(step.call)) return 'held'
    for (const window of step.windows) {
      const state = this.windows[window]
      if (!state || state.seededMs >= nowMs - SEED_BELIEVED_MS) continue
      state.spent = state.seededMs === 0 ? state.spent + step.seed : Math.max(state.spent, step.seed)
      state.seededMs = nowMs
    }
    const refused = step.windows.findIndex((window) => {
      return (this.windows[window]?.spent ?? 0) + this.held(window, nowMs) + step.amount > (LIMITS[window] ?? 0)
    })
    if (refused >= 0) return `refused ${refused} ${this.windows[step.windows[refused] ?? 0]?.spent}`
    this.calls.set(step.call, { ...step, untilMs: nowMs + LEASE_MS, state: 'held' })
    this.epochs.set(
      step.call,
      this.windows.map(({ epoch }) => epoch),
    )
    return 'held'
  }

  settle(step: Extract<Step, { do: 'settle' }>): void {
    const call = this.calls.get(step.call)
    if (call?.state !== 'held') return
    call.state = 'settled'
    for (const window of call.windows) {
      const state = this.windows[window]
      if (state) state.spent += step.cost
    }
  }

  lose(window: number): void {
    const state = this.windows[window]
    if (state) this.windows[window] = { epoch: state.epoch + 1, seededMs: 0, spent: 0 }
  }
}

let redis: Kv

beforeAll(async () => {
  await startApp()
  redis = kv()
})

describe(`any history of holds, settles, replays, ended leases and lost counters (seed ${seed})`, () => {
  test('leaves the same state in Redis, in memory and in a plain list, and no hold goes over a limit', {
    timeout: 300_000,
  }, async () => {
    let held = 0
    let refused = 0
    await fc.assert(
      fc.asyncProperty(steps, async (history) => {
        const outcome = await play(history)
        held += outcome.held
        refused += outcome.refused
      }),
      { seed, numRuns: 300 },
    )
    expect(Math.min(held, refused), 'histories that do something').toBeGreaterThan(100)
  })
})

async function play(history: Step[]) {
  const run = crypto.randomUUID()
  const stores = [redis, memoryKv()]
  const model = new Model()
  const count = { held: 0, refused: 0 }
  let nowMs = 1_000_000
  const windowKeys = WINDOWS.map((name) => `${run}:${name}`)
  const both = async (script: KvScript, keys: string[], args: (string | number)[]) => {
    const [lua, js] = await Promise.all(stores.map((store) => store.run(script, keys, args)))
    expect(lua).toEqual(js)
    return String(lua)
  }
  for (const step of history) {
    nowMs += 1
    if (step.do === 'wait') nowMs += step.ms
    if (step.do === 'lose') {
      model.lose(step.window)
      await loseWindow(stores, windowKeys[step.window] ?? '')
    }
    if (step.do === 'hold') {
      const keys = step.windows.map((window) => windowKeys[window] ?? '')
      const args = (seeded: boolean) => [
        nowMs,
        nowMs + LEASE_MS,
        step.amount,
        TTL_MS,
        nowMs - SEED_BELIEVED_MS,
        ...step.windows.flatMap((window) => [LIMITS[window] ?? 0, TTL_MS, seeded ? step.seed : '']),
      ]
      const mark = `${run}:${step.call}`
      let answer = await both(HOLD, [mark, ...keys], args(false))
      if (answer === 'seed') answer = await both(HOLD, [mark, ...keys], args(true))
      expect(answer).toBe(model.hold(step, nowMs))
      if (answer === 'held') {
        expect(await both(HOLD, [mark, ...keys], args(true)), 'run once more').toBe('held')
        count.held += 1
      } else count.refused += 1
    }
    if (step.do === 'settle') {
      const call = model.calls.get(step.call)
      if (!call) continue
      const keys = [`${run}:${step.call}`, ...call.windows.map((window) => windowKeys[window] ?? '')]
      const args = [nowMs, step.cost, TTL_MS, ...call.windows.map(() => TTL_MS)]
      model.settle(step)
      const answer = await both(SETTLE, keys, args)
      expect(await both(SETTLE, keys, args), 'run once more').toBe(answer)
    }
    await expectAgreement(stores, model, windowKeys, nowMs)
  }
  return count
}

/** What eviction does: the counter is gone, and the marks of calls in flight are not. */
async function loseWindow(stores: Kv[], key: string): Promise<void> {
  const gone: KvScript = {
    lua: `redis.call('DEL', KEYS[1]) return 'gone'`,
    memory: (entries, [name = '']) => entries.write(name, '', 0),
  }
  for (const store of stores) await store.run(gone, [key], [])
}

async function expectAgreement(stores: Kv[], model: Model, keys: string[], nowMs: number): Promise<void> {
  for (const [window, key] of keys.entries()) {
    const [lua, js] = await Promise.all(stores.map((store) => store.get(key)))
    expect(lua).toBe(js)
    if (typeof lua !== 'string') continue
    const state = parseWindow(lua, nowMs)
    expect([state.spentMicroUsd, heldIn(state)]).toEqual([model.windows[window]?.spent, model.held(window, nowMs)])
  }
}
