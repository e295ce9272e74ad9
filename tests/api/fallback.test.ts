// When the first provider fails, the next one answers, within one deadline.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type App, givenUser, processImage, startApp } from '../support/app.ts'
import type { Behaviour } from '../support/gemini-replies.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { usageRows } from '../support/money.ts'

let app: App
let stub: Awaited<ReturnType<typeof startGeminiStub>>

beforeAll(async () => {
  stub = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'test-key',
    GEMINI_BASE_URL: stub.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini","openai","sketch"]',
    FORK__AI__CIRCUIT_BREAKERS: 'false',
    FORK__AI__PROVIDER_TIMEOUT_MS: '5000',
    FORK__AI__DEADLINE_MS: '30000',
  })
})

afterAll(() => stub.close())

describe('fallback', () => {
  test.each<{ behaviour: Behaviour; kind: string }>([
    { behaviour: { kind: 'status', status: 503 }, kind: 'overloaded' },
    { behaviour: { kind: 'hang' }, kind: 'timeout' },
    { behaviour: { kind: 'textOnly' }, kind: 'no_image' },
    { behaviour: { kind: 'invalidKey' }, kind: 'auth' },
  ])('sketch answers when Gemini fails by $kind, and the reply says so', async ({ behaviour, kind }) => {
    stub.behave(behaviour)
    const user = await givenUser(app)
    const { status, json } = await processImage(app, user)
    expect(status).toBe(200)
    expect(json).toMatchObject({ provider: 'sketch', usage: { trial: true }, fallback: { used: true } })
    expect(json.fallback.failed.at(-1)).toMatchObject({ provider: 'gemini', kind })
    expect(await usageRows(user.id)).toMatchObject([{ provider: 'sketch', response_status: 'success' }])
  })

  test('the event stream tells the fallback as it happens', async () => {
    stub.behave({ kind: 'invalidKey' })
    const { bytes } = await processImage(app, await givenUser(app), { headers: { accept: 'text/event-stream' } })
    const events = [...bytes.toString().matchAll(/^event: (.*)\ndata: (.{0,60})/gm)].map(
      ([, event, data]) => `${event} ${data}`,
    )
    expect(events.slice(0, 4)).toEqual([
      expect.stringMatching(/^queued /),
      'provider {"provider":"gemini"}',
      'fallback {"from":"gemini","to":"sketch","reason":"auth"}',
      'provider {"provider":"sketch"}',
    ])
    expect(events[4]).toMatch(/^done /)
  })

  test('a blocked picture is shown to nobody else', async () => {
    stub.behave({ kind: 'finish', reason: 'IMAGE_SAFETY' })
    const { status, json } = await processImage(app, await givenUser(app))
    expect(status).toBe(422)
    expect(json.error).toMatchObject({ code: 'CONTENT_BLOCKED', details: { attempts: [{ provider: 'gemini' }] } })
  })

  test('the caller may name the provider to ask first', async () => {
    stub.behave({ kind: 'ok' })
    stub.requests.length = 0
    const { json } = await processImage(app, await givenUser(app), { query: '?provider=sketch' })
    expect(json).toMatchObject({ provider: 'sketch', fallback: { used: false } })
    expect(stub.requests).toHaveLength(0)
  })
})
