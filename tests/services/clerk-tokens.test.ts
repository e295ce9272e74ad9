// The verification of Clerk's session tokens under every configuration: whose keys, which issuer, which origins.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type ClerkStub, startClerkStub, waitsInSilence } from '../support/clerk-stub.ts'
import { clerkIdOf, mintToken, newInstance, type TokenOptions } from '../support/clerk-tokens.ts'

const ORIGIN = 'https://shop.example'
const USER = 'user_2RfWKJREkjKbHZy0Wqa5qrHeAnb'

let clerk: ClerkStub
let variables: Record<string, string | undefined>

/** Another application for the SDK, which keeps the keys that it was given, without the time that a new key pair takes. */
const OURS = newInstance()
const anotherInstance = () => ({ ...OURS, secretKey: `sk_test_${crypto.randomUUID()}` })

beforeEach(async () => {
  clerk = await startClerkStub(anotherInstance())
  variables = { ...clerk.variables }
})

afterEach(async () => {
  vi.unstubAllEnvs()
  await clerk.close()
})

const mint = (options: TokenOptions = {}) =>
  clerk.token(USER, { ...options, claims: { azp: ORIGIN, ...options.claims } })

/** The verification as it is under `variables`, which it reads once. */
async function freshVerify() {
  for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value)
  vi.resetModules()
  const { verifyClerkToken } = await import('../../lib/auth/clerk.ts')
  return verifyClerkToken
}

/** What comes of a token: the proof, or the code of the refusal. */
async function outcome(token: string, from = ORIGIN): Promise<unknown> {
  const verify = await freshVerify()
  return await verify(token, from).catch((error) => error.code)
}

const PROOF = {
  clerkId: USER,
  impersonator: undefined,
  mfa: false,
  name: undefined,
  email: undefined,
  emailVerified: false,
}

describe('a token', () => {
  test('proves who calls, and with how many factors', async () => {
    expect(await outcome(mint())).toEqual(PROOF)
    expect(await outcome(mint({ claims: { fva: [0, 0] } }))).toEqual({ ...PROOF, mfa: true })
    expect(await outcome(mint({ claims: { fva: [3, 12] } }))).toEqual({ ...PROOF, mfa: true })
    expect(await outcome(mint({ claims: { fva: [3] } }))).toEqual(PROOF)
    expect(await outcome(mint({ claims: { fva: undefined } }))).toEqual(PROOF)
  })

  test('says who acts in the name of the user', async () => {
    const act = { iss: 'https://dashboard.clerk.com', sid: 'sess_1', sub: 'user_2support' }
    expect(await outcome(mint({ claims: { act } }))).toEqual({ ...PROOF, impersonator: 'user_2support' })
    expect(await outcome(mint({ claims: { act: {} } }))).toBe('UNAUTHENTICATED')
    expect(await outcome(mint({ claims: { act: { sub: 'x'.repeat(80) } } }))).toMatchObject({ clerkId: USER })
    expect(await outcome(mint({ claims: { act: { sub: 'x'.repeat(81) } } }))).toBe('UNAUTHENTICATED')
  })

  test('says name and address where it was made to', async () => {
    const claims = { name: 'Ada', email: ' Ada@Example.COM', email_verified: true }
    const found = { ...PROOF, name: 'Ada', email: 'ada@example.com', emailVerified: true }
    expect(await outcome(mint({ claims }))).toEqual(found)
    expect(await outcome(mint({ claims: { ...claims, email_verified: 'true' } }))).toEqual({
      ...found,
      emailVerified: false,
    })
    expect(await outcome(mint({ claims: { ...claims, email_verified: undefined } }))).toMatchObject({
      emailVerified: false,
    })
    expect(await outcome(mint({ claims: { ...claims, email: 'ada', name: 7 } }))).toEqual({
      ...found,
      email: undefined,
      name: undefined,
    })
    const long = `${'a'.repeat(244)}@example.com`
    expect(await outcome(mint({ claims: { email: long } }))).toEqual(PROOF)
    expect(await outcome(mint({ claims: { email: long.slice(1) } }))).toEqual({ ...PROOF, email: long.slice(1) })
  })

  test('that is refused is told from the others in the log only', async () => {
    const verify = await freshVerify()
    const logged = async (token: string) => {
      const { code, message } = await verify(token, ORIGIN).catch((error) => error)
      expect([code, message]).toEqual(['UNAUTHENTICATED', 'The session token is not valid.'])
      const [line] = vi.mocked(console.log).mock.lastCall ?? []
      const { level, event, error } = JSON.parse(line)
      return [level, event, error].join(' ')
    }
    expect(await logged('garbage')).toBe('info clerk_token_refused not a session token')
    expect(await logged(mint({ claims: { iss: 'https://clerk.shop.example' } }))).toMatch(/of another issuer$/)
    expect(await logged(mint({ claims: { azp: 'https://app.example' } }))).toMatch(/for another origin$/)
    expect(await logged(mint({ claims: { sts: 'pending' } }))).toMatch(/sts/)
    expect(await logged(mintToken({ ...newInstance(), kid: clerk.instance.kid }, USER))).toMatch(/signature/i)
    const { message } = await verify(mint({ expiresIn: -6 }), ORIGIN).catch((error) => error)
    expect(message).toBe('The session token has expired. Get a new one.')
  })

  test.each(['user_2abc', `user_${'a'.repeat(59)}`])('may be of %s', async (sub) => {
    expect(await outcome(mint({ claims: { sub } }))).toMatchObject({ clerkId: sub })
  })

  test.each(['user_', 'user_a-b', 'xuser_2abc', 'user_2abc ', `user_${'a'.repeat(60)}`, 'org_2abc'])(
    'may not be of "%s"',
    async (sub) => {
      expect(await outcome(mint({ claims: { sub } }))).toBe('UNAUTHENTICATED')
    },
  )
})

describe('the issuer', () => {
  test('is CLERK_ISSUER, whatever the publishable key says', async () => {
    variables.CLERK_ISSUER = 'https://clerk.shop.example/'
    expect(await outcome(mint())).toBe('UNAUTHENTICATED')
    expect(await outcome(mint({ claims: { iss: 'https://clerk.shop.example' } }))).toEqual(PROOF)
  })

  test('is otherwise the one that the publishable key names', async () => {
    expect(await outcome(mint({ claims: { iss: 'https://clerk.shop.example' } }))).toBe('UNAUTHENTICATED')
    expect(await outcome(mint({ claims: { iss: clerk.instance.frontendApi } }))).toBe('UNAUTHENTICATED')
  })

  test('may be any, if neither is known: then the key alone decides', async () => {
    variables.FORK__AUTH__CLERK__PUBLISHABLE_KEY = undefined
    expect(await outcome(mint({ claims: { iss: 'https://clerk.shop.example' } }))).toEqual(PROOF)
    expect(await outcome(mint({ claims: { iss: undefined } }))).toBe('UNAUTHENTICATED')
  })
})

describe('the origin', () => {
  const from = async (azp: string | undefined) => await outcome(mint({ claims: { azp } }))

  test('is our own, or one of cors.origins', async () => {
    expect(await from('https://app.example')).toBe('UNAUTHENTICATED')
    variables.FORK__CORS__ORIGINS = '["https://app.example"]'
    expect(await from('https://app.example')).toEqual(PROOF)
    expect(await from(ORIGIN)).toEqual(PROOF)
    expect(await from('https://app.example.evil.example')).toBe('UNAUTHENTICATED')
    expect(await from('')).toBe('UNAUTHENTICATED')
  })

  test('is one of auth.clerk.authorizedParties alone, where there are any', async () => {
    variables.FORK__CORS__ORIGINS = '["https://app.example"]'
    variables.FORK__AUTH__CLERK__AUTHORIZED_PARTIES = '["https://only.example"]'
    expect(await from('https://only.example')).toEqual(PROOF)
    expect(await from('https://app.example')).toBe('UNAUTHENTICATED')
    expect(await from(ORIGIN)).toBe('UNAUTHENTICATED')
    expect(await from(undefined)).toEqual(PROOF)
  })

  test('may be missing, unless auth.clerk.allowMissingAzp is false', async () => {
    expect(await from(undefined)).toEqual(PROOF)
    variables.FORK__AUTH__CLERK__ALLOW_MISSING_AZP = 'false'
    expect(await from(undefined)).toBe('UNAUTHENTICATED')
    expect(await from(ORIGIN)).toEqual(PROOF)
  })
})

describe('the keys', () => {
  /** The SDK asks five times for its keys, and sleeps (1 + random) times as long as it means to between. */
  const neverSleep = () => vi.spyOn(Math, 'random').mockReturnValue(-1)

  test('are CLERK_JWT_KEY, as .env files leave it too, and Clerk is not asked', async () => {
    variables.CLERK_SECRET_KEY = undefined
    expect(await outcome(mint())).toEqual(PROOF)
    variables.CLERK_JWT_KEY = clerk.instance.jwtKey.replaceAll('\n', '\\n')
    expect(await outcome(mint())).toEqual(PROOF)
    expect(clerk.calls).toEqual([])
  })

  test('are otherwise those of Clerk, asked for once', async () => {
    variables.CLERK_JWT_KEY = undefined
    const verify = await freshVerify()
    for (let times = 0; times < 3; times++) expect(await verify(mint(), ORIGIN)).toEqual(PROOF)
    expect(clerk.calls).toEqual(['GET /v1/jwks'])
    const code = (token: string) => verify(token, ORIGIN).catch((error) => error.code)
    expect(await code(mintToken({ ...newInstance(), kid: clerkIdOf('ins') }, USER))).toBe('UNAUTHENTICATED')
    expect(await code(mintToken({ ...newInstance(), kid: clerk.instance.kid }, USER))).toBe('UNAUTHENTICATED')
    expect(await code(mint({ expiresIn: -6 }))).toBe('TOKEN_EXPIRED')
  })

  test('are not asked for on account of what is no session token', async () => {
    variables.CLERK_JWT_KEY = undefined
    const header = (parts: object) => Buffer.from(JSON.stringify(parts)).toString('base64url')
    for (const token of [
      'garbage',
      'a.b.c',
      `${header({ alg: 'HS256', kid: 'ins_1' })}.e30.c2ln`,
      mint({ header: { cat: 'cl_B7d4PD222AAA' } }),
    ])
      expect(await outcome(token)).toBe('UNAUTHENTICATED')
    expect(clerk.calls).toEqual([])
    // Only the payload is garbage.
    expect(await outcome(`${mint().split('.')[0]}.b.c`)).toBe('UNAUTHENTICATED')
  })

  test('that cannot be had refuse nobody for good', async () => {
    variables.CLERK_JWT_KEY = undefined
    const verify = await freshVerify()
    neverSleep()
    clerk.answer = () => ({ status: 503, body: { errors: [] } })
    const refusal = await verify(mint(), ORIGIN).catch((error) => error)
    expect([refusal.code, refusal.status, refusal.headers]).toEqual([
      'PROVIDER_UNAVAILABLE',
      503,
      { 'retry-after': '5' },
    ])
    expect(refusal.details).toEqual({ provider: 'clerk' })
    expect(refusal.message).toBe('The sign-in service does not answer. Try again in a moment.')
    for (const answer of [
      { status: 200, body: { keys: [] } },
      { status: 200, body: 'a page of a proxy' },
      { status: 503, body: 'a page of a proxy' },
    ]) {
      clerk.answer = () => answer
      expect(await verify(mint(), ORIGIN).catch((error) => error.code)).toBe('PROVIDER_UNAVAILABLE')
    }
    clerk.answer = undefined
    expect(await verify(mint(), ORIGIN)).toEqual(PROOF)
  })

  test('are not waited for longer than three seconds', async () => {
    variables.CLERK_JWT_KEY = undefined
    const verify = await freshVerify()
    const code = () => verify(mint(), ORIGIN).catch((error) => error.code)
    expect(await waitsInSilence(clerk, 3_000, code)).toBe('PROVIDER_UNAVAILABLE')
  })

  test('that a wrong secret key cannot get are not the fault of the token', async () => {
    variables.CLERK_JWT_KEY = undefined
    variables.CLERK_SECRET_KEY = 'sk_test_wrong'
    neverSleep()
    clerk.answer = () => ({ status: 401, body: { errors: [{ code: 'clerk_key_invalid', message: 'Invalid key' }] } })
    expect(await outcome(mint())).toBe('PROVIDER_UNAVAILABLE')
  })

  test('are named where there are none', async () => {
    variables.CLERK_JWT_KEY = undefined
    variables.CLERK_SECRET_KEY = undefined
    const verify = await freshVerify()
    const refusal = await verify(mint(), ORIGIN).catch((error) => error)
    expect([refusal.code, refusal.message]).toEqual(['FEATURE_DISABLED', 'Signing in is switched off.'])
    expect(refusal.details).toEqual({ reason: 'Neither CLERK_JWT_KEY nor CLERK_SECRET_KEY is set.' })
  })

  test('that are no key refuse everybody', async () => {
    variables.CLERK_JWT_KEY = 'no key'
    expect(await outcome(mint())).toBe('UNAUTHENTICATED')
  })
})

describe('a user of Clerk', () => {
  async function fetched(id: string) {
    await freshVerify()
    const { fetchClerkUser } = await import('../../lib/auth/clerk.ts')
    return await fetchClerkUser(id).catch((error) => error.code)
  }

  test('is read with the primary address, in lower case', async () => {
    const user = clerk.addUser({ name: 'Ada Lovelace', email: 'Ada@Example.com', updatedAt: 1_700_000_000_001 })
    user.email_addresses.unshift({
      id: 'idn_other',
      object: 'email_address',
      email_address: 'other@example.com',
      linked_to: [],
      verification: { status: 'unverified', strategy: 'email_code', attempts: 0, expire_at: null },
    })
    expect(await fetched(user.id)).toEqual({
      id: user.id,
      name: 'Ada Lovelace',
      email: 'ada@example.com',
      emailVerified: true,
      banned: false,
      updatedAt: 1_700_000_000_001,
    })
    expect(clerk.calls).toEqual([`GET /v1/users/${user.id}`])
  })

  test('may have nothing but an id', async () => {
    const user = clerk.addUser({ name: null, email: null, banned: true })
    const bare = { id: user.id, name: undefined, email: undefined, emailVerified: false, banned: true }
    expect(await fetched(user.id)).toMatchObject(bare)
    user.username = 'lovelace'
    expect(await fetched(user.id)).toMatchObject({ ...bare, name: 'lovelace' })
    user.last_name = 'Lovelace'
    expect(await fetched(user.id)).toMatchObject({ ...bare, name: 'Lovelace' })
  })

  test('may be told of with nothing but an id and a time', async () => {
    await freshVerify()
    const { readClerkUser } = await import('../../lib/auth/clerk.ts')
    const nothing = { name: undefined, email: undefined, emailVerified: false, banned: false }
    expect(readClerkUser({ id: USER, updated_at: 5 })).toEqual({ ...nothing, id: USER, updatedAt: 5 })
  })

  test('has proven an address only when Clerk says so', async () => {
    const user = clerk.addUser({ verified: false })
    expect(await fetched(user.id)).toMatchObject({ emailVerified: false, email: expect.any(String) })
    expect(await fetched(clerk.addUser({ email: 'no address' }).id)).toMatchObject({
      email: undefined,
      emailVerified: false,
    })
    const { id, email_addresses: addresses } = clerk.addUser()
    for (const address of addresses) Object.assign(address, { verification: null })
    expect(await fetched(id)).toMatchObject({ emailVerified: false, email: expect.any(String) })
  })

  test('is not there, or cannot be had', async () => {
    expect(await fetched('user_2nobody')).toBeUndefined()
    const { id } = clerk.addUser()
    clerk.answer = () => ({ status: 500, body: { errors: [] } })
    expect(await fetched(id)).toBe('PROVIDER_UNAVAILABLE')
    clerk.answer = () => ({ status: 200, body: 'a page of a proxy' })
    expect(await fetched(id)).toBe('PROVIDER_UNAVAILABLE')
    clerk.answer = () => ({ status: 200, body: { id, object: 'user' } })
    expect(await fetched(id)).toBe('PROVIDER_UNAVAILABLE')
  })

  test('is not waited for longer than three seconds', async () => {
    await freshVerify()
    const { fetchClerkUser } = await import('../../lib/auth/clerk.ts')
    const code = () => fetchClerkUser('user_2slow').catch((error) => error.code)
    expect(await waitsInSilence(clerk, 3_000, code)).toBe('PROVIDER_UNAVAILABLE')
  })

  test('leaves no clock running once Clerk has answered', async () => {
    const { id } = clerk.addUser()
    await fetched(id)
    const { fetchClerkUser } = await import('../../lib/auth/clerk.ts')
    const [started, ended] = [vi.spyOn(globalThis, 'setTimeout'), vi.spyOn(globalThis, 'clearTimeout')]
    expect(await fetchClerkUser(id)).toMatchObject({ id })
    const ours = started.mock.calls.findIndex(([, ms]) => ms === 3_000)
    expect(ended).toHaveBeenCalledWith(started.mock.results[ours]?.value)
  })

  test('cannot be asked for without CLERK_SECRET_KEY, which is named', async () => {
    variables.CLERK_SECRET_KEY = undefined
    expect(await fetched('user_2abc')).toBe('PROVIDER_UNAVAILABLE')
    const { actAtClerk } = await import('../../lib/auth/clerk.ts')
    await expect(actAtClerk('ban', 'user_2abc')).rejects.toThrow('CLERK_SECRET_KEY')
    expect(clerk.calls).toEqual([])
  })
})
