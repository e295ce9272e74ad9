// What Google's generateContent answers: replies as recorded, errors as google.rpc.Status.
import { randomUUID } from 'node:crypto'
import { crc32, deflateSync } from 'node:zlib'
import * as v from 'valibot'
import type { Answer } from './stub-server.ts'

const IMAGE_TOKENS = 1290

/** What the stub does with a request that Google would accept. */
export const Behaviour = v.strictObject({
  kind: v.picklist([
    'ok', // One image of `widthPx` × `heightPx`, in `format`, labelled as `mimeType` whatever it is; words where none was asked for.
    'echo', // The image that was sent comes back.
    'drafts', // Two images, of which the last one counts, with a thought before and one after them.
    'textOnly',
    'noCandidates',
    'finish', // A candidate without content and `reason` IMAGE_SAFETY, NO_IMAGE, …; the usage says `billedTokens`.
    'promptBlocked', // By `reason`.
    'rateLimited', // 429 by `quota`, with RetryInfo when `retryDelay` is given.
    'status', // Google's own error for `status`.
    'invalidKey',
    'modelGone', // 404 for the `models`, or for all of them; others answer.
    'html502',
    'raw', // `status` and `body` as they are.
    'truncated', // JSON that stops in the middle, sent as if it were whole.
    'reset', // Half a body, then the connection breaks.
    'slowDrip', // One byte at a time.
    'hang', // Nothing at all.
  ]),
  /** Waits before anything is sent. */
  delayMs: v.optional(v.number()),
  widthPx: v.optional(v.number()),
  heightPx: v.optional(v.number()),
  format: v.optional(v.picklist(['png', 'jpeg'])),
  mimeType: v.optional(v.string()),
  reason: v.optional(v.string()),
  billedTokens: v.optional(v.number()),
  quota: v.optional(v.picklist(['minute', 'day', 'zero'])),
  retryDelay: v.optional(v.string()),
  status: v.optional(v.number()),
  body: v.optional(v.string()),
  models: v.optional(v.array(v.string())),
})
export type Behaviour = v.InferOutput<typeof Behaviour>

interface Asked {
  model: string
  responseModalities: string[]
  images: { mimeType: string; bytes: Buffer }[]
}

/** What the stub says where words are asked for. */
export const WORDS = 'A grey square, full of noise.'

/** The whole answer to a request with these images; how it goes over the wire is the server's affair. */
export async function answerTo(behaviour: Behaviour, asked: Asked, sidePx: number): Promise<Answer> {
  const { model, images } = asked
  switch (behaviour.kind) {
    case 'echo':
      return reply(model, { parts: images.map(({ mimeType, bytes }) => imagePart(mimeType, bytes)) })
    case 'drafts': {
      const [thought, other, first, last] = [17, 18, 19, 20].map((side) => imagePart('image/png', noisePng(side, side)))
      return reply(model, {
        parts: [
          { text: 'Sketching.', thought: true },
          { ...thought, thought: true },
          first,
          { text: 'And another one.' },
          last,
          { ...other, thought: true },
        ],
        imageTokens: 2 * IMAGE_TOKENS,
      })
    }
    case 'textOnly':
      return reply(model, {
        parts: [{ text: 'I can describe the picture, but not draw it.' }],
        imageTokens: 0,
        textTokens: 129,
      })
    case 'noCandidates':
      return reply(model, { imageTokens: 0 })
    case 'finish':
      return reply(model, { finishReason: behaviour.reason ?? 'NO_IMAGE', imageTokens: behaviour.billedTokens ?? 0 })
    case 'promptBlocked':
      return reply(model, { blockReason: behaviour.reason ?? 'PROHIBITED_CONTENT', imageTokens: 0 })
    case 'rateLimited':
      return rateLimited(behaviour, model)
    case 'status':
      return ERRORS[behaviour.status ?? 500] ?? { status: behaviour.status ?? 500, body: '' }
    case 'invalidKey':
      return INVALID_KEY
    case 'modelGone':
      return behaviour.models?.includes(model) === false
        ? await answered({ kind: 'ok' }, asked, sidePx)
        : modelGone(model)
    case 'html502':
      return {
        status: 502,
        body: '<html><title>502 Bad Gateway</title></html>',
        headers: { 'content-type': 'text/html' },
      }
    case 'raw':
      return { status: behaviour.status ?? 200, body: behaviour.body ?? '' }
    default:
      return await answered(behaviour, asked, sidePx)
  }
}

async function answered(behaviour: Behaviour, { model, responseModalities, images }: Asked, sidePx: number) {
  if (responseModalities.includes('IMAGE')) return await drawn(behaviour, model, sidePx)
  return reply(model, { parts: [{ text: WORDS }], imageTokens: 0, textTokens: 9, photos: images.length })
}

const drawnReplies = new Map<string, Promise<Answer>>()

/** Noise, which no format makes smaller, so that the size of the picture sets the size of the reply; made once. */
function drawn(
  { widthPx, heightPx, format = 'png', mimeType = `image/${format}` }: Behaviour,
  model: string,
  sidePx: number,
) {
  const [width, height] = [widthPx ?? sidePx, heightPx ?? sidePx]
  const make = async () => {
    const png = noisePng(width, height)
    const bytes = format === 'png' ? png : await (await import('sharp')).default(png).jpeg().toBuffer()
    const { status, body } = reply(model, { parts: [{ text: 'Here is your picture.' }, imagePart(mimeType, bytes)] })
    return { status, body: Buffer.from(body) }
  }
  const key = [width, height, format, mimeType, model].join()
  const made = drawnReplies.get(key) ?? make()
  drawnReplies.set(key, made)
  return made
}

const imagePart = (mimeType: string, bytes: Buffer) => ({
  inlineData: { mimeType, data: bytes.toString('base64') },
})

/** A grey PNG of pseudo-random pixels, written without any image library. */
export function noisePng(widthPx: number, heightPx: number): Buffer {
  const pixels = Buffer.alloc((widthPx + 1) * heightPx)
  let state = 1
  for (let at = 0; at < pixels.length; at++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    pixels[at] = at % (widthPx + 1) === 0 ? 0 : state >>> 16
  }
  const header = Buffer.alloc(13)
  header.writeUInt32BE(widthPx, 0)
  header.writeUInt32BE(heightPx, 4)
  header.writeUInt8(8, 8)
  const chunks = [
    pngChunk('IHDR', header),
    pngChunk('IDAT', deflateSync(pixels, { level: 1 })),
    pngChunk('IEND', Buffer.alloc(0)),
  ]
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), ...chunks])
}

function pngChunk(type: string, data: Buffer): Buffer {
  const chunk = Buffer.concat([Buffer.alloc(4), Buffer.from(type, 'latin1'), data, Buffer.alloc(4)])
  chunk.writeUInt32BE(data.length, 0)
  chunk.writeUInt32BE(crc32(chunk.subarray(4, -4)), chunk.length - 4)
  return chunk
}

interface ReplyContent {
  parts?: unknown[]
  finishReason?: string
  blockReason?: string
  imageTokens?: number
  textTokens?: number
  /** Pictures that went in. */
  photos?: number
}

function reply(
  model: string,
  { parts, finishReason, blockReason, imageTokens = IMAGE_TOKENS, textTokens = 0, photos = 1 }: ReplyContent,
) {
  const candidate = {
    ...(parts && { content: { parts, role: 'model' } }),
    finishReason: finishReason ?? 'STOP',
    ...(finishReason && { finishMessage: `Unable to show the generated image (${finishReason}).` }),
    index: 0,
  }
  const candidatesTokenCount = imageTokens + textTokens
  const photoTokens = 258 * photos
  const body = {
    ...(parts || finishReason ? { candidates: [candidate] } : blockReason ? {} : { candidates: [] }),
    ...(blockReason && { promptFeedback: { blockReason } }),
    usageMetadata: {
      promptTokenCount: 40 + photoTokens,
      ...(candidatesTokenCount > 0 && { candidatesTokenCount }),
      totalTokenCount: 40 + photoTokens + candidatesTokenCount,
      promptTokensDetails: [
        { modality: 'TEXT', tokenCount: 40 },
        ...(photos > 0 ? [{ modality: 'IMAGE', tokenCount: photoTokens }] : []),
      ],
      ...(imageTokens > 0 && { candidatesTokensDetails: [{ modality: 'IMAGE', tokenCount: imageTokens }] }),
    },
    modelVersion: model,
    responseId: randomUUID(),
  }
  return { status: 200, body: JSON.stringify(body) }
}

export function googleError(code: number, status: string, message: string, details: object[] = []): Answer {
  const error = { code, message, status, ...(details.length > 0 && { details }) }
  return { status: code, body: JSON.stringify({ error }) }
}

const ERRORS: Record<number, Answer> = {
  400: googleError(400, 'INVALID_ARGUMENT', 'Unable to process input image.'),
  401: googleError(401, 'UNAUTHENTICATED', 'Request had invalid authentication credentials.'),
  403: googleError(
    403,
    'PERMISSION_DENIED',
    'Generative Language API has not been used in project 1 before or it is disabled.',
  ),
  500: googleError(500, 'INTERNAL', 'An internal error has occurred.'),
  503: googleError(503, 'UNAVAILABLE', 'The model is overloaded. Please try again later.'),
  504: googleError(504, 'DEADLINE_EXCEEDED', 'The request timed out. Please try again.'),
}

const INVALID_KEY = googleError(400, 'INVALID_ARGUMENT', 'API key not valid. Please pass a valid API key.', [
  {
    '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
    reason: 'API_KEY_INVALID',
    domain: 'googleapis.com',
    metadata: { service: 'generativelanguage.googleapis.com' },
  },
])

/** Google's word on a key before it looks at anything else, or nothing when the key will do. */
export function refuseKey(apiKey: string): Answer | undefined {
  if (apiKey.includes('invalid')) return INVALID_KEY
  if (apiKey !== '') return undefined
  return googleError(
    403,
    'PERMISSION_DENIED',
    "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API.",
  )
}

function modelGone(model: string): Answer {
  const message = `models/${model} is not found for API version v1beta, or is not supported for generateContent.`
  return googleError(404, 'NOT_FOUND', message)
}

function rateLimited({ quota = 'minute', retryDelay }: Behaviour, model: string): Answer {
  const quotaMetric = 'generativelanguage.googleapis.com/generate_content_free_tier_requests'
  const quotaId = `GenerateRequestsPer${quota === 'day' ? 'Day' : 'Minute'}PerProjectPerModel-FreeTier`
  const quotaValue = quota === 'zero' ? '0' : '10'
  const message = `You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded for metric: ${quotaMetric}, limit: ${quotaValue}`
  const violation = { quotaMetric, quotaId, quotaDimensions: { location: 'global', model }, quotaValue }
  const details: object[] = [{ '@type': 'type.googleapis.com/google.rpc.QuotaFailure', violations: [violation] }]
  if (retryDelay) details.push({ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay })
  return googleError(429, 'RESOURCE_EXHAUSTED', message, details)
}
