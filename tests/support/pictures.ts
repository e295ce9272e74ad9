// Pictures of every format, plain, laden with metadata, lying on their side or moving.
import { crc32 } from 'node:zlib'
import sharp from 'sharp'
import { noisePng } from './gemini-replies.ts'

export const WIDTH = 96
export const HEIGHT = 64
/** Stands in every kind of metadata below, so that one search finds them all. */
export const SECRET = 'somewhere-at-home'
const exif = { IFD0: { Copyright: SECRET }, IFD3: { GPSLatitude: '51/1 30/1 0/1', GPSLatitudeRef: 'N' } }
const xmp = `<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description>${SECRET}</rdf:Description></rdf:RDF></x:xmpmeta>`

/** A picture whose four corners differ, so that turning or mirroring it shows. */
export const picture = () => {
  const pixels = Buffer.alloc(WIDTH * HEIGHT * 3)
  for (let at = 0; at < WIDTH * HEIGHT; at++) {
    const [x, y] = [at % WIDTH, Math.floor(at / WIDTH)]
    pixels.set([(255 * x) / WIDTH, (255 * y) / HEIGHT, x + y > 60 ? 200 : 20], at * 3)
  }
  return sharp(pixels, { raw: { width: WIDTH, height: HEIGHT, channels: 3 } })
}
const tagged = () => picture().withExif(exif).withXmp(xmp)
export const turned = (orientation: number) => picture().withMetadata({ orientation })

/** The decoded pixels. */
export const pixelsOf = (bytes: Buffer) => sharp(bytes).raw().toBuffer()

const twoFrames = () => {
  const frames = Buffer.alloc(WIDTH * HEIGHT * 2 * 3, 30).fill(220, 0, WIDTH * HEIGHT * 3)
  return sharp(frames, { raw: { width: WIDTH, height: HEIGHT * 2, channels: 3, pageHeight: HEIGHT } })
}

export type Pictures = Awaited<ReturnType<typeof makePictures>>

/** Valid files, named by what is special about them; "tagged" and "turned" ones hold SECRET wherever metadata can stand. */
export async function makePictures() {
  const avif = await tagged().avif().toBuffer()
  return {
    jpeg: await picture().jpeg().toBuffer(),
    progressive: await tagged().jpeg({ progressive: true }).toBuffer(),
    taggedJpeg: laden(await tagged().withIccProfile('p3').jpeg().toBuffer()),
    turnedJpeg: laden(await turned(6).jpeg().toBuffer()),
    cmyk: await picture().toColourspace('cmyk').jpeg().toBuffer(),
    png: await picture().png().toBuffer(),
    taggedPng: Buffer.concat([withText(await tagged().png().toBuffer()), Buffer.from(SECRET)]),
    turnedPng: await turned(8).png().toBuffer(),
    webp: await picture().webp().toBuffer(),
    taggedWebp: Buffer.concat([await tagged().webp({ lossless: true }).toBuffer(), Buffer.from(SECRET)]),
    turnedWebp: await turned(3).webp().toBuffer(),
    animatedWebp: await twoFrames().webp().toBuffer(),
    gif: await picture().gif().toBuffer(),
    animatedGif: await twoFrames().gif().toBuffer(),
    avif,
    /** No encoder of HEIC is at hand; AVIF differs in its brand and in its pixels, which are not read. */
    heic: rebranded(avif, 'avif', 'heic'),
  }
}

export const rebranded = (bytes: Buffer, from: string, to: string) =>
  Buffer.from(bytes.toString('latin1').replaceAll(from, to), 'latin1')

/** A JPEG with everything that cameras and editors add: IPTC, a comment, a thumbnail, a second picture behind the end. */
function laden(jpeg: Buffer): Buffer {
  const segment = (marker: number, body: string) => {
    const header = Buffer.from([0xff, marker, 0, 0])
    header.writeUInt16BE(body.length + 2, 2)
    return Buffer.concat([header, Buffer.from(body, 'latin1')])
  }
  const thumbnail = segment(0xe0, `JFIF\0\x01\x01\0\0\x01\0\x01\x01\x06${SECRET}.`)
  const extras = [
    thumbnail,
    segment(0xe0, `JFXX\0\x10${SECRET}`),
    segment(0xe2, `MPF\0${SECRET}`),
    segment(0xed, `Photoshop 3.0\0${SECRET}`),
    segment(0xfe, SECRET),
  ]
  return Buffer.concat([jpeg.subarray(0, 2), ...extras, jpeg.subarray(2), jpeg, Buffer.from(SECRET)])
}

function withText(png: Buffer): Buffer {
  const chunk = Buffer.from(`\0\0\0\0tEXt${SECRET}\0\0\0\0`, 'latin1')
  chunk.writeUInt32BE(SECRET.length, 0)
  chunk.writeUInt32BE(crc32(chunk.subarray(4, -4)), chunk.length - 4)
  return Buffer.concat([png.subarray(0, 33), chunk, png.subarray(33)])
}

/** A PNG whose header claims a size that its pixels do not have. */
export function pngOfSize(width: number, height: number): Buffer {
  const png = Buffer.from(noisePng(16, 16))
  png.writeUInt32BE(width, 16)
  png.writeUInt32BE(height, 20)
  png.writeUInt32BE(crc32(png.subarray(12, 29)), 29)
  return png
}
