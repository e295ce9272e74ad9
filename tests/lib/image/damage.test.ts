// Broken image files: cut short, damaged at random or built to lie. They are refused, and nothing else happens.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AppError } from '../../../lib/http/errors.ts'
import { readImage, sniffFormat } from '../../../lib/image.ts'
import { makePictures, type Pictures } from '../../support/pictures.ts'

const limits = { bytesMax: 4_000_000, pixelsMax: 24_000_000, sideMin: 16, heicAccepted: true }
const pictures = await makePictures()

/** The cleaned bytes and format, or the code of the refusal; any other failure fails the test. */
async function outcome(bytes: Buffer) {
  try {
    return await readImage(bytes, limits)
  } catch (error) {
    if (error instanceof AppError) return error.code
    throw error
  }
}

describe('a file that is cut short anywhere', () => {
  /** How much of the file is the picture: behind it the laden ones have more, and a GIF's last bytes end no pixel. */
  const truncated: { name: keyof Pictures; share: number }[] = [
    { name: 'jpeg', share: 1 },
    { name: 'progressive', share: 1 },
    { name: 'taggedJpeg', share: 0.4 },
    { name: 'turnedJpeg', share: 0.4 },
    { name: 'png', share: 1 },
    { name: 'taggedPng', share: 0.9 },
    { name: 'webp', share: 1 },
    { name: 'taggedWebp', share: 0.9 },
    { name: 'gif', share: 0.9 },
    { name: 'avif', share: 1 },
    { name: 'heic', share: 1 },
  ]
  test.each(truncated)('is refused: $name', async ({ name, share }) => {
    const whole = pictures[name]
    const cuts = fc.integer({ min: 16, max: Math.floor((whole.length - 1) * share) })
    await fc.assert(
      fc.asyncProperty(cuts, async (end) => {
        expect(await outcome(whole.subarray(0, end))).toBe('IMAGE_UNREADABLE')
      }),
      { numRuns: 60 },
    )
  })
})

describe('a file that lies about itself', () => {
  const damages: { why: string; bytes: () => Buffer }[] = [
    {
      why: 'a PNG with one wrong bit',
      bytes: () => changed(pictures.png, pictures.png.length >> 1, (byte) => byte ^ 1),
    },
    {
      why: 'a PNG without pixels',
      bytes: () => Buffer.concat([pictures.png.subarray(0, 33), pictures.png.subarray(-12)]),
    },
    { why: 'a JPEG whose segment lies about its length', bytes: () => changed(pictures.jpeg, 4, () => 0xff) },
    { why: 'a JPEG of two markers', bytes: () => Buffer.from('ffd8ffd9', 'hex') },
    { why: 'a JPEG with scans but no size', bytes: () => Buffer.from('ffd8ffda000400000000ffd9', 'hex') },
    {
      why: 'a HEIC with offsets of seven bytes',
      bytes: () => changed(pictures.heic, pictures.heic.indexOf('iloc') + 8, () => 0x77),
    },
    {
      why: 'a HEIC whose tags lie elsewhere',
      bytes: () => changed(pictures.heic, pictures.heic.indexOf('iloc') + 8, () => 0x88),
    },
    { why: 'a WebP whose canvas hides a larger picture', bytes: () => changed(pictures.taggedWebp, 24, () => 16) },
  ]
  test.each(damages)('is refused: $why', async ({ bytes }) => {
    expect(await outcome(bytes())).toBe('IMAGE_UNREADABLE')
  })
})

function changed(bytes: Buffer, at: number, change: (byte: number) => number): Buffer {
  const copy = Buffer.from(bytes)
  copy.writeUInt8(change(copy.readUInt8(at)), at)
  return copy
}

describe('a file of random damage', () => {
  /** Cuts, overwrites and repeats, so that lengths, markers and checksums all come out wrong. */
  const mutations = fc.array(
    fc.record({
      kind: fc.constantFrom('flip', 'set', 'cut', 'insert', 'truncate'),
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 12 }),
    }),
    { minLength: 1, maxLength: 5 },
  )

  function mutate(valid: Buffer, { kind, at, bytes }: { kind: string; at: number; bytes: Uint8Array }): Buffer {
    // Half of the damage goes into the first bytes, where the structure is.
    const position = Math.floor(at < 0.5 ? at * 800 : (at - 0.5) * 2 * valid.length)
    const copy = Buffer.from(valid)
    if (kind === 'set')
      copy.set(bytes.subarray(0, Math.max(0, copy.length - position)), Math.min(position, copy.length))
    if (kind === 'flip' && position < copy.length) copy.writeUInt8(copy.readUInt8(position) ^ (bytes[0] ?? 1), position)
    if (kind === 'truncate') return copy.subarray(0, position)
    if (kind === 'cut') return Buffer.concat([copy.subarray(0, position), copy.subarray(position + bytes.length * 8)])
    if (kind === 'insert') return Buffer.concat([copy.subarray(0, position), bytes, copy.subarray(position)])
    return copy
  }

  const names: (keyof Pictures)[] = [
    'progressive',
    'taggedJpeg',
    'turnedJpeg',
    'taggedPng',
    'turnedPng',
    'taggedWebp',
    'turnedWebp',
    'animatedWebp',
    'animatedGif',
    'avif',
    'heic',
  ]
  test.each(names)('%s is refused with an AppError or comes out clean for good', async (name) => {
    await fc.assert(
      fc.asyncProperty(mutations, async (damages) => {
        const image = await outcome(damages.reduce(mutate, pictures[name]))
        if (typeof image === 'string') return
        expect(sniffFormat(image.bytes)).toBe(image.format)
        expect((await readImage(image.bytes, limits)).bytes.equals(image.bytes)).toBe(true)
      }),
      { numRuns: 300 },
    )
  })
})
