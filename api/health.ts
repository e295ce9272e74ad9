// Is it up, and can it reach what it needs.
import { sql } from 'kysely'
import { db } from '../db/client.ts'
import { isMigrated } from '../db/migrate.ts'
import { usableProviders } from '../lib/ai/router.ts'
import { config } from '../lib/config.ts'
import { env } from '../lib/env.ts'
import { paymentsFeature, signInFeature } from '../lib/features.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { kv } from '../lib/kv.ts'
import { describeError } from '../lib/log.ts'
import { defaultTool } from '../lib/tools/catalogue.ts'
import packageJson from '../package.json' with { type: 'json' }

const CHECK_TIMEOUT_MS = 3_000

interface Check {
  status: 'ok' | 'degraded' | 'down' | 'off'
  latencyMs?: number
  details?: unknown
}

export default endpoint({
  'GET /api/health': route({ access: 'public', handle: live }),
  'GET /api/health/ready': route({ access: 'visitor', limit: 'read', handle: ready }),
})

function live() {
  return { status: 'ok', version: packageJson.version, commit: env().commit ?? null }
}

/** 503 only when the product cannot work at all; details are for admins. */
async function ready({ caller }: Context<'visitor'>) {
  const [database, store] = await Promise.all([timed(checkDatabase), timed(checkKv)])
  const checks: Record<string, Check> = {
    database,
    kv: store,
    providers: checkProviders(),
    signIn: checkSignIn(),
    payments: checkPayments(),
  }
  const down = database.status === 'down' || checks.providers?.status === 'down'
  const degraded = Object.values(checks).some(({ status }) => status === 'degraded' || status === 'down')
  const status = down ? 'down' : degraded ? 'degraded' : 'ok'
  const shown =
    caller?.role === 'admin'
      ? checks
      : Object.fromEntries(Object.entries(checks).map(([name, { details: _, ...check }]) => [name, check]))
  return Response.json({ status, checks: shown }, { status: down ? 503 : 200 })
}

async function checkDatabase(): Promise<Check> {
  await sql`select 1`.execute(db())
  if (!(await isMigrated(db()))) return { status: 'down', details: 'Migrations are pending: npm run migrate -- up' }
  return { status: 'ok', details: env().databaseUrl ? 'PostgreSQL' : 'Embedded database' }
}

async function checkKv(): Promise<Check> {
  await kv().get('readiness')
  return env().kv
    ? { status: 'ok', details: 'Vercel KV' }
    : { status: 'ok', details: 'In memory: right for a single instance only' }
}

function checkProviders(): Check {
  const { usable, skipped } = usableProviders(defaultTool().providers, { format: 'jpeg' })
  const details = { usable: usable.map(({ id }) => id), skipped }
  return { status: usable.length > 0 ? 'ok' : 'down', details }
}

/** Asks nothing of Clerk: whoever is signed in stays so without it. */
function checkSignIn(): Check {
  const { on, reason } = signInFeature(env(), config())
  return { status: on ? 'ok' : 'off', details: reason }
}

/** Asks nothing of Polar: a monitor must not use up what the account may call. */
function checkPayments(): Check {
  const { on, reason } = paymentsFeature(env(), config())
  return { status: on ? 'ok' : 'off', details: reason }
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
