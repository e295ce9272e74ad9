// Google Gemini through @google/generative-ai: what is asked for, of which of its models, and what that cost.
import type { GenerationConfig, GenerativeModel, Part } from '@google/generative-ai'
import * as v from 'valibot'
import { config } from '../config.ts'
import { env } from '../env.ts'
import { MIME_TYPE } from '../image.ts'
import { offReason } from './availability.ts'
import { CAPABILITIES } from './capabilities.ts'
import { httpFailure } from './gemini-errors.ts'
import { answerText, blockReason, GeminiReply, isCutOff, lastImage, usageOf } from './gemini-reply.ts'
import { announcedChain, livingChain } from './models.ts'
import { costMicroUsd, expectedMicroUsd, largestMicroUsd } from './prices.ts'
import { FIRMER_INSTRUCTION } from './prompt.ts'
import {
  type ModelRequest,
  makesImage,
  type Output,
  type Provider,
  ProviderError,
  type ProviderReply,
  type RunContext,
  takesImage,
  type Work,
} from './provider.ts'
import { withSuccessors } from './successors.ts'

export const gemini: Provider = {
  id: 'gemini',
  serves: CAPABILITIES.gemini,
  reads: ['jpeg', 'png', 'webp', 'heic'],
  unavailable: () => offReason('gemini', env(), config()),
  // Of one question: the second one follows an answer without a picture, whose words are a small part of what one costs.
  estimateMicroUsd: (work) =>
    largestMicroUsd(modelsFor(work).slice(0, 1), work, config().ai.providers.gemini.costPerImageUsd),
  ceilingMicroUsd: (work) => largestMicroUsd(modelsFor(work), work, config().ai.providers.gemini.costPerImageUsd),
  run,
}

interface Question {
  instruction: string
  generationConfig: GenerationConfig & { responseModalities?: string[] }
}

/** What is asked first, and what after a reply without an image: chatting is then ruled out. */
const FOR_IMAGE: Question[] = [
  { instruction: '', generationConfig: { responseModalities: ['TEXT', 'IMAGE'] } },
  { instruction: ` ${FIRMER_INSTRUCTION}`, generationConfig: { responseModalities: ['IMAGE'] } },
]

/** Long enough for any answer a tool wants, and an end to one that runs away. */
const FOR_TEXT: Question[] = [{ instruction: '', generationConfig: { maxOutputTokens: 8192 } }]

/** Inflating a megabyte of base64 costs more CPU than the rest of a request. */
const REQUEST_OPTIONS = { customHeaders: { 'accept-encoding': 'identity' } }

let sdkLoading: Promise<typeof import('@google/generative-ai')> | undefined

function loadSdk() {
  sdkLoading ??= import('@google/generative-ai')
  return sdkLoading
}

async function run(request: ModelRequest, { signal }: RunContext): Promise<ProviderReply> {
  const source = sourceOf(request)
  return await withSuccessors('gemini', modelsFor(request), (model) => answer(model, request, source, signal))
}

/** The configured models, the first one first; for words the one that is known to take over as well. Seed names are resolved. */
function modelsFor({ task }: Work): string[] {
  const { model, successors, textModel } = config().ai.providers.gemini
  return makesImage(task) ? livingChain([model, ...successors]) : announcedChain(textModel)
}

function sourceOf({ task, image }: ModelRequest): Part[] {
  if (!takesImage(task)) return []
  if (!image) throw new ProviderError('bad_request', 'There is no picture.')
  return [{ inlineData: { mimeType: MIME_TYPE[image.format], data: image.bytes.toString('base64') } }]
}

async function answer(
  modelName: string,
  request: ModelRequest,
  source: Part[],
  signal: AbortSignal,
): Promise<ProviderReply> {
  const { GoogleGenerativeAI, GoogleGenerativeAIError, GoogleGenerativeAIFetchError } = await loadSdk()
  const { apiKey = '', baseUrl } = env().gemini
  const model = new GoogleGenerativeAI(apiKey).getGenerativeModel(
    { model: modelName },
    { ...REQUEST_OPTIONS, ...(baseUrl && { baseUrl }) },
  )
  const isImage = makesImage(request.task)
  let spentMicroUsd = 0
  try {
    for (const { instruction, generationConfig } of isImage ? FOR_IMAGE : FOR_TEXT) {
      // The SDK would send it all the same.
      if (signal.aborted) throw timedOut(spentMicroUsd, signal.reason)
      const parts = [{ text: request.prompt + instruction }, ...source]
      const reply = await ask(model, parts, generationConfig, signal)
      const output = isImage ? imageOutput(reply) : textOutput(reply)
      spentMicroUsd += billOf(reply, modelName, request, output)
      if (!isImage && isCutOff(reply)) {
        throw new ProviderError('no_image', "Gemini's answer was not finished.", { costMicroUsd: spentMicroUsd })
      }
      if (output) return { output, model: modelName, costMicroUsd: spentMicroUsd }
      const reason = blockReason(reply)
      if (reason) {
        throw new ProviderError('blocked', `Gemini refused the request (${reason}).`, { costMicroUsd: spentMicroUsd })
      }
    }
  } catch (error) {
    if (error instanceof ProviderError) throw error
    if (error instanceof GoogleGenerativeAIFetchError) throw httpFailure(error, spentMicroUsd)
    // The SDK has names for all that goes wrong before an answer begins: whatever else there is was an answer, and is billed.
    if (!(error instanceof GoogleGenerativeAIError) && !isPage(error)) {
      spentMicroUsd += expected(modelName, request)
    }
    if (signal.aborted) throw timedOut(spentMicroUsd, error)
    const isUnreadable = error instanceof SyntaxError || v.isValiError(error)
    const message = isUnreadable ? "Gemini's reply could not be read." : 'Gemini could not be reached.'
    throw new ProviderError('network', message, { costMicroUsd: spentMicroUsd, cause: error })
  }
  const message = isImage ? 'Gemini answered without an image, twice.' : 'Gemini answered without a word.'
  throw new ProviderError('no_image', message, { costMicroUsd: spentMicroUsd })
}

function timedOut(costMicroUsd: number, cause: unknown): ProviderError {
  return new ProviderError('timeout', 'Gemini ran out of time.', { costMicroUsd, cause })
}

/** HTML where JSON belongs: something in between answered, and not Google. */
function isPage(error: unknown): boolean {
  return error instanceof SyntaxError && error.message.includes("token '<'")
}

/** One request, whose signal the SDK would never let go of. */
async function ask(
  model: GenerativeModel,
  parts: Part[],
  generationConfig: Question['generationConfig'],
  signal: AbortSignal,
): Promise<GeminiReply> {
  const call = new AbortController()
  const abort = () => call.abort()
  signal.addEventListener('abort', abort, { once: true })
  try {
    const contents = [{ role: 'user', parts }]
    const { response } = await model.generateContent({ contents, generationConfig }, { signal: call.signal })
    return v.parse(GeminiReply, response)
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

function imageOutput(reply: GeminiReply): Output | undefined {
  const image = lastImage(reply)
  return image === undefined ? undefined : { bytes: Buffer.from(image, 'base64') }
}

/** Words that a filter cut off are no answer, unlike a picture, which is there whole or not at all. */
function textOutput(reply: GeminiReply): Output | undefined {
  const text = blockReason(reply) ? undefined : answerText(reply)
  return text === undefined ? undefined : { text }
}

function expected(model: string, work: Work): number {
  return expectedMicroUsd(model, work, config().ai.providers.gemini.costPerImageUsd)
}

/** A reply that gives nothing and says nothing of its usage is not billed; one that leaves its words out of it is no bill. */
function billOf(reply: GeminiReply, model: string, work: Work, output: Output | undefined): number {
  const told = usageOf(reply)
  if (!told && !output) return 0
  const usage = output && 'text' in output && told?.textOut === 0 ? undefined : told
  return costMicroUsd(model, usage, work, config().ai.providers.gemini.costPerImageUsd)
}
