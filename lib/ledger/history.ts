// Read-only views of what was used: the caller's own calls, page by page and summed up.
import { type Kysely, sql } from 'kysely'
import type { Database } from '../../db/schema.ts'

const DAYS_MAX = 366

export interface UsageFilter {
  userId: string
  from: Date | undefined
  to: Date | undefined
  tool: string | undefined
}

/** The caller's calls, newest first, after the row with id `after`. Asks for one row more than `limit` to know if there are more. */
export async function listUsage(
  db: Kysely<Database>,
  filter: UsageFilter & { limit: number; after: string | undefined },
) {
  let query = usageOf(db, filter)
    .select([
      'usage_logs.id',
      'timestamp',
      'tools.name as tool',
      'tokens_used',
      'trial',
      'response_status',
      'duration_ms',
    ])
    .select(['provider', 'model', 'error_code', 'request_id', 'api_key_id'])
    .orderBy('timestamp', 'desc')
    .orderBy('usage_logs.id', 'desc')
    .limit(filter.limit + 1)
  if (filter.after !== undefined) {
    query = query.where(
      sql<boolean>`(usage_logs.timestamp, usage_logs.id) <
        (select last.timestamp, last.id from usage_logs last where last.id = ${filter.after} and last.user_id = ${filter.userId})`,
    )
  }
  return await query.execute()
}

/** Totals of the caller's calls: of all of them, and of the last 366 days (UTC) that have any. */
export async function summariseUsage(db: Kysely<Database>, filter: UsageFilter) {
  const [total, ...days] = await usageOf(db, filter)
    .select([
      sql<string>`to_char(timestamp at time zone 'utc', 'YYYY-MM-DD')`.as('day'),
      sql<number>`count(*)`.as('calls'),
      sql<number>`count(*) filter (where response_status = 'success')`.as('succeeded'),
      sql<number>`count(*) filter (where response_status = 'success' and trial)`.as('trials'),
      sql<number>`coalesce(sum(tokens_used), 0)::bigint`.as('tokens'),
    ])
    .groupBy(sql`grouping sets ((), (day))`)
    .orderBy(sql`day desc nulls first`)
    .limit(1 + DAYS_MAX)
    .execute()
  if (!total) throw new Error('The total of usage is missing.')
  const { day: _, ...sums } = total
  return { total: sums, days }
}

function usageOf(db: Kysely<Database>, { userId, from, to, tool }: UsageFilter) {
  let query = db
    .selectFrom('usage_logs')
    .innerJoin('tools', 'tools.id', 'usage_logs.tool_id')
    .where('user_id', '=', userId)
  if (from) query = query.where('timestamp', '>=', from)
  if (to) query = query.where('timestamp', '<', to)
  if (tool !== undefined) query = query.where('tools.name', '=', tool)
  return query
}
