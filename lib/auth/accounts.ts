// Accounts of local sign-in: register, sign in, change the password, and the seeded admin.
import { createHmac } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { recordAudit } from '../audit.ts'
import { env } from '../env.ts'
import { AppError } from '../http/errors.ts'
import { openAccount } from '../ledger/ledger.ts'
import { refusalOf } from './account-state.ts'
import { hashPassword, requireGoodPassword, verifyPassword } from './passwords.ts'
import { keyFor } from './secret.ts'
import { beginSession, type Origin, revokeOtherSessions, type Session } from './sessions.ts'
import { countTry, forgetFailures } from './throttle.ts'

export type RequestOrigin = Origin & { requestId: string }

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
        const userId = await createUser(trx, { ...person, passwordHash, role: 'user' })
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

/** Signs in. Wrong password and unknown e-mail give one answer in one time; guessing is slowed down. */
export async function signIn(
  { email, password }: { email: string; password: string },
  origin: RequestOrigin,
): Promise<Session> {
  await countTry(db(), email)
  const user = await db()
    .selectFrom('users')
    .select(['id', 'password_hash'])
    .where('email', '=', email)
    .where('status', '!=', 'deleted')
    .executeTakeFirst()
  if (!(await verifyPassword(password, user?.password_hash)) || !user) {
    throw new AppError('UNAUTHENTICATED', 'The e-mail address or the password is wrong.')
  }
  await forgetFailures(db(), email)
  await requireActive(db(), user.id)
  return await beginSession(db(), user.id, origin)
}

/** Changes the password and ends every other session. Throws FORBIDDEN when the current one is wrong. */
export async function changePassword(
  { userId, sessionId }: { userId: string; sessionId: string },
  { currentPassword, newPassword }: { currentPassword: string; newPassword: string },
  origin: RequestOrigin,
): Promise<void> {
  const user = await db()
    .selectFrom('users')
    .select(['name', 'email', 'password_hash'])
    .where('id', '=', userId)
    .executeTakeFirstOrThrow()
  await countTry(db(), user.email)
  if (!(await verifyPassword(currentPassword, user.password_hash))) {
    throw new AppError('FORBIDDEN', 'The current password is wrong.')
  }
  await forgetFailures(db(), user.email)
  requireGoodPassword(newPassword, 'newPassword', personalWords(user))
  const passwordHash = await hashPassword(newPassword)
  await db()
    .transaction()
    .execute(async (trx) => {
      await trx.updateTable('users').set({ password_hash: passwordHash }).where('id', '=', userId).execute()
      await revokeOtherSessions(trx, userId, sessionId, 'password')
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
  const { rows } = await sql<{ state: string }>`select account_state(${userId}, null) as state`.execute(database)
  const state = rows[0]?.state ?? 'unknown_user'
  if (state !== 'active') throw refusalOf(state)
}

/** Makes the admin of ADMIN_EMAIL and ADMIN_PASSWORD once; an existing one keeps the password it has. Returns whether it was made. */
export async function seedAdmin(): Promise<boolean> {
  const { admin } = env()
  if (!admin) return false
  const existing = await db().selectFrom('users').select('id').where('email', '=', admin.email).executeTakeFirst()
  if (existing) return false
  const passwordHash = await hashPassword(admin.password)
  try {
    await db()
      .transaction()
      .execute(async (trx) => {
        const id = await createUser(trx, { name: 'Admin', email: admin.email, passwordHash, role: 'admin' })
        await recordAudit(trx, { actor: { type: 'system' }, action: 'admin.seed', target: { type: 'user', id } })
      })
  } catch (error) {
    if (isUniqueViolation(error)) return false // Another instance seeds at the same time.
    throw error
  }
  return true
}

async function createUser(
  trx: Kysely<Database>,
  user: { name: string; email: string; passwordHash: string; role: 'user' | 'admin' },
) {
  const { id } = await trx
    .insertInto('users')
    .values({ name: user.name, email: user.email, password_hash: user.passwordHash, role: user.role })
    .returning('id')
    .executeTakeFirstOrThrow()
  await openAccount(trx, id, personOf(user.email))
  return id
}

/** One person, whichever spelling of the address: a keyed hash, so that the ledger keeps no e-mail. */
function personOf(email: string): string {
  const [local = '', domain = ''] = email.toLowerCase().split('@')
  const withoutTag = local.split('+', 1)[0] ?? local
  const gmail = domain === 'gmail.com' || domain === 'googlemail.com'
  const normalised = gmail ? `${withoutTag.replaceAll('.', '')}@gmail.com` : `${withoutTag}@${domain}`
  return createHmac('sha256', keyFor('trial')).update(normalised).digest('base64url')
}

function personalWords({ name, email }: { name: string; email: string }): string[] {
  return [name, email, email.split('@')[0] ?? '']
}

function emailTaken(): AppError {
  return new AppError('EMAIL_TAKEN', 'There is an account with this e-mail address already. Sign in instead.')
}

function isUniqueViolation(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '23505'
}
