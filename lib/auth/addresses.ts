// The address of an account of local sign-in: proven by a link in a mail, and changed the same way.

import { db } from '../../db/client.ts'
import { isUniqueViolation } from '../../db/errors.ts'
import { afterAnswer } from '../after-answer.ts'
import { type Actor, recordAudit } from '../audit.ts'
import { env } from '../env.ts'
import { invalidField } from '../http/body.ts'
import { requireMail } from '../mail.ts'
import { addressChangedMail, addressTakenMail, sendSparingly, verificationMail } from './account-mail.ts'
import { emailTaken } from './accounts.ts'
import { confirmPassword } from './confirm.ts'
import { endTokens, issueToken, redeemToken, worthless } from './email-tokens.ts'
import { addressProven } from './new-user.ts'
import { revokeOtherSessions } from './sessions.ts'

/** Mails a link that proves the user's address, unless it is proven already. `origin` is where our pages are. */
export async function sendVerification(userId: string, origin: string): Promise<void> {
  requireMail()
  await afterAnswer('mail_failed', async () => {
    const user = await db()
      .selectFrom('users')
      .select('email')
      .where('id', '=', userId)
      .where('email_verified_at', 'is', null)
      .executeTakeFirst()
    if (!user) return
    const { email } = user
    const token = await issueToken(db(), { userId, purpose: 'verify', email })
    await sendSparingly(verificationMail(email, linkOf(origin, token)))
  })
}

/**
 * Mails a link to the new address, which takes its place once that was opened. Whether somebody else has the address is for
 * them alone to know. Throws FORBIDDEN when the password is wrong, VALIDATION_FAILED for the address that it is already.
 */
export async function requestAddressChange(
  userId: string,
  { email, password }: { email: string; password: string },
  origin: string,
  by: Actor,
): Promise<void> {
  requireMail()
  const user = await confirmPassword(userId, password)
  if (email === user.email) throw invalidField('email', 'This is the address of your account already.')
  await afterAnswer('mail_failed', async () => {
    const owner = await db()
      .selectFrom('users')
      .select('id')
      .where('email', '=', email)
      .where('status', '!=', 'deleted')
      .executeTakeFirst()
    if (owner) return await sendSparingly(addressTakenMail(email))
    if (isReserved(email)) return
    const token = await db()
      .transaction()
      .execute(async (trx) => {
        await recordAudit(trx, { ...by, action: 'email.request', target: { type: 'user', id: userId } })
        return await issueToken(trx, { userId, purpose: 'change', email })
      })
    await sendSparingly(verificationMail(email, linkOf(origin, token)))
  })
}

/**
 * What opening a link does: the address is proven, or the new one takes the place of the old, which ends all sessions but
 * `keptSessionId`. Throws VALIDATION_FAILED for a link that is worth nothing, EMAIL_TAKEN when somebody was faster.
 */
export async function redeemAddress(
  token: string,
  { keptSessionId, origin }: { keptSessionId: string | undefined; origin: Omit<Actor, 'actor'> },
): Promise<void> {
  const before = await db()
    .transaction()
    .execute(async (trx) => {
      const { purpose, provenEmail, user } = await redeemToken(trx, token, ['verify', 'change'])
      const by = { actor: { type: 'user' as const, id: user.id }, target: { type: 'user', id: user.id }, ...origin }
      if (purpose === 'change') {
        if (isReserved(provenEmail)) throw emailTaken()
        await trx.updateTable('users').set({ email: provenEmail }).where('id', '=', user.id).execute()
        await endTokens(trx, user.id, ['verify', 'change', 'reset'])
        await revokeOtherSessions(trx, user.id, keptSessionId ?? null, 'email')
      } else if (provenEmail !== user.email) throw worthless()
      await addressProven(trx, user.id)
      await recordAudit(trx, { ...by, action: purpose === 'change' ? 'email.change' : 'email.verify' })
      return purpose === 'change' ? user.email : undefined
    })
    .catch((error: unknown) => {
      throw isUniqueViolation(error) ? emailTaken() : error
    })
  if (before !== undefined) await afterAnswer('mail_failed', () => sendSparingly(addressChangedMail(before)))
}

/** Whether the address is kept for the admin of ADMIN_EMAIL. */
function isReserved(email: string): boolean {
  return email === env().admin?.email
}

function linkOf(origin: string, token: string): string {
  return `${origin}/?verify=${token}`
}
