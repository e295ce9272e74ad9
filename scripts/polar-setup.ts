// What a fork needs at Polar: a product for everything it sells, and the endpoint that Polar reports to.
import type { models, Polar } from '@polar-sh/sdk/2026-10'
import { HANDLED_EVENTS } from '../lib/billing/inbox.ts'
import { POLAR_API_VERSION } from '../lib/billing/polar.ts'
import type { ForkConfig } from '../lib/config.ts'

/** Polar proposes at least this much for a free amount: half a dollar of every sale is fee. */
const PRESET_CENTS_MIN = 1000

const PRODUCTS_MAX = 1000
const ENDPOINTS_MAX = 100

export interface SetupProduct {
  /** Where the id stands in the configuration, such as `plans.pro`. */
  place: string
  id: string
  name: string
  created: boolean
}

export interface PolarSetup {
  products: SetupProduct[]
  /** The product ids as a part of fork.config.json, to be merged into it or into one of its environments. */
  config: ReturnType<typeof configWithIds>
  /** Missing when no address was given. */
  webhook?: { id: string; url: string; state: 'created' | 'updated' | 'unchanged'; secret: string }
  /** What differs from the configuration and is left as it is. */
  warnings: string[]
}

/** One thing on sale, and how Polar is to know it. */
interface Offer {
  place: string
  /** The id in the configuration, or ''. */
  id: string
  name: string
  metadata: Record<string, string>
  isMonthly: boolean
  price: models.ProductPriceFixedCreate | models.ProductPriceCustomCreate
}

/**
 * Creates what is missing at Polar, finds the rest by the configuration's ids or by metadata, and puts the endpoint right.
 * A second run creates nothing. Prices at Polar are never changed: running subscriptions may hang on them. Throws what Polar answers.
 */
export async function ensurePolarSetup({
  client,
  config,
  webhookUrl,
}: {
  client: Polar
  config: ForkConfig
  webhookUrl: string | undefined
}): Promise<PolarSetup> {
  const existing = await upTo(PRODUCTS_MAX, 'products', client.products.iterList({ limit: 100 }))
  const products: SetupProduct[] = []
  const warnings: string[] = []
  for (const offer of offersOf(config)) {
    const { place, name } = offer
    const found = productFor(offer, existing)
    if (offer.id !== '' && found?.id !== offer.id) {
      warnings.push(`${place}.polarProductId: Polar has no product "${offer.id}" in this account; see the ids below.`)
    }
    if (found) warnings.push(...differences(offer, found))
    const { id } = found ?? (await client.products.create(creation(offer)))
    products.push({ place, id, name: found?.name ?? name, created: found === undefined })
  }
  const webhook = webhookUrl === undefined ? undefined : await ensureEndpoint(client, webhookUrl)
  return { products, config: configWithIds(config, products), ...(webhook && { webhook }), warnings }
}

function offersOf({ brand, payments, plans }: ForkConfig): Offer[] {
  // The configuration takes any currency code, and Polar answers for itself which ones it does not.
  const price_currency = payments.currency as models.PresentmentCurrency
  const fixed = (price_amount: number) => ({ amount_type: 'fixed' as const, price_currency, price_amount })
  return [
    {
      place: 'payments',
      id: payments.polarProductId,
      name: `${brand.name} tokens`,
      metadata: { kind: 'tokens' },
      isMonthly: false,
      price: {
        amount_type: 'custom',
        price_currency,
        minimum_amount: payments.minimumDepositCents,
        preset_amount: Math.max(payments.minimumDepositCents, PRESET_CENTS_MIN),
      },
    },
    ...payments.packs.map((pack, index) => ({
      place: `payments.packs[${index}]`,
      id: pack.polarProductId,
      name: `${brand.name}: ${pack.tokens} tokens`,
      metadata: { kind: 'tokens', pack: pack.id },
      isMonthly: false,
      price: fixed(pack.priceCents),
    })),
    ...(['pro', 'enterprise'] as const).map((plan) => ({
      place: `plans.${plan}`,
      id: plans[plan].polarProductId,
      name: `${brand.name} ${plan}`,
      metadata: { kind: 'plan', plan },
      isMonthly: true,
      price: fixed(plans[plan].priceCents),
    })),
  ]
}

function creation({ name, metadata, isMonthly, price }: Offer): models.ProductCreate {
  const product = { name, metadata, prices: [price] }
  return isMonthly ? { ...product, recurring_interval: 'month', recurring_interval_count: 1 } : product
}

function productFor({ id, metadata }: Offer, products: models.Product[]): models.Product | undefined {
  return (
    products.find((product) => product.id === id) ??
    products.find(
      (product) =>
        !product.is_archived && ['kind', 'pack', 'plan'].every((name) => product.metadata[name] === metadata[name]),
    )
  )
}

function differences({ place, price, isMonthly }: Offer, product: models.Product): string[] {
  const at = `${place}: product "${product.name}" (${product.id})`
  const found = product.prices.find((one) => !one.is_archived)
  const isAsMeant = isMonthly
    ? product.recurring_interval === 'month' && (product.recurring_interval_count ?? 1) === 1
    : product.recurring_interval === null
  return [
    ...(product.is_archived ? [`${at} is archived at Polar, so nobody can buy it.`] : []),
    ...(isAsMeant ? [] : [`${at} is to be ${isMonthly ? 'billed monthly' : 'a single purchase'} and is not.`]),
    ...(found && priceText(found) === priceText(price)
      ? []
      : [
          `${at} costs ${found ? priceText(found) : 'nothing'} at Polar and ${priceText(price)} in the configuration. ` +
            'Change one of them: prices at Polar are never changed from here.',
        ]),
  ]
}

function priceText(price: Offer['price'] | models.Product['prices'][number]): string {
  if (price.amount_type === 'fixed') return `${price.price_amount} cents (${price.price_currency})`
  if (price.amount_type === 'custom') return `${price.minimum_amount} cents (${price.price_currency}) or more`
  return `a price of type "${price.amount_type}"`
}

async function ensureEndpoint(client: Polar, url: string): Promise<NonNullable<PolarSetup['webhook']>> {
  const endpoints = await upTo(
    ENDPOINTS_MAX,
    'webhook endpoints',
    client.webhooks.iterListWebhookEndpoints({ limit: 100 }),
  )
  const found = endpoints.find((endpoint) => endpoint.url === url)
  const wanted = { format: 'raw', api_version: POLAR_API_VERSION } as const
  if (!found) {
    const { id, secret } = await client.webhooks.createWebhookEndpoint({ url, ...wanted, events: [...HANDLED_EVENTS] })
    return { id, url, state: 'created', secret }
  }
  const { id, secret } = found
  const isRight =
    found.enabled &&
    found.format === wanted.format &&
    found.api_version === wanted.api_version &&
    HANDLED_EVENTS.every((event) => found.events.includes(event))
  if (isRight) return { id, url, state: 'unchanged', secret }
  // Events that somebody added by hand do no harm, and may be there for a reason.
  const events = [...new Set([...found.events, ...HANDLED_EVENTS])]
  await client.webhooks.updateWebhookEndpoint(id, { ...wanted, events, enabled: true })
  return { id, url, state: 'updated', secret }
}

/** Packs are given whole, because a list in one of the environments replaces the list of the file. */
function configWithIds({ payments, plans }: ForkConfig, products: SetupProduct[]) {
  const idAt = (place: string, otherwise: string) => products.find((one) => one.place === place)?.id ?? otherwise
  return {
    plans: {
      pro: { polarProductId: idAt('plans.pro', plans.pro.polarProductId) },
      enterprise: { polarProductId: idAt('plans.enterprise', plans.enterprise.polarProductId) },
    },
    payments: {
      polarProductId: idAt('payments', payments.polarProductId),
      packs: payments.packs.map((pack, index) => ({
        ...pack,
        polarProductId: idAt(`payments.packs[${index}]`, pack.polarProductId),
      })),
    },
  }
}

async function upTo<T>(max: number, what: string, items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) {
    if (all.length === max) throw new Error(`There are more than ${max} ${what} at Polar: too many to look through.`)
    all.push(item)
  }
  return all
}
