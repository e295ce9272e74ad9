// One-time codes against the vectors of RFC 6238, and how far a clock may be off.
import { describe, expect, test } from 'vitest'
import { newTotp, stepOf } from '../../lib/auth/totp.ts'

/** '12345678901234567890' in base32, the secret of the vectors for SHA-1. */
const SECRET = 'GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ'

describe('a code', () => {
  test.each([
    [59, '287082', 1],
    [1111111109, '081804', 37037036],
    [1111111111, '050471', 37037037],
    [1234567890, '005924', 41152263],
    [2000000000, '279037', 66666666],
    [20000000000, '353130', 666666666],
  ])('of second %i is %s, of step %i', async (seconds, code, step) => {
    expect(await stepOf(SECRET, code, new Date(seconds * 1000))).toBe(step)
  })

  test('is taken one step early or late, and named by its own step', async () => {
    const at = (seconds: number) => stepOf(SECRET, '081804', new Date(seconds * 1000))
    const begin = 37037036 * 30
    expect(await Promise.all([begin - 31, begin - 30, begin, begin + 29, begin + 59, begin + 60].map(at))).toEqual([
      undefined,
      37037036,
      37037036,
      37037036,
      37037036,
      undefined,
    ])
  })

  test.each(['081805', '81804', '0081804', '', 'abcdef', '08180４'])('is not %o', async (code) => {
    expect(await stepOf(SECRET, code, new Date(1111111109_000))).toBeUndefined()
  })
})

test('a new secret has 160 bits of its own, and an address in the form that apps read', async () => {
  const [one, other] = [
    await newTotp({ issuer: 'Ink & Co', label: 'ada@example.com' }),
    await newTotp({ issuer: 'Ink & Co', label: 'ada@example.com' }),
  ]
  expect(one.secret).toMatch(/^[A-Z2-7]{32}$/)
  expect(one.secret).not.toBe(other.secret)
  const url = new URL(one.otpauthUrl)
  expect([url.protocol, url.host, decodeURIComponent(url.pathname)]).toEqual([
    'otpauth:',
    'totp',
    '/Ink & Co:ada@example.com',
  ])
  expect(Object.fromEntries(url.searchParams)).toEqual({
    issuer: 'Ink & Co',
    secret: one.secret,
    algorithm: 'SHA1',
    digits: '6',
    period: '30',
  })
})
