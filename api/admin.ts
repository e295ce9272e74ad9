// What an admin may do: look after users, read and check the audit log, look into money and events, and mend what went wrong.
import * as v from 'valibot'
import { db } from '../db/client.ts'
import { AuditQuery, listAudit } from '../lib/admin/audit-list.ts'
import { healthReport } from '../lib/admin/health.ts'
import { MetricsQuery, metricsOf } from '../lib/admin/metrics.ts'
import { giveTokens, takeTokens } from '../lib/admin/tokens.ts'
import { changeUser, Reason, UserChange } from '../lib/admin/user-change.ts'
import { listUsers, UsersQuery, userDetails } from '../lib/admin/users.ts'
import { actorOf } from '../lib/audit.ts'
import { type Head, parseHead, verifyAudit } from '../lib/audit-chain.ts'
import { closeAccount } from '../lib/auth/deletion.ts'
import { assignWaitingOrder, listOrders, OrdersQuery } from '../lib/billing/operator.ts'
import { Instant, PeriodQuery } from '../lib/billing/period.ts'
import { listWebhooks, replayWebhook, WebhooksQuery, webhookOf } from '../lib/billing/received.ts'
import { enableEndpoints, redeliverFailed } from '../lib/billing/redelivery.ts'
import { revenueOf } from '../lib/billing/revenue.ts'
import { isJson, parseJson, validate } from '../lib/http/body.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { AppError } from '../lib/http/errors.ts'
import { AllJobsQuery, listAllJobs } from '../lib/jobs/read.ts'
import { SWITCHES, setSwitch } from '../lib/switches.ts'

const TOKENS_MAX = 100_000_000

const UserId = v.pipe(v.string(), v.uuid())
const Tokens = v.strictObject({
  tokens: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(TOKENS_MAX)),
  reason: Reason,
})
const Assignment = v.strictObject({
  userId: v.pipe(UserId, v.toLowerCase()),
  tokens: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(TOKENS_MAX))),
  reason: Reason,
})
const Deletion = v.strictObject({ reason: Reason })
const VerifyQuery = v.strictObject({
  head: v.optional(
    v.pipe(
      v.string(),
      v.rawTransform(({ dataset, addIssue, NEVER }): Head => {
        const head = parseHead(dataset.value)
        if (head) return head
        addIssue({ message: 'Not a head of the audit log: <seq>:<hash>.' })
        return NEVER
      }),
    ),
  ),
})
const SwitchName = v.picklist(SWITCHES)
const Switch = v.strictObject({ off: v.boolean(), reason: Reason })
const Redelivery = v.strictObject({ since: v.optional(Instant) })

const admin = { access: 'admin', limit: 'read' } as const

export default endpoint({
  'GET /api/admin/users': route({ ...admin, handle: users }),
  'GET /api/admin/users/:id': route({ ...admin, handle: user }),
  'PATCH /api/admin/users/:id': route({ ...admin, body: UserChange, handle: patchUser }),
  'DELETE /api/admin/users/:id': route({ ...admin, read: readDeletion, handle: deleteUser }),
  'POST /api/admin/users/:id/grant': route({ ...admin, idempotent: true, body: Tokens, handle: grantTokens }),
  'POST /api/admin/users/:id/revoke': route({ ...admin, idempotent: true, body: Tokens, handle: revokeTokens }),
  'GET /api/admin/health': route({ ...admin, handle: healthReport }),
  'PUT /api/admin/switches/:name': route({ ...admin, body: Switch, handle: putSwitch }),
  'GET /api/admin/audit': route({ ...admin, handle: audit }),
  'GET /api/admin/audit/verify': route({ ...admin, handle: verifyLog }),
  'GET /api/admin/jobs': route({ ...admin, handle: jobs }),
  'GET /api/admin/orders': route({ ...admin, handle: orders }),
  'POST /api/admin/orders/:id/assign': route({ ...admin, idempotent: true, body: Assignment, handle: assign }),
  'GET /api/admin/metrics': route({ ...admin, handle: metrics }),
  'GET /api/admin/revenue': route({ ...admin, handle: revenue }),
  'GET /api/admin/webhooks': route({ ...admin, handle: webhooks }),
  'GET /api/admin/webhooks/:id': route({ ...admin, handle: webhook }),
  'POST /api/admin/webhooks/:id/replay': route({ ...admin, handle: replay }),
  'POST /api/admin/polar/redeliver': route({ ...admin, body: Redelivery, handle: redeliver }),
  'POST /api/admin/polar/endpoint/enable': route({ ...admin, handle: enable }),
})

async function users({ url }: Context<'admin'>) {
  return await listUsers(db(), validate(UsersQuery, Object.fromEntries(url.searchParams), 'query'))
}

async function user({ params }: Context<'admin'>) {
  return await userDetails(db(), userIdOf(params.id))
}

async function patchUser(context: Context<'admin', v.InferOutput<typeof UserChange>>) {
  const userId = userIdOf(context.params.id)
  await changeUser(userId, context.body, actorOf(context, 'admin', context.body.reason))
  return await userDetails(db(), userId)
}

async function deleteUser(context: Context<'admin', v.InferOutput<typeof Deletion>>) {
  const userId = userIdOf(context.params.id)
  if (userId === context.caller.userId) {
    throw new AppError('CONFLICT', 'Delete your own account from your profile.')
  }
  return await closeAccount(userId, actorOf(context, 'admin', context.body.reason))
}

/** The reason as a JSON body or in the address: not every client sends a body with DELETE. */
function readDeletion({ bytes, type, request }: { bytes: Buffer; type: string; request: Request }) {
  if (bytes.length > 0 && !isJson(type)) {
    throw new AppError('UNSUPPORTED_MEDIA_TYPE', `Send the body as application/json, not ${type}.`)
  }
  const given = bytes.length > 0 ? parseJson(bytes) : Object.fromEntries(new URL(request.url).searchParams)
  return validate(Deletion, given)
}

async function grantTokens(context: Context<'admin', v.InferOutput<typeof Tokens>>) {
  const userId = userIdOf(context.params.id)
  const { tokens, reason } = context.body
  const by = actorOf(context, 'admin', reason)
  const balance = await giveTokens({ userId, tokens, claimId: context.claim?.id, by })
  return Response.json({ userId, granted: tokens, balance }, { status: 201 })
}

async function revokeTokens(context: Context<'admin', v.InferOutput<typeof Tokens>>) {
  const userId = userIdOf(context.params.id)
  const { tokens, reason } = context.body
  const by = actorOf(context, 'admin', reason)
  return { userId, asked: tokens, ...(await takeTokens({ userId, tokens, claimId: context.claim?.id, by })) }
}

async function putSwitch(context: Context<'admin', v.InferOutput<typeof Switch>>) {
  const name = v.safeParse(SwitchName, context.params.name)
  if (!name.success) throw new AppError('NOT_FOUND', `There is no such switch. There are: ${SWITCHES.join(', ')}.`)
  await setSwitch(name.output, context.body, actorOf(context, 'admin', context.body.reason))
  return { name: name.output, ...context.body }
}

async function audit({ url }: Context<'admin'>) {
  return await listAudit(db(), validate(AuditQuery, Object.fromEntries(url.searchParams), 'query'))
}

async function verifyLog({ url }: Context<'admin'>) {
  const { head } = validate(VerifyQuery, Object.fromEntries(url.searchParams), 'query')
  return await verifyAudit(db(), head)
}

async function jobs({ url }: Context<'admin'>) {
  return await listAllJobs(db(), validate(AllJobsQuery, Object.fromEntries(url.searchParams), 'query'))
}

async function orders({ url }: Context<'admin'>) {
  return await listOrders(db(), validate(OrdersQuery, Object.fromEntries(url.searchParams), 'query'))
}

async function assign(context: Context<'admin', v.InferOutput<typeof Assignment>>) {
  const { params, body, claim } = context
  const { userId, tokens, reason } = body
  const orderId = storedId(params.id, 'There is no such order.')
  const assignment = { orderId, userId, tokens, claimId: claim?.id, by: actorOf(context, 'admin', reason) }
  return await db()
    .transaction()
    .execute((trx) => assignWaitingOrder(trx, assignment))
}

async function metrics({ url }: Context<'admin'>) {
  return await metricsOf(db(), validate(MetricsQuery, Object.fromEntries(url.searchParams), 'query'))
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
  return await replayWebhook(db(), storedId(context.params.id, 'There is no such event.'), actorOf(context, 'admin'))
}

async function redeliver(context: Context<'admin', v.InferOutput<typeof Redelivery>>) {
  return await redeliverFailed(db(), { since: context.body.since, by: actorOf(context, 'admin') })
}

async function enable(context: Context<'admin'>) {
  return await enableEndpoints(db(), actorOf(context, 'admin'))
}

/** Any other id is nobody's. */
function userIdOf(id: string | undefined): string {
  const userId = v.safeParse(UserId, id)
  if (userId.success) return userId.output.toLowerCase()
  throw new AppError('NOT_FOUND', 'There is no such user.')
}

/** An id as Polar gives them out; anything else is nobody's. */
function storedId(id: string | undefined, message: string): string {
  if (id !== undefined && /^[!-~]{1,100}$/.test(id)) return id
  throw new AppError('NOT_FOUND', message)
}
