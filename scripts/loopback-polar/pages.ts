// The pages a buyer sees: the hosted checkout, the customer portal and an invoice, in plain HTML without scripts.
import type { models } from '@polar-sh/sdk/2026-10'
import type { Books } from './books.ts'
import { pay } from './checkouts.ts'
import type { Customer } from './objects.ts'
import { notFound, Refusal } from './refusals.ts'
import type { Call, Handler } from './routes.ts'
import { TAX_PERCENT, taxOf } from './sale-objects.ts'
import { cancelAtPeriodEnd, isBillable, uncancel } from './subscriptions.ts'

const STYLE = `body{font:16px/1.5 system-ui;max-width:34rem;margin:3rem auto;padding:0 1rem;color:#1a1a1a}
label{display:block;margin:1rem 0}input{font:inherit;padding:.4rem;display:block;width:100%;box-sizing:border-box}
button{font:inherit;padding:.5rem 1rem;margin:.5rem .5rem 0 0}td,th{text-align:left;padding:.2rem 1rem .2rem 0}
.note{background:#fff6d6;padding:.6rem 1rem}.error{background:#ffe0e0;padding:.6rem 1rem}`

export const PAGE_ROUTES: Record<string, Handler> = {
  'GET /checkout/:secret': (call) => checkoutPage(checkoutOf(call)),
  'GET /checkout/:secret/confirmation': (call) => checkoutPage(checkoutOf(call)),
  'POST /checkout/:secret': payFromPage,
  'GET /portal': (call) => portalPage(call.books, customerOf(call), call.query),
  'POST /portal': changeFromPortal,
  'GET /invoices/:id': (call) => {
    const order = call.books.orders.get(call.params.id ?? '')
    if (!order?.is_invoice_generated) throw notFound()
    return invoicePage(order)
  },
}

function checkoutOf({ books, params }: Call): models.Checkout {
  const checkout = [...books.checkouts.values()].find(({ client_secret }) => client_secret === params.secret)
  if (!checkout) throw notFound()
  return checkout
}

async function payFromPage(call: Call): Promise<Response> {
  const checkout = checkoutOf(call)
  const form = new URLSearchParams(await call.request.text())
  const amount = form.get('amount')
  const email = form.get('email')
  try {
    pay(call.books, checkout, {
      ...(email && { email }),
      ...(amount && { amountCents: Math.round(Number(amount) * 100) }),
      card: form.get('card') === 'declined' ? 'declined' : 'ok',
    })
  } catch (error) {
    if (error instanceof Refusal) return checkoutPage(checkout, error)
    throw error
  }
  return Response.redirect(checkout.success_url, 303)
}

function checkoutPage(checkout: models.Checkout, refusal?: Refusal): Response {
  const { product, product_price: price, customer_email: email, currency } = checkout
  const title = product?.name ?? 'Checkout'
  if (checkout.status !== 'open') return page(title, `<p class="note">This checkout is ${checkout.status}.</p>`)
  const isCustom = price?.amount_type === 'custom'
  const amount = isCustom
    ? `<label>Amount in ${escapeHtml(currency.toUpperCase())}, from ${decimal(price.minimum_amount)}
       <input name="amount" type="number" step="0.01" min="${decimal(price.minimum_amount)}"
        value="${decimal(checkout.amount)}" required></label><p>Plus ${TAX_PERCENT} % tax.</p>`
    : `<p>${money(checkout.amount, currency)} plus ${money(taxOf(checkout.amount), currency)} tax${
        product?.recurring_interval ? `, every ${product.recurring_interval}` : ''
      }</p>`
  const reason = refusal ? `<p class="error" role="alert">${escapeHtml(reasonOf(refusal))}</p>` : ''
  return page(
    title,
    `<p class="note">Play money: no card is charged.</p>${reason}
     <form method="post" action="/checkout/${escapeHtml(checkout.client_secret)}">${amount}
     <label>E-mail<input name="email" type="email" value="${escapeHtml(email ?? '')}" required
      ${checkout.customer_id ? 'readonly' : ''}></label>
     <button name="card" value="ok">Pay</button><button name="card" value="declined">Card is declined</button></form>
     ${checkout.return_url ? `<p><a href="${escapeHtml(checkout.return_url)}">Back</a></p>` : ''}`,
    refusal?.status,
  )
}

function reasonOf({ message, body }: Refusal): string {
  const issue = body.detail
  return Array.isArray(issue) ? issue.map(({ msg }) => msg).join(' ') : message
}

function customerOf({ sessions, query }: Call): Customer {
  const customer = sessions.get(query.get('customer_session_token') ?? '')
  if (!customer) throw notFound()
  return customer
}

async function changeFromPortal(call: Call): Promise<Response> {
  const customer = customerOf(call)
  const form = new URLSearchParams(await call.request.text())
  const subscription = call.books.subscriptions.get(form.get('subscription') ?? '')
  if (subscription?.customer_id !== customer.id) throw notFound()
  if (form.get('act') === 'cancel') cancelAtPeriodEnd(call.books, subscription)
  else uncancel(call.books, subscription)
  return Response.redirect(call.request.url, 303)
}

function portalPage(books: Books, customer: Customer, query: URLSearchParams): Response {
  const isTheirs = ({ customer_id }: { customer_id: string }) => customer_id === customer.id
  const subscriptions = [...books.subscriptions.values()].filter(isTheirs).toReversed()
  const orders = [...books.orders.values()].filter(isTheirs).toReversed()
  const action = `/portal?customer_session_token=${encodeURIComponent(query.get('customer_session_token') ?? '')}`
  const plans = subscriptions.map((subscription) => {
    const { id, product, amount, currency, status, cancel_at_period_end: isCanceled, current_period_end } = subscription
    const act = isCanceled ? 'resume' : 'cancel'
    const form = `<form method="post" action="${action}"><input type="hidden" name="subscription" value="${id}">
      <button name="act" value="${act}">${isCanceled ? 'Resume' : 'Cancel'}</button></form>`
    const end = `${isCanceled ? 'ends' : 'renews'} ${current_period_end.slice(0, 10)}`
    const plan = `${escapeHtml(product.name)}: ${money(amount, currency)}, ${status}`
    return isBillable(subscription) ? `<p>${plan}, ${end}</p>${form}` : `<p>${plan}</p>`
  })
  const rows = orders.map(
    ({ created_at, description, total_amount, currency, status }) =>
      `<tr><td>${created_at.slice(0, 10)}<td>${escapeHtml(description)}
       <td>${money(total_amount, currency)}<td>${status}`,
  )
  return page(
    `Purchases of ${customer.email}`,
    `<h2>Subscriptions</h2>${plans.join('') || '<p>None.</p>'}
     <h2>Orders</h2><table><tr><th>Date<th>What<th>Total<th>Status${rows.join('')}</table>`,
  )
}

function invoicePage(order: models.Order): Response {
  const { invoice_number, billing_name, billing_address, items, currency, tax_amount, total_amount } = order
  const rows = items.map(({ label, amount }) => `<tr><td>${escapeHtml(label)}<td>${money(amount, currency)}`)
  return page(
    `Invoice ${invoice_number ?? ''}`,
    `<p>${escapeHtml([billing_name, billing_address?.line1, billing_address?.country].filter(Boolean).join(', '))}</p>
     <table>${rows.join('')}<tr><td>Tax<td>${money(tax_amount, currency)}
     <tr><th>Total<th>${money(total_amount, currency)}</table><p class="note">Play money.</p>`,
  )
}

function page(title: string, body: string, status = 200): Response {
  const html = `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escapeHtml(title)}</title>
<meta name="viewport" content="width=device-width"><style>${STYLE}</style>
<main><h1>${escapeHtml(title)}</h1>${body}</main></html>`
  return new Response(html, { status, headers: { 'content-type': 'text/html; charset=utf-8' } })
}

function decimal(cents: number): string {
  return (cents / 100).toFixed(2)
}

function money(cents: number, currency: string): string {
  return `${decimal(cents)} ${currency.toUpperCase()}`
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}
