// What a customer does after buying: change, cancel or resume a plan, open Polar's portal, fetch an invoice.
import type { models, Polar } from '@polar-sh/sdk/2026-10'
import { db } from '../../db/client.ts'
import type { Plan } from '../../db/schema.ts'
import { config } from '../config.ts'
import { AppError } from '../http/errors.ts'
import { linkCustomer, openCheckout, personOf, productId } from './checkout.ts'
import { askPolar, unlessRefused } from './polar.ts'
import { readOrder, readSubscription } from './polar-objects.ts'
import { isPaidPlan, type PaidPlan } from './products.ts'
import { takeOver } from './take-over.ts'

/** Polar's statuses of a subscription that it goes on charging for. */
export const LIVING = ['active', 'trialing', 'past_due']
const RECENT_ORDERS = 10
const SUBSCRIPTIONS_MAX = 20
const INVOICE_POLLS = 5
const INVOICE_POLL_MS = 600

/**
 * Moves the user to a plan. Without a paid plan that is a checkout; a dearer plan is invoiced and in force at once, a cheaper one
 * from the next period on. Choosing the plan in force takes back a cheaper one that is to come. Throws CONFLICT when the plan is
 * the user's already, or not paid for.
 */
export async function changePlan(
  userId: string,
  plan: PaidPlan,
  returnUrl: string,
): Promise<{ checkoutId: string; checkoutUrl: string } | undefined> {
  const [current] = await livingSubscriptions(userId)
  if (!current) return await openCheckout(userId, { kind: 'plan', plan }, returnUrl)
  if (current.plan === plan && current.pending_plan !== null) {
    await updateSubscription(current.id, { pending_update: null })
    return undefined
  }
  if (current.plan === plan) {
    throw new AppError(
      'CONFLICT',
      current.cancel_at_period_end ? 'Resume your plan to keep it.' : 'You are on this plan.',
    )
  }
  if (current.status === 'past_due') {
    throw new AppError('CONFLICT', 'Your last payment did not go through. Put that right in the customer portal first.')
  }
  const { plans } = config()
  const isDearer = !isPaidPlan(current.plan) || plans[plan].priceCents > plans[current.plan].priceCents
  const product_id = await askPolar((polar) => productId(polar, plans[plan].polarProductId, { plan }))
  await updateSubscription(current.id, { product_id, proration_behavior: isDearer ? 'invoice' : 'next_period' })
  return undefined
}

/** Ends the user's paid plan with its period, or takes that back. CONFLICT when there is nothing to end or to resume. */
export async function setCancellation(userId: string, cancel: boolean): Promise<void> {
  const all = await livingSubscriptions(userId)
  const concerned = all.filter(({ cancel_at_period_end }) => cancel_at_period_end !== cancel)
  if (all.length === 0) throw new AppError('CONFLICT', 'You have no paid plan.')
  if (concerned.length === 0) {
    throw new AppError('CONFLICT', cancel ? 'Your plan is cancelled already.' : 'Your plan is not cancelled.')
  }
  for (const { id } of concerned) await updateSubscription(id, { cancel_at_period_end: cancel })
}

/** Whether Polar goes on charging the user when a period ends, as far as is known here. */
export async function isCharged(userId: string): Promise<boolean> {
  const living = await livingSubscriptions(userId)
  return living.some(({ cancel_at_period_end }) => !cancel_at_period_end)
}

/** A link, good for an hour, to the user's purchases at Polar. CONFLICT when their address belongs to another customer there. */
export async function openPortal(userId: string, returnUrl: string): Promise<{ portalUrl: string; expiresAt: string }> {
  const user = await personOf(userId)
  return await askPolar(async (polar) => {
    const customer_id = await linkCustomer(polar, user)
    if (customer_id === undefined) {
      throw new AppError(
        'CONFLICT',
        'Your e-mail address belongs to another customer at our payment service. Please write to us.',
      )
    }
    const session = await polar.customerSessions.create({ customer_id, return_url: returnUrl })
    return { portalUrl: session.customer_portal_url, expiresAt: session.expires_at }
  })
}

/** The link to an order's invoice, made on first call; undefined while Polar is still writing it. */
export async function invoiceOf(userId: string, orderId: string): Promise<{ url: string } | undefined> {
  const order = await db()
    .selectFrom('billing_orders')
    .select('paid')
    .where('id', '=', orderId)
    .where('user_id', '=', userId)
    .executeTakeFirst()
  if (!order) throw new AppError('NOT_FOUND', 'You have no such order.')
  if (!order.paid) throw new AppError('CONFLICT', 'There is an invoice once the order is paid.')
  const { name } = await personOf(userId)
  return await askPolar(async (polar) => {
    const fetchInvoice = () => unlessRefused(404, () => polar.orders.invoice(orderId))
    const ready = await fetchInvoice()
    if (ready) return { url: ready.url }
    await requestInvoice(polar, orderId, name)
    for (let poll = 0; poll < INVOICE_POLLS; poll += 1) {
      const made = await fetchInvoice()
      if (made) return { url: made.url }
      await new Promise((resolve) => setTimeout(resolve, INVOICE_POLL_MS))
    }
    return undefined
  })
}

/** Asks for an invoice; one that lacks a name and an address is made out to the user, at the address of the payment. */
async function requestInvoice(polar: Polar, orderId: string, name: string): Promise<void> {
  if (await unlessRefused(422, () => polar.orders.generateInvoice(orderId).then(() => true))) return
  const { billing_name, billing_address, customer } = await polar.orders.get(orderId)
  // The types of what goes in leave out countries that Polar does not serve; this one it has served.
  const address = (billing_address ?? customer.billing_address) as models.AddressInput | null
  if (!address) throw new AppError('CONFLICT', 'Add your billing address in the customer portal first.')
  await polar.orders.update(orderId, { billing_name: billing_name ?? name, billing_address: address })
  await polar.orders.generateInvoice(orderId)
}

/** The plan that a downgrade leads to when the period ends; null without one. */
export async function pendingPlanOf(userId: string): Promise<Plan | null> {
  const row = await db()
    .selectFrom('billing_subscriptions')
    .select('pending_plan')
    .where('user_id', '=', userId)
    .where('status', 'in', LIVING)
    .where('pending_plan', 'is not', null)
    .limit(1)
    .executeTakeFirst()
  return row?.pending_plan ?? null
}

/** The subscriptions that Polar goes on charging for, the best first; a late one counts, though its plan may have ended here. */
async function livingSubscriptions(userId: string) {
  return await db()
    .selectFrom('billing_subscriptions')
    .select(['id', 'plan', 'status', 'cancel_at_period_end', 'pending_plan'])
    .where('user_id', '=', userId)
    .where('status', 'in', LIVING)
    .orderBy('plan', 'desc')
    .orderBy('period_end', 'desc')
    .limit(SUBSCRIPTIONS_MAX)
    .execute()
}

/** Changes a subscription at Polar and takes over what came of it, so that the answer shows it. CONFLICT when Polar has it otherwise. */
async function updateSubscription(id: string, change: models.SubscriptionUpdate): Promise<void> {
  const { refused, ...news } = await askPolar(async (polar) => {
    const changed = await updatedOrRefused(() => polar.subscriptions.update(id, change))
    const subscription = readSubscription(changed ?? (await polar.subscriptions.get(id)))
    const { items } = await polar.orders.list({ subscription_id: id, sorting: ['-created_at'], limit: RECENT_ORDERS })
    return { refused: changed === undefined, subscriptions: [subscription], orders: items.map(readOrder) }
  })
  await takeOver(news)
  if (refused) throw new AppError('CONFLICT', 'Your plan cannot be changed like this now. Look at it again.')
}

async function updatedOrRefused<T>(call: () => Promise<T>): Promise<T | undefined> {
  return await unlessRefused(403, () => unlessRefused(409, call))
}
