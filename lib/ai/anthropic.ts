// Anthropic by plain fetch: words about a picture, and drafts of line art as SVG that is rebuilt and rasterised here.
import * as v from 'valibot'
import { config } from '../config.ts'
import { env } from '../env.ts'
import { rasterize } from '../image/pixels.ts'
import { MIME_TYPE } from '../image.ts'
import { offReason } from './availability.ts'
import { CAPABILITIES } from './capabilities.ts'
import { type Answer, apiBase, parseJson, post, refusal, unreadable } from './http.ts'
import { livingChain } from './models.ts'
import { costMicroUsd, expectedMicroUsd, largestMicroUsd, type TokenUsage } from './prices.ts'
import {
  type ModelRequest,
  makesImage,
  type Provider,
  ProviderError,
  type ProviderReply,
  type RunContext,
  type SourceImage,
  type Work,
} from './provider.ts'
import { type Source, sourceWithin } from './source.ts'
import { withSuccessors } from './successors.ts'
import { cleanSvg } from './svg.ts'

const NAME = 'Anthropic'

export const anthropic: Provider = {
  id: 'anthropic',
  serves: CAPABILITIES.anthropic,
  reads: ['jpeg', 'png', 'webp', 'gif'],
  unavailable: () => offReason('anthropic', env(), config()),
  estimateMicroUsd: (work) =>
    largestMicroUsd(models().slice(0, 1), work, config().ai.providers.anthropic.costPerImageUsd),
  ceilingMicroUsd: (work) => largestMicroUsd(models(), work, config().ai.providers.anthropic.costPerImageUsd),
  run,
}

/** It takes 5 MB of base64; the side is the one to which it scales pictures down itself. */
const SOURCE_LIMITS = { bytesMax: 3_700_000, sideMax: 8000, pixelsMax: 64_000_000, shrunkSide: 1568 }

const ANSWER_TOKENS_MAX = 2000
const SVG_TOKENS_MAX = 8192
const DRAWING_SIDE = 1024

const Reply = v.object({
  content: v.nullish(v.array(v.object({ type: v.string(), text: v.nullish(v.string()) }))),
  stop_reason: v.nullish(v.string()),
  usage: v.nullish(
    v.object({
      input_tokens: v.nullish(v.number(), 0),
      cache_creation_input_tokens: v.nullish(v.number(), 0),
      cache_read_input_tokens: v.nullish(v.number(), 0),
      output_tokens: v.nullish(v.number(), 0),
    }),
  ),
})

type Reply = v.InferOutput<typeof Reply>

const Failure = v.object({ error: v.object({ type: v.nullish(v.string()), message: v.nullish(v.string()) }) })

/** It has no type of its own: only its words tell it from a bad request. */
const CREDIT_SPENT = /credit balance is too low/i

async function run(request: ModelRequest, { signal }: RunContext): Promise<ProviderReply> {
  const source = await sourceWithin(request, SOURCE_LIMITS)
  const ask = makesImage(request.task) ? draw : write
  return await withSuccessors('anthropic', models(), (model) => ask(model, request, source, signal))
}

function models(): string[] {
  const { model, successors } = config().ai.providers.anthropic
  return livingChain([model, ...successors])
}

function expected(model: string, work: Work): number {
  return expectedMicroUsd(model, work, config().ai.providers.anthropic.costPerImageUsd)
}

async function write(
  model: string,
  request: ModelRequest,
  source: Source | undefined,
  signal: AbortSignal,
): Promise<ProviderReply> {
  const { text, cost, stop } = await ask(model, request, source, { max_tokens: ANSWER_TOKENS_MAX }, signal)
  if (stop === 'max_tokens') {
    throw new ProviderError('no_image', `${NAME}'s answer was not finished.`, { costMicroUsd: cost })
  }
  if (text === '') throw new ProviderError('no_image', `${NAME} answered without a word.`, { costMicroUsd: cost })
  return { output: { text }, model, costMicroUsd: cost }
}

async function draw(
  model: string,
  request: ModelRequest,
  source: Source | undefined,
  signal: AbortSignal,
): Promise<ProviderReply> {
  const { width, height } = drawingSize(request.image)
  const options = { max_tokens: SVG_TOKENS_MAX, system: drawingRules(width, height) }
  const { text, cost, stop } = await ask(model, request, source, options, signal)
  if (stop === 'max_tokens') {
    throw new ProviderError('no_image', `${NAME}'s drawing was not finished.`, { costMicroUsd: cost })
  }
  const svg = cleanSvg(text, width, height)
  if (!svg) throw new ProviderError('no_image', `${NAME} answered without a drawing.`, { costMicroUsd: cost })
  const bytes = await rasterize(svg).catch((cause) => {
    throw new ProviderError('no_image', `${NAME}'s drawing could not be rendered.`, { costMicroUsd: cost, cause })
  })
  return { output: { bytes }, model, costMicroUsd: cost }
}

/** The proportions of the picture; a square without one. */
function drawingSize(image: SourceImage | undefined): { width: number; height: number } {
  if (!image) return { width: DRAWING_SIDE, height: DRAWING_SIDE }
  const scale = DRAWING_SIDE / Math.max(image.width, image.height)
  const scaled = (side: number) => Math.max(1, Math.round(side * scale))
  return { width: scaled(image.width), height: scaled(image.height) }
}

/** What the rebuilding of the drawing keeps, told beforehand. */
function drawingRules(width: number, height: number): string {
  return [
    'You draw pictures as SVG line art and answer with one SVG document alone.',
    `Begin with <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" fill="none" stroke="#000">.`,
    'Use only the elements g, path, line, polyline, polygon, circle, ellipse and rect, and only the attributes that give their',
    'geometry, fill, fill-rule, stroke, stroke-width, stroke-linecap, stroke-linejoin and transform.',
    'Draw at most 150 elements in few words: relative path commands, whole numbers.',
    'No style, class, defs, text, filters, gradients, links or scripts: they are thrown away.',
  ].join(' ')
}

async function ask(
  model: string,
  request: ModelRequest,
  source: Source | undefined,
  options: { max_tokens: number; system?: string },
  signal: AbortSignal,
) {
  const { apiKey = '', baseUrl } = env().anthropic
  const picture = source && {
    type: 'image',
    source: { type: 'base64', media_type: MIME_TYPE[source.format], data: source.bytes.toString('base64') },
  }
  const content = [...(picture ? [picture] : []), { type: 'text', text: request.prompt }]
  const answer = await post({
    provider: NAME,
    url: `${apiBase(baseUrl, 'https://api.anthropic.com', '/v1')}/messages`,
    headers: { 'x-api-key': apiKey, 'anthropic-version': '2023-06-01', 'content-type': 'application/json' },
    body: JSON.stringify({ model, ...options, messages: [{ role: 'user', content }] }),
    signal,
    expectedMicroUsd: expected(model, request),
  })
  if (answer.status !== 200) throw failureOf(answer)
  return readReply(answer, model, request)
}

function readReply(answer: Answer, model: string, work: Work) {
  const parsed = v.safeParse(Reply, parseJson(answer))
  if (!parsed.success) throw unreadable(NAME, answer, expected(model, work))
  const { content, stop_reason } = parsed.output
  const text = (content ?? [])
    .map((part) => (part.type === 'text' ? part.text : ''))
    .join('')
    .trim()
  const usage = usageOf(parsed.output, text !== '')
  const cost = costMicroUsd(model, usage, work, config().ai.providers.anthropic.costPerImageUsd)
  if (stop_reason === 'refusal') {
    throw new ProviderError('blocked', `${NAME} refused the content.`, { costMicroUsd: cost })
  }
  return { text, cost, stop: stop_reason }
}

/** Undefined where the reply does not say, or leaves its words out. */
function usageOf({ usage }: Reply, hasWords: boolean): TokenUsage | undefined {
  if (!usage || (hasWords && usage.output_tokens <= 0)) return undefined
  return {
    textIn: usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens,
    imageIn: 0,
    textOut: usage.output_tokens,
    imageOut: 0,
  }
}

function failureOf(answer: Answer): ProviderError {
  const parsed = v.safeParse(Failure, parseJson(answer))
  const { type, message } = parsed.success ? parsed.output.error : {}
  const upstream = [type, message].filter(Boolean).join(' ')
  if (answer.status === 400 && CREDIT_SPENT.test(message ?? '')) {
    return refusal(NAME, answer, { kind: 'auth', message: `${NAME}'s credit is used up.`, upstream })
  }
  const kind = type === 'not_found_error' ? 'model_gone' : undefined
  return refusal(NAME, answer, { kind, upstream })
}
