// Signing in to an account of local sign-in: password, second factor, and the account that was to be deleted.
import { sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { recordAudit } from '../audit.ts'
import { AppError } from '../http/errors.ts'
import { refusalOf } from './account-state.ts'
import { restoreAccount } from './lifecycle.ts'
import { countCodeTry, forgetCodeTries, hasFactor, spendCode } from './mfa.ts'
import { verifyPassword } from './passwords.ts'
import { beginSession, type RequestOrigin, type Session } from './sessions.ts'
import { countTry, forgetFailures } from './throttle.ts'

export interface Credentials {
  email: string
  password: string
  /** Of the authenticator app, or a recovery code. */
  code?: string | undefined
}

interface Entrant {
  id: string
  passwordHash: string | null
  suspended: boolean
  hasFactor: boolean
}

/**
 * Signs in. Wrong password, unknown e-mail and wrong code give one answer, the first two in one time; guessing is slowed down.
 * Throws UNAUTHENTICATED, MFA_REQUIRED to who has the password, ACCOUNT_SUSPENDED, RATE_LIMITED.
 */
export async function signIn(credentials: Credentials, origin: RequestOrigin): Promise<Session> {
  return await enter(credentials, origin, 'living')
}

/** Gives a deleted account back within its grace, and signs in to it; it is asked what signing in asks. Throws CONFLICT besides. */
export async function restore(credentials: Credentials, origin: RequestOrigin): Promise<Session> {
  return await enter(credentials, origin, 'deleted')
}

async function enter(
  { email, password, code }: Credentials,
  origin: RequestOrigin,
  which: 'living' | 'deleted',
): Promise<Session> {
  await countTry(db(), email)
  const entrant = await entrantOf(email, which)
  if (!(await verifyPassword(password, entrant?.passwordHash ?? undefined)) || !entrant) throw wrongCredentials()
  if (entrant.suspended || (entrant.hasFactor && code === undefined)) {
    await forgetFailures(db(), email)
    throw entrant.suspended ? refusalOf('suspended') : mfaRequired()
  }
  if (entrant.hasFactor) await countCodeTry(entrant.id)
  return await db()
    .transaction()
    .execute(async (trx) => {
      const actor = { actor: { type: 'user' as const, id: entrant.id }, ...origin }
      if (which === 'deleted') await restoreAccount(trx, entrant.id, actor)
      await requireUnchanged(trx, entrant)
      const mfa = await requireSecondFactor(trx, entrant.id, code)
      await forgetFailures(trx, email)
      const session = await beginSession(trx, entrant.id, origin, { mfa })
      const target = { type: 'session', id: session.sessionId }
      await recordAudit(trx, { ...actor, action: 'session.begin', target, details: { mfa } })
      return session
    })
}

async function entrantOf(email: string, which: 'living' | 'deleted'): Promise<Entrant | undefined> {
  return await db()
    .selectFrom('users')
    .select([
      'id',
      'password_hash as passwordHash',
      sql<boolean>`status = 'suspended'`.as('suspended'),
      sql<boolean>`exists (
        select 1 from mfa_factors f where f.user_id = users.id and f.confirmed_at is not null
      )`.as('hasFactor'),
    ])
    .where('email', '=', email)
    .where((is) =>
      which === 'living'
        ? is('status', '!=', 'deleted')
        : is.and([is('status', '=', 'deleted'), is('purged_at', 'is', null), is('purge_after', '>', sql<Date>`now()`)]),
    )
    .orderBy('deleted_at', 'desc')
    .limit(1)
    .executeTakeFirst()
}

/**
 * Checking the password takes long enough for it to be changed meanwhile, or for the account to be suspended: a session may
 * only begin if neither happened. Whoever does either later waits for this transaction, and then finds the session to end.
 */
async function requireUnchanged(trx: Transaction<Database>, { id, passwordHash }: Entrant): Promise<void> {
  const now = await trx
    .selectFrom('users')
    .select(['status', 'password_hash'])
    .where('id', '=', id)
    .forShare()
    .executeTakeFirstOrThrow()
  if (now.status === 'suspended') throw refusalOf('suspended')
  if (now.status !== 'active' || now.password_hash !== passwordHash) throw wrongCredentials()
}

/** Whether a second factor was shown; where the user has none, none is asked for. */
async function requireSecondFactor(
  trx: Transaction<Database>,
  userId: string,
  code: string | undefined,
): Promise<boolean> {
  if (!(await hasFactor(trx, userId))) return false
  if (code === undefined) throw mfaRequired()
  if (!(await spendCode(trx, userId, code))) throw wrongCredentials()
  await forgetCodeTries(trx, userId)
  return true
}

function wrongCredentials(): AppError {
  return new AppError('UNAUTHENTICATED', 'The e-mail address or the password is wrong.')
}

function mfaRequired(): AppError {
  return new AppError('MFA_REQUIRED', 'Send the code of your authenticator app, or a recovery code, as "code".', {
    details: { methods: ['totp', 'recovery_code'] },
  })
}
