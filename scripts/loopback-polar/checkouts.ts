// Checkouts: what is to be bought and by whom, and the moment the buyer pays.
import { randomBytes } from 'node:crypto'
import type { models } from '@polar-sh/sdk/2026-10'
import { announceCustomerState, type Books, found, touch } from './books.ts'
import { addCustomer, customerByEmail, customerByExternalId } from './customers.ts'
import { buildDiscount, buildPrice, type Customer, type Metadata, type Price, type PriceDraft } from './objects.ts'
import { announcePaidOrder, openOrder } from './orders.ts'
import { invalid, refuse, unusable } from './refusals.ts'
import { buildCheckout, taxOf } from './sale-objects.ts'
import { isBillable, subscribe } from './subscriptions.ts'

export interface CheckoutRequest {
  products: string[]
  prices?: Record<string, PriceDraft[]> | null | undefined
  amount?: number | null | undefined
  customer_id?: string | null | undefined
  external_customer_id?: string | null | undefined
  customer_email?: string | null | undefined
  customer_name?: string | null | undefined
  customer_metadata?: Metadata | undefined
  metadata?: Metadata | undefined
  success_url?: string | null | undefined
  return_url?: string | null | undefined
  allow_discount_codes?: boolean | undefined
}

export function createCheckout(books: Books, request: CheckoutRequest, baseUrl: string): models.Checkout {
  const products = request.products.map((id, index) => sellableProduct(books, id, index))
  const [product] = products
  if (!product) throw invalid({ type: 'missing', loc: ['body', 'products'], msg: 'Field required' })
  const adHocPrices = Object.fromEntries(
    Object.entries(request.prices ?? {}).map(([id, drafts]) => [
      id,
      drafts.map((draft) => buildPrice(books.at(), id, 'ad_hoc', draft)),
    ]),
  )
  const price = (adHocPrices[product.id] ?? product.prices).find(isSimplePrice)
  if (!price) throw unusable(['products', 0], 'Product has no price that can be paid here.', product.id)
  const customer = linkedCustomer(books, request)
  const email = customer?.email ?? request.customer_email ?? null
  const client_secret = `polar_c_${randomBytes(24).toString('base64url')}`
  const url = `${baseUrl}/checkout/${client_secret}`
  const checkout = buildCheckout(books.at(), {
    soldProducts: products,
    soldProduct: product,
    price,
    adHocPrices,
    client_secret,
    url,
    success_url: `${url}/confirmation`,
    amount: askedAmount(price, request.amount),
    return_url: request.return_url ?? null,
    customer_id: customer?.id ?? null,
    customer_email: email,
    customer_name: request.customer_name ?? customer?.name ?? null,
    customer_billing_name: customer?.billing_name ?? null,
    customer_billing_address: customer?.billing_address ?? null,
    external_customer_id: customer?.external_id ?? request.external_customer_id ?? null,
    customer_metadata: request.customer_metadata ?? {},
    metadata: request.metadata ?? {},
    allow_discount_codes: request.allow_discount_codes ?? true,
  })
  if (request.success_url) checkout.success_url = request.success_url.replace('{CHECKOUT_ID}', checkout.id)
  books.checkouts.set(checkout.id, checkout)
  books.announce({ type: 'checkout.created', data: checkout })
  return checkout
}

export interface Payment {
  /** Ignored when the checkout is linked to a customer: then the e-mail is locked. */
  email?: string
  name?: string
  /** What the buyer types on the page; custom prices only. */
  amountCents?: number
  discountPercent?: number
  card?: 'ok' | 'declined'
}

/** The buyer pays. A declined card throws PaymentError and leaves the checkout open. */
export function pay(books: Books, checkout: models.Checkout, payment: Payment = {}): models.Order {
  requireOpen(books, checkout)
  const price = checkout.product_price
  if (payment.amountCents !== undefined && price && isSimplePrice(price)) {
    checkout.amount = askedAmount(price, payment.amountCents)
  }
  const discount = payment.discountPercent ? buildDiscount(books.at(), payment.discountPercent) : null
  checkout.discount = discount
  checkout.discount_id = discount?.id ?? null
  checkout.discount_amount = Math.round((checkout.amount * (payment.discountPercent ?? 0)) / 100)
  checkout.net_amount = checkout.amount - checkout.discount_amount
  checkout.tax_amount = taxOf(checkout.net_amount)
  checkout.total_amount = checkout.net_amount + checkout.tax_amount
  checkout.is_payment_required = checkout.total_amount > 0
  checkout.customer_email = checkout.customer_id ? checkout.customer_email : (payment.email ?? checkout.customer_email)
  checkout.customer_name = payment.name ?? checkout.customer_name
  const customer = payer(books, checkout)
  const product = found(books.products, checkout.product_id ?? '', () => refuse(404, 'ResourceNotFound', 'Not found'))
  if (product.is_recurring) requireNoSubscription(books, customer)
  moveOn(books, checkout, 'confirmed')
  if (payment.card === 'declined' && checkout.is_payment_required) {
    moveOn(books, checkout, 'open')
    throw refuse(400, 'PaymentError', 'Your card was declined.')
  }
  const buyer = customer ?? addCustomer(books, newCustomer(checkout))
  Object.assign(buyer.metadata, checkout.customer_metadata)
  checkout.customer_id = buyer.id
  // The real page asks every buyer for the country at least.
  buyer.billing_address ??= { line1: null, line2: null, postal_code: null, city: null, state: null, country: 'US' }
  const order = sell(books, checkout, product, buyer, discount)
  announcePaidOrder(books, order)
  moveOn(books, checkout, 'succeeded')
  announceCustomerState(books, buyer.id)
  return order
}

export function expire(books: Books, checkout: models.Checkout): void {
  if (checkout.status !== 'open') return
  checkout.status = 'expired'
  touch(books, checkout)
  books.announce({ type: 'checkout.expired', data: checkout })
}

function sell(
  books: Books,
  checkout: models.Checkout,
  product: models.Product,
  customer: Customer,
  discount: ReturnType<typeof buildDiscount> | null,
): models.Order {
  const { amount, currency, metadata } = checkout
  const subscription = product.is_recurring
    ? subscribe(books, {
        customer,
        product,
        amount,
        currency,
        prices: checkout.product_price ? [checkout.product_price] : [],
        checkout_id: checkout.id,
        metadata,
      })
    : undefined
  checkout.subscription_id = subscription?.id ?? null
  const line = { label: product.name, amount, proration: false, product_price_id: checkout.product_price_id }
  return openOrder(books, {
    customer,
    product,
    ...(subscription && { subscription }),
    checkout,
    billingReason: subscription ? 'subscription_create' : 'purchase',
    lines: [line],
    discount: discount ? { amount: checkout.discount_amount, discount } : undefined,
    metadata,
  })
}

/** Polar looks for the e-mail first, so a buyer may land on a customer of another external id, or of none. */
function payer(books: Books, checkout: models.Checkout): Customer | undefined {
  const { customer_id, customer_email: email, external_customer_id: externalId } = checkout
  if (customer_id) {
    const detail = 'The customer associated with this checkout has been deleted.'
    return found(books.customers, customer_id, () => refuse(409, 'CheckoutCustomerDeleted', detail))
  }
  if (!email) throw invalid({ type: 'missing', loc: ['body', 'customer_email'], msg: 'Field required' })
  const known = customerByEmail(books, email)
  if (known || !externalId || !customerByExternalId(books, externalId)) return known
  const detail = 'A customer with this external ID already exists but with a different email address.'
  throw refuse(422, 'CheckoutCustomerExternalIdMismatch', detail)
}

function newCustomer({ customer_email, external_customer_id, customer_name }: models.Checkout) {
  return { email: customer_email ?? '', external_id: external_customer_id, name: customer_name }
}

function linkedCustomer(books: Books, { customer_id, external_customer_id }: CheckoutRequest): Customer | undefined {
  if (customer_id) {
    return found(books.customers, customer_id, () => unusable('customer_id', 'Customer does not exist.', customer_id))
  }
  return external_customer_id ? customerByExternalId(books, external_customer_id) : undefined
}

function sellableProduct(books: Books, id: string, index: number): models.Product {
  const product = found(books.products, id, () => unusable(['products', index], 'Product does not exist.', id))
  if (product.is_archived) throw unusable(['products', index], 'Product is archived.', id)
  return product
}

function isSimplePrice(price: models.Product['prices'][number]): price is Price {
  return !('legacy' in price) && !price.is_archived && (price.amount_type === 'fixed' || price.amount_type === 'custom')
}

/** A fixed price is what it is; a custom one is the buyer's choice within its bounds. */
function askedAmount(price: Price, amount: number | null | undefined): number {
  if (price.amount_type === 'fixed') return price.price_amount
  const { minimum_amount: min, maximum_amount: max, preset_amount } = price
  const asked = amount ?? preset_amount ?? min
  const loc = ['body', 'amount']
  if (asked < min) {
    throw invalid({ type: 'greater_than_equal', loc, msg: `Amount must be at least ${min}.`, input: asked })
  }
  if (max !== null && asked > max) {
    throw invalid({ type: 'less_than_equal', loc, msg: `Amount must be at most ${max}.`, input: asked })
  }
  return asked
}

function requireOpen(books: Books, checkout: models.Checkout): void {
  if (Date.parse(checkout.expires_at) <= books.now()) expire(books, checkout)
  if (checkout.status === 'expired') throw refuse(410, 'ExpiredCheckoutError', 'This checkout session has expired.')
  if (checkout.status !== 'open') throw refuse(403, 'NotOpenCheckout', `Checkout is ${checkout.status}.`)
}

function requireNoSubscription(books: Books, customer: Customer | undefined): void {
  if (!customer || books.conduct.allowsSecondSubscription) return
  const theirs = [...books.subscriptions.values()].filter(({ customer_id }) => customer_id === customer.id)
  if (!theirs.some(isBillable)) return
  throw refuse(403, 'AlreadyActiveSubscriptionError', 'You already have an active subscription.')
}

function moveOn(books: Books, checkout: models.Checkout, status: models.CheckoutStatus): void {
  checkout.status = status
  touch(books, checkout)
  books.announce({ type: 'checkout.updated', data: checkout })
}
