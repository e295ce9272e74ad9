// The plan in force on real PostgreSQL: what it is for any orders and subscriptions, at any time.
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { release, settle } from '../../lib/ledger/holds.ts'
import { statementOf, sweepLedger, takeBack } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { at, makeClock } from '../support/clock.ts'
import { type Account, givenAccount, hold, spend, usageOf } from '../support/ledger-account.ts'
import { ledgerViolations } from '../support/money.ts'
import {
  BOUGHT,
  ENDED,
  hear,
  lotsOf,
  OPENED,
  PURCHASE,
  RENEWAL,
  RENEWED,
  REVOKED,
  RUNNING,
  RUNNING_ON,
  SOON,
  statementAt,
  subscriptionOf,
  UPGRADE,
} from '../support/paid-plans.ts'

beforeAll(async () => {
  await startApp()
  await makeClock(db())
})

afterEach(async () => {
  expect(await ledgerViolations()).toEqual([])
})

describe('a plan that is paid for', () => {
  test('is in force from its order on, with its allowance in place of the free one', async () => {
    const account = await givenAccount(OPENED)
    await at(OPENED, (trx) => spend(trx, account, 300))
    await hear(account, BOUGHT, RUNNING, PURCHASE)
    expect(await statementAt(account, BOUGHT)).toMatchObject({
      plan: 'pro',
      status: 'active',
      tokenLimit: 50_000,
      tokensUsed: 0,
      planTokens: 50_000,
      periodStart: new Date(BOUGHT),
      periodEnd: new Date(RENEWED),
      expiresAt: new Date(RENEWED),
      balance: { tokens: 50_000 },
    })
    await at(BOUGHT, (trx) => spend(trx, account, 100))
    expect(await statementAt(account, BOUGHT)).toMatchObject({ tokensUsed: 100, planTokens: 49_900 })
    expect(await lotsOf(account)).toMatchObject({
      free: { available: 700, spent: 300, dormant: true },
      first: { available: 49_900, spent: 100, dormant: false },
    })
  })

  test('begins anew with a renewal, and what was left of the last period sleeps until it lapses', async () => {
    const account = await givenAccount(OPENED)
    await hear(account, BOUGHT, RUNNING, PURCHASE, UPGRADE)
    await at(UPGRADE.on, (trx) => spend(trx, account, 60_000))
    await hear(account, RENEWED, RUNNING_ON, RENEWAL)
    expect(await statementAt(account, RENEWED)).toMatchObject({
      tokenLimit: 50_000,
      tokensUsed: 0,
      planTokens: 50_000,
      periodStart: new Date(RENEWED),
      periodEnd: new Date(ENDED),
    })
    const slept = { available: 80_000, dormant: true }
    expect(await lotsOf(account)).toMatchObject({ first: { available: 0, dormant: true }, upgrade: slept })
    expect(await at(RENEWED, (trx) => hold(trx, account, 'more than the period', 50_001))).toMatchObject({
      outcome: 'insufficient',
    })
    await at('2023-08-10T00:00:00Z', (trx) => sweepLedger(trx, 1000))
    expect(await lotsOf(account)).toMatchObject({ upgrade: { available: 0, gone: 80_000 } })
  })

  test('takes a change within its period on top: both allowances, and the plan that was changed to', async () => {
    const account = await givenAccount(OPENED)
    await hear(account, BOUGHT, RUNNING, PURCHASE)
    await at(BOUGHT, (trx) => spend(trx, account, 45_000))
    await hear(account, UPGRADE.on, { ...RUNNING, plan: 'enterprise' }, UPGRADE)
    expect(await statementAt(account, UPGRADE.on)).toMatchObject({
      plan: 'enterprise',
      tokenLimit: 140_000,
      tokensUsed: 45_000,
      planTokens: 95_000,
    })
    await at(UPGRADE.on, (trx) => spend(trx, account, 10_000))
    expect(await statementAt(account, UPGRADE.on)).toMatchObject({ tokensUsed: 55_000, planTokens: 85_000 })
  })

  test('charges what was held before it to where it was held of, and gives it back to sleep there', async () => {
    const account = await givenAccount(OPENED)
    const [settled, released] = [`${account.userId}:settled`, `${account.userId}:released`]
    await at(BOUGHT, async (trx) => {
      await hold(trx, account, 'settled', 100)
      await hold(trx, account, 'released', 200)
    })
    await hear(account, BOUGHT, RUNNING, PURCHASE)
    await at(BOUGHT, async (trx) => {
      expect(await settle(trx, settled, await usageOf(account))).toMatchObject({ closed: true, chargedTokens: 100 })
      expect((await release(trx, released, await usageOf(account, 'error'))).balance.tokens).toBe(50_000)
    })
    expect(await lotsOf(account)).toMatchObject({ free: { available: 900, held: 0, spent: 100, dormant: true } })
    expect(await statementAt(account, BOUGHT)).toMatchObject({ tokensUsed: 0, planTokens: 50_000 })
  })

  test('gets back what a failed refund had taken, into the period that it was of', async () => {
    const account = await givenAccount(OPENED)
    await hear(account, BOUGHT, RUNNING, PURCHASE, UPGRADE)
    await refund(account, 'upgrade', 90_000)
    expect(await statementAt(account, UPGRADE.on)).toMatchObject({ tokenLimit: 140_000, planTokens: 50_000 })
    await hear(account, RENEWED, RUNNING_ON, RENEWAL)
    await refund(account, 'upgrade', 0)
    expect(await lotsOf(account)).toMatchObject({ upgrade: { available: 90_000, dormant: true } })
    expect(await statementAt(account, RENEWED)).toMatchObject({ planTokens: 50_000, balance: { tokens: 50_000 } })
  })

  test('that was cancelled stands to its end, and says when that is', async () => {
    const account = await givenAccount(OPENED)
    const cancelled = { ...RUNNING, cancelled: true, endsAt: RENEWED, entitledUntil: RENEWED }
    await hear(account, BOUGHT, cancelled, PURCHASE)
    const end = { plan: 'pro', status: 'cancelled', expiresAt: new Date(RENEWED) }
    expect(await statementAt(account, '2023-07-20T11:59:59Z')).toMatchObject(end)
    expect(await statementAt(account, RENEWED)).toMatchObject({ ...end, plan: 'free', status: 'expired' })
  })

  test('stands through its grace without new tokens, and falls with its end', async () => {
    const account = await givenAccount(OPENED)
    await hear(account, BOUGHT, RUNNING, PURCHASE)
    expect(await statementAt(account, '2023-07-27T11:59:59Z')).toMatchObject({
      plan: 'pro',
      status: 'active',
      tokenLimit: 50_000,
      planTokens: 0,
    })
    expect(await statementAt(account, '2023-07-27T12:00:00Z')).toMatchObject({
      plan: 'free',
      status: 'expired',
      tokenLimit: 1000,
      planTokens: 1000,
      expiresAt: new Date(RENEWED),
    })
    await hear(account, '2023-07-28T00:00:00Z', RUNNING_ON, RENEWAL)
    expect(await statementAt(account, '2023-07-28T00:00:00Z')).toMatchObject({ plan: 'pro', planTokens: 50_000 })
  })

  test('and heard of before its order is in force with the free allowance until then', async () => {
    const account = await givenAccount(OPENED)
    await hear(account, BOUGHT, RUNNING)
    expect(await statementAt(account, BOUGHT)).toMatchObject({ plan: 'pro', tokenLimit: 1000, planTokens: 1000 })
    await at(BOUGHT, (trx) => spend(trx, account, 400))
    expect(await statementAt(account, '2023-07-11T00:00:00Z'), 'the next free month').toMatchObject({
      plan: 'pro',
      planTokens: 1000,
      periodEnd: new Date(RENEWED),
    })
    await hear(account, '2023-07-11T00:00:00Z', PURCHASE)
    expect(await statementAt(account, '2023-07-11T00:00:00Z')).toMatchObject({ tokensUsed: 0, planTokens: 50_000 })
  })

  test.each(['was never heard of', 'is not known to be of anybody'])(
    'by an order whose subscription %s stands for a month',
    async (what) => {
      const account = await givenAccount(OPENED)
      if (what !== 'was never heard of') {
        await hear(account, BOUGHT, RUNNING)
        await db()
          .updateTable('billing_subscriptions')
          .set({ user_id: null })
          .where('user_id', '=', account.userId)
          .execute()
      }
      await hear(account, BOUGHT, PURCHASE)
      expect(await statementAt(account, '2023-07-20T11:59:59Z')).toMatchObject({
        plan: 'pro',
        status: 'active',
        planTokens: 50_000,
        periodStart: new Date(BOUGHT),
        periodEnd: new Date(RENEWED),
        expiresAt: new Date(RENEWED),
      })
      expect(await statementAt(account, RENEWED)).toMatchObject({ plan: 'free', planTokens: 1000 })
    },
  )

  test('twice at once adds up, under the name of the better one', async () => {
    const account = await givenAccount(OPENED)
    const other = { subscription: 'other', plan: 'enterprise' } as const
    await hear(account, BOUGHT, RUNNING, PURCHASE)
    await hear(account, SOON, { ...RUNNING, ...other, from: SOON, to: '2023-07-25T00:00:00Z', cancelled: true })
    await hear(account, SOON, { ...PURCHASE, ...other, order: 'big', on: SOON, tokens: 500_000 })
    const both = { plan: 'enterprise', status: 'cancelled', tokenLimit: 550_000 }
    expect(await statementAt(account, SOON)).toMatchObject({ ...both, planTokens: 550_000 })
    await at(SOON, (trx) => spend(trx, account, 60_000))
    expect(await statementAt(account, SOON)).toMatchObject({ ...both, tokensUsed: 60_000, planTokens: 490_000 })
    await hear(account, SOON, { ...RUNNING, ...other, entitledUntil: null })
    expect(await statementAt(account, SOON)).toMatchObject({ plan: 'pro', tokenLimit: 50_000, planTokens: 0 })
  })
})

describe('the free plan', () => {
  test('is back when the paid one is revoked, with what was left of its month', async () => {
    const account = await givenAccount(OPENED)
    await at(OPENED, (trx) => spend(trx, account, 300))
    await hear(account, BOUGHT, RUNNING, PURCHASE)
    await at(BOUGHT, (trx) => spend(trx, account, 10_000))
    await hear(account, SOON, REVOKED)
    const free = { plan: 'free', status: 'expired', expiresAt: new Date('2023-06-24T00:00:00Z') }
    expect(await statementAt(account, SOON)).toMatchObject({
      ...free,
      tokenLimit: 1000,
      tokensUsed: 300,
      planTokens: 700,
      periodStart: new Date(OPENED),
      periodEnd: new Date('2023-07-10T12:00:00Z'),
      balance: { tokens: 700 },
    })
    expect(await lotsOf(account)).toMatchObject({ first: { available: 40_000, dormant: true } })
    expect(await statementAt(account, '2023-07-10T12:00:00Z'), 'a month on').toMatchObject({
      ...free,
      planTokens: 1000,
    })
  })

  test('tells the same end of the paid one whenever it is looked at', async () => {
    const account = await givenAccount(OPENED)
    await hear(account, BOUGHT, RUNNING, PURCHASE)
    await hear(account, SOON, { ...RUNNING, entitledUntil: null, changedAt: SOON })
    await hear(account, '2023-07-01T00:00:00Z')
    expect(await statementAt(account, '2023-08-01T00:00:00Z')).toMatchObject({ expiresAt: new Date(SOON) })
  })

  test('gives nobody a second allowance for coming and going within a month', async () => {
    const account = await givenAccount(OPENED)
    await at(OPENED, (trx) => spend(trx, account, 1000))
    for (let round = 0; round < 3; round += 1) {
      await hear(account, BOUGHT, RUNNING, PURCHASE)
      await hear(account, SOON, REVOKED)
      expect(await statementAt(account, SOON)).toMatchObject({ plan: 'free', tokensUsed: 1000, planTokens: 0 })
    }
  })

  test('was never anything else for who never paid: neither expired nor to expire', async () => {
    const account = await givenAccount(OPENED)
    await hear(account, SOON)
    expect(await statementAt(account, ENDED)).toMatchObject({ plan: 'free', status: 'active', expiresAt: null })
  })
})

describe('the end of a paid plan comes by time alone', () => {
  const over = '2023-07-28T00:00:00Z'

  test.each<[way: string, (account: Account) => Promise<unknown>]>([
    ['a reservation', (account) => at(over, (trx) => hold(trx, account, 'late', 1000))],
    ['a look at the account', (account) => at(over, (trx) => statementOf(trx, account.userId))],
    ['the sweep', () => at(over, (trx) => sweepLedger(trx, 1000))],
  ])('with %s', async (_way, meet) => {
    const account = await givenAccount(OPENED)
    await hear(account, BOUGHT, RUNNING, PURCHASE)
    await meet(account)
    expect(await subscriptionOf(account)).toMatchObject({ plan: 'free', status: 'expired', token_limit: 1000 })
  })

  test('once for a sweep that several run at once, and never for a plan that stands', async () => {
    const ended = await Promise.all([1, 2, 3].map(() => givenAccount(OPENED)))
    const standing = await givenAccount(OPENED)
    for (const account of ended) await hear(account, BOUGHT, RUNNING, PURCHASE)
    await hear(standing, BOUGHT, RUNNING_ON, PURCHASE)
    const sweeps = await Promise.all([1, 2, 3].map(() => at(over, (trx) => sweepLedger(trx, 1000))))
    expect(sweeps.reduce((total, { plans }) => total + plans, 0)).toBe(ended.length)
    expect(await at(over, (trx) => sweepLedger(trx, 1000))).toEqual({ expired: 0, lapsed: 0, plans: 0 })
    expect(await subscriptionOf(standing)).toMatchObject({ plan: 'pro' })
  })
})

async function refund({ userId }: Account, order: string, tokens: number): Promise<void> {
  const id = `${userId}:${order}`
  await db().updateTable('billing_orders').set({ tokens_taken_back: tokens }).where('id', '=', id).execute()
  expect(await takeBack(db(), { source: `polar:order:${id}`, tokens })).toBe(true)
}
