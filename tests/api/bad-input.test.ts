// Everything a client can send wrong: each has its own clear error, and none costs anything.
import { randomBytes } from 'node:crypto'
import { deflateSync } from 'node:zlib'
import { base64url, SignJWT } from 'jose'
import sharp from 'sharp'
import { beforeAll, describe, expect, test } from 'vitest'
import {
  type App,
  balanceOf,
  type CallOptions,
  call,
  givenUser,
  photo,
  processImage,
  startApp,
  type TestUser,
} from '../support/app.ts'
import { suspend, usageRows } from '../support/money.ts'

let app: App
let user: TestUser

beforeAll(async () => {
  app = await startApp({ FORK__TOOLS__0__PROVIDERS: '["sketch"]' })
  user = await givenUser(app)
})

const json = (body: unknown): CallOptions => ({ body })
const raw = (body: Uint8Array, type = 'image/jpeg'): CallOptions => ({ body, headers: { 'content-type': type } })
const base64 = () => photo().toString('base64')

const REQUESTS: {
  why: string
  query?: string
  send: () => CallOptions | Promise<CallOptions>
  status: number
  code: string
  says: RegExp
}[] = [
  {
    why: 'no body',
    send: () => ({ headers: { 'content-type': 'application/json' } }),
    status: 400,
    code: 'INVALID_JSON',
    says: /empty/,
  },
  {
    why: 'truncated JSON',
    send: () => ({ body: '{"imageData":"aGk', headers: { 'content-type': 'application/json' } }),
    status: 400,
    code: 'INVALID_JSON',
    says: /JSON/,
  },
  { why: 'JSON that is no object', send: () => json([1]), status: 400, code: 'VALIDATION_FAILED', says: /object/ },
  { why: 'no image', send: () => json({ options: {} }), status: 400, code: 'VALIDATION_FAILED', says: /imageData/ },
  { why: 'an empty image', send: () => json({ imageData: '' }), status: 400, code: 'VALIDATION_FAILED', says: /empty/ },
  {
    why: 'an image that is a number',
    send: () => json({ imageData: 42 }),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /imageData/,
  },
  {
    why: 'text that is not base64',
    send: () => json({ imageData: '¡not base64!' }),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /base64/,
  },
  {
    why: 'base64 of a text',
    send: () => json({ imageData: Buffer.from('hello world, this is no image').toString('base64') }),
    status: 415,
    code: 'UNSUPPORTED_MEDIA_TYPE',
    says: /JPEG/i,
  },
  {
    why: 'an empty raw body',
    send: () => raw(new Uint8Array(0)),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /empty/,
  },
  {
    why: 'a JPEG in name only',
    send: () => raw(randomBytes(5_000)),
    status: 415,
    code: 'UNSUPPORTED_MEDIA_TYPE',
    says: /image/,
  },
  {
    why: 'a text file',
    send: () => ({ body: 'hello', headers: { 'content-type': 'text/plain' } }),
    status: 415,
    code: 'UNSUPPORTED_MEDIA_TYPE',
    says: /text\/plain/,
  },
  {
    why: 'an SVG',
    send: () => raw(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"/>'), 'image/svg+xml'),
    status: 415,
    code: 'UNSUPPORTED_MEDIA_TYPE',
    says: /SVG/i,
  },
  {
    why: 'an SVG that says it is a PNG',
    send: () => raw(Buffer.from('<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'), 'image/png'),
    status: 415,
    code: 'UNSUPPORTED_MEDIA_TYPE',
    says: /SVG/i,
  },
  {
    why: 'a TIFF',
    send: async () => raw(await sharp(photo()).resize(64).tiff().toBuffer(), 'image/tiff'),
    status: 415,
    code: 'UNSUPPORTED_MEDIA_TYPE',
    says: /TIFF/i,
  },
  {
    why: 'a PDF',
    send: () => raw(Buffer.from('%PDF-1.7\n%âãÏÓ\n'), 'application/octet-stream'),
    status: 415,
    code: 'UNSUPPORTED_MEDIA_TYPE',
    says: /PDF/i,
  },
  { why: 'a HEIC', send: () => raw(heic(), 'image/heic'), status: 415, code: 'UNSUPPORTED_MEDIA_TYPE', says: /HEIC/i },
  {
    why: 'a 256-megapixel PNG',
    send: () => raw(hugePng(), 'image/png'),
    status: 422,
    code: 'IMAGE_TOO_LARGE',
    says: /16000|16,000|megapixel/i,
  },
  {
    why: 'a body of 5 MB',
    send: () => raw(randomBytes(5_000_000)),
    status: 413,
    code: 'PAYLOAD_TOO_LARGE',
    says: /bytes|MB/,
  },
  {
    why: 'an image over imageBytesMax',
    send: () => raw(Buffer.concat([photo(), randomBytes(4_200_000)])),
    status: 413,
    code: 'PAYLOAD_TOO_LARGE',
    says: /MB/,
  },
  {
    why: 'a truncated JPEG',
    send: () => raw(photo().subarray(0, photo().length / 2)),
    status: 422,
    code: 'IMAGE_UNREADABLE',
    says: /./,
  },
  {
    why: 'a 4 × 4 image',
    send: async () => raw(await sharp(photo()).resize(4, 4).png().toBuffer(), 'image/png'),
    status: 422,
    code: 'IMAGE_UNREADABLE',
    says: /4 × 4/,
  },
  {
    why: 'an unknown option value',
    query: '?detail=extreme',
    send: () => raw(photo()),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /detail/,
  },
  {
    why: 'an unknown option',
    query: '?mood=happy',
    send: () => raw(photo()),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /mood/,
  },
  {
    why: 'an unknown format',
    send: () => json({ imageData: base64(), options: { format: 'bmp' } }),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /format/,
  },
  {
    why: 'an unknown field',
    send: () => json({ imageData: base64(), surprise: 1 }),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /surprise/,
  },
  {
    why: 'a price set by the client',
    send: () => json({ imageData: base64(), priceTokens: 0 }),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /priceTokens/,
  },
  {
    why: 'a model set by the client',
    send: () => json({ imageData: base64(), options: { model: 'dearest' } }),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /model/,
  },
  {
    why: 'a provider the tool does not list',
    send: () => json({ imageData: base64(), provider: 'gemini' }),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /provider/,
  },
  {
    why: 'a provider that is no text',
    send: () => json({ imageData: base64(), provider: 7 }),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /provider/,
  },
  {
    why: 'multipart without a file',
    send: () => ({ body: form({ provider: 'sketch' }) }),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /image/,
  },
  {
    why: 'multipart with options that are no JSON',
    send: () => ({ body: form({ image: new File([new Uint8Array(photo())], 'a.jpg'), options: '{' }) }),
    status: 400,
    code: 'INVALID_JSON',
    says: /options/,
  },
  {
    why: 'multipart cut short',
    send: () => ({
      body: '--x\r\nContent-Disposition: form-data; name="image"',
      headers: { 'content-type': 'multipart/form-data; boundary=x' },
    }),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /multipart/,
  },
  {
    why: 'an unusable Idempotency-Key',
    send: () => ({ ...raw(photo()), headers: { 'content-type': 'image/jpeg', 'idempotency-key': 'a b' } }),
    status: 400,
    code: 'VALIDATION_FAILED',
    says: /Idempotency-Key/,
  },
]

describe('bad input', () => {
  test.each(REQUESTS)(
    '$why is refused with $status $code, free of charge',
    async ({ query = '', send, status, code, says }) => {
      const before = await balanceOf(app, user)
      const reply = await call(app, `POST /api/process-image${query}`, { token: user.token, ...(await send()) })
      expect(reply.json).toMatchObject({ error: { code } })
      expect(reply.status).toBe(status)
      expect(reply.json.error.message).toMatch(says)
      expect(await balanceOf(app, user)).toEqual(before)
      expect(await usageRows(user.id)).toEqual([])
    },
  )

  test('refuses a 256-megapixel PNG without decoding it', async () => {
    const before = process.memoryUsage().rss
    await processImage(app, user, { image: hugePng() })
    expect(process.memoryUsage().rss - before).toBeLessThan(100_000_000)
  })
})

describe('bad proof of who is calling', () => {
  test.each([
    { why: 'none', token: () => undefined, code: 'UNAUTHENTICATED' },
    { why: 'garbage', token: () => 'abc.def.ghi', code: 'UNAUTHENTICATED' },
    {
      why: 'alg none',
      token: () => `${part({ alg: 'none', typ: 'at+jwt' })}.${part(claims())}.`,
      code: 'UNAUTHENTICATED',
    },
    { why: 'signed with another secret', token: () => sign(randomBytes(32), claims()), code: 'UNAUTHENTICATED' },
  ])('$why is refused with 401 $code', async ({ token, code }) => {
    const reply = await call(app, 'POST /api/process-image', { token: await token(), ...raw(photo()) })
    expect(reply.status).toBe(401)
    expect(reply.json.error.code).toBe(code)
  })

  test('a suspended user is refused at once, token or not', async () => {
    const suspended = await givenUser(app)
    await suspend(suspended.id)
    const reply = await processImage(app, suspended)
    expect(reply.status).toBe(403)
    expect(reply.json.error.code).toBe('ACCOUNT_SUSPENDED')
    expect(await usageRows(suspended.id)).toEqual([])
  })
})

function claims() {
  const now = Math.floor(Date.now() / 1000)
  return { sub: user.id, sid: crypto.randomUUID(), iss: 'local', aud: 'api', iat: now, exp: now + 900 }
}

function part(value: object): string {
  return base64url.encode(JSON.stringify(value))
}

async function sign(secret: Uint8Array, payload: ReturnType<typeof claims>): Promise<string> {
  return await new SignJWT(payload).setProtectedHeader({ alg: 'HS256', typ: 'at+jwt' }).sign(secret)
}

function form(fields: Record<string, string | File>): FormData {
  const made = new FormData()
  for (const [name, value] of Object.entries(fields)) made.set(name, value)
  return made
}

/** A small file that says it is 16000 × 16000: one row of zeros compresses to nothing. */
function hugePng(): Buffer {
  const side = 16_000
  const header = Buffer.alloc(13)
  header.writeUInt32BE(side, 0)
  header.writeUInt32BE(side, 4)
  header.set([1, 0, 0, 0, 0], 8)
  const pixels = deflateSync(Buffer.alloc((side / 8 + 1) * side))
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', header),
    chunk('IDAT', pixels),
    chunk('IEND', Buffer.alloc(0)),
  ])
}

function chunk(type: string, data: Buffer): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(data.length)
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data])
  const crc = Buffer.alloc(4)
  crc.writeUInt32BE(crc32(body))
  return Buffer.concat([length, body, crc])
}

function crc32(bytes: Buffer): number {
  let crc = 0xffffffff
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
  }
  return (crc ^ 0xffffffff) >>> 0
}

function heic(): Buffer {
  const brands = Buffer.from('ftypheic\0\0\0\0mif1heic', 'latin1')
  const size = Buffer.alloc(4)
  size.writeUInt32BE(brands.length + 4)
  return Buffer.concat([size, brands, randomBytes(500)])
}
