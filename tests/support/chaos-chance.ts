// Random choices that a seed repeats.

export type Chance = ReturnType<typeof chanceOf>

export function chanceOf(seed: number) {
  let state = seed >>> 0
  /** Mulberry32: 0 up to, and never, 1. */
  function random(): number {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const integer = (min: number, max: number) => min + Math.floor(random() * (max - min + 1))
  return {
    happens: (probability: number) => random() < probability,
    /** Both ends included. */
    integer,
    one: <T>(list: readonly [T, ...T[]]): T => list[integer(0, list.length - 1)] ?? list[0],
    /** Undefined of nothing. */
    any: <T>(list: readonly T[]): T | undefined => (list.length === 0 ? undefined : list[integer(0, list.length - 1)]),
    shuffled<T>(list: readonly T[]): T[] {
      const numbered = list.map((item) => ({ item, key: random() }))
      return numbered.sort((a, b) => a.key - b.key).map(({ item }) => item)
    },
  }
}
