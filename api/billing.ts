// What the caller has, what is for sale, and the way to buy it.
import * as v from 'valibot'
import { db } from '../db/client.ts'
import { actorOf, recordAudit } from '../lib/audit.ts'
import { analyse } from '../lib/billing/analytics.ts'
import { openCheckout, syncCheckout, type Wish } from '../lib/billing/checkout.ts'
import { HistoryCsvQuery, HistoryQuery, historyCsv, listHistory } from '../lib/billing/history.ts'
import { changePlan, invoiceOf, openPortal, pendingPlanOf, setCancellation } from '../lib/billing/manage.ts'
import { paymentsOffReason, requirePayments } from '../lib/billing/payments.ts'
import { PeriodQuery } from '../lib/billing/period.ts'
import { PAID_PLANS } from '../lib/billing/products.ts'
import { config, publicConfig } from '../lib/config.ts'
import { env } from '../lib/env.ts'
import { invalidField, isJson, parseJson, validate } from '../lib/http/body.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { AppError } from '../lib/http/errors.ts'
import { statementOf } from '../lib/ledger/ledger.ts'

const AMOUNT_CENTS_MAX = 1_000_000
const RETRY_INVOICE_SECONDS = 5

const ReturnUrl = v.optional(v.pipe(v.string(), v.maxLength(2000), v.url()))
const CheckoutWish = v.strictObject({
  pack: v.optional(v.pipe(v.string(), v.maxLength(40))),
  amountCents: v.optional(v.pipe(v.number(), v.safeInteger('Must be whole cents.'))),
  currency: v.optional(v.string()),
  returnUrl: ReturnUrl,
})
const PlanWish = v.strictObject({ plan: v.picklist(PAID_PLANS), returnUrl: ReturnUrl })
const Return = v.strictObject({ returnUrl: ReturnUrl })
/** A body that may be left out. */
const returnOnly = {
  read: ({ bytes, type }: { bytes: Buffer; type: string }) => {
    if (!isJson(type)) throw new AppError('UNSUPPORTED_MEDIA_TYPE', `Send the body as application/json, not ${type}.`)
    return validate(Return, bytes.length > 0 ? parseJson(bytes) : {})
  },
}
const PolarId = v.pipe(v.string(), v.uuid())

export default endpoint({
  'GET /api/billing/status': route({
    access: 'user',
    scope: 'read',
    limit: 'read',
    handle: ({ caller }) => statusOf(caller.userId),
  }),
  'GET /api/billing/catalogue': route({ access: 'public', limit: 'read', handle: catalogue }),
  'POST /api/billing/checkout': route({
    access: 'user',
    limit: 'read',
    personal: true,
    idempotent: true,
    body: CheckoutWish,
    handle: checkout,
  }),
  'POST /api/billing/checkouts/:id/sync': route({ access: 'user', limit: 'read', handle: sync }),
  'POST /api/billing/upgrade': route({
    access: 'user',
    limit: 'read',
    personal: true,
    idempotent: true,
    body: PlanWish,
    handle: upgrade,
  }),
  'POST /api/billing/cancel': route({
    access: 'user',
    limit: 'read',
    personal: true,
    handle: (context) => cancelled(context, true),
  }),
  'POST /api/billing/resume': route({
    access: 'user',
    limit: 'read',
    personal: true,
    handle: (context) => cancelled(context, false),
  }),
  'POST /api/billing/portal': route({ access: 'user', personal: true, limit: 'read', ...returnOnly, handle: portal }),
  'GET /api/billing/history': route({ access: 'user', scope: 'read', limit: 'read', handle: history }),
  'GET /api/billing/analytics': route({ access: 'user', scope: 'read', limit: 'read', handle: analytics }),
  'GET /api/billing/invoices/:orderId': route({ access: 'user', scope: 'read', limit: 'read', handle: invoice }),
})

async function statusOf(userId: string) {
  const [statement, pendingPlan] = await Promise.all([statementOf(db(), userId), pendingPlanOf(userId)])
  const reason = paymentsOffReason(config(), env())
  return {
    plan: statement.plan,
    status: statement.status,
    tokenLimit: statement.tokenLimit,
    tokensUsed: statement.tokensUsed,
    periodStart: statement.periodStart,
    periodEnd: statement.periodEnd,
    expiresAt: statement.expiresAt,
    pendingPlan,
    balance: {
      trialGenerations: statement.balance.trialGenerations,
      planTokens: statement.planTokens,
      purchasedTokens: statement.purchasedTokens,
      reservedTokens: statement.reservedTokens,
      debtTokens: statement.debtTokens,
      tokens: statement.balance.tokens,
    },
    payments: { enabled: reason === undefined, ...(reason !== undefined && { reason }) },
  }
}

function catalogue() {
  const paymentsOn = paymentsOffReason(config(), env()) === undefined
  const { plans, payments, tools, trial } = publicConfig(config(), { paymentsOn })
  return { plans, payments, tools, trial }
}

async function checkout(context: Context<'user', v.InferOutput<typeof CheckoutWish>>) {
  requirePayments()
  const { caller, body, url } = context
  const wish = wishOf(body)
  const opened = await openCheckout(caller.userId, wish, returnUrlOf(body, url))
  await recordPurchase(context, 'checkout.open', { ...wish, checkoutId: opened.checkoutId })
  return Response.json(opened, { status: 201 })
}

/** A pack or an amount, as this fork sells them. */
function wishOf({ pack, amountCents, currency }: v.InferOutput<typeof CheckoutWish>): Wish {
  const { payments } = config()
  if (currency !== undefined && currency.toLowerCase() !== payments.currency) {
    throw invalidField('currency', `Only ${payments.currency} is taken.`)
  }
  if ((pack === undefined) === (amountCents === undefined)) throw invalidField('', 'Send either pack or amountCents.')
  if (amountCents === undefined) {
    const found = payments.packs.find(({ id }) => id === pack)
    if (found) return { kind: 'pack', pack: found.id }
    throw invalidField('pack', `There is no such pack. There are: ${payments.packs.map(({ id }) => id).join(', ')}.`)
  }
  if (amountCents < payments.minimumDepositCents) {
    throw invalidField('amountCents', `The smallest purchase is ${payments.minimumDepositCents} cents.`)
  }
  if (amountCents > AMOUNT_CENTS_MAX)
    throw invalidField('amountCents', `The largest purchase is ${AMOUNT_CENTS_MAX} cents.`)
  return { kind: 'deposit', amountCents }
}

async function sync({ caller, params }: Context<'user'>) {
  requirePayments()
  const { status } = await syncCheckout(caller.userId, polarId(params.id, 'You have no such checkout.'))
  const { balance, plan } = await statusOf(caller.userId)
  return { checkoutId: params.id, status, plan, balance }
}

async function upgrade(context: Context<'user', v.InferOutput<typeof PlanWish>>) {
  requirePayments()
  const { caller, body, url } = context
  const opened = await changePlan(caller.userId, body.plan, returnUrlOf(body, url))
  await recordPurchase(context, 'plan.change', { plan: body.plan, checkoutId: opened?.checkoutId })
  return opened ? Response.json(opened, { status: 201 }) : await statusOf(caller.userId)
}

async function cancelled(context: Context<'user'>, cancel: boolean) {
  requirePayments()
  const { userId } = context.caller
  await setCancellation(userId, cancel)
  await recordPurchase(context, cancel ? 'plan.cancel' : 'plan.resume', {})
  return await statusOf(userId)
}

/** Recorded once Polar has done it: what Polar does has no part in our transactions. */
async function recordPurchase(context: Context<'user', unknown>, action: string, details: Record<string, unknown>) {
  const target = { type: 'user', id: context.caller.userId }
  await recordAudit(db(), { ...actorOf(context, 'user'), action, target, details })
}

async function portal({ caller, body, url }: Context<'user', v.InferOutput<typeof Return>>) {
  requirePayments()
  return Response.json(await openPortal(caller.userId, returnUrlOf(body, url)), { status: 201 })
}

async function invoice({ caller, params }: Context<'user'>) {
  requirePayments()
  const orderId = polarId(params.orderId, 'You have no such order.')
  const made = await invoiceOf(caller.userId, orderId)
  if (made) return { orderId, status: 'ready', url: made.url }
  const headers = { 'retry-after': String(RETRY_INVOICE_SECONDS) }
  return Response.json({ orderId, status: 'preparing' }, { status: 202, headers })
}

/** A page of JSON, or as a table with a link to the next part. */
async function history({ caller, url, request }: Context<'user'>) {
  const query = Object.fromEntries(url.searchParams)
  const { userId } = caller
  if (!request.headers.get('accept')?.includes('text/csv')) {
    const { limit, cursor } = validate(HistoryQuery, query, 'query')
    return await listHistory(db(), { userId, limit, after: cursor })
  }
  const { limit, cursor } = validate(HistoryCsvQuery, query, 'query')
  const { csv, nextCursor } = await historyCsv(db(), { userId, limit, after: cursor })
  const name = `billing-history-${new Date().toISOString().slice(0, 10)}.csv`
  return new Response(csv, {
    headers: {
      'content-type': 'text/csv; charset=utf-8; header=present',
      'content-disposition': `attachment; filename="${name}"`,
      ...(nextCursor !== null && { link: `<${url.pathname}?cursor=${nextCursor}>; rel="next"` }),
    },
  })
}

async function analytics({ caller, url }: Context<'user'>) {
  const period = validate(PeriodQuery, Object.fromEntries(url.searchParams), 'query')
  return await analyse(db(), { userId: caller.userId, ...period })
}

/** Where Polar sends the buyer back to: a page of this site, or of one that may call the API. */
function returnUrlOf({ returnUrl }: { returnUrl?: string | undefined }, { origin }: URL): string {
  if (returnUrl === undefined) return `${origin}/`
  if ([origin, ...config().cors.origins].includes(new URL(returnUrl).origin)) return returnUrl
  throw invalidField('returnUrl', 'Must be a page of this site, or of an origin in cors.origins.')
}

function polarId(id: string | undefined, message: string): string {
  const parsed = v.safeParse(PolarId, id)
  if (!parsed.success) throw new AppError('NOT_FOUND', message)
  return parsed.output
}
