// The main job over HTTP: three request forms, three reply forms, and what each generation costs.
import sharp from 'sharp'
import { beforeAll, describe, expect, test } from 'vitest'
import { type App, balanceOf, call, givenUser, photo, processImage, startApp } from '../support/app.ts'
import { leaveTokens, ledgerViolations, usageRows } from '../support/money.ts'

const ORIGIN = 'https://app.example.com'

let app: App

beforeAll(async () => {
  app = await startApp({ FORK__CORS__ORIGINS: JSON.stringify([ORIGIN]) })
})

describe('POST /api/process-image', () => {
  test('turns a photo sent as JSON into a colouring page and says what it took', async () => {
    const user = await givenUser(app)
    const body = {
      imageData: photo().toString('base64'),
      provider: 'sketch',
      options: { quality: 'standard', format: 'png' },
    }
    const { status, json } = await call(app, 'POST /api/process-image', { token: user.token, body })
    expect(status).toBe(200)
    const { result, requestId, processingTime, ...facts } = json
    const image = await sharp(Buffer.from(result, 'base64')).metadata()
    expect(image.format).toBe('png')
    expect(facts).toEqual({
      mimeType: 'image/png',
      width: image.width,
      height: image.height,
      provider: 'sketch',
      model: 'sketch-1',
      cost: 0,
      usage: { tokens: 0, images: 1, trial: true },
      balance: { trialGenerations: 2, tokens: 1000 },
      cached: false,
      fallback: { used: false, failed: [] },
    })
    expect(processingTime).toBeGreaterThan(0)
    expect(requestId).toMatch(/^[\w-]{8,}$/)
  })

  test('takes a data: URL, also one whose slashes are escaped', async () => {
    const user = await givenUser(app)
    const url = `data:image/jpeg;base64,${photo().toString('base64')}`
    for (const body of [
      JSON.stringify({ imageData: url }),
      JSON.stringify({ imageData: url }).replaceAll('/', '\\/'),
    ]) {
      const { status } = await call(app, 'POST /api/process-image', {
        token: user.token,
        body,
        headers: { 'content-type': 'application/json' },
      })
      expect(status).toBe(200)
    }
  })

  test('takes multipart with a file part and fields', async () => {
    const user = await givenUser(app)
    const form = new FormData()
    form.set('image', new File([new Uint8Array(photo())], 'holiday.jpg', { type: 'image/jpeg' }))
    form.set('provider', 'sketch')
    form.set('options', JSON.stringify({ format: 'webp' }))
    const { status, json } = await call(app, 'POST /api/process-image', { token: user.token, body: form })
    expect(status).toBe(200)
    expect((await sharp(Buffer.from(json.result, 'base64')).metadata()).format).toBe('webp')
  })

  test('gives the bytes themselves to who accepts images, with the facts in headers', async () => {
    const user = await givenUser(app)
    const { status, headers, bytes } = await processImage(app, user, {
      query: '?format=jpeg',
      headers: { accept: 'image/*' },
    })
    expect(status).toBe(200)
    expect(headers.get('content-type')).toBe('image/jpeg')
    expect((await sharp(bytes).metadata()).format).toBe('jpeg')
    expect(headers.get('x-provider')).toBe('sketch')
    expect(headers.get('x-tokens-charged')).toBe('0')
    expect(headers.get('x-balance-tokens')).toBe('1000')
    expect(headers.get('x-balance-trial-generations')).toBe('2')
  })

  test('lets a page of another origin read every header that the bytes come with', async () => {
    const user = await givenUser(app)
    const { headers } = await processImage(app, user, { headers: { accept: 'image/*', origin: ORIGIN } })
    const exposed = headers.get('access-control-expose-headers')?.split(', ')
    const facts = [...headers.keys()].filter((name) => name.startsWith('x-') && name !== 'x-content-type-options')
    expect(facts).toContain('x-fallback-used')
    expect(exposed).toEqual(expect.arrayContaining(facts))
  })

  test('reports progress as server-sent events and ends with the JSON reply', async () => {
    const user = await givenUser(app)
    const { status, headers, bytes } = await processImage(app, user, { headers: { accept: 'text/event-stream' } })
    expect(status).toBe(200)
    expect(headers.get('content-type')).toContain('text/event-stream')
    const events = eventsOf(bytes)
    expect(events.map(({ event }) => event)).toEqual(['queued', 'provider', 'done'])
    expect(events[1]?.data).toEqual({ provider: 'sketch' })
    expect(events[2]?.data).toMatchObject({ mimeType: 'image/png', usage: { trial: true } })
    expect((await sharp(Buffer.from(events[2]?.data.result, 'base64')).metadata()).format).toBe('png')
  })

  test('spends three trial generations, then tokens, then answers 402 with what is missing', async () => {
    const user = await givenUser(app)
    for (const trialGenerations of [2, 1, 0]) {
      const { json } = await processImage(app, user)
      expect(json.usage).toEqual({ tokens: 0, images: 1, trial: true })
      expect(json.balance).toEqual({ trialGenerations, tokens: 1000 })
    }
    const fourth = await processImage(app, user)
    expect(fourth.json.usage).toEqual({ tokens: 100, images: 1, trial: false })
    expect(fourth.json.balance).toEqual({ trialGenerations: 0, tokens: 900 })
    const high = await processImage(app, user, { query: '?quality=high' })
    expect(high.json.usage.tokens).toBe(200)
    expect(high.json.balance.tokens).toBe(700)

    await leaveTokens(user.id, 99)
    const refused = await processImage(app, user)
    expect(refused.status).toBe(402)
    expect(refused.json.error).toMatchObject({
      code: 'INSUFFICIENT_TOKENS',
      details: { required: 100, balance: 99, missing: 1, checkoutPath: '/api/billing/checkout' },
    })
    expect(await balanceOf(app, user)).toMatchObject({ tokens: 99, reservedTokens: 0 })
    expect(await ledgerViolations()).toEqual([])
  })

  test('keeps the subscription in step with what was spent', async () => {
    const user = await givenUser(app)
    for (let round = 0; round < 4; round += 1) await processImage(app, user)
    const { json } = await call(app, 'GET /api/billing/status', { token: user.token })
    expect(json).toMatchObject({ plan: 'free', status: 'active', tokenLimit: 1000, tokensUsed: 100 })
  })

  test('leaves one usage row per generation', async () => {
    const user = await givenUser(app)
    const requestId = crypto.randomUUID()
    const { headers } = await processImage(app, user, { headers: { 'x-request-id': requestId } })
    expect(headers.get('x-request-id')).toBe(requestId)
    const rows = await usageRows(user.id)
    expect(rows).toHaveLength(1)
    expect(rows[0]).toMatchObject({
      request_id: requestId,
      response_status: 'success',
      tokens_used: 0,
      trial: true,
      provider: 'sketch',
    })
  })

  test('applies the orientation of a phone picture and keeps no metadata', async () => {
    const user = await givenUser(app)
    const source = await sharp(photo('portrait-with-gps')).metadata()
    expect(source.exif, 'the fixture has EXIF').toBeDefined()
    expect(source.width).toBeGreaterThan(source.height)
    const { bytes } = await processImage(app, user, {
      image: photo('portrait-with-gps'),
      headers: { accept: 'image/png' },
    })
    const result = await sharp(bytes).metadata()
    expect(result.height).toBeGreaterThan(result.width)
    expect(result.exif).toBeUndefined()
    expect(bytes.includes('GPS')).toBe(false)
  })
})

function eventsOf(bytes: Buffer) {
  return bytes
    .toString()
    .split('\n\n')
    .filter((block) => block.startsWith('event: '))
    .map((block) => {
      const [, event = '', data = ''] = /^event: (.*)\ndata: (.*)$/s.exec(block) ?? []
      return { event, data: JSON.parse(data) }
    })
}
