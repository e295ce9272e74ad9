// How often one generation waits for a store: counted, so that it cannot creep up unseen.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type App, call, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens } from '../support/money.ts'
import { countingStatements } from '../support/statements.ts'

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let user: TestUser
let keyOwner: TestUser
let key: string

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    // They ask KV now and then, whoever's request that falls to: their own tests count it.
    FORK__AI__CIRCUIT_BREAKERS: 'false',
  })
  user = await givenUser(app)
  keyOwner = await givenUser(app)
  const terms = { name: 'counted', requestsPerMinute: 1000, tokenBudget: 1000 }
  key = (await call(app, 'POST /api/api-keys', { token: keyOwner.token, body: terms })).json.key
  await processImage(app, user) // The first request of a process also writes the tools, and sends the limiter's script.
})

afterAll(() => stub.close())

/** The limit; and for a call to a provider its budget, held before and settled after it. */
const ASKED_NOBODY = 1
const ASKED_A_PROVIDER = 3

const CASES = [
  {
    what: 'a trial',
    status: 200,
    tokens: undefined,
    headers: {},
    kv: ASKED_A_PROVIDER,
    sql: ['reserve', 'ledger_close'],
  },
  { what: 'a paid one', status: 200, tokens: 100, headers: {}, kv: ASKED_A_PROVIDER, sql: ['reserve', 'ledger_close'] },
  {
    what: 'one with an Idempotency-Key',
    status: 200,
    tokens: 100,
    headers: { 'idempotency-key': 'counted' },
    kv: ASKED_A_PROVIDER,
    sql: ['idempotency_claim', 'reserve', 'ledger_close', 'update "idempotency_keys"'],
  },
  {
    what: 'its replay',
    status: 200,
    tokens: undefined,
    headers: { 'idempotency-key': 'counted' },
    kv: ASKED_NOBODY,
    sql: ['idempotency_claim'],
  },
  { what: 'one that cannot be paid', status: 402, tokens: 99, headers: {}, kv: ASKED_NOBODY, sql: ['reserve'] },
]

describe('one generation', () => {
  test.each(CASES)('waits $sql.length times for PostgreSQL and $kv for KV: $what', async (one) => {
    await expectWaits(user, user.id, one, (name) => (name === 'reserve' ? 'ledger_reserve' : name))
  })

  test.each(CASES)('with an API key waits once more for PostgreSQL: $what', async (one) => {
    const caller = { ...keyOwner, token: key }
    const expected = { ...one, sql: ['from api_keys k join users', ...one.sql] }
    await expectWaits(caller, keyOwner.id, expected, (name) => (name === 'reserve' ? 'api_key_reserve' : name))
  })

  test('with a mistyped API key waits for nothing at all', async () => {
    const kvBefore = app.stores.kvRequests()
    const typo = { ...user, token: key.slice(0, -1) + (key.endsWith('0') ? '1' : '0') }
    const { result: reply, statements } = await countingStatements(() => processImage(app, typo))
    expect([reply.status, statements, app.stores.kvRequests() - kvBefore]).toEqual([401, [], 0])
  })
})

async function expectWaits(
  caller: TestUser,
  userId: string,
  { status, tokens, headers, kv, sql }: Omit<(typeof CASES)[number], 'what'>,
  nameOf: (step: string) => string,
) {
  if (tokens !== undefined) await leaveTokens(userId, tokens)
  const kvBefore = app.stores.kvRequests()
  const { result: reply, statements } = await countingStatements(() => processImage(app, caller, { headers }))
  expect(reply.status).toBe(status)
  expect(statements).toEqual(sql.map((name) => expect.stringContaining(nameOf(name))))
  expect(app.stores.kvRequests() - kvBefore).toBe(kv)
}
