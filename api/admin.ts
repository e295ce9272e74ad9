// What an admin may do: give tokens to a user, look into money and events, and mend what went wrong with either.
import { randomUUID } from 'node:crypto'
import * as v from 'valibot'
import { db } from '../db/client.ts'
import { recordAudit } from '../lib/audit.ts'
import { type Actor, assignWaitingOrder, listOrders, OrdersQuery } from '../lib/billing/operator.ts'
import { Instant, PeriodQuery } from '../lib/billing/period.ts'
import { listWebhooks, replayWebhook, WebhooksQuery, webhookOf } from '../lib/billing/received.ts'
import { enableEndpoints, redeliverFailed } from '../lib/billing/redelivery.ts'
import { revenueOf } from '../lib/billing/revenue.ts'
import { validate } from '../lib/http/body.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { AppError } from '../lib/http/errors.ts'
import { grant, statementOf } from '../lib/ledger/ledger.ts'

const TOKENS_MAX = 100_000_000

const UserId = v.pipe(v.string(), v.uuid())
const Reason = v.pipe(v.string(), v.trim(), v.minLength(1, 'A reason is needed.'), v.maxLength(500))
const Grant = v.strictObject({
  tokens: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(TOKENS_MAX)),
  reason: Reason,
})
const Assignment = v.strictObject({
  userId: v.pipe(UserId, v.toLowerCase()),
  tokens: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(TOKENS_MAX))),
  reason: Reason,
})
const Redelivery = v.strictObject({ since: v.optional(Instant) })

const admin = { access: 'admin', limit: 'read' } as const

export default endpoint({
  'POST /api/admin/users/:id/grant': route({ ...admin, idempotent: true, body: Grant, handle: grantTokens }),
  'GET /api/admin/orders': route({ ...admin, handle: orders }),
  'POST /api/admin/orders/:id/assign': route({ ...admin, idempotent: true, body: Assignment, handle: assign }),
  'GET /api/admin/revenue': route({ ...admin, handle: revenue }),
  'GET /api/admin/webhooks': route({ ...admin, handle: webhooks }),
  'GET /api/admin/webhooks/:id': route({ ...admin, handle: webhook }),
  'POST /api/admin/webhooks/:id/replay': route({ ...admin, handle: replay }),
  'POST /api/admin/polar/redeliver': route({ ...admin, body: Redelivery, handle: redeliver }),
  'POST /api/admin/polar/endpoint/enable': route({ ...admin, handle: enable }),
})

async function grantTokens(context: Context<'admin', v.InferOutput<typeof Grant>>) {
  const { params, body, claim } = context
  const userId = v.safeParse(UserId, params.id)
  const user =
    userId.success && (await db().selectFrom('users').select('id').where('id', '=', userId.output).executeTakeFirst())
  if (!user) throw new AppError('NOT_FOUND', 'There is no such user.')
  const source = `admin:${claim?.id ?? randomUUID()}`
  await db()
    .transaction()
    .execute(async (trx) => {
      if ((await grant(trx, { userId: user.id, kind: 'promo', tokens: body.tokens, source })) === 'replay') return
      await recordAudit(trx, {
        ...actorOf(context, body.reason),
        action: 'tokens.grant',
        target: { type: 'user', id: user.id },
        details: { tokens: body.tokens, source },
      })
    })
  const { balance } = await statementOf(db(), user.id)
  return Response.json({ userId: user.id, granted: body.tokens, balance }, { status: 201 })
}

async function orders({ url }: Context<'admin'>) {
  return await listOrders(db(), validate(OrdersQuery, Object.fromEntries(url.searchParams), 'query'))
}

async function assign(context: Context<'admin', v.InferOutput<typeof Assignment>>) {
  const { params, body, claim } = context
  const { userId, tokens, reason } = body
  const orderId = storedId(params.id, 'There is no such order.')
  const assignment = { orderId, userId, tokens, claimId: claim?.id, by: actorOf(context, reason) }
  return await db()
    .transaction()
    .execute((trx) => assignWaitingOrder(trx, assignment))
}

async function revenue({ url }: Context<'admin'>) {
  return await revenueOf(db(), validate(PeriodQuery, Object.fromEntries(url.searchParams), 'query'))
}

async function webhooks({ url }: Context<'admin'>) {
  return await listWebhooks(db(), validate(WebhooksQuery, Object.fromEntries(url.searchParams), 'query'))
}

async function webhook({ params }: Context<'admin'>) {
  return await webhookOf(db(), storedId(params.id, 'There is no such event.'))
}

async function replay(context: Context<'admin'>) {
  return await replayWebhook(db(), storedId(context.params.id, 'There is no such event.'), actorOf(context))
}

async function redeliver(context: Context<'admin', v.InferOutput<typeof Redelivery>>) {
  return await redeliverFailed(db(), { since: context.body.since, by: actorOf(context) })
}

async function enable(context: Context<'admin'>) {
  return await enableEndpoints(db(), actorOf(context))
}

function actorOf({ caller, ip, request, requestId }: Context<'admin', unknown>, reason?: string): Actor {
  return {
    actor: { type: 'admin', id: caller.userId },
    ...(reason !== undefined && { reason }),
    ip,
    userAgent: request.headers.get('user-agent'),
    requestId,
  }
}

/** An id as Polar gives them out; anything else is nobody's. */
function storedId(id: string | undefined, message: string): string {
  if (id !== undefined && /^[!-~]{1,100}$/.test(id)) return id
  throw new AppError('NOT_FOUND', message)
}
