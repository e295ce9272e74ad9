// The caller's own bill: everything that moved their balance or money, page by page or as CSV, and summed up.
import { sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { toolId } from '../../lib/tools/catalogue.ts'
import { type App, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { givenDispute, givenLot, givenOrder, givenRefund, givenUsage } from '../support/billing-rows.ts'
import { seed } from '../support/seed.ts'

let app: App
let user: TestUser
let stranger: TestUser

beforeAll(async () => {
  app = await startApp()
  stranger = await givenUser(app, 'Bob')
  await toolId(db(), 'coloring-page')
})

beforeEach(async () => {
  user = await givenUser(app, 'Ada')
})

const get = (path: string, { token } = user, headers: Record<string, string> = {}) =>
  call(app, `GET /api/billing/${path}`, { token, headers })

interface Entry {
  type: string
  id: string
  at: string
}

/** What registering gave: the free plan's month and the trial. */
const STARTERS = 2

describe('GET /api/billing/history', () => {
  /** All entries but those of the registration, the newest first. */
  const entries = async () => {
    const { status, json } = await get('history?limit=100')
    expect(status).toBe(200)
    return json.data.filter(({ at }: Entry) => at < '2026-06')
  }

  test('of a new user shows what registering gave', async () => {
    const { json } = await get('history')
    const given = { type: 'grant', id: expect.any(String), at: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*\.\d{3}Z$/) }
    const { json: billing } = await get('status')
    expect(json).toEqual({
      data: expect.arrayContaining([
        { ...given, kind: 'plan', tokens: 1000, trialGenerations: 0, expiresAt: billing.periodEnd },
        { ...given, kind: 'trial', tokens: 0, trialGenerations: 3, expiresAt: null },
      ]),
      page: { nextCursor: null, hasMore: false },
    })
    expect(json.data).toHaveLength(STARTERS)
  })

  test('shows orders, refunds, grants and what was spent, the newest first', async () => {
    const order = await givenOrder({
      user_id: user.id,
      description: 'Starter pack',
      status: 'partially_refunded',
      net_cents: 1000,
      tax_cents: 190,
      refunded_cents: 400,
      tokens_granted: 1000,
      tokens_taken_back: 400,
      invoice_number: 'INV-1',
      ordered_at: '2026-03-01T00:00:00.000Z',
    })
    const refund = { order_id: order, amount_cents: 400, reason: 'customer_request' }
    const refundId = await givenRefund({ ...refund, refunded_at: '2026-03-03T00:00:00.000Z' })
    await givenLot({ userId: user.id, tokens: 250, at: '2026-03-02T00:00:00.000Z' })
    const [used] = await givenUsage(user.id, [{ at: '2026-03-04T00:00:00.000Z', tokens: 100 }])
    const [tried] = await givenUsage(user.id, [{ at: '2026-03-05T00:00:00.000Z', tokens: 0, trial: true }])

    const run = { type: 'spend', tool: 'coloring-page', provider: 'sketch', requestId: expect.any(String) }
    expect(await entries()).toEqual([
      { ...run, id: tried, at: '2026-03-05T00:00:00.000Z', tokens: 0, trial: true },
      { ...run, id: used, at: '2026-03-04T00:00:00.000Z', tokens: 100, trial: false },
      {
        type: 'refund',
        id: refundId,
        at: '2026-03-03T00:00:00.000Z',
        orderId: order,
        amountCents: 400,
        currency: 'usd',
        status: 'succeeded',
        reason: 'customer_request',
      },
      {
        type: 'grant',
        id: expect.any(String),
        at: '2026-03-02T00:00:00.000Z',
        kind: 'promo',
        tokens: 250,
        trialGenerations: 0,
        expiresAt: null,
      },
      {
        type: 'order',
        id: order,
        at: '2026-03-01T00:00:00.000Z',
        description: 'Starter pack',
        amountCents: 1000,
        currency: 'usd',
        taxCents: 190,
        refundedCents: 400,
        status: 'partially_refunded',
        tokens: 1000,
        tokensTakenBack: 400,
        invoiceNumber: 'INV-1',
      },
    ])
  })

  test('leaves out what cost nothing, and the grants that an order shows already', async () => {
    const at = '2026-03-01T00:00:00.000Z'
    await givenUsage(user.id, [
      { at, tokens: 0, status: 'error' },
      { at, tokens: 0, status: 'timeout', trial: true },
    ])
    const order = await givenOrder({ user_id: user.id, ordered_at: at })
    await givenLot({ userId: user.id, kind: 'pack', source: `polar:order:${order}`, at })
    expect(await entries()).toMatchObject([{ type: 'order', id: order }])
  })

  test("shows nobody else's rows, not even with their cursor", async () => {
    const at = '2026-03-01T00:00:00.000Z'
    const order = await givenOrder({ user_id: stranger.id, ordered_at: at })
    await givenOrder({ user_id: null, ordered_at: at })
    await givenRefund({ order_id: order, refunded_at: at })
    await givenRefund({ order_id: crypto.randomUUID(), refunded_at: at })
    await givenLot({ userId: stranger.id, at })
    await givenUsage(stranger.id, [{ at, tokens: 100 }])
    expect(await entries()).toEqual([])
    const theirs = await get('history?limit=2', stranger)
    expect(theirs.json.page.hasMore).toBe(true)
    const { json } = await get(`history?cursor=${theirs.json.page.nextCursor}`)
    expect(json.data.filter(({ at: time }: Entry) => time < '2026-06')).toEqual([])
    expect((await call(app, 'GET /api/billing/history')).status).toBe(401)
  })

  describe('walked page by page', () => {
    /** The order that refunds are of. */
    let bought: string

    const walk = async (limit: number) => {
      const seen: Entry[] = []
      let cursor: string | null = ''
      while (cursor !== null) {
        const { json } = await get(`history?limit=${limit}${cursor && `&cursor=${cursor}`}`)
        expect(json.data.length).toBeLessThanOrEqual(limit)
        expect(json.data.length, 'no empty page').toBeGreaterThan(0)
        expect(json.page.hasMore).toBe(json.page.nextCursor !== null)
        seen.push(...json.data)
        expect(seen.length, 'the walk ends').toBeLessThan(200)
        cursor = json.page.nextCursor
      }
      return seen
    }

    test(`shows every row exactly once, also where times are equal or a microsecond apart [seed ${seed}]`, async () => {
      const random = randomFrom(seed)
      // Few instants for many rows: two of them equal to the millisecond, so that only microseconds tell them apart.
      const instants = ['12:00:00.000001', '12:00:00.000002', '12:00:00.000999', '12:00:00.001', '12:00:01']
      const first = '2026-02-01T00:00:00Z'
      bought = await givenOrder({ user_id: user.id, ordered_at: first })
      const made = [{ at: first, type: 'order', id: bought }]
      for (let row = 1; row < 60; row += 1) {
        const at = `2026-03-01T${instants[Math.floor(random() * instants.length)]}Z`
        made.push({ at, ...(await givenRow(Math.floor(random() * 4), at)) })
      }
      const order = [...made].sort(
        (one, other) => -compare(one.at, other.at) || -compare(`${one.type}:${one.id}`, `${other.type}:${other.id}`),
      )
      for (const limit of [1, 7, 59, 60, 62, 100]) {
        const seen = await walk(limit)
        expect(seen.slice(STARTERS).map(({ type, id }) => `${type}:${id}`)).toEqual(
          order.map(({ type, id }) => `${type}:${id}`),
        )
        expect(seen).toHaveLength(STARTERS + made.length)
      }
    })

    test('keeps its place when something new happens in between', async () => {
      await givenUsage(
        user.id,
        Array.from({ length: 9 }, () => ({ at: '2026-03-01T00:00:00Z', tokens: 1 })),
      )
      const first = (await get('history?limit=5')).json
      await givenUsage(user.id, [{ at: new Date().toISOString(), tokens: 1 }])
      const second = (await get(`history?limit=100&cursor=${first.page.nextCursor}`)).json
      const seen = [...first.data, ...second.data].map(({ id }: Entry) => id)
      expect(seen).toHaveLength(STARTERS + 9)
      expect(new Set(seen).size).toBe(STARTERS + 9)
    })

    /** A row of one of the four types, and how the list tells of it. */
    async function givenRow(type: number, at: string): Promise<{ type: string; id: string }> {
      if (type === 0) return { type: 'order', id: await givenOrder({ user_id: user.id, ordered_at: at }) }
      if (type === 1) return { type: 'refund', id: await givenRefund({ order_id: bought, refunded_at: at }) }
      if (type === 2) return { type: 'grant', id: await givenLot({ userId: user.id, at }) }
      const [id = ''] = await givenUsage(user.id, [{ at, tokens: 1 }])
      return { type: 'spend', id }
    }
  })

  test.each([
    { query: 'limit=0', path: 'limit' },
    { query: 'limit=101', path: 'limit' },
    { query: 'limit=all', path: 'limit' },
    { query: 'cursor=', path: 'cursor' },
    { query: 'cursor=2', path: 'cursor' },
    { query: `cursor=${crypto.randomUUID()}`, path: 'cursor' },
    { query: `cursor=${encode('1 ')}`, path: 'cursor' },
    { query: `cursor=${encode('now() order:1')}`, path: 'cursor' },
    { query: `cursor=${encode('-1 order:1')}`, path: 'cursor' },
    { query: `cursor=${encode('9007199254740993 order:1')}`, path: 'cursor' },
    { query: `cursor=${encode('1 order:\0')}`, path: 'cursor' },
    { query: `cursor=${encode(`1 ${'x'.repeat(121)}`)}`, path: 'cursor' },
    { query: `cursor=${'A'.repeat(5000)}`, path: 'cursor' },
    { query: 'user=somebody', path: 'user' },
  ])('refuses ?$query', async ({ query, path }) => {
    const { status, json } = await get(`history?${query}`)
    expect(status).toBe(400)
    expect(json.error).toMatchObject({ code: 'VALIDATION_FAILED', details: { issues: [{ path }] } })
  })

  test.each(['0 order:1', '8999999999999999 ~', "1 '||pg_sleep(9)||'"])('takes the made-up position %s', async (at) => {
    expect((await get(`history?cursor=${encode(at)}`)).status).toBe(200)
  })

  describe('as CSV', () => {
    const csv = (query = '') => get(`history${query}`, user, { accept: 'text/csv' })

    test('is a file with a header row and the same entries as the list', async () => {
      const order = await givenOrder({
        user_id: user.id,
        ordered_at: '2026-03-01T00:00:00Z',
        description: 'Pack, "big"',
      })
      await givenRefund({ order_id: order, refunded_at: '2026-03-02T00:00:00Z' })
      await givenUsage(user.id, [{ at: '2026-03-03T00:00:00Z', tokens: 5 }])
      const { status, headers, bytes } = await csv()
      expect(status).toBe(200)
      expect(headers.get('content-type')).toBe('text/csv; charset=utf-8; header=present')
      expect(headers.get('content-disposition')).toMatch(
        /^attachment; filename="billing-history-\d{4}-\d\d-\d\d\.csv"$/,
      )
      expect(headers.has('link')).toBe(false)
      const { json } = await get('history')
      const asTexts = (entry: object) =>
        Object.fromEntries(Object.entries(entry).map(([name, value]) => [name, `${value ?? ''}`]))
      const filled = (row: Record<string, string>) =>
        Object.fromEntries(Object.entries(row).filter(([, text]) => text !== ''))
      expect(parseCsv(bytes.toString()).map(filled)).toEqual(json.data.map(asTexts).map(filled))
    })

    test('runs nothing in a spreadsheet: what looks like a formula is led by an apostrophe', async () => {
      const hostile = [
        '=HYPERLINK("http://example.com")',
        '+1+1',
        '-1+1',
        '@SUM(A1)',
        '\tx',
        '\rx',
        '\n=1',
        'a\r\n"b",c',
      ]
      for (const [index, description] of hostile.entries()) {
        await givenOrder({
          user_id: user.id,
          ordered_at: `2026-03-0${9 - index}T00:00:00Z`,
          description,
          net_cents: -5,
        })
      }
      const rows = parseCsv((await csv()).bytes.toString()).slice(STARTERS)
      expect(rows.map(({ description }) => description)).toEqual([
        ...hostile.slice(0, 7).map((text) => `'${text}`),
        hostile[7],
      ])
      expect(rows[0]?.amountCents, 'a number stays one').toBe('-5')
    })

    test('ends after 10,000 rows, and says where the rest begins', async () => {
      await sql`
        insert into usage_logs (user_id, tool_id, timestamp, tokens_used, request_id, response_status)
          select ${user.id}, ${await toolId(db(), 'coloring-page')}, '2026-03-01T00:00:00Z', 1, gen_random_uuid(), 'success'
          from generate_series(1, 10001)
      `.execute(db())
      const { bytes, headers } = await csv()
      const first = parseCsv(bytes.toString())
      expect(first).toHaveLength(10_000)
      const [, next = ''] =
        /^<\/api\/billing\/history(\?cursor=[\w-]+)>; rel="next"$/.exec(headers.get('link') ?? '') ?? []
      const rest = await csv(next)
      expect(rest.headers.has('link')).toBe(false)
      const ids = [...first, ...parseCsv(rest.bytes.toString())].map(({ id }) => id)
      expect(ids).toHaveLength(10_001 + STARTERS)
      expect(new Set(ids).size).toBe(10_001 + STARTERS)
    })

    test('refuses what the list refuses, as JSON', async () => {
      const { status, json } = await csv('?cursor=2')
      expect(status).toBe(400)
      expect(json.error.code).toBe('VALIDATION_FAILED')
      expect((await csv('?limit=10001')).status).toBe(400)
      expect(parseCsv((await csv('?limit=1')).bytes.toString())).toHaveLength(1)
    })
  })
})

describe('GET /api/billing/analytics', () => {
  const analytics = async (query: string) => {
    const { status, json } = await get(`analytics?${query}`)
    expect(status).toBe(200)
    return json
  }
  const NO_USAGE = { calls: 0, succeeded: 0, failed: 0, tokens: 0, trials: 0 }
  const NO_MONEY = { boughtTokens: 0, spentCents: 0, refundedCents: 0 }

  test('of nothing is nothing, over the last 30 days', async () => {
    const { from, to, ...rest } = await analytics('')
    expect(Date.parse(to) - Date.parse(from)).toBe(30 * 86_400_000)
    expect(Math.abs(Date.parse(to) - Date.now())).toBeLessThan(60_000)
    expect(rest).toEqual({
      currency: 'usd',
      total: { ...NO_USAGE, ...NO_MONEY },
      byDay: [],
      byTool: [],
      byProvider: [],
      otherCurrencies: [],
    })
  })

  test('sums calls and purchases by day of UTC, and calls by tool and provider', async () => {
    const tool = { name: `stickers-${user.id}`, description: 'A tool of the past.', api_endpoint: 'builtin:stickers' }
    const { id: otherTool } = await db().insertInto('tools').values(tool).returning('id').executeTakeFirstOrThrow()
    await givenUsage(user.id, [
      { at: '2026-02-28T23:59:59.999999Z', tokens: 7 },
      { at: '2026-03-01T00:00:00Z', tokens: 0, trial: true },
      { at: '2026-03-01T00:00:01Z', tokens: 0, trial: true, status: 'error', provider: null },
      { at: '2026-03-01T23:59:59.999999Z', tokens: 200 },
      { at: '2026-03-03T12:00:00Z', tokens: 0, status: 'timeout' },
      { at: '2026-03-03T12:00:00Z', tokens: 100, tool: otherTool, provider: 'gemini' },
      { at: '2026-03-04T00:00:00Z', tokens: 9 },
    ])
    const order = { user_id: user.id, ordered_at: '2026-03-01T10:00:00Z', net_cents: 1000, tokens_granted: 1000 }
    const paid = await givenOrder(order)
    await givenOrder({ ...order, paid: false, status: 'pending' })
    await givenOrder({ ...order, ordered_at: '2026-03-04T00:00:00Z' })
    const euros = await givenOrder({ ...order, currency: 'eur', net_cents: 700, tokens_granted: 0 })
    await givenOrder({ ...order, user_id: stranger.id })
    const refund = { order_id: paid, amount_cents: 300, refunded_at: '2026-03-02T00:00:00Z' }
    await givenRefund(refund)
    await givenRefund({ ...refund, status: 'failed' })
    await givenRefund({ ...refund, order_id: euros, currency: 'eur', amount_cents: 70 })
    await givenDispute({ order_id: paid, status: 'lost', disputed_at: '2026-03-02T00:00:00Z' })
    await givenUsage(stranger.id, [{ at: '2026-03-02T00:00:00Z', tokens: 1 }])

    const { byDay, byTool, byProvider, ...rest } = await analytics('from=2026-03-01&to=2026-03-04')
    expect(rest).toEqual({
      from: '2026-03-01T00:00:00.000Z',
      to: '2026-03-04T00:00:00.000Z',
      currency: 'usd',
      total: {
        calls: 5,
        succeeded: 3,
        failed: 2,
        tokens: 300,
        trials: 1,
        boughtTokens: 1000,
        spentCents: 1000,
        refundedCents: 300,
      },
      otherCurrencies: [{ currency: 'eur', boughtTokens: 0, spentCents: 700, refundedCents: 70 }],
    })
    expect(byDay).toEqual([
      { day: '2026-03-03', ...NO_MONEY, calls: 2, succeeded: 1, failed: 1, tokens: 100, trials: 0 },
      { day: '2026-03-02', ...NO_USAGE, ...NO_MONEY, refundedCents: 300 },
      {
        day: '2026-03-01',
        calls: 3,
        succeeded: 2,
        failed: 1,
        tokens: 200,
        trials: 1,
        boughtTokens: 1000,
        spentCents: 1000,
        refundedCents: 0,
      },
    ])
    expect(byTool).toEqual([
      { tool: 'coloring-page', calls: 4, succeeded: 2, failed: 2, tokens: 200, trials: 1 },
      { tool: tool.name, calls: 1, succeeded: 1, failed: 0, tokens: 100, trials: 0 },
    ])
    expect(byProvider).toEqual([
      { provider: 'sketch', calls: 3, succeeded: 2, failed: 1, tokens: 200, trials: 1 },
      { provider: 'gemini', calls: 1, succeeded: 1, failed: 0, tokens: 100, trials: 0 },
      { provider: null, calls: 1, succeeded: 0, failed: 1, tokens: 0, trials: 0 },
    ])
  })

  test('takes instants as well as dates, and up to 366 days', async () => {
    await givenUsage(user.id, [{ at: '2026-03-01T12:00:00Z', tokens: 1 }])
    const calls = async (query: string) => (await analytics(query)).total.calls
    expect(await calls('from=2026-03-01T12:00:00Z&to=2026-03-01T12:00:00.001Z')).toBe(1)
    expect(await calls('from=2026-03-01T12:00:00.001Z&to=2026-03-02')).toBe(0)
    expect(await calls('from=2026-03-01T14:00:00%2B02:00&to=2026-03-01T14:00:01%2B02:00')).toBe(1)
    expect(await calls('from=2025-03-02&to=2026-03-03')).toBe(1)
    expect(await calls('to=2026-03-31T12:00:00Z')).toBe(1)
    expect(await calls('to=2026-03-31T12:00:00.001Z')).toBe(0)
  })

  test.each([
    { query: 'from=2026-03-02&to=2026-03-02', path: 'from' },
    { query: 'from=2026-03-03&to=2026-03-02', path: 'from' },
    { query: 'from=2999-01-01', path: 'from' },
    { query: 'from=2025-03-01&to=2026-03-03', path: 'from' },
    { query: 'from=yesterday', path: 'from' },
    { query: 'from=2026-03-01T00:00:00', path: 'from' },
    { query: 'from=0001-01-01', path: 'from' },
    { query: 'to=2026-13-01', path: 'to' },
    { query: 'to=', path: 'to' },
    { query: 'user=somebody', path: 'user' },
  ])('refuses ?$query', async ({ query, path }) => {
    const { status, json } = await get(`analytics?${query}`)
    expect(status).toBe(400)
    expect(json.error).toMatchObject({ code: 'VALIDATION_FAILED', details: { issues: [{ path }] } })
  })
})

function encode(position: string): string {
  return Buffer.from(position).toString('base64url')
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function randomFrom(start: number): () => number {
  let state = start | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** Rows by header name, as RFC 4180 says: quoted cells may hold commas, quotes and line ends. */
function parseCsv(text: string): Record<string, string>[] {
  expect(text.endsWith('\r\n')).toBe(true)
  const lines: string[][] = [[]]
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/g)) {
    lines.at(-1)?.push(quoted?.replaceAll('""', '"') ?? plain ?? '')
    if (end === '\r\n') lines.push([])
  }
  const [header = [], ...rows] = lines.slice(0, -1)
  for (const row of rows) expect(row).toHaveLength(header.length)
  return rows.map((row) => Object.fromEntries(header.map((name, column) => [name, row[column] ?? ''])))
}
