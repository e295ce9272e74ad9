// How a result leaves: as JSON with base64 or a link, or as the bytes with the same facts in headers; never larger than a reply may be.
import { type Result, usedFallback } from '../ai/router.ts'
import { blobOn, putBlob } from '../blob.ts'
import { prefers } from '../http/headers.ts'
import { fitResult, MIME_TYPE } from '../image.ts'
import { describeError, log } from '../log.ts'
import type { Delivered, Delivery, Generation } from './generate.ts'

/** Vercel's limit for the body of a reply is 4.5 MB. */
const REPLY_BYTES_MAX = 4_400_000
/** In base64, with everything that is said of it, this is within that limit. */
export const JSON_RESULT_BYTES_MAX = 3_200_000

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

/** Whether the result's own bytes are asked for: `Accept` names their kind first, and no stream of events, which carries JSON. */
export function wantsBytes(accept: string, mediaType: string): boolean {
  return accept.startsWith(mediaType.startsWith('image/') ? 'image/' : 'text/plain') && !wantsEvents(accept)
}

/** Whether progress is asked for, as server-sent events. */
export function wantsEvents(accept: string): boolean {
  return accept.includes('text/event-stream')
}

/**
 * Brings a result into the form in which `request` gets it. What is too large becomes a link where there is a store for it, and
 * else (or with `Prefer: return=representation`, and for bytes) a smaller encoding. Throws IMAGE_UNREADABLE.
 */
export async function deliver(request: Request, result: Result): Promise<Delivery> {
  if (wantsBytes(request.headers.get('accept') ?? '', mediaTypeOf(result)))
    return await fitting(result, REPLY_BYTES_MAX)
  const wantsResult = prefers(request, 'return=representation')
  const isLarge = bytesOf(result).length > JSON_RESULT_BYTES_MAX
  const resultUrl = isLarge && blobOn() && !wantsResult ? await linkTo(result) : undefined
  if (resultUrl !== undefined) return { result, reencoded: false, resultUrl }
  return await fitting(result, JSON_RESULT_BYTES_MAX)
}

/** The reply in the form that was asked for: a result's own bytes where `Accept` names their kind, JSON otherwise. */
export function replyTo(request: Request, delivered: Delivered, requestId: string): Response {
  const { made, reencoded, resultUrl } = delivered
  if (wantsBytes(request.headers.get('accept') ?? '', mediaTypeOf(made.result))) return bytesReply(delivered)
  const facts = { ...factsOf(delivered, requestId), ...(reencoded && { reencoded }) }
  return resultUrl === undefined ? jsonReply(bytesOf(made.result), facts) : Response.json({ resultUrl, ...facts })
}

/** The facts as JSON, with the result in base64, put in as bytes: encoding it as a JSON string would look at every character again. */
export function withResult(bytes: Buffer, facts: Record<string, unknown>): Buffer {
  const base64 = Buffer.from(bytes.toString('base64'), 'latin1')
  return Buffer.concat([Buffer.from('{"result":"'), base64, Buffer.from(`",${JSON.stringify(facts).slice(1)}`)])
}

function jsonReply(bytes: Buffer, facts: Record<string, unknown>): Response {
  return sendBytes(withResult(bytes, facts), { 'content-type': 'application/json' })
}

function bytesReply({ made, closing, processingMs, cached, requestedProvider, reencoded }: Delivered): Response {
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

/** The result in at most `bytesMax`, but for texts, which models keep short. Throws IMAGE_UNREADABLE. */
async function fitting(result: Result, bytesMax: number): Promise<Delivery> {
  const asIs = { result, reencoded: false, resultUrl: undefined }
  if ('text' in result || result.bytes.length <= bytesMax) return asIs
  return { ...asIs, result: await fitResult(result, bytesMax), reencoded: true }
}

/** Undefined when the store does not take it: it is delivered all the same. */
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
