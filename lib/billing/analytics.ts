// What a user's calls and purchases come to in a time: in all, by day of UTC, by tool and by provider.
import { type Kysely, sql } from 'kysely'
import type { Database } from '../../db/schema.ts'
import { config } from '../config.ts'
import type { Period } from './period.ts'
import { sumTakings, type Takings } from './takings.ts'

const GROUPS_MAX = 100

interface UsageSums {
  calls: number
  succeeded: number
  failed: number
  tokens: number
  /** Free generations that were used up. */
  trials: number
}

/** In the currency of the configuration, before tax; `boughtTokens` is what orders gave, whatever was refunded later. */
interface SpendingSums {
  boughtTokens: number
  spentCents: number
  refundedCents: number
}

interface Analytics {
  from: string
  to: string
  currency: string
  total: UsageSums & SpendingSums
  /** The days that have any, the newest first. */
  byDay: ({ day: string } & UsageSums & SpendingSums)[]
  /** The most called first; at most 100. */
  byTool: ({ tool: string } & UsageSums)[]
  /** `provider` is null for calls that none took. */
  byProvider: ({ provider: string | null } & UsageSums)[]
  /** Purchases in other currencies, each by itself: amounts of two currencies are never added. */
  otherCurrencies: ({ currency: string } & SpendingSums)[]
}

/** The user's own numbers, in two statements. */
export async function analyse(db: Kysely<Database>, filter: Period & { userId: string }): Promise<Analytics> {
  const { currency } = config().payments
  const [usage, takings] = await Promise.all([sumUsage(db, filter), sumTakings(db, filter)])
  const ours = takings.filter((row) => row.currency === currency)
  const days = new Set([...usage, ...ours].map(({ day }) => day).filter((day) => day !== null))
  return {
    from: filter.from.toISOString(),
    to: filter.to.toISOString(),
    currency,
    total: {
      ...usageSums(usage.find(({ grouping }) => grouping === 'total')),
      ...spendingSums(ours.find(({ day }) => day === null)),
    },
    byDay: [...days]
      .sort()
      .reverse()
      .map((day) => ({
        day,
        ...usageSums(usage.find((row) => row.day === day)),
        ...spendingSums(ours.find((row) => row.day === day)),
      })),
    byTool: usage
      .flatMap((row) => (row.tool === null ? [] : [{ tool: row.tool, ...usageSums(row) }]))
      .slice(0, GROUPS_MAX),
    byProvider: usage
      .filter(({ grouping }) => grouping === 'provider')
      .map((row) => ({ provider: row.provider, ...usageSums(row) }))
      .slice(0, GROUPS_MAX),
    otherCurrencies: takings
      .filter((row) => row.day === null && row.currency !== currency)
      .map((row) => ({ currency: row.currency, ...spendingSums(row) })),
  }
}

type UsageRow = UsageSums & {
  grouping: 'total' | 'day' | 'tool' | 'provider'
  day: string | null
  tool: string | null
  provider: string | null
}

async function sumUsage(db: Kysely<Database>, { userId, from, to }: Period & { userId: string }): Promise<UsageRow[]> {
  const { rows } = await sql<UsageRow>`
    with call as (
      select u.*, t.name as tool, to_char(u.timestamp at time zone 'utc', 'YYYY-MM-DD') as day
        from usage_logs u join tools t on t.id = u.tool_id
        where u.user_id = ${userId} and u.timestamp >= ${from} and u.timestamp < ${to}
    )
    select case grouping(day, tool, provider) when 3 then 'day' when 5 then 'tool' when 6 then 'provider' else 'total' end
          as grouping,
        day, tool, provider, count(*)::int as calls,
        (count(*) filter (where response_status = 'success'))::int as succeeded,
        (count(*) filter (where response_status <> 'success'))::int as failed,
        coalesce(sum(tokens_used), 0)::bigint as tokens,
        (count(*) filter (where trial and response_status = 'success'))::int as trials
      from call group by grouping sets ((), (day), (tool), (provider)) order by calls desc, tool, provider
  `.execute(db)
  return rows
}

function usageSums(row: UsageRow | undefined): UsageSums {
  const { calls = 0, succeeded = 0, failed = 0, tokens = 0, trials = 0 } = row ?? {}
  return { calls, succeeded, failed, tokens, trials }
}

function spendingSums(row: Takings | undefined): SpendingSums {
  const { boughtTokens = 0, grossCents: spentCents = 0, refundedCents = 0 } = row ?? {}
  return { boughtTokens, spentCents, refundedCents }
}
