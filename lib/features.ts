// What is on, what is off, and why: one answer for the start banner, the doctor and readiness.
import { missingSecret } from './auth/secret.ts'
import { paymentsOffReason } from './billing/payments.ts'
import { FEATURES_NOT_BUILT, type ForkConfig } from './config.ts'
import type { PROVIDER_IDS } from './config-schema.ts'
import type { Env } from './env.ts'

export interface Feature {
  name: 'database' | 'kv' | 'sign-in' | 'admin' | 'generate' | 'gemini' | 'sketch' | 'payments' | 'sweep'
  on: boolean
  /** Half a sentence that names the variable or setting which decides; never a secret. */
  reason: string
}

type ProviderId = (typeof PROVIDER_IDS)[number]

/** Providers a tool may list already, but that this version cannot run. */
const PROVIDERS_NOT_BUILT: readonly ProviderId[] = ['openai', 'anthropic', 'stability']

/** The state of every feature that keys or settings turn on. */
export function features(env: Env, config: ForkConfig): Feature[] {
  const providers = new Set(config.tools.flatMap((tool) => tool.providers))
  return [
    { name: 'database', on: true, reason: databaseReason(env) },
    env.kv
      ? { name: 'kv', on: true, reason: `Vercel KV at ${hostOf(env.kv.url)}` }
      : { name: 'kv', on: false, reason: 'KV_REST_API_URL and KV_REST_API_TOKEN are not set: limits live in memory' },
    signIn(env),
    env.admin
      ? { name: 'admin', on: true, reason: 'ADMIN_EMAIL and ADMIN_PASSWORD are set' }
      : { name: 'admin', on: false, reason: 'ADMIN_EMAIL and ADMIN_PASSWORD are not set: no administrator is made' },
    config.features.generate
      ? { name: 'generate', on: true, reason: `tools: ${config.tools.map((tool) => tool.name).join(', ')}` }
      : { name: 'generate', on: false, reason: 'features.generate is false' },
    gemini(env, providers.has('gemini')),
    providers.has('sketch')
      ? { name: 'sketch', on: true, reason: 'draws on this machine, needs no key' }
      : { name: 'sketch', on: false, reason: 'no tool lists it' },
    paymentsFeature(env, config),
    env.cronSecret
      ? { name: 'sweep', on: true, reason: 'CRON_SECRET is set' }
      : { name: 'sweep', on: false, reason: 'CRON_SECRET is not set: expired holds wait for their user to come back' },
  ]
}

function databaseReason({ databaseUrl, dataDir, onVercel }: Env): string {
  if (databaseUrl) return `PostgreSQL at ${hostOf(databaseUrl)}`
  return `embedded PGlite in ${dataDir}${onVercel ? ' (demo mode: lost with the instance)' : ''}`
}

function signIn(env: Env): Feature {
  const missing = missingSecret(env)
  if (missing) return { name: 'sign-in', on: false, reason: missing }
  if (env.authJwtSecret) return { name: 'sign-in', on: true, reason: 'AUTH_JWT_SECRET is set' }
  return { name: 'sign-in', on: true, reason: `AUTH_JWT_SECRET is not set: one is made and kept in ${env.dataDir}` }
}

function gemini(env: Env, isListed: boolean): Feature {
  if (!isListed) return { name: 'gemini', on: false, reason: 'no tool lists it' }
  if (!env.gemini.apiKey) return { name: 'gemini', on: false, reason: 'GEMINI_API_KEY is not set' }
  return { name: 'gemini', on: true, reason: 'GEMINI_API_KEY is set' }
}

/** Whether anything can be bought and where the money goes, or why nothing can. */
export function paymentsFeature(env: Env, config: ForkConfig): Feature {
  const offReason = paymentsOffReason(config, env)
  if (offReason !== undefined || !env.polar) return { name: 'payments', on: false, reason: offReason ?? '' }
  const { environment, baseUrl } = env.polar
  return { name: 'payments', on: true, reason: `Polar, ${environment}${baseUrl ? ` at ${hostOf(baseUrl)}` : ''}` }
}

/** A URL without its user, password and query. */
function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : 'an address that is not a URL'
}

/** Settings that are valid but change nothing in this version, each with what that means. */
export function notInForce(config: ForkConfig): { path: string; reason: string }[] {
  const { ai, auth, features, tools } = config
  const listed = new Set(tools.flatMap((tool) => tool.providers))
  return [
    {
      path: 'auth.admins',
      reason: 'local accounts do not prove their address: ADMIN_EMAIL and ADMIN_PASSWORD make the admin',
      applies: auth.admins.length > 0,
    },
    { path: 'ai.budgets', reason: 'spending is not capped here: set a limit at the provider', applies: true },
    { path: 'ai.cacheSeconds', reason: 'answers are not kept', applies: ai.cacheSeconds > 0 },
    ...FEATURES_NOT_BUILT.map((name) => ({
      path: `features.${name}`,
      reason: 'this version does not have the feature',
      applies: features[name],
    })),
    ...PROVIDERS_NOT_BUILT.map((id) => ({
      path: 'tools[].providers',
      reason: `"${id}" is skipped: this version cannot run it`,
      applies: listed.has(id),
    })),
  ]
    .filter(({ applies }) => applies)
    .map(({ path, reason }) => ({ path, reason }))
}
