// How reconciliation looks through Polar's lists, on real PostgreSQL: page by page, within its time, and from where it stopped.
import { sql } from 'kysely'
import * as v from 'valibot'
import { beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { reconcile } from '../../lib/billing/reconcile.ts'
import { makeClock } from '../support/clock.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { type DirectShop, PRODUCTS, startDirectShop } from '../support/direct-shop.ts'
import { givenAccount, lots } from '../support/ledger-account.ts'
import { OPENED } from '../support/paid-plans.ts'
import { beginAnew, firstAsked, type ListName, listing, NOTHING, pagesOf } from '../support/polar-lists.ts'
import { polarDispute, polarOrder, polarRefund } from '../support/polar-states.ts'

const BUDGET_MS = 60_000
const DAY_MS = 86_400_000

let shop: DirectShop
let userId: string

beforeAll(async () => {
  shop = await startDirectShop()
  await makeClock(db())
})

beforeEach(async () => {
  userId = (await givenAccount(OPENED)).userId
  await beginAnew(shop)
})

const order = () => polarOrder(userId, { product_id: PRODUCTS.starter })
const granted = async () => (await lots(userId, 'pack')).map((lot) => lot.granted)

const Position = v.strictObject({ page: v.number(), since: v.string(), beganAt: v.string() })

async function positionOf(name: ListName) {
  const { position } = await db()
    .selectFrom('billing_cursors')
    .select('position')
    .where('name', '=', name)
    .executeTakeFirstOrThrow()
  return v.parse(Position, position)
}

async function setPosition(name: ListName, position: v.InferOutput<typeof Position>): Promise<void> {
  await db()
    .insertInto('billing_cursors')
    .values({ name, position: JSON.stringify(position) })
    .execute()
}

describe('a list', () => {
  const three = () => [[order()], [order()], [order()]]

  test('is looked through to its last page while there is time', async () => {
    listing(shop, { orders: three() })
    expect(await reconcile(BUDGET_MS)).toEqual({ ...NOTHING, seen: 3, applied: 3 })
    expect(pagesOf(shop, 'orders')).toEqual([1, 2, 3])
    expect(await granted()).toEqual([500, 500, 500])
  })

  test('is left when time is over, each after one page, and gone on with from there', async () => {
    listing(shop, { orders: three(), refunds: [[polarRefund('one')], [polarRefund('two')]] })
    expect(await reconcile(0)).toEqual({ ...NOTHING, seen: 2, applied: 2, complete: false })
    expect([pagesOf(shop, 'orders'), pagesOf(shop, 'refunds')]).toEqual([[1], [1]])
    const { page, since, beganAt } = await positionOf('orders')
    expect([page, since]).toEqual([2, '2000-01-01T00:00:00Z'])
    expect(Date.now() - Date.parse(beganAt)).toBeLessThan(60_000)
    expect(await reconcile(0)).toMatchObject({ seen: 2, complete: false })
    expect((await positionOf('orders')).beganAt).toBe(beganAt)
    expect(await reconcile(0)).toMatchObject({ seen: 2, applied: 1, complete: true })
    expect(pagesOf(shop, 'orders')).toEqual([1, 2, 3])
    expect(pagesOf(shop, 'refunds')).toEqual([1, 2, 1])
  })

  test('is looked through as far back again when something in it could not be taken over, however old', async () => {
    const [refused, other] = [order(), order()]
    listing(shop, { orders: [[refused], [other]] })
    expectErrorsInLog()
    await sql`create function refuse() returns trigger language plpgsql as
      $$begin raise exception 'a passing fault'; end$$`.execute(db())
    await sql`create trigger refuse before insert on billing_orders for each row
      when (new.id = ${sql.lit(refused.id)}) execute function refuse()`.execute(db())
    try {
      expect(await reconcile(0)).toMatchObject({ complete: false, errors: [`orders ${refused.id}`] })
      expect(await reconcile(0)).toMatchObject({ complete: true, errors: [] })
    } finally {
      await sql`drop trigger refuse on billing_orders`.execute(db())
      await sql`drop function refuse`.execute(db())
    }
    expect(await positionOf('orders')).toEqual({ page: 1, since: '2000-01-01T00:00:00Z', beganAt: '' })
    expect(await granted()).toEqual([500])
    expect(await reconcile(BUDGET_MS)).toMatchObject({ applied: 1, complete: true, errors: [] })
    expect(await granted()).toEqual([500, 500])
    expect((await positionOf('orders')).since).not.toBe('2000-01-01T00:00:00Z')
  })

  // Two empty lists come first. Refunds have until 75 ms, disputes until 100 ms, and each of their pages asks for its order, too.
  test.each([
    { callMs: 11, refundPages: [1, 2, 3] },
    { callMs: 18.75, refundPages: [1] },
  ])('has its share of the time and no more, at $callMs ms a call', async ({ callMs, refundPages }) => {
    const startMs = 1_800_000_000_000
    vi.spyOn(Date, 'now').mockImplementation(() => startMs + shop.calls.length * callMs)
    const ids = Array.from({ length: 9 }, (_, page) => `${page}`)
    listing(shop, {
      refunds: ids.map((id) => [polarRefund('order', { id })]),
      disputes: ids.map((id) => [polarDispute('order', { id })]),
    })
    expect(await reconcile(100)).toMatchObject({ complete: false })
    expect([pagesOf(shop, 'refunds'), pagesOf(shop, 'disputes')]).toEqual([refundPages, [1]])
  })

  test('ends where a page is empty, whatever it says of pages to come', async () => {
    listing(shop, { orders: [[], [order()]] })
    expect(await reconcile(BUDGET_MS)).toEqual(NOTHING)
    expect(pagesOf(shop, 'orders')).toEqual([1])
  })

  test('is looked through as far back as something may have changed, and begun anew', async () => {
    await setPosition('refunds', { page: 1, since: '2026-01-01T00:00:00Z', beganAt: '' })
    const at = (created_at: string) => [polarRefund('order', { created_at })]
    listing(shop, { refunds: [at('2026-01-01T00:00:00Z'), at('2025-12-31T23:59:59Z'), at('2025-12-31T00:00:00Z')] })
    expect(await reconcile(BUDGET_MS)).toMatchObject({ seen: 2, complete: true })
    expect(pagesOf(shop, 'refunds')).toEqual([1, 2])
  })

  test('is begun at a time that misses nothing: days for orders, months for refunds and disputes', async () => {
    await reconcile(BUDGET_MS)
    const age = async (name: ListName) => {
      const { page, since, beganAt } = await positionOf(name)
      expect([page, beganAt]).toEqual([1, ''])
      return (Date.now() - Date.parse(since)) / DAY_MS
    }
    expect(await age('orders')).toBeCloseTo(3, 2)
    expect(await age('refunds')).toBeCloseTo(60, 2)
    expect(await age('disputes')).toBeCloseTo(180, 2)
    expect((await positionOf('subscriptions')).since).toBe('2000-01-01T00:00:00Z')
    shop.calls.length = 0
    const { since } = await positionOf('orders')
    await reconcile(BUDGET_MS)
    expect(firstAsked(shop, 'orders')).toContain(`created_after=${since}`)
  })

  test('that took longer than that is begun an hour before it was begun', async () => {
    const long = { page: 2, since: '2000-01-01T00:00:00Z', beganAt: '2026-01-01T00:00:00.000Z' }
    await setPosition('orders', long)
    await reconcile(BUDGET_MS)
    expect(pagesOf(shop, 'orders')).toEqual([2])
    expect(await positionOf('orders')).toEqual({ page: 1, since: '2025-12-31T23:00:00.000Z', beganAt: '' })
  })
})
