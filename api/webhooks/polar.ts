// What Polar tells of orders, refunds and subscriptions. Signed, at least once, in any order.

import { receiveEvent } from '../../lib/billing/inbox.ts'
import { verifyPolarEvent } from '../../lib/billing/polar.ts'
import { type Context, endpoint, route } from '../../lib/http/endpoint.ts'
import { AppError } from '../../lib/http/errors.ts'

const BODY_BYTES_MAX = 1_000_000
const ID_LENGTH_MAX = 100

export default endpoint({
  'POST /api/webhooks/polar': route({
    access: 'signature',
    bodyBytesMax: BODY_BYTES_MAX,
    read: ({ bytes }) => bytes,
    handle: receive,
  }),
})

/** 2xx for all that is signed, whatever we make of it: refusals would make Polar switch the endpoint off. */
async function receive({ request, body, note }: Context<'signature', Buffer>) {
  const event = await verifyPolarEvent(body, request.headers)
  const id = request.headers.get('webhook-id') ?? ''
  if (event.outcome === 'forged' || id.length > ID_LENGTH_MAX) {
    throw new AppError('UNAUTHENTICATED', 'The signature is missing, wrong or too old.')
  }
  const receipt =
    event.outcome === 'event'
      ? await receiveEvent({ id, type: event.type, body: body.toString() }, event.data)
      : event.outcome
  note({ webhookId: id, webhook: event.outcome === 'event' ? event.type : undefined, receipt })
  return Response.json({ receipt }, { status: 202 })
}
