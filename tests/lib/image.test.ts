// Images at the borders: what is refused, what is cleaned, what a provider's result has to be.
import sharp from 'sharp'
import { describe, expect, test } from 'vitest'
import { ProviderError, type SourceImage } from '../../lib/ai/provider.ts'
import { AppError, type ErrorCode } from '../../lib/http/errors.ts'
import { checkResult, convertImage, type ImageFormat, readImage } from '../../lib/image.ts'
import { noisePng } from '../support/gemini-replies.ts'
import {
  HEIGHT,
  makePictures,
  type Pictures,
  picture,
  pixelsOf,
  pngOfSize,
  rebranded,
  SECRET,
  turned,
  WIDTH,
} from '../support/pictures.ts'

const limits = { bytesMax: 4_000_000, pixelsMax: 24_000_000, sideMin: 16, heicAccepted: false }
const pictures = await makePictures()

async function refusal(bytes: Buffer, changes: Partial<typeof limits> = {}): Promise<AppError> {
  const error = await readImage(bytes, { ...limits, ...changes }).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!(error instanceof AppError)) throw new Error('The image was not refused with an AppError.', { cause: error })
  return error
}

describe('what is refused', () => {
  const refusals: { why: string; bytes: () => Buffer; code: ErrorCode; says: RegExp }[] = [
    { why: 'nothing at all', bytes: () => Buffer.alloc(0), code: 'VALIDATION_FAILED', says: /empty/ },
    {
      why: 'a file over the limit',
      bytes: () => Buffer.alloc(4_100_000),
      code: 'PAYLOAD_TOO_LARGE',
      says: /4\.1 MB.*4\.0 MB.*smaller/,
    },
    {
      why: 'text',
      bytes: () => Buffer.from('hello'),
      code: 'UNSUPPORTED_MEDIA_TYPE',
      says: /not an image.*jpeg, png, webp/,
    },
    {
      why: 'an SVG',
      bytes: () => Buffer.from('\ufeff<?xml version="1.0"?>\n<svg xmlns="x"/>'),
      code: 'UNSUPPORTED_MEDIA_TYPE',
      says: /SVG/,
    },
    { why: 'a TIFF', bytes: () => Buffer.from('II*\0aaaaaaaa'), code: 'UNSUPPORTED_MEDIA_TYPE', says: /TIFF/ },
    { why: 'a PDF', bytes: () => Buffer.from('%PDF-1.7'), code: 'UNSUPPORTED_MEDIA_TYPE', says: /PDF/ },
    { why: 'a BMP', bytes: () => Buffer.from('BM6\0\0\0'), code: 'UNSUPPORTED_MEDIA_TYPE', says: /BMP/ },
    { why: 'a HEIC', bytes: () => pictures.heic, code: 'UNSUPPORTED_MEDIA_TYPE', says: /HEIC.*Most Compatible.*JPEG/ },
    {
      why: 'too many pixels',
      bytes: () => pngOfSize(16_000, 16_000),
      code: 'IMAGE_TOO_LARGE',
      says: /16000 × 16000.*24\.0 megapixels/,
    },
    {
      why: 'a side too short',
      bytes: () => noisePng(15, 400),
      code: 'IMAGE_UNREADABLE',
      says: /15 × 400.*at least 16/,
    },
    { why: 'no side at all', bytes: () => pngOfSize(0, 400), code: 'IMAGE_UNREADABLE', says: /0 × 400/ },
  ]
  test.each(refusals)('$why: $code', async ({ bytes, code, says }) => {
    const error = await refusal(bytes())
    expect(error.code).toBe(code)
    expect(error.message).toMatch(says)
  })

  test('a quarter of a gigapixel is refused within milliseconds, before anything is decoded', async () => {
    const started = performance.now()
    await refusal(pngOfSize(16_000, 16_000))
    expect(performance.now() - started).toBeLessThan(50)
  })
})

describe('what is cleaned', () => {
  const lossless: { name: keyof Pictures; format: ImageFormat }[] = [
    { name: 'progressive', format: 'jpeg' },
    { name: 'taggedJpeg', format: 'jpeg' },
    { name: 'taggedPng', format: 'png' },
    { name: 'taggedWebp', format: 'webp' },
  ]
  test.each(lossless)('$name loses every tag and no pixel', async ({ name, format }) => {
    const dirty = pictures[name]
    const image = await readImage(dirty, limits)
    expect(image).toMatchObject({ format, width: WIDTH, height: HEIGHT })
    expect(dirty.includes(SECRET)).toBe(true)
    expect(image.bytes.includes(SECRET)).toBe(false)
    const metadata = await sharp(image.bytes).metadata()
    expect([metadata.exif, metadata.xmp, metadata.iptc, metadata.comments]).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ])
    expect((await pixelsOf(image.bytes)).equals(await pixelsOf(dirty))).toBe(true)
  })

  test('a WebP no longer says that it has metadata', async () => {
    const flags = (webp: Buffer) => webp.readUInt8(webp.indexOf('VP8X') + 8) & 0x0c
    expect(flags(pictures.taggedWebp)).toBe(0x0c)
    expect(flags((await readImage(pictures.taggedWebp, limits)).bytes)).toBe(0)
  })

  test('a JPEG loses stray bytes between its segments', async () => {
    const segmentEnd = 4 + pictures.jpeg.readUInt16BE(4)
    const [start, rest] = [pictures.jpeg.subarray(0, segmentEnd), pictures.jpeg.subarray(segmentEnd)]
    const image = await readImage(Buffer.concat([start, Buffer.from(SECRET), rest]), limits)
    expect(image.bytes.equals(pictures.jpeg)).toBe(true)
  })

  test('a colour profile stays', async () => {
    const { bytes } = await readImage(pictures.taggedJpeg, limits)
    const [kept, given] = await Promise.all([sharp(bytes).metadata(), sharp(pictures.taggedJpeg).metadata()])
    expect(kept.icc).toEqual(given.icc)
    expect(kept.icc?.length).toBeGreaterThan(100)
  })

  test.each(['jpeg', 'png', 'webp'] as const)('a clean %s is passed on without a copy', async (name) => {
    expect((await readImage(pictures[name], limits)).bytes).toBe(pictures[name])
  })

  test.each([2, 3, 4, 5, 6, 7, 8])('a JPEG of orientation %i is turned upright', async (orientation) => {
    const lying = await turned(orientation).jpeg({ quality: 95 }).toBuffer()
    const image = await readImage(lying, limits)
    const upright = await sharp(lying).autoOrient().raw().toBuffer({ resolveWithObject: true })
    expect(image).toMatchObject({ format: 'jpeg', width: upright.info.width, height: upright.info.height })
    expect((await sharp(image.bytes).metadata()).orientation).toBeUndefined()
    expect(difference(await pixelsOf(image.bytes), upright.data)).toBeLessThan(3)
  })

  const orientations: { why: string; tiff: string; isTurned: boolean }[] = [
    { why: 'big-endian', tiff: '4d4d002a000000080001 0112000300000001 00060000', isTurned: true },
    { why: 'little-endian', tiff: '49492a00080000000100 1201030001000000 06000000', isTurned: true },
    { why: 'a long number', tiff: '4d4d002a000000080001 0112000400000001 00000006', isTurned: true },
    {
      why: 'behind another entry',
      tiff: '4d4d002a000000080002 010000030000000100600000 0112000300000001 00060000',
      isTurned: true,
    },
    { why: 'no orientation', tiff: '4d4d002a000000080001 0100000300000001 00060000', isTurned: false },
    { why: 'an impossible value', tiff: '4d4d002a000000080001 0112000300000001 00090000', isTurned: false },
    { why: 'a directory out of bounds', tiff: '4d4d002a000fffff0001 0112000300000001 00060000', isTurned: false },
    { why: 'cut short', tiff: '4d4d002a000000080001 01120003', isTurned: false },
    { why: 'no header', tiff: '4d4d', isTurned: false },
  ]
  test.each(orientations)('an EXIF block with $why: turned is $isTurned', async ({ tiff, isTurned }) => {
    const body = Buffer.concat([Buffer.from('Exif\0\0'), Buffer.from(tiff.replaceAll(' ', ''), 'hex')])
    const header = Buffer.from([0xff, 0xe1, 0, body.length + 2])
    const jpeg = Buffer.concat([pictures.jpeg.subarray(0, 2), header, body, pictures.jpeg.subarray(2)])
    const image = await readImage(jpeg, limits)
    expect(image).toMatchObject(isTurned ? { width: HEIGHT, height: WIDTH } : { width: WIDTH, height: HEIGHT })
    expect(image.bytes.equals(pictures.jpeg)).toBe(!isTurned)
  })

  const decoded: { name: keyof Pictures; format: ImageFormat; width?: number; height?: number }[] = [
    { name: 'turnedJpeg', format: 'jpeg', width: HEIGHT, height: WIDTH },
    { name: 'turnedPng', format: 'png', width: HEIGHT, height: WIDTH },
    { name: 'turnedWebp', format: 'jpeg' },
    { name: 'animatedWebp', format: 'jpeg' },
    { name: 'animatedGif', format: 'png' },
    { name: 'avif', format: 'jpeg' },
    { name: 'cmyk', format: 'jpeg' },
  ]
  test.each(decoded)('$name becomes one upright $format', async ({ name, format, width = WIDTH, height = HEIGHT }) => {
    const image = await readImage(pictures[name], limits)
    expect(image).toMatchObject({ format, width, height })
    expect(image.bytes.includes(SECRET)).toBe(false)
    expect(await sharp(image.bytes).metadata()).toMatchObject({ format, width, height, space: 'srgb' })
  })

  test('transparency survives decoding', async () => {
    const avif = await picture().ensureAlpha(0.5).avif().toBuffer()
    const image = await readImage(avif, limits)
    expect(image.format).toBe('png')
    expect((await sharp(image.bytes).metadata()).hasAlpha).toBe(true)
  })

  test('an animation shows its first frame', async () => {
    const { bytes } = await readImage(pictures.animatedGif, limits)
    expect((await pixelsOf(bytes)).readUInt8(0)).toBe(220)
  })

  test('a HEIC is passed on with its tags blanked in place', async () => {
    const { bytes, ...image } = await readImage(pictures.heic, { ...limits, heicAccepted: true })
    expect(image).toEqual({ format: 'heic', width: WIDTH, height: HEIGHT })
    expect(pictures.heic.includes(SECRET)).toBe(true)
    expect(bytes.includes(SECRET)).toBe(false)
    expect(bytes).toHaveLength(pictures.heic.length)
    // An EXIF block without entries, for readers that stumble over a broken one.
    expect(bytes.includes('MM\0*\0\0\0\x08\0\0')).toBe(true)
    const asAvif = rebranded(bytes, 'heic', 'avif')
    expect((await pixelsOf(asAvif)).equals(await pixelsOf(pictures.avif))).toBe(true)
  })

  test('a HEIC is as wide as it is shown when it lies on its side', async () => {
    const heic = rebranded(pictures.heic, 'pixi', 'irot')
    heic.writeUInt8(1, heic.indexOf('irot') + 4)
    expect(await readImage(heic, { ...limits, heicAccepted: true })).toMatchObject({ width: HEIGHT, height: WIDTH })
  })
})

const difference = (one: Buffer, other: Buffer) =>
  one.length === other.length
    ? one.reduce((sum, byte, at) => sum + Math.abs(byte - (other[at] ?? 0)), 0) / one.length
    : 255

describe('a result', () => {
  const results: { name: keyof Pictures; format: ImageFormat }[] = [
    { name: 'png', format: 'png' },
    { name: 'taggedJpeg', format: 'jpeg' },
    { name: 'taggedWebp', format: 'webp' },
    { name: 'gif', format: 'gif' },
    { name: 'avif', format: 'avif' },
  ]
  test.each(results)('is recognised by its bytes: $name', async ({ name, format }) => {
    expect(await checkResult(pictures[name])).toEqual({ format, width: WIDTH, height: HEIGHT })
  })

  const failures: { why: string; bytes: () => Buffer }[] = [
    { why: 'nothing', bytes: () => Buffer.alloc(0) },
    { why: 'text', bytes: () => Buffer.from('I cannot draw that.') },
    { why: 'an SVG', bytes: () => Buffer.from('<svg/>') },
    { why: 'half an image', bytes: () => pictures.png.subarray(0, pictures.png.length >> 1) },
    { why: 'a HEIC', bytes: () => pictures.heic },
    { why: 'a gigapixel', bytes: () => pngOfSize(8_000, 8_000) },
    { why: 'an image without height', bytes: () => pngOfSize(100, 0) },
  ]
  test.each(failures)('that is $why is no image', async ({ bytes }) => {
    const error = await checkResult(bytes()).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(ProviderError)
    expect(error).toMatchObject({ kind: 'no_image' })
  })
})

describe('converting', () => {
  const image = async (name: keyof Pictures): Promise<SourceImage> => ({
    bytes: pictures[name],
    ...(await checkResult(pictures[name])),
  })

  test.each(['png', 'jpeg', 'webp'] as const)('gives %s, of the same size', async (format) => {
    for (const name of ['png', 'jpeg', 'webp', 'gif', 'avif'] as const) {
      const { bytes, ...size } = await convertImage(await image(name), format)
      expect(size).toEqual({ width: WIDTH, height: HEIGHT })
      expect(await checkResult(bytes)).toEqual({ format, ...size })
    }
  })

  test('leaves an image of that format alone', async () => {
    const given = await image('png')
    expect((await convertImage(given, 'png')).bytes).toBe(given.bytes)
  })

  test('puts transparency on white for JPEG', async () => {
    const clear = await sharp({ create: { width: 20, height: 20, channels: 4, background: '#0000' } })
      .png()
      .toBuffer()
    const { bytes } = await convertImage({ bytes: clear, ...(await checkResult(clear)) }, 'jpeg')
    expect((await pixelsOf(bytes)).every((byte) => byte === 255)).toBe(true)
  })

  test('fails with IMAGE_UNREADABLE on pixels that cannot be decoded', async () => {
    const given = { ...(await image('png')), bytes: pictures.png.subarray(0, 200) }
    await expect(convertImage(given, 'jpeg')).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE' })
  })

  test.each(['<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', 'II*\0'])(
    'never decodes %s',
    async (text) => {
      const given: SourceImage = { bytes: Buffer.from(text), format: 'gif', width: 9, height: 9 }
      await expect(convertImage(given, 'png')).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE' })
    },
  )
})
