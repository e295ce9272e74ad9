// What may happen in a life at the pretend Polar, and when it may.
import type { models } from '@polar-sh/sdk/2026-10'
import type { Payment } from '../../scripts/loopback-polar/checkouts.ts'
import { isBillable, type Life, type Person, type World } from './chaos-history.ts'

export interface Act {
  name: string
  weight: number
  /** Draws what it is about; undefined when there is nothing to do it to. */
  prepare(life: Life): (() => unknown) | undefined
}

interface Purchase {
  product: keyof World['products']
  amountCents?: number
  payment?: Payment
  /** Our checkout for a linked customer, ours for whoever has an address that another typed, or none of ours. */
  as?: 'linked' | 'by other address' | 'unknown'
}

const PLANS = ['pro', 'enterprise'] as const
const FREE_AMOUNT = { min: 500, max: 4000 }

export const ACTS: Act[] = [
  always('buys a pack', 6, (life) => {
    const [person, product] = [life.chance.one(life.people), life.chance.one(['starter', 'family'] as const)]
    return () => purchase(life, person, { product })
  }),
  always('buys a free amount', 4, (life) => {
    const [person, amountCents] = [life.chance.one(life.people), freeAmount(life)]
    return () => purchase(life, person, { product: 'tokens', amountCents })
  }),
  always('buys at a discount', 2, (life) => {
    const [person, discountPercent] = [life.chance.one(life.people), life.chance.one([33, 50, 100])]
    return () => purchase(life, person, { product: 'family', payment: { discountPercent } })
  }),
  always("buys under another's address", 2, (life) => {
    const person = life.chance.one(life.people)
    return () => purchase(life, person, { product: 'starter', as: 'by other address' })
  }),
  always('buys without us', 1, (life) => {
    const [person, product] = [life.chance.one(life.people), life.chance.one(['tokens', 'euros', 'mug'] as const)]
    const amountCents = freeAmount(life)
    const payment = { email: life.chance.one([person.email, `guest@${life.domain}`]) }
    return () => purchase(life, person, { product, amountCents, payment, as: 'unknown' })
  }),
  always('pays in euros', 1, (life) => {
    const [person, amountCents] = [life.chance.one(life.people), freeAmount(life)]
    return () => purchase(life, person, { product: 'euros', amountCents })
  }),
  {
    name: 'subscribes',
    weight: 6,
    prepare(life) {
      const person = life.chance.any(life.people.filter((one) => !life.subscriptions.some(isTheirs(one))))
      const product = life.chance.one(PLANS)
      const discountPercent = life.chance.one([0, 0, 0, 50, 100])
      return person && (() => purchase(life, person, { product, payment: { discountPercent } }))
    },
  },
  always("subscribes again, under another's address", 1, (life) => {
    const [person, product] = [life.chance.one(life.people), life.chance.one(PLANS)]
    return () => purchase(life, person, { product, as: 'by other address' })
  }),
  toSubscription('changes to the other plan', 4, isGoingOn, (life, subscription) => {
    const product_id = otherPlan(life, subscription)
    const isUpgrade = product_id === life.world.products.enterprise
    const proration_behavior = life.chance.one(isUpgrade ? UPGRADES : DOWNGRADES)
    return () => life.world.polar.subscriptions.update(subscription.id, { product_id, proration_behavior })
  }),
  toSubscription('is declined a change of plan', 1, isGoingOn, (life, subscription) => async () => {
    if (subscription.product_id === life.world.products.enterprise) return
    life.world.loopback.shop.declineNextCharge()
    const product_id = otherPlan(life, subscription)
    await life.world.polar.subscriptions
      .update(subscription.id, { product_id, proration_behavior: 'reset' })
      .catch(() => undefined)
  }),
  toSubscription(
    'cancels',
    3,
    ({ status, cancel_at_period_end }) => isBillable(status) && !cancel_at_period_end,
    (life, { id }) =>
      () =>
        life.world.loopback.shop.cancelAtPeriodEnd(id),
  ),
  toSubscription(
    'resumes',
    6,
    ({ cancel_at_period_end, ended_at }) => cancel_at_period_end && !ended_at,
    (life, { id }) =>
      () =>
        life.world.loopback.shop.uncancel(id),
  ),
  toSubscription(
    'is revoked',
    1,
    ({ status }) => isBillable(status),
    (life, { id }) =>
      () =>
        life.world.loopback.shop.revoke(id),
  ),
  toSubscription(
    'pays after all',
    25,
    ({ status }) => status === 'past_due',
    (life, { id }) =>
      () =>
        life.world.loopback.shop.recover(id),
  ),
  toOrder('is refunded in part', 5, (life, order) => {
    const amountCents = life.chance.integer(1, order.refundable_amount)
    return () => life.world.loopback.shop.refund({ orderId: order.id, amountCents })
  }),
  toOrder('is refunded', 4, (life, { id }) => {
    return () => life.world.loopback.shop.refund({ orderId: id })
  }),
  toOrder('is to be refunded', 3, (life, order) => {
    const amountCents = life.chance.integer(1, order.refundable_amount)
    return () => life.world.loopback.shop.refund({ orderId: order.id, amountCents, status: 'pending' })
  }),
  toOrder('is disputed', 3, (life, { id }) => {
    const status = life.chance.one(DISPUTES)
    return () => life.world.loopback.shop.dispute(id, status)
  }),
  {
    name: 'a refund settles',
    weight: 12,
    prepare(life) {
      const refund = life.chance.any(life.refunds.filter(({ status }) => status === 'pending'))
      const { shop } = life.world.loopback
      const left = shop.orders.get(refund?.order_id ?? '')?.refundable_amount ?? 0
      const wish = life.chance.one(SETTLEMENTS)
      return refund && (() => shop.settleRefund(refund.id, refund.amount > left ? 'failed' : wish))
    },
  },
  {
    name: 'a refund fails after all',
    weight: 5,
    prepare(life) {
      const refund = life.chance.any(life.refunds.filter(({ status }) => status === 'succeeded'))
      return refund && (() => life.world.loopback.shop.settleRefund(refund.id, 'failed'))
    },
  },
  {
    name: 'a dispute moves on',
    weight: 12,
    prepare(life) {
      const dispute = life.chance.any(life.disputes.filter(({ closed }) => !closed))
      const status = life.chance.one(OUTCOMES)
      return dispute && (() => life.world.loopback.shop.dispute(dispute.order_id, status))
    },
  },
]

const DISPUTES = ['early_warning', 'needs_response', 'under_review', 'prevented', 'lost', 'won'] as const
const OUTCOMES = ['under_review', 'prevented', 'lost', 'won'] as const
const SETTLEMENTS = ['succeeded', 'succeeded', 'failed', 'canceled'] as const
const UPGRADES = ['invoice', 'invoice', 'prorate', 'reset'] as const
const DOWNGRADES = ['next_period', 'next_period', 'invoice', 'prorate'] as const

function always(name: string, weight: number, prepare: (life: Life) => () => unknown): Act {
  return { name, weight, prepare }
}

function toSubscription(
  name: string,
  weight: number,
  fits: (subscription: models.Subscription) => boolean,
  prepare: (life: Life, subscription: models.Subscription) => () => unknown,
): Act {
  return {
    name,
    weight,
    prepare(life) {
      const subscription = life.chance.any(life.subscriptions.filter(fits))
      return subscription && prepare(life, subscription)
    },
  }
}

function toOrder(name: string, weight: number, prepare: (life: Life, order: models.Order) => () => unknown): Act {
  return {
    name,
    weight,
    prepare(life) {
      const order = life.chance.any(life.orders.filter((one) => one.paid && one.refundable_amount > 0))
      return order && prepare(life, order)
    },
  }
}

async function purchase(life: Life, person: Person, { product, amountCents, payment, as = 'linked' }: Purchase) {
  const { loopback, polar, products } = life.world
  const other = life.people.find((one) => one !== person) ?? { email: `guest@${life.domain}` }
  const isPlan = PLANS.some((plan) => plan === product)
  const kind = isPlan ? { kind: 'plan', plan: product } : { kind: 'tokens' }
  const { id } = await polar.checkouts.create({
    products: [products[product]],
    ...(amountCents !== undefined && { amount: amountCents }),
    ...(as !== 'unknown' && { metadata: { user_id: person.userId, ...kind } }),
    ...(as === 'linked' && { external_customer_id: person.userId, customer_email: person.email }),
    ...(as === 'by other address' && { customer_email: other.email }),
  })
  const { conduct } = loopback.shop
  conduct.allowsSecondSubscription = true
  loopback.shop.pay(id, payment)
  conduct.allowsSecondSubscription = false
}

/** Whoever pays for it: a plan is not offered to those who have one. */
function isTheirs({ userId }: Person) {
  return ({ metadata, status }: models.Subscription) => metadata.user_id === userId && isBillable(status)
}

function isGoingOn({ status, cancel_at_period_end }: models.Subscription): boolean {
  return status === 'active' && !cancel_at_period_end
}

function otherPlan({ world }: Life, { product_id }: models.Subscription): string {
  return product_id === world.products.pro ? world.products.enterprise : world.products.pro
}

function freeAmount({ chance }: Life): number {
  return chance.integer(FREE_AMOUNT.min, FREE_AMOUNT.max)
}
