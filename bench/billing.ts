// What money costs: one webhook on PostgreSQL, and a sweep that looks through 100,000 orders at Polar.
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { models } from '@polar-sh/sdk/2026-10'
import { closeDatabase } from '../db/client.ts'
import { buildCustomer, buildProduct } from '../scripts/loopback-polar/objects.ts'
import { buildOrder } from '../scripts/loopback-polar/sale-objects.ts'
import { newSecret, signedHeaders } from '../scripts/loopback-polar/signing.ts'
import { median, printTable, quantile, quick, rounded, saveResults } from './report.ts'
import { addAccounts, query, scratchDatabase } from './stores.ts'

const WEBHOOKS = quick ? 50 : 1000
const ORDERS = quick ? 2000 : 100_000
/** How many of the orders no webhook told of; the newest. */
const NEWS = quick ? 100 : 2000
const PAGE_SIZE = 100
/** What one call of the sweep may take; a function on Vercel has 300 s. */
const SWEEP_MS = 120_000

const database = await scratchDatabase()
const users = await addAccounts(database.url, 100)
const product = buildProduct(new Date().toISOString(), { name: 'Tokens', metadata: { kind: 'tokens' }, prices: [] })
const orders = Array.from({ length: ORDERS }, (_, index) => orderOf(users[index % users.length]?.userId ?? '', index))
const polar = await servePages(orders)
const secret = newSecret()
Object.assign(process.env, {
  POSTGRES_URL: database.url,
  POLAR_ACCESS_TOKEN: 'bench',
  POLAR_WEBHOOK_SECRET: secret,
  POLAR_BASE_URL: polar.url,
  FORK__PAYMENTS__PROVIDER: 'polar',
})
const print = console.log
console.log = () => {} // Where the product writes a line for every request.
console.error = () => {}

try {
  const webhook = await measureWebhook()
  await storeAllBut(NEWS)
  const first = await sweepThrough(`${NEWS} of them news`)
  const second = await sweepThrough('again, nothing new')
  const [sums] = await query(
    database.url,
    `select count(*)::int as orders, sum(tokens_granted)::int as granted,
      (select sum(granted)::int from ledger_lot where kind = 'pack') as lots from billing_orders where granted_at is not null`,
  )
  console.log = print
  printTable(`POST /api/webhooks/polar: ${WEBHOOKS} paid orders, one after the other`, [webhook])
  printTable(
    `sweep: ${ORDERS} orders in pages of ${PAGE_SIZE}`,
    [first, second],
    [
      `${sums?.orders} orders were applied, ${sums?.granted} tokens granted, ${sums?.lots} in lots.`,
      'A call ends when its time is over, and the next goes on from its page; memory is what the process grew by.',
    ],
  )
  saveResults('billing', { webhook, sweeps: [first, second], sums })
} finally {
  polar.close()
  await closeDatabase()
  await database.drop()
}

function orderOf(userId: string, index: number): models.Order {
  const at = new Date(Date.now() - index * 1000).toISOString()
  const customer = buildCustomer(at, { email: `${userId}@example.com`, external_id: userId })
  return buildOrder(at, {
    customer,
    soldProduct: product,
    billing_reason: 'purchase',
    invoice_number: `BENCH-${index}`,
    description: 'Tokens',
    status: 'paid',
    paid: true,
    lines: [{ label: 'Tokens', amount: 1000, proration: false, product_price_id: null }],
    metadata: { user_id: userId, kind: 'tokens' },
  })
}

/** Just Polar's lists, from memory: what is measured is the sweep. */
async function servePages(all: models.Order[]) {
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost')
    const page = Number(searchParams.get('page') ?? 1)
    const from = (page - 1) * PAGE_SIZE
    const items = pathname === '/v1/orders/' ? all.slice(from, from + PAGE_SIZE) : []
    const pagination = { total_count: all.length, max_page: Math.max(1, Math.ceil(all.length / PAGE_SIZE)) }
    response.setHeader('content-type', 'application/json').end(JSON.stringify({ items, pagination }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}`, close: () => server.close() }
}

/** All orders but the newest, as if webhooks had told of them; their tokens do not matter here. */
async function storeAllBut(news: number): Promise<void> {
  for (let from = news; from < orders.length; from += 1000) {
    const rows = orders.slice(from, from + 1000).map(({ id, created_at }) => ({ id, created_at }))
    await query(
      database.url,
      `insert into billing_orders (id, kind, status, paid, currency, net_cents, tax_cents, refunded_cents, fee_cents, customer_id, ordered_at, modified_at)
        select id, 'tokens', 'paid', true, 'usd', 1000, 200, 0, 110, 'bench', created_at, created_at
          from jsonb_to_recordset('${JSON.stringify(rows)}') as listed (id text, created_at timestamptz)`,
    )
  }
}

async function measureWebhook() {
  const { default: endpoint } = await import('../api/webhooks/polar.ts')
  const times: number[] = []
  for (let index = 0; index < WEBHOOKS; index += 1) {
    const data = { ...orderOf(users[index % users.length]?.userId ?? '', 0), id: randomUUID() }
    const body = JSON.stringify({ type: 'order.paid', timestamp: new Date().toISOString(), data })
    const timestampSeconds = Math.floor(Date.now() / 1000)
    const headers = signedHeaders({ id: randomUUID(), body, timestampSeconds, secret, scheme: 'standard' })
    const startedAt = performance.now()
    const request = new Request('http://localhost/api/webhooks/polar', { method: 'POST', body, headers })
    const { status } = await endpoint.fetch(request)
    if (status !== 202) throw new Error(`The webhook answered ${status}.`)
    times.push(performance.now() - startedAt)
  }
  return { medianMs: rounded(median(times)), p95Ms: rounded(quantile(times, 0.95)), maxMs: rounded(Math.max(...times)) }
}

async function sweepThrough(pass: string) {
  const { reconcile } = await import('../lib/billing/reconcile.ts')
  globalThis.gc?.()
  const before = process.memoryUsage().rss
  let peak = before
  const timer = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().rss)
  }, 100)
  const calls: number[] = []
  let complete = false
  let applied = 0
  while (!complete) {
    const startedAt = performance.now()
    const result = await reconcile(SWEEP_MS)
    calls.push((performance.now() - startedAt) / 1000)
    ;({ complete } = result)
    applied += result.applied
  }
  clearInterval(timer)
  const seconds = calls.reduce((total, call) => total + call, 0)
  return {
    pass,
    calls: calls.length,
    seconds: rounded(seconds),
    longestCallSeconds: rounded(Math.max(...calls)),
    applied,
    'orders/s': Math.round(ORDERS / seconds),
    grewByMb: Math.round((peak - before) / 1_048_576),
  }
}
