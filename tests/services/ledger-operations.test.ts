// Holding, charging and giving back, on real PostgreSQL: what each answers, and the rows that it leaves.
import { sql } from 'kysely'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { release, reserve, settle, type UsageRecord } from '../../lib/ledger/holds.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { at, makeClock } from '../support/clock.ts'
import { type Account, givenAccount, usageOf } from '../support/ledger-account.ts'
import { ledgerViolations, suspend, usageRows } from '../support/money.ts'
import { OPENED } from '../support/paid-plans.ts'

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

const reserveAt = (time: string, tokens: number, { of = account, id = holdId, ttlMs = 60_000 } = {}) =>
  at(time, (trx) => reserve(trx, { id, userId: of.userId, sessionId: of.sessionId, tokens, ttlMs }))
const settleAt = (time: string, usage: UsageRecord, receipt?: Parameters<typeof settle>[3]) =>
  at(time, (trx) => settle(trx, holdId, usage, receipt))
const releaseAt = (time: string, usage: UsageRecord) => at(time, (trx) => release(trx, holdId, usage))
const holdRow = async () => (await sql`select * from ledger_hold where id = ${holdId}`.execute(db())).rows[0]
const tokens = (amount: number) => ({ trialGenerations: 0, tokens: amount })

describe('a price', () => {
  test('is held for as long as was asked', async () => {
    const held = { outcome: 'held', trial: false, paid: false, balance: tokens(900) }
    expect(await reserveAt(OPENED, 100, { ttlMs: 90_500 })).toEqual(held)
    expect(await holdRow()).toMatchObject({
      user_id: account.userId,
      asked: 100,
      amount: 100,
      unit: 'token',
      state: 'pending',
      expires_at: new Date('2023-06-10T12:01:30.500Z'),
    })
  })

  test('is a trial generation where one is left', async () => {
    const trying = await givenAccount(OPENED, { trial: 2 })
    const held = { outcome: 'held', trial: true, paid: false, balance: { trialGenerations: 1, tokens: 1000 } }
    expect(await reserveAt(OPENED, 100, { of: trying })).toEqual(held)
    expect(await settleAt(OPENED, await usageOf(trying))).toEqual({
      closed: true,
      charged: true,
      chargedTokens: 0,
      trial: true,
      balance: { trialGenerations: 1, tokens: 1000 },
    })
    expect(await usageRows(trying.userId)).toMatchObject([{ trial: true, tokens_used: 0, response_status: 'success' }])
  })

  test('above the balance is not held', async () => {
    expect(await reserveAt(OPENED, 1001)).toEqual({ outcome: 'insufficient', balance: tokens(1000) })
    expect(await holdRow()).toBeUndefined()
  })

  test('is held once by its id', async () => {
    await reserveAt(OPENED, 100)
    const message = `Hold ${holdId} exists already.`
    await expect(reserveAt(OPENED, 100), 'the same price').rejects.toThrow(message)
    await expect(reserveAt(OPENED, 200), 'another price').rejects.toThrow(message)
    expect((await at(OPENED, (trx) => statementOf(trx, account.userId))).balance).toEqual(tokens(900))
  })

  test('is held for nobody who may not act, and it is said why', async () => {
    const refused = (state: string) => ({ outcome: 'refused', state })
    expect(await reserveAt(OPENED, 100, { of: { ...account, sessionId: NOBODY } })).toEqual(refused('signed_out'))
    await suspend(account.userId)
    expect(await reserveAt(OPENED, 100)).toEqual(refused('suspended'))
    expect(await reserveAt(OPENED, 100, { of: { ...account, userId: NOBODY } })).toEqual(refused('unknown_user'))
  })
})

describe('a hold', () => {
  test('that is settled charges its price and writes down the run', async () => {
    await reserveAt(OPENED, 100)
    const usage = {
      ...(await usageOf(account)),
      durationMs: 1234,
      provider: 'gemini',
      model: 'gemini-2.5-flash-image',
      costMicroUsd: 39_000,
    }
    const closing = { closed: true, charged: true, chargedTokens: 100, trial: false, balance: tokens(900) }
    expect(await settleAt(OPENED, usage)).toEqual(closing)
    expect(await holdRow()).toMatchObject({ state: 'settled', spent: 100 })
    expect(await usageRows(account.userId)).toEqual([
      {
        id: expect.any(String),
        api_key_id: null,
        user_id: account.userId,
        tool_id: usage.toolId,
        timestamp: expect.any(Date),
        tokens_used: 100,
        request_id: usage.requestId,
        response_status: 'success',
        duration_ms: 1234,
        trial: false,
        provider: 'gemini',
        model: 'gemini-2.5-flash-image',
        cost_micro_usd: 39_000,
        error_code: null,
        fallback: false,
        cached: false,
        job_id: null,
      },
    ])
    expect(await settleAt(OPENED, usage), 'again').toEqual(closing)
    expect(await usageRows(account.userId)).toHaveLength(1)
  })

  test('that is released costs nothing, and the run is on record', async () => {
    await reserveAt(OPENED, 100)
    const usage = { ...(await usageOf(account, 'error')), errorCode: 'PROVIDER_ERROR' }
    const closing = { closed: true, charged: false, chargedTokens: 0, trial: false, balance: tokens(1000) }
    expect(await releaseAt(OPENED, usage)).toEqual(closing)
    expect(await holdRow()).toMatchObject({ state: 'voided', spent: 0 })
    expect(await usageRows(account.userId)).toMatchObject([
      { tokens_used: 0, response_status: 'error', error_code: 'PROVIDER_ERROR', provider: null, model: null },
    ])
  })

  test('that was settled cannot be released: nothing moves, and its run is on record once, with its calls', async () => {
    await reserveAt(OPENED, 100)
    const call = { provider: 'gemini', model: 'model', outcome: 'ok', durationMs: 1, costMicroUsd: 39_000 }
    const usage = { ...(await usageOf(account)), calls: [call] }
    await settleAt(OPENED, usage)
    const released = await releaseAt(OPENED, { ...usage, status: 'error' })
    expect(released).toMatchObject({ closed: false, charged: true, chargedTokens: 100, balance: tokens(900) })
    expect(await usageRows(account.userId)).toMatchObject([{ tokens_used: 100, response_status: 'success' }])
    const calls = db().selectFrom('provider_calls').selectAll().where('request_id', '=', usage.requestId)
    expect(await calls.execute()).toMatchObject([{ provider: 'gemini', outcome: 'ok', cost_micro_usd: 39_000 }])
  })

  test('that was taken back by its time cannot be settled, and nothing is written down as charged', async () => {
    await reserveAt(OPENED, 100)
    const later = '2023-06-10T12:01:01Z'
    expect(await at(later, (trx) => statementOf(trx, account.userId))).toMatchObject({ reservedTokens: 0 })
    const closing = { closed: false, charged: false, chargedTokens: 0, trial: false, balance: tokens(1000) }
    expect(await settleAt(later, await usageOf(account))).toEqual(closing)
    expect(await usageRows(account.userId)).toEqual([])
  })

  test('keeps the receipt of its claim when it is settled, of that claim alone', async () => {
    const [claimId, other] = [await givenClaim(account.userId), await givenClaim(account.userId)]
    await reserveAt(OPENED, 100)
    await settleAt(OPENED, await usageOf(account), { claimId, facts: { tokens: 100 } })
    expect([await receiptOf(claimId), await receiptOf(other)]).toEqual([{ tokens: 100 }, null])
  })

  test('leaves no receipt when it cannot be settled any more', async () => {
    const claimId = await givenClaim(account.userId)
    await reserveAt(OPENED, 100)
    await releaseAt(OPENED, await usageOf(account, 'error'))
    expect(await settleAt(OPENED, await usageOf(account), { claimId, facts: {} })).toMatchObject({ closed: false })
    expect(await receiptOf(claimId)).toBeNull()
  })
})

async function givenClaim(userId: string): Promise<string> {
  const id = crypto.randomUUID()
  const row = { id, user_id: userId, scope: 'test', key: id, fingerprint: 'f'.repeat(64), expires_at: '2099-01-01' }
  await db().insertInto('idempotency_keys').values(row).execute()
  return id
}

async function receiptOf(claimId: string): Promise<unknown> {
  const { receipt } = await db()
    .selectFrom('idempotency_keys')
    .select('receipt')
    .where('id', '=', claimId)
    .executeTakeFirstOrThrow()
  return receipt
}
