// The inbox of Polar's events on real PostgreSQL: each takes effect once, and what failed or cannot be read is kept for a replay.
import { sql } from 'kysely'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { HANDLED_EVENTS, receiveEvent, replayEvent, retryFailed } from '../../lib/billing/inbox.ts'
import type { PolarOrder } from '../../lib/billing/polar-objects.ts'
import { takeOver } from '../../lib/billing/take-over.ts'
import { startApp } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { givenAccount, lots } from '../support/ledger-account.ts'
import { ledgerViolations } from '../support/money.ts'
import { OPENED } from '../support/paid-plans.ts'
import {
  orderRow,
  polarDispute,
  polarOrder,
  polarRefund,
  polarSubscription,
  SHOP_VARIABLES,
  subscriptionRow,
} from '../support/polar-states.ts'

const REFUSED = 'refused by the database'

let userId: string

beforeAll(async () => {
  await startApp(SHOP_VARIABLES)
})

beforeEach(async () => {
  userId = (await givenAccount(OPENED)).userId
  await db().deleteFrom('webhook_events').execute()
})

afterEach(async () => {
  expect(await ledgerViolations()).toEqual([])
})

const eventOf = (data: unknown, type = 'order.paid', id: string = crypto.randomUUID()) => ({
  event: { id, type, body: JSON.stringify({ type, data }) },
  data,
})
const receive = ({ event, data }: ReturnType<typeof eventOf>) => receiveEvent(event, data)
const eventRow = async (id: string) =>
  await db().selectFrom('webhook_events').selectAll().where('id', '=', id).executeTakeFirst()
const granted = async () => (await lots(userId, 'pack')).map((lot) => lot.granted)

/** Orders with this description cannot be stored while `work` runs. */
async function whileRefused(work: () => Promise<void>): Promise<void> {
  expectErrorsInLog()
  await sql`alter table billing_orders add constraint refused check (description <> ${sql.lit(REFUSED)}) not valid`.execute(
    db(),
  )
  try {
    await work()
  } finally {
    await sql`alter table billing_orders drop constraint refused`.execute(db())
  }
}

/** An event of an order that could not be stored when it came, and can be now. */
async function givenFailed(changes: Partial<PolarOrder> = {}, id?: string) {
  const failed = eventOf(polarOrder(userId, { description: REFUSED, ...changes }), 'order.paid', id)
  await whileRefused(async () => {
    await expect(receive(failed)).rejects.toThrow('refused')
  })
  return failed
}

describe('an event', () => {
  test('is written down with its effect', async () => {
    const order = eventOf(polarOrder(userId))
    expect(await receive(order)).toBe('applied')
    expect(await granted()).toEqual([500])
    expect(await eventRow(order.event.id)).toEqual({
      ...order.event,
      source: 'polar',
      outcome: 'applied',
      error: null,
      attempts: 1,
      received_at: expect.any(Date),
      processed_at: expect.any(Date),
    })
  })

  test('takes effect once, however often it comes, and at the same time too', async () => {
    const order = eventOf(polarOrder(userId))
    const receipts = await Promise.all([receive(order), receive(order), receive(order)])
    expect(receipts.toSorted()).toEqual(['applied', 'duplicate', 'duplicate'])
    expect(await receive(order)).toBe('duplicate')
    expect(await granted()).toEqual([500])
    expect(await eventRow(order.event.id)).toMatchObject({ outcome: 'applied', attempts: 1 })
  })

  test.each(['checkout.created', 'toString', ''])('of the type "%s" is kept, and does nothing', async (type) => {
    const event = eventOf(polarOrder(userId), type)
    expect(await receive(event)).toBe('ignored')
    expect(await eventRow(event.event.id)).toMatchObject({ outcome: 'ignored', error: null, attempts: 1 })
    expect((await eventRow(event.event.id))?.processed_at).toEqual(expect.any(Date))
    expect(await granted()).toEqual([])
  })

  test.each(['order.created', 'order.updated', 'order.paid', 'order.refunded'])('%s brings an order', async (type) => {
    const order = polarOrder(userId)
    expect(await receive(eventOf(order, type))).toBe('applied')
    expect((await orderRow(order.id)).tokens_granted).toBe(500)
  })

  test.each(['refund.created', 'refund.updated'])('%s brings a refund', async (type) => {
    const refund = polarRefund('order')
    expect(await receive(eventOf(refund, type))).toBe('applied')
    expect(await db().selectFrom('billing_refunds').select('order_id').where('id', '=', refund.id).execute()).toEqual([
      { order_id: 'order' },
    ])
  })

  test.each(HANDLED_EVENTS.filter((type) => type.startsWith('subscription.')))(
    '%s brings a subscription',
    async (type) => {
      const subscription = polarSubscription(userId)
      expect(await receive(eventOf(subscription, type))).toBe('applied')
      expect((await subscriptionRow(subscription.id)).user_id).toBe(userId)
    },
  )
})

test('the events that mean something here are these', () => {
  expect(HANDLED_EVENTS).toEqual([
    ...['order.created', 'order.updated', 'order.paid', 'order.refunded', 'refund.created', 'refund.updated'],
    ...['subscription.created', 'subscription.updated', 'subscription.active', 'subscription.canceled'],
    ...['subscription.uncanceled', 'subscription.cycled', 'subscription.revoked', 'subscription.past_due'],
    ...['subscription.paused', 'subscription.resumed', 'subscription.migrated'],
  ])
})

describe('an event that cannot be read', () => {
  test('is kept with what is wrong with it, and told to whoever reads the log', async () => {
    expectErrorsInLog()
    const event = eventOf({ ...polarOrder(userId), net_amount: 'ten', customer: { external_id: 7 } })
    expect(await receive(event)).toBe('unreadable')
    const error =
      'net_amount: Invalid type: Expected number but received "ten"; ' +
      'customer.external_id: Invalid type: Expected string but received 7'
    expect(await eventRow(event.event.id)).toEqual({
      ...event.event,
      source: 'polar',
      outcome: 'unreadable',
      error,
      attempts: 1,
      received_at: expect.any(Date),
      processed_at: expect.any(Date),
    })
    expect(await granted()).toEqual([])
    expect(logged('error')).toEqual([
      expect.objectContaining({
        event: 'webhook_unreadable',
        webhookId: event.event.id,
        type: 'order.paid',
        message: error,
      }),
    ])
    expect(await receive(event)).toBe('duplicate')
  })

  test.each([null, 'text', 7])('for its data are %o is kept as well', async (data) => {
    expectErrorsInLog()
    const event = eventOf(data)
    expect(await receive(event)).toBe('unreadable')
    expect((await eventRow(event.event.id))?.error).toMatch(/^: Invalid type: Expected Object but received /)
  })

  test('is kept with the beginning of a long list of faults', async () => {
    expectErrorsInLog()
    const event = eventOf({})
    await receive(event)
    expect((await eventRow(event.event.id))?.error).toHaveLength(500)
  })

  test('though it was kept as failed before is unreadable from then on', async () => {
    expectErrorsInLog()
    const { event, data } = eventOf({ id: 'order' })
    await db()
      .insertInto('webhook_events')
      .values({ ...event, source: 'polar', outcome: 'failed' })
      .execute()
    expect(await receive({ event, data })).toBe('unreadable')
    expect(await eventRow(event.id)).toMatchObject({ outcome: 'unreadable', processed_at: expect.any(Date) })
  })
})

describe('an event that failed here', () => {
  test('leaves nothing but itself and the reason', async () => {
    const { event, data } = await givenFailed()
    expect(await eventRow(event.id)).toEqual({
      ...event,
      source: 'polar',
      outcome: 'failed',
      error: expect.stringMatching(/^\{"name":"error","message":"new row .* violates check constraint/),
      attempts: 1,
      received_at: expect.any(Date),
      processed_at: null,
    })
    expect((await eventRow(event.id))?.error).toHaveLength(500)
    await expect(orderRow((data as PolarOrder).id)).rejects.toThrow('no result')
    expect(await granted()).toEqual([])
  })

  test('counts its attempts, and takes effect with the first that succeeds', async () => {
    const failed = await givenFailed()
    await whileRefused(async () => {
      await expect(receive(failed)).rejects.toThrow('refused')
    })
    expect(await eventRow(failed.event.id)).toMatchObject({ outcome: 'failed', attempts: 2 })
    expect(await receive(failed)).toBe('applied')
    expect(await eventRow(failed.event.id)).toMatchObject({ outcome: 'applied', attempts: 3, error: null })
    expect(await granted()).toEqual([500])
  })

  test('is kept with the reason of its last attempt, at a length that fits', async () => {
    const failed = await givenFailed()
    await db().updateTable('webhook_events').set({ error: 'an old one' }).execute()
    await whileRefused(async () => {
      await expect(receive(failed)).rejects.toThrow('refused')
    })
    const error = (await eventRow(failed.event.id))?.error
    expect(error).toContain('check constraint')
    expect(error).toHaveLength(500)
  })

  test('says so when it could not even be kept', async () => {
    const { event, data } = eventOf(polarOrder(userId), 'order.paid', 'x'.repeat(101))
    await expect(receiveEvent(event, data)).rejects.toThrow('too long')
    expect(logged('log')).toContainEqual(
      expect.objectContaining({
        level: 'warn',
        event: 'webhook_not_kept',
        webhookId: event.id,
        error: expect.objectContaining({ message: expect.stringContaining('too long') }),
      }),
    )
    expect(await granted()).toEqual([])
  })
})

describe('a replay', () => {
  test('handles what failed, and leaves the other events alone', async () => {
    const failed = await givenFailed()
    const other = await givenFailed()
    expect(await replayEvent(failed.event.id)).toBe('applied')
    expect(await eventRow(failed.event.id)).toMatchObject({ outcome: 'applied', error: null })
    expect(await eventRow(other.event.id)).toMatchObject({ outcome: 'failed', processed_at: null })
    expect(await granted()).toEqual([500])
  })

  test('of what took effect already grants nothing again', async () => {
    const order = eventOf(polarOrder(userId))
    await receive(order)
    expect(await replayEvent(order.event.id)).toBe('applied')
    expect(await eventRow(order.event.id)).toMatchObject({ outcome: 'applied', attempts: 2 })
    expect(await granted()).toEqual([500])
  })

  test('of an unknown event does nothing', async () => {
    expect(await replayEvent('unknown')).toBeUndefined()
  })

  test('of all that failed begins with the oldest, goes as far as it may, and counts what fails again', async () => {
    const [newer, oldest, middle] = [await givenFailed(), await givenFailed(), await givenFailed()]
    for (const [{ event }, received_at] of [
      [oldest, '2026-01-01T00:00:00Z'],
      [middle, '2026-01-02T00:00:00Z'],
      [newer, '2026-01-03T00:00:00Z'],
    ] as const) {
      await db().updateTable('webhook_events').set({ received_at }).where('id', '=', event.id).execute()
    }
    const outcomes = async () =>
      await Promise.all([oldest, middle, newer].map(async ({ event }) => (await eventRow(event.id))?.outcome))
    expect(await retryFailed(1)).toEqual({ retried: 1, stillFailing: 0 })
    expect(await outcomes()).toEqual(['applied', 'failed', 'failed'])
    await db().updateTable('webhook_events').set({ body: '{' }).where('id', '=', middle.event.id).execute()
    expect(await retryFailed(10)).toEqual({ retried: 2, stillFailing: 1 })
    expect(await outcomes()).toEqual(['applied', 'failed', 'applied'])
    expect(await retryFailed(10)).toEqual({ retried: 1, stillFailing: 1 })
  })
})

describe('states as the API gave them', () => {
  test('are taken over of every kind', async () => {
    const order = polarOrder(userId)
    const [subscription, refund, dispute] = [polarSubscription(userId), polarRefund(order.id), polarDispute(order.id)]
    await takeOver({
      subscriptions: [subscription],
      orders: [order],
      refunds: [refund],
      disputes: [{ ...dispute, status: 'lost' }],
    })
    expect(await orderRow(order.id)).toMatchObject({ tokens_granted: 500, dispute_lost: true })
    expect(await subscriptionRow(subscription.id)).toMatchObject({ user_id: userId })
    expect(await db().selectFrom('billing_refunds').select('id').where('id', '=', refund.id).execute()).toHaveLength(1)
    expect(await db().selectFrom('billing_disputes').select('id').where('id', '=', dispute.id).execute()).toHaveLength(
      1,
    )
  })

  test('of which one cannot be taken over stay where they came before it', async () => {
    const order = polarOrder(userId)
    await expect(takeOver({ orders: [order, polarOrder(userId, { status: 's'.repeat(41) })] })).rejects.toThrow('long')
    expect((await orderRow(order.id)).tokens_granted).toBe(500)
    await takeOver({})
  })
})

function logged(method: 'log' | 'error'): Record<string, unknown>[] {
  return vi.mocked(console[method]).mock.calls.map(([line]) => JSON.parse(String(line)))
}
