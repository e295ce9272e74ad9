// Sessions of local sign-in: a family of refresh tokens, rotated on each use, revoked whole when an old one comes back.
import { createHash, createHmac, randomBytes, randomUUID } from 'node:crypto'
import { type Kysely, type RawBuilder, sql, type Transaction } from 'kysely'
import type { Database } from '../../db/schema.ts'
import { recordAudit } from '../audit.ts'
import { AppError } from '../http/errors.ts'
import { keyFor } from './secret.ts'

const IDLE = '7 days'
const ABSOLUTE = '30 days'
/** Parallel tabs and retries after a lost reply get the same successor for this long. */
const GRACE = '30 seconds'

/** Where a request came from, for the list of sessions and the audit log. */
export interface Origin {
  ip: string
  userAgent: string | null
}

export interface Session {
  userId: string
  sessionId: string
  refreshToken: string
}

export type RequestOrigin = Origin & { requestId: string }

type RevocationReason = Exclude<Database['refresh_tokens']['revoked_reason'], 'rotated' | null>

/** Begins a session: a fresh family with its first refresh token. `mfa` says that a second factor was shown. */
export async function beginSession(
  db: Kysely<Database>,
  userId: string,
  { ip, userAgent }: Origin,
  { mfa = false } = {},
): Promise<Session> {
  const refreshToken = `rt_${randomBytes(32).toString('base64url')}`
  const sessionId = randomUUID()
  await db
    .insertInto('refresh_tokens')
    .values({
      user_id: userId,
      family_id: sessionId,
      token_hash: hashToken(refreshToken),
      expires_at: sql`now() + ${IDLE}::interval`,
      absolute_expires_at: sql`now() + ${ABSOLUTE}::interval`,
      mfa,
      ip,
      user_agent: userAgent?.slice(0, 255) ?? null,
    })
    .execute()
  return { userId, sessionId, refreshToken }
}

/**
 * Exchanges a refresh token for its successor, which is derived from it: whoever repeats the exchange within the grace
 * gets the same one, so the chain never forks. A token that comes back later revokes its family, audited. Throws UNAUTHENTICATED.
 */
export async function rotateSession(
  db: Kysely<Database>,
  presented: string,
  origin: Origin & { requestId?: string },
): Promise<(Session & { reused: false }) | { userId: string; sessionId: string; reused: true }> {
  const { ip, userAgent } = origin
  const successor = successorOf(presented)
  const childId = randomUUID()
  const { rows } = await sql<{ user_id: string; family_id: string }>`
    with won as (
      update refresh_tokens
        set revoked = true, revoked_at = now(), revoked_reason = 'rotated', replaced_by = ${childId}
        where token_hash = ${hashToken(presented)} and not revoked and expires_at > now() and absolute_expires_at > now()
        returning user_id, family_id, absolute_expires_at, mfa
    )
    insert into refresh_tokens (id, user_id, family_id, token_hash, expires_at, absolute_expires_at, mfa, ip, user_agent)
      select ${childId}, user_id, family_id, ${hashToken(successor)}, least(now() + ${IDLE}::interval, absolute_expires_at),
        absolute_expires_at, mfa, ${ip}, ${userAgent?.slice(0, 255) ?? null}
      from won
      returning user_id, family_id
  `.execute(db)
  const [won] = rows
  if (won) return { userId: won.user_id, sessionId: won.family_id, refreshToken: successor, reused: false }
  return await repeatRotation(db, presented, successor, origin)
}

/** The exchange was made before, or the token is worth nothing. */
async function repeatRotation(
  db: Kysely<Database>,
  presented: string,
  successor: string,
  origin: Origin & { requestId?: string },
) {
  const token = await db
    .selectFrom('refresh_tokens as token')
    .leftJoin('refresh_tokens as child', 'child.id', 'token.replaced_by')
    .select(['token.user_id', 'token.family_id', 'token.revoked', 'token.revoked_reason'])
    .select(sql<boolean>`token.revoked_at > now() - ${GRACE}::interval and not child.revoked`.as('repeatable'))
    .where('token.token_hash', '=', hashToken(presented))
    .executeTakeFirst()
  if (!token) throw new AppError('UNAUTHENTICATED', 'This refresh token is not valid.')
  if (!token.revoked) throw new AppError('TOKEN_EXPIRED', 'This session has expired. Sign in again.')
  if (token.revoked_reason !== 'rotated')
    throw new AppError('UNAUTHENTICATED', 'This session has ended. Sign in again.')
  const session = { userId: token.user_id, sessionId: token.family_id }
  if (token.repeatable) return { ...session, refreshToken: successor, reused: false as const }
  await db.transaction().execute(async (trx) => {
    await revokeSession(trx, token.user_id, token.family_id, 'reuse')
    await recordSession(trx, 'session.reuse', session, origin)
  })
  return { ...session, reused: true as const }
}

/** Ends a session of the user; false when there was none alive. */
export async function revokeSession(
  db: Kysely<Database>,
  userId: string,
  sessionId: string,
  reason: RevocationReason,
): Promise<boolean> {
  return await revoke(db, userId, reason, sql<boolean>`family_id = ${sessionId}`)
}

/** Ends a session as its owner wishes, audited; false when it was not alive. */
export async function endSession(
  db: Kysely<Database>,
  session: { userId: string; sessionId: string },
  reason: 'logout' | 'session',
  origin: RequestOrigin,
): Promise<boolean> {
  return await db.transaction().execute(async (trx) => {
    const ended = await revokeSession(trx, session.userId, session.sessionId, reason)
    if (ended) await recordSession(trx, 'session.end', session, origin)
    return ended
  })
}

/** Takes note that a second factor was shown in a session. */
export async function markSession(trx: Transaction<Database>, userId: string, sessionId: string): Promise<void> {
  await trx
    .updateTable('refresh_tokens')
    .set({ mfa: true })
    .where('user_id', '=', userId)
    .where('family_id', '=', sessionId)
    .execute()
}

/** The second factor is gone, and no session counts as one that showed it. */
export async function unmarkSessions(trx: Transaction<Database>, userId: string): Promise<void> {
  await trx
    .updateTable('refresh_tokens')
    .set({ mfa: false })
    .where('user_id', '=', userId)
    .where('mfa', '=', true)
    .execute()
}

/** Ends all of a user's sessions, but the one that is kept. */
export async function revokeOtherSessions(
  db: Kysely<Database>,
  userId: string,
  keptSessionId: string | null,
  reason: RevocationReason,
): Promise<void> {
  await revoke(db, userId, reason, sql<boolean>`family_id is distinct from ${keptSessionId}::uuid`)
}

/** The session a refresh token belongs to, whatever its state. */
export async function sessionOf(
  db: Kysely<Database>,
  refreshToken: string,
): Promise<{ userId: string; sessionId: string } | undefined> {
  const row = await db
    .selectFrom('refresh_tokens')
    .select(['user_id', 'family_id'])
    .where('token_hash', '=', hashToken(refreshToken))
    .executeTakeFirst()
  return row && { userId: row.user_id, sessionId: row.family_id }
}

/** The user's living sessions, newest use first. */
export async function listSessions(db: Kysely<Database>, userId: string) {
  return await db
    .selectFrom('refresh_tokens as token')
    .select(['token.family_id', 'token.created_at as last_used_at', 'token.ip', 'token.user_agent', 'token.expires_at'])
    .select((query) =>
      query
        .selectFrom('refresh_tokens as first')
        .select((first) => first.fn.min('first.created_at').as('began'))
        .whereRef('first.family_id', '=', 'token.family_id')
        .as('created_at'),
    )
    .where('token.user_id', '=', userId)
    .where('token.revoked', '=', false)
    .where('token.expires_at', '>', sql<Date>`now()`)
    .orderBy('token.created_at', 'desc')
    .limit(100)
    .execute()
}

/**
 * Revokes until a look finds nothing alive: an update that has to wait for a rotation passes over the token revoked there
 * and never sees its successor. Returns whether anything was alive.
 */
async function revoke(
  db: Kysely<Database>,
  userId: string,
  reason: RevocationReason,
  which: RawBuilder<boolean>,
): Promise<boolean> {
  let found = false
  for (;;) {
    const { numUpdatedRows } = await db
      .updateTable('refresh_tokens')
      .set({ revoked: true, revoked_at: sql`now()`, revoked_reason: reason })
      .where('user_id', '=', userId)
      .where('revoked', '=', false)
      .where(which)
      .executeTakeFirst()
    found ||= numUpdatedRows > 0n
    const alive = await db
      .selectFrom('refresh_tokens')
      .select('id')
      .where('user_id', '=', userId)
      .where('revoked', '=', false)
      .where(which)
      .limit(1)
      .executeTakeFirst()
    if (!alive) return found
  }
}

async function recordSession(
  trx: Transaction<Database>,
  action: 'session.end' | 'session.reuse',
  { userId, sessionId }: { userId: string; sessionId: string },
  origin: Origin & { requestId?: string },
): Promise<void> {
  const actor = { type: 'user', id: userId } as const
  await recordAudit(trx, { actor, action, target: { type: 'session', id: sessionId }, ...origin })
}

function successorOf(token: string): string {
  return `rt_${createHmac('sha256', keyFor('refresh-token')).update(token).digest('base64url')}`
}

function hashToken(token: string): string {
  return createHash('sha256').update(token).digest('hex')
}
