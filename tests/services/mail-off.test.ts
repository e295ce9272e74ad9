// Where no mail can be sent, what needs one is refused at once, known address or not: on real PostgreSQL.
import { beforeAll, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { redeemAddress, requestAddressChange, sendVerification } from '../../lib/auth/addresses.ts'
import { issueToken } from '../../lib/auth/email-tokens.ts'
import { forgotPassword } from '../../lib/auth/password-reset.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { startApp } from '../support/app.ts'

const PAGES = 'http://localhost'
const OFF = { code: 'FEATURE_DISABLED', details: { reason: 'RESEND_API_KEY and MAIL_FROM are not set.' } }

let account: Account

beforeAll(async () => {
  await startApp({ VERCEL_ENV: 'production' })
  account = await givenAccount()
})

test('a link to prove an address is not asked for', async () => {
  await expect(sendVerification(account.id, PAGES)).rejects.toMatchObject(OFF)
})

test('a change of address is refused before the password is looked at', async () => {
  const by = { actor: { type: 'user' as const, id: account.id }, requestId: 'request-1' }
  const wanted = { email: 'new@example.com', password: 'not the password' }
  await expect(requestAddressChange(account.id, wanted, PAGES, by)).rejects.toMatchObject(OFF)
  expect(await db().selectFrom('sign_in_failures').selectAll().execute()).toEqual([])
})

test.each(['known', 'unknown'])('a forgotten password is refused alike to an address that is %s', async (which) => {
  const email = which === 'known' ? account.email : 'nobody@example.com'
  await expect(forgotPassword(email, PAGES)).rejects.toMatchObject(OFF)
  expect(await db().selectFrom('email_tokens').selectAll().execute()).toEqual([])
})

test('nobody waits for a proof that cannot come: the trial is given at once', async () => {
  expect((await statementOf(db(), account.id)).balance.trialGenerations).toBe(3)
})

test('a link that was mailed before is good, though its notice cannot be sent', async () => {
  const email = 'moved@example.com'
  const token = await issueToken(db(), { userId: account.id, purpose: 'change', email })
  await redeemAddress(token, { keptSessionId: undefined, origin: { requestId: 'request-1' } })
  const user = await db().selectFrom('users').select('email').where('id', '=', account.id).executeTakeFirstOrThrow()
  expect(user.email).toBe(email)
  await expect.poll(() => vi.mocked(console.log).mock.calls.join()).toContain('mail_failed')
})
