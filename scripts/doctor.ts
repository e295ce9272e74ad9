// npm run doctor: checks the configuration and the environment, and says what is on, what is off and what it costs.
import { existsSync } from 'node:fs'
import { type ForkConfig, loadConfig } from '../lib/config.ts'
import { nearest, placeholders } from '../lib/config-check.ts'
import { ConfigError, type ConfigProblem, formatProblem } from '../lib/config-errors.ts'
import { type Env, EnvError, parseEnv } from '../lib/env.ts'
import { type Feature, features, notInForce } from '../lib/features.ts'

interface Findings {
  /** Whether everything can start. */
  ok: boolean
  errors: ConfigProblem[]
  features: Feature[]
  margins: Margin[]
  warnings: string[]
  notInForce: { path: string; reason: string }[]
}

/** What is left of a sale when the buyer uses all of it. */
interface Margin {
  /** Such as `plan "pro"`. */
  product: string
  images: number
  costCents: number
  /** The price without the fees of the payment provider. */
  incomeCents: number
}

/** About what a $5 sale costs through Polar, the worst case; larger sales cost less. */
const FEE_PERCENT = 15

/** Gemini's image models and the day each stops answering, as far as announced on 2026-11-20. */
const GEMINI_MODELS: Record<string, { shutdown?: string }> = {
  'gemini-2.5-flash-image': { shutdown: '2026-10-02' },
  'gemini-3.1-flash-image': { shutdown: '2026-10-29' },
  'gemini-3.1-flash-lite-image': {},
  'gemini-3-pro-image': {},
  'gemini-nano-banana-2.1': {},
}

const USAGE = `Usage: npm run doctor [-- --json]
  --json  prints one JSON object`

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
  const config = readConfig({ ...basis, forkConfig: configPath ?? basis.forkConfig }, errors)
  const margins = config ? productMargins(config) : []
  return {
    ok: errors.length === 0,
    errors,
    features: env && config ? features(env, config) : [],
    margins,
    warnings: [
      ...(env ? environmentWarnings(env) : []),
      ...(env && config ? adminWarnings(env, config) : []),
      ...(config ? [...toolWarnings(config), ...modelWarnings(config, now), ...marginWarnings(margins)] : []),
    ],
    notInForce: config ? notInForce(config) : [],
  }
}

function readEnv(variables: Record<string, string | undefined>, errors: ConfigProblem[]): Env | undefined {
  try {
    return parseEnv(variables)
  } catch (error) {
    if (!(error instanceof EnvError)) throw error
    errors.push(...error.problems.map((message) => ({ source: 'environment', path: '', message })))
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

function environmentWarnings({ onVercel, databaseUrl, kv }: Env): string[] {
  if (!onVercel) return []
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

function modelWarnings({ ai, tools }: ForkConfig, now: Date): string[] {
  if (!tools.some(({ providers }) => providers.includes('gemini'))) return []
  const { model, successors } = ai.providers.gemini
  const known = GEMINI_MODELS[model]
  if (!known) {
    const meant = nearest(model, Object.keys(GEMINI_MODELS))
    return meant ? [`ai.providers.gemini.model: "${model}" is not a known model, did you mean "${meant}"?`] : []
  }
  if (!known.shutdown || now < new Date(known.shutdown)) return []
  const next = successors[0]
    ? `"${successors[0]}" takes over when it no longer answers`
    : 'no successor is named in ai.providers.gemini.successors'
  return [`ai.providers.gemini.model: "${model}" is past its announced shutdown (${known.shutdown}); ${next}.`]
}

function productMargins(config: ForkConfig): Margin[] {
  const { free, pro, enterprise } = config.plans
  const products = [
    { product: 'plan "free", a month', tokens: free.monthlyTokens, priceCents: 0 },
    { product: 'plan "pro", a month', tokens: pro.monthlyTokens, priceCents: pro.priceCents },
    { product: 'plan "enterprise", a month', tokens: enterprise.monthlyTokens, priceCents: enterprise.priceCents },
    ...config.payments.packs.map(({ id, tokens, priceCents }) => ({ product: `pack "${id}"`, tokens, priceCents })),
  ]
  const { priceTokens, costMicroUsd } = dearestImage(config)
  return products.map(({ product, tokens, priceCents }) => {
    const images = Math.floor(tokens / priceTokens)
    const costCents = Math.round((images * costMicroUsd) / 10_000)
    return { product, images, costCents, incomeCents: Math.round((priceCents * (100 - FEE_PERCENT)) / 100) }
  })
}

/** The image that costs most for the tokens it brings in: the use to expect from whoever makes the most of a plan. */
function dearestImage({ tools, ai }: ForkConfig): { priceTokens: number; costMicroUsd: number } {
  const images = tools.map(({ priceTokens, providers }) => {
    const costMicroUsd = providers.includes('gemini') ? Math.round(ai.providers.gemini.costPerImageUsd * 1_000_000) : 0
    return { priceTokens, costMicroUsd }
  })
  return images.reduce((dearest, image) =>
    image.costMicroUsd / image.priceTokens > dearest.costMicroUsd / dearest.priceTokens ? image : dearest,
  )
}

function marginWarnings(margins: Margin[]): string[] {
  return margins
    .filter(({ incomeCents, costCents }) => incomeCents > 0 && costCents > incomeCents)
    .map(({ product, images, costCents, incomeCents }) => {
      return `${product}: using it up costs ${dollars(costCents)} for ${images} images, and ${dollars(incomeCents)} come in.`
    })
}

function dollars(cents: number): string {
  return `$${(cents / 100).toFixed(2)}`
}

/** The findings for a terminal. */
function report({ ok, errors, features, margins, warnings, notInForce }: Findings): string {
  const sections = [
    { title: 'errors', lines: errors.map(formatProblem) },
    {
      title: 'features',
      lines: features.map(({ name, on, reason }) => `${on ? 'on ' : 'off'}  ${name.padEnd(9)}  ${reason}`),
    },
    { title: `margins when everything is used, after ${FEE_PERCENT} % fees`, lines: margins.map(marginLine) },
    { title: 'warnings', lines: warnings },
    { title: 'not in force in this version', lines: notInForce.map(({ path, reason }) => `${path}  ${reason}`) },
  ]
  const text = sections
    .filter(({ lines }) => lines.length > 0)
    .map(({ title, lines }) => [title, ...lines.map((line) => `  ${line}`)].join('\n'))
  const verdict = ok ? 'The configuration and the environment are fine.' : `${errors.length} to put right.`
  return [...text, verdict].join('\n\n')
}

function marginLine({ product, images, costCents, incomeCents }: Margin): string {
  const cost = `${images} images cost ${dollars(costCents)}`
  if (incomeCents === 0) return `${product}: ${cost}`
  const percent = Math.round(((incomeCents - costCents) / incomeCents) * 100)
  return `${product}: ${cost} of ${dollars(incomeCents)}, margin ${percent} %`
}

function run(flags: string[]): number {
  const unknown = flags.filter((flag) => flag !== '--json')
  if (unknown.length > 0) {
    console.error(`Unknown: ${unknown.join(' ')}\n${USAGE}`)
    return 2
  }
  const found = findings(process.env)
  console.log(flags.includes('--json') ? JSON.stringify(found, null, 2) : report(found))
  return found.ok ? 0 : 1
}

if (import.meta.main) process.exitCode = run(process.argv.slice(2))
