// Passwords: which are accepted, and what is kept of them.
import { hash } from '@node-rs/bcrypt'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hashPassword, requireGoodPassword, verifyPassword } from '../../lib/auth/passwords.ts'
import { config } from '../../lib/config.ts'
import { AppError } from '../../lib/http/errors.ts'

const { passwordLengthMin } = config().auth
const { name: brand } = config().brand

beforeEach(() => {
  config().auth.passwordLengthMin = 12
  config().brand.name = 'The Colouring Book'
})

afterEach(() => {
  config().auth.passwordLengthMin = passwordLengthMin
  config().brand.name = brand
})

/** Why a password is refused, as the field that it was sent in learns it; undefined when it is accepted. */
function problemOf(password: string, personal: string[] = []): string | undefined {
  try {
    requireGoodPassword(password, 'newPassword', personal)
    return undefined
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    const { code, message, details } = error
    expect({ code, details }).toEqual({
      code: 'VALIDATION_FAILED',
      details: { issues: [{ path: 'newPassword', message }] },
    })
    return message
  }
}

describe('a password is accepted', () => {
  test.each(['correct horse battery staple', 'abcabcabcabc', 'aaaaaaaaaaab', 'baaaaaaaaaaa', `${'ä'.repeat(11)}o`])(
    'when it is long and nobody would try it first, such as %s',
    (password) => {
      expect(problemOf(password, ['Ada', 'ada@example.com', 'ada'])).toBeUndefined()
    },
  )

  test('from the shortest length of the settings on, in characters, not in code units', () => {
    expect(problemOf('nine plus 3!')).toBeUndefined()
    expect(problemOf('nine plus 3')).toContain('12')
    expect(problemOf('🐈🐕🐈🐕🐈🐕🐈🐕🐈🐕🐈')).toContain('12')
    expect(problemOf('🐈🐕🐈🐕🐈🐕🐈🐕🐈🐕🐈🐕')).toBeUndefined()
    config().auth.passwordLengthMin = 8
    expect(problemOf('plus 3!!')).toBeUndefined()
  })

  test('up to 72 bytes, of which bcrypt reads no more', () => {
    expect(problemOf('ab'.repeat(36))).toBeUndefined()
    expect(problemOf(`${'ab'.repeat(36)}a`)).toContain('72')
    expect(problemOf('äo'.repeat(24))).toBeUndefined()
    expect(problemOf('äo'.repeat(25))).toContain('72')
  })
})

describe('a password is refused', () => {
  test.each(['password1234', 'PassWord1234', 'aaaaaaaaaaaa', 'aAaAaAaAaAaA', '🐈'.repeat(12), '\n'.repeat(12)])(
    'when it is among the first anybody would try: %j',
    (password) => {
      expect(problemOf(password)).toMatch(/first/)
    },
  )

  test.each(['ada king of lovelace', 'ADA KING of Lovelace', 'ada.king@example.com', 'the colouring book'])(
    'when it is who they are, or who we are: %s',
    (password) => {
      expect(problemOf(password, ['Ada King of Lovelace', 'Ada.King@example.com'])).toMatch(/name/)
    },
  )
})

describe('what is kept of a password', () => {
  test('is a bcrypt hash of cost 12, another one each time', async () => {
    const password = 'correct horse battery staple'
    const [one, two] = await Promise.all([hashPassword(password), hashPassword(password)])
    expect(one).toMatch(/^\$2b\$12\$[./\w]{53}$/)
    expect(two).not.toBe(one)
    expect(await verifyPassword(password, one)).toBe(true)
    expect(await verifyPassword(`${password}!`, one)).toBe(false)
  })

  test('is never a part of it', async () => {
    await expect(hashPassword('a'.repeat(73))).rejects.toThrow()
    const longest = await hash('a'.repeat(72), { cost: 4 })
    expect(await verifyPassword('a'.repeat(72), longest)).toBe(true)
    expect(await verifyPassword('a'.repeat(73), longest)).toBe(false)
  })

  test('is asked for as long where there is nothing, and never found', async () => {
    const known = await hashPassword('another good password')
    const secondsOf = async (kept: string | undefined) => {
      const start = performance.now()
      expect(await verifyPassword('correct horse battery staple', kept)).toBe(false)
      return performance.now() - start
    }
    const [there, nowhere] = [await secondsOf(known), await secondsOf(undefined)]
    expect(nowhere / there).toBeGreaterThan(0.3)
    expect(nowhere / there).toBeLessThan(3)
  })
})
