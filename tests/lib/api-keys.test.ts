// The form of API keys: random without bias, and a checksum that finds typos before the database is asked.
import { createHash } from 'node:crypto'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { callerOfKey, looksLikeKey } from '../../lib/auth/api-keys.ts'
import { hashOfKey, isWellFormed, newKey, randomCharacters } from '../../lib/auth/key-format.ts'

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** Made elsewhere from the same rules, so that keys of one version are keys of the next. */
const KNOWN = 'key_0000aZ9q_0123456789ABCDEFGHIJKLMNOPQRSTUV42zPGX'

describe('a new key', () => {
  test('has the tag, eight public characters, and a secret with its checksum', () => {
    const { key, keyPrefix, hash } = newKey('fox')
    expect(key).toMatch(/^fox_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}$/)
    expect(key.split('_')[1]).toBe(keyPrefix)
    expect(isWellFormed(key)).toBe(true)
    expect(hash).toBe(createHash('sha256').update(key).digest('hex'))
    expect(hashOfKey(key)).toBe(hash)
  })

  test('is never the same', () => {
    const keys = Array.from({ length: 1000 }, () => newKey('key'))
    expect(new Set(keys.map(({ key }) => key.slice(13, 45))).size).toBe(1000)
    expect(new Set(keys.map(({ keyPrefix }) => keyPrefix)).size).toBe(1000)
  })

  test('whose checksum is short has zeros before it', () => {
    const checksums = Array.from({ length: 400 }, () => newKey('key').key.slice(-6))
    expect(
      checksums.every((checksum) => /^[0-4]/.test(checksum)),
      'CRC-32 fills no more',
    ).toBe(true)
    expect(checksums.some((checksum) => checksum.startsWith('0'))).toBe(true)
  })
})

describe('random characters', () => {
  test('are drawn again where a byte would favour some', () => {
    const draws = [
      [0, 61, 62, 247],
      [248, 255, 249, 10],
      [36, 35, 1, 2],
    ]
    const random = vi.fn((size: number) => {
      const draw = Uint8Array.from(draws.shift() ?? [])
      expect(draw).toHaveLength(size)
      return draw
    })
    expect(randomCharacters(4, random)).toBe('0z0z')
    expect(random).toHaveBeenCalledTimes(1)
    expect(randomCharacters(4, random), 'one of the second draw, three of the third').toBe('AaZ1')
    expect(random).toHaveBeenCalledTimes(3)
  })

  test('are all of the alphabet, each as often', () => {
    const drawn = 62_000
    const counts = Object.groupBy(randomCharacters(drawn), (character) => character)
    expect(Object.keys(counts).sort().join('')).toBe(ALPHABET)
    const expected = drawn / ALPHABET.length
    const distance = Object.values(counts).reduce((sum, some = []) => sum + (some.length - expected) ** 2 / expected, 0)
    expect(distance, 'chi-square of 61 degrees: 1 in a million is above').toBeLessThan(130)
  })
})

describe('a key that was mistyped', () => {
  const { key } = newKey('key')

  test('is known by its checksum, whichever character is another', () => {
    const typos = [...key].flatMap((was, at) =>
      [...`${ALPHABET}_`].filter((is) => is !== was).map((is) => key.slice(0, at) + is + key.slice(at + 1)),
    )
    expect(typos).toHaveLength(51 * 62)
    expect(typos.filter(isWellFormed)).toEqual([])
  })

  test.each([
    ['cut off', key.slice(0, -1)],
    ['with one more', `${key}0`],
    ['two swapped', key.slice(0, 20) + key.slice(21, 22) + key.slice(20, 21) + key.slice(22)],
    ['of another tag', key.replace('key', 'kez')],
    ['a space before', ` ${key}`],
    ['a line after', `${key}\n`],
    ['a tag in capitals', key.replace('key', 'KEY')],
    ['nothing', ''],
  ])('%s is not well formed', (_, typo) => {
    // Two characters that are the same make no typo when they are swapped.
    expect(isWellFormed(typo)).toBe(typo === key)
  })

  test('of an older tag stays what it was', () => {
    for (const tag of ['ab', 'a1', 'abcdefghij']) expect(isWellFormed(newKey(tag).key)).toBe(true)
    expect(isWellFormed(KNOWN)).toBe(true)
  })
})

describe('what looks like a key', () => {
  test.each([
    [newKey('key').key, true],
    ['key_0000aZ9q_', true],
    ['k_0000aZ9q_x', false],
    ['abcdefghijk_0000aZ9q_x', false],
    ['1ey_0000aZ9q_x', false],
    ['key_0000aZ9_x', false],
    ['key_0000aZ9qq_x', false],
    ['x key_0000aZ9q_x', false],
    ['eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln', false],
    ['rt_abc', false],
  ])('%s: %s', (credential, looks) => {
    expect(looksLikeKey(credential)).toBe(looks)
  })
})

describe('who calls with a key', () => {
  afterEach(() => vi.unstubAllEnvs())

  test('is refused for a typo while there is no database to ask', async () => {
    vi.stubEnv('POSTGRES_URL', 'postgres://nobody@127.0.0.1:1/nothing')
    const { key } = newKey('key')
    const typo = key.slice(0, -1) + (key.endsWith('0') ? '1' : '0')
    await expect(callerOfKey(typo)).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
      message: 'This API key is not valid.',
    })
    await expect(callerOfKey(key), 'it does ask for one that may exist').rejects.toThrow('ECONNREFUSED')
  })
})
