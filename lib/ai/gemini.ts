// Google Gemini through @google/generative-ai: request, reply, cost and failures translated, nothing else.
import type { GenerationConfig, GenerativeModel, GoogleGenerativeAIFetchError, Part } from '@google/generative-ai'
import * as v from 'valibot'
import { config } from '../config.ts'
import { env } from '../env.ts'
import { MIME_TYPE } from '../image.ts'
import { FIRMER_INSTRUCTION } from './prompt.ts'
import {
  type ImageReply,
  type ImageRequest,
  type Provider,
  ProviderError,
  type ProviderErrorKind,
  type RunContext,
} from './provider.ts'

export const gemini: Provider = {
  id: 'gemini',
  capabilities: ['image->image'],
  reads: ['jpeg', 'png', 'webp', 'heic'],
  unavailable: () => (env().gemini.apiKey ? null : 'GEMINI_API_KEY is not set'),
  run,
}

/** The fields of a reply that are used; the SDK's own types know neither image output nor `thought`. */
const Reply = v.object({
  candidates: v.nullish(
    v.array(
      v.object({
        finishReason: v.nullish(v.string()),
        content: v.nullish(
          v.object({
            parts: v.nullish(
              v.array(
                v.object({ thought: v.nullish(v.boolean()), inlineData: v.nullish(v.object({ data: v.string() })) }),
              ),
            ),
          }),
        ),
      }),
    ),
  ),
  promptFeedback: v.nullish(v.object({ blockReason: v.nullish(v.string()) })),
  usageMetadata: v.nullish(
    v.object({
      candidatesTokenCount: v.nullish(v.number()),
      candidatesTokensDetails: v.nullish(
        v.array(v.object({ modality: v.nullish(v.string()), tokenCount: v.nullish(v.number()) })),
      ),
    }),
  ),
})
type Reply = v.InferOutput<typeof Reply>

/** `details` of Google's errors: google.rpc.ErrorInfo, RetryInfo and QuotaFailure in one. */
const ErrorDetails = v.array(
  v.object({
    reason: v.nullish(v.string()),
    retryDelay: v.nullish(v.string()),
    violations: v.nullish(
      v.array(v.object({ quotaId: v.nullish(v.string()), quotaValue: v.nullish(v.union([v.string(), v.number()])) })),
    ),
  }),
)

/** Compared as strings: Google adds reasons faster than SDKs add enums. Any other reason counts as "no image, ask once more". */
const BLOCKED_FINISHES = new Set([
  'SAFETY',
  'IMAGE_SAFETY',
  'PROHIBITED_CONTENT',
  'IMAGE_PROHIBITED_CONTENT',
  'BLOCKLIST',
  'SPII',
  'RECITATION',
  'IMAGE_RECITATION',
])

/** What is asked first, and what after a reply without an image: chatting is then ruled out. */
const ATTEMPTS = [
  { responseModalities: ['TEXT', 'IMAGE'], instruction: '' },
  { responseModalities: ['IMAGE'], instruction: ` ${FIRMER_INSTRUCTION}` },
]

/** What gemini-2.5-flash-image counts for one image; its successors count a little less. */
const TOKENS_PER_IMAGE = 1290
const GONE_FOR_MS = 10 * 60_000

/** Inflating a megabyte of base64 costs more CPU than the rest of a request. */
const REQUEST_OPTIONS = { customHeaders: { 'accept-encoding': 'identity' } }

let sdkLoading: Promise<typeof import('@google/generative-ai')> | undefined

function loadSdk() {
  sdkLoading ??= import('@google/generative-ai')
  return sdkLoading
}

async function run(request: ImageRequest, { signal }: RunContext): Promise<ImageReply> {
  const { format, bytes } = request.image
  const source: Part = { inlineData: { mimeType: MIME_TYPE[format], data: bytes.toString('base64') } }
  let gone: unknown
  for (const model of modelsToTry()) {
    try {
      return await draw(model, request.prompt, source, signal)
    } catch (error) {
      if (!(error instanceof ProviderError) || error.kind !== 'model_gone') throw error
      goneUntil.set(model, Date.now() + GONE_FOR_MS)
      gone = error
    }
  }
  throw gone
}

/** When models that answered 404 may be asked again. This process's own memory; it and the function below are all that know of it. */
const goneUntil = new Map<string, number>()

/** The configured model and its successors without those known to be gone; all of them when none would be left. */
function modelsToTry(): string[] {
  const { model, successors } = config().ai.providers.gemini
  const chain = [model, ...successors]
  const present = chain.filter((name) => (goneUntil.get(name) ?? 0) <= Date.now())
  return present.length > 0 ? present : chain
}

async function draw(modelName: string, prompt: string, source: Part, signal: AbortSignal): Promise<ImageReply> {
  const { GoogleGenerativeAI, GoogleGenerativeAIFetchError } = await loadSdk()
  const { apiKey = '', baseUrl } = env().gemini
  const model = new GoogleGenerativeAI(apiKey).getGenerativeModel(
    { model: modelName },
    { ...REQUEST_OPTIONS, ...(baseUrl && { baseUrl: baseUrl.replace(/\/+$/, '') }) },
  )
  let costMicroUsd = 0
  try {
    for (const { responseModalities, instruction } of ATTEMPTS) {
      const reply = await ask(model, [{ text: prompt + instruction }, source], { responseModalities }, signal)
      const image = lastImage(reply)
      costMicroUsd += costOf(reply, image !== undefined)
      if (image) return { bytes: Buffer.from(image, 'base64'), model: modelName, costMicroUsd }
      const reason = blockReason(reply)
      if (reason) throw new ProviderError('blocked', `Gemini refused the picture (${reason}).`, { costMicroUsd })
    }
  } catch (error) {
    if (error instanceof ProviderError) throw error
    if (signal.aborted) throw new ProviderError('timeout', 'Gemini ran out of time.', { costMicroUsd, cause: error })
    if (error instanceof GoogleGenerativeAIFetchError) throw httpFailure(error, costMicroUsd)
    const isUnreadable = error instanceof SyntaxError || v.isValiError(error)
    const message = isUnreadable ? "Gemini's reply could not be read." : 'Gemini could not be reached.'
    throw new ProviderError('network', message, { costMicroUsd, cause: error })
  }
  throw new ProviderError('no_image', 'Gemini answered without an image, twice.', { costMicroUsd })
}

/** One request. The SDK sends it even when its signal has aborted, and never lets go of that signal: both are prevented here. */
async function ask(
  model: GenerativeModel,
  parts: Part[],
  output: { responseModalities: string[] },
  signal: AbortSignal,
) {
  signal.throwIfAborted()
  const call = new AbortController()
  const abort = () => call.abort()
  signal.addEventListener('abort', abort, { once: true })
  const generationConfig: GenerationConfig & typeof output = output
  try {
    const contents = [{ role: 'user', parts }]
    const { response } = await model.generateContent({ contents, generationConfig }, { signal: call.signal })
    return v.parse(Reply, response)
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** The last image that is no thought: models that think send their drafts first. */
function lastImage(reply: Reply): string | undefined {
  const parts = reply.candidates?.flatMap((candidate) => candidate.content?.parts ?? []) ?? []
  return parts.findLast((part) => part.inlineData?.data && !part.thought)?.inlineData?.data
}

function blockReason(reply: Reply): string | undefined {
  const reason = reply.promptFeedback?.blockReason
  if (reason) return reason
  return reply.candidates
    ?.map((candidate) => candidate.finishReason ?? '')
    .find((finish) => BLOCKED_FINISHES.has(finish))
}

/**
 * The configured price for each image in the bill. A reply without an image that was billed all the same costs the part of
 * one image that its tokens make up: too much for text, which is cheaper, so that a budget is never overrun unseen.
 */
function costOf({ usageMetadata }: Reply, hasImage: boolean): number {
  const details = usageMetadata?.candidatesTokensDetails ?? []
  const imageTokens = details.reduce(
    (sum, { modality, tokenCount }) => sum + (modality === 'IMAGE' ? (tokenCount ?? 0) : 0),
    0,
  )
  const images = hasImage
    ? Math.max(1, Math.round(imageTokens / TOKENS_PER_IMAGE))
    : Math.min(1, (usageMetadata?.candidatesTokenCount ?? 0) / TOKENS_PER_IMAGE)
  return Math.round(images * config().ai.providers.gemini.costPerImageUsd * 1e6)
}

function httpFailure(error: GoogleGenerativeAIFetchError, costMicroUsd: number): ProviderError {
  const { status = 0, message } = error
  const parsed = v.safeParse(ErrorDetails, error.errorDetails)
  const details = parsed.success ? parsed.output : []
  const fail = (kind: ProviderErrorKind, text: string, retryAfterMs?: number) =>
    new ProviderError(kind, text, { retryAfterMs, costMicroUsd, cause: error })

  const isBadKey = message.includes('API key not valid') || details.some(({ reason }) => reason === 'API_KEY_INVALID')
  const isRefused = status === 401 || status === 403 || (status === 400 && isBadKey)
  if (isRefused) return fail('auth', 'Gemini refused the API key.')
  if (status === 404) return fail('model_gone', 'Gemini does not have this model any more.')
  if (status === 429) return fail('rate_limited', 'Gemini is at its rate limit.', waitMs(details, message))
  if (status >= 500) return fail('overloaded', `Gemini is overloaded or down (${status}).`)
  return fail('bad_request', `Gemini refused the request (${status}).`)
}

/** Google's advice on when to try again; none for a day's quota or a quota of zero, where the advice it gives is wrong. */
function waitMs(details: v.InferOutput<typeof ErrorDetails>, message: string): number | undefined {
  const quotas = details.flatMap(({ violations }) => violations ?? [])
  const isSpent = quotas.some(({ quotaId, quotaValue }) => quotaId?.includes('PerDay') || Number(quotaValue ?? 1) === 0)
  if (isSpent || /limit: 0(?![.\d])/.test(message)) return undefined
  const delay = details.find(({ retryDelay }) => retryDelay)?.retryDelay
  const seconds = /^(\d+(?:\.\d+)?)s$/.exec(delay ?? '')?.[1]
  return seconds === undefined ? undefined : Math.ceil(Number(seconds) * 1000)
}
