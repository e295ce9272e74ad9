// The fork's settings: defaults < fork.config.json < its environments.<stage> < FORK__ variables, parsed once.
import { readFileSync } from 'node:fs'
import { takesImage } from './ai/provider.ts'
import { check, type Issue, isObject } from './config-check.ts'
import { ConfigError, type ConfigProblem, dottedPath, positionFinder, syntaxMistake } from './config-errors.ts'
import { combine, type Layer, overrideLayers, responsibleLayer } from './config-layers.ts'
import { type ForkConfig, frontendApiOf, STAGES } from './config-schema.ts'
import { type Env, env } from './env.ts'

export type { ForkConfig }

type Stage = Env['stage']

let loaded: ForkConfig | undefined

/** The settings in force in this process. Throws ConfigError, on first use, listing every problem. */
export function config(): ForkConfig {
  loaded ??= loadConfig(env())
  return loaded
}

/** `config()` for any environment, read afresh. */
export function loadConfig(settings: Pick<Env, 'forkConfig' | 'onVercel' | 'stage' | 'forkOverrides'>): ForkConfig {
  const { forkConfig, onVercel, stage, forkOverrides } = settings
  if (forkConfig !== undefined && onVercel) {
    const message = 'cannot be set on Vercel, where fork.config.json is the only one deployed'
    throw new ConfigError([{ source: 'FORK_CONFIG', path: '', message }])
  }
  const file = forkConfig ?? 'fork.config.json'
  return parseConfig(readConfigFile(file, forkConfig), { file, stage, forkOverrides })
}

function readConfigFile(file: string, path: string | undefined): string {
  try {
    // Vercel deploys the files that it sees being read, so this URL has to stay literal.
    return path === undefined
      ? readFileSync(new URL('../fork.config.json', import.meta.url), 'utf8')
      : readFileSync(path, 'utf8')
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new ConfigError([{ source: file, path: '', message: `cannot be read: ${reason}` }])
  }
}

/**
 * The settings that the text of a file gives in `stage`. The other stages are checked as well, so that a mistake in
 * `environments.production` shows before it is deployed. Throws ConfigError, in which `file` names the text.
 */
export function parseConfig(
  text: string,
  { file, stage, forkOverrides }: { file: string; stage: Stage; forkOverrides: Record<string, string> },
): ForkConfig {
  const json = text.replace(/^\uFEFF/, '')
  const value = parseJson(json, file)
  const inStage = (name: Stage, variables: Record<string, string>) => {
    const fileLayers = [{ source: file, prefix: [], value, filePath: [] }, ...overlayLayers(value, name, file)]
    const { overrides, problems } = overrideLayers(variables, combine(fileLayers))
    const layers = [...fileLayers, ...overrides]
    const { issues, settings } = check(combine(layers))
    return { settings, problems: [...problems, ...placeIssues(issues, layers, json)] }
  }
  const current = inStage(stage, forkOverrides)
  const others = STAGES.filter((name) => name !== stage).map((name) => inStage(name, {}))
  const problems = [current, ...others].flatMap((result) => result.problems)
  if (problems.length > 0 || !current.settings) throw new ConfigError(eachOnce(problems))
  return current.settings
}

function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const mistake = syntaxMistake(text) ?? { message: cause instanceof Error ? cause.message : String(cause) }
    throw new ConfigError([{ source: file, path: '', ...mistake }])
  }
}

function overlayLayers(file: unknown, stage: Stage, source: string): Layer[] {
  const environments = isObject(file) ? file.environments : undefined
  const value = isObject(environments) ? environments[stage] : undefined
  return isObject(value) ? [{ source, prefix: [], value, filePath: ['environments', stage] }] : []
}

function placeIssues(issues: Issue[], layers: Layer[], text: string): ConfigProblem[] {
  const position = positionFinder(text)
  return issues.map(({ path, message, suggestion, at }) => {
    const layer = responsibleLayer(path, layers)
    const pathInFile = layer?.filePath && [...layer.filePath, ...path]
    return {
      source: layer?.source ?? '',
      path: dottedPath(pathInFile ?? path),
      ...(pathInFile && position(pathInFile, at === 'key' ? 'key' : 'value')),
      message,
      ...(suggestion && { suggestion }),
    }
  })
}

/** A mistake outside `environments` is found once per stage. */
function eachOnce(problems: ConfigProblem[]): ConfigProblem[] {
  return [...new Map(problems.map((problem) => [JSON.stringify(problem), problem])).values()]
}

/**
 * What anyone may know, for GET /api/config: no prompts, models, costs, product ids or administrators. Payments and mail depend
 * on keys as well as on the configuration, so the caller says whether they are on.
 */
export function publicConfig(
  settings: ForkConfig,
  { paymentsOn, mailOn = false }: { paymentsOn: boolean; mailOn?: boolean },
) {
  const { brand, auth, tools, trial, plans, payments, limits, features, preferences } = settings
  return {
    brand,
    auth:
      auth.provider === 'clerk'
        ? {
            provider: auth.provider,
            publishableKey: auth.clerk.publishableKey,
            frontendApi: frontendApiOf(auth.clerk.publishableKey),
          }
        : { provider: auth.provider, passwordLengthMin: auth.passwordLengthMin, passwordReset: mailOn },
    tools: tools.map(({ name, title, description, does, options, ...tool }) => ({
      name,
      title,
      description,
      does,
      priceTokens: tool.priceTokens,
      highQualityPriceTokens: tool.highQualityPriceTokens,
      draftPriceTokens: tool.draftPriceTokens,
      cachedPriceTokens: tool.cachedPriceTokens,
      ...(!takesImage(does) && { inputCharactersMax: tool.inputCharactersMax }),
      options: Object.fromEntries(Object.entries(options).map(([option, { phrases, ...shown }]) => [option, shown])),
    })),
    trial: { generations: trial.generations },
    preferences,
    plans: {
      free: plans.free,
      pro: { monthlyTokens: plans.pro.monthlyTokens, priceCents: plans.pro.priceCents },
      enterprise: { monthlyTokens: plans.enterprise.monthlyTokens, priceCents: plans.enterprise.priceCents },
    },
    payments: {
      provider: payments.provider,
      currency: payments.currency,
      minimumDepositCents: payments.minimumDepositCents,
      tokensPerDollar: payments.tokensPerDollar,
      packs: payments.packs.map(({ id, priceCents, tokens }) => ({ id, priceCents, tokens })),
    },
    limits: {
      imageBytesMax: limits.imageBytesMax,
      imagePixelsMax: limits.imagePixelsMax,
      imageSideMin: limits.imageSideMin,
      generatePerMinute: limits.generate.perMinute,
    },
    features: {
      ...features,
      payments: paymentsOn,
    },
  }
}
