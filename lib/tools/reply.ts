// How a result leaves: as JSON with base64 or a link, or as the bytes with the same facts in headers; never larger than a reply may be.
import { type Result, usedFallback } from '../ai/router.ts'
import { blobOn, putBlob } from '../blob.ts'
import { fitResult, MIME_TYPE } from '../image.ts'
import { describeError, log } from '../log.ts'
import type { Generation } from './generate.ts'

/** Vercel's limit for the body of a reply is 4.5 MB. */
const REPLY_BYTES_MAX = 4_400_000

/** The content type of a result's own bytes. */
export function mediaTypeOf(result: Result): string {
  return 'text' in result ? 'text/plain; charset=utf-8' : MIME_TYPE[result.format]
}

export function bytesOf(result: Result): Buffer {
  return 'text' in result ? Buffer.from(result.text) : result.bytes
}

/** Everything a reply says of a result but the result itself. */
export function factsOf({ made, closing, processingMs, cached, requestedProvider }: Generation, requestId: string) {
  const { result } = made
  return {
    ...('text' in result && { text: result.text }),
    mimeType: 'text' in result ? 'text/plain' : mediaTypeOf(result),
    ...('bytes' in result && { width: result.width, height: result.height }),
    provider: made.provider,
    ...(requestedProvider !== undefined && { requestedProvider }),
    model: made.model,
    processingTime: processingMs,
    cost: made.costMicroUsd / 1e6,
    usage: { tokens: closing.chargedTokens, images: 'bytes' in result ? 1 : 0, trial: closing.trial },
    balance: closing.balance,
    cached,
    fallback: { used: usedFallback(made), failed: made.failed },
    requestId,
  }
}

/**
 * The reply in the form that was asked for: a result's own bytes where `Accept` names their kind, JSON otherwise. What is too
 * large becomes a link where there is a store for it, and else (or with `Prefer: return=representation`, and for bytes) a
 * smaller encoding, which says so.
 */
export async function replyTo(request: Request, generation: Generation, requestId: string): Promise<Response> {
  const accept = request.headers.get('accept') ?? ''
  const { result } = generation.made
  if ('text' in result ? accept.startsWith('text/plain') : accept.startsWith('image/')) {
    return bytesReply(await fitting(generation, REPLY_BYTES_MAX))
  }
  const facts = factsOf(generation, requestId)
  const bytesMax = Math.floor(((REPLY_BYTES_MAX - Buffer.byteLength(JSON.stringify(facts))) * 3) / 4) - 32
  if (bytesOf(result).length <= bytesMax) return jsonReply(bytesOf(result), facts)
  const wantsResult = /(^|[,;\s])return=representation\b/i.test(request.headers.get('prefer') ?? '')
  const resultUrl = blobOn() && !wantsResult ? await linkTo(result) : undefined
  if (resultUrl !== undefined) return Response.json({ resultUrl, ...facts })
  const fitted = await fitting(generation, bytesMax)
  const { reencoded } = fitted
  return jsonReply(bytesOf(fitted.made.result), { ...factsOf(fitted, requestId), ...(reencoded && { reencoded }) })
}

/** The facts as JSON, with the result in base64, put in as bytes: encoding it as a JSON string would look at every character again. */
export function withResult(bytes: Buffer, facts: Record<string, unknown>): Buffer {
  const base64 = Buffer.from(bytes.toString('base64'), 'latin1')
  return Buffer.concat([Buffer.from('{"result":"'), base64, Buffer.from(`",${JSON.stringify(facts).slice(1)}`)])
}

function jsonReply(bytes: Buffer, facts: Record<string, unknown>): Response {
  return sendBytes(withResult(bytes, facts), { 'content-type': 'application/json' })
}

function bytesReply(generation: Generation & { reencoded: boolean }): Response {
  const { made, closing, processingMs, cached, requestedProvider, reencoded } = generation
  const { result } = made
  return sendBytes(bytesOf(result), {
    'content-type': mediaTypeOf(result),
    'x-provider': made.provider,
    ...(requestedProvider !== undefined && { 'x-requested-provider': requestedProvider }),
    'x-model': made.model,
    'x-processing-time': String(processingMs),
    'x-cost': String(made.costMicroUsd / 1e6),
    'x-tokens-charged': String(closing.chargedTokens),
    'x-trial': String(closing.trial),
    'x-balance-tokens': String(closing.balance.tokens),
    'x-balance-trial-generations': String(closing.balance.trialGenerations),
    ...('bytes' in result && { 'x-image-width': String(result.width), 'x-image-height': String(result.height) }),
    ...(reencoded && { 'x-reencoded': 'true' }),
    'x-cached': String(cached),
    'x-fallback-used': String(usedFallback(made)),
  })
}

/** The generation with a result of at most `bytesMax`. */
async function fitting(generation: Generation, bytesMax: number): Promise<Generation & { reencoded: boolean }> {
  const { result } = generation.made
  if ('text' in result || result.bytes.length <= bytesMax) return { ...generation, reencoded: false }
  const smaller = await fitResult(result, bytesMax)
  return { ...generation, made: { ...generation.made, result: smaller }, reencoded: true }
}

/** Undefined when the store does not take it: a paid result is delivered all the same. */
async function linkTo(result: Result): Promise<string | undefined> {
  try {
    return await putBlob('replies/', bytesOf(result), mediaTypeOf(result))
  } catch (error) {
    log('warn', 'result_not_stored', { error: describeError(error) })
    return undefined
  }
}

/** A response of these very bytes: given to Response as they are, it would copy the megabyte twice. */
export function sendBytes(bytes: Buffer, headers: Record<string, string>): Response {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(bytes)
      controller.close()
    },
  })
  return new Response(body, { headers: { ...headers, 'content-length': String(bytes.length) } })
}
