// People as Clerk knows them, for tests that call the library itself, and what became of them here.
import { vi } from 'vitest'
import { db } from '../../db/client.ts'
import type { ClerkProof, ClerkUser } from '../../lib/auth/clerk.ts'
import type { Messenger } from '../../lib/auth/clerk-sync.ts'
import { clerkIdOf } from './clerk-tokens.ts'

/** The bringer of news in most tests. */
export const WEBHOOK: Messenger = { type: 'webhook', requestId: 'msg_of_the_test' }

let people = 0

export function freshAddress(): string {
  people += 1
  return `person.${process.pid}.${people}.${Date.now()}@example.com`
}

/** Somebody with a proven address, whom nobody here has heard of. */
export function somebody(change: Partial<ClerkUser> = {}): ClerkUser {
  return {
    id: clerkIdOf('user'),
    name: 'Ada',
    email: freshAddress(),
    emailVerified: true,
    banned: false,
    updatedAt: 1_000,
    ...change,
  }
}

/** What a token without added claims proves. */
export function proofOf(clerkId: string, change: Partial<ClerkProof> = {}): ClerkProof {
  return {
    clerkId,
    impersonator: undefined,
    mfa: false,
    name: undefined,
    email: undefined,
    emailVerified: false,
    ...change,
  }
}

/** The address of whoever has none here. */
export const placeholderOf = (clerkId: string) => `${clerkId}@users.clerk.invalid`.toLowerCase()

export async function rowOf(clerkId: string) {
  return await db().selectFrom('users').selectAll().where('clerk_id', '=', clerkId).executeTakeFirstOrThrow()
}

export async function rowsOf(clerkId: string) {
  return await db().selectFrom('users').selectAll().where('clerk_id', '=', clerkId).execute()
}

/** What the audit log says of a user, oldest first. */
export async function auditOf(userId: string) {
  return await db()
    .selectFrom('audit_log')
    .select(['action', 'actor_type', 'actor_id', 'impersonator', 'request_id', 'ip', 'before', 'after', 'details'])
    .where('target_type', '=', 'user')
    .where('target_id', '=', userId)
    .orderBy('id')
    .execute()
}

export async function actionsOf(userId: string): Promise<string[]> {
  return (await auditOf(userId)).map(({ action }) => action)
}

/** Queries of the database while `work` runs. */
export async function queriesOf(work: () => Promise<unknown>): Promise<number> {
  const executed = vi.spyOn(db().getExecutor(), 'executeQuery')
  await work()
  const { length } = executed.mock.calls
  executed.mockRestore()
  return length
}
