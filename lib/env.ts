// process.env, read here and nowhere else, parsed once with valibot.
import * as v from 'valibot'

const text = v.optional(v.pipe(v.string(), v.trim()))
const url = v.optional(v.pipe(v.string(), v.trim(), v.url()))

const KEYS_FORM = 'Must be kid:base64,kid:base64 with keys of 32 bytes, each kid once'

/** Keys by their ids, the one that encrypts first. A part that cannot be read stays, as an empty key. */
function encryptionKeys(variable: string): { id: string; key: Buffer }[] {
  return variable.split(',').map((part) => {
    const [id = '', base64 = ''] = part.trim().split(/:(.*)/s)
    return { id, key: Buffer.from(base64, 'base64') }
  })
}

function isUsable(keys: { id: string; key: Buffer }[]): boolean {
  const ids = new Set(keys.map(({ id }) => id))
  return ids.size === keys.length && keys.every(({ id, key }) => /^[\w-]{1,40}$/.test(id) && key.length === 32)
}

function isHttpsOrLoopback(address: string): boolean {
  if (!URL.canParse(address)) return true // Another check says so.
  const { protocol, hostname } = new URL(address)
  return protocol === 'https:' || ['localhost', '127.0.0.1', '[::1]'].includes(hostname)
}

function isWebhookSecret(secret: string): boolean {
  const [, base64 = ''] = /^whsec_([A-Za-z\d+/]+={0,2})$/.exec(secret) ?? []
  const { length } = Buffer.from(base64, 'base64')
  return length >= 24 && length <= 64
}

const Variables = v.object({
  POSTGRES_URL: text,
  DATABASE_URL: text,
  POSTGRES_URL_NON_POOLING: text,
  DATABASE_URL_UNPOOLED: text,
  KV_REST_API_URL: url,
  KV_REST_API_TOKEN: text,
  GEMINI_API_KEY: text,
  GEMINI_BASE_URL: url,
  OPENAI_API_KEY: text,
  OPENAI_BASE_URL: url,
  ANTHROPIC_API_KEY: text,
  ANTHROPIC_BASE_URL: url,
  STABILITY_API_KEY: text,
  STABILITY_BASE_URL: url,
  BLOB_READ_WRITE_TOKEN: v.optional(
    v.pipe(
      v.string(),
      v.trim(),
      v.regex(/^vercel_blob_rw_[A-Za-z\d]+_\w+$/, 'Must be vercel_blob_rw_<store>_<secret>'),
    ),
  ),
  BLOB_BASE_URL: url,
  OUTGOING_WEBHOOK_URL: v.optional(
    v.pipe(v.string(), v.trim(), v.url(), v.check(isHttpsOrLoopback, 'Must begin with https://, or name this machine')),
  ),
  OUTGOING_WEBHOOK_SECRET: v.optional(
    v.pipe(v.string(), v.trim(), v.check(isWebhookSecret, 'Must be whsec_ and 24 to 64 bytes in base64')),
  ),
  AUTH_JWT_SECRET: v.optional(v.pipe(v.string(), v.minBytes(32))),
  ADMIN_EMAIL: v.optional(v.pipe(v.string(), v.trim(), v.toLowerCase(), v.email())),
  ADMIN_PASSWORD: text,
  POLAR_ACCESS_TOKEN: text,
  POLAR_WEBHOOK_SECRET: text,
  POLAR_ENVIRONMENT: v.optional(v.picklist(['sandbox', 'production']), 'production'),
  POLAR_BASE_URL: url,
  CLERK_SECRET_KEY: text,
  CLERK_JWT_KEY: text,
  CLERK_WEBHOOK_SIGNING_SECRET: text,
  CLERK_API_URL: url,
  CLERK_ISSUER: url,
  RESEND_API_KEY: text,
  RESEND_BASE_URL: url,
  MAIL_FROM: text,
  APP_URL: url,
  ENCRYPTION_KEYS: v.optional(v.pipe(v.string(), v.transform(encryptionKeys), v.check(isUsable, KEYS_FORM))),
  CRON_SECRET: text,
  DATA_DIR: v.optional(v.string()),
  FORK_CONFIG: text,
  PORT: v.optional(v.pipe(v.string(), v.toNumber(), v.integer(), v.minValue(0), v.maxValue(65535)), '3000'),
  VERCEL: text,
  VERCEL_ENV: v.optional(v.picklist(['development', 'preview', 'production']), 'development'),
  VERCEL_GIT_COMMIT_SHA: text,
})

/** Variables that mean nothing alone: [set, needs]. */
const PAIRS = [
  ['KV_REST_API_URL', 'KV_REST_API_TOKEN'],
  ['KV_REST_API_TOKEN', 'KV_REST_API_URL'],
  ['ADMIN_EMAIL', 'ADMIN_PASSWORD'],
  ['ADMIN_PASSWORD', 'ADMIN_EMAIL'],
  ['POLAR_ACCESS_TOKEN', 'POLAR_WEBHOOK_SECRET'],
  ['POLAR_WEBHOOK_SECRET', 'POLAR_ACCESS_TOKEN'],
  ['OUTGOING_WEBHOOK_URL', 'OUTGOING_WEBHOOK_SECRET'],
  ['OUTGOING_WEBHOOK_SECRET', 'OUTGOING_WEBHOOK_URL'],
  ['RESEND_API_KEY', 'MAIL_FROM'],
  ['MAIL_FROM', 'RESEND_API_KEY'],
] as const

export type Env = ReturnType<typeof env>

export class EnvError extends Error {
  override readonly name = 'EnvError'
  readonly problems: string[]

  constructor(problems: string[]) {
    super(`The environment is not usable: ${problems.join(' ')}`)
    this.problems = problems
  }
}

let parsed: ReturnType<typeof parseEnv> | undefined

/** The environment, parsed on first use. Throws EnvError naming every bad variable and every half-set pair. */
export function env() {
  parsed ??= parseEnv(process.env)
  return parsed
}

/** Parses any environment; `env()` is this for the process's own. */
export function parseEnv(variables: Record<string, string | undefined>) {
  // An empty variable is one that is not set: that is how .env files and dashboards leave them.
  const given = Object.entries(variables).filter(([, value]) => value?.trim())
  const result = v.safeParse(Variables, Object.fromEntries(given))
  if (!result.success) throw new EnvError(result.issues.map((issue) => `${v.getDotPath(issue)}: ${issue.message}.`))
  const set = result.output
  const halves = PAIRS.filter(([one, other]) => set[one] && !set[other])
  if (halves.length > 0) throw new EnvError(halves.map(([one, other]) => `${one} is set but ${other} is not.`))
  return {
    databaseUrl: set.POSTGRES_URL ?? set.DATABASE_URL,
    databaseUrlUnpooled:
      set.POSTGRES_URL_NON_POOLING ?? set.DATABASE_URL_UNPOOLED ?? set.POSTGRES_URL ?? set.DATABASE_URL,
    kv:
      set.KV_REST_API_URL && set.KV_REST_API_TOKEN
        ? { url: set.KV_REST_API_URL, token: set.KV_REST_API_TOKEN }
        : undefined,
    gemini: provider(set.GEMINI_API_KEY, set.GEMINI_BASE_URL),
    openai: provider(set.OPENAI_API_KEY, set.OPENAI_BASE_URL),
    anthropic: provider(set.ANTHROPIC_API_KEY, set.ANTHROPIC_BASE_URL),
    stability: provider(set.STABILITY_API_KEY, set.STABILITY_BASE_URL),
    /** Vercel Blob, for pictures too large for a request or a row. */
    blob: set.BLOB_READ_WRITE_TOKEN
      ? { token: set.BLOB_READ_WRITE_TOKEN, baseUrl: set.BLOB_BASE_URL && canonical(set.BLOB_BASE_URL) }
      : undefined,
    /** Where the operator's own program hears of budgets and finished jobs, signed per Standard Webhooks. */
    outgoingWebhook:
      set.OUTGOING_WEBHOOK_URL && set.OUTGOING_WEBHOOK_SECRET
        ? { url: set.OUTGOING_WEBHOOK_URL, secret: set.OUTGOING_WEBHOOK_SECRET }
        : undefined,
    authJwtSecret: set.AUTH_JWT_SECRET,
    admin: set.ADMIN_EMAIL && set.ADMIN_PASSWORD ? { email: set.ADMIN_EMAIL, password: set.ADMIN_PASSWORD } : undefined,
    polar:
      set.POLAR_ACCESS_TOKEN && set.POLAR_WEBHOOK_SECRET
        ? {
            accessToken: set.POLAR_ACCESS_TOKEN,
            webhookSecret: set.POLAR_WEBHOOK_SECRET,
            environment: set.POLAR_ENVIRONMENT,
            baseUrl: set.POLAR_BASE_URL?.replace(/\/+$/, ''),
          }
        : undefined,
    clerk: {
      secretKey: set.CLERK_SECRET_KEY,
      /** The PEM; dashboards and .env files leave its line breaks as backslash and n. */
      jwtKey: set.CLERK_JWT_KEY?.replaceAll('\\n', '\n'),
      webhookSigningSecret: set.CLERK_WEBHOOK_SIGNING_SECRET,
      apiUrl: set.CLERK_API_URL?.replace(/\/+$/, ''),
      issuer: set.CLERK_ISSUER?.replace(/\/+$/, ''),
    },
    resend:
      set.RESEND_API_KEY && set.MAIL_FROM
        ? { apiKey: set.RESEND_API_KEY, from: set.MAIL_FROM, baseUrl: set.RESEND_BASE_URL?.replace(/\/+$/, '') }
        : undefined,
    /** Where our pages are, for links in mails; the address of the request when it is not set. */
    appOrigin: set.APP_URL && new URL(set.APP_URL).origin,
    /** The first one encrypts, all decrypt. */
    encryptionKeys: set.ENCRYPTION_KEYS,
    cronSecret: set.CRON_SECRET,
    /** Where the embedded database and the made-up secret live; /tmp is all that can be written on Vercel. */
    dataDir: set.DATA_DIR ?? (set.VERCEL ? '/tmp/data' : '.data'),
    forkConfig: set.FORK_CONFIG,
    port: set.PORT,
    onVercel: set.VERCEL !== undefined,
    stage: set.VERCEL_ENV,
    commit: set.VERCEL_GIT_COMMIT_SHA,
    /** `FORK__…` overrides of fork.config.json, as they stand. */
    forkOverrides: Object.fromEntries(
      Object.entries(variables).filter(([name, value]) => name.startsWith('FORK__') && value !== undefined),
    ) as Record<string, string>,
  }
}

/** The one form to which parsing brings every spelling of an address, without slashes at its end. */
function canonical(url: string): string {
  return new URL(url).href.replace(/\/+$/, '')
}

function provider(apiKey: string | undefined, baseUrl: string | undefined) {
  return { apiKey, baseUrl: baseUrl?.replace(/\/+$/, '') }
}
