// A forgotten password: a link by mail, and a new one chosen with it.
import type { Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { afterAnswer } from '../after-answer.ts'
import { type Actor, recordAudit } from '../audit.ts'
import { requireMail } from '../mail.ts'
import { resetMail, sendSparingly } from './account-mail.ts'
import { personalWords } from './accounts.ts'
import { endTokens, issueToken, ownerOf, redeemToken, worthless } from './email-tokens.ts'
import { shutOutRegistrant } from './lifecycle.ts'
import { addressProven } from './new-user.ts'
import { hashPassword, requireGoodPassword } from './passwords.ts'
import { revokeOtherSessions } from './sessions.ts'
import { forgetFailures } from './throttle.ts'

/** Mails a link when the address is known; the answer comes before anything is looked up, so that it tells nothing. */
export async function forgotPassword(email: string, origin: string): Promise<void> {
  requireMail()
  await afterAnswer('mail_failed', async () => {
    const user = await db()
      .selectFrom('users')
      .select('id')
      .where('email', '=', email)
      .where('status', '=', 'active')
      .executeTakeFirst()
    if (!user) return
    const token = await issueToken(db(), { userId: user.id, purpose: 'reset', email })
    await sendSparingly(resetMail(email, `${origin}/?reset=${token}`))
  })
}

/** Sets a new password with a link's token and ends every session; what was set up before the address was ever proven goes too. Throws VALIDATION_FAILED; a refused password leaves the link good. */
export async function resetPassword(
  { token, newPassword }: { token: string; newPassword: string },
  origin: Omit<Actor, 'actor'>,
): Promise<void> {
  const owner = await ownerOf(db(), token, ['reset'])
  if (!owner) throw worthless()
  requireGoodPassword(newPassword, 'newPassword', personalWords(owner.user))
  const passwordHash = await hashPassword(newPassword)
  await db()
    .transaction()
    .execute(async (trx) => {
      const { provenEmail, user } = await redeemToken(trx, token, ['reset'])
      await trx.updateTable('users').set({ password_hash: passwordHash }).where('id', '=', user.id).execute()
      await endTokens(trx, user.id, ['reset'])
      await revokeOtherSessions(trx, user.id, null, 'reset')
      if (!(await isProven(trx, user.id))) await shutOutRegistrant(trx, user.id)
      await forgetFailures(trx, user.email)
      if (provenEmail === user.email) await addressProven(trx, user.id)
      await recordAudit(trx, {
        actor: { type: 'user', id: user.id },
        action: 'user.password_reset',
        target: { type: 'user', id: user.id },
        ...origin,
      })
    })
}

async function isProven(trx: Transaction<Database>, userId: string): Promise<boolean> {
  const { email_verified_at } = await trx
    .selectFrom('users')
    .select('email_verified_at')
    .where('id', '=', userId)
    .executeTakeFirstOrThrow()
  return email_verified_at !== null
}
