// Who is asked first by cost, who is left out, and what callers hear when nobody is left.
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { type ProviderStubs, startProviderStubs } from '../support/provider-stubs.ts'

let app: App
let stubs: ProviderStubs
let user: TestUser

beforeAll(async () => {
  stubs = await startProviderStubs()
  app = await startApp({
    ...stubs.variables,
    FORK__TOOLS__0__PROVIDERS: '["sketch","gemini","stability","openai"]',
    FORK__AI__ROUTING: 'cheapest',
    FORK__AI__CIRCUIT_BREAKERS: 'false',
    // What they ask for one image, in this order: stability, gemini, openai.
    FORK__AI__PROVIDERS__STABILITY__COST_PER_IMAGE_USD: '0.01',
    FORK__AI__PROVIDERS__GEMINI__COST_PER_IMAGE_USD: '0.02',
    FORK__AI__PROVIDERS__OPENAI__COST_PER_IMAGE_USD: '0.03',
  })
})

afterAll(() => stubs.close())

beforeEach(async () => {
  for (const id of ['gemini', 'openai', 'stability'] as const) stubs.behave(id, { kind: 'ok' })
  stubs.forget()
  user = await givenUser(app)
})

/** The providers in the order in which they were asked, as provider_calls has them. */
async function asked(): Promise<string[]> {
  const rows = await db()
    .selectFrom('provider_calls as c')
    .innerJoin('usage_logs as u', 'u.request_id', 'c.request_id')
    .select('c.provider')
    .where('u.user_id', '=', user.id)
    .orderBy('c.id')
    .execute()
  return [...new Set(rows.map(({ provider }) => provider))]
}

const logged = (event: string) =>
  vi
    .mocked(console.log)
    .mock.calls.map(([line]) => JSON.parse(String(line)))
    .filter((line) => line.event === event)

describe('by cost', () => {
  test('what is free and listed first stays first', async () => {
    const { json } = await processImage(app, user)
    expect(json).toMatchObject({ provider: 'sketch', cost: 0, fallback: { used: false } })
    expect(await asked()).toEqual(['sketch'])
  })

  test("the caller's choice goes first, the others by what they cost", async () => {
    stubs.behave('openai', { kind: 'status', status: 400 })
    const { status, json } = await processImage(app, user, { query: '?provider=openai' })
    expect(status).toBe(200)
    expect(json.fallback.failed[0]).toMatchObject({ provider: 'openai', kind: 'bad_request' })
    expect((await asked())[0]).toBe('openai')
    const [{ requestId, policy, pinned, order, why }] = logged('route')
    expect(requestId).toBe(json.requestId)
    expect({ policy, pinned, order }).toEqual({
      policy: 'cheapest',
      pinned: true,
      order: ['openai', 'sketch', 'stability', 'gemini'],
    })
    expect(why).toContain('gemini 20000 micro-USD')
  })
})
