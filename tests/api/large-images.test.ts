// Pictures past the limits of a request and a reply: uploads to our own store, and results that leave as a link or a smaller encoding.
import { crc32 } from 'node:zlib'
import sharp from 'sharp'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type App, balanceOf, type CallOptions, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { type BlobStub, startBlobStub } from '../support/blob-stub.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { noisePng } from '../support/gemini-replies.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { callsOf } from '../support/jobs.ts'
import { leaveTokens, ledgerViolations, suspend, usageRows } from '../support/money.ts'
import { pngOfSize } from '../support/pictures.ts'

const BYTES_MAX = 4_500_000
/** Noise of this size is a PNG of over 6 MB. */
const SIDE = 2500

let app: App
let blob: BlobStub
let gemini: Awaited<ReturnType<typeof startGeminiStub>>
let user: TestUser
let large: Buffer

beforeAll(async () => {
  blob = await startBlobStub()
  gemini = await startGeminiStub()
  app = await startApp({
    ...blob.variables,
    GEMINI_API_KEY: 'a key of the tests',
    GEMINI_BASE_URL: gemini.url,
    FORK__TOOLS__0__PROVIDERS: '["gemini"]',
    FORK__LIMITS__IMAGE_PIXELS_MAX: '12000000',
    FORK__LIMITS__UPLOAD_BYTES_MAX: '8000000',
    CRON_SECRET: 'scheduler-of-the-tests',
  })
  user = await givenUser(app)
  large = Buffer.from(noisePng(SIDE, SIDE))
  return async () => {
    await blob.close()
    await gemini.close()
  }
})

beforeEach(async () => {
  blob.answer = undefined
  blob.files.clear()
  blob.calls.length = 0
  gemini.behave({ kind: 'ok' })
  gemini.requests.length = 0
  await leaveTokens(user.id, 10_000)
})

const permit = (who: TestUser, body: unknown = { contentType: 'image/png', bytes: large.length }) =>
  call(app, 'POST /api/process-image/uploads', { token: who.token, body })

async function upload(bytes: Buffer, contentType = 'image/png', who = user): Promise<string> {
  const { status, json } = await permit(who, { contentType, bytes: bytes.length })
  expect(status).toBe(201)
  const stored = await fetch(json.uploadUrl, {
    method: json.method,
    headers: json.headers,
    body: new Uint8Array(bytes),
  })
  expect(stored.status).toBe(200)
  return json.imageUrl
}

const process = (body: object, { headers = {} }: CallOptions = {}) =>
  call(app, 'POST /api/process-image', { token: user.token, body, headers })

/** What cannot be decoded, although its chunks follow one another and their checksums are right. */
function undecodable(png: Buffer): Buffer {
  const broken = Buffer.from(png)
  const start = broken.indexOf('IDAT') + 4
  const end = start + broken.readUInt32BE(start - 8)
  broken.fill(0xff, start, end)
  broken.writeUInt32BE(crc32(broken.subarray(start - 4, end)), end)
  return broken
}

/** Has the provider answer with these bytes, as Google words it. */
function answerWith(png: Buffer): void {
  const parts = [{ inlineData: { mimeType: 'image/png', data: png.toString('base64') } }]
  const usageMetadata = { promptTokenCount: 298, candidatesTokenCount: 1290, totalTokenCount: 1588 }
  const candidates = [{ content: { role: 'model', parts }, finishReason: 'STOP', index: 0 }]
  gemini.behave({ kind: 'raw', status: 200, body: JSON.stringify({ candidates, usageMetadata }) })
}

describe('an upload', () => {
  test('larger than a request may be becomes the source picture, scaled down, and is deleted after use', async () => {
    expect(large.length).toBeGreaterThan(BYTES_MAX)
    const imageUrl = await upload(large)
    const { status, json } = await process({ imageUrl, options: { quality: 'standard' } })
    expect({ status, tokens: json.usage?.tokens }).toEqual({ status: 200, tokens: 100 })
    const [sent] = gemini.requests[0]?.images ?? []
    const { format, width, height } = await sharp(sent?.bytes).metadata()
    expect({ format, width, height }).toEqual({ format: 'jpeg', width: 2048, height: 2048 })
    expect(sent?.bytes.length).toBeLessThan(4_000_000)
    await expect.poll(() => blob.files.size).toBe(0)
  })

  test('that is small enough reaches the provider as it is', async () => {
    const small = Buffer.from(noisePng(64, 48))
    await process({ imageUrl: await upload(small) })
    expect(await sharp(gemini.requests[0]?.images[0]?.bytes).raw().toBuffer()).toEqual(
      await sharp(small).raw().toBuffer(),
    )
  })

  test('is replayed under its Idempotency-Key after it is gone', async () => {
    const imageUrl = await upload(Buffer.from(noisePng(64, 48)))
    const headers = { 'idempotency-key': crypto.randomUUID() }
    const first = await process({ imageUrl }, { headers })
    await expect.poll(() => blob.files.size).toBe(0)
    const again = await process({ imageUrl }, { headers })
    expect(again.headers.get('idempotent-replayed')).toBe('true')
    expect(again.json).toEqual(first.json)
    expect(gemini.requests).toHaveLength(1)
  })

  test('is answered later as well, and is not needed until then', async () => {
    const imageUrl = await upload(large)
    const { status, json } = await process({ imageUrl }, { headers: { prefer: 'respond-async' } })
    expect(status).toBe(202)
    await expect.poll(() => [...blob.files.keys()].filter((name) => name.startsWith('uploads/'))).toEqual([])
    const job = () => call(app, `GET /api/jobs/${json.jobId}`, { token: user.token })
    await expect.poll(async () => (await job()).json.status, { timeout: 45_000 }).toBe('succeeded')
    expect((await sharp(gemini.requests[0]?.images[0]?.bytes).metadata()).width).toBe(2048)
  })

  test('stays for another try when the provider fails', async () => {
    expectErrorsInLog()
    gemini.behave({ kind: 'status', status: 400 })
    const imageUrl = await upload(Buffer.from(noisePng(64, 48)))
    expect((await process({ imageUrl })).status).toBe(502)
    expect(blob.files.size).toBe(1)
    gemini.behave({ kind: 'ok' })
    expect((await process({ imageUrl })).status).toBe(200)
  })

  test.each([
    { why: 'has more pixels than may be', code: 'IMAGE_TOO_LARGE', make: () => pngOfSize(12_001, 1000) },
    { why: 'is no picture', code: 'UNSUPPORTED_MEDIA_TYPE', make: () => Buffer.from('not a picture') },
    { why: 'is damaged', code: 'IMAGE_UNREADABLE', make: () => large.subarray(0, 5_000_000) },
  ])('is refused free of charge when it $why', async ({ code, make }) => {
    const rows = (await usageRows(user.id)).length
    const { json } = await process({ imageUrl: await upload(make()) })
    expect(json.error.code).toBe(code)
    expect((await balanceOf(app, user)).tokens).toBe(10_000)
    expect(await usageRows(user.id)).toHaveLength(rows)
    expect(gemini.requests).toEqual([])
  })

  test('that the store has as more than may be uploaded is not read to its end', async () => {
    const imageUrl = await upload(Buffer.from(noisePng(16, 16)))
    const name = new URL(imageUrl).pathname.slice(1)
    blob.files.set(name, { bytes: Buffer.alloc(8_000_001), contentType: 'image/png', uploadedAt: new Date() })
    expect((await process({ imageUrl })).json.error.code).toBe('PAYLOAD_TOO_LARGE')
  })

  test('is permitted for one unguessable name, its type and its size alone', async () => {
    const small = Buffer.from(noisePng(16, 16))
    const { json } = await permit(user, { contentType: 'image/png', bytes: small.length })
    expect(json.imageUrl).toMatch(new RegExp(`^${blob.url}/uploads/${user.id}/[\\w-]{32}\\.png$`))
    expect(Date.parse(json.expiresAt)).toBeGreaterThan(Date.now())
    expect(Date.parse(json.expiresAt)).toBeLessThanOrEqual(Date.now() + 10 * 60_000)
    const put = (address: string, body: Buffer, headers = {}) =>
      fetch(address, { method: 'PUT', headers: { ...json.headers, ...headers }, body: new Uint8Array(body) })
    const refused = [
      await put(json.uploadUrl, Buffer.concat([small, Buffer.alloc(1)])),
      await put(json.uploadUrl, small, { 'x-content-type': 'text/html' }),
      await put(`${blob.url}/?pathname=uploads/other.png`, small),
    ]
    expect(refused.map(({ status }) => status)).toEqual([403, 403, 403])
    expect((await put(json.uploadUrl, small)).status).toBe(200)
    expect((await put(json.uploadUrl, small)).status).toBe(403)
    expect((await permit(user)).json.imageUrl).not.toBe(json.imageUrl)
  })

  test.each([
    { why: 'more bytes than may be', body: { contentType: 'image/png', bytes: 8_000_001 }, code: 'PAYLOAD_TOO_LARGE' },
    { why: 'a type that is no picture', body: { contentType: 'text/html', bytes: 10 }, code: 'VALIDATION_FAILED' },
    { why: 'no size', body: { contentType: 'image/png' }, code: 'VALIDATION_FAILED' },
    { why: 'half a byte', body: { contentType: 'image/png', bytes: 0.5 }, code: 'VALIDATION_FAILED' },
    {
      why: 'a name of its own',
      body: { contentType: 'image/png', bytes: 1, pathname: 'x' },
      code: 'VALIDATION_FAILED',
    },
  ])('is not permitted with $why', async ({ body, code }) => {
    expect((await permit(user, body)).json.error.code).toBe(code)
  })

  test('is permitted to nobody who is suspended or signed out, and nothing of theirs is read', async () => {
    const shutOut = await givenUser(app, 'Mallory')
    const signedOut = await givenUser(app, 'Trent')
    const image = { contentType: 'image/png', bytes: 10 }
    const [theirs, another] = [await permit(shutOut, image), await permit(signedOut, image)]
    await suspend(shutOut.id)
    await call(app, 'POST /api/auth/logout', { body: { refreshToken: signedOut.refreshToken } })
    expect((await permit(shutOut, image)).json.error?.code).toBe('ACCOUNT_SUSPENDED')
    expect((await permit(signedOut, image)).json.error?.code).toBe('UNAUTHENTICATED')
    const use = ({ token }: TestUser, { json }: typeof theirs) =>
      call(app, 'POST /api/process-image', { token, body: { imageUrl: json.imageUrl } })
    expect((await use(shutOut, theirs)).json.error.code).toBe('ACCOUNT_SUSPENDED')
    expect((await use(signedOut, another)).json.error.code).toBe('UNAUTHENTICATED')
    expect(blob.calls).toEqual([])
  })

  test('is permitted to who can pay for a picture now, by trial or by tokens', async () => {
    const image = { contentType: 'image/png', bytes: 10 }
    expect((await permit(await givenUser(app), image)).status).toBe(201)
    await leaveTokens(user.id, 100)
    expect((await permit(user, image)).status).toBe(201)
    await leaveTokens(user.id, 99)
    const { status, json } = await permit(user, image)
    expect({ status, error: json.error }).toMatchObject({
      status: 402,
      error: { code: 'INSUFFICIENT_TOKENS', details: { required: 100, balance: 99, missing: 1 } },
    })
  })

  test('is permitted a hundred times a day, then says when to come back', async () => {
    const busy = await givenUser(app)
    const image = { contentType: 'image/png', bytes: 10 }
    for (let count = 0; count < 100; count += 1) expect((await permit(busy, image)).status).toBe(201)
    const { status, json, headers } = await permit(busy, image)
    expect({ status, code: json.error?.code }).toEqual({ status: 429, code: 'RATE_LIMITED' })
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
    expect((await permit(user, image)).status).toBe(201)
  })

  test('is deleted after use however its address was spelled', async () => {
    const imageUrl = await upload(Buffer.from(noisePng(64, 48)))
    expect((await process({ imageUrl: imageUrl.replace('http:', 'HTTP:') })).status).toBe(200)
    await expect.poll(() => blob.files.size).toBe(0)
  })

  test('that was never made is said to be missing', async () => {
    const { json } = await permit(user)
    const missing = await process({ imageUrl: json.imageUrl })
    expect(missing.json.error).toMatchObject({
      code: 'VALIDATION_FAILED',
      details: { issues: [{ path: 'imageUrl' }] },
    })
  })
})

describe('an imageUrl', () => {
  test('that is not an upload of the caller is refused, and nothing is fetched', async () => {
    const other = await givenUser(app, 'Eve')
    const theirs = await upload(Buffer.from(noisePng(16, 16)), 'image/png', other)
    const own = await upload(Buffer.from(noisePng(16, 16)))
    const { pathname } = new URL(own)
    const port = new URL(own).port
    blob.calls.length = 0
    for (const imageUrl of [
      theirs,
      'http://169.254.169.254/latest/meta-data/',
      'file:///etc/passwd',
      `http://localhost:${port}${pathname}`,
      `http://user@127.0.0.1:${port}${pathname}`,
      `http://127.0.0.1:${port}@example.com${pathname}`,
      `http://127.0.0.1.example.com:${port}${pathname}`,
      `https://127.0.0.1:${port}${pathname}`,
      `${own}?download=1`,
      `${own}#x`,
      own.replace('/uploads/', '/replies/'),
      own.replace(`/uploads/${user.id}/`, `/uploads/${user.id}/../${other.id}/`),
      theirs.replace('/uploads/', `/uploads/${user.id}/%2e%2e/`),
      own.replace('.png', '.png/x'),
      own.slice(0, -10),
      `${blob.url}/uploads/${user.id}/`,
      pathname,
      '',
      'not an address',
    ]) {
      const { status, json } = await process({ imageUrl })
      expect({ imageUrl, status, code: json.error?.code }).toEqual({ imageUrl, status: 400, code: 'VALIDATION_FAILED' })
      expect(json.error.details.issues[0].path).toBe('imageUrl')
    }
    expect(blob.calls).toEqual([])
  })

  test('is followed nowhere else', async () => {
    const imageUrl = await upload(Buffer.from(noisePng(16, 16)))
    blob.answer = (call, response) => {
      if (!call.startsWith('GET /uploads/')) return false
      response.writeHead(302, { location: `${gemini.url}/__requests` }).end()
      return true
    }
    expectErrorsInLog()
    expect((await process({ imageUrl })).json.error.code).toBe('PROVIDER_UNAVAILABLE')
    expect((await balanceOf(app, user)).tokens).toBe(10_000)
  })

  test.each([
    { why: 'beside imageData', body: { imageUrl: 'x', imageData: 'QUJD' } },
    { why: 'as a number', body: { imageUrl: 7 } },
    { why: 'as null', body: { imageUrl: null } },
  ])('is refused $why', async ({ body }) => {
    const { status, json } = await process(body)
    expect({ status, path: json.error.details.issues[0].path }).toEqual({ status: 400, path: 'imageUrl' })
  })
})

describe('a result too large for a reply', () => {
  beforeEach(() => gemini.behave({ kind: 'ok', widthPx: SIDE, heightPx: SIDE }))
  const source = () => ({ imageData: Buffer.from(noisePng(64, 64)).toString('base64') })

  test('becomes a link where there is a store, the same one when it is replayed', async () => {
    const headers = { 'idempotency-key': crypto.randomUUID() }
    const { status, json } = await process(source(), { headers })
    expect(status).toBe(200)
    expect(json).toMatchObject({ mimeType: 'image/png', width: SIDE, height: SIDE, provider: 'gemini' })
    expect(json).not.toHaveProperty('result')
    const linked = Buffer.from(await (await fetch(json.resultUrl)).arrayBuffer())
    expect(linked.equals(large)).toBe(true)
    expect(json.resultUrl).toMatch(/\/replies\/[\w-]{32}\.png$/)
    expect((await process(source(), { headers })).json).toEqual(json)
    expect(blob.files.size).toBe(1)
  })

  test('is the last event of a stream as well', async () => {
    const { bytes } = await process(source(), { headers: { accept: 'text/event-stream' } })
    const done = JSON.parse(/event: done\ndata: (.*)\n/.exec(bytes.toString())?.[1] ?? '{}')
    expect(done.resultUrl).toContain('/replies/')
  })

  test.each([
    { why: 'the store fails', headers: {}, fails: true },
    { why: 'the client wants the picture itself', headers: { prefer: 'return=representation' }, fails: false },
  ])('is encoded smaller when $why, and says so', async ({ headers, fails }) => {
    if (fails) blob.answer = (call, response) => call.startsWith('PUT') && Boolean(response.writeHead(500).end())
    const key = { 'idempotency-key': crypto.randomUUID() }
    const { status, json, bytes } = await process(source(), { headers: { ...headers, ...key } })
    expect(status).toBe(200)
    expect(bytes.length).toBeLessThan(BYTES_MAX)
    expect(json.reencoded).toBe(true)
    const { format, width, height } = await sharp(Buffer.from(json.result, 'base64')).metadata()
    expect({ mimeType: `image/${format}`, width, height }).toEqual({
      mimeType: json.mimeType,
      width: json.width,
      height: json.height,
    })
    expect(width).toBe(height)
    const again = await process(source(), { headers: { ...headers, ...key } })
    expect(again.json).toEqual(json)
    expect(again.headers.get('idempotent-replayed')).toBe('true')
  })

  test('is encoded smaller for who accepts the bytes alone, with its true type and size', async () => {
    const { status, bytes, headers } = await process(source(), { headers: { accept: 'image/png' } })
    expect(status).toBe(200)
    expect(bytes.length).toBeLessThan(BYTES_MAX)
    expect(headers.get('x-reencoded')).toBe('true')
    const { format, width } = await sharp(bytes).metadata()
    expect(headers.get('content-type')).toBe(`image/${format}`)
    expect(headers.get('x-image-width')).toBe(String(width))
    expect(blob.files.size).toBe(0)
  })

  test('is JSON within a stream whatever else is accepted', async () => {
    const { bytes } = await process(source(), { headers: { accept: 'image/png, text/event-stream' } })
    const done = JSON.parse(/event: done\ndata: (.*)\n/.exec(bytes.toString())?.[1] ?? '{}')
    expect(done).toMatchObject({ mimeType: 'image/png', resultUrl: expect.stringContaining('/replies/') })
  })

  test.each([
    { form: 'bytes', headers: { accept: 'image/png' } },
    { form: 'JSON', headers: { prefer: 'return=representation' } },
    { form: 'JSON, as the store fails', headers: {}, fails: true },
  ])('and not to be decoded is the failure of who made it, as $form, and costs nothing', async ({ headers, fails }) => {
    expectErrorsInLog()
    if (fails) blob.answer = (call, response) => call.startsWith('PUT') && Boolean(response.writeHead(500).end())
    answerWith(undecodable(large))
    const requestId = crypto.randomUUID()
    const { status, json } = await process(source(), { headers: { ...headers, 'x-request-id': requestId } })
    expect({ status, error: json?.error }).toMatchObject({
      status: 502,
      error: { code: 'PROVIDER_ERROR', details: { provider: 'gemini', attempts: [{ kind: 'no_image' }] } },
    })
    expect(await balanceOf(app, user)).toMatchObject({ tokens: 10_000, reservedTokens: 0 })
    const [call] = await callsOf(requestId)
    expect(call).toMatchObject({ provider: 'gemini', outcome: 'no_image' })
    expect(call?.cost_micro_usd).toBeGreaterThan(0)
    const [row] = (await usageRows(user.id)).filter(({ request_id }) => request_id === requestId)
    expect(row).toMatchObject({ response_status: 'error', error_code: 'PROVIDER_ERROR', tokens_used: 0 })
    expect(row?.cost_micro_usd).toBe(call?.cost_micro_usd)
    expect(await ledgerViolations()).toEqual([])
  })

  test('and not to be decoded is the failure of who made it in a job as well', async () => {
    blob.answer = (call, response) => call.startsWith('PUT') && Boolean(response.writeHead(500).end())
    answerWith(undecodable(large))
    const { json } = await process(source(), { headers: { prefer: 'respond-async' } })
    const job = async () => (await call(app, `GET /api/jobs/${json.jobId}`, { token: user.token })).json
    await expect.poll(async () => (await job()).status, { timeout: 45_000 }).toBe('failed')
    expect((await job()).error).toMatchObject({ code: 'PROVIDER_ERROR', details: { attempts: [{ kind: 'no_image' }] } })
    expect(await balanceOf(app, user)).toMatchObject({ tokens: 10_000, reservedTokens: 0 })
    expect(await ledgerViolations()).toEqual([])
  })

  test('is charged once, as any other', async () => {
    await process(source())
    await process(source(), { headers: { accept: 'image/*' } })
    expect((await balanceOf(app, user)).tokens).toBe(10_000 - 200)
    expect(await ledgerViolations()).toEqual([])
  })
})

describe('the sweep', () => {
  test('deletes uploads after an hour and links after a day, page by page, and nothing else', async () => {
    const old = (hours: number) => new Date(Date.now() - hours * 3_600_000)
    const file = (uploadedAt: Date) => ({ bytes: Buffer.from('x'), contentType: 'image/png', uploadedAt })
    for (let count = 0; count < 5; count += 1) blob.files.set(`uploads/u/old${count}.png`, file(old(1.1)))
    blob.files.set('uploads/u/young.png', file(old(0.9)))
    blob.files.set('replies/old.png', file(old(24.1)))
    blob.files.set('replies/young.png', file(old(23.9)))
    blob.files.set('jobs/old.png', file(old(100)))
    const { json } = await call(app, 'POST /api/jobs/sweep', { token: 'scheduler-of-the-tests' })
    expect(json.blobsDeleted).toBe(6)
    expect([...blob.files.keys()].sort()).toEqual(['jobs/old.png', 'replies/young.png', 'uploads/u/young.png'])
  })

  test('finds the old behind any number of the young', async () => {
    const file = (hours: number) => ({
      bytes: Buffer.from('x'),
      contentType: 'image/png',
      uploadedAt: new Date(Date.now() - hours * 3_600_000),
    })
    for (let count = 10; count < 60; count += 1) blob.files.set(`replies/a${count}.png`, file(1))
    blob.files.set('replies/z.png', file(25))
    const { json } = await call(app, 'POST /api/jobs/sweep', { token: 'scheduler-of-the-tests' })
    expect({ deleted: json.blobsDeleted, left: blob.files.size }).toEqual({ deleted: 1, left: 50 })
  })

  test('goes on when the store is down', async () => {
    blob.answer = (_call, response) => Boolean(response.writeHead(503).end())
    const { status, json } = await call(app, 'POST /api/jobs/sweep', { token: 'scheduler-of-the-tests' })
    expect({ status, blobsDeleted: json.blobsDeleted }).toEqual({ status: 200, blobsDeleted: 0 })
  })
})
