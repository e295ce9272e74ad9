// The main job: a photo in, the fork's picture out, for tokens.
import * as v from 'valibot'
import { afterAnswer } from '../lib/after-answer.ts'
import { deleteBlobs, permitUpload } from '../lib/blob.ts'
import { config } from '../lib/config.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { AppError } from '../lib/http/errors.ts'
import { type Emit, Events } from '../lib/http/events.ts'
import { prefers } from '../lib/http/headers.ts'
import { MIME_TYPE } from '../lib/image.ts'
import { enqueue } from '../lib/jobs/enqueue.ts'
import { defaultTool } from '../lib/tools/catalogue.ts'
import { generate } from '../lib/tools/generate.ts'
import { fetchPicture, readOrder, type SentOrder } from '../lib/tools/order.ts'
import { deliver, replyTo, wantsEvents } from '../lib/tools/reply.ts'
import { refuseWhileStopped } from '../lib/tools/stop.ts'
import { admitUpload } from '../lib/tools/upload.ts'

/** Vercel's limit for a request body. */
const BODY_BYTES_MAX = 4_500_000

type Picture = Awaited<ReturnType<typeof fetchPicture>>

const UploadBody = v.strictObject({
  contentType: v.picklist(Object.values(MIME_TYPE)),
  bytes: v.pipe(v.number(), v.integer(), v.minValue(1)),
})

export default endpoint({
  'POST /api/process-image': route({
    access: 'spender',
    scope: 'generate',
    limit: 'generate',
    idempotent: true,
    bodyBytesMax: BODY_BYTES_MAX,
    read: (input: { bytes: Buffer; type: string; request: Request }) => readOrder(defaultTool(), input),
    handle: processImage,
  }),
  'POST /api/process-image/uploads': route({
    access: 'user',
    scope: 'generate',
    limit: 'generate',
    body: UploadBody,
    handle: permit,
  }),
})

async function processImage(context: Context<'spender', SentOrder>) {
  const { request, body, caller } = context
  // After the claim of an Idempotency-Key: what was made before a stop is replayed.
  await refuseWhileStopped()
  const picture = await fetchPicture(body, caller)
  if (prefers(request, 'respond-async')) return await respondLater(context, picture)
  if (wantsEvents(request.headers.get('accept') ?? '')) return new Events((emit) => reply(context, picture, emit))
  return await reply(context, picture, () => {})
}

async function respondLater(
  { caller, claim, requestId }: Context<'spender', SentOrder>,
  { order, uploadUrl }: Picture,
): Promise<Response> {
  const { id } = await enqueue({ order, caller, requestId, claim })
  await forgetUpload(uploadUrl)
  const headers = { location: `/api/jobs/${id}`, 'preference-applied': 'respond-async' }
  return Response.json({ jobId: id, status: 'queued' }, { status: 202, headers })
}

async function reply(
  { request, caller, claim, requestId, note }: Context<'spender', SentOrder>,
  { order, uploadUrl }: Picture,
  emit: Emit,
): Promise<Response> {
  emit('queued', { requestId })
  const delivered = await generate({
    order,
    caller,
    requestId,
    claim,
    deliver: (result) => deliver(request, result),
    onEvent: ({ event, data }) => emit(event, data),
  })
  const { made, closing } = delivered
  note({
    provider: made.provider,
    model: made.model,
    costMicroUsd: made.costMicroUsd,
    tokens: closing.chargedTokens,
    trial: closing.trial,
  })
  await forgetUpload(uploadUrl)
  return replyTo(request, delivered, requestId)
}

/** An upload has served once its result is there; after a failure it waits for another try, until the sweep. */
async function forgetUpload(url: string | undefined): Promise<void> {
  if (url !== undefined) await afterAnswer('upload_not_deleted', () => deleteBlobs([url]))
}

/** Pictures past the limit of a request go to the store directly; the address that comes back stands for them as `imageUrl`. */
async function permit({ caller, body }: Context<'user', v.InferOutput<typeof UploadBody>>): Promise<Response> {
  await refuseWhileStopped()
  const { uploadBytesMax } = config().limits
  if (body.bytes > uploadBytesMax) {
    throw new AppError('PAYLOAD_TOO_LARGE', `At most ${uploadBytesMax.toLocaleString('en')} bytes can be uploaded.`, {
      details: { bytesMax: uploadBytesMax },
    })
  }
  const permission = permitUpload(caller.userId, body)
  await admitUpload(caller.userId, defaultTool())
  return Response.json(permission, { status: 201 })
}
