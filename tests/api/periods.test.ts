// What time does to tokens: plan periods that begin when they are needed, lots that expire, debts that stay.
import { sql, type Transaction } from 'kysely'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { beginSession } from '../../lib/auth/sessions.ts'
import {
  clawBack,
  grant,
  openAccount,
  release,
  reserve,
  settle,
  statementOf,
  sweepLedger,
} from '../../lib/ledger/ledger.ts'
import { toolId } from '../../lib/tools/catalogue.ts'
import { startApp } from '../support/app.ts'
import { at, makeClock } from '../support/clock.ts'
import { ledgerViolations } from '../support/money.ts'

type Trx = Transaction<Database>

interface Account {
  userId: string
  sessionId: string
}

const FIRST_DAY = '2023-06-10T12:00:00Z'
const NEXT_PERIOD = '2023-07-10T12:00:00Z'

let tool: string

beforeAll(async () => {
  await startApp()
  await makeClock(db())
  tool = await toolId(db(), 'coloring-page')
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
      return await settle(trx, `${account.userId}:settled late`, usage(account))
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
      return await release(trx, `${account.userId}:given back late`, usage(account, 'error'))
    })
    expect(closing.balance.tokens).toBe(1000)
    await at(NEXT_PERIOD, (trx) => sweepLedger(trx, 1000))
    expect((await lots(account.userId, 'plan'))[0]).toMatchObject({ available: 0, held: 0, gone: 1000 })
  })

  test('is not begun for a subscription that has ended', async () => {
    const account = await givenAccount(FIRST_DAY)
    await db()
      .updateTable('subscriptions')
      .set({ expires_at: NEXT_PERIOD })
      .where('user_id', '=', account.userId)
      .execute()
    expect(await at(NEXT_PERIOD, (trx) => hold(trx, account, 'too late', 100))).toMatchObject({
      outcome: 'insufficient',
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
  test('takes back part of a grant, once', async () => {
    const account = await givenAccount(FIRST_DAY)
    await at(FIRST_DAY, (trx) => grantTo(trx, account, 'pack', 500, 'order'))
    const source = `${account.userId}:order`
    const first = { source, refund: `${source}:1`, tokens: 200 }
    expect(await clawBack(db(), first)).toEqual({ outcome: 'ok', takenTokens: 200, debtTokens: 0 })
    expect(await clawBack(db(), first)).toMatchObject({ outcome: 'replay', takenTokens: 0 })
    const rest = { source, refund: `${source}:2`, tokens: 500 }
    expect(await clawBack(db(), rest), 'no more than was granted').toMatchObject({ takenTokens: 300, debtTokens: 0 })
    expect(await clawBack(db(), { source: 'nothing', refund: 'r', tokens: 1 })).toMatchObject({ outcome: 'unknown' })
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
    const refund = { source: `${userId}:order`, refund: `${userId}:refund`, tokens: 500 }
    expect(await clawBack(db(), refund)).toEqual({ outcome: 'ok', takenTokens: 100, debtTokens: 400 })
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
    await clawBack(db(), { source: `${userId}:order`, refund: `${userId}:refund`, tokens: 500 })
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
    const refund = { source: `${userId}:order`, refund: `${userId}:refund`, tokens: 500 }
    expect(await clawBack(db(), refund)).toEqual({ outcome: 'ok', takenTokens: 300, debtTokens: 200 })
    const closing = await at(FIRST_DAY, (trx) => release(trx, `${userId}:running`, usage(account, 'error')))
    expect(closing.balance.tokens).toBe(0)
    expect(await at(FIRST_DAY, (trx) => statementOf(trx, userId))).toMatchObject({ debtTokens: 0, reservedTokens: 0 })
  })
})

/** A user without a password whose first period, of 1000 tokens, begins at `openedAt`, and who is signed in. */
async function givenAccount(openedAt: string, { trial = 0 } = {}): Promise<Account> {
  const userId = crypto.randomUUID()
  await at(openedAt, async (trx) => {
    const user = { id: userId, name: 'Ada', email: `${userId}@example.com`, password_hash: '' }
    await trx.insertInto('users').values(user).execute()
    await openAccount(trx, userId, userId)
    await trx.updateTable('subscriptions').set({ period_anchor: openedAt }).where('user_id', '=', userId).execute()
    await sql`
      insert into ledger_entry (user_id, op, amount, lot_id)
        select user_id, 'lapse', available - ${trial}, id from ledger_lot
          where user_id = ${userId} and kind = 'trial' and available > ${trial}
    `.execute(trx)
  })
  return await beginSession(db(), userId, { ip: 'unknown', userAgent: null })
}

/** Hold ids and sources are made the account's own. */
async function hold(trx: Trx, { userId, sessionId }: Account, id: string, tokens: number) {
  return await reserve(trx, { id: `${userId}:${id}`, userId, sessionId, tokens, ttlMs: 60_000 })
}

async function spend(trx: Trx, account: Account, tokens: number) {
  const id = crypto.randomUUID()
  expect(await hold(trx, account, id, tokens)).toMatchObject({ outcome: 'held' })
  return await settle(trx, `${account.userId}:${id}`, usage(account))
}

async function grantTo(
  trx: Trx,
  { userId }: Account,
  kind: 'trial' | 'promo' | 'pack',
  tokens: number,
  source: string,
  expiresAt: string | null = null,
) {
  await sql`select ledger_credit(${userId}, ${kind}, ${tokens}, ${`${userId}:${source}`}, ${expiresAt}::timestamptz)`.execute(
    trx,
  )
}

function usage({ userId }: Account, status: 'success' | 'error' = 'success') {
  const nothing = { provider: undefined, model: undefined, costMicroUsd: 0, errorCode: undefined }
  return { userId, toolId: tool, requestId: crypto.randomUUID(), status, durationMs: 1, ...nothing }
}

async function lots(userId: string, kind: 'plan' | 'promo' | 'pack') {
  return await db()
    .selectFrom('ledger_lot')
    .select(['granted', 'available', 'held', 'spent', 'gone'])
    .where('user_id', '=', userId)
    .where('kind', '=', kind)
    .orderBy('id')
    .execute()
}

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
