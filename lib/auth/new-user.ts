// A new user and their account: the free plan, and the trial once per person.
import type { Transaction } from 'kysely'
import { sql } from 'kysely'
import type { Database, Role } from '../../db/schema.ts'
import { recordAudit } from '../audit.ts'
import { config } from '../config.ts'
import { giveTrial, openAccount } from '../ledger/ledger.ts'
import { networkHash, personOf, whyWithheld } from './trial.ts'

export interface NewUser {
  name: string
  /** In lower case. */
  email: string
  /** Whether somebody has shown that the address is theirs. */
  emailVerified?: boolean
  role: Role
  passwordHash?: string
  clerk?: { id: string; updatedAt: number }
  /** Where the person signs up from, when that is known. */
  ip?: string | undefined
}

/**
 * Makes a user with the free plan, and with the trial unless it is withheld; returns the id. An address that is verified and
 * in auth.admins makes an administrator. Throws the unique violation when the address is taken.
 */
export async function createUser(trx: Transaction<Database>, user: NewUser): Promise<string> {
  const { email, emailVerified = false, role } = user
  const network = networkHash(user.ip ?? 'unknown')
  const { id } = await trx
    .insertInto('users')
    .values({
      name: user.name,
      email,
      password_hash: user.passwordHash ?? null,
      role,
      clerk_id: user.clerk?.id ?? null,
      clerk_updated_at: user.clerk?.updatedAt ?? null,
      email_verified_at: emailVerified ? sql<Date>`now()` : null,
      signup_network: network,
    })
    .returning('id')
    .executeTakeFirstOrThrow()
  // After the insert: two that want one address wait there, before either of them holds what the other one needs.
  const withheld = await whyWithheld(trx, { email, emailVerified, network })
  if (withheld) await trx.updateTable('users').set({ trial_withheld: withheld }).where('id', '=', id).execute()
  await openAccount(trx, id, withheld ? undefined : personOf(email))
  if (emailVerified) await keepPromise(trx, { id, email, role })
  return id
}

/**
 * Takes note that the user's address was proven: gives the trial that waited for it, and the role that auth.admins promises.
 * Once or many times, also at the same time, comes to the same.
 */
export async function addressProven(trx: Transaction<Database>, userId: string): Promise<void> {
  const user = await trx
    .selectFrom('users')
    .select(['id', 'email', 'role', 'trial_withheld', 'signup_network'])
    .where('id', '=', userId)
    .where('status', '!=', 'deleted')
    .forNoKeyUpdate()
    .executeTakeFirst()
  if (!user) return
  const { email, trial_withheld: before, signup_network: network } = user
  const withheld = before === 'unverified' ? await whyWithheld(trx, { email, emailVerified: true, network }) : before
  await trx
    .updateTable('users')
    .set({ email_verified_at: sql<Date>`coalesce(email_verified_at, now())`, trial_withheld: withheld })
    .where('id', '=', userId)
    .execute()
  if (before !== null && withheld === null) await giveTrial(trx, userId, personOf(email))
  await keepPromise(trx, user)
}

/** Makes an administrator of who is named in auth.admins; the address is known to be theirs. */
async function keepPromise(trx: Transaction<Database>, { id, email, role }: { id: string; email: string; role: Role }) {
  if (role === 'admin' || !config().auth.admins.includes(email)) return
  await trx.updateTable('users').set({ role: 'admin' }).where('id', '=', id).execute()
  await recordAudit(trx, {
    actor: { type: 'system' },
    action: 'user.role',
    target: { type: 'user', id },
    before: { role },
    after: { role: 'admin' },
  })
}
