// What the doctor says of sign-in through Clerk: what works, what does not, and what that means.
import { describe, expect, test } from 'vitest'
import { findings } from '../../scripts/doctor.ts'
import { clerkVariables } from '../support/clerk-stub.ts'
import { newInstance } from '../support/clerk-tokens.ts'

const INSTANCE = newInstance('clerk.shop.example')
const COMPLETE = clerkVariables(INSTANCE, 'http://127.0.0.1:9')

/** The complete environment without some variables. */
function without(...names: string[]): Record<string, string> {
  return Object.fromEntries(Object.entries(COMPLETE).filter(([name]) => !names.includes(name)))
}

const signIn = (variables: Record<string, string>) =>
  findings(variables).features.find(({ name }) => name === 'sign-in')

const warnings = (variables: Record<string, string>) =>
  findings(variables).warnings.filter((warning) => /clerk/i.test(warning) && !warning.startsWith('vercel.json'))

describe('sign-in through Clerk', () => {
  test('is on with everything set, and nothing is to be said of it', () => {
    expect(signIn(COMPLETE)).toEqual({
      name: 'sign-in',
      on: true,
      reason: 'Clerk, clerk.shop.example: CLERK_JWT_KEY is set',
    })
    expect(warnings(COMPLETE)).toEqual([])
    expect(JSON.stringify(findings(COMPLETE))).not.toMatch(/sk_test|whsec|PUBLIC KEY/)
  })

  test('says what is off', () => {
    expect(signIn(without('CLERK_WEBHOOK_SIGNING_SECRET', 'FORK__AUTH__CLERK__PUBLISHABLE_KEY'))).toEqual({
      name: 'sign-in',
      on: true,
      reason:
        "Clerk: CLERK_JWT_KEY is set; off: the page's sign-in (auth.clerk.publishableKey), webhooks (CLERK_WEBHOOK_SIGNING_SECRET)",
    })
    expect(signIn(without('CLERK_JWT_KEY'))?.reason).toBe(
      'Clerk, clerk.shop.example: CLERK_SECRET_KEY is set; off: verification without the network (CLERK_JWT_KEY)',
    )
    expect(signIn(without('CLERK_SECRET_KEY'))?.reason).toMatch(/; off: Clerk's API \(CLERK_SECRET_KEY\)$/)
  })

  test('is off without any key', () => {
    expect(signIn(without('CLERK_JWT_KEY', 'CLERK_SECRET_KEY'))).toEqual({
      name: 'sign-in',
      on: false,
      reason: 'Neither CLERK_JWT_KEY nor CLERK_SECRET_KEY is set.',
    })
  })

  test('needs a secret that instances share: that of Clerk, or our own', () => {
    const deployed = { VERCEL: '1', VERCEL_ENV: 'production', POSTGRES_URL: 'postgres://db.example.com/app' }
    expect(signIn({ ...COMPLETE, ...deployed })?.on).toBe(true)
    const keyOnly = { ...without('CLERK_SECRET_KEY'), ...deployed }
    expect(signIn(keyOnly)).toMatchObject({ on: false, reason: 'AUTH_JWT_SECRET is not set (32 bytes or more).' })
    expect(signIn({ ...keyOnly, AUTH_JWT_SECRET: 'x'.repeat(32) })?.on).toBe(true)
  })
})

describe('warnings', () => {
  test.each([
    {
      name: 'CLERK_WEBHOOK_SIGNING_SECRET',
      meaning: /^CLERK_WEBHOOK_SIGNING_SECRET is not set: .* not noticed here\.$/,
    },
    {
      name: 'CLERK_SECRET_KEY',
      meaning: /^CLERK_SECRET_KEY is not set: .* Clerk is not told of suspensions and deletions\.$/,
    },
    { name: 'CLERK_JWT_KEY', meaning: /^CLERK_JWT_KEY is not set: every new instance asks Clerk for its keys/ },
    {
      name: 'FORK__AUTH__CLERK__PUBLISHABLE_KEY',
      meaning: /^auth\.clerk\.publishableKey is not set: .* from any issuer/,
    },
  ])('say what it means that $name is missing', ({ name, meaning }) => {
    expect(warnings(without(name))).toEqual([expect.stringMatching(meaning)])
  })

  test('say nothing of the issuer where CLERK_ISSUER names it', () => {
    const variables = { ...without('FORK__AUTH__CLERK__PUBLISHABLE_KEY'), CLERK_ISSUER: 'https://clerk.shop.example' }
    expect(warnings(variables)).toEqual(['auth.clerk.publishableKey is not set: the page cannot sign anybody in.'])
  })

  test('name a key that is none', () => {
    expect(warnings({ ...COMPLETE, CLERK_JWT_KEY: 'sk_test_something' })).toEqual([
      expect.stringMatching(/^CLERK_JWT_KEY is no public key in PEM form/),
    ])
    expect(warnings({ ...COMPLETE, CLERK_JWT_KEY: INSTANCE.jwtKey.replaceAll('\n', '\\n') })).toEqual([])
  })

  test('name variables that nothing reads under local sign-in', () => {
    expect(warnings({ ...COMPLETE, FORK__AUTH__PROVIDER: 'local' })).toEqual([
      'Variables of Clerk are set, but auth.provider is "local": they change nothing.',
    ])
    expect(warnings({})).toEqual([])
  })
})

test('administrators are those of auth.admins', () => {
  const admin = (variables: Record<string, string>) => findings(variables).features.find(({ name }) => name === 'admin')
  expect(admin(COMPLETE)).toMatchObject({ on: false, reason: expect.stringContaining('auth.admins is empty') })
  expect(admin({ ...COMPLETE, FORK__AUTH__ADMINS: '["root@example.com"]' })).toMatchObject({ on: true })
})
