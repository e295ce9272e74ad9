// Bombs in the clothes of SVG: a model's is refused for next to nothing, a user's meets no decoder.
import { gzipSync } from 'node:zlib'
import sharp from 'sharp'
import { describe, expect, test } from 'vitest'
import { drawLineArt } from '../../../lib/ai/line-art.ts'
import { cleanSvg } from '../../../lib/ai/svg.ts'
import { openPicture, rasterize, reencode } from '../../../lib/image/pixels.ts'
import { checkResult, convertImage, readImage, sniffFormat } from '../../../lib/image.ts'
import { drawing, NAMESPACE, rebuilt } from '../../support/drawings.ts'

/** Eight levels of ten: a hundred million rectangles in 1.5 kB. */
const useBomb = `<svg ${NAMESPACE} xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9" width="900" height="900"><defs><rect id="a0" width="9" height="9"/>${Array.from(
  { length: 8 },
  (_value, level) => `<g id="a${level + 1}">${`<use xlink:href="#a${level}"/>`.repeat(10)}</g>`,
).join('')}</defs><use xlink:href="#a8"/></svg>`

/** CPU time of this process, which other work on the machine does not lengthen. */
async function cpuMs(work: () => unknown): Promise<number> {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000
}

/** The transformations of a scale beyond all numbers, as many as are read. */
const BEYOND = 'scale(999999999e9)'.repeat(15)
/** A stroke whose width is not a number once it is scaled. */
const endlessStroke = `<path transform="matrix(1 1 1 1 0 0)${BEYOND}" d="M0 0L0 0"/>`
const endlessStrokes: [string, string][] = [
  ['of a matrix that collapses', endlessStroke],
  ['of no width', `<path stroke-width="0" transform="${BEYOND}" d="M0 0L0 0"/>`],
  ['of a group', `<g transform="${BEYOND}"><path d="M0 0L0 0"/></g>`],
]
/** Hours of pen for a few kilobytes, were it not for the work that is counted. */
const scribble = `<path stroke-width="200" d="M0 0${Array.from({ length: 9000 }, (_value, at) => `L${(at * 7919) % 199} ${(at * 104_729) % 197}`).join('')}"/>`

describe('a bomb', () => {
  const line = (count: number) => `M0 0${'L9 9'.repeat(count)}`
  const bombs: [string, string][] = [
    ['nested uses', useBomb],
    ['a million commands', drawing(`<path d="${line(1_000_000)}"/>`)],
    ['as many commands as fit into the text', drawing(`<path d="${line(24_000)}"/>`)],
    ['commands over many elements', drawing(`<path d="${line(1500)}"/>`.repeat(16))],
    ['more elements than anyone draws', drawing('<g/>'.repeat(2001))],
    ['elements that are left out', drawing('<x/>'.repeat(20_000))],
    ['nesting', drawing(`${'<g>'.repeat(34)}<path d="M0 0L1 1"/>${'</g>'.repeat(34)}`)],
    ['nesting without end', drawing('<g>'.repeat(30_000))],
    ['lines across the picture', drawing(`<path d="M0 0${'L200 200L0 0'.repeat(1000)}"/>`)],
    ['thick round joins', drawing(`<path stroke-width="9999" d="M99 99${'h1h-1'.repeat(2000)}"/>`)],
    ['huge curves', drawing(`<path d="M0 0${'C8000 8000 -8000 8000 8000 -8000'.repeat(50)}"/>`)],
    ...endlessStrokes.map(([what, shape]): [string, string] => [
      `much work after a stroke beyond all numbers, ${what}`,
      drawing(shape + scribble),
    ]),
    ['entities', `<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>${drawing('<path d="&b;"/>')}`],
    ['a filter', drawing('<filter id="f"><feTurbulence numOctaves="99999"/></filter><g filter="url(#f)"/>')],
    ['a pattern in itself', drawing('<pattern id="p"><rect fill="url(#p)" width="9" height="9"/></pattern>')],
    ['huge numbers', drawing('<circle r="1e9" cx="1e9"/><path d="M1e300 1e300L-1e300 9e999"/>')],
    ['numbers without end', drawing(`<path d="M${'9'.repeat(90_000)} 1"/>`)],
    ['blanks without end', drawing(`<path ${' '.repeat(90_000)}`)],
    ['attributes without end', drawing(`<path ${'a="b" '.repeat(15_000)}`)],
    ['commas without end', drawing(`<path d="M0 0${','.repeat(90_000)}"/>`)],
    ['a transformation without end', drawing(`<path d="M0 0L1 1" transform="${' '.repeat(90_000)}x"/>`)],
    ['a number list without end', drawing(`<polygon points="${' '.repeat(90_000)}x"/>`)],
    ['a comment without end', drawing(`<!--${'-'.repeat(90_000)}`)],
    ['beginnings without end', '<svg '.repeat(100_000)],
  ]
  test.each(bombs)('is refused for next to nothing: %s', async (_what, svg) => {
    const spentMs = await cpuMs(() => expect(cleanSvg(svg, 1024, 1024)).toBeUndefined())
    expect(spentMs).toBeLessThan(1000)
  })

  test.each(endlessStrokes)('in a stroke beyond all numbers is left out: %s', (_what, shape) => {
    expect(rebuilt(drawing(`${shape}<path d="M0 0L9 9"/>`))).toBe(rebuilt(drawing('<path d="M0 0L9 9"/>')))
    expect(cleanSvg(drawing(shape), 1024, 1024)).toBeUndefined()
  })

  test('that stays within every bound is rendered in a moment', async () => {
    const zigzag = (count: number) =>
      drawing(
        `<path d="M0 0${Array.from({ length: count }, (_value, at) => `L${(at * 37) % 200} ${at % 2 ? 0 : 200}`).join('')}"/>`,
      )
    let count = 1
    while (cleanSvg(zigzag(count + 10), 1024, 1024)) count += 10
    expect(count).toBeGreaterThan(200)
    expect(count).toBeLessThan(1000)
    expect(await cpuMs(() => rasterize(rebuilt(zigzag(count), 1024, 1024)))).toBeLessThan(5000)
  })
})

describe("a user's SVG", () => {
  const limits = { bytesMax: 4_000_000, pixelsMax: 24_000_000, sideMin: 1, heicAccepted: true }
  const bomb = Buffer.from(useBomb)
  const behind = (head: Buffer | string) =>
    Buffer.concat([Buffer.isBuffer(head) ? head : Buffer.from(head, 'latin1'), bomb])
  const disguises: [string, Buffer][] = [
    ['as it is', bomb],
    ['after a byte order mark', behind('\xef\xbb\xbf')],
    ['after blanks', behind(' \n\t')],
    ['after a declaration', behind('<?xml version="1.0"?>')],
    ['compressed', gzipSync(bomb)],
    ['as an AVIF in a comment', behind('<!--ftypavif    avif-->')],
    ['as an AVIF in an instruction', behind('<?aaftypavif?>')],
    ['as a HEIC in a comment', behind('<!--ftypheic    heic-->')],
    ['behind the beginning of a JPEG', behind('\xff\xd8\xff\xe0')],
    ['behind the beginning of a PNG', behind('\x89PNG\r\n\x1a\n')],
    ['behind the beginning of a GIF', behind('GIF89a')],
    ['behind the header of a GIF', behind('GIF89a\x10\x00\x10\x00\x00\x00\x00')],
    ['behind the beginning of a WebP', behind('RIFF    WEBPVP8 ')],
    ['behind a true ftyp box', behind('\0\0\0\x18ftypavif\0\0\0\0avifmif1')],
  ]

  test.each(disguises)('meets no decoder once our own have been rendered: %s', async (_what, bytes) => {
    await rasterize(rebuilt(drawing('<path d="M0 0L9 9"/>')))
    const refusals = [
      () => readImage(bytes, limits),
      async () => await convertImage({ bytes, ...(await checkResult(bytes)) }, 'webp'),
      () => reencode(bytes, 'png', 24_000_000),
      () => reencode(bytes, 'photo', 24_000_000),
      () => drawLineArt(bytes, 'simple'),
      async () => await (await openPicture(bytes, {})).metadata(),
    ]
    // One rendering of it takes minutes.
    const spentMs = await cpuMs(async () => {
      for (const refused of refusals) await expect(refused()).rejects.toThrow()
    })
    expect(spentMs).toBeLessThan(3000)
  })

  test('would be rendered by the library where it looks like an AVIF to us: the disguise is a real one', async () => {
    await rasterize(rebuilt(drawing('<path d="M0 0L9 9"/>')))
    const bytes = Buffer.concat([Buffer.from('<!--ftypavif    avif-->'), Buffer.from(drawing('<path d="M0 0L9 9"/>'))])
    expect(sniffFormat(bytes)).toBe('avif')
    expect((await sharp(bytes).metadata()).format).toBe('svg')
    await expect(openPicture(bytes, {})).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE' })
  })

  test('is not opened from a file, and neither are other formats that were blocked', async () => {
    await rasterize(rebuilt(drawing('<path d="M0 0L9 9"/>')))
    const tiff = Buffer.from('II*\0\x08\0\0\0\0\0\0\0', 'latin1')
    await expect(sharp(tiff).metadata()).rejects.toThrow(/unsupported image format/)
    await expect(sharp('public/icon.svg').metadata()).rejects.toThrow(/unsupported image format/)
  })
})
