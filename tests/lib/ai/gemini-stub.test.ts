// The stand-in for Gemini: steered over HTTP, and as strict as Google.
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { failure, request, run, source } from '../../support/gemini-adapter.ts'
import { startGeminiStub } from '../../support/gemini-stub.ts'

let stub: Awaited<ReturnType<typeof startGeminiStub>>

beforeAll(async () => {
  stub = await startGeminiStub()
  vi.stubEnv('GEMINI_API_KEY', 'test-key')
  vi.stubEnv('GEMINI_BASE_URL', `${stub.url}/`)
})
afterAll(async () => {
  vi.unstubAllEnvs()
  await stub.close()
})
beforeEach(() => {
  stub.requests.length = 0
  stub.behave({ kind: 'ok' })
})

describe('the stand-in', () => {
  const post = (path: string, body: unknown, headers = {}) =>
    fetch(`${stub.url}${path}`, { method: 'POST', body: JSON.stringify(body), headers })

  test('is steered and read over HTTP by other processes', async () => {
    expect((await post('/__behave', [{ kind: 'status', status: 503 }])).status).toBe(200)
    expect((await failure()).kind).toBe('overloaded')
    await run()
    const sent = await (await fetch(`${stub.url}/__requests`)).json()
    expect(sent).toMatchObject([
      { prompt: request.prompt },
      { images: [{ mimeType: 'image/png', byteLength: source.length }] },
    ])
    await fetch(`${stub.url}/__requests`, { method: 'DELETE' })
    expect(stub.requests).toHaveLength(0)
    expect((await post('/__behave', { kind: 'dance' })).status).toBe(400)
  })

  const path = '/v1beta/models/gemini-2.5-flash-image:generateContent'
  const contents = (mimeType: string, data: string) => ({ contents: [{ parts: [{ inlineData: { mimeType, data } }] }] })
  const refused = [
    { why: 'no key', headers: {}, body: contents('image/png', 'AAAA'), status: 403 },
    { why: 'no contents', body: {}, status: 400 },
    { why: 'an unknown field', body: { ...contents('image/png', 'AAAA'), model: 'x' }, status: 400 },
    { why: 'a type Gemini does not read', body: contents('image/gif', 'AAAA'), status: 400 },
    { why: 'broken base64', body: contents('image/png', '?'), status: 400 },
  ]
  test.each(refused)('refuses $why as Google does', async ({ headers = { 'x-goog-api-key': 'k' }, body, status }) => {
    expect((await post(path, body, headers)).status).toBe(status)
  })

  test('knows no path with a double slash', async () => {
    expect((await post(`/${path}`, contents('image/png', 'AAAA'), { 'x-goog-api-key': 'k' })).status).toBe(404)
  })
})
