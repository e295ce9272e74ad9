// Without a base URL the adapter speaks to Google's own address; every other request of this file is an error.
import { HttpResponse, http } from 'msw'
import { setupServer } from 'msw/node'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { noisePng } from '../../support/gemini-replies.ts'

const png = noisePng(32, 32)
const asked: { url: string; key: string | null }[] = []

const google = setupServer(
  http.post(/^https:\/\/generativelanguage\.googleapis\.com\//, ({ request }) => {
    asked.push({ url: request.url, key: request.headers.get('x-goog-api-key') })
    const inlineData = { mimeType: 'image/png', data: png.toString('base64') }
    return HttpResponse.json({ candidates: [{ finishReason: 'STOP', content: { parts: [{ inlineData }] } }] })
  }),
)

beforeAll(() => google.listen({ onUnhandledFrame: 'error' }))
afterAll(() => google.close())

test('asks generativelanguage.googleapis.com with the key in a header', async () => {
  vi.stubEnv('GEMINI_API_KEY', 'the-key')
  const { gemini } = await import('../../../lib/ai/gemini.ts')
  const image = { bytes: png, format: 'png' as const, width: 32, height: 32 }
  const reply = await gemini.run(
    { task: 'image->image', image, prompt: 'Draw.', options: {}, quality: 'standard' },
    { signal: new AbortController().signal },
  )
  expect(reply.output).toEqual({ bytes: png })
  expect(asked).toEqual([
    {
      url: 'https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash-image:generateContent',
      key: 'the-key',
    },
  ])
})
