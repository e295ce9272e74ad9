// Accounts, grants and the passing of time in the ledger, on real PostgreSQL: what each operation answers, and what it leaves.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { reserve, settle } from '../../lib/ledger/holds.ts'
import { grant, openAccount, refreshPlan, statementOf, sweepLedger, takeBack } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { at, makeClock } from '../support/clock.ts'
import { type Account, givenAccount, grantTo, lots, usageOf } from '../support/ledger-account.ts'
import { ledgerViolations } from '../support/money.ts'
import { BOUGHT, hear, OPENED, PURCHASE, RENEWED, RUNNING, SOON } from '../support/paid-plans.ts'

const NOBODY = '00000000-0000-4000-8000-000000000000'

let account: Account
let holdId: string

beforeAll(async () => {
  await startApp({ FORK__TRIAL__GENERATIONS: '3' })
  await makeClock(db())
})

beforeEach(async () => {
  account = await givenAccount(OPENED)
  holdId = crypto.randomUUID()
})

afterEach(async () => {
  expect(await ledgerViolations()).toEqual([])
})

const reserveAt = (time: string, tokens: number, { of = account, id = holdId } = {}) =>
  at(time, (trx) => reserve(trx, { id, userId: of.userId, sessionId: of.sessionId, tokens, ttlMs: 60_000 }))
const tokens = (amount: number) => ({ trialGenerations: 0, tokens: amount })

describe('an account', () => {
  const newUser = async () => {
    const id = crypto.randomUUID()
    await db()
      .insertInto('users')
      .values({ id, name: 'Ada', email: `${id}@example.com`, password_hash: '' })
      .execute()
    return id
  }

  test('opens with the free plan, and with the trial once per person', async () => {
    const [first, second, person] = [await newUser(), await newUser(), crypto.randomUUID()]
    await openAccount(db(), first, person)
    await openAccount(db(), second, person)
    const free = { plan: 'free', status: 'active', tokenLimit: 1000, tokensUsed: 0, planTokens: 1000 }
    expect(await statementOf(db(), first)).toMatchObject({ ...free, balance: { trialGenerations: 3, tokens: 1000 } })
    expect(await statementOf(db(), second)).toMatchObject({ ...free, balance: tokens(1000) })
  })

  test('states all of itself', async () => {
    await hear(account, BOUGHT, RUNNING, PURCHASE)
    await at(BOUGHT, async (trx) => {
      await grantTo(trx, account, 'pack', 70, 'owed')
      await takeBack(trx, { source: `${account.userId}:owed`, tokens: 70 })
      await grantTo(trx, account, 'promo', 30, 'gift')
    })
    await reserveAt(BOUGHT, 100)
    expect(await at(BOUGHT, (trx) => statementOf(trx, account.userId))).toEqual({
      plan: 'pro',
      status: 'active',
      tokenLimit: 50_000,
      tokensUsed: 0,
      periodStart: new Date(BOUGHT),
      periodEnd: new Date(RENEWED),
      expiresAt: new Date(RENEWED),
      planTokens: 49_900,
      purchasedTokens: 30,
      reservedTokens: 100,
      debtTokens: 0,
      balance: tokens(49_930),
    })
  })

  test('states what is owed', async () => {
    await at(BOUGHT, async (trx) => {
      await grantTo(trx, account, 'pack', 500, 'used')
      expect(await reserve(trx, { ...account, id: holdId, tokens: 1500, ttlMs: 1000 })).toMatchObject({
        outcome: 'held',
      })
      await settle(trx, holdId, await usageOf(account))
      await takeBack(trx, { source: `${account.userId}:used`, tokens: 200 })
    })
    expect(await at(BOUGHT, (trx) => statementOf(trx, account.userId))).toMatchObject({
      debtTokens: 200,
      expiresAt: null,
      balance: tokens(0),
    })
  })

  test('that is not there states nothing', async () => {
    await expect(statementOf(db(), NOBODY)).rejects.toThrow('The ledger answered nothing.')
  })
})

describe('a grant', () => {
  const lot = (source: string) => ({ userId: account.userId, kind: 'pack' as const, tokens: 500, source })

  test('is made once per source, and never with other terms', async () => {
    const source = crypto.randomUUID()
    expect(await grant(db(), lot(source))).toBe('granted')
    expect(await grant(db(), lot(source))).toBe('replay')
    const message = `Grant ${source} was made before with other terms.`
    await expect(grant(db(), { ...lot(source), tokens: 501 })).rejects.toThrow(message)
    expect(await lots(account.userId, 'pack')).toEqual([{ granted: 500, available: 500, held: 0, spent: 0, gone: 0 }])
  })

  test('lapses at its end, and never without one', async () => {
    const [source, lasting] = [crypto.randomUUID(), crypto.randomUUID()]
    await grant(db(), { ...lot(source), kind: 'promo', expiresAt: new Date('2099-01-01T00:00:00Z') })
    await grant(db(), lot(lasting))
    const rows = await db()
      .selectFrom('ledger_lot')
      .select(['kind', 'expires_at'])
      .where('source', 'in', [source, lasting])
      .orderBy('id')
      .execute()
    expect(rows).toEqual([
      { kind: 'promo', expires_at: new Date('2099-01-01T00:00:00Z') },
      { kind: 'pack', expires_at: null },
    ])
  })

  test('is taken back to a target, and given back by a lower one', async () => {
    const source = crypto.randomUUID()
    await grant(db(), lot(source))
    expect(await takeBack(db(), { source, tokens: 300 })).toBe(true)
    expect(await lots(account.userId, 'pack')).toMatchObject([{ available: 200, gone: 300 }])
    expect(await takeBack(db(), { source, tokens: 100 })).toBe(true)
    expect(await lots(account.userId, 'pack')).toMatchObject([{ available: 400, gone: 100 }])
    expect(await takeBack(db(), { source: 'unknown', tokens: 100 })).toBe(false)
  })
})

describe('time', () => {
  test('is followed by the sweep: holds come back, lots lapse, plans end, up to a number of each', async () => {
    await at(SOON, async (trx) => {
      while (Object.values(await sweepLedger(trx, 1000)).some((count) => count > 0));
    })
    const other = await givenAccount(OPENED)
    for (const one of [account, other]) {
      await hear(one, BOUGHT, { ...RUNNING, cancelled: true, entitledUntil: SOON, endsAt: SOON }, PURCHASE)
      await reserveAt(BOUGHT, 100, { of: one, id: crypto.randomUUID() })
      await at(BOUGHT, (trx) => grantTo(trx, one, 'promo', 10, 'gift', '2023-06-24T00:00:00Z'))
    }
    expect(await at(SOON, (trx) => sweepLedger(trx, 1))).toEqual({ expired: 1, lapsed: 1, plans: 1 })
    expect(await at(SOON, (trx) => sweepLedger(trx, 10))).toEqual({ expired: 1, lapsed: 1, plans: 1 })
    expect(await at(SOON, (trx) => sweepLedger(trx, 10))).toEqual({ expired: 0, lapsed: 0, plans: 0 })
  })

  test('moves the plan of one user on when it is refreshed, and of no other', async () => {
    const other = await givenAccount(OPENED)
    for (const one of [account, other]) await hear(one, BOUGHT, { ...RUNNING, entitledUntil: SOON }, PURCHASE)
    await at(SOON, (trx) => refreshPlan(trx, account.userId))
    const plans = await db()
      .selectFrom('subscriptions')
      .select(['user_id', 'plan'])
      .where('user_id', 'in', [account.userId, other.userId])
      .execute()
    expect(new Map(plans.map(({ user_id, plan }) => [user_id, plan]))).toEqual(
      new Map([
        [account.userId, 'free'],
        [other.userId, 'pro'],
      ]),
    )
  })
})
