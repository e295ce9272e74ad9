// Who may call, asked directly on real PostgreSQL: every kind of proof against every kind of route.
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { closeDatabase, db } from '../../db/client.ts'
import type { Scope } from '../../db/schema.ts'
import { signAccessToken } from '../../lib/auth/access-token.ts'
import { refusalOf } from '../../lib/auth/account-state.ts'
import { createKey } from '../../lib/auth/api-keys.ts'
import { type Access, type Admission, authenticate } from '../../lib/auth/caller.ts'
import { config } from '../../lib/config.ts'
import { env } from '../../lib/env.ts'
import { AppError } from '../../lib/http/errors.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { startApp } from '../support/app.ts'
import { rowOf } from '../support/clerk-people.ts'
import { type ClerkStub, startClerkStub } from '../support/clerk-stub.ts'

const IP = '203.0.113.7'
const CRON_SECRET = 'a-secret-for-the-scheduler'
const SIGNED_IN: Access[] = ['user', 'spender', 'admin']

let clerk: ClerkStub
let user: Account
let admin: Account
let proven: object

beforeAll(async () => {
  clerk = await startClerkStub()
  await startApp({ ...clerk.variables, CRON_SECRET })
  config().auth.provider = 'local'
  admin = await givenAccount({ role: 'admin' })
})

afterAll(() => clerk.close())

beforeEach(async () => {
  user = await givenAccount()
  proven = { userId: user.id, sessionId: user.sessionId, key: undefined, impersonator: undefined }
  return () => {
    config().auth.provider = 'local'
    config().auth.mfaForAdmins = false
  }
})

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

async function admit(admission: Access | Admission, headers: Record<string, string> = {}) {
  const request = new Request('http://localhost/api/anything', { headers })
  return await authenticate(request, typeof admission === 'string' ? { access: admission } : admission, IP)
}

/** The error of a refusal, which says why. */
async function errorOf(attempt: Promise<unknown>): Promise<AppError> {
  const error = await attempt.then(() => undefined).catch((error: unknown) => error)
  if (!(error instanceof AppError)) throw error ?? new Error('Nothing was refused.')
  expect(error.message, 'why').toMatch(/^.+[.>]$/)
  return error
}

const refusal = async (admission: Access | Admission, headers: Record<string, string> = {}) =>
  (await errorOf(admit(admission, headers))).code

async function givenKey(scopes: Scope[] = ['generate', 'read'], owner = user) {
  const { id, key } = await db()
    .transaction()
    .execute((trx) => createKey(trx, owner.id, { name: 'CI', scopes }, { actor: { type: 'user', id: owner.id } }))
  const calling = { id, scopes, requestsPerMinute: undefined }
  return { key, caller: { userId: owner.id, sessionId: undefined, key: calling, impersonator: undefined } }
}

describe('without proof', () => {
  test.each(['public', 'signature', 'visitor'] as const)('%s routes let everybody pass', async (access) => {
    expect(await admit(access)).toBeUndefined()
  })

  test.each(SIGNED_IN)('%s routes ask to sign in, and how', async (access) => {
    expect(await errorOf(admit(access))).toMatchObject({
      code: 'UNAUTHENTICATED',
      headers: { 'www-authenticate': 'Bearer' },
    })
  })

  test.each(['public', 'signature'] as const)('%s routes look at no header', async (access) => {
    expect(await admit(access, { authorization: 'whatever', 'x-api-key': 'whatever' })).toBeUndefined()
  })
})

describe('an access token', () => {
  test('tells a user route who calls, in which role, and with how many factors', async () => {
    expect(await admit('user', bearer(user.token))).toEqual({ ...proven, role: 'user', mfa: false })
    await db().updateTable('refresh_tokens').set({ mfa: true }).where('family_id', '=', user.sessionId).execute()
    expect(await admit('user', bearer(user.token))).toEqual({ ...proven, role: 'user', mfa: true })
    expect(await admit('visitor', bearer(user.token))).toEqual({ ...proven, role: 'user', mfa: true })
    expect(await admit('user', bearer(admin.token))).toMatchObject({ role: 'admin', mfa: false })
  })

  test('is proof enough for a spender, whose reservation asks the rest', async () => {
    expect(await admit('spender', bearer(user.token))).toEqual(proven)
    await db().updateTable('users').set({ status: 'suspended' }).where('id', '=', user.id).execute()
    expect(await admit('spender', bearer(user.token))).toEqual(proven)
  })

  test('may be sent with "bearer" in any case and more than one space', async () => {
    for (const scheme of ['bearer', 'BEARER', 'Bearer  '])
      expect(await admit('user', { authorization: `${scheme} ${user.token}` })).toMatchObject({ userId: user.id })
  })

  test.each(['', 'Bearer', 'Basic YTpi', 'Bearer a b', 'xBearer token', 'Bearertoken'])(
    'is not what "%s" has, on any route that looks',
    async (authorization) => {
      for (const access of [...SIGNED_IN, 'visitor', 'cron'] as const)
        expect(await refusal(access, { authorization })).toBe('UNAUTHENTICATED')
    },
  )

  test.each(['user', 'visitor', 'admin'] as const)(
    'is worth nothing on a %s route once its session ended',
    async (access) => {
      await db()
        .updateTable('refresh_tokens')
        .set({ revoked: true, revoked_at: sql`now()`, revoked_reason: 'logout' })
        .where('user_id', '=', user.id)
        .execute()
      expect(await refusal(access, bearer(user.token))).toBe('UNAUTHENTICATED')
    },
  )

  test.each([
    { status: 'suspended', code: 'ACCOUNT_SUSPENDED' },
    { status: 'deleted', code: 'UNAUTHENTICATED' },
  ] as const)('is refused when the account is $status', async ({ status, code }) => {
    await db().updateTable('users').set({ status }).where('id', '=', user.id).execute()
    for (const access of ['user', 'visitor', 'admin'] as const)
      expect(await refusal(access, bearer(user.token))).toBe(code)
  })

  test('of an account that never was is refused', async () => {
    const token = await signAccessToken({ userId: crypto.randomUUID(), sessionId: user.sessionId })
    expect(await refusal('user', bearer(token))).toBe('UNAUTHENTICATED')
  })

  test('of another user does not open a session', async () => {
    const token = await signAccessToken({ userId: user.id, sessionId: admin.sessionId })
    expect(await refusal('user', bearer(token))).toBe('UNAUTHENTICATED')
  })

  test('comes before an API key beside it', async () => {
    const { key } = await givenKey()
    const headers = { ...bearer(user.token), 'x-api-key': key }
    expect(await admit('user', headers)).toMatchObject({ sessionId: user.sessionId, key: undefined })
  })
})

describe('an admin route', () => {
  test('is not there for users', async () => {
    expect(await refusal('admin', bearer(user.token))).toBe('NOT_FOUND')
  })

  test('lets administrators pass', async () => {
    expect(await admit('admin', bearer(admin.token))).toMatchObject({ userId: admin.id, role: 'admin' })
  })

  test('is not there for the keys of administrators', async () => {
    const { key } = await givenKey(undefined, admin)
    expect(await refusal('admin', bearer(key))).toBe('NOT_FOUND')
  })

  test('asks for a second factor where administrators need one, and only there', async () => {
    config().auth.mfaForAdmins = true
    expect(await errorOf(admit('admin', bearer(admin.token)))).toMatchObject({
      code: 'FORBIDDEN',
      details: { reason: 'mfa_required' },
    })
    expect(await admit('user', bearer(admin.token))).toMatchObject({ role: 'admin' })
    const strong = await givenAccount({ role: 'admin' })
    await db().updateTable('refresh_tokens').set({ mfa: true }).where('family_id', '=', strong.sessionId).execute()
    expect(await admit('admin', bearer(strong.token))).toMatchObject({ userId: strong.id, mfa: true })
  })
})

describe('an API key', () => {
  test('passes where the route names a scope that it has, in either header', async () => {
    const { key, caller } = await givenKey(['generate'])
    for (const headers of [bearer(key), { 'x-api-key': key }]) {
      const admitted = { ...caller, role: 'user', mfa: false }
      expect(await admit({ access: 'user', scope: 'generate' }, headers)).toEqual(admitted)
      expect(await admit({ access: 'spender', scope: 'generate' }, headers)).toMatchObject(caller)
    }
  })

  test.each(['user', 'spender'] as const)('is refused on a %s route without a scope', async (access) => {
    const { key } = await givenKey()
    expect(await errorOf(admit(access, bearer(key)))).toMatchObject({ code: 'FORBIDDEN', details: {} })
  })

  test.each(['user', 'spender'] as const)(
    'is refused on a %s route for a scope that it lacks, named',
    async (access) => {
      const { key } = await givenKey(['generate'])
      expect(await errorOf(admit({ access, scope: 'read' }, bearer(key)))).toMatchObject({
        code: 'FORBIDDEN',
        details: { scope: 'read' },
      })
    },
  )

  test('is a stranger to routes for visitors', async () => {
    const { key } = await givenKey()
    expect(await admit('visitor', { 'x-api-key': key })).toBeUndefined()
  })

  test.each([...SIGNED_IN, 'visitor'] as const)('that nobody gave out is refused on a %s route', async (access) => {
    const made = `aik_abcdefgh_${'a'.repeat(38)}`
    expect(await refusal(access, { 'x-api-key': made })).toBe('UNAUTHENTICATED')
  })

  test('is the only thing that X-API-Key may hold', async () => {
    expect((await errorOf(admit('user', { 'x-api-key': user.token }))).headers).toEqual({})
    expect(await refusal('visitor', { 'x-api-key': '' })).toBe('UNAUTHENTICATED')
  })
})

describe('while the database is down', () => {
  beforeEach(async () => {
    const { databaseUrl } = env()
    await closeDatabase()
    env().databaseUrl = 'postgres://postgres@127.0.0.1:1/nowhere'
    return async () => {
      await closeDatabase()
      env().databaseUrl = databaseUrl
    }
  })

  test('visitors are served as strangers, which is logged', async () => {
    expect(await admit('visitor', bearer(user.token))).toBeUndefined()
    const lines = vi.mocked(console.log).mock.calls.map(([line]) => JSON.parse(String(line)))
    expect(lines).toMatchObject([{ level: 'warn', event: 'caller_unknown', error: expect.anything() }])
    expect(JSON.stringify(lines)).toContain('ECONNREFUSED')
  })

  test('whoever has to sign in is not', async () => {
    await expect(admit('user', bearer(user.token))).rejects.toThrow('ECONNREFUSED')
  })

  test('visitors whose token is not valid are told so', async () => {
    expect(await refusal('visitor', bearer('a-token'))).toBe('UNAUTHENTICATED')
  })
})

describe("Clerk's users", () => {
  beforeEach(() => {
    config().auth.provider = 'clerk'
  })

  test('pass with a token that Clerk made for this address, and not with ours', async () => {
    const { id } = clerk.addUser()
    const token = bearer(clerk.token(id))
    const caller = await admit('user', token)
    const proof = { userId: (await rowOf(id)).id, sessionId: undefined, key: undefined, impersonator: undefined }
    expect(caller).toEqual({ ...proof, role: 'user', mfa: false })
    expect(await admit('spender', token)).toEqual(proof)
    expect(await admit('visitor', token)).toMatchObject(proof)
    const elsewhere = bearer(clerk.token(id, { claims: { azp: 'https://elsewhere.example' } }))
    for (const access of ['user', 'spender'] as const) {
      expect(await refusal(access, elsewhere)).toBe('UNAUTHENTICATED')
      expect(await refusal(access, bearer(user.token))).toBe('UNAUTHENTICATED')
    }
  })

  test('are met by whoever acts in their name, but not on personal routes, nor as administrators', async () => {
    const { id } = clerk.addUser()
    await admit('user', bearer(clerk.token(id)))
    await db().updateTable('users').set({ role: 'admin' }).where('clerk_id', '=', id).execute()
    const act = { iss: 'https://dashboard.clerk.com', sid: 'sess_1', sub: 'user_2support' }
    const acting = bearer(clerk.token(id, { claims: { act } }))
    for (const access of ['user', 'spender'] as const) {
      expect(await admit(access, acting)).toMatchObject({ impersonator: 'user_2support' })
      expect(await refusal({ access, personal: true }, acting)).toBe('FORBIDDEN')
      expect(await admit({ access, personal: true }, bearer(clerk.token(id)))).toMatchObject({
        impersonator: undefined,
      })
    }
    expect(await refusal('admin', acting)).toBe('NOT_FOUND')
    expect(await admit('admin', bearer(clerk.token(id)))).toMatchObject({ role: 'admin' })
  })

  test('may call with keys too', async () => {
    const { key, caller } = await givenKey()
    for (const access of ['user', 'spender'] as const)
      expect(await admit({ access, scope: 'read' }, bearer(key))).toMatchObject(caller)
  })
})

describe('the scheduler', () => {
  test('passes with its secret, and is nobody', async () => {
    expect(await admit('cron', bearer(CRON_SECRET))).toBeUndefined()
  })

  test.each([undefined, `${CRON_SECRET}x`, 'x'])('does not pass with %s', async (token) => {
    expect(await refusal('cron', token === undefined ? {} : bearer(token))).toBe('UNAUTHENTICATED')
  })

  test('does not pass where there is no secret, and its operator learns why', async () => {
    env().cronSecret = undefined
    try {
      const error = await errorOf(admit('cron', bearer(CRON_SECRET)))
      expect(error).toMatchObject({
        code: 'FEATURE_DISABLED',
        details: { reason: expect.stringContaining('CRON_SECRET') },
      })
      expect(await refusal('cron')).toBe('FEATURE_DISABLED')
    } finally {
      env().cronSecret = CRON_SECRET
    }
  })
})

test('what the database says of an account is one of three refusals, each of which says something else', () => {
  const refusals = ['suspended', 'signed_out', 'unknown_user'].map(refusalOf)
  expect(refusals.map(({ code }) => code)).toEqual(['ACCOUNT_SUSPENDED', 'UNAUTHENTICATED', 'UNAUTHENTICATED'])
  expect(new Set(refusals.map(({ message }) => message)).size).toBe(3)
  expect(() => refusalOf('another state')).toThrow('another state')
})
