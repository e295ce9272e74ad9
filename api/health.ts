// Is it up, and can it reach what it needs.
import { type Check, databaseHealth, kvHealth, providersCheck, providersHealth } from '../lib/admin/health.ts'
import { config } from '../lib/config.ts'
import { env } from '../lib/env.ts'
import { paymentsFeature, signInFeature } from '../lib/features.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import packageJson from '../package.json' with { type: 'json' }

export default endpoint({
  'GET /api/health': route({ access: 'public', handle: live }),
  'GET /api/health/ready': route({ access: 'visitor', limit: 'read', handle: ready }),
})

function live() {
  return { status: 'ok', version: packageJson.version, commit: env().commit ?? null }
}

/** 503 only when the product cannot work at all; details are for admins. */
async function ready({ caller }: Context<'visitor'>) {
  const [database, store, health] = await Promise.all([databaseHealth(), kvHealth(), providersHealth()])
  const providers = providersCheck(health)
  const checks: Record<string, Check> = {
    database,
    kv: store,
    providers,
    signIn: checkSignIn(),
    payments: checkPayments(),
  }
  const down = database.status === 'down' || providers.status === 'down'
  const degraded = Object.values(checks).some(({ status }) => status === 'degraded' || status === 'down')
  const status = down ? 'down' : degraded ? 'degraded' : 'ok'
  const shown =
    caller?.role === 'admin'
      ? checks
      : Object.fromEntries(Object.entries(checks).map(([name, { details: _, ...check }]) => [name, check]))
  return Response.json({ status, checks: shown }, { status: down ? 503 : 200 })
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
