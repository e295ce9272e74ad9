// Large pictures without a store: uploads say what is missing, and a result too large for a reply is encoded smaller.
import sharp from 'sharp'
import { beforeAll, expect, test } from 'vitest'
import { type App, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { noisePng } from '../support/gemini-replies.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'

let app: App
let user: TestUser
let gemini: Awaited<ReturnType<typeof startGeminiStub>>

beforeAll(async () => {
  gemini = await startGeminiStub()
  app = await startApp({
    GEMINI_API_KEY: 'a key of the tests',
    GEMINI_BASE_URL: gemini.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
  })
  user = await givenUser(app)
  return gemini.close
})

const process = (body: object, headers: Record<string, string> = {}) =>
  call(app, 'POST /api/process-image', { token: user.token, body, headers })

test('an upload and an imageUrl say which key is missing', async () => {
  const body = { contentType: 'image/png', bytes: 10 }
  const upload = await call(app, 'POST /api/process-image/uploads', { token: user.token, body })
  const image = await process({ imageUrl: 'https://store.public.blob.vercel-storage.com/uploads/x' })
  for (const { status, json } of [upload, image]) {
    expect({ status, code: json.error.code }).toEqual({ status: 503, code: 'FEATURE_DISABLED' })
    expect(json.error.details.reason).toContain('BLOB_READ_WRITE_TOKEN')
  }
})

test.each([
  { what: 'JSON', accept: '*/*' },
  { what: 'bytes', accept: 'image/*' },
])(
  'a noise PNG of 6 MB leaves as $what under the limit, its largest side kept as far as can be',
  async ({ accept }) => {
    gemini.behave({ kind: 'ok', widthPx: 2500, heightPx: 2500 })
    expect(noisePng(2500, 2500).length).toBeGreaterThan(6_000_000)
    const imageData = Buffer.from(noisePng(64, 64)).toString('base64')
    const { status, json, bytes } = await process({ imageData }, { accept })
    expect(status).toBe(200)
    expect(bytes.length).toBeLessThan(4_500_000)
    const { width = 0 } = await sharp(json ? Buffer.from(json.result, 'base64') : bytes).metadata()
    expect(width).toBeGreaterThan(1500)
  },
)
