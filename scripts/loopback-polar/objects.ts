// Builders of what a shop on Polar has, typed by the SDK's own models: a change of the API stops the compiler here.
import { randomUUID } from 'node:crypto'
import type { models } from '@polar-sh/sdk/2026-10'

export const ORGANIZATION_ID = '0b5c6a0e-1111-4aaa-8aaa-000000000001'

const CUSTOM_MINIMUM_CENTS = 50

export type Metadata = Record<string, string | number | boolean>
export type PriceDraft = models.ProductPriceFixedCreate | models.ProductPriceCustomCreate
export type Price = models.ProductPriceFixed | models.ProductPriceCustom
export type Customer = models.CustomerIndividual
export type Discount = models.DiscountPercentageOnceForeverDurationBase

export interface ProductDraft {
  /** Given to keep a product's id the same from one run to the next. */
  id?: string
  name: string
  description?: string | null
  metadata?: Metadata
  prices: PriceDraft[]
  recurring_interval?: models.RecurringInterval | null
  recurring_interval_count?: number | null
}

/** Fields that may be given, and those that must be. */
export type Given<T, Needed extends keyof T> = Pick<T, Needed> & Partial<T>

/** What every object starts with. */
export function newObject(at: string): { id: string; created_at: string; modified_at: string | null } {
  return { id: randomUUID(), created_at: at, modified_at: null }
}

export function buildPrice(at: string, productId: string, source: models.ProductPriceSource, draft: PriceDraft): Price {
  const shared = {
    ...newObject(at),
    source,
    price_currency: draft.price_currency ?? 'usd',
    tax_behavior: draft.tax_behavior ?? null,
    is_archived: false,
    product_id: productId,
  }
  if (draft.amount_type === 'fixed') return { ...shared, amount_type: 'fixed', price_amount: draft.price_amount }
  return {
    ...shared,
    amount_type: 'custom',
    minimum_amount: draft.minimum_amount ?? CUSTOM_MINIMUM_CENTS,
    maximum_amount: draft.maximum_amount ?? null,
    preset_amount: draft.preset_amount ?? null,
  }
}

export function buildProduct(at: string, draft: ProductDraft): models.Product {
  const { id, ...dates } = newObject(at)
  const productId = draft.id ?? id
  return {
    id: productId,
    ...dates,
    trial_interval: null,
    trial_interval_count: null,
    name: draft.name,
    description: draft.description ?? null,
    visibility: 'public',
    recurring_interval: draft.recurring_interval ?? null,
    recurring_interval_count: draft.recurring_interval ? (draft.recurring_interval_count ?? 1) : null,
    meter_interval: null,
    meter_interval_count: null,
    is_recurring: Boolean(draft.recurring_interval),
    is_archived: false,
    organization_id: ORGANIZATION_ID,
    metadata: draft.metadata ?? {},
    is_deletable: false,
    prices: draft.prices.map((price) => buildPrice(at, productId, 'catalog', price)),
    benefits: [],
    medias: [],
    attached_custom_fields: [],
  }
}

export function buildCustomer(at: string, given: Given<Customer, 'email'>): Customer {
  return {
    ...newObject(at),
    metadata: {},
    external_id: null,
    email_verified: false,
    type: 'individual',
    name: null,
    billing_name: null,
    billing_address: null,
    tax_id: null,
    locale: null,
    organization_id: ORGANIZATION_ID,
    default_payment_method_id: null,
    deleted_at: null,
    first_user_event_at: null,
    avatar_url: null,
    ...given,
  }
}

export function buildDiscount(at: string, percent: number): Discount {
  return {
    ...newObject(at),
    duration: 'once',
    type: 'percentage',
    basis_points: percent * 100,
    metadata: {},
    name: `${percent} % off`,
    code: `OFF${percent}`,
    starts_at: null,
    ends_at: null,
    max_redemptions: null,
    max_redemptions_per_customer: null,
    redemptions_count: 1,
    organization_id: ORGANIZATION_ID,
  }
}

export function buildWebhookEndpoint(
  at: string,
  given: Given<models.WebhookEndpoint, 'url' | 'secret' | 'events' | 'uses_standard_webhook_signature'>,
): models.WebhookEndpoint {
  return {
    ...newObject(at),
    name: null,
    api_version: '2026-10',
    format: 'raw',
    organization_id: ORGANIZATION_ID,
    enabled: true,
    ...given,
  }
}
