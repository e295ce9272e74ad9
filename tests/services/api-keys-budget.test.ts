// What a key may spend, on real PostgreSQL: exact whatever happens at once, fails, dies or is replaced on the way.
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { createKey, revokeKey, rotateKey } from '../../lib/auth/api-keys.ts'
import { type Reservation, release, reserve, settle } from '../../lib/ledger/holds.ts'
import { grant, statementOf, sweepLedger } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { makeClock } from '../support/clock.ts'
import { type Account, givenAccount, usageOf } from '../support/ledger-account.ts'
import { ledgerViolations, suspend, usageRows } from '../support/money.ts'
import { seed } from '../support/seed.ts'

const OPENED = '2026-06-10T12:00:00Z'
const NOBODYS = '00000000-0000-4000-8000-000000000000'
const HOUR_MS = 3_600_000

let account: Account

beforeAll(async () => {
  await startApp({ FORK__API_KEYS__PER_USER_MAX: '1000' })
  await makeClock(db())
})

beforeEach(async () => {
  account = await givenRichAccount()
})

afterEach(async () => {
  expect(await ledgerViolations()).toEqual([])
})

/** Without a trial, with 100,000 tokens more than any test spends. */
async function givenRichAccount(): Promise<Account> {
  const rich = await givenAccount(OPENED)
  await grant(db(), { userId: rich.userId, kind: 'pack', tokens: 100_000, source: `test:${rich.userId}` })
  return rich
}

const by = () => ({ actor: { type: 'user' as const, id: account.userId } })
const givenKey = (tokenBudget?: number) =>
  db()
    .transaction()
    .execute((trx) => createKey(trx, account.userId, { name: 'CI', scopes: ['generate'], tokenBudget }, by()))
const rotate = (id: string, overlapSeconds = 3600) =>
  db()
    .transaction()
    .execute((trx) => rotateKey(trx, { userId: account.userId, id, overlapSeconds }, by()))
const hold = (keyId: string, tokens: number, { id = crypto.randomUUID(), ttlMs = HOUR_MS, of = account } = {}) =>
  reserve(db(), { id, userId: of.userId, sessionId: undefined, keyId, tokens, ttlMs })
const held = async (keyId: string, tokens: number, ttlMs = HOUR_MS) => {
  const id = crypto.randomUUID()
  expect(await hold(keyId, tokens, { id, ttlMs })).toMatchObject({ outcome: 'held' })
  return id
}
const charge = async (id: string) => settle(db(), id, await usageOf(account))
const giveBack = async (id: string) => release(db(), id, await usageOf(account, 'error'))
const budgetOf = async (id: string) => {
  const query = db().selectFrom('api_keys').select(['token_budget', 'tokens_used']).where('id', '=', id)
  const { token_budget, tokens_used } = await query.executeTakeFirstOrThrow()
  return [tokens_used, token_budget]
}
const outcomes = (reservations: Reservation[]) =>
  Object.fromEntries(
    Object.entries(Object.groupBy(reservations, ({ outcome }) => outcome)).map(([name, all]) => [name, all.length]),
  )

describe('fifty holds at once', () => {
  test('under a budget for ten are ten, and the balance loses no more', async () => {
    const { id } = await givenKey(1000)
    const before = (await statementOf(db(), account.userId)).balance.tokens
    const reservations = await Promise.all(Array.from({ length: 50 }, () => hold(id, 100)))
    expect(outcomes(reservations)).toEqual({ held: 10, over_budget: 40 })
    expect(await budgetOf(id)).toEqual([1000, 1000])
    expect((await statementOf(db(), account.userId)).balance.tokens).toBe(before - 1000)
    expect(reservations.find(({ outcome }) => outcome === 'over_budget')).toMatchObject({
      tokenBudget: 1000,
      tokensUsed: expect.any(Number),
    })
  })

  test('through five keys are ten for each', async () => {
    const keys = await Promise.all(Array.from({ length: 5 }, () => givenKey(1000)))
    const reservations = await Promise.all(keys.flatMap(({ id }) => Array.from({ length: 15 }, () => hold(id, 100))))
    expect(outcomes(reservations)).toEqual({ held: 50, over_budget: 25 })
    for (const { id } of keys) expect(await budgetOf(id)).toEqual([1000, 1000])
  })

  test('while the key is replaced, again and again, are ten over all of its successors', async () => {
    const { id } = await givenKey(1000)
    let last = id
    const chain = [id]
    const replacing = (async () => {
      for (let turn = 0; turn < 5; turn += 1) {
        last = (await rotate(last)).id
        chain.push(last)
      }
    })()
    const spend = () => hold(chain[Math.floor(Math.random() * chain.length)] ?? id, 100)
    const reservations = await Promise.all(
      Array.from({ length: 50 }, async (_, turn) => {
        await new Promise((resolve) => setTimeout(resolve, turn % 25))
        return await spend()
      }),
    )
    await replacing
    expect(outcomes(reservations)).toEqual({ held: 10, over_budget: 40 })
    const budgets = await Promise.all(chain.map(budgetOf))
    expect(budgets.reduce((sum, [used]) => sum + (used ?? 0), 0)).toBe(1000)
    expect(budgets.reduce((sum, [, budget]) => sum + (budget ?? 0), 0)).toBe(1000)
  })
})

describe('the budget', () => {
  test('is used by what is charged, and the usage names the key', async () => {
    const { id } = await givenKey(250)
    const first = await held(id, 100)
    expect(await budgetOf(id)).toEqual([100, 250])
    expect(await charge(first)).toMatchObject({ closed: true, chargedTokens: 100 })
    expect(await charge(first), 'again').toMatchObject({ closed: true, chargedTokens: 100 })
    await held(id, 150)
    expect(await budgetOf(id)).toEqual([250, 250])
    expect(await hold(id, 1)).toMatchObject({ outcome: 'over_budget', tokenBudget: 250, tokensUsed: 250 })
    expect(await usageRows(account.userId)).toMatchObject([{ api_key_id: id, tokens_used: 100 }])
  })

  test('gets back what a failed run held, once', async () => {
    const { id } = await givenKey(100)
    const failed = await held(id, 100)
    expect(await hold(id, 100)).toMatchObject({ outcome: 'over_budget' })
    await giveBack(failed)
    await giveBack(failed)
    expect(await budgetOf(id)).toEqual([0, 100])
    expect(await usageRows(account.userId)).toMatchObject([{ api_key_id: id, tokens_used: 0 }])
    await charge(await held(id, 100))
    expect(await budgetOf(id)).toEqual([100, 100])
  })

  test('gets back what was not needed of a hold', async () => {
    const { id } = await givenKey(100)
    const partly = await held(id, 100)
    await sql`select ledger_close(${partly}, 30, 'settled')`.execute(db())
    expect(await budgetOf(id)).toEqual([30, 100])
    await sql`insert into usage_logs (user_id, tool_id, tokens_used, request_id, response_status)
      select ${account.userId}, id, 30, gen_random_uuid(), 'success' from tools limit 1`.execute(db())
  })

  test.each([
    ['the next one that is short', 100, (id: string) => hold(id, 100)],
    ['the sweep', 0, () => sweepLedger(db(), 1000)],
    ['a look at the balance', 0, () => statementOf(db(), account.userId)],
  ])('gets back what a run that died held: by %s', async (_, after, act) => {
    const { id } = await givenKey(100)
    await held(id, 90, -1000)
    expect(await budgetOf(id)).toEqual([90, 100])
    await act(id)
    expect(await budgetOf(id)).toEqual([after, 100])
  })

  test('is not asked by a trial generation', async () => {
    const trying = await givenAccount(OPENED, { trial: 2 })
    account = trying
    const { id } = await givenKey(1)
    const trial = crypto.randomUUID()
    expect(await hold(id, 100, { id: trial })).toMatchObject({ outcome: 'held', trial: true })
    expect(await charge(trial)).toMatchObject({ trial: true, chargedTokens: 0 })
    expect(await hold(id, 100, { id: `${trial}:2` })).toMatchObject({ outcome: 'held', trial: true })
    await giveBack(`${trial}:2`)
    expect(await budgetOf(id)).toEqual([0, 1])
    expect((await usageRows(trying.userId)).map(({ api_key_id, trial }) => [api_key_id, trial])).toEqual([
      [id, true],
      [id, true],
    ])
  })

  test('is nobody’s concern where there is none, and what was spent is still counted', async () => {
    const { id } = await givenKey()
    await charge(await held(id, 4000))
    await giveBack(await held(id, 500))
    expect(await budgetOf(id)).toEqual([4000, null])
  })

  test('comes after the balance: who cannot pay hears of that', async () => {
    const { id } = await givenKey(1)
    expect(await hold(id, 1_000_000)).toMatchObject({ outcome: 'insufficient' })
  })

  test('is not touched by what its owner spends without the key', async () => {
    const { id } = await givenKey(100)
    const own = crypto.randomUUID()
    const { userId, sessionId } = account
    await reserve(db(), { id: own, userId, sessionId, tokens: 500, ttlMs: HOUR_MS })
    await charge(own)
    expect(await budgetOf(id)).toEqual([0, 100])
    expect(await usageRows(userId)).toMatchObject([{ api_key_id: null, tokens_used: 500 }])
  })
})

describe('a key that may not spend', () => {
  test.each([
    [
      'was revoked',
      (id: string) =>
        db()
          .transaction()
          .execute((trx) => revokeKey(trx, account.userId, id, by())),
    ],
    ['has expired', (id: string) => sql`update api_keys set expires_at = now() where id = ${id}`.execute(db())],
    ['is another’s', async () => (account = await givenRichAccount())],
  ])('%s: nothing is held', async (_, end) => {
    const { id } = await givenKey(100)
    await end(id)
    expect(await hold(id, 10)).toEqual({ outcome: 'key_ended' })
    expect(await budgetOf(id)).toEqual([0, 100])
  })

  test('never was: nothing is held', async () => {
    expect(await hold(NOBODYS, 10)).toEqual({ outcome: 'key_ended' })
  })

  test('is its suspended owner’s: that is what is said', async () => {
    const { id } = await givenKey(100)
    await suspend(account.userId)
    expect(await hold(id, 10)).toEqual({ outcome: 'refused', state: 'suspended' })
  })

  test('holds no id twice', async () => {
    const { id } = await givenKey(100)
    const twice = await held(id, 10)
    await expect(hold(id, 10, { id: twice })).rejects.toThrow('exists already')
    expect(await budgetOf(id)).toEqual([10, 100])
  })

  test('settles what it held before it ended, and gets back what failed', async () => {
    const { id } = await givenKey(100)
    const [paid, failed] = [await held(id, 30), await held(id, 40)]
    await db()
      .transaction()
      .execute((trx) => revokeKey(trx, account.userId, id, by()))
    await charge(paid)
    await giveBack(failed)
    expect(await budgetOf(id)).toEqual([30, 100])
  })
})

describe('a replaced key', () => {
  test('hands on what is left of the budget, and spends from that rest', async () => {
    const old = await givenKey(1000)
    await charge(await held(old.id, 300))
    const open = await held(old.id, 200)
    const made = await rotate(old.id)
    expect(made).toMatchObject({ tokenBudget: 500, tokensUsed: 0 })
    expect(await budgetOf(old.id)).toEqual([500, 500])

    await charge(await held(old.id, 100))
    expect([await budgetOf(old.id), await budgetOf(made.id)]).toEqual([
      [600, 600],
      [0, 400],
    ])
    await giveBack(open)
    expect([await budgetOf(old.id), await budgetOf(made.id)], 'a failed run gives the rest back').toEqual([
      [400, 400],
      [0, 600],
    ])
    await held(made.id, 550)
    expect(await hold(old.id, 100)).toMatchObject({ outcome: 'over_budget', tokenBudget: 600, tokensUsed: 550 })
    await held(old.id, 50)
    expect(await hold(made.id, 1)).toMatchObject({ outcome: 'over_budget', tokenBudget: 550, tokensUsed: 550 })
  })

  test('whose successor was replaced too spends from the last of them', async () => {
    const first = await givenKey(100)
    const second = await rotate(first.id)
    const third = await rotate(second.id)
    await charge(await held(first.id, 10))
    await charge(await held(second.id, 20))
    await charge(await held(third.id, 30))
    expect([await budgetOf(first.id), await budgetOf(second.id), await budgetOf(third.id)]).toEqual([
      [10, 10],
      [20, 20],
      [30, 70],
    ])
    expect(await hold(first.id, 41)).toMatchObject({ outcome: 'over_budget' })
    await held(first.id, 40)
  })

  test('with nothing left has a successor with nothing', async () => {
    const { id } = await givenKey(100)
    await charge(await held(id, 100))
    const made = await rotate(id)
    expect(made).toMatchObject({ tokenBudget: 0, tokensUsed: 0 })
    expect(await hold(made.id, 1)).toMatchObject({ outcome: 'over_budget', tokenBudget: 0, tokensUsed: 0 })
  })

  test('without a budget has a successor without one', async () => {
    const { id } = await givenKey()
    await charge(await held(id, 100))
    const made = await rotate(id)
    expect(made.tokenBudget).toBeNull()
    await charge(await held(id, 50))
    expect([await budgetOf(id), await budgetOf(made.id)]).toEqual([
      [150, null],
      [0, null],
    ])
  })
})

describe('the tables', () => {
  test('let no hold change its key, nor be made with one', async () => {
    const [{ id }, { id: other }] = [await givenKey(100), await givenKey(100)]
    const open = await held(id, 10)
    for (const key of [other, null]) {
      await expect(sql`update ledger_hold set api_key_id = ${key} where id = ${open}`.execute(db())).rejects.toThrow(
        'UPDATE on ledger_hold is forbidden',
      )
    }
    await expect(
      sql`insert into ledger_hold (id, user_id, asked, amount, unit, expires_at, api_key_id)
        values ('mine', ${account.userId}, 1, 1, 'token', now(), ${id})`.execute(db()),
    ).rejects.toThrow('INSERT on ledger_hold is forbidden')
  })

  test('charge a key for a hold that is put on it, and not above its budget', async () => {
    const { id } = await givenKey(100)
    const own = crypto.randomUUID()
    const { userId, sessionId } = account
    await reserve(db(), { id: own, userId, sessionId, tokens: 101, ttlMs: HOUR_MS })
    await expect(sql`update ledger_hold set api_key_id = ${id} where id = ${own}`.execute(db())).rejects.toThrow(
      'api_keys_within_budget',
    )
    await expect(sql`update api_keys set token_budget = -1 where id = ${id}`.execute(db())).rejects.toThrow(
      'api_keys_within_budget',
    )
  })
})

describe('over random lives', () => {
  const key = fc.nat(3)
  const step = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({ do: fc.constant('hold' as const), key, tokens: fc.integer({ min: 1, max: 60 }) }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('die' as const), key, tokens: fc.integer({ min: 1, max: 60 }) }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('charge' as const), hold: fc.nat(9) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('give back' as const), hold: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('use a part' as const), hold: fc.nat(9), spent: fc.nat(60) }) },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('rotate' as const), key, overlapSeconds: fc.constantFrom(0, 60) }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('revoke' as const), key }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('sweep' as const, 'look' as const) }) },
  )
  type Step = typeof step extends fc.Arbitrary<infer S> ? S : never

  const BUDGETS = [100, 40, undefined]

  async function live(steps: Step[], atOnce: number) {
    account = await givenRichAccount()
    const keys = [(await givenKey(BUDGETS[0])).id, (await givenKey(BUDGETS[1])).id, (await givenKey()).id]
    const holds: string[] = []
    const act = async (now: Step) => {
      const keyId = 'key' in now ? (keys[now.key % keys.length] ?? '') : ''
      const holdId = 'hold' in now ? (holds[now.hold % Math.max(1, holds.length)] ?? '') : ''
      if (now.do === 'hold' || now.do === 'die') {
        const id = crypto.randomUUID()
        holds.push(id)
        await hold(keyId, now.tokens, { id, ttlMs: now.do === 'die' ? -1000 : HOUR_MS })
      } else if (now.do === 'charge') await charge(holdId)
      else if (now.do === 'give back') await giveBack(holdId)
      else if (now.do === 'use a part') await usePart(holdId, now.spent)
      else if (now.do === 'rotate') {
        const made = await rotate(keyId, now.overlapSeconds).catch((error: { code?: string }) => {
          if (error.code !== 'CONFLICT') throw error
        })
        if (made) keys.push(made.id)
      } else if (now.do === 'revoke') {
        const end = (id: string) =>
          db()
            .transaction()
            .execute((trx) => revokeKey(trx, account.userId, id, by()))
        await end(keyId)
      } else if (now.do === 'sweep') await sweepLedger(db(), 1000)
      else await statementOf(db(), account.userId)
    }
    for (let at = 0; at < steps.length; at += atOnce) await Promise.all(steps.slice(at, at + atOnce).map(act))
    return keys
  }

  async function usePart(id: string, spent: number) {
    const { userId } = account
    await sql`
      with closed as (select * from ledger_close(${id}, ${spent}, 'settled'))
      insert into usage_logs (user_id, tool_id, tokens_used, request_id, response_status)
        select ${userId}, (select id from tools limit 1), c.spent, gen_random_uuid(), 'success' from closed c where c.status = 'ok'
    `.execute(db())
  }

  async function expectBooks() {
    const { rows } = await sql<{ unlimited: boolean; budgets: number | null; used: number }>`
      with recursive chain as (
        select id, id as first, rotated_to from api_keys k where user_id = ${account.userId}
          and not exists (select 1 from api_keys o where o.rotated_to = k.id)
        union all
        select k.id, c.first, k.rotated_to from api_keys k join chain c on k.id = c.rotated_to
      )
      select bool_or(token_budget is null) as unlimited, sum(token_budget)::int as budgets, sum(tokens_used)::int as used
        from api_keys join chain using (id) group by chain.first, (select created_at from api_keys f where f.id = chain.first)
        order by (select created_at from api_keys f where f.id = chain.first)
    `.execute(db())
    expect(
      rows.map(({ budgets }) => budgets ?? undefined),
      'no budget grew or shrank',
    ).toEqual(BUDGETS)
    for (const { used, budgets } of rows) expect(used).toBeLessThanOrEqual(budgets ?? Number.POSITIVE_INFINITY)
    expect(await ledgerViolations()).toEqual([])
  }

  test.each([{ atOnce: 1 }, { atOnce: 12 }])(
    `what a key used is what its holds say, $atOnce at a time (seed ${seed})`,
    async ({ atOnce }) => {
      const steps = fc.array(step, { minLength: 20, maxLength: 60, size: 'max' })
      const property = fc.asyncProperty(steps, async (drawn) => {
        await live(drawn, atOnce)
        await expectBooks()
      })
      await fc.assert(property, { seed, numRuns: 25, interruptAfterTimeLimit: 45_000 })
    },
  )
})
