// What users see of themselves, called directly on real PostgreSQL.
import { beforeAll, beforeEach, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { profileOf } from '../../lib/auth/profile.ts'
import { config } from '../../lib/config.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { startApp } from '../support/app.ts'

let account: Account

beforeAll(async () => {
  await startApp()
})

beforeEach(async () => {
  account = await givenAccount()
})

const factorOf = (confirmed_at: Date | null) =>
  db().insertInto('mfa_factors').values({ user_id: account.id, secret: 'sealed', confirmed_at }).execute()

test('a profile is who somebody is and what they can spend, and no more', async () => {
  const { created_at } = await db()
    .selectFrom('users')
    .select('created_at')
    .where('id', '=', account.id)
    .executeTakeFirstOrThrow()
  const { plan, balance } = await statementOf(db(), account.id)
  expect(await profileOf(account.id)).toEqual({
    id: account.id,
    name: 'Ada',
    email: account.email,
    emailVerified: false,
    mfaEnabled: false,
    role: 'user',
    status: 'active',
    plan,
    balance,
    preferences: {},
    createdAt: created_at.toISOString(),
  })
  expect([plan, balance.tokens, balance.trialGenerations]).toEqual(['free', 1000, 3])
})

test('a profile tells a proven address, and preferences as they were set', async () => {
  const preferences = JSON.stringify({ theme: 'dark' })
  await db()
    .updateTable('users')
    .set({ email_verified_at: new Date(), preferences })
    .where('id', '=', account.id)
    .execute()
  expect(await profileOf(account.id)).toMatchObject({ emailVerified: true, preferences: { theme: 'dark' } })
})

test('a second factor counts once it is confirmed', async () => {
  await factorOf(null)
  expect(await profileOf(account.id)).toMatchObject({ mfaEnabled: false })
  await db().updateTable('mfa_factors').set({ confirmed_at: new Date() }).where('user_id', '=', account.id).execute()
  expect(await profileOf(account.id)).toMatchObject({ mfaEnabled: true })
})

test('a second factor is not ours to tell where Clerk signs people in', async () => {
  const { auth } = config()
  auth.provider = 'clerk'
  try {
    expect(await profileOf(account.id)).not.toHaveProperty('mfaEnabled')
  } finally {
    auth.provider = 'local'
  }
})
