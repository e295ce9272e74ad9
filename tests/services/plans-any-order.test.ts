// Paid plans on real PostgreSQL, whatever is heard first of their orders and subscriptions, one by one and all at once.
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { refreshPlan, sweepLedger } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { at, makeClock } from '../support/clock.ts'
import { givenAccount, spend } from '../support/ledger-account.ts'
import { ledgerViolations } from '../support/money.ts'
import {
  hear,
  lotsOf,
  OPENED,
  type Order,
  PURCHASE,
  RENEWAL,
  RUNNING_ON,
  type Subscription,
  subscriptionOf,
  UPGRADE,
} from '../support/paid-plans.ts'
import { seed } from '../support/seed.ts'

beforeAll(async () => {
  await startApp()
  await makeClock(db())
})

afterEach(async () => {
  expect(await ledgerViolations()).toEqual([])
})

describe('whatever is heard first', () => {
  const other = { subscription: 'other', plan: 'enterprise' } as const
  const facts: (Order | Subscription)[] = [
    PURCHASE,
    UPGRADE,
    RENEWAL,
    RUNNING_ON,
    { ...PURCHASE, ...other, order: 'big', on: '2023-07-25T00:00:00Z', tokens: 500_000 },
    { ...UPGRADE, ...other, order: 'bigger', on: '2023-07-28T00:00:00Z', tokens: 7 },
  ]
  const now = '2023-08-01T00:00:00Z'

  test(`the same plan and the same lots come of it (seed ${seed})`, async () => {
    const inOrder = await lived(facts)
    expect(inOrder.subscription).toMatchObject({ plan: 'enterprise', token_limit: 550_007 })
    const shuffled = fc.shuffledSubarray(facts, { minLength: facts.length })
    const property = fc.asyncProperty(shuffled, async (order) => {
      expect(await lived(order)).toEqual(inOrder)
    })
    await fc.assert(property, { seed, numRuns: 40, interruptAfterTimeLimit: 45_000 })
  })

  test('and when all of it is heard at once, twice, while tokens are spent', async () => {
    const account = await givenAccount(OPENED)
    await at(now, (trx) => refreshPlan(trx, account.userId))
    const hears = [...facts, ...facts].map((fact) => hear(account, now, fact))
    const spends = Array.from({ length: 20 }, () => at(now, (trx) => spend(trx, account, 30)))
    await Promise.all([...hears, ...spends])
    const { plan_lot_ids, tokens_used, ...row } = await subscriptionOf(account)
    const expected = await lived(facts)
    expect(row).toEqual(expected.subscription)
    const { rows } = await sql`
      select sum(spent)::int as spent, (sum(spent) filter (where id = any(${plan_lot_ids})))::int as used
        from ledger_lot where user_id = ${account.userId}
    `.execute(db())
    expect(rows).toEqual([{ spent: 600, used: tokens_used }])
  })

  /** The row and the paid lots of an account that heard of these facts, one after another. */
  async function lived(order: (Order | Subscription)[]) {
    const account = await givenAccount(OPENED)
    for (const fact of order) await hear(account, now, fact)
    await at(now, (trx) => sweepLedger(trx, 1000)) // What is over lapses now or later.
    const { free, ...lots } = await lotsOf(account)
    const { plan_lot_ids, tokens_used, ...subscription } = await subscriptionOf(account)
    return { subscription, lots }
  }
})
