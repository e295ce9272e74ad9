// Invoices on real PostgreSQL and a loopback Polar: made on the first call, for whoever paid, at the address of the payment.
import { beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { invoiceOf } from '../../lib/billing/manage.ts'
import { makeClock } from '../support/clock.ts'
import { type DirectShop, refusal, startDirectShop, subscribed } from '../support/direct-shop.ts'
import { givenAccount } from '../support/ledger-account.ts'
import { OPENED } from '../support/paid-plans.ts'

let shop: DirectShop
let userId: string

beforeAll(async () => {
  shop = await startDirectShop()
  await makeClock(db())
})

beforeEach(async () => {
  userId = (await givenAccount(OPENED)).userId
  shop.answer = undefined
  shop.calls.length = 0
})

const conflict = (message: string) => ({ code: 'CONFLICT', message })
const subscribe = (name: 'pro' | 'enterprise') => subscribed(shop, userId, name)

describe('an invoice', () => {
  const invoice = (id: string) => `GET /v1/orders/${id}/invoice`
  /** Makes what the polls wait for pass at once, and says how long each would have been. */
  const hurry = () => {
    const waits: number[] = []
    const { setTimeout: real } = globalThis
    vi.spyOn(globalThis, 'setTimeout').mockImplementation(((work: () => void, ms: number) => {
      if (ms !== 600) return real(work, ms)
      waits.push(ms)
      return real(work, 0)
    }) as typeof setTimeout)
    return waits
  }

  test('is made out to the user at the address of the payment, and there from then on', async () => {
    const waits = hurry()
    const { order } = await subscribe('pro')
    order.billing_name = null
    const made = await invoiceOf(userId, order.id)
    expect(made?.url).toMatch(new RegExp(`/invoices/${order.id}$`))
    expect(order).toMatchObject({ billing_name: 'Ada', billing_address: { country: 'US' } })
    expect(waits.length).toBeLessThan(5)
    shop.calls.length = 0
    expect(await invoiceOf(userId, order.id)).toEqual(made)
    expect(shop.calls).toEqual([invoice(order.id)])
  })

  test('keeps the name that stands on the order, and takes the address of the customer where the order has none', async () => {
    hurry()
    const { order } = await subscribe('pro')
    order.billing_name = 'Lovelace Ltd'
    order.billing_address = null
    let asked = 0
    shop.answer = (call) => {
      if (call !== `POST /v1/orders/${order.id}/invoice`) return undefined
      asked += 1
      return asked === 1 ? refusal(422) : undefined
    }
    expect(await invoiceOf(userId, order.id)).toMatchObject({ url: expect.any(String) })
    expect(asked).toBe(2)
    expect(order).toMatchObject({ billing_name: 'Lovelace Ltd', billing_address: { country: 'US' } })
  })

  test('needs an address, and it is said where to give it', async () => {
    const { order } = await subscribe('pro')
    order.billing_address = null
    order.customer.billing_address = null
    await expect(invoiceOf(userId, order.id)).rejects.toMatchObject(
      conflict('Add your billing address in the customer portal first.'),
    )
  })

  test('is asked for as it is where the order has all it takes', async () => {
    hurry()
    const { order } = await subscribe('pro')
    order.billing_name = 'Lovelace Ltd'
    await invoiceOf(userId, order.id)
    expect(shop.calls.filter((call) => !call.startsWith('GET'))).toEqual([`POST /v1/orders/${order.id}/invoice`])
  })

  test('that is long in the making is asked for five times, and said to come later', async () => {
    const waits = hurry()
    const { order } = await subscribe('pro')
    shop.answer = (call) => (call === invoice(order.id) ? refusal(404) : undefined)
    expect(await invoiceOf(userId, order.id)).toBeUndefined()
    expect(waits).toEqual([600, 600, 600, 600, 600])
    expect(shop.calls.filter((call) => call === invoice(order.id))).toHaveLength(6)
  })

  test('is for paid orders of the user alone', async () => {
    const { order } = await subscribe('pro')
    const other = (await givenAccount(OPENED)).userId
    const missing = { code: 'NOT_FOUND', message: 'You have no such order.' }
    await expect(invoiceOf(other, order.id)).rejects.toMatchObject(missing)
    await expect(invoiceOf(userId, 'unknown')).rejects.toMatchObject(missing)
    await db().updateTable('billing_orders').set({ paid: false }).where('id', '=', order.id).execute()
    await expect(invoiceOf(userId, order.id)).rejects.toMatchObject(
      conflict('There is an invoice once the order is paid.'),
    )
    expect(shop.calls).toEqual([])
  })
})
