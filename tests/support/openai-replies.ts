// What OpenAI answers: images/edits, images/generations and chat/completions as recorded, errors in its own words.
import { randomUUID } from 'node:crypto'
import * as v from 'valibot'
import type { Asked, Face, SentImage } from './provider-stub.ts'
import { picture, sizeOf } from './stub-pictures.ts'
import type { Answer, Incoming } from './stub-server.ts'

const SIZES = ['1024x1024', '1536x1024', '1024x1536', 'auto']
const IMAGE_MODEL = /^(chatgpt-image-latest|gpt-image-[\w.-]+)$/
const REMOVED_MODELS = ['dall-e-2', 'dall-e-3', 'gpt-image-1', 'gpt-4', 'gpt-4-vision-preview']
const IMAGE_BYTES_MAX = 50 * 1024 * 1024
const QUALITY_TOKENS: Record<string, number> = { low: 196, medium: 439, high: 1756, xhigh: 3122, max: 7024 }
const SOURCE_TOKENS = 1024
const ANSWER_TOKENS = 60

const imageFields = {
  model: v.string(),
  prompt: v.pipe(v.string(), v.minLength(1), v.maxLength(32_000)),
  quality: v.optional(v.picklist([...Object.keys(QUALITY_TOKENS), 'auto']), 'auto'),
  size: v.optional(v.picklist(SIZES), 'auto'),
  output_format: v.optional(v.picklist(['png', 'jpeg', 'webp', 'gif']), 'png'),
  background: v.optional(v.picklist(['transparent', 'opaque', 'auto']), 'auto'),
  moderation: v.optional(v.picklist(['auto', 'low'])),
}
const ImageFields = v.strictObject(imageFields)

const ChatBody = v.strictObject({
  model: v.string(),
  max_completion_tokens: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1))),
  messages: v.pipe(
    v.array(
      v.strictObject({
        role: v.picklist(['system', 'developer', 'user', 'assistant']),
        content: v.union([
          v.string(),
          v.array(
            v.variant('type', [
              v.strictObject({ type: v.literal('text'), text: v.string() }),
              v.strictObject({
                type: v.literal('image_url'),
                image_url: v.strictObject({
                  url: v.string(),
                  detail: v.optional(v.picklist(['low', 'high', 'auto'])),
                }),
              }),
            ]),
          ),
        ]),
      }),
    ),
    v.minLength(1),
  ),
})

export const openaiFace: Face = {
  authenticate({ headers }) {
    const key = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1]
    if (!key) return failure(401, "You didn't provide an API key.", { type: 'invalid_request_error' })
    if (!key.includes('invalid')) return { key }
    return failure(401, `Incorrect API key provided: ${key}.`, {
      type: 'invalid_request_error',
      code: 'invalid_api_key',
    })
  },
  understand(request) {
    const read = request.method === 'POST' ? ROUTES[request.path] : undefined
    return Promise.resolve(read?.(request) ?? invalid(`Invalid URL (${request.method} ${request.path})`, {}, 404))
  },
  ok: async (asked, sidePx) => (asked.wants === 'text' ? words(asked) : await drawn(asked, sidePx, 'png')),
  blocked: (asked) =>
    asked.wants === 'text'
      ? chat(asked, { content: null, finish_reason: 'content_filter' })
      : failure(400, 'Your request was rejected by the safety system.', {
          type: 'image_generation_user_error',
          code: 'moderation_blocked',
        }),
  noImage: (asked) => (asked.wants === 'text' ? chat(asked, { content: '' }) : images(asked, [])),
  wrongMime: async (asked, sidePx) => (asked.wants === 'text' ? words(asked) : await drawn(asked, sidePx, 'jpeg')),
  notAnImage: (asked) => (asked.wants === 'text' ? words(asked) : images(asked, [Buffer.from('This is no image.')])),
  endless: () => ({ ...success(null), body: '{"created":1790000000,"data":[{"b64_json":"' }),
  status: (status) => STATUSES[status] ?? failure(status, 'Something went wrong.'),
  modelGone: (model) =>
    failure(404, `The model \`${model}\` does not exist or you do not have access to it.`, {
      type: 'invalid_request_error',
      code: 'model_not_found',
    }),
  rateLimited(retryAfterMs) {
    const answer = failure(429, 'Rate limit reached for images per min.', {
      type: 'requests',
      code: 'rate_limit_exceeded',
    })
    if (retryAfterMs === undefined) return answer
    const wait = { 'retry-after-ms': `${retryAfterMs}`, 'retry-after': `${Math.ceil(retryAfterMs / 1000)}` }
    return { ...answer, headers: { ...answer.headers, ...wait } }
  },
  quotaSpent: () =>
    failure(429, 'You exceeded your current quota, please check your plan and billing details.', {
      type: 'insufficient_quota',
      code: 'insufficient_quota',
    }),
}

const ROUTES: Record<string, (request: Incoming) => Promise<Asked | Answer>> = {
  '/v1/images/edits': readEdit,
  '/v1/images/generations': readGeneration,
  '/v1/chat/completions': readChat,
}

async function readEdit({ headers, body }: Incoming): Promise<Asked | Answer> {
  const type = headers['content-type'] ?? ''
  if (!type.startsWith('multipart/form-data')) return invalid(`Unsupported content type: '${type}'.`)
  const form = await new Response(new Uint8Array(body), { headers: { 'content-type': type } }).formData()
  const texts: Record<string, string> = {}
  const sent: SentImage[] = []
  for (const [name, value] of form) {
    if (typeof value === 'string') texts[name] = value
    else sent.push({ name, mimeType: value.type, bytes: Buffer.from(await value.arrayBuffer()) })
  }
  if (sent.length === 0) return invalid("Missing required parameter: 'image'.", { param: 'image' })
  if (sent.length > 16) return invalid('Too many images.', { param: 'image' })
  return imageCall(texts, sent)
}

async function readGeneration(request: Incoming): Promise<Asked | Answer> {
  return imageCall(parse(request), [])
}

async function imageCall(json: unknown, sent: SentImage[]): Promise<Asked | Answer> {
  const fields = v.safeParse(ImageFields, json)
  if (!fields.success) return invalid(v.summarize(fields.issues), { param: v.getDotPath(fields.issues[0]) })
  const { model, prompt, ...rest } = fields.output
  if (REMOVED_MODELS.includes(model)) return openaiFace.modelGone(model)
  if (!IMAGE_MODEL.test(model)) return invalid(`Invalid value: '${model}'.`, { param: 'model', code: 'invalid_value' })
  if (rest.background === 'transparent' && rest.output_format === 'jpeg') {
    return invalid('Transparent background is not supported for JPEG output format.', { param: 'background' })
  }
  for (const { name, mimeType, bytes } of sent) {
    if (name !== 'image' && name !== 'image[]') return invalid(`Unknown parameter: '${name}'.`, { param: name })
    if (!['image/png', 'image/jpeg', 'image/webp'].includes(mimeType)) {
      return invalid(`Invalid file '${name}': unsupported mimetype ('${mimeType}').`, { param: 'image' })
    }
    if (bytes.length > IMAGE_BYTES_MAX || !(await sizeOf(bytes, mimeType))) return invalid('Invalid image file.')
  }
  return { wants: 'image', model, prompt, fields: rest, images: sent }
}

async function readChat(request: Incoming): Promise<Asked | Answer> {
  const body = v.safeParse(ChatBody, parse(request))
  if (!body.success) return invalid(v.summarize(body.issues), { param: v.getDotPath(body.issues[0]) })
  const { model, messages, ...fields } = body.output
  if (REMOVED_MODELS.includes(model)) return openaiFace.modelGone(model)
  if (IMAGE_MODEL.test(model)) return invalid('This is not a chat model.', { param: 'model' }, 404)
  const asked: Asked = { wants: 'text', model, prompt: '', fields, images: [] }
  const parts = messages.flatMap(({ content }) =>
    typeof content === 'string' ? [{ type: 'text' as const, text: content }] : content,
  )
  for (const part of parts) {
    if (part.type === 'text') {
      asked.prompt += part.text
      continue
    }
    const [, mimeType = '', data = ''] =
      /^data:(image\/(?:png|jpeg|webp|gif));base64,(.+)$/.exec(part.image_url.url) ?? []
    const bytes = Buffer.from(data, 'base64')
    const isBase64 = bytes.toString('base64') === data
    if (!isBase64 || !(await sizeOf(bytes, mimeType))) {
      return invalid('You uploaded an unsupported image.', { code: 'invalid_image_format' })
    }
    asked.images.push({ name: 'image_url', mimeType, bytes })
    asked.fields.detail = part.image_url.detail
  }
  return asked
}

function parse({ headers, body }: Incoming): unknown {
  if (!headers['content-type']?.startsWith('application/json')) return undefined
  try {
    return JSON.parse(body.toString())
  } catch {
    return undefined
  }
}

async function drawn(asked: Asked, sidePx: number, format: 'png' | 'jpeg'): Promise<Answer> {
  const [width, height] = sizeAsked(asked)
  return images(asked, [await picture(sidePx, Math.round((sidePx * height) / width), format)])
}

function sizeAsked({ fields }: Asked): [number, number] {
  const [width, height] = String(fields.size).split('x').map(Number)
  return width && height ? [width, height] : [1024, 1024]
}

function images(asked: Asked, pictures: Buffer[]): Answer {
  const { quality, background, output_format, size } = asked.fields
  const [width, height] = sizeAsked(asked)
  const imageTokens = SOURCE_TOKENS * asked.images.length
  const textTokens = textTokensOf(asked)
  const output = Math.round(((QUALITY_TOKENS[String(quality)] ?? 439) * width * height) / (1024 * 1024))
  return success({
    created: 1_790_000_000,
    background: background === 'auto' ? 'opaque' : background,
    data: pictures.map((bytes) => ({ b64_json: bytes.toString('base64') })),
    output_format,
    quality,
    size,
    usage: {
      input_tokens: textTokens + imageTokens,
      input_tokens_details: { image_tokens: imageTokens, text_tokens: textTokens },
      output_tokens: output,
      total_tokens: textTokens + imageTokens + output,
    },
  })
}

const textTokensOf = ({ prompt }: Asked) => Math.ceil(prompt.length / 4)

const words = (asked: Asked) => chat(asked, { content: 'A grey picture of fine noise.' })

function chat(asked: Asked, { content, finish_reason = 'stop' }: { content: string | null; finish_reason?: string }) {
  const prompt_tokens = textTokensOf(asked) + 765 * asked.images.length
  return success({
    id: `chatcmpl-${randomUUID()}`,
    object: 'chat.completion',
    created: 1_790_000_000,
    model: asked.model,
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content, refusal: null, annotations: [] },
        logprobs: null,
        finish_reason,
      },
    ],
    usage: {
      prompt_tokens,
      completion_tokens: ANSWER_TOKENS,
      total_tokens: prompt_tokens + ANSWER_TOKENS,
      prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0 },
    },
    service_tier: 'default',
  })
}

const commonHeaders = () => ({
  'content-type': 'application/json',
  'openai-organization': 'org-stub',
  'openai-processing-ms': '12',
  'openai-version': '2020-10-01',
  'x-request-id': `req_${randomUUID().replaceAll('-', '')}`,
})

const success = (body: unknown): Answer => ({
  status: 200,
  body: JSON.stringify(body),
  headers: {
    ...commonHeaders(),
    'x-ratelimit-limit-requests': '500',
    'x-ratelimit-remaining-requests': '499',
    'x-ratelimit-reset-requests': '120ms',
  },
})

interface Details {
  type?: string
  param?: string | null | undefined
  code?: string
}

function failure(status: number, message: string, { type = 'server_error', param = null, code }: Details = {}): Answer {
  const error = { message, type, param, code: code ?? null }
  return { status, body: JSON.stringify({ error }), headers: commonHeaders() }
}

const invalid = (message: string, details: Details = {}, status = 400) =>
  failure(status, message, { type: 'invalid_request_error', ...details })

const STATUSES: Record<number, Answer> = {
  400: invalid('Invalid image file or mode for image 1, please check your image file.', { code: 'invalid_image_file' }),
  401: invalid('Incorrect API key provided: sk-****.', { code: 'invalid_api_key' }, 401),
  403: invalid('Your organization must be verified to use this model.', {}, 403),
  500: failure(500, 'The server had an error while processing your request.'),
  503: failure(503, 'The engine is currently overloaded, please try again later.'),
}
