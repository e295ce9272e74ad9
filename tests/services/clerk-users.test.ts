// First calls of Clerk's users, also twenty at once, and what is looked up on every call after.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { followClerkDeletion, followClerkUser } from '../../lib/auth/clerk-sync.ts'
import { callerOfClerk, spenderOfClerk } from '../../lib/auth/clerk-users.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import {
  auditOf,
  freshAddress,
  placeholderOf,
  proofOf,
  queriesOf,
  rowOf,
  rowsOf,
  somebody,
  WEBHOOK,
} from '../support/clerk-people.ts'
import { type ClerkStub, startClerkStub } from '../support/clerk-stub.ts'

const IP = '192.0.2.1'

let clerk: ClerkStub

beforeAll(async () => {
  clerk = await startClerkStub()
  await startApp(clerk.variables)
})

afterAll(() => clerk.close())

beforeEach(() => {
  clerk.answer = undefined
  clerk.calls.length = 0
})

const codeOf = (promise: Promise<unknown>) => promise.then(() => 'passed').catch((error) => error.code)

describe('the first call', () => {
  test('asks Clerk once and makes the user; the next ones ask nobody but the database, once', async () => {
    const ada = clerk.addUser({ name: 'Ada Lovelace', updatedAt: 1_700_000_000_000 })
    const caller = await callerOfClerk(proofOf(ada.id, { mfa: true }), IP)
    const row = await rowOf(ada.id)
    expect(caller).toEqual({
      userId: row.id,
      sessionId: undefined,
      key: undefined,
      impersonator: undefined,
      role: 'user',
      mfa: true,
    })
    expect(row).toMatchObject({ name: 'Ada Lovelace', clerk_updated_at: 1_700_000_000_000 })
    expect(clerk.calls).toEqual([`GET /v1/users/${ada.id}`])
    expect(await queriesOf(() => callerOfClerk(proofOf(ada.id), IP))).toBe(1)
    expect(await callerOfClerk(proofOf(ada.id), IP)).toMatchObject({ userId: row.id, mfa: false })
    expect(clerk.calls).toHaveLength(1)
    expect(await auditOf(row.id)).toMatchObject([{ action: 'user.register', actor_id: row.id, ip: IP }])
  })

  test('twenty at once make one user with one trial', async () => {
    for (let times = 0; times < 3; times++) {
      const ada = clerk.addUser()
      const calls = Array.from({ length: 20 }, (_, index) =>
        index % 2 ? callerOfClerk(proofOf(ada.id), IP) : spenderOfClerk(proofOf(ada.id), IP),
      )
      const ids = new Set((await Promise.all(calls)).map(({ userId }) => userId))
      const rows = await rowsOf(ada.id)
      expect([...ids]).toEqual(rows.map(({ id }) => id))
      expect(rows).toHaveLength(1)
      expect(await auditOf(rows[0]?.id ?? '')).toHaveLength(1)
      expect((await statementOf(db(), rows[0]?.id ?? '')).balance).toMatchObject({ trialGenerations: 3, tokens: 1000 })
    }
  })

  test('at the same time as the webhook makes one user', async () => {
    for (let times = 0; times < 5; times++) {
      const ada = clerk.addUser()
      const told = somebody({ id: ada.id, email: ada.email_addresses[0]?.email_address, updatedAt: ada.updated_at })
      await Promise.all([callerOfClerk(proofOf(ada.id), IP), followClerkUser(told, WEBHOOK)])
      expect(await rowsOf(ada.id)).toHaveLength(1)
    }
  })

  test('of two who registered one address here and at Clerk: both have an account', async () => {
    for (let times = 0; times < 5; times++) {
      const email = freshAddress()
      const ada = clerk.addUser({ email })
      const local = db()
        .insertInto('users')
        .values({ name: 'Local', email, password_hash: 'hash' })
        .execute()
        .then(() => 'made')
        .catch(() => 'taken')
      const [outcome] = await Promise.all([local, callerOfClerk(proofOf(ada.id), IP)])
      expect(await rowsOf(ada.id)).toMatchObject([{ email, password_hash: null }])
      expect(['made', 'taken']).toContain(outcome)
    }
  })

  test('while Clerk does not answer leaves nothing behind, and the next one heals it', async () => {
    const ada = clerk.addUser()
    clerk.answer = () => ({ status: 500, body: { errors: [] } })
    expect(await codeOf(callerOfClerk(proofOf(ada.id), IP))).toBe('PROVIDER_UNAVAILABLE')
    expect(await codeOf(spenderOfClerk(proofOf(ada.id), IP))).toBe('PROVIDER_UNAVAILABLE')
    expect(await rowsOf(ada.id)).toEqual([])
    clerk.answer = undefined
    expect(await codeOf(callerOfClerk(proofOf(ada.id), IP))).toBe('passed')
    expect(await rowsOf(ada.id)).toHaveLength(1)
  })

  test('of somebody whom Clerk does not know is refused', async () => {
    expect(await codeOf(callerOfClerk(proofOf('user_2nobody'), IP))).toBe('UNAUTHENTICATED')
    expect(await rowsOf('user_2nobody')).toEqual([])
  })

  test('of somebody banned makes the user, and refuses them', async () => {
    const ada = clerk.addUser({ banned: true })
    expect(await codeOf(callerOfClerk(proofOf(ada.id), IP))).toBe('ACCOUNT_SUSPENDED')
    expect(await rowOf(ada.id)).toMatchObject({ status: 'suspended' })
  })

  test('of somebody deleted is refused, and Clerk is not asked', async () => {
    const ada = clerk.addUser()
    await followClerkDeletion(ada.id, WEBHOOK)
    expect(await codeOf(callerOfClerk(proofOf(ada.id), IP))).toBe('UNAUTHENTICATED')
    expect(await codeOf(spenderOfClerk(proofOf(ada.id), IP))).toBe('UNAUTHENTICATED')
    expect(clerk.calls).toEqual([])
    expect(await rowsOf(ada.id)).toEqual([])
  })

  test('of somebody deleted while Clerk was asked is refused', async () => {
    const ada = clerk.addUser()
    clerk.answer = async () => {
      await followClerkDeletion(ada.id, WEBHOOK)
      return undefined
    }
    expect(await codeOf(callerOfClerk(proofOf(ada.id), IP))).toBe('UNAUTHENTICATED')
    expect(await rowsOf(ada.id)).toEqual([])
  })

  test('in the name of the user is on record as that, and says nothing of where the user is', async () => {
    const ada = clerk.addUser()
    const caller = await callerOfClerk(proofOf(ada.id, { impersonator: 'user_2support' }), IP)
    expect(caller.impersonator).toBe('user_2support')
    const row = await rowOf(ada.id)
    expect(row.signup_network).toBeNull()
    expect(await auditOf(row.id)).toMatchObject([{ action: 'user.register', impersonator: 'user_2support', ip: IP }])
    const grace = clerk.addUser()
    await callerOfClerk(proofOf(grace.id), IP)
    expect((await rowOf(grace.id)).signup_network).not.toBeNull()
  })
})

describe('every call', () => {
  test('sees the role and the status of this moment', async () => {
    const ada = clerk.addUser()
    const { userId } = await callerOfClerk(proofOf(ada.id), IP)
    const set = (change: { role?: 'admin'; status?: 'suspended' | 'deleted' }) =>
      db().updateTable('users').set(change).where('id', '=', userId).execute()
    await set({ role: 'admin' })
    expect(await callerOfClerk(proofOf(ada.id), IP)).toMatchObject({ role: 'admin' })
    await set({ status: 'suspended' })
    expect(await codeOf(callerOfClerk(proofOf(ada.id), IP))).toBe('ACCOUNT_SUSPENDED')
    await set({ status: 'deleted' })
    expect(await codeOf(callerOfClerk(proofOf(ada.id), IP))).toBe('UNAUTHENTICATED')
    expect(clerk.calls).toHaveLength(1)
  })

  test('of a spender who is known asks nobody; the reservation does', async () => {
    const ada = clerk.addUser()
    const first = await spenderOfClerk(proofOf(ada.id), IP)
    expect(first).toEqual({
      userId: (await rowOf(ada.id)).id,
      sessionId: undefined,
      key: undefined,
      impersonator: undefined,
    })
    expect(await queriesOf(() => spenderOfClerk(proofOf(ada.id), IP))).toBe(0)
    expect(await spenderOfClerk(proofOf(ada.id, { impersonator: 'user_2support' }), IP)).toEqual({
      ...first,
      impersonator: 'user_2support',
    })
    await db().updateTable('users').set({ status: 'suspended' }).where('id', '=', first.userId).execute()
    expect(await codeOf(spenderOfClerk(proofOf(ada.id), IP))).toBe('passed')
  })

  test('of spenders who take turns asks nobody', async () => {
    const both = [clerk.addUser(), clerk.addUser()]
    const turns = async () => {
      for (const { id } of both) await spenderOfClerk(proofOf(id), IP)
    }
    await turns()
    expect(await queriesOf(turns)).toBe(0)
  })

  test('of a spender who is refused is not remembered', async () => {
    const ada = clerk.addUser({ banned: true })
    expect(await codeOf(spenderOfClerk(proofOf(ada.id), IP))).toBe('ACCOUNT_SUSPENDED')
    expect(await codeOf(spenderOfClerk(proofOf(ada.id), IP))).toBe('ACCOUNT_SUSPENDED')
  })
})

describe('without CLERK_SECRET_KEY', () => {
  /** First calls as they are where Clerk cannot be asked. */
  async function firstCall(proof: ReturnType<typeof proofOf>) {
    const { env } = await import('../../lib/env.ts')
    const { clerk: settings } = env()
    const { secretKey } = settings
    settings.secretKey = undefined
    try {
      await callerOfClerk(proof, IP)
    } finally {
      settings.secretKey = secretKey
    }
    return await rowOf(proof.clerkId)
  }

  test('the claims make the user, proven or not', async () => {
    const claims = { name: 'Ada', email: freshAddress(), emailVerified: true }
    const proven = somebody()
    expect(await firstCall(proofOf(proven.id, claims))).toMatchObject({
      name: 'Ada',
      email: claims.email,
      email_verified_at: expect.any(Date),
      clerk_updated_at: 0,
    })
    const other = somebody()
    const email = freshAddress()
    expect(await firstCall(proofOf(other.id, { email }))).toMatchObject({ email, email_verified_at: null })
    expect(clerk.calls).toEqual([])
  })

  test('a token that says nothing makes a user with a stand-in, whom the webhook completes', async () => {
    const ada = somebody({ updatedAt: 1 })
    expect(await firstCall(proofOf(ada.id))).toMatchObject({
      name: 'User',
      email: placeholderOf(ada.id),
      email_verified_at: null,
    })
    await followClerkUser(ada, WEBHOOK)
    expect(await rowOf(ada.id)).toMatchObject({ name: 'Ada', email: ada.email, email_verified_at: expect.any(Date) })
  })
})
