// Accounts of local sign-in: register, change the password, and the seeded admin.
import { type Kysely, sql } from 'kysely'
import { db } from '../../db/client.ts'
import { isUniqueViolation } from '../../db/errors.ts'
import type { Database } from '../../db/schema.ts'
import { recordAudit } from '../audit.ts'
import { env } from '../env.ts'
import { AppError } from '../http/errors.ts'
import { refusalOf } from './account-state.ts'
import { confirmPassword } from './confirm.ts'
import { endTokens } from './email-tokens.ts'
import { createUser } from './new-user.ts'
import { hashPassword, requireGoodPassword } from './passwords.ts'
import { beginSession, type RequestOrigin, revokeOtherSessions, type Session } from './sessions.ts'

/** Makes a user with the free plan and the trial, signed in. Throws EMAIL_TAKEN, VALIDATION_FAILED. */
export async function register(
  person: { name: string; email: string; password: string },
  origin: RequestOrigin,
): Promise<Session> {
  requireGoodPassword(person.password, 'password', personalWords(person))
  if (person.email === env().admin?.email) throw emailTaken()
  const passwordHash = await hashPassword(person.password)
  try {
    return await db()
      .transaction()
      .execute(async (trx) => {
        const userId = await createUser(trx, { ...person, passwordHash, role: 'user', ip: origin.ip })
        await recordAudit(trx, {
          actor: { type: 'user', id: userId },
          action: 'user.register',
          target: { type: 'user', id: userId },
          ...origin,
        })
        return await beginSession(trx, userId, origin)
      })
  } catch (error) {
    throw isUniqueViolation(error) ? emailTaken() : error
  }
}

/** Changes the password and ends every other session. Throws FORBIDDEN when the current one is wrong. */
export async function changePassword(
  { userId, sessionId }: { userId: string; sessionId: string | undefined },
  { currentPassword, newPassword }: { currentPassword: string; newPassword: string },
  origin: RequestOrigin,
): Promise<void> {
  const user = await confirmPassword(userId, currentPassword)
  requireGoodPassword(newPassword, 'newPassword', personalWords(user))
  const passwordHash = await hashPassword(newPassword)
  await db()
    .transaction()
    .execute(async (trx) => {
      const { numUpdatedRows } = await trx
        .updateTable('users')
        .set({ password_hash: passwordHash })
        .where('id', '=', userId)
        .where('password_hash', '=', user.passwordHash)
        .executeTakeFirst()
      // While it was hashed, somebody else changed it.
      if (numUpdatedRows === 0n) throw new AppError('FORBIDDEN', 'The current password is wrong.')
      await endTokens(trx, userId, ['reset'])
      await revokeOtherSessions(trx, userId, sessionId ?? null, 'password')
      await recordAudit(trx, {
        actor: { type: 'user', id: userId },
        action: 'user.password',
        target: { type: 'user', id: userId },
        ...origin,
      })
    })
}

/** Throws ACCOUNT_SUSPENDED or UNAUTHENTICATED unless the user may act. */
export async function requireActive(database: Kysely<Database>, userId: string): Promise<void> {
  const account = sql<string>`account_state(${userId}, null)`.as('state')
  const { state } = await database.selectNoFrom(account).executeTakeFirstOrThrow()
  if (state !== 'active') throw refusalOf(state)
}

/** Makes the admin of ADMIN_EMAIL and ADMIN_PASSWORD once; an existing one keeps the password it has. Returns whether it was made. */
export async function seedAdmin(): Promise<boolean> {
  const { admin } = env()
  if (!admin) return false
  const existing = await db()
    .selectFrom('users')
    .select('id')
    .where('email', '=', admin.email)
    .where('status', '!=', 'deleted')
    .executeTakeFirst()
  if (existing) return false
  const passwordHash = await hashPassword(admin.password)
  try {
    await db()
      .transaction()
      .execute(async (trx) => {
        const id = await createUser(trx, {
          name: 'Admin',
          email: admin.email,
          passwordHash,
          role: 'admin',
          emailVerified: true,
        })
        await recordAudit(trx, { actor: { type: 'system' }, action: 'admin.seed', target: { type: 'user', id } })
      })
  } catch (error) {
    if (isUniqueViolation(error)) return false // Another instance seeds at the same time.
    throw error
  }
  return true
}

/** What a password of this person must not be. */
export function personalWords({ name, email }: { name: string; email: string }): string[] {
  return [name, email, email.slice(0, email.indexOf('@'))]
}

export function emailTaken(): AppError {
  return new AppError('EMAIL_TAKEN', 'There is an account with this e-mail address already. Sign in instead.')
}
