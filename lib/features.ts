// What is on, what is off, and why: one answer for the start banner, the doctor and readiness.
import { offReason } from './ai/availability.ts'
import { PROVIDER_IDS, type ProviderId } from './ai/capabilities.ts'
import { clerkOffReason } from './auth/clerk.ts'
import { missingSecret } from './auth/secret.ts'
import { canVerify } from './auth/trial.ts'
import { paymentsOffReason } from './billing/payments.ts'
import type { ForkConfig } from './config.ts'
import { frontendApiOf } from './config-schema.ts'
import type { Env } from './env.ts'
import { mailOffReason } from './mail.ts'
import { vaultOffReason } from './vault.ts'

export interface Feature {
  name:
    | 'database'
    | 'kv'
    | 'sign-in'
    | 'admin'
    | 'generate'
    | ProviderId
    | 'blob'
    | 'outgoing webhooks'
    | 'payments'
    | 'mail'
    | 'encryption'
    | 'sweep'
  on: boolean
  /** Half a sentence that names the variable or setting which decides; never a secret. */
  reason: string
}

/** The state of every feature that keys or settings turn on. */
export function features(env: Env, config: ForkConfig): Feature[] {
  const providers = new Set(config.tools.flatMap((tool) => tool.providers))
  return [
    { name: 'database', on: true, reason: databaseReason(env) },
    env.kv
      ? { name: 'kv', on: true, reason: `Vercel KV at ${hostOf(env.kv.url)}` }
      : { name: 'kv', on: false, reason: 'KV_REST_API_URL and KV_REST_API_TOKEN are not set: limits live in memory' },
    signInFeature(env, config),
    admin(env, config),
    config.features.generate
      ? { name: 'generate', on: true, reason: `tools: ${config.tools.map((tool) => tool.name).join(', ')}` }
      : { name: 'generate', on: false, reason: 'features.generate is false' },
    ...PROVIDER_IDS.map((id) => provider(id, env, config, providers.has(id))),
    env.blob
      ? { name: 'blob', on: true, reason: 'BLOB_READ_WRITE_TOKEN is set' }
      : {
          name: 'blob',
          on: false,
          reason: 'BLOB_READ_WRITE_TOKEN is not set: the page scales large photos down, programs cannot send them',
        },
    env.outgoingWebhook
      ? { name: 'outgoing webhooks', on: true, reason: `to ${hostOf(env.outgoingWebhook.url)}` }
      : {
          name: 'outgoing webhooks',
          on: false,
          reason: 'OUTGOING_WEBHOOK_URL and OUTGOING_WEBHOOK_SECRET are not set',
        },
    paymentsFeature(env, config),
    mail(env),
    encryption(env),
    env.cronSecret
      ? { name: 'sweep', on: true, reason: 'CRON_SECRET is set' }
      : { name: 'sweep', on: false, reason: 'CRON_SECRET is not set: expired holds wait for their user to come back' },
  ]
}

function databaseReason({ databaseUrl, dataDir, onVercel }: Env): string {
  if (databaseUrl) return `PostgreSQL at ${hostOf(databaseUrl)}`
  return `embedded PGlite in ${dataDir}${onVercel ? ' (demo mode: lost with the instance)' : ''}`
}

/** Whether anybody can sign in, by whom, and what of it is switched off. */
export function signInFeature(env: Env, config: ForkConfig): Feature {
  if (config.auth.provider === 'clerk') return signInThroughClerk(env, config)
  const missing = missingSecret(env)
  if (missing) return { name: 'sign-in', on: false, reason: missing }
  if (env.authJwtSecret) return { name: 'sign-in', on: true, reason: 'AUTH_JWT_SECRET is set' }
  return { name: 'sign-in', on: true, reason: `AUTH_JWT_SECRET is not set: one is made and kept in ${env.dataDir}` }
}

function signInThroughClerk(env: Env, config: ForkConfig): Feature {
  // The trial is kept apart per person with a key that is made from one of them.
  const offReason = clerkOffReason(env) ?? (env.clerk.secretKey ? undefined : missingSecret(env))
  if (offReason) return { name: 'sign-in', on: false, reason: offReason }
  const frontendApi = frontendApiOf(config.auth.clerk.publishableKey)
  const keys = env.clerk.jwtKey ? 'CLERK_JWT_KEY is set' : 'CLERK_SECRET_KEY is set'
  const off = clerkGaps(env, config).map(({ setting, part }) => `${part} (${setting})`)
  return {
    name: 'sign-in',
    on: true,
    reason: [
      `Clerk${frontendApi ? `, ${frontendApi}` : ''}: ${keys}`,
      ...(off.length > 0 ? [`off: ${off.join(', ')}`] : []),
    ].join('; '),
  }
}

/** What does not work of sign-in through Clerk: the setting that is missing, the part that is off, and what that means. */
export function clerkGaps({ clerk }: Env, { auth }: ForkConfig): { setting: string; part: string; meaning: string }[] {
  if (auth.provider !== 'clerk') return []
  return [
    {
      isOff: auth.clerk.publishableKey === '',
      setting: 'auth.clerk.publishableKey',
      part: "the page's sign-in",
      meaning: clerk.issuer
        ? 'the page cannot sign anybody in'
        : 'the page cannot sign anybody in, and tokens are accepted from any issuer that has the key',
    },
    {
      isOff: !clerk.webhookSigningSecret,
      setting: 'CLERK_WEBHOOK_SIGNING_SECRET',
      part: 'webhooks',
      meaning: 'new names and addresses, bans and deletions at Clerk are not noticed here',
    },
    {
      isOff: !clerk.secretKey,
      setting: 'CLERK_SECRET_KEY',
      part: "Clerk's API",
      meaning: 'new users are known by what their token says, and Clerk is not told of suspensions and deletions',
    },
    {
      isOff: !clerk.jwtKey,
      setting: 'CLERK_JWT_KEY',
      part: 'verification without the network',
      meaning: 'every new instance asks Clerk for its keys, and nobody can sign in while they cannot be had',
    },
  ].filter(({ isOff }) => isOff)
}

/** Under Clerk an administrator of the environment cannot sign in, until Clerk has verified that address. */
function admin({ admin }: Env, { auth }: ForkConfig): Feature {
  if (auth.provider === 'clerk' && auth.admins.length > 0)
    return { name: 'admin', on: true, reason: 'auth.admins names who' }
  if (auth.provider === 'clerk') {
    return { name: 'admin', on: false, reason: 'auth.admins is empty: nobody becomes an administrator by signing in' }
  }
  return admin
    ? { name: 'admin', on: true, reason: 'ADMIN_EMAIL and ADMIN_PASSWORD are set' }
    : { name: 'admin', on: false, reason: 'ADMIN_EMAIL and ADMIN_PASSWORD are not set: no administrator is made' }
}

function provider(id: ProviderId, env: Env, config: ForkConfig, isListed: boolean): Feature {
  if (!isListed) return { name: id, on: false, reason: 'no tool lists it' }
  if (id === 'sketch') return { name: id, on: true, reason: 'draws on this machine, needs no key' }
  const reason = offReason(id, env, config)
  return reason === null
    ? { name: id, on: true, reason: `${id.toUpperCase()}_API_KEY is set` }
    : { name: id, on: false, reason }
}

/** Whether anything can be bought and where the money goes, or why nothing can. */
export function paymentsFeature(env: Env, config: ForkConfig): Feature {
  const offReason = paymentsOffReason(config, env)
  if (offReason !== undefined || !env.polar) return { name: 'payments', on: false, reason: offReason ?? '' }
  const { environment, baseUrl } = env.polar
  return { name: 'payments', on: true, reason: `Polar, ${environment}${baseUrl ? ` at ${hostOf(baseUrl)}` : ''}` }
}

function mail(env: Env): Feature {
  const offReason = mailOffReason(env)
  if (offReason !== undefined) return { name: 'mail', on: false, reason: offReason }
  if (!env.resend)
    return { name: 'mail', on: true, reason: 'printed here, as RESEND_API_KEY and MAIL_FROM are not set' }
  return { name: 'mail', on: true, reason: `Resend${env.resend.baseUrl ? ` at ${hostOf(env.resend.baseUrl)}` : ''}` }
}

function encryption(env: Env): Feature {
  const [first] = env.encryptionKeys ?? []
  if (first)
    return { name: 'encryption', on: true, reason: `ENCRYPTION_KEYS is set, new secrets go under "${first.id}"` }
  const offReason = vaultOffReason(env)
  return offReason === undefined
    ? {
        name: 'encryption',
        on: true,
        reason: `ENCRYPTION_KEYS is not set: a key is made from the one in ${env.dataDir}`,
      }
    : { name: 'encryption', on: false, reason: offReason }
}

/** A URL without its user, password and query. */
function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : 'an address that is not a URL'
}

/** Settings that are valid but change nothing in this version, each with what that means. */
export function notInForce(config: ForkConfig, env?: Env): { path: string; reason: string }[] {
  const { auth } = config
  return [
    {
      path: 'auth.admins',
      reason:
        'no address can be verified without RESEND_API_KEY and MAIL_FROM: ADMIN_EMAIL and ADMIN_PASSWORD make the admin',
      applies: auth.admins.length > 0 && !(env && canVerify(env, config)),
    },
  ]
    .filter(({ applies }) => applies)
    .map(({ path, reason }) => ({ path, reason }))
}
