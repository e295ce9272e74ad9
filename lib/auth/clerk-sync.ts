// What Clerk says of a user, followed in our own tables: each step once, whatever comes twice, late or in the wrong order.
import { sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database, Role, UserStatus } from '../../db/schema.ts'
import { type Actor, recordAudit } from '../audit.ts'
import { log } from '../log.ts'
import type { ClerkUser } from './clerk.ts'
import { deleteAccount, endAccess, shutOutRegistrant } from './lifecycle.ts'
import { addressProven, createUser } from './new-user.ts'

/** Who brings the news: a webhook, or the user by calling. */
export interface Messenger extends Omit<Actor, 'actor'> {
  type: 'webhook' | 'user'
  /** Where the person signs up from, as clientIp gives it, when that is known. */
  signUpIp?: string | undefined
}

/** gone: the id was deleted, at Clerk or here, and stays so. stale: we know this state, or a newer one. */
type Effect = 'made' | 'linked' | 'changed' | 'stale' | 'gone'

interface KnownUser {
  id: string
  name: string
  email: string
  status: UserStatus
  email_verified_at: Date | string | null
  clerk_pending: string | null
  clerk_updated_at: number | null
}

const NAME_LENGTH_MAX = 100
const TRIES_MAX = 3
/** Unique violation and deadlock: whoever came first is there when we look again. */
const AGAIN = ['23505', '40P01']

/**
 * Makes the user's row, links the local account that has their proven address, or brings the row up to date. An address that
 * another account holds is not taken from it; until it is free the user has the one they had, or a placeholder.
 */
export async function followClerkUser(user: ClerkUser, messenger: Messenger): Promise<Effect> {
  return await oneByOne(user.id, async (trx) => {
    if (await isTombstoned(trx, user.id)) return 'gone'
    const known = await trx
      .selectFrom('users')
      .select(['id', 'name', 'email', 'status', 'email_verified_at', 'clerk_pending', 'clerk_updated_at'])
      .where('clerk_id', '=', user.id)
      .forNoKeyUpdate()
      .executeTakeFirst()
    if (!known) return await welcome(trx, user, messenger)
    if (known.status === 'deleted') return 'gone'
    if (user.updatedAt <= (known.clerk_updated_at ?? -1)) return 'stale'
    await follow(trx, known, user, messenger)
    return 'changed'
  })
}

/** Deletes the account of a user whom Clerk deleted; the id never comes back, whether or not there was an account. */
export async function followClerkDeletion(clerkId: string, messenger: Messenger): Promise<Effect> {
  return await oneByOne(clerkId, async (trx) => {
    await trx
      .insertInto('clerk_tombstones')
      .values({ clerk_id: clerkId })
      .onConflict((on) => on.doNothing())
      .execute()
    const known = await trx
      .selectFrom('users')
      .select(['id', 'role', 'status'])
      .where('clerk_id', '=', clerkId)
      .forNoKeyUpdate()
      .executeTakeFirst()
    if (!known) return 'gone'
    if (known.role === 'admin' && known.status !== 'deleted') await takeRole(trx, known.id, messenger)
    const isNews = await deleteAccount(trx, known.id, actorOf(messenger, known.id))
    // Clerk knows already, and nobody is left there to restore the account for.
    await trx.updateTable('users').set({ clerk_pending: null }).where('id', '=', known.id).execute()
    return isNews ? 'changed' : 'gone'
  })
}

/** Outside the rule that one administrator has to be left: who is none any more cannot count as one. */
async function takeRole(trx: Transaction<Database>, id: string, messenger: Messenger): Promise<void> {
  await trx.updateTable('users').set({ role: 'user' }).where('id', '=', id).execute()
  await recordAudit(trx, {
    ...actorOf(messenger, id),
    action: 'user.role',
    target: { type: 'user', id },
    before: { role: 'admin' },
    after: { role: 'user' },
  })
}

/** Whether this id was deleted and may not come back. */
export async function isTombstoned(database: Pick<Transaction<Database>, 'selectFrom'>, clerkId: string) {
  const row = await database
    .selectFrom('clerk_tombstones')
    .select('clerk_id')
    .where('clerk_id', '=', clerkId)
    .executeTakeFirst()
  return row !== undefined
}

/** Runs `work` in a transaction that no other one about the same id overlaps. */
async function oneByOne<T>(clerkId: string, work: (trx: Transaction<Database>) => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await db()
        .transaction()
        .execute(async (trx) => {
          await sql`select pg_advisory_xact_lock(hashtextextended(${`clerk:${clerkId}`}, 0))`.execute(trx)
          return await work(trx)
        })
    } catch (error) {
      if (tries === TRIES_MAX || !isTransient(error)) throw error
    }
  }
}

function isTransient(error: unknown): boolean {
  return error instanceof Error && 'code' in error && AGAIN.some((code) => code === error.code)
}

/** The first that is heard of a user. */
async function welcome(trx: Transaction<Database>, user: ClerkUser, messenger: Messenger): Promise<Effect> {
  const holder = user.email === undefined ? undefined : await holderOf(trx, user.email, user.emailVerified)
  if (holder && holder.clerk_id === null && user.emailVerified) {
    await link(trx, holder, user, messenger)
    await followBan(trx, holder, user, messenger)
    return 'linked'
  }
  if (holder) log('warn', 'clerk_address_taken', { user: user.id })
  const email = holder ? undefined : user.email
  const id = await createUser(trx, {
    name: nameFrom(user.name) ?? nameFrom(user.email?.split('@', 1)[0]) ?? 'User',
    email: email ?? placeholderOf(user.id),
    emailVerified: email !== undefined && user.emailVerified,
    role: 'user',
    clerk: { id: user.id, updatedAt: user.updatedAt },
    ip: messenger.signUpIp,
  })
  await recordAudit(trx, { ...actorOf(messenger, id), action: 'user.register', target: { type: 'user', id } })
  await followBan(trx, { id, status: 'active', clerk_pending: null }, user, messenger)
  return 'made'
}

/**
 * Gives a local account to the user of Clerk who has proven its address. Nobody had proven it before? Then somebody else may
 * have registered it, and everything that would let them in goes.
 */
async function link(
  trx: Transaction<Database>,
  account: { id: string; role: Role; email_verified_at: Date | string | null },
  user: ClerkUser,
  messenger: Messenger,
): Promise<void> {
  const { id } = account
  const wasProven = account.email_verified_at !== null
  await trx
    .updateTable('users')
    .set({ clerk_id: user.id, clerk_updated_at: user.updatedAt, ...(!wasProven && { password_hash: null }) })
    .where('id', '=', id)
    .execute()
  await recordAudit(trx, {
    ...actorOf(messenger, id),
    action: 'user.link',
    target: { type: 'user', id },
    details: { provider: 'clerk', accessEnded: !wasProven },
  })
  if (wasProven) return
  if (account.role === 'admin') await takeRole(trx, id, messenger)
  await shutOutRegistrant(trx, id)
  await addressProven(trx, id)
}

async function follow(trx: Transaction<Database>, known: KnownUser, user: ClerkUser, messenger: Messenger) {
  const name = nameFrom(user.name) ?? known.name
  await trx.updateTable('users').set({ clerk_updated_at: user.updatedAt, name }).where('id', '=', known.id).execute()
  if (name !== known.name) {
    await recordAudit(trx, {
      ...actorOf(messenger, known.id),
      action: 'user.profile',
      target: { type: 'user', id: known.id },
      details: { provider: 'clerk', fields: ['name'] },
    })
  }
  await followAddress(trx, known, user, messenger)
  await followBan(trx, known, user, messenger)
}

async function followAddress(trx: Transaction<Database>, known: KnownUser, user: ClerkUser, messenger: Messenger) {
  const { email, emailVerified } = user
  const isProven = known.email_verified_at !== null
  // An address that nobody has proven is worth less than one that was.
  if (email === undefined || (isProven && (email === known.email || !emailVerified))) return
  if (email !== known.email) {
    const holder = await holderOf(trx, email, emailVerified)
    if (holder) return log('warn', 'clerk_address_taken', { user: user.id })
    await trx.updateTable('users').set({ email, email_verified_at: null }).where('id', '=', known.id).execute()
    await recordAudit(trx, {
      ...actorOf(messenger, known.id),
      action: 'user.email',
      target: { type: 'user', id: known.id },
      details: { provider: 'clerk', verified: emailVerified },
    })
  }
  if (emailVerified) await addressProven(trx, known.id)
}

/**
 * Banned at Clerk is suspended here. Let in again at Clerk, the account is active again if it was Clerk that had it suspended;
 * what an administrator decided here stands, and wins over Clerk while Clerk has yet to be told.
 */
async function followBan(
  trx: Transaction<Database>,
  known: Pick<KnownUser, 'id' | 'status' | 'clerk_pending'>,
  { banned }: ClerkUser,
  messenger: Messenger,
): Promise<void> {
  const { id, status, clerk_pending } = known
  if (clerk_pending !== null || banned === (status === 'suspended')) return
  if (!banned && !(await wasSuspendedByClerk(trx, id))) return
  const after = banned ? 'suspended' : 'active'
  await trx.updateTable('users').set({ status: after }).where('id', '=', id).execute()
  if (banned) await endAccess(trx, id, 'suspended')
  await recordAudit(trx, {
    ...actorOf({ ...messenger, type: 'webhook' }, id),
    action: banned ? 'user.suspend' : 'user.reactivate',
    target: { type: 'user', id },
    before: { status },
    after: { status: after },
    details: { provider: 'clerk' },
  })
}

async function wasSuspendedByClerk(trx: Transaction<Database>, userId: string): Promise<boolean> {
  const last = await trx
    .selectFrom('audit_log')
    .select('actor_type')
    .where('target_type', '=', 'user')
    .where('target_id', '=', userId)
    .where('action', '=', 'user.suspend')
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirst()
  return last?.actor_type === 'webhook'
}

/** The account that has the address. Whoever has only claimed it at Clerk loses it to the one who has proven it. */
async function holderOf(trx: Transaction<Database>, email: string, isProven: boolean) {
  const holder = await trx
    .selectFrom('users')
    .select(['id', 'role', 'status', 'clerk_id', 'clerk_pending', 'email_verified_at'])
    .where('email', '=', email)
    .where('status', '!=', 'deleted')
    .forNoKeyUpdate()
    .executeTakeFirst()
  if (!isProven || !holder || holder.clerk_id === null || holder.email_verified_at !== null) return holder
  await trx
    .updateTable('users')
    .set({ email: placeholderOf(holder.clerk_id) })
    .where('id', '=', holder.id)
    .execute()
  await recordAudit(trx, {
    actor: { type: 'system' },
    action: 'user.email',
    target: { type: 'user', id: holder.id },
    details: { provider: 'clerk', claimedByOwner: true },
  })
  return undefined
}

function actorOf({ type, signUpIp: _, ...from }: Messenger, userId: string): Actor {
  return { ...from, actor: type === 'user' ? { type, id: userId } : { type } }
}

/** What stands in for an address that is not known: it can receive nothing, and belongs to nobody. */
function placeholderOf(clerkId: string): string {
  return `${clerkId}@users.clerk.invalid`.toLowerCase()
}

/** A name as our column takes it, or undefined when nothing is left of it. */
function nameFrom(text = ''): string | undefined {
  const clean = text.replaceAll(/[\p{Cc}\p{Cs}]/gu, ' ').trim()
  return [...clean].slice(0, NAME_LENGTH_MAX).join('').trim() || undefined
}
