// Pictures made to fit: sources for providers, results for replies; never larger than asked, never in another shape.
import sharp from 'sharp'
import { describe, expect, test } from 'vitest'
import { fitResult, fitSource } from '../../lib/image.ts'
import { noisePng } from '../support/gemini-replies.ts'

async function noise(width: number, height: number, { isClear = false } = {}): Promise<Buffer> {
  const grey = sharp(Buffer.from(noisePng(width, height))).toColourspace('srgb')
  return await (isClear ? grey.joinChannel(await half(width, height)) : grey).png().toBuffer()
}

/** Clear on its left, opaque on its right. */
async function half(width: number, height: number): Promise<Buffer> {
  const alpha = Buffer.alloc(width * height)
  for (let at = 0; at < alpha.length; at += 1) alpha[at] = at % width < width / 2 ? 0 : 255
  return await sharp(alpha, { raw: { width, height, channels: 1 } })
    .png()
    .toBuffer()
}

describe('a result', () => {
  test.each([
    { what: 'square', width: 900, height: 900 },
    { what: 'very wide', width: 4000, height: 40 },
    { what: 'very tall', width: 30, height: 5000 },
  ])('that is $what fits into what it is given, with its true size and in its shape', async ({ width, height }) => {
    const bytes = await noise(width, height)
    for (const bytesMax of [200_000, 20_000, 2000]) {
      const fitted = await fitResult({ bytes, width, height }, bytesMax)
      expect(fitted.bytes.length).toBeLessThanOrEqual(bytesMax)
      const read = await sharp(fitted.bytes).metadata()
      expect(read).toMatchObject({ format: fitted.format, width: fitted.width, height: fitted.height })
      expect(fitted.width > fitted.height).toBe(width > height)
    }
  })

  test('keeps what is clear in it', async () => {
    const bytes = await noise(600, 600, { isClear: true })
    const fitted = await fitResult({ bytes, width: 600, height: 600 }, 60_000)
    expect(fitted.format).toBe('webp')
    const { data, info } = await sharp(fitted.bytes).raw().toBuffer({ resolveWithObject: true })
    const alphaAt = (x: number) => data[(Math.floor(info.height / 2) * info.width + x) * info.channels + 3]
    expect([alphaAt(2), alphaAt(info.width - 3)]).toEqual([0, 255])
  })

  test('is no smaller than it has to be', async () => {
    const bytes = await noise(1000, 1000)
    const fitted = await fitResult({ bytes, width: 1000, height: 1000 }, 300_000)
    expect(fitted.bytes.length).toBeGreaterThan(150_000)
  })

  test('of more pixels on a side than WebP can have is encoded all the same', async () => {
    const bytes = await sharp({
      create: { width: 17_000, height: 20, channels: 4, background: { r: 9, g: 9, b: 9, alpha: 0.5 } },
    })
      .png()
      .toBuffer()
    const fitted = await fitResult({ bytes, width: 17_000, height: 20 }, 1_000_000)
    expect(fitted).toMatchObject({ format: 'webp', width: 16_000 })
  })
})

describe('a source', () => {
  test('that fits is not touched', async () => {
    const image = { bytes: await noise(3000, 20), format: 'png', width: 3000, height: 20 } as const
    expect(await fitSource(image, 1_000_000)).toBe(image)
  })

  test.each([
    { what: 'opaque', isClear: false, format: 'jpeg' },
    { what: 'partly clear', isClear: true, format: 'png' },
  ])('that is $what is scaled down to fit as $format', async ({ isClear, format }) => {
    const image = { bytes: await noise(1200, 600, { isClear }), format: 'png', width: 1200, height: 600 } as const
    const fitted = await fitSource(image, 200_000)
    expect(fitted.bytes.length).toBeLessThanOrEqual(200_000)
    expect(fitted.format).toBe(format)
    expect(fitted.width / fitted.height).toBeCloseTo(2, 1)
  })
})
