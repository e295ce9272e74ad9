// Idempotency-Key: one run per key and caller whatever is retried or crashes, and the first answer for every repeat.
import { type RawBuilder, sql } from 'kysely'
import sharp from 'sharp'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { sessionOf } from '../../lib/auth/sessions.ts'
import { reserve } from '../../lib/ledger/holds.ts'
import {
  type App,
  balanceOf,
  type CallOptions,
  call,
  givenUser,
  photo,
  processImage,
  type Reply,
  startApp,
  type TestUser,
} from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens, ledgerViolations, suspend, usageRows } from '../support/money.ts'

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let thumbnail: Buffer
let user: TestUser
let other: TestUser

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    FORK__AI__PROVIDER_TIMEOUT_MS: '2500',
  })
  thumbnail = await sharp(photo()).resize(64).jpeg().toBuffer()
  user = await givenUser(app)
  other = await givenUser(app)
})

afterAll(() => stub.close())

beforeEach(async () => {
  stub.behave({ kind: 'ok' })
  stub.requests.length = 0
  await db().deleteFrom('idempotency_keys').execute()
  for (const { id } of [user, other]) await leaveTokens(id, 500)
})

interface PostOptions extends CallOptions {
  as?: TestUser
  query?: string
  image?: Buffer
}

const post = (key: string, { as = user, headers, ...options }: PostOptions = {}) =>
  processImage(app, as, { image: thumbnail, ...options, headers: { 'idempotency-key': key, ...headers } })

const changeRows = (change: Record<string, RawBuilder<Date> | null>) =>
  db().updateTable('idempotency_keys').set(change).execute()

const rows = () => db().selectFrom('idempotency_keys').selectAll().execute()

function expectReplay(replay: Reply, first: Reply) {
  expect(first.headers.has('idempotent-replayed')).toBe(false)
  expect(replay.headers.get('idempotent-replayed')).toBe('true')
  expect(replay.status).toBe(first.status)
  expect(replay.bytes.equals(first.bytes), 'the same bytes').toBe(true)
  const own = ['x-request-id', 'idempotent-replayed', 'ratelimit']
  const kept = ({ headers }: Reply) => [...headers].filter(([name]) => !own.includes(name))
  expect(kept(replay)).toEqual(kept(first))
}

/** What the runs of a test cost together, in tokens, with the ledger sound. */
async function expectSpent(tokens: number, by = user) {
  expect(await balanceOf(app, by)).toMatchObject({ tokens: 500 - tokens, reservedTokens: 0 })
  expect(await ledgerViolations()).toEqual([])
}

describe('a repeated request', () => {
  test('gets the first answer, byte for byte, and costs nothing more', async () => {
    const first = await post('one')
    expect(first.status).toBe(200)
    expectReplay(await post('one'), first)
    expectReplay(await post('one'), first)
    expect(stub.requests).toHaveLength(1)
    await expectSpent(100)
  })

  test('is known by its key, quoted or bare', async () => {
    const key = crypto.randomUUID()
    const first = await post(`"${key}"`)
    expectReplay(await post(key), first)
    expectReplay(await post(` "${key}" `), first)
    expect(stub.requests).toHaveLength(1)
  })

  test('gets the image itself when the first one did', async () => {
    const first = await post('bytes', { headers: { accept: 'image/png' } })
    expect(first.headers.get('content-type')).toBe('image/png')
    expectReplay(await post('bytes', { headers: { accept: 'image/png' } }), first)
    expect(first.headers.get('x-tokens-charged')).toBe('100')
  })

  test('over an event stream gets the first answer as its last event', async () => {
    const first = await post('stream')
    const replay = await post('stream', { headers: { accept: 'text/event-stream' } })
    expect(replay.headers.get('content-type')).toContain('text/event-stream')
    expect(replay.headers.get('idempotent-replayed')).toBe('true')
    expect(replay.bytes.toString()).toBe(`event: done\ndata: ${first.bytes}\n\n`)
    expect(stub.requests).toHaveLength(1)
  })

  test('gets the answer that was streamed the first time', async () => {
    const streamed = await post('streamed', { headers: { accept: 'text/event-stream' } })
    const done = /event: done\ndata: (.*)\n\n$/.exec(streamed.bytes.toString())?.[1]
    const replay = await post('streamed')
    expect(replay.headers.get('idempotent-replayed')).toBe('true')
    expect(replay.bytes.toString()).toBe(done)
    expect(stub.requests).toHaveLength(1)
    await expectSpent(100)
  })

  test('is the same with another boundary around the same parts', async () => {
    const multipart = (boundary: string, quality = 'standard') =>
      post('form', {
        body: Buffer.concat([
          Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n`),
          thumbnail,
          Buffer.from(
            `\r\n--${boundary}\r\nContent-Disposition: form-data; name="options"\r\n\r\n{"quality":"${quality}"}\r\n--${boundary}--`,
          ),
        ]),
        headers: { 'content-type': `multipart/form-data; boundary=${boundary}` },
      })
    const first = await multipart('----first-boundary')
    expect(first.status).toBe(200)
    expectReplay(await multipart('another-boundary.7'), first)
    expect((await multipart('yet-another', 'high')).status, 'other parts').toBe(422)
    expect(stub.requests).toHaveLength(1)
  })

  test.each([
    {
      what: 'another image',
      change: async (): Promise<PostOptions> => ({ image: await sharp(thumbnail).flop().jpeg().toBuffer() }),
    },
    { what: 'another option', change: async (): Promise<PostOptions> => ({ query: '?quality=high' }) },
    {
      what: 'another form of the same',
      change: async (): Promise<PostOptions> => ({
        body: { imageData: thumbnail.toString('base64') },
        headers: { 'content-type': 'application/json' },
      }),
    },
  ])('with $what is another request, and its key is refused', async ({ change }) => {
    const first = await post('reused')
    const { status, json } = await post('reused', await change())
    expect(status).toBe(422)
    expect(json.error.code).toBe('IDEMPOTENCY_KEY_REUSED')
    expectReplay(await post('reused'), first)
    await expectSpent(100)
  })

  test("of another user has the other's own answer", async () => {
    const mine = await post('shared')
    const theirs = await post('shared', { as: other })
    expect(theirs.status).toBe(200)
    expect(theirs.headers.has('idempotent-replayed')).toBe(false)
    expect(theirs.json.requestId).not.toBe(mine.json.requestId)
    await expectSpent(100)
    await expectSpent(100, other)
  })

  test('gets nothing for a user who was suspended or signed out since', async () => {
    const victim = await givenUser(app)
    expect((await post('victim', { as: victim })).status).toBe(200)
    await suspend(victim.id)
    expect((await post('victim', { as: victim })).json.error.code).toBe('ACCOUNT_SUSPENDED')
    await db().updateTable('users').set({ status: 'active' }).where('id', '=', victim.id).execute()
    await call(app, 'POST /api/auth/logout', { body: { refreshToken: victim.refreshToken } })
    expect((await post('victim', { as: victim })).json.error.code).toBe('UNAUTHENTICATED')
  })

  test('is told to wait while the first one runs', async () => {
    stub.behave([{ kind: 'ok', delayMs: 1500 }])
    const running = post('running')
    await expect.poll(() => stub.requests.length, { interval: 5 }).toBe(1)
    const { status, headers, json } = await post('running')
    expect(status).toBe(409)
    expect(json.error.code).toBe('IDEMPOTENCY_IN_PROGRESS')
    expect(headers.get('retry-after')).toBe('1')
    expect((await post('running', { query: '?quality=high' })).json.error.code, 'another request').toBe(
      'IDEMPOTENCY_KEY_REUSED',
    )
    const first = await running
    expect(first.status).toBe(200)
    expectReplay(await post('running'), first)
    await expectSpent(100)
  })

  test('fifty times at once runs once', async () => {
    const replies = await Promise.all(Array.from({ length: 50 }, () => post('fifty')))
    const outcomes = new Set(replies.map(({ status, json }) => json?.error?.code ?? status))
    expect(outcomes.isSubsetOf(new Set([200, 'IDEMPOTENCY_IN_PROGRESS'])), [...outcomes].join()).toBe(true)
    const ran = replies.filter(({ status, headers }) => status === 200 && !headers.has('idempotent-replayed'))
    expect(ran).toHaveLength(1)
    expect(stub.requests).toHaveLength(1)
    await expectSpent(100)
  })
})

describe('an answer', () => {
  test.each([
    {
      what: 'a failure of the provider',
      behaviours: [
        { kind: 'status', status: 503 },
        { kind: 'status', status: 503 },
      ],
      status: 502,
    },
    { what: 'a timeout', behaviours: [{ kind: 'hang' }], status: 504 },
  ] as const)('that is $what is not kept: the same key runs again', async ({ behaviours, status }) => {
    expectErrorsInLog()
    stub.behave([...behaviours])
    expect((await post('again')).status).toBe(status)
    await expectSpent(0)
    const second = await post('again')
    expect(second.status).toBe(200)
    expect(second.headers.has('idempotent-replayed')).toBe(false)
    expectReplay(await post('again'), second)
    await expectSpent(100)
    expect(
      await usageRows(user.id).then((all) => all.slice(-2).map(({ response_status }) => response_status)),
    ).toContain('success')
  })

  test('that is 402 is kept for its key, and another key goes on after more tokens came', async () => {
    await leaveTokens(user.id, 99)
    const refused = await post('poor')
    expect(refused.status).toBe(402)
    await leaveTokens(user.id, 500)
    expectReplay(await post('poor'), refused)
    expect((await post('rich')).status).toBe(200)
    expect(stub.requests).toHaveLength(1)
  })

  test('that declines the picture is kept', async () => {
    stub.behave([{ kind: 'finish', reason: 'IMAGE_SAFETY' }])
    const declined = await post('declined')
    expect(declined.status).toBe(422)
    expectReplay(await post('declined'), declined)
    expect(stub.requests).toHaveLength(1)
    await expectSpent(0)
  })

  test('to a request that is not valid is not kept, and leaves the key free', async () => {
    expect((await post('typo', { query: '?quality=highest' })).status).toBe(400)
    expect((await post('typo', { body: 'nonsense' })).status).toBe(415)
    expect(await rows()).toEqual([])
    expect((await post('typo')).status).toBe(200)
  })

  test('without a session is not kept', async () => {
    expect((await post('nobody', { token: 'garbage' })).status).toBe(401)
    expect((await post('nobody')).status).toBe(200)
  })

  test('is kept for a day, image bytes for an hour when they are large', async () => {
    stub.behave([
      { kind: 'ok', widthPx: 64, heightPx: 64 },
      { kind: 'ok', widthPx: 400, heightPx: 400 },
    ])
    await post('small')
    await post('large')
    const hours = (date: Date | null) => Math.round(((date?.getTime() ?? 0) - Date.now()) / 3_600_000)
    const kept = (await rows()).map(({ key, expires_at, body_expires_at }) => [
      key,
      hours(expires_at),
      hours(body_expires_at),
    ])
    expect(kept.sort()).toEqual([
      ['large', 24, 1],
      ['small', 24, 24],
    ])
  })

  test('whose image is no longer kept is a conflict with its receipt, and is never run again', async () => {
    const first = await post('faded')
    await changeRows({ body_expires_at: sql<Date>`now() - interval '1 second'` })
    const { status, json } = await post('faded')
    expect(status).toBe(409)
    expect(json.error).toMatchObject({
      code: 'CONFLICT',
      details: {
        receipt: {
          requestId: first.json.requestId,
          provider: 'gemini',
          model: first.json.model,
          tool: 'coloring-page',
        },
      },
    })
    expect(stub.requests).toHaveLength(1)
    await expectSpent(100)
  })

  test('is forgotten after its day: the key is free', async () => {
    await post('old')
    await changeRows({ expires_at: sql<Date>`now()` })
    const second = await post('old', { query: '?quality=high' })
    expect(second.status).toBe(200)
    expect(second.headers.has('idempotent-replayed')).toBe(false)
    await expectSpent(300)
  })
})

describe('a run that died', () => {
  /** A run of this very request that took its hold and was never heard of again. */
  async function dieAfterReserving(key: string): Promise<string> {
    stub.behave({ kind: 'finish', reason: 'IMAGE_SAFETY' })
    await post(key)
    stub.behave({ kind: 'ok' })
    stub.requests.length = 0
    const [row] = await rows()
    const session = await sessionOf(db(), user.refreshToken)
    if (!row || !session) throw new Error('There is no run to die.')
    const attempt = row.attempt + 1
    const id = `${row.id}:${attempt}`
    expect(await reserve(db(), { id, ...session, tokens: 100, ttlMs: 120_000 })).toMatchObject({ outcome: 'held' })
    await db()
      .updateTable('idempotency_keys')
      .set({
        attempt,
        status: null,
        headers: null,
        body: null,
        body_expires_at: null,
        locked_until: sql<Date>`now() + interval '60 seconds'`,
      })
      .execute()
    return id
  }

  const holdState = async (id: string) =>
    (await db().selectFrom('ledger_hold').select('state').where('id', '=', id).executeTakeFirstOrThrow()).state

  test('is taken over when its time is up: its hold goes back, and the next run is charged alone', async () => {
    const hold = await dieAfterReserving('dead')
    expect((await post('dead')).json.error.code, 'still its time').toBe('IDEMPOTENCY_IN_PROGRESS')
    expect(await balanceOf(app, user)).toMatchObject({ tokens: 400, reservedTokens: 100 })

    await changeRows({ locked_until: sql<Date>`now() - interval '1 second'` })
    const second = await post('dead')
    expect(second.status).toBe(200)
    expect(await holdState(hold)).toBe('expired')
    expectReplay(await post('dead'), second)
    expect(stub.requests).toHaveLength(1)
    await expectSpent(100)
  })

  test('gives its hold back first, so that the last tokens are enough for the run that takes over', async () => {
    await leaveTokens(user.id, 100)
    await dieAfterReserving('last')
    await changeRows({ locked_until: sql<Date>`now() - interval '1 second'` })
    expect((await post('last')).status).toBe(200)
    expect(await balanceOf(app, user)).toMatchObject({ tokens: 0, reservedTokens: 0 })
    expect(await ledgerViolations()).toEqual([])
  })

  test('after it was charged is a conflict with its receipt, and is never run again', async () => {
    const first = await post('charged')
    await changeRows({
      status: null,
      headers: null,
      body: null,
      body_expires_at: null,
      locked_until: sql<Date>`now() - interval '1 second'`,
    })
    for (let repeat = 0; repeat < 2; repeat += 1) {
      const { status, json } = await post('charged')
      expect(status).toBe(409)
      expect(json.error).toMatchObject({ code: 'CONFLICT', details: { receipt: { requestId: first.json.requestId } } })
    }
    expect(stub.requests).toHaveLength(1)
    await expectSpent(100)
  })
})

describe('keys', () => {
  test.each([
    { why: 'empty', key: '' },
    { why: 'empty in quotes', key: '""' },
    { why: 'of two words', key: 'two words' },
    { why: 'of two words in quotes', key: '"two words"' },
    { why: 'not ASCII', key: 'schlüssel' },
    { why: 'of 256 characters', key: 'x'.repeat(256) },
  ])('a key that is $why is refused, free of charge', async ({ key }) => {
    const { status, json } = await post(key)
    expect(status).toBe(400)
    expect(json.error).toMatchObject({ code: 'VALIDATION_FAILED', details: { issues: [{ path: 'Idempotency-Key' }] } })
    expect(stub.requests).toHaveLength(0)
  })

  test.each([
    { what: 'one character', key: 'x' },
    { what: '255 characters', key: 'x'.repeat(255) },
    { what: '255 characters in quotes', key: `"${'y'.repeat(255)}"` },
    { what: 'signs', key: "!#$%&'*+-.^_`|~" },
    { what: 'a quote that is not closed', key: '"half' },
  ])('a key of $what is taken', async ({ key }) => {
    const first = await post(key)
    expect(first.status).toBe(200)
    expectReplay(await post(key), first)
  })

  test('without a key every request is its own', async () => {
    await processImage(app, user, { image: thumbnail })
    await processImage(app, user, { image: thumbnail })
    expect(stub.requests).toHaveLength(2)
    await expectSpent(200)
  })
})
