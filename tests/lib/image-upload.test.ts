// The three forms an image arrives in, and that the shortcut through megabytes of JSON means what JSON means.
import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type ImageUpload, readUpload } from '../../lib/http/image-upload.ts'

const IMAGE = randomBytes(1_000)
const BASE64 = IMAGE.toString('base64')

function read(
  body: string | Buffer,
  type = 'application/json',
  { query = '', contentType = type } = {},
): Promise<ImageUpload> {
  const url = `http://localhost/api/process-image${query}`
  const request = new Request(url, { method: 'POST', headers: { 'content-type': contentType } })
  return readUpload({ bytes: Buffer.from(body), type, request })
}

const refusal = (code: string, path?: string) =>
  expect.objectContaining({
    code,
    ...(path !== undefined && { details: { issues: [{ path, message: expect.any(String) }] } }),
  })

describe('JSON', () => {
  test.each([
    { what: 'base64', text: BASE64 },
    { what: 'base64 without padding', text: BASE64.replace(/=+$/, '') },
    { what: 'base64 for URLs', text: IMAGE.toString('base64url') },
    { what: 'base64 with a newline at its end', text: `${BASE64}\n` },
    { what: 'a data: URL', text: `data:image/jpeg;base64,${BASE64}` },
    { what: 'a data: URL with parameters', text: `data:image/svg+xml;charset=utf-8;base64,${BASE64}` },
  ])('gives the image from $what', async ({ text }) => {
    const { image, fields } = await read(
      JSON.stringify({ imageData: text, provider: 'sketch', options: { format: 'png' } }),
    )
    expect(image).toEqual(IMAGE)
    expect(fields).toEqual({ provider: 'sketch', options: { format: 'png' } })
  })

  test.each([
    { what: 'spaces around the colon', body: `{ "imageData" :\n\t "${BASE64}" }` },
    { what: 'more spaces than anybody writes', body: `{"imageData":${' '.repeat(500)}"${BASE64}"}` },
    { what: 'a key that is escaped', body: `{"image\\u0044ata":"${BASE64}"}` },
    {
      what: 'slashes that are escaped',
      body: JSON.stringify({ imageData: `data:image/jpeg;base64,${BASE64}` }).replaceAll('/', '\\/'),
    },
    { what: 'the image given twice, of which the last counts', body: `{"imageData":"QUJD","imageData":"${BASE64}"}` },
    { what: 'the name in another string before it', body: `{"imageData2":"imageData","imageData":"${BASE64}"}` },
  ])('gives the image despite $what', async ({ body }) => {
    expect((await read(body)).image).toEqual(IMAGE)
  })

  test('means what JSON.parse means, whatever stands around the image', async () => {
    const text = fc.oneof(
      fc.constantFrom('imageData', '"imageData":"QUJD"', 'QUJD', ''),
      fc.string({ unit: 'binary', maxLength: 20 }),
    )
    const key = fc.oneof(fc.constantFrom('imageData', 'options', 'provider', 'note'), text)
    const value = fc.letrec((tie) => ({
      any: fc.oneof(
        { maxDepth: 3 },
        text,
        fc.integer(),
        fc.boolean(),
        fc.constant(null),
        fc.array(tie('any'), { maxLength: 3 }),
        fc.array(fc.tuple(key, tie('any')), { maxLength: 3 }).map(Object.fromEntries),
      ),
    })).any
    const body = fc
      .array(fc.tuple(key, value), { maxLength: 5 })
      .chain((entries) =>
        fc.tuple(
          fc.shuffledSubarray([...entries, ['imageData', 'QUJD']], { minLength: entries.length }),
          fc.constantFrom(undefined, 2),
          fc.boolean(),
        ),
      )
    await fc.assert(
      fc.asyncProperty(body, async ([entries, indent, escaped]) => {
        const plain = JSON.stringify(Object.fromEntries(entries), null, indent)
        const sent = escaped ? plain.replaceAll('/', '\\/') : plain
        const { imageData, ...fields } = JSON.parse(plain)
        if (typeof imageData !== 'string' || imageData === '') {
          await expect(read(sent)).rejects.toMatchObject({ code: 'VALIDATION_FAILED' })
          return
        }
        const decodable = /^(?:[\w+/-]{4})+$/.test(imageData)
        const given = await read(sent).catch(() => undefined)
        if (!decodable) return
        expect(given).toEqual({ image: Buffer.from(imageData, 'base64'), fields })
      }),
      { numRuns: 500 },
    )
  })

  test('of four megabytes is taken apart without being parsed', async () => {
    const large = randomBytes(3_000_000)
    const body = Buffer.from(`{"imageData":"${large.toString('base64')}"}`)
    await read(body)
    const startedAt = performance.now()
    const { image } = await read(body)
    const ms = performance.now() - startedAt
    expect(image?.equals(large)).toBe(true)
    expect(ms).toBeLessThan(200)
  })

  test.each([
    { why: 'is empty', body: '', error: refusal('INVALID_JSON') },
    { why: 'is cut short in the image', body: `{"imageData":"${BASE64}`, error: refusal('INVALID_JSON') },
    { why: 'is cut short after it', body: `{"imageData":"${BASE64}"`, error: refusal('INVALID_JSON') },
    { why: 'has rubbish after it', body: `{"imageData":"${BASE64}"} x`, error: refusal('INVALID_JSON') },
    { why: 'is a list', body: '[]', error: refusal('VALIDATION_FAILED', '') },
    { why: 'is null', body: 'null', error: refusal('VALIDATION_FAILED', '') },
    { why: 'has no image', body: '{"options":{}}', error: refusal('VALIDATION_FAILED', 'imageData') },
    {
      why: 'has an image elsewhere only',
      body: `{"options":{"imageData":"${BASE64}"}}`,
      error: refusal('VALIDATION_FAILED', 'imageData'),
    },
    { why: 'has an empty image', body: '{"imageData":""}', error: refusal('VALIDATION_FAILED', 'imageData') },
    {
      why: 'has an empty image and another elsewhere',
      body: `{"options":{"imageData":"${BASE64}"},"imageData":""}`,
      error: refusal('VALIDATION_FAILED', 'imageData'),
    },
    {
      why: 'has an image that is a number',
      body: '{"imageData":42}',
      error: refusal('VALIDATION_FAILED', 'imageData'),
    },
    {
      why: 'has an image that is not base64',
      body: '{"imageData":"not base64!"}',
      error: refusal('VALIDATION_FAILED', 'imageData'),
    },
    {
      why: 'has base64 with something in between',
      body: `{"imageData":"${BASE64.slice(0, 100)}*${BASE64.slice(100)}"}`,
      error: refusal('VALIDATION_FAILED', 'imageData'),
    },
    {
      why: 'has an image that is a link',
      body: '{"imageData":"https://example.com/cat.jpg"}',
      error: refusal('VALIDATION_FAILED', 'imageData'),
    },
    {
      why: 'has an empty data: URL',
      body: '{"imageData":"data:image/png;base64,"}',
      error: refusal('VALIDATION_FAILED', 'imageData'),
    },
  ])('is refused when it $why', async ({ body, error }) => {
    await expect(read(body)).rejects.toEqual(error)
  })
})

describe('JSON with the address of an upload', () => {
  test('gives the address and the fields, and no image', async () => {
    expect(await read('{"imageUrl":"https://example.com/a.png","provider":"sketch"}')).toEqual({
      imageUrl: 'https://example.com/a.png',
      fields: { provider: 'sketch' },
    })
  })

  test.each([
    { why: 'has an image as well', body: `{"imageUrl":"x","imageData":"${BASE64}"}` },
    { why: 'has an image before it', body: `{"imageData":"${BASE64}","imageUrl":"x"}` },
    { why: 'has an address that is none', body: '{"imageUrl":["x"]}' },
    { why: 'has null for an address', body: '{"imageUrl":null}' },
  ])('is refused when it $why', async ({ body }) => {
    await expect(read(body)).rejects.toEqual(refusal('VALIDATION_FAILED', 'imageUrl'))
  })
})

describe('raw bytes', () => {
  test.each(['image/jpeg', 'image/heic', 'image/whatever', 'application/octet-stream'])(
    'of the type %s are the image, the query its options',
    async (type) => {
      const { image, fields } = await read(IMAGE, type, { query: '?provider=sketch&quality=high&detail=simple' })
      expect(image).toEqual(IMAGE)
      expect(fields).toEqual({ provider: 'sketch', options: { quality: 'high', detail: 'simple' } })
    },
  )

  test('without a query have no options', async () => {
    expect((await read(IMAGE, 'image/png')).fields).toEqual({ options: {} })
  })
})

describe('multipart', () => {
  async function send(parts: Record<string, string | File>) {
    const form = new FormData()
    for (const [name, value] of Object.entries(parts)) form.append(name, value)
    const encoded = new Response(form)
    const contentType = encoded.headers.get('content-type') ?? ''
    return await read(Buffer.from(await encoded.arrayBuffer()), 'multipart/form-data', { contentType })
  }
  const file = new File([IMAGE], 'holiday.jpg', { type: 'image/jpeg' })

  test('gives the file and the fields, options as JSON', async () => {
    const { image, fields } = await send({ image: file, provider: 'sketch', options: '{"format":"webp"}', note: 'x' })
    expect(image).toEqual(IMAGE)
    expect(fields).toEqual({ provider: 'sketch', options: { format: 'webp' }, note: 'x' })
  })

  test.each([
    { why: 'has no file', parts: { provider: 'sketch' }, error: refusal('VALIDATION_FAILED', 'image') },
    {
      why: 'has text where the file belongs',
      parts: { image: 'holiday' },
      error: refusal('VALIDATION_FAILED', 'image'),
    },
    { why: 'has options that are not JSON', parts: { image: file, options: '{' }, error: refusal('INVALID_JSON') },
    { why: 'has options that are a file', parts: { image: file, options: file }, error: refusal('INVALID_JSON') },
  ])('is refused when it $why', async ({ parts, error }) => {
    await expect(send(parts)).rejects.toEqual(error)
  })

  test.each(['multipart/form-data', 'multipart/form-data; boundary=other'])(
    'is refused when it cannot be taken apart by %s',
    async (contentType) => {
      await expect(read('--x\r\n\r\n--x--', 'multipart/form-data', { contentType })).rejects.toEqual(
        refusal('VALIDATION_FAILED'),
      )
    },
  )
})

test.each(['text/plain', 'application/xml', 'application/x-www-form-urlencoded', 'video/mp4'])(
  '%s is no form an image arrives in',
  async (type) => {
    await expect(read(IMAGE, type)).rejects.toEqual(refusal('UNSUPPORTED_MEDIA_TYPE'))
  },
)
