// The second factor of local sign-in: an authenticator app, and recovery codes for the day it is lost.
import { createHash, randomBytes } from 'node:crypto'
import { type Kysely, sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database, Role } from '../../db/schema.ts'
import { type Actor, recordAudit } from '../audit.ts'
import { config } from '../config.ts'
import { AppError } from '../http/errors.ts'
import { open, type Place, seal } from '../vault.ts'
import { confirmPassword } from './confirm.ts'
import { markSession, unmarkSessions } from './sessions.ts'
import { countTry, forgetFailures } from './throttle.ts'
import { newTotp, stepOf } from './totp.ts'

const RECOVERY_CODES = 10
const RECOVERY_BYTES = 10
/** Without i, l, o and u, which are read as something else. */
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

interface Owner {
  userId: string
  role: Role
}

/** Whether the user has a second factor, how many recovery codes are left, and whether they need one. */
export async function mfaOf({ userId, role }: Owner) {
  const { count } = await db()
    .selectFrom('mfa_recovery_codes')
    .select((query) => query.fn.countAll<number>().as('count'))
    .where('user_id', '=', userId)
    .where('used_at', 'is', null)
    .executeTakeFirstOrThrow()
  return { enabled: await hasFactor(db(), userId), recoveryCodesLeft: Number(count), required: isRequired(role) }
}

/** Makes a secret that counts once a code of it was shown; an earlier one that never was is replaced. Throws CONFLICT, FEATURE_DISABLED. */
export async function enrol(userId: string, by: Actor): Promise<{ secret: string; otpauthUrl: string }> {
  const { email } = await db().selectFrom('users').select('email').where('id', '=', userId).executeTakeFirstOrThrow()
  const made = await newTotp({ issuer: config().brand.name, label: email })
  const secret = seal(made.secret, placeOf(userId))
  await db()
    .transaction()
    .execute(async (trx) => {
      const kept = await trx
        .insertInto('mfa_factors')
        .values({ user_id: userId, secret })
        .onConflict((conflict) =>
          conflict
            .column('user_id')
            .doUpdateSet({ secret, last_step: 0, created_at: sql`now()` })
            .where('mfa_factors.confirmed_at', 'is', null),
        )
        .returning('user_id')
        .executeTakeFirst()
      if (!kept) throw new AppError('CONFLICT', 'There is a second factor already. Disable it first.')
      await recordAudit(trx, { ...by, action: 'mfa.enroll', target: { type: 'user', id: userId } })
    })
  return made
}

/** Puts the enrolled factor in force with its first code, and gives the recovery codes, which are shown once. Throws CONFLICT, FORBIDDEN. */
export async function confirmFactor(
  { userId, sessionId }: { userId: string; sessionId: string | undefined },
  code: string,
  by: Actor,
): Promise<string[]> {
  await countCodeTry(userId)
  return await db()
    .transaction()
    .execute(async (trx) => {
      const factor = await factorOf(trx, userId)
      if (!factor) throw new AppError('CONFLICT', 'There is no second factor to confirm. Enroll one first.')
      if (factor.confirmed) throw new AppError('CONFLICT', 'The second factor is confirmed already.')
      const step = await stepOf(open(factor.secret, placeOf(userId)), code, factor.now)
      if (step === undefined) throw wrongCode()
      await trx
        .updateTable('mfa_factors')
        .set({ confirmed_at: sql`now()`, last_step: step })
        .where('user_id', '=', userId)
        .execute()
      if (sessionId !== undefined) await markSession(trx, userId, sessionId)
      await forgetCodeTries(trx, userId)
      await recordAudit(trx, { ...by, action: 'mfa.enable', target: { type: 'user', id: userId } })
      return await replaceRecoveryCodes(trx, userId)
    })
}

/** Replaces every recovery code, used or not. Throws CONFLICT, FORBIDDEN. */
export async function renewRecoveryCodes(userId: string, code: string, by: Actor): Promise<string[]> {
  await countCodeTry(userId)
  return await db()
    .transaction()
    .execute(async (trx) => {
      await requireCode(trx, userId, code)
      await recordAudit(trx, { ...by, action: 'mfa.recovery_codes', target: { type: 'user', id: userId } })
      return await replaceRecoveryCodes(trx, userId)
    })
}

/** Takes the second factor away. Throws CONFLICT where there is none or it has to be, FORBIDDEN. */
export async function disableMfa(
  { userId, role }: Owner,
  { password, code }: { password: string; code: string },
  by: Actor,
): Promise<void> {
  if (isRequired(role)) throw new AppError('CONFLICT', 'Administrators need a second factor.')
  await confirmPassword(userId, password)
  await countCodeTry(userId)
  await db()
    .transaction()
    .execute(async (trx) => {
      await requireCode(trx, userId, code)
      await trx.deleteFrom('mfa_recovery_codes').where('user_id', '=', userId).execute()
      await trx.deleteFrom('mfa_factors').where('user_id', '=', userId).execute()
      await unmarkSessions(trx, userId)
      await recordAudit(trx, { ...by, action: 'mfa.disable', target: { type: 'user', id: userId } })
    })
}

/** Whether a confirmed second factor is in force. */
export async function hasFactor(database: Kysely<Database>, userId: string): Promise<boolean> {
  const factor = await database
    .selectFrom('mfa_factors')
    .select('user_id')
    .where('user_id', '=', userId)
    .where('confirmed_at', 'is not', null)
    .executeTakeFirst()
  return factor !== undefined
}

/** Counts a try of a code, by user: a right password must not make more of them possible. Throws RATE_LIMITED. */
export async function countCodeTry(userId: string): Promise<void> {
  await countTry(db(), codesOf(userId))
}

export async function forgetCodeTries(database: Kysely<Database>, userId: string): Promise<void> {
  await forgetFailures(database, codesOf(userId))
}

/** Uses up a code of the app or a recovery code; false when it is worth nothing, or was used before. In a race one gets it. */
export async function spendCode(trx: Transaction<Database>, userId: string, code: string): Promise<boolean> {
  if (!/^\d{6}$/.test(code)) return await spendRecoveryCode(trx, userId, code)
  const factor = await factorOf(trx, userId)
  if (!factor?.confirmed) return false
  const step = await stepOf(open(factor.secret, placeOf(userId)), code, factor.now)
  if (step === undefined) return false
  const { numUpdatedRows } = await trx
    .updateTable('mfa_factors')
    .set({ last_step: step })
    .where('user_id', '=', userId)
    .where('secret', '=', factor.secret)
    .where('last_step', '<', step)
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

async function spendRecoveryCode(trx: Transaction<Database>, userId: string, code: string): Promise<boolean> {
  const { numUpdatedRows } = await trx
    .updateTable('mfa_recovery_codes')
    .set({ used_at: sql`now()` })
    .where('user_id', '=', userId)
    .where('code_hash', '=', hashCode(userId, code))
    .where('used_at', 'is', null)
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

async function requireCode(trx: Transaction<Database>, userId: string, code: string): Promise<void> {
  if (!(await hasFactor(trx, userId))) throw new AppError('CONFLICT', 'There is no second factor.')
  if (!(await spendCode(trx, userId, code))) throw wrongCode()
  await forgetCodeTries(trx, userId)
}

/** The factor as it stands, locked, and the time by the clock that all instances share. */
async function factorOf(trx: Transaction<Database>, userId: string) {
  return await trx
    .selectFrom('mfa_factors')
    .select(['secret', sql<boolean>`confirmed_at is not null`.as('confirmed'), sql<Date>`now()`.as('now')])
    .where('user_id', '=', userId)
    .forNoKeyUpdate()
    .executeTakeFirst()
}

async function replaceRecoveryCodes(trx: Transaction<Database>, userId: string): Promise<string[]> {
  const codes = Array.from({ length: RECOVERY_CODES }, newRecoveryCode)
  await trx.deleteFrom('mfa_recovery_codes').where('user_id', '=', userId).execute()
  await trx
    .insertInto('mfa_recovery_codes')
    .values(codes.map((code) => ({ user_id: userId, code_hash: hashCode(userId, code) })))
    .execute()
  return codes
}

/** 80 random bits as four groups of four: enough that a plain hash keeps them. */
function newRecoveryCode(): string {
  const bits = [...randomBytes(RECOVERY_BYTES)].map((byte) => byte.toString(2).padStart(8, '0')).join('')
  const letters = bits.replaceAll(/.{5}/g, (five) => ALPHABET.charAt(Number.parseInt(five, 2)))
  return letters.replaceAll(/.{4}(?=.)/g, '$&-')
}

/** However it was typed: letters in either case, dashes or spaces, and what looks like a digit. */
function hashCode(userId: string, code: string): string {
  const plain = code.toLowerCase().replaceAll(/[\s-]/g, '').replaceAll('o', '0').replaceAll(/[il]/g, '1')
  return createHash('sha256').update(`${userId}:${plain}`).digest('hex')
}

function isRequired(role: Role): boolean {
  return role === 'admin' && config().auth.mfaForAdmins
}

function codesOf(userId: string): string {
  return `mfa:${userId}`
}

function placeOf(userId: string): Place {
  return { table: 'mfa_factors', row: userId, column: 'secret' }
}

function wrongCode(): AppError {
  return new AppError('FORBIDDEN', 'The code is wrong, or it was used before.')
}
