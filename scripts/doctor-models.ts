// npm run doctor on models: names that stand for another model, models that end, models without a price, and old prices.
import { offReason, type PaidProviderId } from '../lib/ai/availability.ts'
import { PROVIDER_IDS } from '../lib/ai/capabilities.ts'
import { livingModel, providerOfModel, retirementOf } from '../lib/ai/models.ts'
import { MODEL_PRICES, PRICE_AGE_DAYS_MAX, priceOf, stalePrices } from '../lib/ai/prices.ts'
import { makesImage, type Work } from '../lib/ai/provider.ts'
import type { ForkConfig } from '../lib/config.ts'
import { nearest } from '../lib/config-check.ts'
import type { Env } from '../lib/env.ts'

const PAID_PROVIDER_IDS: readonly PaidProviderId[] = PROVIDER_IDS.filter((id) => id !== 'sketch')

/** A model that the configuration names, or the schema for it. */
export interface ConfiguredModel {
  /** Such as `ai.providers.gemini.successors[0]`. */
  path: string
  provider: PaidProviderId
  name: string
  /** Whether it makes pictures; models of providers that have one model for everything do. */
  isForPictures: boolean
  /** Who takes over when it answers that it is gone. */
  next: string | undefined
}

/** Every model of a provider, whether a tool uses it or not. */
export function configuredModels(provider: PaidProviderId, { ai }: Pick<ForkConfig, 'ai'>): ConfiguredModel[] {
  const settings = ai.providers[provider]
  const path = `ai.providers.${provider}`
  const names = [settings.model, ...settings.successors]
  const pictures = names.map((name, index) => ({
    path: index === 0 ? `${path}.model` : `${path}.successors[${index - 1}]`,
    provider,
    name,
    isForPictures: true,
    next: names[index + 1],
  }))
  if (!('textModel' in settings)) return pictures
  const words = { path: `${path}.textModel`, provider, name: settings.textModel, isForPictures: false, next: undefined }
  return [...pictures, words]
}

/** The model that does a provider's work first. */
export function modelFor(provider: PaidProviderId, { task }: Work, config: Pick<ForkConfig, 'ai'>): string {
  if (provider === 'stability' && task === 'remove-background') return 'remove-background'
  const settings = config.ai.providers[provider]
  return livingModel('textModel' in settings && !makesImage(task) ? settings.textModel : settings.model)
}

/** The providers that cost money and that a tool may ask: those with a key, or all that it lists when none has one. */
export function paidProviders(
  { providers }: ForkConfig['tools'][number],
  config: ForkConfig,
  env: Env | undefined,
): PaidProviderId[] {
  const listed = PAID_PROVIDER_IDS.filter((id) => providers.includes(id) && config.ai.providers[id].enabled)
  const usable = env ? listed.filter((id) => offReason(id, env, config) === null) : []
  return usable.length > 0 ? usable : listed
}

/** What there is to say of the models that tools use. */
export function modelWarnings(config: ForkConfig, now: Date): string[] {
  const used = PAID_PROVIDER_IDS.flatMap((id) => usedModels(id, config))
  return [
    ...used.flatMap((model) => [...nameWarnings(model, now), ...priceWarnings(model, config)]),
    ...oldPrices(used, now),
  ]
}

/** Those of its models that the tools' tasks lead to. */
function usedModels(provider: PaidProviderId, config: ForkConfig): ConfiguredModel[] {
  const tools = config.tools.filter(({ providers }) => providers.includes(provider))
  if (!config.ai.providers[provider].enabled || tools.length === 0) return []
  const hasOne = !('textModel' in config.ai.providers[provider])
  const isUsed = ({ isForPictures }: ConfiguredModel) =>
    hasOne || tools.some(({ does }) => makesImage(does) === isForPictures)
  return configuredModels(provider, config).filter(isUsed)
}

function nameWarnings({ path, provider, name, next }: ConfiguredModel, now: Date): string[] {
  const owner = providerOfModel(name)
  if (owner !== undefined && owner !== provider) return [`${path}: "${name}" is a model of ${owner}.`]
  if (owner !== undefined) return [`${path}: "${name}" is gone, "${livingModel(name)}" answers in its place.`]
  const end = retirementOf(name)
  if (!end) return []
  const { endsOn, isEarliest, successor } = end
  const isPast = Date.parse(endsOn) <= now.getTime()
  if (!isEarliest) {
    return isPast
      ? [`${path}: "${name}" is gone since ${endsOn}, "${successor}" answers in its place.`]
      : [`${path}: "${name}" ends on ${endsOn}, "${successor}" answers from then on.`]
  }
  const then = next ? `"${next}" takes over when it no longer answers` : `name a successor, such as "${successor}"`
  return [`${path}: "${name}" ${isPast ? 'is past' : 'comes to'} its announced shutdown (${endsOn}); ${then}.`]
}

function priceWarnings({ path, provider, name }: ConfiguredModel, { ai }: ForkConfig): string[] {
  if (priceOf(livingModel(name)) || retirementOf(name)) return []
  const meant = nearest(name, Object.keys(MODEL_PRICES))
  const hint = meant ? `, did you mean "${meant}"?` : '.'
  const isPriced = ai.providers[provider].costPerImageUsd !== undefined
  if (isPriced) return meant ? [`${path}: "${name}" is not in the price table${hint}`] : []
  return [
    `${path}: "${name}" is not in the price table${hint} Without ai.providers.${provider}.costPerImageUsd it counts as the dearest model there is.`,
  ]
}

/** One line for each source that is to be looked at again. */
function oldPrices(used: ConfiguredModel[], now: Date): string[] {
  const inUse = new Set(used.map(({ name }) => livingModel(name)))
  const old = stalePrices(now).filter(({ model }) => inUse.has(model))
  return [...new Set(old.map(({ source }) => source))].map((source) => {
    const of = old.filter((price) => price.source === source)
    const models = of.map(({ model }) => model).join(', ')
    return `The prices of ${models} were last looked at on ${of[0]?.asOf}, more than ${PRICE_AGE_DAYS_MAX} days ago: compare lib/ai/prices.ts with ${source}.`
  })
}
