// The fields of Polar's objects that this product relies on, checked wherever they come from.
import * as v from 'valibot'

const id = v.pipe(v.string(), v.minLength(1), v.maxLength(100))
const cents = v.pipe(v.number(), v.safeInteger())
const time = v.pipe(
  v.string(),
  v.check((text) => Number.isFinite(Date.parse(text)), 'must be a time'),
)
/** Written by people; the database stores no NUL. */
const text = v.pipe(
  v.string(),
  v.transform((value) => value.replaceAll('\0', '')),
)
const currency = v.pipe(v.string(), v.toLowerCase(), v.length(3))
const metadata = v.optional(v.record(v.string(), v.unknown()), {})
const product = v.nullish(v.object({ name: v.optional(text, ''), metadata }))
const customer = v.nullish(v.object({ external_id: v.nullish(v.string()) }))

/** Times stay texts: they order versions by the microsecond, which a Date would cut off. */
export const PolarSubscription = v.object({
  id,
  created_at: time,
  modified_at: v.nullable(time),
  status: v.string(),
  current_period_start: time,
  current_period_end: time,
  cancel_at_period_end: v.boolean(),
  ends_at: v.nullish(time),
  past_due_at: v.nullish(time),
  customer_id: id,
  product_id: id,
  metadata,
  customer,
  product,
  pending_update: v.nullish(v.object({ product_id: v.nullish(id) })),
})
export type PolarSubscription = v.InferOutput<typeof PolarSubscription>

export const PolarOrder = v.object({
  id,
  created_at: time,
  modified_at: v.nullable(time),
  status: v.string(),
  paid: v.boolean(),
  net_amount: cents,
  tax_amount: cents,
  refunded_amount: cents,
  total_amount: v.optional(cents),
  applied_balance_amount: v.optional(cents),
  platform_fee_amount: v.optional(cents, 0),
  currency,
  billing_reason: v.string(),
  invoice_number: v.nullish(v.string()),
  customer_id: id,
  product_id: v.nullish(id),
  checkout_id: v.nullish(id),
  subscription_id: v.nullish(id),
  description: v.optional(text, ''),
  metadata,
  customer,
  product,
  subscription: v.nullish(PolarSubscription),
})
export type PolarOrder = v.InferOutput<typeof PolarOrder>

export const PolarRefund = v.object({
  id,
  created_at: time,
  modified_at: v.nullable(time),
  order_id: id,
  status: v.string(),
  reason: v.string(),
  amount: cents,
  currency,
})
export type PolarRefund = v.InferOutput<typeof PolarRefund>

export const PolarDispute = v.object({
  id,
  created_at: time,
  modified_at: v.nullable(time),
  order_id: id,
  status: v.string(),
  amount: cents,
})
export type PolarDispute = v.InferOutput<typeof PolarDispute>

/** Reads an order that the API gave. Throws where it lacks what this product relies on. */
export function readOrder(order: v.InferInput<typeof PolarOrder>): PolarOrder {
  return v.parse(PolarOrder, order)
}

/** Like `readOrder`. */
export function readSubscription(subscription: v.InferInput<typeof PolarSubscription>): PolarSubscription {
  return v.parse(PolarSubscription, subscription)
}

/** When an object got the state it is in. */
export function versionOf({ created_at, modified_at }: { created_at: string; modified_at: string | null }): string {
  return modified_at ?? created_at
}
