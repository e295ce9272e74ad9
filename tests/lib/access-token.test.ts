// Access tokens of local sign-in: what they say, how long they are good, and what is none.
import { createHmac } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

const SECRET = 'a secret that is long enough for anybody'
const WHO = { userId: '6f9619ff-8b86-4d01-b42d-00cf4fc964ff', sessionId: '00000000-0000-4000-8000-000000000001' }
const HEADER = { alg: 'HS256', typ: 'at+jwt' }

beforeEach(() => {
  vi.stubEnv('AUTH_JWT_SECRET', SECRET)
  vi.stubEnv('VERCEL_ENV', undefined)
})

afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllEnvs()
})

/** The module as a process that starts now has it. */
async function startedAfresh() {
  vi.resetModules()
  return await import('../../lib/auth/access-token.ts')
}

/** A token with claims and a header of the test's own, signed with the right key. */
async function mint(claims: object, header: object = HEADER): Promise<string> {
  const { keyFor } = await import('../../lib/auth/secret.ts')
  const input = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  return `${input}.${createHmac('sha256', keyFor('access-token')).update(input).digest('base64url')}`
}

const partsOf = (token: string) =>
  token
    .split('.')
    .slice(0, 2)
    .map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()))

describe('an access token', () => {
  test('names user and session, and is good for 15 minutes', async () => {
    const { signAccessToken, verifyAccessToken, ACCESS_TOKEN_SECONDS } = await startedAfresh()
    const token = await signAccessToken(WHO)
    const [header, claims] = partsOf(token)
    expect(header).toEqual(HEADER)
    const seconds = Math.floor(Date.now() / 1000)
    expect(claims).toEqual({
      sub: WHO.userId,
      sid: WHO.sessionId,
      iss: 'local',
      aud: 'api',
      iat: expect.closeTo(seconds, -1),
      exp: claims.iat + 900,
    })
    expect(ACCESS_TOKEN_SECONDS).toBe(900)
    expect(await verifyAccessToken(token)).toEqual(WHO)
  })

  test('that is too old is told from one that is none', async () => {
    vi.useFakeTimers({ now: Date.now(), toFake: ['Date'] })
    const { signAccessToken, verifyAccessToken } = await startedAfresh()
    const token = await signAccessToken(WHO)
    vi.setSystemTime(Date.now() + 899_000)
    expect(await verifyAccessToken(token)).toEqual(WHO)
    vi.setSystemTime(Date.now() + 2_000)
    await expect(verifyAccessToken(token)).rejects.toMatchObject({
      code: 'TOKEN_EXPIRED',
      message: expect.stringMatching(/^[A-Z].+\.$/),
    })
    await expect(verifyAccessToken(`${token}x`), 'of another key').rejects.toMatchObject({ code: 'UNAUTHENTICATED' })
  })

  test.each([
    { what: 'of another issuer', claims: { iss: 'elsewhere' } },
    { what: 'for another audience', claims: { aud: 'elsewhere' } },
    { what: 'without issuer', claims: { iss: undefined } },
    { what: 'without audience', claims: { aud: undefined } },
    { what: 'without user', claims: { sub: undefined } },
    { what: 'without session', claims: { sid: undefined } },
    { what: 'without end', claims: { exp: undefined } },
    { what: 'of another type', header: { typ: 'JWT' } },
    { what: 'without type', header: { typ: undefined } },
    { what: 'of another algorithm', header: { alg: 'HS512' } },
    { what: 'of no algorithm', header: { alg: 'none' } },
  ])('$what is none', async ({ claims = {}, header = {} }) => {
    const { verifyAccessToken } = await startedAfresh()
    const good = { sub: WHO.userId, sid: WHO.sessionId, iss: 'local', aud: 'api', exp: 4_000_000_000 }
    expect(await verifyAccessToken(await mint(good))).toEqual(WHO)
    const token = await mint({ ...good, ...claims }, { ...HEADER, ...header })
    await expect(verifyAccessToken(token)).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
      message: expect.stringMatching(/^[A-Z].+\.$/),
      cause: expect.any(Error),
    })
  })

  test('cannot be made or read where there is no secret, which is said', async () => {
    const { signAccessToken } = await startedAfresh()
    const token = await signAccessToken(WHO)
    vi.stubEnv('AUTH_JWT_SECRET', undefined)
    vi.stubEnv('VERCEL_ENV', 'production')
    vi.stubEnv('POSTGRES_URL', 'postgres://u:p@host/db')
    const other = await startedAfresh()
    await expect(other.verifyAccessToken(token)).rejects.toMatchObject({ code: 'FEATURE_DISABLED' })
    await expect(other.signAccessToken(WHO)).rejects.toMatchObject({ code: 'FEATURE_DISABLED' })
  })
})
