// The export, field by field: everything that is held about one user, to the value, and nothing of another one or of our secrets.
import { sql } from 'kysely'
import { beforeAll, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { recordAudit } from '../../lib/audit.ts'
import { exportOf } from '../../lib/auth/export.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { toolId } from '../../lib/tools/catalogue.ts'
import { startApp } from '../support/app.ts'
import { givenDispute, givenLot, givenOrder, givenRefund, givenUsage, holdFrom } from '../support/billing-rows.ts'
import { expectErrorsInLog } from '../support/console.ts'

const AT = '2026-03-01T12:00:00.123Z'
const LATER = '2026-03-02T12:00:00.000Z'
const KEY = '00000000-0000-4000-8000-00000000000a'
const JOB = '00000000-0000-4000-8000-00000000000c'
const FAMILY = '00000000-0000-4000-8000-00000000000b'
const ID = expect.stringMatching(/^[\da-f-]{36}$/)

let userId: string
let other: string

beforeAll(async () => {
  await startApp()
  userId = await given('ada@example.com')
  other = await given('bob@example.com')
})

const given = async (email: string) =>
  await db()
    .transaction()
    .execute((trx) => createUser(trx, { name: 'Ada', email, role: 'user', ip: '203.0.113.7' }))

async function documentOf(of = userId) {
  const text = await new Response(await exportOf(db(), of)).text()
  return { text, json: JSON.parse(text) }
}

/** One row of everything, of one user. */
async function fill(of: string, mark: string): Promise<void> {
  const user = {
    preferences: JSON.stringify({ theme: mark }),
    email_verified_at: AT,
    clerk_id: `user_${mark}`,
    created_at: AT,
    updated_at: AT,
  }
  await sql`alter table users disable trigger user`.execute(db())
  await db().updateTable('users').set(user).where('id', '=', of).execute()
  await sql`alter table users enable trigger user`.execute(db())
  const times = { created_at: AT, expires_at: LATER }
  await db()
    .insertInto('mfa_factors')
    .values({ user_id: of, secret: `sealed ${mark}`, confirmed_at: AT })
    .execute()
  await db()
    .insertInto('mfa_recovery_codes')
    .values([1, 2, 3].map((n) => ({ user_id: of, code_hash: `hash ${mark} ${n}`, used_at: n === 1 ? AT : null })))
    .execute()
  await db().insertInto('plan_gifts').values({ user_id: of, plan: 'pro', granted_by: other, granted_at: AT }).execute()
  await db()
    .insertInto('email_tokens')
    .values({ user_id: of, token_hash: `hash ${mark}`, purpose: 'change', email: `new.${mark}@example.com`, ...times })
    .execute()
  await db()
    .insertInto('idempotency_keys')
    .values({
      user_id: of,
      scope: 'POST /api/x',
      key: `key ${mark}`,
      fingerprint: 'f'.repeat(64),
      status: 200,
      ...times,
    })
    .execute()
}

/** The rest, which has ids of its own. */
async function fillMore(): Promise<{ order: string; refund: string; dispute: string; lot: number }> {
  const mine = { user_id: userId }
  await db()
    .insertInto('refresh_tokens')
    .values({
      ...mine,
      ...{ token_hash: 'hash of a session', family_id: FAMILY, ip: '203.0.113.7', user_agent: 'a browser', mfa: true },
      ...{ created_at: AT, expires_at: LATER, absolute_expires_at: LATER },
      ...{ revoked: true, revoked_at: LATER, revoked_reason: 'logout' },
    })
    .execute()
  await db()
    .insertInto('api_keys')
    .values({
      ...{ ...mine, id: KEY, key_hash: 'hash of a key', key_prefix: 'abcdefgh', name: 'ci', scopes: ['read'] },
      ...{ active: false, revoked_at: LATER, revoked_reason: 'revoked', token_budget: 500, requests_per_minute: 7 },
      ...{ created_at: AT, last_used_at: AT, expires_at: LATER },
    })
    .execute()
  await db()
    .insertInto('jobs')
    .values({
      ...{
        ...mine,
        id: JOB,
        request_id: KEY,
        tool: 'coloring-page',
        provider: 'gemini',
        options: '{"quality":"high"}',
      },
      ...{ input: Buffer.from('picture'), input_format: 'jpeg', input_text: 'a cat', hold_id: JOB, attempts: 2 },
      ...{ status: 'failed', error: '{"code":"PROVIDER_ERROR"}', result: Buffer.from('picture') },
      ...{ created_at: AT, started_at: AT, finished_at: LATER, expires_at: LATER },
    })
    .execute()
  const [run = ''] = await givenUsage(userId, [{ at: AT, tokens: 5, trial: true, status: 'error' }])
  await db()
    .updateTable('usage_logs')
    .set({ model: 'a-model', duration_ms: 12, error_code: 'TIMEOUT', api_key_id: KEY })
    .where('id', '=', run)
    .execute()
  const lot = await givenLot({ userId, at: AT, kind: 'pack', tokens: 100, expiresAt: '2036-03-01T12:00:00Z' })
  await holdFrom(lot, 30)
  const paid = { kind: 'plan' as const, plan: 'pro' as const, customer_id: 'customer', invoice_number: 'A-1' }
  const order = await givenOrder({
    ...{ ...mine, ...paid, description: 'Pro "plan"', ordered_at: AT, net_cents: 1900, tax_cents: 361 },
    ...{ refunded_cents: 100, dispute_lost: true, tokens_granted: 50, tokens_taken_back: 5 },
    ...{ checkout_id: 'checkout', subscription_id: 'subscription' },
  })
  const refund = await givenRefund({ order_id: order, refunded_at: AT })
  const dispute = await givenDispute({ order_id: order, status: 'lost', disputed_at: AT })
  await db()
    .insertInto('billing_subscriptions')
    .values({
      ...{ ...mine, id: 'subscription', plan: 'pro', status: 'active', cancel_at_period_end: true },
      ...{ period_start: AT, period_end: LATER, ends_at: LATER, pending_plan: 'enterprise' },
      ...{ customer_id: 'customer', product_id: 'product', modified_at: AT },
    })
    .execute()
  return { order, refund, dispute, lot: Number(lot) }
}

describe('the document', () => {
  test('of somebody new has every section, and what is empty is', async () => {
    const { json } = await documentOf(other)
    const { grants, ledger, plan, exportedAt, profile, ...rest } = json
    expect(exportedAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    expect(profile).toMatchObject({ id: other, emailVerifiedAt: null, clerkId: null, trialWithheld: null })
    expect(plan).toEqual(JSON.parse(JSON.stringify(await statementOf(db(), other))))
    expect([grants.length, ledger.length]).toEqual([2, 2])
    expect(rest).toEqual({
      preferences: {},
      mfa: { enrolledAt: null, recoveryCodesLeft: 0 },
      planGift: null,
      ...{ sessions: [], apiKeys: [], mailedTokens: [], keptRequests: [], usage: [], orders: [], refunds: [] },
      ...{ jobs: [], keptResults: [], disputes: [], subscriptions: [], audit: [], cut: [] },
    })
  })

  test('says all that there is, of this user alone, and no secret', async () => {
    await fill(userId, 'ada')
    await fill(other, 'bob')
    const { order, refund, dispute, lot } = await fillMore()
    const { text, json } = await documentOf()
    expect(json.profile).toEqual({
      ...{ id: userId, name: 'Ada', email: 'ada@example.com', role: 'user', status: 'active' },
      ...{ emailVerifiedAt: AT, clerkId: 'user_ada', trialWithheld: null, createdAt: AT, updatedAt: AT },
    })
    expect(json.preferences).toEqual({ theme: 'ada' })
    expect(json.mfa).toEqual({ enrolledAt: AT, recoveryCodesLeft: 2 })
    expect(json.planGift).toEqual({ plan: 'pro', grantedAt: AT })
    expect(json.sessions).toEqual([
      {
        ...{ sessionId: FAMILY, at: AT, ip: '203.0.113.7', userAgent: 'a browser', secondFactor: true },
        ...{ expiresAt: LATER, endedAt: LATER, endedBy: 'logout' },
      },
    ])
    expect(json.jobs).toEqual([
      {
        ...{
          id: JOB,
          at: AT,
          tool: 'coloring-page',
          status: 'failed',
          provider: 'gemini',
          options: { quality: 'high' },
        },
        ...{ inputFormat: 'jpeg', inputText: 'a cat', attempts: 2, startedAt: AT, finishedAt: LATER, keptUntil: LATER },
        ...{ resultType: null, resultUrl: null, facts: null, error: { code: 'PROVIDER_ERROR' }, requestId: KEY },
      },
    ])
    expect(json.apiKeys).toEqual([
      {
        ...{ id: KEY, name: 'ci', keyPrefix: 'abcdefgh', scopes: ['read'], active: false, createdAt: AT },
        ...{ lastUsedAt: AT, expiresAt: LATER, revokedAt: LATER, revokedReason: 'revoked' },
        ...{ tokenBudget: 500, tokensUsed: 0, requestsPerMinute: 7 },
      },
    ])
    expect(json.mailedTokens).toEqual([
      { purpose: 'change', email: 'new.ada@example.com', createdAt: AT, expiresAt: LATER },
    ])
    expect(json.keptRequests).toEqual([
      { request: 'POST /api/x', idempotencyKey: 'key ada', status: 200, at: AT, keptUntil: LATER },
    ])
    expect(json.usage).toEqual([
      {
        ...{ id: ID, at: AT, tool: 'coloring-page', status: 'error', tokens: 5, trial: true, provider: 'sketch' },
        ...{ model: 'a-model', durationMs: 12, errorCode: 'TIMEOUT', apiKeyId: KEY, requestId: ID },
      },
    ])
    expect(json.grants.map(({ kind }: { kind: string }) => kind).sort()).toEqual(['pack', 'plan', 'trial'])
    expect(json.grants.at(-1), 'the oldest').toEqual({
      ...{ id: lot, at: AT, kind: 'pack', unit: 'token', granted: 100, available: 70, held: 30, spent: 0, gone: 0 },
      expiresAt: '2036-03-01T12:00:00.000Z',
    })
    expect(json.ledger.map(({ op }: { op: string }) => op).sort()).toEqual(['grant', 'grant', 'grant', 'reserve'])
    expect(json.ledger[0], 'the newest').toEqual({
      ...{
        id: expect.any(Number),
        at: expect.stringMatching(/Z$/),
        op: 'reserve',
        amount: 30,
        grantId: lot,
        holdId: ID,
      },
    })
    expect(json.orders).toEqual([
      {
        ...{ id: order, at: AT, description: 'Pro "plan"', kind: 'plan', plan: 'pro', status: 'paid', paid: true },
        ...{ amountCents: 1900, taxCents: 361, refundedCents: 100, currency: 'usd', disputeLost: true, tokens: 50 },
        ...{ tokensTakenBack: 5, invoiceNumber: 'A-1', customerId: 'customer', checkoutId: 'checkout' },
        subscriptionId: 'subscription',
      },
    ])
    const sum = { at: AT, orderId: order, amountCents: 100 }
    expect(json.refunds).toEqual([
      { id: refund, ...sum, currency: 'usd', status: 'succeeded', reason: 'customer_request' },
    ])
    expect(json.disputes).toEqual([{ id: dispute, ...sum, status: 'lost' }])
    expect(json.subscriptions).toEqual([
      {
        ...{ id: 'subscription', plan: 'pro', status: 'active', cancelled: true, periodStart: AT, periodEnd: LATER },
        ...{ endsAt: LATER, pendingPlan: 'enterprise', customerId: 'customer', changedAt: AT },
      },
    ])
    expect(json.cut).toEqual([])
    for (const foreign of ['bob', other, 'hash', 'sealed']) expect(text).not.toContain(foreign)

    const theirs = (await documentOf(other)).json
    expect(theirs.mfa, 'two of three codes').toEqual({ enrolledAt: AT, recoveryCodesLeft: 2 })
    expect(theirs.mailedTokens).toMatchObject([{ email: 'new.bob@example.com' }])
    expect(theirs.keptRequests).toMatchObject([{ idempotencyKey: 'key bob' }])
    for (const section of ['sessions', 'apiKeys', 'usage', 'orders', 'refunds', 'disputes', 'subscriptions'])
      expect(theirs[section], section).toEqual([])
  })

  test('has the acts of the user and those on the user, and of a foreign one not where it came from', async () => {
    const target = { type: 'user', id: userId }
    const from = { ip: '198.51.100.1', userAgent: 'browser', requestId: 'request' }
    await recordAudit(db(), { actor: { type: 'user', id: userId }, action: 'thing.change', ...from, details: { n: 1 } })
    await recordAudit(db(), {
      ...{ actor: { type: 'admin', id: other }, action: 'user.suspend', target, reason: 'A test.', ...from },
      ...{ before: { status: 'active' }, after: { status: 'suspended' } },
    })
    await recordAudit(db(), { actor: { type: 'system' }, action: 'user.purge', target, ...from })
    await recordAudit(db(), { actor: { type: 'system' }, action: 'x', target: { type: 'thing', id: userId } })
    await recordAudit(db(), { actor: { type: 'admin', id: other }, action: 'x', target: { type: 'user', id: other } })
    const empty = { reason: null, before: null, after: null, details: {} }
    const hidden = { own: false, ip: null, userAgent: null, requestId: 'request' }
    const at = expect.stringMatching(/^\d{4}-.*Z$/)
    expect((await documentOf()).json.audit).toEqual([
      { ...empty, ...hidden, at, action: 'user.purge', by: 'system', target: 'user', targetId: userId },
      {
        ...{ ...hidden, at, action: 'user.suspend', by: 'admin', target: 'user', targetId: userId, reason: 'A test.' },
        ...{ before: { status: 'active' }, after: { status: 'suspended' }, details: {} },
      },
      {
        ...{ ...empty, ...from, at, action: 'thing.change', by: 'user', own: true, target: null, targetId: null },
        details: { n: 1 },
      },
    ])
  })
})

describe('a history of several pages', () => {
  test('is whole, each row once, the newest first, page by page', async () => {
    const reader = await given('reader@example.com')
    await sql`insert into usage_logs (user_id, tool_id, tokens_used, request_id, response_status, timestamp)
      select ${reader}, ${await toolId(db(), 'coloring-page')}, n, gen_random_uuid(), 'success',
          timestamptz '2026-01-01' + (n / 3) * interval '1 microsecond' from generate_series(1, 2500) n`.execute(db())
    const rows = await db()
      .selectFrom('usage_logs')
      .select('id')
      .where('user_id', '=', reader)
      .orderBy('timestamp', 'desc')
      .orderBy('id', 'desc')
      .execute()
    const pieces: string[] = []
    const decoder = new TextDecoder()
    for await (const piece of await exportOf(db(), reader)) pieces.push(decoder.decode(piece))
    const json = JSON.parse(pieces.join(''))
    expect(json.usage.map(({ id }: { id: string }) => id)).toEqual(rows.map(({ id }) => id))
    expect(json.cut).toEqual([])
    const pages = pieces.map((piece) => piece.split('"errorCode"').length - 1).filter((count) => count > 0)
    expect(pages).toEqual([1000, 1000, 500])
    expect(pieces.some((piece) => piece === '')).toBe(false)
  })
})

describe('an export', () => {
  test('that is read no further ends without an error, also while a page is being read', async () => {
    const reader = (await exportOf(db(), userId)).getReader()
    expect(new TextDecoder().decode((await reader.read()).value)).toContain('"exportedAt"')
    for (let piece = 0; piece < 3; piece += 1) await reader.read()
    const waiting = reader.read()
    await reader.cancel()
    expect(await waiting).toEqual({ done: true, value: undefined })
    expect(await reader.read()).toEqual({ done: true, value: undefined })
    expect(vi.mocked(console.error).mock.calls, 'nothing on the log').toEqual([])
  })

  test('breaks off where the database fails, and is on the log', async () => {
    expectErrorsInLog()
    await sql`alter table billing_orders rename column description to gone`.execute(db())
    try {
      await expect(documentOf(other)).rejects.toThrow('o.description')
    } finally {
      await sql`alter table billing_orders rename column gone to description`.execute(db())
    }
    expect(console.error).toHaveBeenCalledExactlyOnceWith(
      expect.stringMatching(/"event":"export_failed".*o\.description/),
    )
  })

  test('of nobody is not begun', async () => {
    await expect(exportOf(db(), crypto.randomUUID())).rejects.toThrow('The user to export is gone.')
  })
})
