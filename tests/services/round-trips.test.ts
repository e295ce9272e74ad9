// How often one generation waits for a store: counted, so that it cannot creep up unseen.
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type App, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens } from '../support/money.ts'

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>
let user: TestUser

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
  })
  user = await givenUser(app)
  await processImage(app, user) // The first request of a process also writes the tools, and sends the limiter's script.
})

afterAll(() => stub.close())

describe('one generation', () => {
  test.each([
    { what: 'a trial', status: 200, tokens: undefined, headers: {}, sql: ['ledger_reserve', 'ledger_close'] },
    { what: 'a paid one', status: 200, tokens: 100, headers: {}, sql: ['ledger_reserve', 'ledger_close'] },
    {
      what: 'one with an Idempotency-Key',
      status: 200,
      tokens: 100,
      headers: { 'idempotency-key': 'counted' },
      sql: ['idempotency_claim', 'ledger_reserve', 'ledger_close', 'update "idempotency_keys"'],
    },
    {
      what: 'its replay',
      status: 200,
      tokens: undefined,
      headers: { 'idempotency-key': 'counted' },
      sql: ['idempotency_claim'],
    },
    { what: 'one that cannot be paid', status: 402, tokens: 99, headers: {}, sql: ['ledger_reserve'] },
  ])('waits $sql.length times for PostgreSQL and once for KV: $what', async ({ status, tokens, headers, sql }) => {
    if (tokens !== undefined) await leaveTokens(user.id, tokens)
    const kvBefore = app.stores.kvRequests()
    const { result: reply, statements } = await countingStatements(() => processImage(app, user, { headers }))
    expect(reply.status).toBe(status)
    expect(statements).toEqual(sql.map((name) => expect.stringContaining(name)))
    expect(app.stores.kvRequests() - kvBefore).toBe(1)
  })
})

/** Every statement that any connection of this process sends while `work` runs. */
async function countingStatements<T>(work: () => Promise<T>): Promise<{ result: T; statements: string[] }> {
  const { query } = pg.Client.prototype
  const statements: string[] = []
  pg.Client.prototype.query = function (this: pg.Client, ...args: [pg.QueryConfig | string, ...unknown[]]) {
    statements.push(typeof args[0] === 'string' ? args[0] : args[0].text)
    return Reflect.apply(query, this, args)
  }
  try {
    return { result: await work(), statements }
  } finally {
    pg.Client.prototype.query = query
  }
}
