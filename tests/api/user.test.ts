// The caller's own pages: profile and preferences, and what they used, page by page and summed up.
import { sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { toolId } from '../../lib/tools/catalogue.ts'
import { type App, call, givenUser, startApp, type TestUser } from '../support/app.ts'

let app: App
let user: TestUser
let stranger: TestUser

beforeAll(async () => {
  app = await startApp()
  user = await givenUser(app, 'Ada')
  stranger = await givenUser(app, 'Bob')
})

describe('/api/user/profile', () => {
  const profile = async () => (await call(app, 'GET /api/user/profile', { token: user.token })).json
  const put = (body: unknown) => call(app, 'PUT /api/user/profile', { token: user.token, body })

  beforeEach(async () => {
    await db().updateTable('users').set({ name: 'Ada', preferences: '{}' }).execute()
  })

  test('shows who the caller is and what they can spend, and nothing more', async () => {
    expect(await profile()).toEqual({
      id: user.id,
      name: 'Ada',
      email: user.email,
      emailVerified: false,
      mfaEnabled: false,
      role: 'user',
      status: 'active',
      plan: 'free',
      balance: { trialGenerations: 3, tokens: 1000 },
      preferences: {},
      createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
    })
  })

  test('changes the name alone, trimmed, and answers with the profile', async () => {
    await put({ preferences: { theme: 'dark' } })
    const { status, json } = await put({ name: '  Ada King  ' })
    expect(status).toBe(200)
    expect(json).toMatchObject({ name: 'Ada King', preferences: { theme: 'dark' }, email: user.email })
    expect(await profile()).toEqual(json)
  })

  test('merges preferences: what is not named stays, null removes', async () => {
    await put({ preferences: { theme: 'dark', pages: 12, hints: false } })
    const { json } = await put({ preferences: { theme: null, pages: 13, language: 'de', absent: null } })
    expect(json.preferences).toEqual({ pages: 13, hints: false, language: 'de' })
    expect((await profile()).preferences).toEqual({ pages: 13, hints: false, language: 'de' })
  })

  test('loses no preference when several are set at the same time', async () => {
    const names = Array.from({ length: 10 }, (_, index) => `setting${index}`)
    await Promise.all(names.map((name) => put({ preferences: { [name]: name } })))
    expect((await profile()).preferences).toEqual(Object.fromEntries(names.map((name) => [name, name])))
  })

  test('is on record with the names of what was set, and nothing of what to', async () => {
    await put({ name: 'Ada King', preferences: { theme: 'dark', hints: null } })
    const audit = db()
      .selectFrom('audit_log')
      .select(['actor_type', 'target_id', 'details', 'before', 'after'])
      .where('action', '=', 'user.profile')
      .where('actor_id', '=', user.id)
      .orderBy('id', 'desc')
    expect(await audit.limit(1).execute()).toEqual([
      {
        actor_type: 'user',
        target_id: user.id,
        details: { fields: ['name', 'preferences.theme', 'preferences.hints'] },
        before: null,
        after: null,
      },
    ])
    const records = (await audit.execute()).length
    expect((await put({ preferences: { text: 'x'.repeat(10_000) } })).status).toBe(400)
    expect((await put({})).status).toBe(200)
    expect((await audit.execute()).length, 'what changed nothing').toBe(records)
  })

  test('an empty change changes nothing', async () => {
    const before = await profile()
    expect((await put({})).json).toEqual(before)
    expect((await put({ preferences: {} })).json).toEqual(before)
  })

  test("changes nobody else's", async () => {
    await put({ name: 'Mallory', preferences: { theme: 'dark' } })
    const { json } = await call(app, 'GET /api/user/profile', { token: stranger.token })
    expect(json).toMatchObject({ id: stranger.id, preferences: {} })
    expect(json.name).not.toBe('Mallory')
  })

  test.each(['role', 'email', 'plan', 'status', 'balance', 'id', 'passwordHash', 'createdAt'])(
    'refuses the field %s, which no client may set',
    async (field) => {
      const { status, json } = await put({ name: 'Ada King', [field]: 'admin' })
      expect(status).toBe(400)
      expect(json.error.details.issues).toEqual([{ path: field, message: 'Unknown field.' }])
      expect(await profile()).toMatchObject({ name: 'Ada', role: 'user', email: user.email })
    },
  )

  test.each([
    { why: 'an empty name', body: { name: ' ' }, path: 'name' },
    { why: 'a name of 101 characters', body: { name: 'a'.repeat(101) }, path: 'name' },
    { why: 'a name that is null', body: { name: null }, path: 'name' },
    { why: 'a name with a NUL', body: { name: 'a\0b' }, path: 'name' },
    { why: 'preferences that are no object', body: { preferences: 'dark' }, path: 'preferences' },
    {
      why: 'a preference that is an object',
      body: { preferences: { theme: { dark: true } } },
      path: 'preferences.theme',
    },
    { why: 'a preference whose name is no name', body: { preferences: { 'a b': 1 } }, path: 'preferences.a b' },
    {
      why: 'a preference with a name of 41 characters',
      body: { preferences: { ['x'.repeat(41)]: 1 } },
      path: `preferences.${'x'.repeat(41)}`,
    },
    { why: 'a preference with a NUL', body: { preferences: { theme: 'a\0b' } }, path: 'preferences.theme' },
    {
      why: 'a preference with half a character',
      body: { preferences: { theme: '\ud83d' } },
      path: 'preferences.theme',
    },
    { why: 'preferences of more than 10 kB', body: { preferences: { text: 'x'.repeat(10_000) } }, path: 'preferences' },
  ])('refuses $why', async ({ body, path }) => {
    const { status, json } = await put(body)
    expect(status).toBe(400)
    expect(json.error.details.issues).toMatchObject([{ path }])
    expect(await profile()).toMatchObject({ name: 'Ada', preferences: {} })
  })

  test('keeps no more than 10 kB of preferences, however small the steps they come in', async () => {
    const statuses: number[] = []
    for (let step = 0; step < 5; step += 1) {
      statuses.push((await put({ preferences: { [`step${step}`]: 'x'.repeat(3_000) } })).status)
    }
    expect(statuses).toEqual([200, 200, 200, 400, 400])
    expect(JSON.stringify((await profile()).preferences).length).toBeLessThanOrEqual(10_000)
    expect((await put({ preferences: { step0: null, step9: 'x'.repeat(3_000) } })).status, 'there is room again').toBe(
      200,
    )
  })
})

interface UsageRow {
  at: string
  status?: 'success' | 'error' | 'timeout'
  tokens?: number
  trial?: boolean
  tool?: string
}

async function givenUsage(owner: TestUser, rows: UsageRow[]): Promise<string[]> {
  const inserted = await db()
    .insertInto('usage_logs')
    .values(
      rows.map(({ at, status = 'success', tokens = 100, trial = false, tool = colouring }) => ({
        user_id: owner.id,
        tool_id: tool,
        timestamp: at,
        tokens_used: tokens,
        request_id: crypto.randomUUID(),
        response_status: status,
        duration_ms: 1500,
        trial,
        provider: 'sketch',
        model: 'sketch-1',
        error_code: status === 'success' ? null : 'PROVIDER_ERROR',
      })),
    )
    .returning('id')
    .execute()
  return inserted.map(({ id }) => id)
}

let colouring: string
let otherTool: string

beforeAll(async () => {
  colouring = await toolId(db(), 'coloring-page')
  const tool = { name: 'stickers', description: 'A tool of the past.', api_endpoint: 'builtin:stickers' }
  otherTool = (await db().insertInto('tools').values(tool).returning('id').executeTakeFirstOrThrow()).id
})

describe('GET /api/user/usage', () => {
  const page = (query = '', { token } = user) => call(app, `GET /api/user/usage${query}`, { token })
  let ids: string[]

  beforeAll(async () => {
    // 45 rows over nine days, five of one instant each: the order among equals is what paging can get wrong.
    const days = Array.from({ length: 9 }, (_, day) => `2026-03-0${day + 1}T12:00:00.000Z`)
    ids = await givenUsage(
      user,
      days.flatMap((at, day) => Array.from({ length: 5 }, () => ({ at, ...(day === 0 && { tool: otherTool }) }))),
    )
    await givenUsage(stranger, [{ at: '2026-03-05T12:00:00.000Z' }])
  })

  test('shows a call with all that a bill needs', async () => {
    const { status, json } = await page('?limit=1')
    expect(status).toBe(200)
    expect(json.data).toEqual([
      {
        id: expect.any(String),
        timestamp: '2026-03-09T12:00:00.000Z',
        tool: 'coloring-page',
        status: 'success',
        tokens: 100,
        trial: false,
        provider: 'sketch',
        model: 'sketch-1',
        durationMs: 1500,
        errorCode: null,
        requestId: expect.stringMatching(/^[\da-f-]{36}$/),
        apiKeyId: null,
      },
    ])
  })

  test.each([1, 7, 20, 45, 100])(
    'walked %i at a time, no call is shown twice or lost, and the newest are first',
    async (limit) => {
      const seen: { id: string; timestamp: string }[] = []
      let cursor: string | null = ''
      let pages = 0
      while (cursor !== null) {
        const { json } = await page(`?limit=${limit}${cursor && `&cursor=${cursor}`}`)
        expect(json.data.length).toBeLessThanOrEqual(limit)
        expect(json.page.hasMore).toBe(json.page.nextCursor !== null)
        seen.push(...json.data)
        cursor = json.page.nextCursor
        pages += 1
      }
      expect(pages, 'no empty page at the end').toBe(Math.ceil(45 / limit))
      expect(new Set(seen.map(({ id }) => id))).toEqual(new Set(ids))
      expect(seen).toHaveLength(45)
      const times = seen.map(({ timestamp }) => timestamp)
      expect(times).toEqual(times.toSorted().reverse())
    },
  )

  test('has pages of twenty when not asked otherwise', async () => {
    const { json } = await page()
    expect(json.data).toHaveLength(20)
    expect(json.page).toEqual({ nextCursor: json.data[19].id, hasMore: true })
  })

  test('keeps its place when new calls come in between', async () => {
    const first = (await page('?limit=5')).json
    const [late] = await givenUsage(user, [{ at: '2026-03-10T00:00:00.000Z' }])
    const second = (await page(`?limit=5&cursor=${first.page.nextCursor}`)).json
    expect(second.data.map(({ timestamp }: { timestamp: string }) => timestamp)).toEqual(
      Array.from({ length: 5 }, () => '2026-03-08T12:00:00.000Z'),
    )
    await db()
      .deleteFrom('usage_logs')
      .where('id', '=', late ?? '')
      .execute()
  })

  test.each([
    { query: 'from=2026-03-08T12:00:00Z', count: 10 },
    { query: 'from=2026-03-08T12:00:00.001Z', count: 5 },
    { query: 'to=2026-03-02T12:00:00Z', count: 5 },
    { query: 'from=2026-03-02&to=2026-03-04', count: 10 },
    { query: 'from=2026-03-02T13:00:00%2B02:00&to=2026-03-02T14:00:00.001%2B02:00', count: 5 },
    { query: 'from=2026-03-04&to=2026-03-02', count: 0 },
    { query: 'tool=stickers', count: 5 },
    { query: 'tool=coloring-page', count: 40 },
    { query: 'tool=nothing', count: 0 },
    { query: "tool=x'%20or%20true--", count: 0 },
    { query: 'tool=stickers&from=2026-03-02', count: 0 },
  ])('filtered by $query it has $count', async ({ query, count }) => {
    const { status, json } = await page(`?limit=100&${query}`)
    expect(status).toBe(200)
    expect(json.data).toHaveLength(count)
  })

  test('shows nobody the calls of others, not even with their cursor', async () => {
    const theirs = (await page('', stranger)).json
    expect(theirs.data).toHaveLength(1)
    expect(theirs.data[0].id).not.toBe(ids[0])
    const { status, json } = await page(`?cursor=${theirs.data[0].id}`)
    expect(status).toBe(200)
    expect(json).toEqual({ data: [], page: { nextCursor: null, hasMore: false } })
  })

  test.each([
    { query: 'limit=0', path: 'limit' },
    { query: 'limit=101', path: 'limit' },
    { query: 'limit=2.5', path: 'limit' },
    { query: 'limit=', path: 'limit' },
    { query: 'limit=all', path: 'limit' },
    { query: 'limit=-1', path: 'limit' },
    { query: 'limit=1e3', path: 'limit' },
    { query: 'cursor=', path: 'cursor' },
    { query: 'cursor=2', path: 'cursor' },
    { query: "cursor='%20or%20true", path: 'cursor' },
    { query: 'from=yesterday', path: 'from' },
    { query: 'to=', path: 'to' },
    { query: 'from=-271821-04-20T00:00:00.000Z', path: 'from' },
    { query: 'from=0000-01-01', path: 'from' },
    { query: 'from=1', path: 'from' },
    { query: 'to=%2B275760-09-13T00:00:00.000Z', path: 'to' },
    { query: 'tool=a%00b', path: 'tool' },
    { query: `tool=${'x'.repeat(101)}`, path: 'tool' },
    { query: 'user=somebody', path: 'user' },
  ])('refuses ?$query', async ({ query, path }) => {
    const { status, json } = await page(`?${query}`)
    expect(status).toBe(400)
    expect(json.error).toMatchObject({ code: 'VALIDATION_FAILED', details: { issues: [{ path }] } })
  })
})

describe('GET /api/user/usage/summary', () => {
  let caller: TestUser
  const summary = async (query = '') =>
    (await call(app, `GET /api/user/usage/summary${query}`, { token: caller.token })).json

  beforeAll(async () => {
    caller = await givenUser(app)
  })

  beforeEach(async () => {
    await db().deleteFrom('usage_logs').where('user_id', '=', caller.id).execute()
  })

  test('of nothing is nothing', async () => {
    expect(await summary()).toEqual({ total: { calls: 0, succeeded: 0, trials: 0, tokens: 0 }, days: [] })
  })

  test('sums by day of UTC, and over all days', async () => {
    await givenUsage(caller, [
      { at: '2026-03-01T00:00:00.000Z', tokens: 0, trial: true },
      { at: '2026-03-01T12:00:00.000Z', tokens: 0, trial: true, status: 'error' },
      { at: '2026-03-01T23:59:59.999Z', tokens: 200 },
      { at: '2026-03-02T00:00:00.000Z', tokens: 100 },
      { at: '2026-03-02T00:00:01.000Z', tokens: 0, status: 'timeout' },
      { at: '2026-03-05T00:00:00.000Z', tokens: 100, tool: otherTool },
    ])
    const days = [
      { day: '2026-03-05', calls: 1, succeeded: 1, trials: 0, tokens: 100 },
      { day: '2026-03-02', calls: 2, succeeded: 1, trials: 0, tokens: 100 },
      { day: '2026-03-01', calls: 3, succeeded: 2, trials: 1, tokens: 200 },
    ]
    expect(await summary()).toEqual({ total: { calls: 6, succeeded: 4, trials: 1, tokens: 400 }, days })
    expect(await summary('?from=2026-03-02&to=2026-03-03')).toEqual({
      total: { calls: 2, succeeded: 1, trials: 0, tokens: 100 },
      days: [days[1]],
    })
    expect((await summary('?tool=stickers')).days).toEqual([days[0]])
  })

  test('counts every call in the total, also of years', async () => {
    await sql`
      insert into usage_logs (user_id, tool_id, timestamp, tokens_used, request_id, response_status)
        select ${caller.id}, ${colouring}, '2026-03-01T00:00:00Z'::timestamptz - make_interval(days => day), 100, gen_random_uuid(), 'success'
        from generate_series(1, 400) day
    `.execute(db())
    const { total, days } = await summary()
    expect(total).toEqual({ calls: 400, succeeded: 400, trials: 0, tokens: 40_000 })
    expect(days.length, 'at most a leap year of days').toBe(366)
  })

  test("counts nobody else's calls", async () => {
    await givenUsage(stranger, [{ at: '2026-03-01T00:00:00.000Z' }])
    expect((await summary()).days).toEqual([])
  })

  test.each(['limit=5', 'cursor=x', 'from=yesterday'])('refuses ?%s', async (query) => {
    expect((await call(app, `GET /api/user/usage/summary?${query}`, { token: caller.token })).status).toBe(400)
  })
})
