// API keys: made once, kept as hashes, looked up together with their owner's account, replaced without a gap.
import { type Kysely, sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database, Scope, UserStatus } from '../../db/schema.ts'
import { type Actor, recordAudit } from '../audit.ts'
import { config } from '../config.ts'
import { invalidField } from '../http/body.ts'
import { AppError } from '../http/errors.ts'
import { isAfter, microsOf, type Page, type Position, pageOf, positionOf } from '../paging.ts'
import { refusalOf } from './account-state.ts'
import type { Caller } from './caller.ts'
import { hashOfKey, isWellFormed, newKey } from './key-format.ts'

export const SCOPES = ['generate', 'read'] as const satisfies readonly Scope[]
const YEARS_MAX = 10

const ALIVE = sql<boolean>`(active and (expires_at is null or expires_at > now()))`
const SHOWN = [
  'id',
  'name',
  'key_prefix',
  'scopes',
  'expires_at',
  'token_budget',
  'tokens_used',
  'requests_per_minute',
  'created_at',
  'last_used_at',
  'revoked_at',
  'rotated_to',
  ALIVE.as('alive'),
] as const

/** What the owner says of a new key. */
export interface KeyTerms {
  name: string
  scopes: readonly Scope[]
  expiresAt?: Date | undefined
  /** Tokens that may be spent through the key, ever; its trial generations are not counted. */
  tokenBudget?: number | undefined
  requestsPerMinute?: number | undefined
}

/** Whether a credential has the form of a key, good or bad; a token of a session never has. */
export function looksLikeKey(credential: string): boolean {
  return /^[a-z][a-z0-9]{1,9}_[0-9A-Za-z]{8}_/.test(credential)
}

/** Who a key speaks for: its owner as a user, never as an admin. Throws UNAUTHENTICATED, ACCOUNT_SUSPENDED, FEATURE_DISABLED. */
export async function callerOfKey(key: string): Promise<Caller> {
  requireKeysOn()
  const found = isWellFormed(key) ? await keyInUse(hashOfKey(key)) : undefined
  if (!found || found.status === 'deleted') throw new AppError('UNAUTHENTICATED', 'This API key is not valid.')
  if (found.status === 'suspended') throw refusalOf('suspended')
  if (!found.active) throw ended('revoked', 'This API key was revoked.')
  if (found.expired) throw ended('expired', 'This API key has expired.')
  const { id, scopes, requests_per_minute } = found
  return {
    userId: found.user_id,
    sessionId: undefined,
    key: { id, scopes, requestsPerMinute: requests_per_minute ?? undefined },
    impersonator: undefined,
    role: 'user',
    mfa: false,
  }
}

/** Throws FEATURE_DISABLED: where the feature is off, there are no keys, and those there were do nothing. */
export function requireKeysOn(): void {
  if (config().features.apiKeys) return
  throw new AppError('FEATURE_DISABLED', 'API keys are switched off.', {
    details: { reason: 'features.apiKeys is false.' },
  })
}

/** Makes a key; the answer is the only place it is ever seen in. Throws CONFLICT when the user has as many as one may have. */
export async function createKey(
  trx: Transaction<Database>,
  userId: string,
  terms: KeyTerms,
  by: Actor,
): Promise<ShownKey & { key: string }> {
  const now = await lockOwner(trx, userId)
  if (terms.expiresAt) requireExpiry(terms.expiresAt, now)
  await requireRoom(trx, userId)
  const made = await insertKey(trx, userId, terms)
  const { scopes, expiresAt, tokenBudget, requestsPerMinute } = made
  await recordAudit(trx, {
    ...by,
    action: 'api_key.create',
    target: { type: 'api_key', id: made.id },
    details: { scopes, expiresAt, tokenBudget, requestsPerMinute },
  })
  return made
}

/** The user's keys, living and ended, the newest first. */
export async function listKeys(
  database: Kysely<Database>,
  { userId, limit, cursor }: { userId: string; limit: number; cursor: Position | undefined },
): Promise<Page<ShownKey>> {
  let keys = shownKeys(database)
    .select(microsOf(sql.ref('created_at')).as('micros'))
    .where('user_id', '=', userId)
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(limit + 1)
  if (cursor) keys = keys.where(isAfter(cursor, sql.ref('created_at'), sql.ref('id')))
  return pageOf(await keys.execute(), limit, { position: positionOf, show: showKey })
}

/** Ends a key of the user's at once; ending it again changes nothing. Throws NOT_FOUND. */
export async function revokeKey(trx: Transaction<Database>, userId: string, id: string, by: Actor): Promise<void> {
  const revoked = await trx
    .updateTable('api_keys')
    .set({ active: false, revoked_at: sql<Date>`now()`, revoked_reason: 'revoked' })
    .where('id', '=', id)
    .where('user_id', '=', userId)
    .where('active', '=', true)
    .returning('scopes')
    .executeTakeFirst()
  if (revoked) {
    const { scopes } = revoked
    await recordAudit(trx, {
      ...by,
      action: 'api_key.revoke',
      target: { type: 'api_key', id },
      details: { scopes },
    })
    return
  }
  await requireKey(trx, userId, id)
}

/**
 * Replaces a key by one on the same terms, which has what is left of the budget; the old one lives on for `overlapSeconds`, but not
 * beyond its own end, and spends from the same rest. Throws NOT_FOUND, or CONFLICT when the key has ended or was replaced before.
 */
export async function rotateKey(
  trx: Transaction<Database>,
  { userId, id, overlapSeconds }: { userId: string; id: string; overlapSeconds: number },
  by: Actor,
): Promise<ShownKey & { key: string }> {
  await lockOwner(trx, userId)
  // Budgets are only ever moved under the lock of the account.
  await sql`select 1 from ledger_account where user_id = ${userId} for no key update`.execute(trx)
  const old = await requireKey(trx, userId, id)
  if (!old.alive) throw new AppError('CONFLICT', 'This API key has ended. Make a new one.')
  if (old.rotated_to !== null) throw new AppError('CONFLICT', 'This API key was replaced before.')
  if (overlapSeconds > 0) await requireRoom(trx, userId)
  const made = await insertKey(trx, userId, {
    name: old.name,
    scopes: old.scopes,
    expiresAt: old.expires_at ?? undefined,
    tokenBudget: old.token_budget === null ? undefined : old.token_budget - old.tokens_used,
    requestsPerMinute: old.requests_per_minute ?? undefined,
  })
  await trx
    .updateTable('api_keys')
    .set({
      rotated_to: made.id,
      expires_at: sql<Date>`least(expires_at, now() + make_interval(secs => ${overlapSeconds}))`,
      token_budget: sql<number | null>`case when token_budget is null then null else tokens_used end`,
    })
    .where('id', '=', id)
    .execute()
  await recordAudit(trx, {
    ...by,
    action: 'api_key.rotate',
    target: { type: 'api_key', id },
    details: { successorId: made.id, overlapSeconds, scopes: made.scopes, tokenBudget: made.tokenBudget },
  })
  return made
}

type ShownKey = ReturnType<typeof showKey>
type KeyRow = Awaited<ReturnType<ReturnType<typeof shownKeys>['executeTakeFirstOrThrow']>>

function shownKeys(database: Kysely<Database>) {
  return database.selectFrom('api_keys').select(SHOWN)
}

function showKey(row: KeyRow) {
  return {
    id: row.id,
    name: row.name,
    keyPrefix: row.key_prefix,
    scopes: row.scopes,
    expiresAt: row.expires_at,
    tokenBudget: row.token_budget,
    tokensUsed: row.tokens_used,
    requestsPerMinute: row.requests_per_minute,
    active: row.alive,
    createdAt: row.created_at,
    lastUsedAt: row.last_used_at,
    revokedAt: row.revoked_at,
    rotatedTo: row.rotated_to,
  }
}

interface FoundKey {
  id: string
  user_id: string
  scopes: Scope[]
  requests_per_minute: number | null
  active: boolean
  expired: boolean
  status: UserStatus
}

/** The key and its owner's account in one statement, which also notes the use; not more than once a minute, and never waiting for it. */
async function keyInUse(hash: string): Promise<FoundKey | undefined> {
  const { rows } = await sql<FoundKey>`
    with touched as (
      update api_keys set last_used_at = now() where id = (
        select k.id from api_keys k join users u on u.id = k.user_id
          where k.key_hash = ${hash} and k.active and (k.expires_at is null or k.expires_at > now()) and u.status = 'active'
            and (k.last_used_at is null or k.last_used_at <= now() - interval '1 minute')
          for no key update of k skip locked
      )
    )
    select k.id, k.user_id, k.scopes, k.requests_per_minute, k.active, coalesce(k.expires_at <= now(), false) as expired, u.status
      from api_keys k join users u on u.id = k.user_id where k.key_hash = ${hash}
  `.execute(db())
  return rows[0]
}

function ended(reason: 'revoked' | 'expired', message: string): AppError {
  return new AppError('UNAUTHENTICATED', message, { details: { reason } })
}

/** One change of a user's keys at a time, and none of an account that may not act. Returns the database's time. */
async function lockOwner(trx: Transaction<Database>, userId: string): Promise<Date> {
  const owner = await trx
    .selectFrom('users')
    .select(['status', sql<Date>`now()`.as('now')])
    .where('id', '=', userId)
    .forNoKeyUpdate()
    .executeTakeFirst()
  if (owner?.status === 'active') return owner.now
  throw refusalOf(owner?.status === 'suspended' ? 'suspended' : 'unknown_user')
}

function requireExpiry(expiresAt: Date, now: Date): void {
  if (expiresAt <= now) throw invalidField('expiresAt', 'Must be in the future.')
  const latest = new Date(now)
  latest.setUTCFullYear(latest.getUTCFullYear() + YEARS_MAX)
  if (expiresAt > latest) throw invalidField('expiresAt', `Must be within ${YEARS_MAX} years.`)
}

async function requireRoom(trx: Transaction<Database>, userId: string): Promise<void> {
  const { perUserMax } = config().apiKeys
  const { living } = await trx
    .selectFrom('api_keys')
    .select(sql<number>`count(*)`.as('living'))
    .where('user_id', '=', userId)
    .where(ALIVE)
    .executeTakeFirstOrThrow()
  if (living >= perUserMax) {
    throw new AppError('CONFLICT', `There are ${living} API keys; ${perUserMax} is the most. Revoke one first.`, {
      details: { perUserMax },
    })
  }
}

async function insertKey(trx: Transaction<Database>, userId: string, terms: KeyTerms) {
  const { key, keyPrefix, hash } = newKey(config().apiKeys.tag)
  const row = await trx
    .insertInto('api_keys')
    .values({
      user_id: userId,
      key_hash: hash,
      key_prefix: keyPrefix,
      name: terms.name,
      scopes: [...terms.scopes],
      expires_at: terms.expiresAt ?? null,
      token_budget: terms.tokenBudget ?? null,
      requests_per_minute: terms.requestsPerMinute ?? null,
    })
    .returning(SHOWN)
    .executeTakeFirstOrThrow()
  return { ...showKey(row), key }
}

async function requireKey(trx: Transaction<Database>, userId: string, id: string) {
  const key = await trx
    .selectFrom('api_keys')
    .selectAll()
    .select(ALIVE.as('alive'))
    .where('id', '=', id)
    .where('user_id', '=', userId)
    .executeTakeFirst()
  if (key) return key
  throw new AppError('NOT_FOUND', 'There is no such API key.')
}
