// What happens in the shop without the seller: buyers pay, banks decide, time passes.
import type { models } from '@polar-sh/sdk/2026-10'
import { type Books, type Conduct, found } from './books.ts'
import { createProduct } from './catalogue.ts'
import { expire, type Payment, pay } from './checkouts.ts'
import type { Customer, ProductDraft } from './objects.ts'
import { dispute, type RefundRequest, refund, settleRefund } from './refunds.ts'
import { notFound } from './refusals.ts'
import type { Site } from './routes.ts'
import { cancelAtPeriodEnd, recover, renew, revoke, uncancel } from './subscriptions.ts'

/**
 * The acts refuse with the errors of the API, and announce what Polar announces, in its order, before they return.
 * Objects are the shop's own and go on changing.
 */
export function createShop({ books, stableProductIds }: Pick<Site, 'books' | 'stableProductIds'>) {
  const known = <T>(objects: ReadonlyMap<string, T>, id: string) => found(objects, id, notFound)
  const subscription = (id: string) => known(books.subscriptions, id)
  return {
    ...readable(books),
    addProduct: (draft: ProductDraft): models.Product => createProduct(books, draft, stableProductIds),
    pay: (checkoutId: string, payment?: Payment): models.Order =>
      pay(books, known(books.checkouts, checkoutId), payment),
    expire: (checkoutId: string): void => expire(books, known(books.checkouts, checkoutId)),
    renew: (subscriptionId: string, charge: 'ok' | 'fail' = 'ok'): models.Order | undefined =>
      renew(books, subscription(subscriptionId), charge),
    /** An unpaid period is paid after all. */
    recover: (subscriptionId: string): models.Order[] => recover(books, subscription(subscriptionId)),
    /** What time brings to a canceled subscription: the end. Any other is renewed. */
    endPeriod: (subscriptionId: string): models.Order | undefined => renew(books, subscription(subscriptionId), 'ok'),
    cancelAtPeriodEnd: (subscriptionId: string): void => cancelAtPeriodEnd(books, subscription(subscriptionId)),
    uncancel: (subscriptionId: string): void => uncancel(books, subscription(subscriptionId)),
    revoke: (subscriptionId: string): void => revoke(books, subscription(subscriptionId)),
    refund: (request: RefundRequest): models.Refund => refund(books, request),
    settleRefund: (refundId: string, status: 'succeeded' | 'failed' | 'canceled'): void =>
      settleRefund(books, known(books.refunds, refundId), status),
    dispute: (orderId: string, status: models.DisputeStatus): models.Dispute =>
      dispute(books, known(books.orders, orderId), status),
    /** The next charge without the buyer at hand, as for a change of plan, is declined. */
    declineNextCharge(): void {
      books.conduct.declinedCharges += 1
    },
  }
}

function readable(books: Books): {
  readonly conduct: Conduct
  readonly products: ReadonlyMap<string, models.Product>
  readonly customers: ReadonlyMap<string, Customer>
  readonly checkouts: ReadonlyMap<string, models.Checkout>
  readonly orders: ReadonlyMap<string, models.Order>
  readonly subscriptions: ReadonlyMap<string, models.Subscription>
  readonly refunds: ReadonlyMap<string, models.Refund>
  readonly disputes: ReadonlyMap<string, models.Dispute>
} {
  const { conduct, products, customers, checkouts, orders, subscriptions, refunds, disputes } = books
  return { conduct, products, customers, checkouts, orders, subscriptions, refunds, disputes }
}
