// The main job: a photo in, the fork's picture out, for tokens.
import * as v from 'valibot'
import type { SourceImage } from '../lib/ai/provider.ts'
import { usableProviders } from '../lib/ai/router.ts'
import { config } from '../lib/config.ts'
import { validate } from '../lib/http/body.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { AppError } from '../lib/http/errors.ts'
import { type Emit, Events } from '../lib/http/events.ts'
import { readUpload } from '../lib/http/image-upload.ts'
import { MIME_TYPE, readImage } from '../lib/image.ts'
import { defaultTool, optionsSchema } from '../lib/tools/catalogue.ts'
import { type Generation, generate } from '../lib/tools/generate.ts'

/** Vercel's limit for a request body. */
const BODY_BYTES_MAX = 4_500_000

interface Order {
  image: SourceImage
  provider: string | undefined
  options: { quality: 'standard' | 'high'; format: 'png' | 'jpeg' | 'webp' } & Record<string, string>
}

export default endpoint({
  'POST /api/process-image': route({
    access: 'spender',
    scope: 'generate',
    limit: 'generate',
    idempotent: true,
    bodyBytesMax: BODY_BYTES_MAX,
    read: readOrder,
    handle: processImage,
  }),
})

/** Everything that can be wrong with a request is found here, before anything is reserved. */
async function readOrder(input: { bytes: Buffer; type: string; request: Request }): Promise<Order> {
  if (!config().features.generate) {
    throw new AppError('FEATURE_DISABLED', 'Making images is switched off.', {
      details: { reason: 'features.generate is false.' },
    })
  }
  const tool = defaultTool()
  const { image: bytes, fields } = await readUpload(input)
  const Fields = v.strictObject({ provider: v.optional(v.string()), options: v.optional(optionsSchema(tool), {}) })
  const { provider, options } = validate(Fields, fields)
  const { imageBytesMax, imagePixelsMax, imageSideMin } = config().limits
  const image = await readImage(bytes, {
    bytesMax: imageBytesMax,
    pixelsMax: imagePixelsMax,
    sideMin: imageSideMin,
    heicAccepted: usableProviders(tool.providers, { format: 'heic' }).usable.length > 0,
  })
  return { image, provider, options }
}

function processImage(context: Context<'spender', Order>) {
  const accept = context.request.headers.get('accept') ?? ''
  if (accept.includes('text/event-stream')) return new Events((emit) => reply(context, emit, asJson))
  return reply(context, () => {}, /^image\//.test(accept) ? asBytes : asJson)
}

async function reply(
  { body, caller, claim, requestId, note }: Context<'spender', Order>,
  emit: Emit,
  present: (generation: Generation, requestId: string) => Response,
): Promise<Response> {
  emit('queued', { requestId })
  const generation = await generate({
    tool: defaultTool(),
    caller,
    ...body,
    requestId,
    claim,
    onEvent: ({ event, data }) => emit(event, data),
  })
  const { made, closing } = generation
  note({
    provider: made.provider,
    model: made.model,
    costMicroUsd: made.costMicroUsd,
    tokens: closing.chargedTokens,
    trial: closing.trial,
  })
  return present(generation, requestId)
}

/** The JSON reply, its base64 put in as bytes: encoding it as a JSON string would look at every character again. */
function asJson({ made, closing, processingMs }: Generation, requestId: string): Response {
  const facts = JSON.stringify({
    mimeType: MIME_TYPE[made.format],
    width: made.width,
    height: made.height,
    provider: made.provider,
    model: made.model,
    processingTime: processingMs,
    cost: made.costMicroUsd / 1e6,
    usage: { tokens: closing.chargedTokens, images: 1, trial: closing.trial },
    balance: closing.balance,
    cached: false,
    fallback: { used: usedFallback(made), failed: made.failed },
    requestId,
  })
  const base64 = Buffer.from(made.bytes.toString('base64'), 'latin1')
  const body = Buffer.concat([Buffer.from('{"result":"'), base64, Buffer.from(`",${facts.slice(1)}`)])
  return send(body, { 'content-type': 'application/json' })
}

function asBytes({ made, closing, processingMs }: Generation): Response {
  return send(made.bytes, {
    'content-type': MIME_TYPE[made.format],
    'x-provider': made.provider,
    'x-model': made.model,
    'x-processing-time': String(processingMs),
    'x-cost': String(made.costMicroUsd / 1e6),
    'x-tokens-charged': String(closing.chargedTokens),
    'x-trial': String(closing.trial),
    'x-balance-tokens': String(closing.balance.tokens),
    'x-balance-trial-generations': String(closing.balance.trialGenerations),
    'x-image-width': String(made.width),
    'x-image-height': String(made.height),
    'x-fallback-used': String(usedFallback(made)),
  })
}

/** A response of these very bytes: given to Response as they are, it would copy the megabyte twice. */
function send(bytes: Buffer, headers: Record<string, string>): Response {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(bytes)
      controller.close()
    },
  })
  return new Response(body, { headers: { ...headers, 'content-length': String(bytes.length) } })
}

function usedFallback({ failed, provider }: Generation['made']): boolean {
  return failed.some((attempt) => attempt.provider !== provider)
}
