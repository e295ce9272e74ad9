// How the stores and the providers are: for monitors in one word, for administrators in full.
import { sql } from 'kysely'
import { db } from '../../db/client.ts'
import { isMigrated } from '../../db/migrate.ts'
import { type BudgetState, budgetStates } from '../ai/budget.ts'
import { type CircuitState, circuitStates } from '../ai/circuit.ts'
import { usableProviders } from '../ai/router.ts'
import { config } from '../config.ts'
import { env } from '../env.ts'
import { kv } from '../kv.ts'
import { describeError } from '../log.ts'
import { switchedOff } from '../switches.ts'
import { qualitiesOf } from '../tools/catalogue.ts'

const CHECK_TIMEOUT_MS = 3_000

export interface Check {
  status: 'ok' | 'degraded' | 'down' | 'off'
  latencyMs?: number
  details?: unknown
}

export interface ProviderHealth {
  provider: string
  /** The tools that list it. */
  tools: string[]
  status: 'ok' | 'unavailable' | 'switched_off' | 'circuit_open'
  /** Why it is not asked: what is not set up, or what the operator wrote; null while it is. */
  reason: string | null
  circuit: CircuitState | null
}

/** The database, migrated or not. */
export async function databaseHealth(): Promise<Check> {
  return await timed(async () => {
    await sql`select 1`.execute(db())
    if (!(await isMigrated(db()))) return { status: 'down', details: 'Migrations are pending: npm run migrate -- up' }
    return { status: 'ok', details: env().databaseUrl ? 'PostgreSQL' : 'Embedded database' }
  })
}

export async function kvHealth(): Promise<Check> {
  return await timed(async () => {
    await kv().get('readiness')
    const details = env().kv ? 'Vercel KV' : 'In memory: right for a single instance only'
    return { status: 'ok', details }
  })
}

/** Every provider that some tool lists. */
export async function providersHealth(): Promise<ProviderHealth[]> {
  const listed = [...new Set(config().tools.flatMap(({ providers }) => providers))]
  const circuits = config().ai.circuitBreakers ? await circuitStates(listed) : new Map<string, CircuitState>()
  return await Promise.all(
    listed.map(async (provider) => {
      const tools = config().tools.filter(({ providers }) => providers.includes(provider))
      const circuit = circuits.get(provider) ?? null
      return { provider, tools: tools.map(({ name }) => name), ...(await standing(provider, tools, circuit)), circuit }
    }),
  )
}

async function standing(
  provider: string,
  tools: ReturnType<typeof config>['tools'],
  circuit: CircuitState | null,
): Promise<Pick<ProviderHealth, 'status' | 'reason'>> {
  const works = tools.flatMap((tool) => qualitiesOf(tool).map((quality) => ({ task: tool.does, quality })))
  const looks = works.map((work) => usableProviders([provider], { ...work, format: undefined }))
  if (looks.every(({ usable }) => usable.length === 0)) {
    return { status: 'unavailable', reason: looks[0]?.skipped[0]?.reason ?? null }
  }
  const off = await switchedOff(provider)
  if (off !== undefined) return { status: 'switched_off', reason: off }
  if (circuit?.state === 'open') return { status: 'circuit_open', reason: `It failed; next try ${circuit.openUntil}.` }
  return { status: 'ok', reason: null }
}

/** Down when nobody is left to ask; degraded when somebody who is set up is not asked. A provider without a key is neither. */
export function providersCheck(providers: ProviderHealth[]): Check {
  const usable = providers.filter(({ status }) => status === 'ok').map(({ provider }) => provider)
  const skipped = providers
    .filter(({ status }) => status !== 'ok')
    .map(({ provider, status, reason }) => ({ provider, status, reason }))
  const isLeftOut = skipped.some(({ status }) => status !== 'unavailable')
  return { status: usable.length === 0 ? 'down' : isLeftOut ? 'degraded' : 'ok', details: { usable, skipped } }
}

/** Everything that decides whether requests get their answers. */
export async function healthReport() {
  const [database, store, providers, budgets, off] = await Promise.all([
    databaseHealth(),
    kvHealth(),
    providersHealth(),
    budgetStates(),
    switchedOff('generate'),
  ])
  return {
    generate: { off: off !== undefined, reason: off ?? null },
    providers,
    budgets: budgets.map(inUsd),
    kv: store,
    database,
  }
}

function inUsd({ name, limitMicroUsd, spentMicroUsd, heldMicroUsd }: BudgetState) {
  return { name, limitUsd: limitMicroUsd / 1e6, spentUsd: spentMicroUsd / 1e6, heldUsd: heldMicroUsd / 1e6 }
}

async function timed(check: () => Promise<Check>): Promise<Check> {
  const startedAt = performance.now()
  const { promise: timeout, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(`No answer within ${CHECK_TIMEOUT_MS} ms.`)), CHECK_TIMEOUT_MS)
  const result = await Promise.race([check(), timeout])
    .catch((error): Check => ({ status: 'down', details: describeError(error) }))
    .finally(() => clearTimeout(timer))
  return { ...result, latencyMs: Math.round(performance.now() - startedAt) }
}
