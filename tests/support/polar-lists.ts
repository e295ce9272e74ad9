// What reconciliation meets: nothing known yet, an endpoint that is on, and lists at Polar as a test writes them.
import { db } from '../../db/client.ts'
import { polar } from '../../lib/billing/polar.ts'
import type { Reconciliation } from '../../lib/billing/reconcile.ts'
import type { DirectShop } from './direct-shop.ts'

const ENDPOINT = { format: 'raw', api_version: '2026-10' } as const
const TABLES = [
  ...(['billing_cursors', 'billing_disputes', 'billing_refunds', 'billing_orders'] as const),
  ...(['billing_subscriptions', 'webhook_events'] as const),
]

export type ListName = 'orders' | 'subscriptions' | 'refunds' | 'disputes'

/** What is answered when there is nothing to do. */
export const NOTHING: Reconciliation = {
  seen: 0,
  applied: 0,
  complete: true,
  eventsRetried: 0,
  eventsStillFailing: 0,
  webhookEndpoint: 'ok',
  errors: [],
}

/** Forgets what was heard of Polar, and opens another whose one endpoint is ours. */
export async function beginAnew(shop: DirectShop): Promise<void> {
  for (const table of TABLES) await db().deleteFrom(table).execute()
  shop.answer = undefined
  await shop.reopen()
  await givenEndpoint('https://shop.example/api/webhooks/polar')
  shop.calls.length = 0
}

export async function givenEndpoint(url: string) {
  return await (await polar()).webhooks.createWebhookEndpoint({ url, ...ENDPOINT, events: ['order.paid'] })
}

/** Gives Polar's lists these pages; those that are not named are empty. */
export function listing(shop: DirectShop, pages: Partial<Record<ListName, unknown[][]>>): void {
  shop.answer = (call) => {
    const [, name = '', query = ''] = /^GET \/v1\/(orders|subscriptions|refunds|disputes)\/\?(.*)$/.exec(call) ?? []
    if (name === '') return undefined
    const list = Object.entries(pages).find(([key]) => key === name)?.[1] ?? []
    const page = Number(new URLSearchParams(query).get('page'))
    return Response.json({
      items: list[page - 1] ?? [],
      pagination: { total_count: list.flat().length, max_page: Math.max(1, list.length) },
    })
  }
}

/** The first call that asked for a page of a list. */
export function firstAsked({ calls }: DirectShop, name: ListName): string {
  return calls.find((call) => call.startsWith(`GET /v1/${name}/?`)) ?? ''
}

/** The pages that were asked of a list. */
export function pagesOf({ calls }: DirectShop, name: ListName): number[] {
  return calls
    .filter((call) => call.startsWith(`GET /v1/${name}/?`))
    .map((call) => Number(new URLSearchParams(call.split('?')[1]).get('page')))
}
