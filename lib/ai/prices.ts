// What providers bill: one dated table of models, and the arithmetic from a reply's usage to micro-USD.
import { makesImage, type Quality, takesImage, type Work } from './provider.ts'

/** Tokens a call was billed for, by kind; thoughts count as text that came out. */
export interface TokenUsage {
  textIn: number
  imageIn: number
  textOut: number
  imageOut: number
}

interface Dated {
  /** Where the figures were published, and when they were last looked at (YYYY-MM-DD). */
  source: string
  asOf: string
}

/** Billed by the token. */
export interface TokenPrice extends Dated {
  /** Micro-USD for a million tokens of each kind. */
  microUsdPerMillion: TokenUsage
  /** What a call is expected to use; no price depends on it, only what is held before a call and assumed when a reply has no usage. */
  expects: {
    /** Tokens of a photo that goes in. */
    photoIn: number
    /** Tokens of a picture of about 1024² that comes out, by quality; left out by a model that draws in SVG, which is text. */
    imageOut?: Record<Quality, number>
    /** Of one of 1536 × 1024 or 1024 × 1536, where that has more of them. */
    oblongOut?: Record<Quality, number>
    /** What it thinks before it answers. */
    thoughts?: number
  }
}

/** Billed by the call, whatever goes in and comes out. */
export interface CallPrice extends Dated {
  microUsdPerCall: number
}

export type ModelPrice = TokenPrice | CallPrice

/** Older figures than this are looked at again: a test and the doctor say so. */
export const PRICE_AGE_DAYS_MAX = 90

const GOOGLE = { source: 'https://ai.google.dev/gemini-api/docs/pricing', asOf: '2026-10-07' }
const OPENAI_IMAGES = { source: 'https://apidog.com/blog/gpt-image-2-5-api/, read from OpenAI', asOf: '2026-09-09' }
const OPENAI_WORDS = { source: 'https://vercel.com/ai-gateway/models, list prices of OpenAI', asOf: '2026-11-21' }
const ANTHROPIC = { source: 'https://platform.claude.com/docs/en/about-claude/pricing', asOf: '2026-10-10' }
const STABILITY = { source: 'https://stability.ai/api-pricing-update-25', asOf: '2026-11-20' }
const STABILITY_MODELS = { source: 'https://github.com/Portkey-AI/models', asOf: '2026-11-20' }

/** One picture of 1024² has as many tokens in every quality that is asked of these models. */
const same = (tokens: number) => ({ draft: tokens, standard: tokens, high: tokens })

/** Rates of a model that bills photos as text and answers in words. */
const words = (input: number, output: number): TokenUsage => ({
  textIn: input,
  imageIn: input,
  textOut: output,
  imageOut: output,
})

/** Where a provider publishes no rate for words from an image model, they cost as much as its pictures: never less. */
const pictures = (textIn: number, imageIn: number, imageOut: number, textOut = imageOut): TokenUsage => ({
  textIn,
  imageIn,
  textOut,
  imageOut,
})

/** Cached input is cheaper at some providers: it counts in full here. Batches and long contexts are not used. */
export const MODEL_PRICES: Record<string, ModelPrice> = {
  'gemini-2.5-flash-image': {
    ...GOOGLE,
    microUsdPerMillion: pictures(300_000, 300_000, 30_000_000, 2_500_000),
    expects: { photoIn: 1290, imageOut: same(1290) },
  },
  'gemini-nano-banana-2.1': {
    source: 'https://github.com/BerriAI/litellm/discussions/44983',
    asOf: '2026-10-08',
    microUsdPerMillion: pictures(1_500_000, 1_500_000, 30_000_000, 7_500_000),
    expects: { photoIn: 1090, imageOut: same(1120), thoughts: 400 },
  },
  'gemini-3.1-flash-lite-image': {
    ...GOOGLE,
    microUsdPerMillion: pictures(250_000, 250_000, 30_000_000, 1_500_000),
    expects: { photoIn: 1090, imageOut: same(1120) },
  },
  'gemini-3-pro-image': {
    ...GOOGLE,
    microUsdPerMillion: pictures(2_000_000, 2_000_000, 120_000_000, 12_000_000),
    expects: { photoIn: 1090, imageOut: same(1120), thoughts: 400 },
  },
  'gemini-3.5-flash-lite': { ...GOOGLE, microUsdPerMillion: words(300_000, 2_500_000), expects: { photoIn: 1090 } },
  'gemini-2.5-flash': {
    ...GOOGLE,
    microUsdPerMillion: words(300_000, 2_500_000),
    expects: { photoIn: 1290, thoughts: 400 },
  },
  'gpt-image-2.5-flare': {
    ...OPENAI_IMAGES,
    microUsdPerMillion: pictures(5_000_000, 8_000_000, 30_000_000),
    expects: {
      photoIn: 1500,
      imageOut: { draft: 196, standard: 439, high: 1756 },
      // Not published: as many more as there are more pixels, which is the most that was seen of its family.
      oblongOut: { draft: 294, standard: 659, high: 2634 },
    },
  },
  'gpt-image-2': {
    ...OPENAI_IMAGES,
    microUsdPerMillion: pictures(5_000_000, 8_000_000, 30_000_000),
    // OpenAI's calculator has fewer tokens for oblong pictures of this one: 5488 where a square one has 7024.
    expects: { photoIn: 1500, imageOut: { draft: 196, standard: 1756, high: 7024 } },
  },
  'gpt-image-1.5': {
    source: 'https://docs.apiyi.com/en/api-capabilities/gpt-image-2/historical-versions',
    asOf: '2026-11-21',
    microUsdPerMillion: pictures(5_000_000, 8_000_000, 32_000_000, 10_000_000),
    expects: {
      photoIn: 1500,
      imageOut: { draft: 272, standard: 1056, high: 4160 },
      // Its published prices of such a picture, .013, .050 and .200, are these.
      oblongOut: { draft: 408, standard: 1584, high: 6240 },
    },
  },
  'gpt-image-1-mini': {
    source: 'https://developers.openai.com/api/docs/models/gpt-image-1-mini',
    asOf: '2026-11-20',
    microUsdPerMillion: pictures(2_000_000, 2_500_000, 8_000_000),
    // Its published prices of a picture, .005, .011 and .036, in tokens; of an oblong one .006, .015 and .052.
    expects: {
      photoIn: 1500,
      imageOut: { draft: 625, standard: 1375, high: 4500 },
      oblongOut: { draft: 750, standard: 1875, high: 6500 },
    },
  },
  'gpt-4o': { ...OPENAI_WORDS, microUsdPerMillion: words(2_500_000, 10_000_000), expects: { photoIn: 765 } },
  'gpt-4o-mini': { ...OPENAI_WORDS, microUsdPerMillion: words(150_000, 600_000), expects: { photoIn: 25_501 } },
  'gpt-4.1': { ...OPENAI_WORDS, microUsdPerMillion: words(2_000_000, 8_000_000), expects: { photoIn: 765 } },
  'gpt-4.1-mini': { ...OPENAI_WORDS, microUsdPerMillion: words(400_000, 1_600_000), expects: { photoIn: 1659 } },
  'gpt-6-luna': {
    ...OPENAI_WORDS,
    microUsdPerMillion: words(100_000, 500_000),
    expects: { photoIn: 1229, thoughts: 400 },
  },
  'claude-haiku-5-5': {
    ...ANTHROPIC,
    microUsdPerMillion: words(100_000, 500_000),
    expects: { photoIn: 1446, thoughts: 400 },
  },
  'claude-haiku-4-5': { ...ANTHROPIC, microUsdPerMillion: words(1_000_000, 5_000_000), expects: { photoIn: 1434 } },
  'claude-sonnet-5': {
    ...ANTHROPIC,
    microUsdPerMillion: words(2_000_000, 10_000_000),
    expects: { photoIn: 1446, thoughts: 400 },
  },
  'claude-opus-5': {
    ...ANTHROPIC,
    microUsdPerMillion: words(5_000_000, 25_000_000),
    expects: { photoIn: 1446, thoughts: 400 },
  },
  // Stability bills credits of one cent, for every call that gives a picture.
  'control-structure': { ...STABILITY, microUsdPerCall: 50_000 },
  'remove-background': { ...STABILITY, microUsdPerCall: 50_000 },
  'sd3.5-large': { ...STABILITY_MODELS, microUsdPerCall: 65_000 },
  'sd3.5-large-turbo': { ...STABILITY_MODELS, microUsdPerCall: 40_000 },
  'sd3.5-medium': { ...STABILITY_MODELS, microUsdPerCall: 35_000 },
  core: { ...STABILITY_MODELS, microUsdPerCall: 30_000 },
  ultra: { ...STABILITY_MODELS, microUsdPerCall: 80_000 },
}

/** What every call is expected to use beside pictures. */
const PROMPT_TOKENS = 400
const ANSWER_TOKENS = 500
const SVG_TOKENS = 8000

/**
 * What a call cost, in micro-USD, rounded up: by its usage, or what such work is expected to cost when the reply says nothing
 * of it. A model that is not in the table costs what is expected of it, whatever it used.
 */
export function costMicroUsd(
  model: string,
  usage: TokenUsage | undefined,
  work: Work,
  costPerImageUsd?: number,
): number {
  const price = priceOf(model)
  if (price && 'microUsdPerCall' in price) return price.microUsdPerCall
  return price && usage ? tokensMicroUsd(price, usage) : expectedMicroUsd(model, work, costPerImageUsd)
}

/**
 * What one such call is expected to cost, in micro-USD. `costPerImageUsd` is the operator's own figure and goes before the
 * table's; of words the table knows better. A model of which neither knows anything costs as much as the dearest one.
 */
export function expectedMicroUsd(model: string, work: Work, costPerImageUsd?: number): number {
  const price = priceOf(model)
  if (costPerImageUsd !== undefined && (makesImage(work.task) || !price)) return microUsd(costPerImageUsd)
  if (price) return tableMicroUsd(price, work)
  return Math.max(...Object.values(MODEL_PRICES).map((known) => tableMicroUsd(known, work)))
}

/** What one such call may cost whichever model of `chain` does it: the largest of what they are expected to; 0 without any. */
export function largestMicroUsd(chain: readonly string[], work: Work, costPerImageUsd?: number): number {
  return Math.max(0, ...chain.map((model) => expectedMicroUsd(model, work, costPerImageUsd)))
}

/** The table's entry for a model's id, dated snapshots of it included; undefined when there is none. */
export function priceOf(model: string): ModelPrice | undefined {
  const name = Object.hasOwn(MODEL_PRICES, model) ? model : model.replace(/-(\d{8}|\d{4}-\d{2}-\d{2})$/, '')
  return Object.hasOwn(MODEL_PRICES, name) ? MODEL_PRICES[name] : undefined
}

/** The models whose figures were last looked at more than PRICE_AGE_DAYS_MAX days before `now`. */
export function stalePrices(now: Date): { model: string; source: string; asOf: string }[] {
  const oldest = now.getTime() - PRICE_AGE_DAYS_MAX * 86_400_000
  return Object.entries(MODEL_PRICES)
    .filter(([, { asOf }]) => Date.parse(asOf) < oldest)
    .map(([model, { source, asOf }]) => ({ model, source, asOf }))
}

function tableMicroUsd(price: ModelPrice, work: Work): number {
  return 'microUsdPerCall' in price ? price.microUsdPerCall : tokensMicroUsd(price, expectedUsage(price, work))
}

/** A picture made of another has its proportions, which nobody knows yet: it counts as the larger. From words it is square. */
function expectedUsage({ expects }: TokenPrice, { task, quality }: Work): TokenUsage {
  const { photoIn, oblongOut, thoughts = 0 } = expects
  const imageOut = takesImage(task) ? (oblongOut ?? expects.imageOut) : expects.imageOut
  const isPicture = makesImage(task)
  const answer = isPicture ? (imageOut ? 0 : SVG_TOKENS) : ANSWER_TOKENS
  return {
    textIn: PROMPT_TOKENS,
    imageIn: takesImage(task) ? photoIn : 0,
    textOut: answer + thoughts,
    imageOut: isPicture ? (imageOut?.[quality] ?? 0) : 0,
  }
}

/** Exact in integers until it is rounded, once. Gateways write -1 for what they do not know: nothing is cheaper than nothing. */
function tokensMicroUsd({ microUsdPerMillion: rates }: TokenPrice, usage: TokenUsage): number {
  const kinds = ['textIn', 'imageIn', 'textOut', 'imageOut'] as const
  return Math.ceil(kinds.reduce((sum, kind) => sum + Math.max(0, usage[kind]) * rates[kind], 0) / 1_000_000)
}

/** An operator's figure of six decimals at most; what is beyond them is the binary form of the number. */
function microUsd(usd: number): number {
  return Math.ceil(Number((usd * 1_000_000).toFixed(3)))
}
