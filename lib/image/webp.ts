// WebP: RIFF chunks walked without decoding, metadata chunks left out.
import { type Container, exifOrientation, unreadable } from './container.ts'

type Size = Pick<Container, 'width' | 'height'>

const PICTURE_CHUNKS = new Set(['VP8X', 'ICCP', 'ALPH', 'VP8 ', 'VP8L'])
const FIRST_CHUNK = 12
const ANIMATION_FLAG = 0x02
const METADATA_FLAGS = 0x0c // EXIF and XMP

/** Throws IMAGE_UNREADABLE when the file is shorter than it says or its parts disagree about the size. */
export function walkWebp(bytes: Buffer): Container {
  if (bytes.length < 20) throw unreadable('is cut short')
  const fileEnd = bytes.readUInt32LE(4) + 8
  if (fileEnd > bytes.length) throw unreadable('is cut short')
  const kept: Buffer[] = []
  let keptBytes = FIRST_CHUNK
  let canvas: Size | undefined
  let frame: Size | undefined
  let orientation = 1
  for (let start = FIRST_CHUNK; start + 8 <= fileEnd; ) {
    const type = bytes.toString('latin1', start, start + 4)
    const bodyEnd = start + 8 + bytes.readUInt32LE(start + 4)
    if (bodyEnd > fileEnd) throw unreadable('is cut short')
    const body = bytes.subarray(start + 8, bodyEnd)
    const end = Math.min(bodyEnd + (body.length % 2), fileEnd)
    if (type === 'VP8X') {
      if (start !== FIRST_CHUNK || body.length < 10) throw unreadable('is damaged')
      canvas = { width: 1 + body.readUIntLE(4, 3), height: 1 + body.readUIntLE(7, 3) }
      if (body.readUInt8(0) & ANIMATION_FLAG) return { ...canvas, orientation, clean: null }
    }
    if (type === 'VP8 ' || type === 'VP8L') frame ??= frameSize(type, body)
    if (type === 'EXIF') orientation = exifOrientation(withoutPrefix(body))
    if (PICTURE_CHUNKS.has(type)) {
      kept.push(bytes.subarray(start, end))
      keptBytes += end - start
    }
    start = end
  }
  if (frame === undefined) throw unreadable('holds no picture')
  if (canvas && (canvas.width !== frame.width || canvas.height !== frame.height)) throw unreadable('is damaged')
  if (orientation !== 1) return { ...frame, orientation, clean: null }
  if (keptBytes === bytes.length) return { ...frame, orientation, clean: bytes }
  const clean = Buffer.concat([bytes.subarray(0, FIRST_CHUNK), ...kept])
  clean.writeUInt32LE(clean.length - 8, 4)
  if (canvas) clean.writeUInt8(clean.readUInt8(FIRST_CHUNK + 8) & ~METADATA_FLAGS, FIRST_CHUNK + 8)
  return { ...frame, orientation, clean }
}

/** The size in the coded picture itself: the one that a decoder allocates. */
function frameSize(type: 'VP8 ' | 'VP8L', body: Buffer): Size {
  if (body.length < 10) throw unreadable('is cut short')
  if (type === 'VP8 ') {
    if (body.readUIntBE(3, 3) !== 0x9d012a) throw unreadable('is damaged')
    return { width: body.readUInt16LE(6) & 0x3fff, height: body.readUInt16LE(8) & 0x3fff }
  }
  if (body.readUInt8(0) !== 0x2f) throw unreadable('is damaged')
  const packed = body.readUInt32LE(1)
  return { width: (packed & 0x3fff) + 1, height: ((packed >>> 14) & 0x3fff) + 1 }
}

/** Some writers put JPEG's prefix before the EXIF block. */
const withoutPrefix = (exif: Buffer) => (exif.toString('latin1', 0, 6) === 'Exif\0\0' ? exif.subarray(6) : exif)
