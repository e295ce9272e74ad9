// What time does to tokens: plan periods that begin when they are needed, lots that expire, debts that stay.
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { release, settle } from '../../lib/ledger/holds.ts'
import { grant, statementOf, sweepLedger, takeBack } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { at, makeClock } from '../support/clock.ts'
import { givenAccount, grantTo, hold, lots, spend, usageOf } from '../support/ledger-account.ts'
import { ledgerViolations } from '../support/money.ts'

const FIRST_DAY = '2023-06-10T12:00:00Z'
const NEXT_PERIOD = '2023-07-10T12:00:00Z'

beforeAll(async () => {
  await startApp()
  await makeClock(db())
})

afterEach(async () => {
  expect(await ledgerViolations()).toEqual([])
})

describe('a plan period', () => {
  test.each([
    { now: '2023-02-28T09:59:59Z', start: '2023-01-31T10:00:00Z', end: '2023-02-28T10:00:00Z' },
    { now: '2023-02-28T10:00:00Z', start: '2023-02-28T10:00:00Z', end: '2023-03-31T10:00:00Z' },
    { now: '2023-03-31T09:59:59Z', start: '2023-02-28T10:00:00Z', end: '2023-03-31T10:00:00Z' },
    { now: '2023-03-31T10:00:00Z', start: '2023-03-31T10:00:00Z', end: '2023-04-30T10:00:00Z' },
    { now: '2024-02-29T10:00:00Z', start: '2024-02-29T10:00:00Z', end: '2024-03-31T10:00:00Z' },
    { now: '2024-12-31T23:00:00Z', start: '2024-12-31T10:00:00Z', end: '2025-01-31T10:00:00Z' },
  ])('of an account of 31 January runs at $now from $start to $end', async ({ now, start, end }) => {
    const { userId } = await givenAccount('2023-01-31T10:00:00Z')
    const { periodStart, periodEnd } = await at(now, (trx) => statementOf(trx, userId))
    expect([periodStart, periodEnd]).toEqual([new Date(start), new Date(end)])
  })

  test('does not drift to the 28th on its way through February', async () => {
    const { userId } = await givenAccount('2023-01-31T10:00:00Z')
    const ends: Date[] = []
    for (const now of ['2023-02-28T10:00:00Z', '2023-03-31T10:00:00Z', '2023-04-30T10:00:00Z']) {
      ends.push((await at(now, (trx) => statementOf(trx, userId))).periodEnd)
    }
    expect(ends).toEqual(
      ['2023-03-31T10:00:00Z', '2023-04-30T10:00:00Z', '2023-05-31T10:00:00Z'].map((end) => new Date(end)),
    )
  })

  test('is granted once, however many were missed', async () => {
    const { userId } = await givenAccount(FIRST_DAY)
    const statement = await at('2024-01-20T00:00:00Z', (trx) => statementOf(trx, userId))
    expect(statement).toMatchObject({ periodStart: new Date('2024-01-10T12:00:00Z'), planTokens: 1000, tokensUsed: 0 })
    await at('2024-01-20T00:00:01Z', (trx) => statementOf(trx, userId))
    expect(await lots(userId, 'plan')).toEqual([
      { granted: 1000, available: 0, held: 0, spent: 0, gone: 1000 },
      { granted: 1000, available: 1000, held: 0, spent: 0, gone: 0 },
    ])
  })

  test('begins with the first reservation after the last one, and what was not spent has lapsed', async () => {
    const account = await givenAccount(FIRST_DAY)
    await at(FIRST_DAY, (trx) => spend(trx, account, 300))
    const reservation = await at(NEXT_PERIOD, (trx) => hold(trx, account, 'first of the new period', 900))
    expect(reservation).toMatchObject({ outcome: 'held', balance: { tokens: 100 } })
    expect(await lots(account.userId, 'plan')).toEqual([
      { granted: 1000, available: 0, held: 0, spent: 300, gone: 700 },
      { granted: 1000, available: 100, held: 900, spent: 0, gone: 0 },
    ])
  })

  test('charges what was held before its begin to the lot it was held of', async () => {
    const account = await givenAccount(FIRST_DAY)
    await at('2023-07-10T11:59:59Z', (trx) => hold(trx, account, 'settled late', 100))
    const charged = await at(NEXT_PERIOD, async (trx) => {
      await statementOf(trx, account.userId)
      return await settle(trx, `${account.userId}:settled late`, await usageOf(account))
    })
    expect(charged).toMatchObject({ closed: true, chargedTokens: 100, balance: { tokens: 1000 } })
    expect(await at(NEXT_PERIOD, (trx) => statementOf(trx, account.userId))).toMatchObject({ tokensUsed: 0 })
    expect(await lots(account.userId, 'plan')).toEqual([
      { granted: 1000, available: 0, held: 0, spent: 100, gone: 900 },
      { granted: 1000, available: 1000, held: 0, spent: 0, gone: 0 },
    ])
  })

  test('gives what was held before its begin back to where it has lapsed', async () => {
    const account = await givenAccount(FIRST_DAY)
    await at('2023-07-10T11:59:59Z', (trx) => hold(trx, account, 'given back late', 100))
    const closing = await at(NEXT_PERIOD, async (trx) => {
      await statementOf(trx, account.userId)
      return await release(trx, `${account.userId}:given back late`, await usageOf(account, 'error'))
    })
    expect(closing.balance.tokens).toBe(1000)
    await at(NEXT_PERIOD, (trx) => sweepLedger(trx, 1000))
    expect((await lots(account.userId, 'plan'))[0]).toMatchObject({ available: 0, held: 0, gone: 1000 })
  })

  test('of a plan that nobody pays for any more is followed by a free one', async () => {
    const account = await givenAccount(FIRST_DAY)
    await db()
      .updateTable('subscriptions')
      .set({ plan: 'pro', expires_at: NEXT_PERIOD })
      .where('user_id', '=', account.userId)
      .execute()
    expect(await at(NEXT_PERIOD, (trx) => hold(trx, account, 'free again', 100))).toMatchObject({ outcome: 'held' })
    expect(await at(NEXT_PERIOD, (trx) => statementOf(trx, account.userId))).toMatchObject({
      plan: 'free',
      status: 'active',
      expiresAt: null,
      tokenLimit: 1000,
      planTokens: 900,
    })
  })
})

describe('what is spent first', () => {
  test('is the trial, then the plan, then promotions and packs, those that expire soonest first', async () => {
    const account = await givenAccount(FIRST_DAY, { trial: 1 })
    const { userId } = account
    await at(FIRST_DAY, async (trx) => {
      await grantTo(trx, account, 'pack', 100, 'pack for ever')
      await grantTo(trx, account, 'pack', 100, 'pack until September', '2023-09-01T00:00:00Z')
      await grantTo(trx, account, 'promo', 100, 'promo until August', '2023-08-01T00:00:00Z')
      await grantTo(trx, account, 'promo', 100, 'promo until July', '2023-07-01T00:00:00Z')
      expect(await spend(trx, account, 100)).toMatchObject({ trial: true, chargedTokens: 0 })
      await spend(trx, account, 1000)
    })
    const order: string[] = []
    for (let round = 0; round < 4; round += 1) {
      await at(FIRST_DAY, (trx) => spend(trx, account, 100))
      order.push(...(await emptied(userId)).filter((source) => !order.includes(source)))
    }
    expect(order).toEqual(['promo until July', 'promo until August', 'pack until September', 'pack for ever'])
  })

  test('takes a price from several grants, and never from one that has expired', async () => {
    const account = await givenAccount(FIRST_DAY)
    await at(FIRST_DAY, async (trx) => {
      await grantTo(trx, account, 'promo', 500, 'promo until July', '2023-07-01T00:00:00Z')
      await grantTo(trx, account, 'pack', 50, 'pack for ever')
    })
    const later = '2023-07-01T00:00:00Z'
    expect(await at(later, (trx) => hold(trx, account, 'too much', 1051))).toMatchObject({ outcome: 'insufficient' })
    expect((await at(later, (trx) => statementOf(trx, account.userId))).balance.tokens).toBe(1050)
    await at(later, (trx) => sweepLedger(trx, 1000))
    expect(await lots(account.userId, 'promo')).toEqual([{ granted: 500, available: 0, held: 0, spent: 0, gone: 500 }])
    expect(await at(later, (trx) => hold(trx, account, 'all of it', 1050))).toMatchObject({ outcome: 'held' })
  })
})

describe('a grant', () => {
  test('is made once per source, and a source with other terms is an error', async () => {
    const account = await givenAccount(FIRST_DAY)
    const stranger = await givenAccount(FIRST_DAY)
    const terms = { userId: account.userId, kind: 'pack', tokens: 500, source: `order:${account.userId}` } as const
    expect(await grant(db(), terms)).toBe('granted')
    expect(await grant(db(), terms)).toBe('replay')
    for (const other of [{ tokens: 501 }, { kind: 'promo' as const }, { userId: stranger.userId }]) {
      await expect(grant(db(), { ...terms, ...other })).rejects.toThrow('other terms')
    }
    expect(await lots(account.userId, 'pack')).toHaveLength(1)
    expect(await lots(stranger.userId, 'pack')).toEqual([])
  })
})

describe('a refund', () => {
  test('takes back part of a grant, more when it grows, and gives back when it fails', async () => {
    const account = await givenAccount(FIRST_DAY)
    await at(FIRST_DAY, (trx) => grantTo(trx, account, 'pack', 500, 'order'))
    const purchased = async () => (await at(FIRST_DAY, (trx) => statementOf(trx, account.userId))).purchasedTokens
    for (const { tokens, left } of [
      { tokens: 200, left: 300 },
      { tokens: 200, left: 300 },
      { tokens: 450, left: 50 },
      { tokens: 700, left: 0 },
      { tokens: 100, left: 400 },
      { tokens: 0, left: 500 },
    ]) {
      expect(await takeBack(db(), { source: `${account.userId}:order`, tokens })).toBe(true)
      expect(await purchased(), `after ${tokens}`).toBe(left)
    }
    expect(await takeBack(db(), { source: 'nothing', tokens: 1 })).toBe(false)
  })

  test('that fails gives back to what repaid its debt', async () => {
    const account = await givenAccount(FIRST_DAY)
    const source = `${account.userId}:order`
    const statement = () => at(FIRST_DAY, (trx) => statementOf(trx, account.userId))
    await at(FIRST_DAY, async (trx) => {
      await grantTo(trx, account, 'pack', 500, 'order')
      await spend(trx, account, 1500)
    })
    await takeBack(db(), { source, tokens: 500 })
    await at(FIRST_DAY, (trx) => grantTo(trx, account, 'pack', 300, 'next order'))
    expect(await statement()).toMatchObject({ debtTokens: 200, purchasedTokens: 0, balance: { tokens: 0 } })
    await takeBack(db(), { source, tokens: 100 })
    expect(await statement()).toMatchObject({ debtTokens: 0, purchasedTokens: 200, balance: { tokens: 200 } })
    await takeBack(db(), { source, tokens: 0 })
    expect(await statement()).toMatchObject({ debtTokens: 0, purchasedTokens: 300, balance: { tokens: 300 } })
  })

  test.each(['before', 'after'])('of what lapsed leaves no debt when it comes %s', async (when) => {
    const account = await givenAccount(FIRST_DAY)
    const refund = () => takeBack(db(), { source: `${account.userId}:order`, tokens: 500 })
    await at(FIRST_DAY, async (trx) => {
      await grantTo(trx, account, 'pack', 500, 'order', NEXT_PERIOD)
      await spend(trx, account, 1100)
    })
    if (when === 'before') await refund()
    await at(NEXT_PERIOD, (trx) => sweepLedger(trx, 1000))
    if (when === 'after') await refund()
    expect(await at(NEXT_PERIOD, (trx) => statementOf(trx, account.userId))).toMatchObject({ debtTokens: 100 })
    expect(await lots(account.userId, 'pack')).toEqual([{ granted: 500, available: 0, held: 0, spent: 100, gone: 400 }])
  })

  test('of what was spent makes a debt, which blocks spending until the next grant repays it', async () => {
    const account = await givenAccount(FIRST_DAY, { trial: 1 })
    const { userId } = account
    await at(FIRST_DAY, async (trx) => {
      await spend(trx, account, 100) // the trial
      await spend(trx, account, 1000) // the plan
      await grantTo(trx, account, 'pack', 500, 'order')
      await spend(trx, account, 400)
    })
    await takeBack(db(), { source: `${userId}:order`, tokens: 500 })
    expect(await at(FIRST_DAY, (trx) => statementOf(trx, userId))).toMatchObject({
      debtTokens: 400,
      purchasedTokens: 0,
    })
    expect(await at(FIRST_DAY, (trx) => hold(trx, account, 'on credit', 1))).toMatchObject({ outcome: 'insufficient' })

    await at(FIRST_DAY, (trx) => grantTo(trx, account, 'promo', 300, 'a gift'))
    expect(await at(FIRST_DAY, (trx) => statementOf(trx, userId))).toMatchObject({
      debtTokens: 100,
      balance: { tokens: 0 },
    })
    await at(FIRST_DAY, (trx) => grantTo(trx, account, 'pack', 500, 'next order'))
    expect(await at(FIRST_DAY, (trx) => statementOf(trx, userId))).toMatchObject({
      debtTokens: 0,
      balance: { tokens: 400 },
    })
  })

  test('of what was spent leaves so much less to spend of the next period, and of the trial nothing', async () => {
    const account = await givenAccount(FIRST_DAY, { trial: 1 })
    const { userId } = account
    await at(FIRST_DAY, async (trx) => {
      await grantTo(trx, account, 'pack', 500, 'order')
      await spend(trx, account, 100) // the trial
      await spend(trx, account, 1500)
      await grantTo(trx, account, 'trial', 1, 'another trial')
    })
    await takeBack(db(), { source: `${userId}:order`, tokens: 500 })
    expect(await at(NEXT_PERIOD, (trx) => hold(trx, account, 'too much', 501))).toMatchObject({
      outcome: 'insufficient',
      balance: { tokens: 500 },
    })
    expect(await at(NEXT_PERIOD, (trx) => hold(trx, account, 'enough', 500))).toMatchObject({
      outcome: 'held',
      trial: false,
    })
  })

  test('of what is held waits for the hold: given back it pays the debt', async () => {
    const account = await givenAccount(FIRST_DAY)
    const { userId } = account
    await at(FIRST_DAY, async (trx) => {
      await spend(trx, account, 1000)
      await grantTo(trx, account, 'pack', 500, 'order')
      await hold(trx, account, 'running', 200)
    })
    await takeBack(db(), { source: `${userId}:order`, tokens: 500 })
    expect(await at(FIRST_DAY, (trx) => statementOf(trx, userId))).toMatchObject({
      debtTokens: 200,
      purchasedTokens: 0,
    })
    const closing = await at(FIRST_DAY, async (trx) =>
      release(trx, `${userId}:running`, await usageOf(account, 'error')),
    )
    expect(closing.balance.tokens).toBe(0)
    expect(await at(FIRST_DAY, (trx) => statementOf(trx, userId))).toMatchObject({ debtTokens: 0, reservedTokens: 0 })
  })
})

/** Sources of the promotions and packs that are spent whole. */
async function emptied(userId: string): Promise<string[]> {
  const rows = await db()
    .selectFrom('ledger_lot')
    .select('source')
    .where('user_id', '=', userId)
    .where('kind', 'in', ['promo', 'pack'])
    .whereRef('spent', '=', 'granted')
    .execute()
  return rows.map(({ source }) => source.slice(userId.length + 1))
}
