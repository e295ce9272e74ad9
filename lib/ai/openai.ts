// OpenAI by plain fetch: pictures by images/edits and images/generations, words by chat/completions.
import { randomUUID } from 'node:crypto'
import * as v from 'valibot'
import { config } from '../config.ts'
import { env } from '../env.ts'
import { MIME_TYPE } from '../image.ts'
import { offReason } from './availability.ts'
import { CAPABILITIES } from './capabilities.ts'
import { type Answer, apiBase, parseJson, post, refusal, unreadable } from './http.ts'
import { announcedChain, livingChain } from './models.ts'
import { costMicroUsd, expectedMicroUsd, largestMicroUsd, type TokenUsage } from './prices.ts'
import {
  type ModelRequest,
  makesImage,
  type Provider,
  ProviderError,
  type ProviderReply,
  type Quality,
  type RunContext,
  type SourceImage,
  takesImage,
  type Work,
} from './provider.ts'
import { withSuccessors } from './successors.ts'

const NAME = 'OpenAI'
const NO_MODEL = `${NAME} has no model here that removes backgrounds.`

export const openai: Provider = {
  id: 'openai',
  serves: CAPABILITIES.openai,
  reads: ['jpeg', 'png', 'webp'],
  unavailable: () => offReason('openai', env(), config()),
  cannot: (work) => (modelsFor(work).length > 0 ? null : NO_MODEL),
  estimateMicroUsd: (work) =>
    largestMicroUsd(modelsFor(work).slice(0, 1), work, config().ai.providers.openai.costPerImageUsd),
  ceilingMicroUsd: (work) => largestMicroUsd(modelsFor(work), work, config().ai.providers.openai.costPerImageUsd),
  run,
}

/** Its own "auto" would let the provider choose the price. */
const IMAGE_QUALITY: Record<Quality, string> = { draft: 'low', standard: 'medium', high: 'high' }
const VISION_DETAIL: Record<Quality, string> = { draft: 'low', standard: 'auto', high: 'high' }

/** The sizes that the price table knows, by the picture's proportions. */
const SIZES = [
  { size: '1024x1024', ratio: 1 },
  { size: '1536x1024', ratio: 3 / 2 },
  { size: '1024x1536', ratio: 2 / 3 },
]

const ANSWER_TOKENS_MAX = 2000
const CUT_OUT = 'Remove the background completely and leave the subject exactly as it is.'

const Count = v.nullish(v.number(), 0)
const ImageReply = v.object({
  data: v.nullish(v.array(v.object({ b64_json: v.nullish(v.string()) }))),
  usage: v.nullish(
    v.object({
      input_tokens: Count,
      input_tokens_details: v.nullish(v.object({ text_tokens: Count, image_tokens: Count })),
      output_tokens: Count,
      output_tokens_details: v.nullish(v.object({ text_tokens: Count })),
    }),
  ),
})
type ImageReply = v.InferOutput<typeof ImageReply>

const ChatReply = v.object({
  choices: v.nullish(
    v.array(
      v.object({
        finish_reason: v.nullish(v.string()),
        message: v.nullish(v.object({ content: v.nullish(v.string()), refusal: v.nullish(v.string()) })),
      }),
    ),
  ),
  usage: v.nullish(v.object({ prompt_tokens: Count, completion_tokens: Count })),
})

const Failure = v.object({
  error: v.object({
    message: v.nullish(v.string()),
    type: v.nullish(v.string()),
    param: v.nullish(v.string()),
    code: v.nullish(v.string()),
  }),
})

/** Codes that the status alone does not tell. */
const BLOCKED_CODES = ['moderation_blocked', 'content_policy_violation', 'content_filter']
const SPENT_CODES = ['insufficient_quota', 'billing_hard_limit_reached']

/** It refuses to draw on nothing since 2026-09-30. */
const WITHOUT_TRANSPARENCY = /^gpt-image-2(-\d{4}-\d{2}-\d{2})?$/

async function run(request: ModelRequest, { signal }: RunContext): Promise<ProviderReply> {
  if (takesImage(request.task) && !request.image) throw new ProviderError('bad_request', 'There is no picture.')
  const models = modelsFor(request)
  if (models.length === 0) throw new ProviderError('bad_request', NO_MODEL)
  const ask = makesImage(request.task) ? draw : write
  return await withSuccessors('openai', models, (model) => ask(model, request, signal))
}

/** The models that may do this work, the configured one first; none where no configured one can. */
function modelsFor({ task }: Work): string[] {
  const { model, successors, textModel } = config().ai.providers.openai
  if (!makesImage(task)) return announcedChain(textModel)
  const chain = livingChain([model, ...successors])
  return task === 'remove-background' ? chain.filter((name) => !WITHOUT_TRANSPARENCY.test(name)) : chain
}

function expected(model: string, work: Work): number {
  return expectedMicroUsd(model, work, config().ai.providers.openai.costPerImageUsd)
}

function costOf(model: string, usage: TokenUsage | undefined, work: Work): number {
  return costMicroUsd(model, usage, work, config().ai.providers.openai.costPerImageUsd)
}

async function send(path: string, body: FormData | object, model: string, work: Work, signal: AbortSignal) {
  const { apiKey = '', baseUrl } = env().openai
  const isForm = body instanceof FormData
  const answer = await post({
    provider: NAME,
    url: apiBase(baseUrl, 'https://api.openai.com', '/v1') + path,
    headers: { authorization: `Bearer ${apiKey}`, ...(!isForm && { 'content-type': 'application/json' }) },
    body: isForm ? body : JSON.stringify(body),
    signal,
    expectedMicroUsd: expected(model, work),
  })
  if (answer.status !== 200) throw failureOf(answer)
  return answer
}

async function draw(model: string, request: ModelRequest, signal: AbortSignal): Promise<ProviderReply> {
  const { task, quality, image } = request
  const fields = {
    model,
    prompt: request.prompt || CUT_OUT,
    quality: IMAGE_QUALITY[quality],
    size: sizeFor(image),
    output_format: 'png',
    ...(task === 'remove-background' && { background: 'transparent' }),
  }
  const answer = image
    ? await send('/images/edits', editForm(fields, image), model, request, signal)
    : await send('/images/generations', fields, model, request, signal)
  const { base64, reply } = readImageReply(answer) ?? {}
  if (!reply) throw unreadable(NAME, answer, expected(model, request))
  const bytes = Buffer.from(base64 ?? '', 'base64')
  const cost = costOf(model, imageUsage(reply, bytes.length > 0), request)
  if (bytes.length === 0) {
    throw new ProviderError('no_image', `${NAME} answered without an image.`, { costMicroUsd: cost })
  }
  return { output: { bytes }, model, costMicroUsd: cost }
}

function editForm(fields: Record<string, string>, { bytes, format }: SourceImage): FormData {
  const form = new FormData()
  for (const [name, value] of Object.entries(fields)) form.append(name, value)
  form.append('image[]', new Blob([new Uint8Array(bytes)], { type: MIME_TYPE[format] }), `image.${format}`)
  return form
}

/** The size closest to the picture's proportions; square where there is none. */
function sizeFor(image: SourceImage | undefined): string {
  const ratio = image ? image.width / image.height : 1
  const distance = (candidate: { ratio: number }) => Math.abs(Math.log(ratio / candidate.ratio))
  return SIZES.reduce((best, next) => (distance(next) < distance(best) ? next : best)).size
}

const IMAGE_KEY = Buffer.from('"b64_json"')
/** Stands where the image was cut out; nobody can send it, so it is found again only there. */
const CUT = randomUUID()
const QUOTE = 0x22
const BACKSLASH = 0x5c

/**
 * The reply and the base64 of its first image. Megabytes of base64 are found by their quotes and cut out as bytes before the
 * rest is parsed, which costs a tenth of JSON.parse; what looks in any way unusual is parsed the plain way.
 */
function readImageReply(answer: Answer): { base64: string | undefined; reply: ImageReply } | undefined {
  const { bytes } = answer
  const key = bytes.indexOf(IMAGE_KEY)
  const colon = key < 0 ? null : /^\s*:\s*"/.exec(bytes.toString('latin1', key + IMAGE_KEY.length, key + 64))
  const start = colon ? key + IMAGE_KEY.length + colon[0].length : -1
  const end = start < 0 ? -1 : bytes.indexOf(QUOTE, start)
  if (end >= 0 && !bytes.subarray(start, end).includes(BACKSLASH)) {
    const rest = Buffer.concat([bytes.subarray(0, start), Buffer.from(CUT), bytes.subarray(end)])
    const cut = v.safeParse(ImageReply, parseJson({ ...answer, bytes: rest }))
    if (cut.success && cut.output.data?.[0]?.b64_json === CUT) {
      return { base64: bytes.toString('latin1', start, end), reply: cut.output }
    }
  }
  const plain = v.safeParse(ImageReply, parseJson(answer))
  return plain.success ? { base64: plain.output.data?.[0]?.b64_json ?? undefined, reply: plain.output } : undefined
}

/**
 * The details of the output are left out more often than not: all of it is then the picture. Undefined where the reply does not
 * say, or leaves its picture out, as gateways do.
 */
function imageUsage({ usage }: ImageReply, hasImage: boolean): TokenUsage | undefined {
  if (!usage) return undefined
  const { input_tokens, input_tokens_details: input, output_tokens, output_tokens_details: output } = usage
  const textOut = output?.text_tokens ?? 0
  const imageOut = Math.max(0, output_tokens - textOut)
  if (hasImage && imageOut === 0) return undefined
  return {
    textIn: input?.text_tokens ?? 0,
    imageIn: input ? input.image_tokens : input_tokens,
    textOut,
    imageOut,
  }
}

async function write(model: string, request: ModelRequest, signal: AbortSignal): Promise<ProviderReply> {
  const { image, prompt, quality } = request
  const url = image && `data:${MIME_TYPE[image.format]};base64,${image.bytes.toString('base64')}`
  const picture = url ? [{ type: 'image_url', image_url: { url, detail: VISION_DETAIL[quality] } }] : []
  const content = [{ type: 'text', text: prompt }, ...picture]
  const body = { model, max_completion_tokens: ANSWER_TOKENS_MAX, messages: [{ role: 'user', content }] }
  const answer = await send('/chat/completions', body, model, request, signal)
  const parsed = v.safeParse(ChatReply, parseJson(answer))
  if (!parsed.success) throw unreadable(NAME, answer, expected(model, request))
  const { finish_reason, message } = parsed.output.choices?.[0] ?? {}
  const text = message?.content?.trim() ?? ''
  const cost = costOf(model, wordsUsage(parsed.output, text !== '' || Boolean(message?.refusal)), request)
  if (finish_reason === 'content_filter' || message?.refusal) {
    throw new ProviderError('blocked', `${NAME} refused the content.`, { costMicroUsd: cost })
  }
  if (finish_reason === 'length') {
    throw new ProviderError('no_image', `${NAME}'s answer was not finished.`, { costMicroUsd: cost })
  }
  if (text === '') throw new ProviderError('no_image', `${NAME} answered without a word.`, { costMicroUsd: cost })
  return { output: { text }, model, costMicroUsd: cost }
}

/** Undefined where the reply does not say, or leaves its words out. */
function wordsUsage({ usage }: v.InferOutput<typeof ChatReply>, hasWords: boolean): TokenUsage | undefined {
  if (!usage || (hasWords && usage.completion_tokens <= 0)) return undefined
  return { textIn: usage.prompt_tokens, imageIn: 0, textOut: usage.completion_tokens, imageOut: 0 }
}

function failureOf(answer: Answer): ProviderError {
  const parsed = v.safeParse(Failure, parseJson(answer))
  const { code, param, message, type } = parsed.success ? parsed.output.error : {}
  const upstream = [type, code, message].filter(Boolean).join(' ')
  const fail = (kind?: 'blocked' | 'model_gone' | 'bad_request') => refusal(NAME, answer, { kind, upstream })
  if (answer.status === 400 && code && BLOCKED_CODES.includes(code)) return fail('blocked')
  if (code === 'model_not_found' || (answer.status === 400 && param === 'model')) return fail('model_gone')
  if (code && SPENT_CODES.includes(code)) {
    return refusal(NAME, answer, { kind: 'auth', message: `${NAME}'s quota is used up.`, upstream })
  }
  return fail()
}
