// What Clerk tells of users. Signed, at least once, in any order.
import { isIP } from 'node:net'
import * as v from 'valibot'
import { ClerkId, readClerkUser, verifyClerkEvent } from '../../lib/auth/clerk.ts'
import { followClerkDeletion, followClerkUser, type Messenger } from '../../lib/auth/clerk-sync.ts'
import { type Context, endpoint, route } from '../../lib/http/endpoint.ts'
import { AppError } from '../../lib/http/errors.ts'
import { clientIp } from '../../lib/rate-limit.ts'

const BODY_BYTES_MAX = 1_000_000
const HERE = 'https://webhook.invalid/'

const Deleted = v.object({ id: ClerkId })
const Attributes = v.object({ http_request: v.object({ client_ip: v.string() }) })

export default endpoint(
  {
    'POST /api/webhooks/clerk': route({
      access: 'signature',
      bodyBytesMax: BODY_BYTES_MAX,
      read: ({ bytes }) => bytes,
      handle: receive,
    }),
  },
  { authProvider: 'clerk' },
)

/** 2xx for all that is signed and understood; what is not understood is our own fault, and comes again. */
async function receive({ request, requestId, body, note }: Context<'signature', Buffer>) {
  const event = await verifyClerkEvent(body, request.headers)
  if (!event) throw new AppError('UNAUTHENTICATED', 'The signature is missing, wrong or too old.')
  const { type, data, attributes } = event
  const receipt = await follow(type, data, { type: 'webhook', requestId, signUpIp: addressOf(attributes) })
  note({ webhookId: request.headers.get('svix-id')?.slice(0, 100), webhook: type, receipt })
  return Response.json({ receipt }, { status: 202 })
}

async function follow(type: string, data: unknown, messenger: Messenger) {
  switch (type) {
    case 'user.created':
      return await followClerkUser(readClerkUser(data), messenger)
    case 'user.updated':
      // Whoever changed the user need not be the user.
      return await followClerkUser(readClerkUser(data), { ...messenger, signUpIp: undefined })
    case 'user.deleted':
      return await followClerkDeletion(v.parse(Deleted, data).id, messenger)
    default:
      return 'ignored'
  }
}

/** Where the request came from that made the event happen, in the form that our own requests have. */
function addressOf(attributes: unknown): string | undefined {
  const read = v.safeParse(Attributes, attributes)
  if (!read.success) return undefined
  const address = read.output.http_request.client_ip.trim()
  return isIP(address) ? clientIp(new Request(HERE, { headers: { 'x-real-ip': address } })) : undefined
}
