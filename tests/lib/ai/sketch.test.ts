// The provider that draws on this machine: what its pages look like, what it reads, and how it behaves under load.
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { crc32 } from 'node:zlib'
import sharp, { type Sharp } from 'sharp'
import { beforeAll, describe, expect, test } from 'vitest'
import { DrawingPool } from '../../../lib/ai/line-art/pool.ts'
import type { Quality } from '../../../lib/ai/provider.ts'
import { sketch } from '../../../lib/ai/sketch.ts'

const photo = (name: string) => readFile(new URL(`../../fixtures/photos/${name}.jpg`, import.meta.url))
const never = new AbortController().signal

let coffee: Buffer
beforeAll(async () => {
  coffee = await photo('coffee')
})

interface Wish {
  detail?: string
  quality?: Quality
  signal?: AbortSignal
}

async function draw(bytes: Buffer, { detail, quality = 'standard', signal = never }: Wish = {}) {
  const image = { bytes, format: 'jpeg' as const, width: 600, height: 400 }
  const options: Record<string, string> = detail === undefined ? {} : { detail }
  const request = { task: 'image->image' as const, image, prompt: 'A colouring page.', options, quality }
  const { output, ...reply } = await sketch.run(request, { signal })
  if (!('bytes' in output)) throw new Error('There is no picture.')
  return { ...reply, ...output }
}

/** Shares of dark and of neither black nor white pixels, and how many lines a row crosses on average. */
async function measure(png: Buffer) {
  const { data, info } = await sharp(png).toColourspace('b-w').raw().toBuffer({ resolveWithObject: true })
  expect(info.channels).toBe(1)
  let dark = 0
  let grey = 0
  let crossings = 0
  for (const [at, value] of data.entries()) {
    if (value < 128) dark++
    if (value > 8 && value < 247) grey++
    if (value < 128 && at % info.width > 0 && (data[at - 1] ?? 0) >= 128) crossings++
  }
  return { darkShare: dark / data.length, greyShare: grey / data.length, linesAcross: crossings / info.height }
}

describe('a page', () => {
  test.each(['astronaut', 'cat', 'coffee', 'portrait-with-gps'])('of %s has black lines on white', async (name) => {
    const { bytes, model, costMicroUsd } = await draw(await photo(name))
    expect({ model, costMicroUsd }).toEqual({ model: 'sketch-1', costMicroUsd: 0 })
    expect(await sharp(bytes).metadata()).toMatchObject({ format: 'png', space: 'b-w', channels: 1, depth: 'uchar' })
    const { darkShare, greyShare } = await measure(bytes)
    expect(darkShare).toBeGreaterThan(0.04)
    expect(darkShare).toBeLessThan(0.2)
    expect(greyShare).toBeLessThan(0.06)
  })

  test('is the same every time', async () => {
    const [once, again] = await Promise.all([draw(coffee), draw(coffee)])
    expect(again.bytes.equals(once.bytes)).toBe(true)
  })

  test.each(['cat', 'coffee', 'astronaut'])('of %s has more lines the more detail is asked for', async (name) => {
    const bytes = await photo(name)
    const wishes: Wish[] = [{ detail: 'simple' }, { detail: 'detailed' }, { detail: 'detailed', quality: 'high' }]
    const pages = await Promise.all(wishes.map((wish) => draw(bytes, wish)))
    const [simple = 0, standard = 0, detailed = 0] = await Promise.all(
      pages.map(async (page) => (await measure(page.bytes)).linesAcross),
    )
    expect(standard).toBeGreaterThan(simple * 1.15)
    expect(detailed).toBeGreaterThan(standard * 1.15)
  })

  test.each<Wish & { width: number }>([
    { detail: 'simple', quality: 'standard', width: 1536 },
    { detail: 'simple', quality: 'high', width: 1792 },
    { detail: 'standard', quality: 'standard', width: 1792 },
    { quality: 'high', width: 2304 },
    { detail: 'detailed', quality: 'standard', width: 1792 },
    { detail: 'detailed', quality: 'high', width: 2304 },
  ])('with detail $detail at quality $quality is $width pixels wide', async ({ width, ...wish }) => {
    expect((await sharp((await draw(coffee, wish)).bytes).metadata()).width).toBe(width)
  })

  test('stands upright and says nothing of the camera and the place', async () => {
    const bytes = await photo('portrait-with-gps')
    const before = await sharp(bytes).metadata()
    expect(before).toMatchObject({ width: 600, height: 450, orientation: 6 })
    expect(before.exif?.includes('Phone 1')).toBe(true)

    const page = await draw(bytes)
    const after = await sharp(page.bytes).metadata()
    expect(after).toMatchObject({ width: 1344, height: 1792 })
    for (const name of ['exif', 'icc', 'xmp', 'iptc', 'orientation', 'comments'] as const) {
      expect(after[name], name).toBeUndefined()
    }
    // Upright for the eye as well: like the page of a copy that was turned beforehand, unlike that page on its head.
    const turned = await draw(await sharp(bytes).autoOrient().png().toBuffer())
    const [own, expected, onItsHead] = await Promise.all([
      thumbnail(sharp(page.bytes)),
      thumbnail(sharp(turned.bytes)),
      thumbnail(sharp(turned.bytes).rotate(180)),
    ])
    expect(difference(own, expected)).toBeLessThan(difference(own, onItsHead) / 3)
  })

  const thumbnail = (image: Sharp) => image.resize(24, 32, { fit: 'fill' }).toColourspace('b-w').raw().toBuffer()
  const difference = (one: Buffer, other: Buffer) =>
    one.reduce((sum, value, at) => sum + Math.abs(value - (other[at] ?? 0)), 0)
})

describe('what is read', () => {
  const from = (change: (image: Sharp) => Sharp) => () => change(sharp(coffee)).toBuffer()

  test.each<{ what: string; make: () => Promise<Buffer> }>([
    { what: 'WebP', make: from((image) => image.webp()) },
    { what: 'GIF', make: from((image) => image.gif()) },
    { what: 'AVIF', make: from((image) => image.resize(300).avif({ effort: 0 })) },
    { what: 'greyscale JPEG', make: from((image) => image.greyscale().toColourspace('b-w').jpeg()) },
    { what: 'CMYK JPEG', make: from((image) => image.toColourspace('cmyk').jpeg()) },
    { what: '16-bit PNG', make: from((image) => image.toColourspace('rgb16').png()) },
    { what: '16-bit greyscale PNG', make: from((image) => image.greyscale().toColourspace('grey16').png()) },
    { what: 'PNG with a palette', make: from((image) => image.png({ palette: true })) },
    { what: 'PNG with alpha', make: from((image) => image.ensureAlpha(0.5).png()) },
    { what: 'PNG of 16 × 16 pixels', make: from((image) => image.resize(16, 16).png()) },
  ])('$what becomes a page with lines', async ({ make }) => {
    const { darkShare } = await measure((await draw(await make(), { detail: 'simple' })).bytes)
    expect(darkShare).toBeGreaterThan(0.02)
    expect(darkShare).toBeLessThan(0.3)
  })

  test.each([
    { width: 4000, height: 40, page: '12800 × 128' },
    { width: 40, height: 4000, page: '128 × 12800' },
    { width: 4000, height: 16, page: '16382 × 66' },
    { width: 17, height: 300, page: '128 × 2258' },
  ])('a banner of $width × $height pixels becomes $page', async ({ width, height, page }) => {
    const banner = await sharp(coffee).resize(width, height, { fit: 'fill' }).png().toBuffer()
    const drawn = await sharp((await draw(banner, { detail: 'simple' })).bytes).metadata()
    expect(`${drawn.width} × ${drawn.height}`).toBe(page)
  })

  test('transparency counts as white, whatever colour hides behind it', async () => {
    const hidden = Buffer.alloc(200 * 200 * 4)
    for (let at = 0; at < hidden.length; at += 4) hidden[at] = at % 800 < 400 ? 255 : 0
    const { bytes } = await draw(
      await sharp(hidden, { raw: { width: 200, height: 200, channels: 4 } })
        .png()
        .toBuffer(),
    )
    expect((await measure(bytes)).darkShare).toBe(0)
  })

  test.each<{ what: string; make: () => Buffer | Promise<Buffer> }>([
    { what: 'a truncated JPEG', make: () => coffee.subarray(0, coffee.length / 2) },
    { what: 'no bytes', make: () => Buffer.alloc(0) },
    { what: 'text', make: () => Buffer.from('not a picture, not even nearly') },
    {
      what: 'SVG',
      make: () =>
        Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"><path d="M0 0h9v9"/></svg>'),
    },
    { what: 'less than 16 pixels', make: from((image) => image.resize(15, 400, { fit: 'fill' }).png()) },
    { what: 'a picture that is too narrow', make: from((image) => image.resize(16, 30_000, { fit: 'fill' }).png()) },
  ])('$what is refused as a bad request', async ({ make }) => {
    await expect(draw(await make())).rejects.toMatchObject({ name: 'ProviderError', kind: 'bad_request' })
  })

  test('more than 50 million pixels are refused by the header alone', async () => {
    const png = await sharp(coffee).resize(20, 20).png().toBuffer()
    png.writeUInt32BE(10_000, 16)
    png.writeUInt32BE(5_001, 20)
    png.writeUInt32BE(crc32(png.subarray(12, 29)), 29)
    await expect(draw(png)).rejects.toMatchObject({
      kind: 'bad_request',
      cause: { message: expect.stringContaining('pixel limit') },
    })
  })

  test("the caller's bytes are left as they were", async () => {
    const bytes = Buffer.from(coffee)
    await draw(bytes)
    expect(bytes.equals(coffee)).toBe(true)
  })
})

describe('under load', () => {
  test('six pictures at once are all drawn', async () => {
    const pages = await Promise.all(Array.from({ length: 6 }, () => draw(coffee)))
    expect(new Set(pages.map(({ bytes }) => bytes.toString('base64'))).size).toBe(1)
  })

  test('the thread of the event loop does hardly any of the work', async () => {
    await draw(coffee, { detail: 'detailed' })
    const threadBefore = process.threadCpuUsage()
    const processBefore = process.cpuUsage()
    await draw(coffee, { detail: 'detailed' })
    const thread = process.threadCpuUsage(threadBefore)
    const all = process.cpuUsage(processBefore)
    expect((thread.user + thread.system) / (all.user + all.system)).toBeLessThan(0.25)
  })

  test('an abort in the middle is a timeout, and the next picture is drawn', async () => {
    const controller = new AbortController()
    const running = [draw(coffee, { signal: controller.signal }), draw(coffee, { signal: controller.signal })]
    const untouched = draw(coffee)
    setImmediate(() => controller.abort())
    const outcomes = await Promise.allSettled(running)
    expect(outcomes).toMatchObject([{ reason: { kind: 'timeout' } }, { reason: { kind: 'timeout' } }])
    expect((await untouched).bytes.equals((await draw(coffee)).bytes)).toBe(true)
    await expect(draw(coffee, { signal: controller.signal })).rejects.toMatchObject({ kind: 'timeout' })
  })

  test('a process that has drawn is free to end', async () => {
    const script = `
      import { readFileSync } from 'node:fs'
      import { sketch } from ${JSON.stringify(new URL('../../../lib/ai/sketch.ts', import.meta.url))}
      const image = { bytes: readFileSync(process.argv[1]), format: 'jpeg', width: 451, height: 300 }
      const request = { image, prompt: '', options: {}, quality: 'standard' }
      const { output: { bytes } } = await sketch.run(request, { signal: new AbortController().signal })
      console.log(bytes.subarray(1, 4).toString())`
    const cat = new URL('../../fixtures/photos/cat.jpg', import.meta.url).pathname
    const run = promisify(execFile)
    const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', script, cat], { timeout: 50_000 })
    expect(stdout).toBe('PNG\n')
  })
})

// Workers that answer a standard drawing with a blank page, die of a simple one, and never finish a detailed one.
describe('a pool of workers', () => {
  const script = new URL(
    `data:text/javascript,${encodeURIComponent(`
      import { parentPort } from 'node:worker_threads'
      parentPort.on('message', ({ photo, styleName }) => {
        if (styleName === 'simple') process.exit(3)
        if (styleName === 'standard') return parentPort.postMessage(new Uint8Array(photo.width * photo.height))
        new BroadcastChannel('sketch.test').postMessage('tracing')
        for (;;);
      })`)}`,
  )
  const tracing = () => {
    const channel = new BroadcastChannel('sketch.test')
    return new Promise<void>((resolve) => {
      channel.onmessage = () => {
        channel.close()
        resolve()
      }
    })
  }

  test('replaces a worker that dies, whose picture fails as a network error', async () => {
    const pool = new DrawingPool({ drawingsMax: 1, script })
    const dead = pool.draw(coffee, 'simple', never)
    const next = pool.draw(coffee, 'standard', never)
    await expect(dead).rejects.toMatchObject({ name: 'ProviderError', kind: 'network' })
    expect(await next).toMatchObject({ width: 1792 })
    expect(await pool.draw(coffee, 'standard', never)).toMatchObject({ width: 1792 })
  })

  test('stops a worker whose picture is aborted, and lets the next in', async () => {
    const pool = new DrawingPool({ drawingsMax: 1, script })
    const controller = new AbortController()
    const started = tracing()
    const endless = pool.draw(coffee, 'detailed', controller.signal)
    const next = pool.draw(coffee, 'standard', never)
    await started
    controller.abort()
    await expect(endless).rejects.toMatchObject({ name: 'ProviderError', kind: 'timeout' })
    expect(await next).toMatchObject({ width: 1792 })
  })

  test('refuses a picture when its queue is full, and forgets one that is aborted in the queue', async () => {
    const pool = new DrawingPool({ drawingsMax: 1, waitingMax: 2, script })
    const running = new AbortController()
    const waiting = new AbortController()
    const drawings = [running, waiting, running].map(({ signal }) => pool.draw(coffee, 'detailed', signal))
    const outcomes = Promise.allSettled(drawings)
    await expect(pool.draw(coffee, 'standard', never)).rejects.toMatchObject({ kind: 'overloaded' })

    waiting.abort()
    const admitted = pool.draw(coffee, 'standard', never)
    running.abort()
    expect(await outcomes).toMatchObject(drawings.map(() => ({ reason: { name: 'ProviderError', kind: 'timeout' } })))
    expect(await admitted).toMatchObject({ width: 1792 })
  })
})
