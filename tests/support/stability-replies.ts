// What Stability AI answers: pictures as bytes with a finish-reason beside them, and errors with an id, a name and reasons.
import { randomUUID } from 'node:crypto'
import * as v from 'valibot'
import type { Asked, Face, SentImage } from './provider-stub.ts'
import { picture, sizeOf } from './stub-pictures.ts'
import type { Answer } from './stub-server.ts'

const SIDE_MIN = 64
const PIXELS_MAX = 9_437_184
const CUT_OUT_PIXELS_MAX = 4_194_304
const RATIO_MAX = 2.5
const IMAGE_BYTES_MAX = 10 * 1024 * 1024

const prompt = v.pipe(v.string(), v.minLength(1), v.maxLength(10_000))
const fraction = v.optional(v.pipe(v.string(), v.toNumber(), v.minValue(0), v.maxValue(1)))
const common = {
  output_format: v.optional(v.picklist(['png', 'jpeg', 'webp']), 'png'),
  seed: v.optional(v.pipe(v.string(), v.toNumber(), v.integer(), v.minValue(0), v.maxValue(4_294_967_294))),
}
const control = v.strictObject({ ...common, prompt, control_strength: fraction, style_preset: v.optional(v.string()) })
const generate = v.strictObject({ ...common, prompt, aspect_ratio: v.optional(v.string()) })
const SD3 = v.picklist(['sd3.5-large', 'sd3.5-large-turbo', 'sd3.5-medium'])

interface Endpoint {
  model: string
  fields: v.GenericSchema<unknown, Record<string, unknown>>
  image: 'needed' | 'none' | 'byMode'
  isRatioLimited: boolean
  pixelsMax?: number
}

const ENDPOINTS: Record<string, Endpoint> = {
  'control/structure': { model: 'control-structure', fields: control, image: 'needed', isRatioLimited: true },
  'edit/remove-background': {
    model: 'remove-background',
    fields: v.strictObject(common),
    image: 'needed',
    isRatioLimited: false,
    pixelsMax: CUT_OUT_PIXELS_MAX,
  },
  'generate/core': { model: 'core', fields: generate, image: 'none', isRatioLimited: false },
  'generate/ultra': { model: 'ultra', fields: generate, image: 'none', isRatioLimited: false },
  'generate/sd3': {
    model: 'sd3',
    fields: v.strictObject({
      ...generate.entries,
      model: SD3,
      mode: v.optional(v.picklist(['text-to-image', 'image-to-image']), 'text-to-image'),
      strength: fraction,
    }),
    image: 'byMode',
    isRatioLimited: true,
  },
}

export const stabilityFace: Face = {
  authenticate({ headers }) {
    const key = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1]
    if (!key) return failure(401, 'unauthorized', 'authorization: is required')
    return key.includes('invalid') ? failure(401, 'unauthorized', 'invalid or missing API key') : { key }
  },
  async understand({ method, path, headers, body }) {
    const endpoint = method === 'POST' ? ENDPOINTS[path.replace(/^\/v2beta\/stable-image\//, '')] : undefined
    if (!endpoint || !path.startsWith('/v2beta/')) return failure(404, 'not_found', 'the resource was not found')
    const type = headers['content-type'] ?? ''
    if (!type.startsWith('multipart/form-data')) return bad('content-type: must be multipart/form-data')
    if (headers.accept !== 'image/*') return bad("accept: must be 'image/*' or 'application/json'")
    return await readForm(
      endpoint,
      await new Response(new Uint8Array(body), { headers: { 'content-type': type } }).formData(),
    )
  },
  ok: async (_asked, sidePx) => image(await picture(sidePx, sidePx)),
  blocked: async (_asked, sidePx) => image(await picture(sidePx, sidePx), { 'finish-reason': 'CONTENT_FILTERED' }),
  noImage: () => image(Buffer.alloc(0)),
  wrongMime: async (_asked, sidePx) => image(await picture(sidePx, sidePx, 'jpeg')),
  notAnImage: () => image(Buffer.from('This is no image.')),
  endless: () => image(Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')),
  status: (status) => {
    const [name, reason] = STATUSES[status] ?? ['internal_error', 'an unexpected error occurred']
    return failure(status, name, reason)
  },
  modelGone: () => failure(404, 'not_found', 'the resource was not found'),
  rateLimited(retryAfterMs) {
    const answer = failure(
      429,
      'rate_limit_exceeded',
      'You have exceeded the rate limit of 150 requests within 10 seconds.',
    )
    if (retryAfterMs === undefined) return answer
    return { ...answer, headers: { ...answer.headers, 'retry-after': `${retryAfterMs / 1000}` } }
  },
  quotaSpent: () => failure(402, 'payment_required', 'You lack sufficient credits to make this request.'),
}

async function readForm(endpoint: Endpoint, form: FormData): Promise<Asked | Answer> {
  const texts: Record<string, string> = {}
  const images: SentImage[] = []
  for (const [name, value] of form) {
    if (typeof value === 'string') texts[name] = value
    else images.push({ name, mimeType: value.type, bytes: Buffer.from(await value.arrayBuffer()) })
  }
  const fields = v.safeParse(endpoint.fields, texts)
  if (!fields.success) return bad(v.summarize(fields.issues))
  const { prompt = '', model = endpoint.model, ...rest } = fields.output
  const needed = endpoint.image === 'needed' || (endpoint.image === 'byMode' && rest.mode === 'image-to-image')
  if (images.length !== (needed ? 1 : 0)) return bad(`image: ${needed ? 'is required' : 'is not allowed'}`)
  for (const sent of images) {
    const refusal = await refuseImage(sent, endpoint)
    if (refusal) return refusal
  }
  return { wants: 'image', model: String(model), prompt: String(prompt), fields: rest, images }
}

async function refuseImage({ name, mimeType, bytes }: SentImage, { isRatioLimited, pixelsMax = PIXELS_MAX }: Endpoint) {
  if (name !== 'image') return bad(`${name}: is not allowed`)
  if (bytes.length > IMAGE_BYTES_MAX) return failure(413, 'payload_too_large', 'your request was larger than 10MiB')
  const size = mimeType === 'image/gif' ? undefined : await sizeOf(bytes, mimeType)
  if (!size) return bad('image: must be a valid image in the jpeg, png or webp format')
  const { width, height } = size
  if (Math.min(width, height) < SIDE_MIN) return bad(`image: every side must be at least ${SIDE_MIN} pixels`)
  if (width * height > pixelsMax) return bad(`image: the total pixel count must not exceed ${pixelsMax}`)
  const ratio = Math.max(width, height) / Math.min(width, height)
  return isRatioLimited && ratio > RATIO_MAX
    ? bad('image: the aspect ratio must be between 1:2.5 and 2.5:1')
    : undefined
}

const image = (body: Buffer, headers: Record<string, string> = {}): Answer => ({
  status: 200,
  body,
  headers: {
    'content-type': 'image/png',
    'finish-reason': 'SUCCESS',
    seed: '343940597',
    'x-request-id': randomUUID().replaceAll('-', ''),
    ...headers,
  },
})

function failure(status: number, name: string, reason: string): Answer {
  const id = randomUUID().replaceAll('-', '')
  return {
    status,
    body: JSON.stringify({ id, name, errors: [reason] }),
    headers: { 'content-type': 'application/json', 'x-request-id': id },
  }
}

const bad = (reason: string) => failure(400, 'bad_request', reason)

const STATUSES: Record<number, [name: string, reason: string]> = {
  400: ['bad_request', 'image: must be a valid image'],
  401: ['unauthorized', 'invalid or missing API key'],
  402: ['payment_required', 'You lack sufficient credits to make this request.'],
  403: ['permission_denied', 'You lack the necessary permissions to perform this action.'],
  413: ['payload_too_large', 'your request was larger than 10MiB'],
  422: ['unprocessable_entity', 'the request was well-formed but rejected'],
  500: ['internal_error', 'an unexpected error occurred'],
  503: ['service_unavailable', 'the service is not available'],
}
