// How the fork does over a time: users, money, and what tools and providers did, from the rows that every run leaves.
import { type Kysely, type RawBuilder, sql } from 'kysely'
import * as v from 'valibot'
import type { Database } from '../../db/schema.ts'
import { Instant, type Period } from '../billing/period.ts'
import { revenueOf } from '../billing/revenue.ts'

const DAY_MS = 86_400_000
const INTERVALS = { hour: { ms: 3_600_000, daysDefault: 2 }, day: { ms: DAY_MS, daysDefault: 30 } } as const
const DAYS_MAX = 92
const BUCKETS_MAX = 1_000

type Interval = keyof typeof INTERVALS

interface Question extends Period {
  interval: Interval
  tool: string | undefined
  provider: string | undefined
}

const Name = v.pipe(v.string(), v.minLength(1), v.maxLength(100))

/** `?from&to&interval=hour|day&tool&provider`: by default the last 30 days by day, or 2 days by hour; at most 92 days and 1,000 buckets. */
export const MetricsQuery = v.pipe(
  v.strictObject({
    from: v.optional(Instant),
    to: v.optional(Instant),
    interval: v.optional(v.picklist(['hour', 'day']), 'day'),
    tool: v.optional(Name),
    provider: v.optional(Name),
  }),
  v.rawTransform(({ dataset: { value }, addIssue, NEVER }): Question => {
    const { interval, tool, provider } = value
    const { ms, daysDefault } = INTERVALS[interval]
    const to = value.to ?? new Date()
    const from = value.from ?? new Date(to.getTime() - daysDefault * DAY_MS)
    const days = (to.getTime() - from.getTime()) / DAY_MS
    const daysMax = Math.min(DAYS_MAX, Math.floor(((BUCKETS_MAX - 1) * ms) / DAY_MS))
    if (days > 0 && days <= daysMax) return { from, to, interval, tool, provider }
    const message = days > 0 ? `At most ${daysMax} days at once by ${interval}.` : 'Must be before `to`.'
    addIssue({ message, path: [{ type: 'object', origin: 'value', input: value, key: 'from', value: value.from }] })
    return NEVER
  }),
)

/**
 * Users and money are those of the whole fork; usage, tools, providers and series are those of `tool` and `provider` where these are
 * given. Latencies are of what succeeded and was not answered from the cache. Rates are shares of what succeeded.
 */
export async function metricsOf(db: Kysely<Database>, question: Question) {
  const { from, to, interval } = question
  const [money, users, usage, calls] = await Promise.all([
    moneyOf(db, question),
    usersOf(db, question),
    usageOf(db, question),
    callsOf(db, question),
  ])
  return {
    from: from.toISOString(),
    to: to.toISOString(),
    interval,
    users,
    money,
    usage: usage.total,
    tools: usage.tools,
    providers: calls.providers,
    series: bucketsOf(question).map((at) => ({
      at: new Date(at).toISOString(),
      ...(usage.series.get(at) ?? NO_USAGE),
      calls: calls.series.get(at) ?? { total: 0, failed: 0 },
    })),
  }
}

async function moneyOf(db: Kysely<Database>, { from, to }: Period) {
  const { currency, grossCents, refundedCents, disputedCents, feesCents, netCents, aiCostUsd } = await revenueOf(db, {
    from,
    to,
  })
  return {
    currency,
    revenueCents: grossCents,
    refundedCents,
    disputedCents,
    feesCents,
    netCents,
    aiCostUsd,
    /** Net less the AI's cost; null where the two are in different currencies. */
    marginCents: currency === 'usd' ? netCents - Math.round(aiCostUsd * 100) : null,
  }
}

async function usersOf(db: Kysely<Database>, { from, to }: Period) {
  const { rows } = await sql<{ total: number; new: number; active: number }>`
    select count(*) filter (where deleted_at is null)::int as total,
        count(*) filter (where created_at >= ${from} and created_at < ${to})::int as new,
        (select count(*)::int from (
          select distinct user_id from usage_logs where timestamp >= ${from} and timestamp < ${to}) active) as active
      from users
  `.execute(db)
  return rows[0] ?? { total: 0, new: 0, active: 0 }
}

interface UsageRow {
  requests: number
  succeeded: number
  tokens: number
  micros: number
  fallbacks: number
  cached: number
}

const SUMS = sql`count(*)::int as requests, count(*) filter (where response_status = 'success')::int as succeeded,
  sum(tokens_used)::bigint as tokens, sum(cost_micro_usd)::bigint as micros,
  count(*) filter (where fallback)::int as fallbacks, count(*) filter (where cached)::int as cached`
const LATENCIES = sql`percentile_disc(0.5) within group (order by duration_ms) as p50,
  percentile_disc(0.95) within group (order by duration_ms) as p95`

/** One query after the other, as each reads all rows of the time: a report must not take the connections of those who work. */
async function usageOf(db: Kysely<Database>, question: Question) {
  const rows = rowsOf(question, 'timestamp')
  const finished = sql`${rows} and response_status = 'success' and not cached`
  const bucket = bucketSql(question.interval, 'timestamp')
  const sums = await sql<
    { at: Date } & UsageRow
  >`select ${bucket} as at, ${SUMS} from usage_logs where ${rows} group by 1`.execute(db)
  const byTool = await sql<{ tool: string; code: string | null } & UsageRow>`
    select t.name as tool, s.* from (
      select tool_id, error_code as code, ${SUMS} from usage_logs where ${rows} group by tool_id, error_code
    ) s join tools t on t.id = s.tool_id order by t.name`.execute(db)
  const active = await sql<{ at: Date; users: number }>`
    select at, count(*)::int as users from (select distinct ${bucket} as at, user_id from usage_logs where ${rows}) seen
      group by at`.execute(db)
  const latency = await sql<{ at: Date } & Latency>`
    select ${bucket} as at, ${LATENCIES} from usage_logs where ${finished} group by 1`.execute(db)
  const activeByTool = await sql<{ tool: string | null; users: number }>`
    with seen as materialized (select distinct tool_id, user_id from usage_logs where ${rows})
    select t.name as tool, s.users from (
      select tool_id, count(distinct user_id)::int as users from seen group by grouping sets ((), (tool_id))
    ) s left join tools t on t.id = s.tool_id`.execute(db)
  const latencyByTool = await sql<{ tool: string | null } & Latency>`
    select t.name as tool, s.p50, s.p95 from (
      select tool_id, ${LATENCIES} from usage_logs where ${finished} group by grouping sets ((), (tool_id))
    ) s left join tools t on t.id = s.tool_id`.execute(db)

  const summaryOf = (tool: string | null, of: (typeof byTool.rows)[number][]) => ({
    ...totalOf(of),
    activeUsers: activeByTool.rows.find((row) => row.tool === tool)?.users ?? 0,
    latencyMs: latencyOf(latencyByTool.rows.find((row) => row.tool === tool)),
    errors: countsBy(of.map(({ code, requests, succeeded }) => [code ?? 'UNKNOWN', requests - succeeded])),
  })
  const tools = [...new Set(byTool.rows.map(({ tool }) => tool))]
  const at = (time: Date) => time.getTime()
  return {
    total: summaryOf(null, byTool.rows),
    tools: tools.map((tool) => ({
      tool,
      ...summaryOf(
        tool,
        byTool.rows.filter((row) => row.tool === tool),
      ),
    })),
    series: new Map(
      sums.rows.map((row) => [
        at(row.at),
        {
          ...totalOf([row]),
          activeUsers: active.rows.find((one) => at(one.at) === at(row.at))?.users ?? 0,
          latencyMs: latencyOf(latency.rows.find((one) => at(one.at) === at(row.at))),
        },
      ]),
    ),
  }
}

async function callsOf(db: Kysely<Database>, question: Question) {
  const rows = rowsOf(question, 'at')
  const sums = await sql<{
    bucket: Date | null
    provider: string | null
    outcome: string
    calls: number
    micros: number
  }>`
    select ${bucketSql(question.interval, 'at')} as bucket, provider, outcome, count(*)::int as calls,
        sum(cost_micro_usd)::bigint as micros
      from provider_calls where ${rows} group by grouping sets ((1, outcome), (provider, outcome)) order by provider
  `.execute(db)
  const latency = await sql<{ provider: string } & Latency>`
    select provider, ${LATENCIES} from provider_calls where ${rows} and outcome = 'ok' group by provider`.execute(db)
  const providers = new Set(sums.rows.map(({ provider }) => provider).filter((id) => id !== null))
  const series = new Map<number, { total: number; failed: number }>()
  for (const { bucket, outcome, calls } of sums.rows) {
    if (bucket === null) continue
    const { total, failed } = series.get(bucket.getTime()) ?? { total: 0, failed: 0 }
    series.set(bucket.getTime(), { total: total + calls, failed: failed + (isFailure(outcome) ? calls : 0) })
  }
  return {
    series,
    providers: [...providers].map((provider) => {
      const own = sums.rows.filter((row) => row.provider === provider)
      const count = (which: (outcome: string) => boolean) =>
        own.reduce((sum, { outcome, calls }) => sum + (which(outcome) ? calls : 0), 0)
      return {
        provider,
        calls: count(() => true),
        succeeded: count((outcome) => outcome === 'ok'),
        failed: count(isFailure),
        costUsd: usd(own.reduce((sum, { micros }) => sum + micros, 0)),
        latencyMs: latencyOf(latency.rows.find((row) => row.provider === provider)),
        errors: countsBy(own.map(({ outcome, calls }) => [outcome, isFailure(outcome) ? calls : 0])),
      }
    }),
  }
}

/** A call that was called off, because another provider answered first, did not fail. */
function isFailure(outcome: string): boolean {
  return outcome !== 'ok' && outcome !== 'cancelled'
}

interface Latency {
  p50: number | null
  p95: number | null
}

function latencyOf(row: Latency | undefined): Latency {
  return { p50: row?.p50 ?? null, p95: row?.p95 ?? null }
}

function totalOf(rows: UsageRow[]) {
  const sum = (of: (row: UsageRow) => number) => rows.reduce((total, row) => total + of(row), 0)
  const [requests, succeeded] = [sum((row) => row.requests), sum((row) => row.succeeded)]
  const share = (part: number) => (succeeded > 0 ? part / succeeded : null)
  return {
    requests,
    succeeded,
    failed: requests - succeeded,
    tokens: sum((row) => row.tokens),
    costUsd: usd(sum((row) => row.micros)),
    fallbackRate: share(sum((row) => row.fallbacks)),
    cacheHits: sum((row) => row.cached),
  }
}

const NO_USAGE = { ...totalOf([]), activeUsers: 0, latencyMs: latencyOf(undefined) }

function countsBy(pairs: [name: string, count: number][]): Record<string, number> {
  const counts = new Map<string, number>()
  for (const [name, count] of pairs) if (count > 0) counts.set(name, (counts.get(name) ?? 0) + count)
  return Object.fromEntries(counts)
}

function usd(micros: number): number {
  return micros / 1_000_000
}

/** The rows a question is about, in usage_logs or provider_calls. */
function rowsOf({ from, to, tool, provider }: Question, time: 'timestamp' | 'at'): RawBuilder<unknown> {
  const ofTool = tool === undefined ? sql`` : sql`and tool_id = (select id from tools where name = ${tool})`
  const ofProvider = provider === undefined ? sql`` : sql`and provider = ${provider}`
  return sql`${sql.ref(time)} >= ${from} and ${sql.ref(time)} < ${to} ${ofTool} ${ofProvider}`
}

/** Not date_trunc, which takes twice as long where the zone is named. */
function bucketSql(interval: Interval, time: 'timestamp' | 'at'): RawBuilder<unknown> {
  return sql`date_bin(${sql.lit(`1 ${interval}`)}, ${sql.ref(time)}, '2000-01-01Z')`
}

/** The beginning of every bucket, those without rows too. */
function bucketsOf({ from, to, interval }: Question): number[] {
  const { ms } = INTERVALS[interval]
  const first = Math.floor(from.getTime() / ms) * ms
  return Array.from({ length: Math.ceil((to.getTime() - first) / ms) }, (_, index) => first + index * ms)
}
