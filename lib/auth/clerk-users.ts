// The users behind Clerk's ids: made on their first call, and followed from then on.
import { sql } from 'kysely'
import { db } from '../../db/client.ts'
import { env } from '../env.ts'
import { refusalOf } from './account-state.ts'
import type { Caller, Spender } from './caller.ts'
import { type ClerkProof, type ClerkUser, fetchClerkUser } from './clerk.ts'
import { followClerkUser, isTombstoned } from './clerk-sync.ts'

const KNOWN_MAX = 10_000

/** Clerk's id → ours, which never changes; the oldest is forgotten first. */
const known = new Map<string, string>()

/**
 * The caller behind a token, made if this is their first call: one query from then on. Throws ACCOUNT_SUSPENDED, UNAUTHENTICATED,
 * and PROVIDER_UNAVAILABLE when Clerk does not say who is calling for the first time.
 */
export async function callerOfClerk(proof: ClerkProof, ip: string): Promise<Caller> {
  const user = (await findUser(proof.clerkId)) ?? (await firstCall(proof, ip))
  if (user?.state !== 'active') throw refusalOf(user?.state ?? 'unknown_user')
  return { ...spenderOf(user.id, proof), role: user.role, mfa: proof.mfa }
}

/** The same for routes whose reservation checks the account: no query at all once the id is known. */
export async function spenderOfClerk(proof: ClerkProof, ip: string): Promise<Spender> {
  const { clerkId } = proof
  const userId = known.get(clerkId)
  if (userId !== undefined) return spenderOf(userId, proof)
  const { role: _, mfa: __, ...spender } = await callerOfClerk(proof, ip)
  const [oldest = ''] = known.keys()
  if (known.size >= KNOWN_MAX) known.delete(oldest)
  known.set(clerkId, spender.userId)
  return spender
}

function spenderOf(userId: string, { impersonator }: ClerkProof): Spender {
  return { userId, sessionId: undefined, key: undefined, impersonator }
}

async function findUser(clerkId: string) {
  return await db()
    .selectFrom('users')
    .select(['id', 'role', sql<string>`account_state(id, null)`.as('state')])
    .where('clerk_id', '=', clerkId)
    .executeTakeFirst()
}

async function firstCall(proof: ClerkProof, ip: string) {
  const { clerkId, impersonator } = proof
  if (await isTombstoned(db(), clerkId)) return undefined
  const user = env().clerk.secretKey === undefined ? userOfClaims(proof) : await fetchClerkUser(clerkId)
  // A token outlives its user by up to a minute.
  if (!user) return undefined
  // Whoever acts in the user's name is not where the user is.
  const signUpIp = impersonator === undefined ? ip : undefined
  await followClerkUser(user, { type: 'user', ip, impersonator, signUpIp })
  return await findUser(clerkId)
}

/** As much as the token says: older than anything Clerk will tell of the user. */
function userOfClaims({ clerkId, name, email, emailVerified }: ClerkProof): ClerkUser {
  return { id: clerkId, name, email, emailVerified, banned: false, updatedAt: 0 }
}
