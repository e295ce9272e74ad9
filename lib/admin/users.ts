// Users as an administrator finds them: a list to search, and everything about one.
import { type Kysely, sql } from 'kysely'
import * as v from 'valibot'
import type { Database } from '../../db/schema.ts'
import { listOrders } from '../billing/operator.ts'
import { AppError } from '../http/errors.ts'
import { statementOf } from '../ledger/ledger.ts'
import { Cursor, isAfter, microsOf, type Page, PageLimit, pageOf, positionOf } from '../paging.ts'
import { riskOf } from './risk.ts'

const RECENT_ORDERS = 10
const KEYS_MAX = 100
const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i

export const UsersQuery = v.strictObject({
  /** Part of the e-mail address or the name, or a whole id. */
  query: v.optional(v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(255))),
  status: v.optional(v.picklist(['active', 'suspended', 'deleted'])),
  role: v.optional(v.picklist(['user', 'admin'])),
  plan: v.optional(v.picklist(['free', 'pro', 'enterprise'])),
  limit: PageLimit,
  cursor: v.optional(
    v.pipe(
      Cursor,
      v.check(({ id }) => UUID.test(id), 'Not a cursor of ours.'),
    ),
  ),
})

/** Every user, the newest first. */
export async function listUsers(
  db: Kysely<Database>,
  { query, status, role, plan, limit, cursor }: v.InferOutput<typeof UsersQuery>,
): Promise<Page<ListedUser>> {
  let users = usersWithPlan(db)
    .select(microsOf(sql.ref('users.created_at')).as('micros'))
    .orderBy('users.created_at', 'desc')
    .orderBy('users.id', 'desc')
    .limit(limit + 1)
  if (query !== undefined) users = users.where(matches(query))
  if (status !== undefined) users = users.where('users.status', '=', status)
  if (role !== undefined) users = users.where('users.role', '=', role)
  if (plan !== undefined) users = users.where('subscription.plan', '=', plan)
  if (cursor) users = users.where(isAfter(cursor, sql.ref('users.created_at'), sql.ref('users.id')))
  return pageOf(await users.execute(), limit, { position: positionOf, show: showUser })
}

/** One user: profile, account, usage, keys, sessions, orders, and what speaks against them. Throws NOT_FOUND. */
export async function userDetails(db: Kysely<Database>, userId: string) {
  const user = await usersWithPlan(db)
    .leftJoin('plan_gifts as gift', 'gift.user_id', 'users.id')
    .select(['users.preferences', 'users.clerk_id', 'users.email_verified_at', 'users.deleted_at'])
    .select(['users.purge_after', 'users.purged_at', 'gift.plan as gift_plan'])
    .select(
      sql<number>`(select count(distinct family_id) from refresh_tokens t where t.user_id = users.id
      and not t.revoked and t.expires_at > now())`.as('sessions'),
    )
    .where('users.id', '=', userId)
    .executeTakeFirst()
  if (!user) throw new AppError('NOT_FOUND', 'There is no such user.')
  const account = await statementOf(db, userId)
  const orders = await listOrders(db, { user: userId, limit: RECENT_ORDERS })
  return {
    ...showUser(user),
    plan: account.plan,
    planGift: user.gift_plan,
    preferences: user.preferences,
    clerkId: user.clerk_id,
    emailVerifiedAt: user.email_verified_at,
    deletedAt: user.deleted_at,
    purgeAfter: user.purge_after,
    purgedAt: user.purged_at,
    account,
    balance: account.balance,
    usage: await usageOf(db, userId),
    sessions: user.sessions,
    keys: await keysOf(db, userId),
    orders: orders.data,
    risk: { signals: await riskOf(db, userId) },
  }
}

/** The text stands in the address or the name as it is: it has no wildcards. */
function matches(query: string) {
  const pattern = `%${query.replaceAll(/[\\%_]/g, '\\$&')}%`
  const isId = UUID.test(query) ? sql`or users.id = ${query}` : sql``
  return sql<boolean>`(users.email ilike ${pattern} or users.name ilike ${pattern} ${isId})`
}

function usersWithPlan(db: Kysely<Database>) {
  return db
    .selectFrom('users')
    .innerJoin('subscriptions as subscription', 'subscription.user_id', 'users.id')
    .select(['users.id', 'users.name', 'users.email', 'users.role', 'users.status', 'users.created_at'])
    .select('subscription.plan')
    .select(sql<number>`(select tokens from ledger_balance(users.id))`.as('tokens'))
    .select(
      sql<Date | null>`greatest(
        (select max(t.created_at) from refresh_tokens t where t.user_id = users.id),
        (select max(k.last_used_at) from api_keys k where k.user_id = users.id),
        (select max(u.timestamp) from usage_logs u where u.user_id = users.id))`.as('last_seen_at'),
    )
}

type UserRow = Awaited<ReturnType<ReturnType<typeof usersWithPlan>['executeTakeFirstOrThrow']>>
type ListedUser = ReturnType<typeof showUser>

function showUser(user: UserRow) {
  return {
    id: user.id,
    name: user.name,
    email: user.email,
    role: user.role,
    status: user.status,
    plan: user.plan as string,
    tokens: user.tokens,
    createdAt: user.created_at,
    lastSeenAt: user.last_seen_at,
  }
}

/** What was used, in all and in the last 30 days. */
async function usageOf(db: Kysely<Database>, userId: string) {
  const recent = sql`filter (where timestamp > now() - interval '30 days')`
  const { rows } = await sql<{
    calls: number
    succeeded: number
    tokens: number
    calls_30d: number
    tokens_30d: number
  }>`
    select count(*) as calls, count(*) filter (where response_status = 'success') as succeeded,
        coalesce(sum(tokens_used), 0)::bigint as tokens, count(*) ${recent} as calls_30d,
        coalesce(sum(tokens_used) ${recent}, 0)::bigint as tokens_30d
      from usage_logs where user_id = ${userId}
  `.execute(db)
  const [sums] = rows
  if (!sums) throw new Error('The sum of usage is missing.')
  const { calls, succeeded, tokens } = sums
  return { total: { calls, succeeded, tokens }, last30Days: { calls: sums.calls_30d, tokens: sums.tokens_30d } }
}

async function keysOf(db: Kysely<Database>, userId: string) {
  const keys = await db
    .selectFrom('api_keys')
    .select([
      'id',
      'name',
      'key_prefix',
      'active',
      'scopes',
      'created_at',
      'last_used_at',
      'expires_at',
      'revoked_reason',
    ])
    .where('user_id', '=', userId)
    .orderBy('created_at', 'desc')
    .orderBy('id')
    .limit(KEYS_MAX)
    .execute()
  return keys.map((key) => ({
    id: key.id,
    name: key.name,
    keyPrefix: key.key_prefix,
    active: key.active,
    scopes: key.scopes,
    createdAt: key.created_at,
    lastUsedAt: key.last_used_at,
    expiresAt: key.expires_at,
    revokedReason: key.revoked_reason,
  }))
}
