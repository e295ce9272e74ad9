// A run with an Idempotency-Key that outlives its claim: its successor's run and answer are not its own to touch.
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { sessionOf } from '../../lib/auth/sessions.ts'
import { claimKey } from '../../lib/http/idempotency.ts'
import { reserve, settle, type UsageRecord } from '../../lib/ledger/holds.ts'
import { toolId } from '../../lib/tools/catalogue.ts'
import { type App, balanceOf, givenUser, processImage, type Reply, startApp, type TestUser } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import type { Behaviour } from '../support/gemini-replies.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens, ledgerViolations } from '../support/money.ts'

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
  })
})

afterAll(() => stub.close())

describe('a run whose claim has expired', () => {
  test('is not charged, and its failure does not free the key of the run that took over', async () => {
    expectErrorsInLog()
    const { user, post, late } = await takenOver([
      { kind: 'ok', delayMs: 1500 },
      { kind: 'ok', delayMs: 4000 },
    ])
    const successor = post()
    expect(outcomeOf(await late)).toBe('PROVIDER_TIMEOUT')
    expect(outcomeOf(await post())).toBe('IDEMPOTENCY_IN_PROGRESS')
    expect(outcomeOf(await successor)).toBe(200)
    await expectPaidOnce(user)
  })

  test('does not put its answer in the place of the one that was paid for', async () => {
    const { user, post, late } = await takenOver([
      { kind: 'finish', reason: 'IMAGE_SAFETY', delayMs: 1500 },
      { kind: 'ok' },
    ])
    const successor = await post()
    expect(outcomeOf(successor)).toBe(200)
    expect(outcomeOf(await late)).toBe('CONTENT_BLOCKED')
    const replay = await post()
    expect(outcomeOf(replay)).toBe(200)
    expect(replay.bytes).toEqual(successor.bytes)
    await expectPaidOnce(user)
  })
})

describe('a run that was charged and has not answered yet', () => {
  test('makes repeats wait while it may still answer, and gives them its receipt when it died', async () => {
    const user = await givenUser(app)
    await leaveTokens(user.id, 1000)
    const session = await sessionOf(db(), user.refreshToken)
    if (!session) throw new Error('The user has no session.')
    const repeat = () => claimKey(session, 'POST /api/x', 'key', 'f'.repeat(64))
    const claimed = await repeat()
    if (!('claim' in claimed)) throw new Error('A fresh key was not claimed.')
    const { claim } = claimed
    await reserve(db(), { id: claim.holdId, ...session, tokens: 100, ttlMs: 60_000 })
    const facts = { requestId: crypto.randomUUID() }
    const usage = await usageOf(user, facts.requestId)
    await settle(db(), claim.holdId, usage, { claimId: claim.id, facts })

    await expect(repeat()).rejects.toMatchObject({ code: 'IDEMPOTENCY_IN_PROGRESS' })
    await expireClaims(user)
    await expect(repeat()).rejects.toMatchObject({ code: 'CONFLICT', details: { receipt: facts } })
    await expectPaidOnce(user)
  })
})

/** A run that `behaviours[0]` answers late, and whose claim is over before it does; the next post takes over. */
async function takenOver(
  behaviours: Behaviour[],
): Promise<{ user: TestUser; post(): Promise<Reply>; late: Promise<Reply> }> {
  const user = await givenUser(app)
  await leaveTokens(user.id, 1000)
  stub.requests.length = 0
  stub.behave(behaviours)
  const post = () => processImage(app, user, { headers: { 'idempotency-key': 'taken-over' } })
  const late = post()
  await expect.poll(() => stub.requests.length, { interval: 5 }).toBe(1)
  await expireClaims(user)
  return { user, post, late }
}

function outcomeOf({ status, json }: Reply): string | number {
  return json?.error?.code ?? status
}

async function expireClaims({ id }: TestUser): Promise<void> {
  await db()
    .updateTable('idempotency_keys')
    .set({ locked_until: sql`now() - interval '1 second'` })
    .where('user_id', '=', id)
    .where('locked_until', 'is not', null)
    .execute()
}

async function usageOf({ id }: TestUser, requestId: string): Promise<UsageRecord> {
  const tool = await toolId(db(), 'coloring-page')
  const made = {
    provider: 'gemini',
    model: 'model',
    costMicroUsd: 0,
    errorCode: undefined,
    jobId: undefined,
    calls: [],
  }
  const not = { fallback: false, cached: false, freeTier: false }
  return { userId: id, toolId: tool, requestId, status: 'success', durationMs: 1, ...made, ...not }
}

async function expectPaidOnce(user: TestUser): Promise<void> {
  expect(await balanceOf(app, user)).toMatchObject({ tokens: 900, reservedTokens: 0 })
  expect(await ledgerViolations()).toEqual([])
}
