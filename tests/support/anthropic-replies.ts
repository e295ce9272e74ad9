// What Anthropic answers: messages as recorded, with line art as SVG where the system prompt asks for it, and its errors.
import { randomUUID } from 'node:crypto'
import * as v from 'valibot'
import type { Asked, Face } from './provider-stub.ts'
import { sizeOf } from './stub-pictures.ts'
import type { Answer } from './stub-server.ts'

const IMAGE_BASE64_MAX = 5 * 1024 * 1024
const SIDE_MAX = 8000
const SOURCE_TOKENS = 1446
const ANSWER_TOKENS = 90
const DRAWING_TOKENS = 700

const Body = v.strictObject({
  model: v.string(),
  max_tokens: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(128_000)),
  system: v.optional(v.string()),
  messages: v.pipe(
    v.array(
      v.strictObject({
        role: v.picklist(['user', 'assistant']),
        content: v.pipe(
          v.array(
            v.variant('type', [
              v.strictObject({ type: v.literal('text'), text: v.pipe(v.string(), v.minLength(1)) }),
              v.strictObject({
                type: v.literal('image'),
                source: v.strictObject({
                  type: v.literal('base64'),
                  media_type: v.picklist(['image/jpeg', 'image/png', 'image/gif', 'image/webp']),
                  data: v.string(),
                }),
              }),
            ]),
          ),
          v.minLength(1),
        ),
      }),
    ),
    v.minLength(1),
  ),
})

/** As models draw: groups, relative and shorthand commands, a transform, a comment, and one thing that is not allowed. */
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1024 1024" fill="none" stroke="#000" stroke-width="8">
  <!-- head -->
  <circle cx="512" cy="430" r="260"/>
  <g stroke-width="6" transform="translate(0 -10)">
    <ellipse cx="420" cy="400" rx="38" ry="52"/><ellipse cx="604" cy="400" rx="38" ry="52"/>
    <path d="M400 540q112 90 224 0"/>
  </g>
  <path d="M512 690c-120 0 -200 80 -220 250 H732 C712 770 632 690 512 690 Z"/>
  <text x="20" y="1000">A person</text>
</svg>`

export const anthropicFace: Face = {
  authenticate({ headers }) {
    const bearer = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1]
    const key = headers['x-api-key'] || bearer
    if (!key) return failure(401, 'authentication_error', 'x-api-key header is required')
    return key.includes('invalid') ? failure(401, 'authentication_error', 'invalid x-api-key') : { key }
  },
  async understand({ method, path, headers, body }) {
    if (`${method} ${path}` !== 'POST /v1/messages') return failure(404, 'not_found_error', 'Not Found')
    if (!['2023-06-01', '2026-10-21'].includes(headers['anthropic-version'] ?? '')) {
      return invalid('anthropic-version: header is required')
    }
    if (!headers['content-type']?.startsWith('application/json')) return invalid('Request body must be JSON')
    return await readBody(body)
  },
  ok: (asked) =>
    asked.wants === 'text'
      ? message(asked, 'A grey picture of fine noise.', ANSWER_TOKENS)
      : message(asked, `Here is the line art.\n\n\`\`\`svg\n${SVG}\n\`\`\``, DRAWING_TOKENS),
  blocked: (asked) => message(asked, undefined, 1, 'refusal'),
  noImage: (asked) =>
    message(asked, asked.wants === 'text' ? undefined : 'I can describe the picture, but not draw it.', ANSWER_TOKENS),
  wrongMime: (asked) => message(asked, `\`\`\`png\n${SVG}\n\`\`\``, DRAWING_TOKENS),
  notAnImage: (asked) => message(asked, SVG.replace('</g>', '</h>'), DRAWING_TOKENS),
  endless: () => ({
    status: 200,
    body: '{"id":"msg_1","type":"message","content":[{"type":"text","text":"',
    headers: headers(),
  }),
  status: (status) => {
    const [type, text] = STATUSES[status] ?? ['api_error', 'Something went wrong.']
    return failure(status, type, text)
  },
  modelGone: (model) => failure(404, 'not_found_error', `model: ${model}`),
  rateLimited(retryAfterMs) {
    const answer = failure(429, 'rate_limit_error', 'This request would exceed your rate limit.')
    if (retryAfterMs === undefined) return answer
    return { ...answer, headers: { ...answer.headers, 'retry-after': `${retryAfterMs / 1000}` } }
  },
  quotaSpent: () => failure(402, 'billing_error', 'Your credit balance is too low to access the Anthropic API.'),
}

async function readBody(raw: Buffer): Promise<Asked | Answer> {
  let json: unknown
  try {
    json = JSON.parse(raw.toString())
  } catch {
    return invalid('The request body is not valid JSON.')
  }
  const body = v.safeParse(Body, json)
  if (!body.success) return invalid(v.summarize(body.issues))
  const { model, messages, ...fields } = body.output
  if (!model.startsWith('claude-') || model.startsWith('claude-3')) return anthropicFace.modelGone(model)
  const wants = /\bSVG\b/.test(fields.system ?? '') ? 'image' : 'text'
  const asked: Asked = { wants, model, prompt: '', fields, images: [] }
  for (const part of messages.flatMap(({ content }) => content)) {
    if (part.type === 'text') {
      asked.prompt += part.text
      continue
    }
    const { media_type: mimeType, data } = part.source
    if (data.length > IMAGE_BASE64_MAX) return invalid('image exceeds 5 MB maximum')
    const bytes = Buffer.from(data, 'base64')
    const size = bytes.toString('base64') === data ? await sizeOf(bytes, mimeType) : undefined
    if (!size) return invalid('Could not process image')
    if (Math.max(size.width, size.height) > SIDE_MAX) return invalid('image dimensions exceed max allowed size')
    asked.images.push({ name: 'image', mimeType, bytes })
  }
  return asked
}

function message(asked: Asked, text: string | undefined, output_tokens: number, stop_reason = 'end_turn'): Answer {
  const body = {
    id: `msg_${randomUUID().replaceAll('-', '')}`,
    type: 'message',
    role: 'assistant',
    model: asked.model,
    content: text === undefined ? [] : [{ type: 'text', text }],
    stop_reason,
    stop_sequence: null,
    usage: {
      input_tokens: SOURCE_TOKENS * asked.images.length + Math.ceil(asked.prompt.length / 4),
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
      output_tokens,
      service_tier: 'standard',
    },
  }
  return { status: 200, body: JSON.stringify(body), headers: headers() }
}

const headers = () => ({
  'content-type': 'application/json',
  'request-id': `req_${randomUUID().replaceAll('-', '')}`,
  'anthropic-ratelimit-requests-limit': '50',
  'anthropic-ratelimit-requests-remaining': '49',
  'anthropic-ratelimit-requests-reset': '2026-11-20T12:00:00Z',
})

function failure(status: number, type: string, message: string): Answer {
  const common = headers()
  const body = { type: 'error', error: { type, message }, request_id: common['request-id'] }
  return { status, body: JSON.stringify(body), headers: common }
}

const invalid = (message: string) => failure(400, 'invalid_request_error', message)

const STATUSES: Record<number, [type: string, message: string]> = {
  400: ['invalid_request_error', 'Could not process image'],
  401: ['authentication_error', 'invalid x-api-key'],
  402: ['billing_error', 'Your credit balance is too low to access the Anthropic API.'],
  403: ['permission_error', 'Your API key does not have permission to use the specified resource.'],
  404: ['not_found_error', 'Not found'],
  413: ['request_too_large', 'Request exceeds the maximum size'],
  500: ['api_error', 'Internal server error'],
  503: ['api_error', 'Service unavailable'],
  504: ['timeout_error', 'Request timed out'],
  529: ['overloaded_error', 'Overloaded'],
}
