// The way to Polar's checkout and back: customers are linked first, and what was paid is taken over on return.
import type { models, Polar } from '@polar-sh/sdk/2026-10'
import { db } from '../../db/client.ts'
import { config } from '../config.ts'
import { AppError } from '../http/errors.ts'
import { askPolar, presentmentCurrency, unlessRefused } from './polar.ts'
import { type PolarSubscription, readOrder, readSubscription } from './polar-objects.ts'
import type { PaidPlan } from './products.ts'
import { takeOver } from './take-over.ts'

const LIST_MAX = 100

export type Wish =
  | { kind: 'pack'; pack: string }
  | { kind: 'deposit'; amountCents: number }
  | { kind: 'plan'; plan: PaidPlan }

/** Opens a checkout at Polar, with the user as its buyer. What it grants is decided by the order that comes of it, not here. */
export async function openCheckout(
  userId: string,
  wish: Wish,
  returnUrl: string,
): Promise<{ checkoutId: string; checkoutUrl: string }> {
  const user = await personOf(userId)
  return await askPolar(async (polar) => {
    const [customerId, article] = await Promise.all([linkCustomer(polar, user), articleOf(polar, userId, wish)])
    const { id, url } = await polar.checkouts.create({
      ...article,
      ...(customerId !== undefined && { customer_id: customerId }),
      success_url: withCheckoutId(returnUrl),
      return_url: returnUrl,
      allow_trial: false,
    })
    return { checkoutId: id, checkoutUrl: url }
  })
}

/**
 * The user's customer at Polar, made if need be. Undefined when the e-mail address belongs to a customer that is not linked to
 * this user: addresses are not proven here, and linking would open a stranger's purchases.
 */
export async function linkCustomer(
  polar: Polar,
  user: { id: string; email: string; name: string },
): Promise<string | undefined> {
  const find = () => unlessRefused(404, () => polar.customers.getExternal(user.id))
  const make = () =>
    unlessRefused(422, () => polar.customers.create({ external_id: user.id, email: user.email, name: user.name }))
  // Refused when the address is taken, which may be by another request of the same user in this very moment.
  const customer = (await find()) ?? (await make()) ?? (await find())
  return customer?.id
}

/** Takes over what a checkout has led to so far, before any webhook does. NOT_FOUND unless the user opened it. */
export async function syncCheckout(userId: string, checkoutId: string): Promise<{ status: string }> {
  const found = await askPolar(async (polar) => {
    const checkout = await unlessRefused(404, () => polar.checkouts.get(checkoutId))
    if (checkout?.metadata.user_id !== userId) throw new AppError('NOT_FOUND', 'You have no such checkout.')
    const { items } = await polar.orders.list({ checkout_id: checkoutId, limit: LIST_MAX })
    return { status: checkout.status, orders: items.map(readOrder), subscriptions: await subscriptionsOf(polar, items) }
  })
  await takeOver(found)
  return { status: found.status }
}

export async function personOf(userId: string): Promise<{ id: string; email: string; name: string }> {
  return await db()
    .selectFrom('users')
    .select(['id', 'email', 'name'])
    .where('id', '=', userId)
    .executeTakeFirstOrThrow()
}

async function subscriptionsOf(polar: Polar, orders: models.Order[]): Promise<PolarSubscription[]> {
  const ids = new Set(orders.flatMap(({ subscription_id }) => subscription_id ?? []))
  return await Promise.all([...ids].map(async (id) => readSubscription(await polar.subscriptions.get(id))))
}

type Article = Pick<models.CheckoutCreate, 'products' | 'prices' | 'amount' | 'metadata' | 'allow_discount_codes'>

/** What stands in the basket. The metadata comes back with every order of it, and says whose it is. */
async function articleOf(polar: Polar, userId: string, wish: Wish): Promise<Article> {
  const { payments, plans } = config()
  // A discount on tokens would take away as many tokens as it saves.
  const tokens = { allow_discount_codes: false }
  switch (wish.kind) {
    case 'plan': {
      const product = await productId(polar, plans[wish.plan].polarProductId, { plan: wish.plan })
      return { products: [product], metadata: { user_id: userId, kind: 'plan', plan: wish.plan } }
    }
    case 'pack': {
      const pack = payments.packs.find(({ id }) => id === wish.pack)
      if (!pack) throw new Error(`There is no pack ${wish.pack}.`)
      const product = await productId(polar, pack.polarProductId, { pack: pack.id })
      const metadata = { user_id: userId, kind: 'tokens', pack: pack.id }
      return { products: [product], amount: pack.priceCents, metadata, ...tokens }
    }
    case 'deposit': {
      const { amountCents } = wish
      const product = await productId(polar, payments.polarProductId, { kind: 'tokens' })
      const price: models.ProductPriceCustomCreate = {
        amount_type: 'custom',
        price_currency: presentmentCurrency(payments.currency),
        minimum_amount: payments.minimumDepositCents,
        preset_amount: amountCents,
      }
      const metadata = { user_id: userId, kind: 'tokens' }
      return { products: [product], prices: { [product]: [price] }, amount: amountCents, metadata, ...tokens }
    }
  }
}

/** The configured product, else the one at Polar that `npm run doctor -- --fix` marked with this. Throws FEATURE_DISABLED without one. */
export async function productId(polar: Polar, configured: string, mark: Record<string, string>): Promise<string> {
  if (configured !== '') return configured
  const { items } = await polar.products.list({ is_archived: false, limit: LIST_MAX })
  const wanted = Object.entries(mark)
  const found = items.find(
    ({ metadata }) =>
      wanted.every(([key, value]) => metadata[key] === value) && ('pack' in mark || metadata.pack === undefined),
  )
  if (found) return found.id
  const what = wanted.map(([key, value]) => `${key} "${value}"`).join(', ')
  const reason = `There is no product at Polar for ${what}: npm run doctor -- --fix makes it.`
  throw new AppError('FEATURE_DISABLED', 'This cannot be bought yet.', { details: { reason } })
}

/** The address to come back to; Polar puts the id where the braces are, which have to stay as they are. */
function withCheckoutId(returnUrl: string): string {
  const url = new URL(returnUrl)
  url.searchParams.delete('checkout_id')
  url.searchParams.append('checkout_id', 'ID')
  return url.href.replace(/(?<=[?&]checkout_id=)ID(?=#|$)/, '{CHECKOUT_ID}')
}
