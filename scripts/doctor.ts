// npm run doctor: checks the configuration and the environment, and says what is on, what is off and what it costs.
import { createPublicKey } from 'node:crypto'
import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { type ForkConfig, loadConfig } from '../lib/config.ts'
import { placeholders } from '../lib/config-check.ts'
import { ConfigError, type ConfigProblem, formatProblem } from '../lib/config-errors.ts'
import { type Env, EnvError, parseEnv } from '../lib/env.ts'
import { clerkGaps, type Feature, features, notInForce, paymentsFeature } from '../lib/features.ts'
import { clerkHosts, fixPolicy, policyWarnings } from './clerk-csp.ts'
import { fix, fixBlocker, setupLines, webhookUrl } from './doctor-fix.ts'
import {
  DEPOSIT_CENTS_MIN,
  feeCents,
  type Margin,
  marginLine,
  marginWarnings,
  productMargins,
} from './doctor-margins.ts'
import { modelWarnings } from './doctor-models.ts'
import type { PolarSetup } from './polar-setup.ts'

interface Findings {
  /** Whether everything can start. */
  ok: boolean
  errors: ConfigProblem[]
  features: Feature[]
  margins: Margin[]
  warnings: string[]
  notInForce: { path: string; reason: string }[]
}

const FLAGS = {
  json: { type: 'boolean', default: false },
  fix: { type: 'boolean', default: false },
  url: { type: 'string' },
} as const

const USAGE = `Usage: npm run doctor [-- --json] [-- --fix [--url https://my.app]]
  --json  prints one JSON object
  --fix   makes products and webhook at Polar where they are missing, with POLAR_ACCESS_TOKEN; in vercel.json, lets
          the start page load the scripts of Clerk where auth.provider is "clerk", and nowhere else
  --url   where the site is, for the webhook; VERCEL_PROJECT_PRODUCTION_URL when left out`

/** What a half-set pair lacks and can be got from here. */
const FIX_HINT = 'npm run doctor -- --fix --url https://my.app makes it.'

/** Everything there is to say about an environment and its configuration file. Never throws for what it is to find. */
export function findings(
  variables: Record<string, string | undefined>,
  configPath?: string,
  now = new Date(),
): Findings {
  const errors: ConfigProblem[] = []
  const env = readEnv(variables, errors)
  const basis = env ?? {
    forkConfig: variables.FORK_CONFIG,
    onVercel: variables.VERCEL !== undefined,
    stage: 'development',
    forkOverrides: {},
  }
  const settings = { ...basis, forkConfig: configPath ?? basis.forkConfig }
  const config = readConfig(settings, errors)
  const margins = config ? productMargins(config, env) : []
  return {
    ok: errors.length === 0,
    errors,
    features: env && config ? features(env, config) : [],
    margins,
    warnings: [
      ...(env ? environmentWarnings(env) : []),
      ...(env && config
        ? [...adminWarnings(env, config), ...clerkWarnings(env, config), ...paymentWarnings(env, config)]
        : []),
      ...(config ? [...toolWarnings(config), ...modelWarnings(config, now), ...marginWarnings(margins)] : []),
      ...(config ? policyWarnings(settings) : []),
    ],
    notInForce: config ? notInForce(config, env) : [],
  }
}

function readEnv(variables: Record<string, string | undefined>, errors: ConfigProblem[]): Env | undefined {
  try {
    return parseEnv(variables)
  } catch (error) {
    if (!(error instanceof EnvError)) throw error
    const hint = (message: string) =>
      message.includes('POLAR_WEBHOOK_SECRET is not') ? `${message} ${FIX_HINT}` : message
    errors.push(...error.problems.map((message) => ({ source: 'environment', path: '', message: hint(message) })))
    return undefined
  }
}

function readConfig(settings: Parameters<typeof loadConfig>[0], errors: ConfigProblem[]): ForkConfig | undefined {
  try {
    return loadConfig(settings)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    errors.push(...error.problems)
    return undefined
  }
}

function environmentWarnings({ onVercel, databaseUrl, kv, resend, appOrigin }: Env): string[] {
  if (!onVercel) {
    return resend && !appOrigin
      ? ['APP_URL is not set: links in mails follow the Host header of requests, which a proxy in front has to check.']
      : []
  }
  return [
    ...(databaseUrl
      ? []
      : [
          'No database is connected: accounts and tokens are lost whenever an instance ends. Set POSTGRES_URL or DATABASE_URL.',
        ]),
    ...(kv
      ? []
      : ['No KV is connected: every instance counts limits by itself. Set KV_REST_API_URL and KV_REST_API_TOKEN.']),
  ]
}

function adminWarnings({ admin }: Env, { auth }: ForkConfig): string[] {
  if (!admin || admin.password.length >= auth.passwordLengthMin) return []
  return [`ADMIN_PASSWORD is shorter than auth.passwordLengthMin (${auth.passwordLengthMin}).`]
}

function clerkWarnings(env: Env, config: ForkConfig): string[] {
  const unread = Object.entries(env.clerk).some(([, value]) => value !== undefined) && config.auth.provider === 'local'
  return [
    ...clerkGaps(env, config).map(({ setting, meaning }) => `${setting} is not set: ${meaning}.`),
    ...(env.clerk.jwtKey !== undefined && !isPublicKey(env.clerk.jwtKey)
      ? ['CLERK_JWT_KEY is no public key in PEM form: every session token is refused. Copy it anew from the dashboard.']
      : []),
    ...(unread ? ['Variables of Clerk are set, but auth.provider is "local": they change nothing.'] : []),
  ]
}

function isPublicKey(pem: string): boolean {
  try {
    return createPublicKey(pem).asymmetricKeyType === 'rsa'
  } catch {
    return false
  }
}

function paymentWarnings(env: Env, config: ForkConfig): string[] {
  const { payments, plans } = config
  const sold = [
    { place: 'payments', ...payments },
    ...payments.packs.map((pack, index) => ({ place: `payments.packs[${index}]`, ...pack })),
    { place: 'plans.pro', ...plans.pro },
    { place: 'plans.enterprise', ...plans.enterprise },
  ]
  const missing = sold.filter(({ polarProductId }) => polarProductId === '').map(({ place }) => place)
  const { minimumDepositCents } = payments
  const share = (isForeignCard: boolean) =>
    Math.round((feeCents(minimumDepositCents, { isForeignCard }) * 100) / minimumDepositCents)
  return [
    ...(paymentsFeature(env, config).on && missing.length > 0
      ? [`polarProductId is missing in ${missing.join(', ')}: npm run doctor -- --fix makes the products at Polar.`]
      : []),
    ...(minimumDepositCents < DEPOSIT_CENTS_MIN
      ? [
          `payments.minimumDepositCents: of a purchase of ${minimumDepositCents} cents, ${share(false)} to ${share(true)} % are fees; ${DEPOSIT_CENTS_MIN} or more is better.`,
        ]
      : []),
  ]
}

function toolWarnings({ tools, brand }: ForkConfig): string[] {
  const unused = tools.flatMap(({ name, prompt, options }) => {
    const used = placeholders(prompt)
    return Object.keys(options)
      .filter((option) => !used.includes(option))
      .map((option) => `The prompt of tool "${name}" does not use its option "${option}".`)
  })
  const hasLogo = !brand.logo || existsSync(new URL(`../public${brand.logo}`, import.meta.url))
  return hasLogo ? unused : [...unused, `brand.logo: public${brand.logo} does not exist.`]
}

/** The findings for a terminal. */
function report(
  { ok, errors, features, margins, warnings, notInForce, setup, wrote }: Findings & Fixed,
  knownSecret: string | undefined,
): string {
  const sections = [
    { title: 'errors', lines: errors.map(formatProblem) },
    {
      title: 'features',
      lines: features.map(({ name, on, reason }) => `${on ? 'on ' : 'off'}  ${name.padEnd(17)}  ${reason}`),
    },
    { title: 'margins when everything is used, after fees', lines: margins.map(marginLine) },
    { title: 'warnings', lines: warnings },
    { title: 'not in force in this version', lines: notInForce.map(({ path, reason }) => `${path}  ${reason}`) },
    { title: 'files', lines: wrote ? [wrote] : [] },
    { title: 'at Polar', lines: setup ? setupLines(setup, knownSecret) : [] },
  ]
  const text = sections
    .filter(({ lines }) => lines.length > 0)
    .map(({ title, lines }) => [title, ...lines.map((line) => (line === '' ? '' : `  ${line}`))].join('\n'))
  const verdict = ok ? 'The configuration and the environment are fine.' : `${errors.length} to put right.`
  return [...text, verdict].join('\n\n')
}

/** What the command line asks for. Undefined when it asks for something else than there is. */
function parseFlags(args: string[]): { json: boolean; fix: boolean; url?: string } | undefined {
  try {
    const { values } = parseArgs({ args, options: FLAGS })
    const { json, fix, url } = values
    if (url !== undefined && (!fix || !/^https?:\/\//.test(url) || !URL.canParse(url))) return undefined
    return { json, fix, ...(url !== undefined && { url }) }
  } catch {
    return undefined
  }
}

async function run(args: string[], variables: Record<string, string | undefined>): Promise<number> {
  const flags = parseFlags(args)
  if (!flags) {
    console.error(`Unknown: ${args.join(' ')}\n${USAGE}`)
    return 2
  }
  const fixed = flags.fix ? await fixings(variables, flags.url) : undefined
  const made = fixed?.setup?.webhook?.secret
  const found = findings({ ...variables, ...(made !== undefined && { POLAR_WEBHOOK_SECRET: made }) })
  const errors = eachOnce([...(fixed?.errors ?? []), ...found.errors])
  const { setup, wrote } = fixed ?? {}
  const complete = { ...found, ok: errors.length === 0, errors, ...(setup && { setup }), ...(wrote && { wrote }) }
  const known = variables.POLAR_WEBHOOK_SECRET?.trim()
  console.log(flags.json ? JSON.stringify(complete, hiding(known), 2) : report(complete, known))
  return complete.ok ? 0 : 1
}

/** --fix and the findings read the same files, and meet the same mistakes in them. */
function eachOnce(problems: ConfigProblem[]): ConfigProblem[] {
  return [...new Map(problems.map((problem) => [JSON.stringify(problem), problem])).values()]
}

/** Leaves out what the environment has already: output ends up in logs. */
function hiding(known: string | undefined) {
  return (key: string, value: unknown) => (key === 'secret' && value === known ? undefined : value)
}

interface Fixed {
  /** What --fix found or made at Polar. */
  setup?: PolarSetup
  /** What it changed in a file of the project. */
  wrote?: string
}

/** What --fix did, or why it could not. */
async function fixings(
  variables: Record<string, string | undefined>,
  url: string | undefined,
): Promise<Fixed & { errors: ConfigProblem[] }> {
  const errors: ConfigProblem[] = []
  // The secret is what --fix is to find out, so here it may be missing.
  const secret = variables.POLAR_WEBHOOK_SECRET?.trim() || 'not known yet'
  const env = variables.POLAR_ACCESS_TOKEN?.trim() ? { ...variables, POLAR_WEBHOOK_SECRET: secret } : variables
  const settings = readEnv(env, errors)
  const config = settings && readConfig(settings, errors)
  if (!settings || !config) return { errors }
  const wrote = fixPolicy(settings)
  const done = wrote === undefined ? {} : { wrote }
  const problem = (message: string) => ({ ...done, errors: [{ source: 'polar', path: '', message }] })
  const blocker = fixBlocker(config, settings)
  // Who came for the policy need not hear about Polar.
  if (blocker !== undefined && (wrote !== undefined || clerkHosts(settings).length > 0)) return { ...done, errors }
  if (blocker !== undefined || !settings.polar) return problem(blocker ?? '')
  const result = await fix(config, settings.polar, webhookUrl(url, variables))
  return 'error' in result ? problem(result.error) : { ...done, setup: result.setup, errors }
}

if (import.meta.main) process.exitCode = await run(process.argv.slice(2), process.env)
