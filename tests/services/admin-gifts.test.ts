// What admins give and take back, on real PostgreSQL: plans that nobody pays for, and tokens, to the token, in any race.
import { sql } from 'kysely'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { migrateDown, migrateToLatest } from '../../db/migrate.ts'
import { giveTokens, takeTokens } from '../../lib/admin/tokens.ts'
import { changeUser } from '../../lib/admin/user-change.ts'
import { reserve, settle } from '../../lib/ledger/holds.ts'
import { grant, refreshPlan, revoke, statementOf, sweepLedger } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { at, makeClock } from '../support/clock.ts'
import { type Account, givenAccount, hold, lots, spend, usageOf } from '../support/ledger-account.ts'
import { ledgerViolations } from '../support/money.ts'
import { BOUGHT, ENDED, hear, OPENED, PURCHASE, RUNNING, SOON } from '../support/paid-plans.ts'

let account: Account
let boss: Account
let by: { actor: { type: 'admin'; id: string }; reason: string }

beforeAll(async () => {
  await startApp()
  await makeClock(db())
  boss = await givenAccount(OPENED)
  by = { actor: { type: 'admin', id: boss.userId }, reason: 'A test.' }
})

beforeEach(async () => {
  account = await givenAccount(OPENED)
})

afterEach(async () => {
  expect(await ledgerViolations()).toEqual([])
})

const acts = async (action: string) =>
  await db()
    .selectFrom('audit_log')
    .select(['before', 'after', 'details', 'reason', 'actor_id', 'target_type'])
    .where('target_id', '=', account.userId)
    .where('action', '=', action)
    .orderBy('id')
    .execute()
const status = () => statementOf(db(), account.userId)
const put = (plan: 'free' | 'pro' | 'enterprise', of = account) => changeUser(of.userId, { plan }, by)

describe('a plan that an admin gives', () => {
  test('is in force at once with its whole allowance, until it is taken back', async () => {
    await put('pro')
    expect(await status()).toMatchObject({
      plan: 'pro',
      status: 'active',
      tokenLimit: 50_000,
      planTokens: 50_000,
      expiresAt: null,
    })
    await put('free')
    expect(await status()).toMatchObject({ plan: 'free', status: 'active', tokenLimit: 1000, planTokens: 1000 })
    expect(await acts('user.plan')).toEqual([
      {
        before: { plan: 'free', gift: null },
        after: { plan: 'pro', gift: 'pro' },
        details: {},
        reason: 'A test.',
        actor_id: boss.userId,
        target_type: 'user',
      },
      expect.objectContaining({ before: { plan: 'pro', gift: 'pro' }, after: { plan: 'free', gift: null } }),
    ])
  })

  test('given again within the month is the allowance of before, not another one', async () => {
    await put('pro')
    await spendNow(20_000)
    await put('free')
    expect(await status()).toMatchObject({ tokensUsed: 0, planTokens: 1000 })
    await put('pro')
    expect(await status()).toMatchObject({ tokenLimit: 50_000, tokensUsed: 20_000, planTokens: 30_000 })
    await put('enterprise')
    expect(await status()).toMatchObject({ plan: 'enterprise', tokenLimit: 500_000, planTokens: 500_000 })
    await put('pro')
    expect(await status()).toMatchObject({ plan: 'pro', planTokens: 30_000 })
    expect(await acts('user.plan')).toHaveLength(5)
  })

  test('that is given already changes nothing and writes nothing', async () => {
    await put('free')
    expect(await acts('user.plan')).toEqual([])
    await put('pro')
    await put('pro')
    expect(await acts('user.plan')).toHaveLength(1)
    expect(await lots(account.userId, 'plan')).toHaveLength(2)
  })

  test('begins a new month with a new allowance, and what was left lapses', async () => {
    await at('2023-06-15T00:00:00Z', async (trx) => {
      await trx
        .insertInto('plan_gifts')
        .values({ user_id: account.userId, plan: 'pro', granted_by: boss.userId })
        .execute()
      await refreshPlan(trx, account.userId)
      await spend(trx, account, 30_000)
    })
    const june = await at('2023-06-20T00:00:00Z', (trx) => statementOf(trx, account.userId))
    expect(june).toMatchObject({
      plan: 'pro',
      planTokens: 20_000,
      periodStart: new Date(OPENED),
      periodEnd: new Date('2023-07-10T12:00:00Z'),
    })
    const july = await at('2023-07-10T12:00:00Z', (trx) => statementOf(trx, account.userId))
    expect(july).toMatchObject({
      plan: 'pro',
      tokensUsed: 0,
      planTokens: 50_000,
      periodEnd: new Date('2023-08-10T12:00:00Z'),
    })
  })

  test('steps aside for a plan that is paid for and as good, and stands again when that ends', async () => {
    await at(BOUGHT, async (trx) => {
      await trx
        .insertInto('plan_gifts')
        .values({ user_id: account.userId, plan: 'pro', granted_by: boss.userId })
        .execute()
      await refreshPlan(trx, account.userId)
    })
    await hear(account, BOUGHT, RUNNING, PURCHASE)
    const paid = await at(SOON, (trx) => statementOf(trx, account.userId))
    expect(paid).toMatchObject({ plan: 'pro', tokenLimit: 50_000, expiresAt: RUNNING.to && new Date(RUNNING.to) })
    await hear(account, ENDED, { ...RUNNING, entitledUntil: null, endsAt: ENDED, changedAt: ENDED })
    const after = await at(ENDED, (trx) => statementOf(trx, account.userId))
    expect(after).toMatchObject({
      plan: 'pro',
      status: 'active',
      tokenLimit: 50_000,
      planTokens: 50_000,
      expiresAt: null,
    })
  })

  test('adds to a lesser one that is paid for, and taking it back leaves what was paid for', async () => {
    await hear(account, BOUGHT, RUNNING, PURCHASE)
    await at(SOON, async (trx) => {
      await trx
        .insertInto('plan_gifts')
        .values({ user_id: account.userId, plan: 'enterprise', granted_by: boss.userId })
        .execute()
      await refreshPlan(trx, account.userId)
      expect(await statementOf(trx, account.userId)).toMatchObject({ plan: 'enterprise', tokenLimit: 550_000 })
      await trx.deleteFrom('plan_gifts').where('user_id', '=', account.userId).execute()
      await refreshPlan(trx, account.userId)
      expect(await statementOf(trx, account.userId)).toMatchObject({
        plan: 'pro',
        tokenLimit: 50_000,
        planTokens: 50_000,
      })
    })
  })

  test('by many at once is one allowance of each plan', async () => {
    const plans = ['pro', 'enterprise', 'free', 'pro'] as const
    await Promise.all(Array.from({ length: 12 }, (_, turn) => put(plans[turn % 4] ?? 'pro')))
    await put('enterprise')
    const granted = (await lots(account.userId, 'plan')).map((lot) => lot.granted).sort((one, two) => one - two)
    expect(granted, 'two months of the free plan').toEqual([1000, 1000, 50_000, 500_000])
    expect(await status()).toMatchObject({ plan: 'enterprise', planTokens: 500_000 })
  })

  test('is moved on by the sweep, and survives the way down and up of its migration', async () => {
    await put('pro')
    await sql`update subscriptions set stands_until = now() where user_id = ${account.userId}`.execute(db())
    expect((await sweepLedger(db(), 100)).plans).toBeGreaterThan(0)
    expect(await status()).toMatchObject({ plan: 'pro' })
    const undone: string[] = []
    while (undone.at(-1) !== '0010_plan_gifts') undone.push(...(await migrateDown(db())))
    expect(await status()).toMatchObject({ plan: 'free', planTokens: 1000 })
    expect(await ledgerViolations()).toEqual([])
    expect(await migrateToLatest(db())).toEqual(undone.toReversed())
    expect(await status()).toMatchObject({ plan: 'free', planTokens: 1000 })
    await put('pro')
    expect(await status()).toMatchObject({ plan: 'pro', planTokens: 50_000 })
  })

  test('is not for a deleted account, nor for nobody', async () => {
    await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', account.userId).execute()
    await expect(put('pro')).rejects.toMatchObject({
      code: 'CONFLICT',
      message: 'A deleted account has no plan to change.',
    })
    const nobody = { userId: crypto.randomUUID(), sessionId: '' }
    await expect(put('pro', nobody)).rejects.toMatchObject({ code: 'NOT_FOUND', message: 'There is no such user.' })
    await expect(changeUser(account.userId, { plan: 'pro' }, { actor: { type: 'system' } })).rejects.toThrow()
  })

  test('is given by somebody', async () => {
    const nobody = changeUser(account.userId, { plan: 'pro' }, { actor: { type: 'system' } })
    await expect(nobody).rejects.toThrow('A plan is given by somebody.')
  })
})

describe('given tokens that are taken back', () => {
  const give = (tokens: number, claimId?: string) => giveTokens({ userId: account.userId, tokens, claimId, by })
  const take = (tokens: number, claimId?: string) => takeTokens({ userId: account.userId, tokens, claimId, by })

  beforeEach(async () => {
    await put('free')
  })

  test('are gone, as many as were asked for', async () => {
    expect(await give(300)).toEqual({ trialGenerations: 0, tokens: 1300 })
    expect(await take(120)).toEqual({ revoked: 120, balance: { trialGenerations: 0, tokens: 1180 } })
    expect(await lots(account.userId, 'promo')).toEqual([
      { granted: 300, available: 180, held: 0, spent: 0, gone: 120 },
    ])
    expect(await acts('tokens.grant')).toMatchObject([
      { before: { tokens: 1000 }, after: { tokens: 1300 }, details: { tokens: 300 }, reason: 'A test.' },
    ])
    expect(await acts('tokens.revoke')).toMatchObject([
      {
        before: { tokens: 1300 },
        after: { tokens: 1180 },
        details: { asked: 120, tokens: 120, ref: expect.stringMatching(/^revoke:/) },
        target_type: 'user',
      },
    ])
  })

  test('are never more than there are left of them: what was bought, held or spent stays', async () => {
    await give(100)
    await db()
      .transaction()
      .execute((trx) =>
        grant(trx, { userId: account.userId, kind: 'pack', tokens: 500, source: `${account.userId}:bought` }),
      )
    await spendNow(1040) // 1000 of the plan, 40 of the gift.
    await db()
      .transaction()
      .execute((trx) => hold(trx, account, 'open', 25))
    expect(await take(1_000)).toMatchObject({ revoked: 35, balance: { tokens: 500 } })
    expect(await take(1)).toMatchObject({ revoked: 0, balance: { tokens: 500 } })
    expect(await acts('tokens.revoke')).toMatchObject([
      { details: { asked: 1000, tokens: 35 } },
      { details: { asked: 1, tokens: 0 } },
    ])
  })

  test('go from the last to be spent first, and not from what has expired', async () => {
    const lot = (source: string, expiresAt?: Date) =>
      grant(db(), {
        userId: account.userId,
        kind: 'promo',
        tokens: 100,
        source: `${account.userId}:${source}`,
        ...(expiresAt && { expiresAt }),
      })
    await lot('over', new Date(Date.now() - 1000))
    await lot('soon', new Date(Date.now() + 60_000))
    await lot('first')
    await lot('second')
    expect(await take(150)).toMatchObject({ revoked: 150 })
    expect((await lots(account.userId, 'promo')).map(({ available }) => available)).toEqual([100, 100, 50, 0])
    expect(await take(500)).toMatchObject({ revoked: 150 })
    expect((await lots(account.userId, 'promo')).map(({ available }) => available)).toEqual([100, 0, 0, 0])
  })

  test('are given and taken once per claim, however often', async () => {
    const [given, taken] = [crypto.randomUUID(), crypto.randomUUID()]
    for (let repeat = 0; repeat < 3; repeat += 1) expect(await give(300, given)).toMatchObject({ tokens: 1300 })
    await Promise.all(Array.from({ length: 6 }, () => take(50, taken)))
    expect(await take(50, taken)).toEqual({ revoked: 50, balance: { trialGenerations: 0, tokens: 1250 } })
    expect(await acts('tokens.grant')).toHaveLength(1)
    expect(await acts('tokens.revoke')).toHaveLength(1)
  })

  test('are exact while they are spent by many at once', async () => {
    await spendNow(1000)
    await give(400)
    const usage = await usageOf(account)
    const spendOne = async () => {
      const id = crypto.randomUUID()
      const held = await reserve(db(), { id, ...account, tokens: 10, ttlMs: 60_000 })
      if (held.outcome !== 'held') return 0
      return (await settle(db(), id, { ...usage, requestId: crypto.randomUUID() })).chargedTokens
    }
    const [spent, revoked] = await Promise.all([
      Promise.all(Array.from({ length: 30 }, spendOne)),
      Promise.all(Array.from({ length: 20 }, async () => (await take(15)).revoked)),
    ])
    const sum = (amounts: number[]) => amounts.reduce((total, amount) => total + amount, 0)
    const [lot] = await lots(account.userId, 'promo')
    expect(lot).toEqual({
      granted: 400,
      available: 400 - sum(spent) - sum(revoked),
      held: 0,
      spent: sum(spent),
      gone: sum(revoked),
    })
    expect(sum(spent) + sum(revoked)).toBe(400)
  })

  test('are of somebody', async () => {
    const userId = crypto.randomUUID()
    const missing = { code: 'NOT_FOUND', message: 'There is no such user.' }
    await expect(takeTokens({ userId, tokens: 1, claimId: undefined, by })).rejects.toMatchObject(missing)
    await expect(giveTokens({ userId, tokens: 1, claimId: undefined, by })).rejects.toMatchObject(missing)
    await expect(revoke(db(), { userId, tokens: 1, ref: 'x' })).rejects.toThrow(`User ${userId} has no account.`)
  })

  test('that the sweep took are not taken again', async () => {
    await grant(db(), {
      userId: account.userId,
      kind: 'promo',
      tokens: 10,
      source: `${account.userId}:x`,
      expiresAt: new Date(Date.now() - 1),
    })
    await sweepLedger(db(), 100)
    expect(await take(10)).toMatchObject({ revoked: 0 })
  })
})

async function spendNow(tokens: number): Promise<void> {
  await db()
    .transaction()
    .execute((trx) => spend(trx, account, tokens))
}
