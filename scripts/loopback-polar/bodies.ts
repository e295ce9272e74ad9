// The bodies that the shop's API takes, and Polar's 422 for those it does not.
import type { models } from '@polar-sh/sdk/2026-10'
import * as v from 'valibot'
import { invalid } from './refusals.ts'

const METADATA_PAIRS_MAX = 50

const id = v.pipe(v.string(), v.uuid())
const cents = v.pipe(v.number(), v.integer(), v.minValue(0))
const text = v.nullish(v.string())
const email = v.pipe(v.string(), v.email())

const metadata = v.pipe(
  v.record(
    v.pipe(v.string(), v.maxLength(40)),
    v.union([v.pipe(v.string(), v.minLength(1), v.maxLength(500)), v.number(), v.boolean()]),
  ),
  v.check((pairs) => Object.keys(pairs).length <= METADATA_PAIRS_MAX, 'Too many pairs of metadata.'),
)

const currency = v.custom<models.PresentmentCurrency>((value) => typeof value === 'string' && /^[a-z]{3}$/.test(value))
const country = v.custom<models.CountryAlpha2>((value) => typeof value === 'string' && /^[A-Z]{2}$/.test(value))
const line = v.exactOptional(v.nullable(v.string()))
const address = v.object({ line1: line, line2: line, postal_code: line, city: line, state: line, country })
const eventType = v.custom<models.WebhookEventType>(
  (value) => typeof value === 'string' && /^[a-z_]+\.[a-z_]+$/.test(value),
)

const price = v.variant('amount_type', [
  v.object({ amount_type: v.literal('fixed'), price_currency: v.exactOptional(currency), price_amount: cents }),
  v.object({
    amount_type: v.literal('custom'),
    price_currency: v.exactOptional(currency),
    minimum_amount: v.exactOptional(cents),
    maximum_amount: v.exactOptional(v.nullable(cents)),
    preset_amount: v.exactOptional(v.nullable(cents)),
  }),
])

export const CheckoutBody = v.object({
  products: v.pipe(v.array(id), v.minLength(1)),
  prices: v.nullish(v.record(id, v.pipe(v.array(price), v.minLength(1)))),
  amount: v.nullish(cents),
  customer_id: v.nullish(id),
  external_customer_id: text,
  customer_email: v.nullish(email),
  customer_name: text,
  customer_metadata: v.optional(metadata),
  metadata: v.optional(metadata),
  success_url: v.nullish(v.pipe(v.string(), v.url())),
  return_url: v.nullish(v.pipe(v.string(), v.url())),
  allow_discount_codes: v.optional(v.boolean()),
})

export const CustomerBody = v.object({
  email,
  external_id: v.exactOptional(v.nullable(v.string())),
  name: v.exactOptional(v.nullable(v.string())),
  metadata: v.exactOptional(metadata),
  billing_address: v.exactOptional(v.nullable(address)),
  locale: v.exactOptional(v.nullable(v.string())),
})

export const CustomerChangesBody = v.object({ ...CustomerBody.entries, email: v.exactOptional(email) })

export const SessionBody = v.union([
  v.object({ customer_id: id, return_url: text }),
  v.object({ external_customer_id: v.string(), return_url: text }),
])

export const OrderChangesBody = v.object({
  billing_name: v.exactOptional(v.nullable(v.string())),
  billing_address: v.exactOptional(v.nullable(address)),
})

const proration = v.picklist(['invoice', 'prorate', 'next_period', 'reset'])

export const SubscriptionChangesBody = v.union([
  v.object({ product_id: id, proration_behavior: v.nullish(proration) }),
  v.object({ cancel_at_period_end: v.boolean() }),
  v.object({ revoke: v.literal(true) }),
  v.object({ pending_update: v.null() }),
  v.object({ metadata }),
])

export const RefundBody = v.object({
  order_id: id,
  amount: v.pipe(v.number(), v.integer(), v.minValue(1)),
  reason: v.picklist([
    'duplicate',
    'fraudulent',
    'customer_request',
    'service_disruption',
    'satisfaction_guarantee',
    'other',
  ]),
  metadata: v.exactOptional(metadata),
  revoke_benefits: v.optional(v.boolean(), false),
})

export const ProductBody = v.object({
  name: v.pipe(v.string(), v.minLength(3)),
  description: v.exactOptional(v.nullable(v.string())),
  metadata: v.exactOptional(metadata),
  prices: v.pipe(v.array(price), v.minLength(1)),
  recurring_interval: v.exactOptional(v.nullable(v.picklist(['day', 'week', 'month', 'year']))),
  recurring_interval_count: v.exactOptional(v.nullable(v.pipe(v.number(), v.integer(), v.minValue(1)))),
})

export const ProductChangesBody = v.object({
  name: v.exactOptional(v.pipe(v.string(), v.minLength(3))),
  description: v.exactOptional(v.nullable(v.string())),
  metadata: v.exactOptional(metadata),
  is_archived: v.exactOptional(v.boolean()),
  prices: v.exactOptional(v.array(v.union([price, v.object({ id })]))),
})

const url = v.pipe(v.string(), v.url())
const events = v.array(eventType)
const format = v.picklist(['raw', 'discord', 'slack'])
const endpoint = {
  name: v.exactOptional(v.nullable(v.string())),
  api_version: v.exactOptional(v.picklist(['2026-04', '2026-10'])),
}

export const EndpointBody = v.object({ ...endpoint, url, format, events })

export const EndpointChangesBody = v.object({
  ...endpoint,
  url: v.exactOptional(url),
  format: v.exactOptional(format),
  events: v.exactOptional(events),
  enabled: v.exactOptional(v.boolean()),
})

/** The body of `request` as `schema` has it. Throws the 422 that names every field at fault. */
export async function readBody<S extends v.GenericSchema>(request: Request, schema: S): Promise<v.InferOutput<S>> {
  const parsed = v.safeParse(schema, await json(request))
  if (parsed.success) return parsed.output
  throw invalid(
    ...parsed.issues.map((issue) => ({
      type: issue.received === 'undefined' ? 'missing' : 'value_error',
      loc: ['body', ...(v.getDotPath(issue)?.split('.') ?? [])],
      msg: issue.received === 'undefined' ? 'Field required' : issue.message,
      input: issue.input,
    })),
  )
}

async function json(request: Request): Promise<unknown> {
  try {
    return await request.json()
  } catch {
    throw invalid({ type: 'json_invalid', loc: ['body'], msg: 'JSON decode error' })
  }
}
