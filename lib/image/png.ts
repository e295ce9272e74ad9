// PNG: chunks walked and checksummed without decoding, everything but the picture left out.
import { crc32 } from 'node:zlib'
import { type Container, exifOrientation, unreadable } from './container.ts'

/** Chunks that change how the picture looks; text, EXIF, time, animation and private chunks do not. */
const PICTURE_CHUNKS = new Set('IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP cICP mDCV cLLI sBIT bKGD pHYs'.split(' '))

/** Throws IMAGE_UNREADABLE when the file ends before its IEND chunk or a chunk's checksum is wrong. An animation keeps its still image. */
export function walkPng(bytes: Buffer): Container {
  if (bytes.length < 33) throw unreadable('is cut short')
  if (bytes.readUInt32BE(8) !== 13 || bytes.toString('latin1', 12, 16) !== 'IHDR') throw unreadable('has no header')
  const size = { width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) }
  const kept: Buffer[] = []
  let keptFrom = 0
  let orientation = 1
  let hasPixels = false
  let position = 8
  for (let type = ''; type !== 'IEND'; ) {
    if (position + 12 > bytes.length) throw unreadable('is cut short')
    const start = position
    const end = start + 12 + bytes.readUInt32BE(start)
    if (end > bytes.length) throw unreadable('is cut short')
    type = bytes.toString('latin1', start + 4, start + 8)
    if (PICTURE_CHUNKS.has(type)) {
      if (crc32(bytes.subarray(start + 4, end - 4)) !== bytes.readUInt32BE(end - 4)) throw unreadable('is damaged')
      if (type === 'IDAT') hasPixels = true
    } else {
      if (type.charAt(0) < 'a') throw unreadable('needs a PNG extension that is not supported')
      if (type === 'eXIf') orientation = exifOrientation(bytes.subarray(start + 8, end - 4))
      if (start > keptFrom) kept.push(bytes.subarray(keptFrom, start))
      keptFrom = end
    }
    position = end
  }
  if (!hasPixels) throw unreadable('holds no picture')
  if (orientation !== 1) return { ...size, orientation, clean: null }
  if (keptFrom === 0 && position === bytes.length) return { ...size, orientation, clean: bytes }
  kept.push(bytes.subarray(keptFrom, position))
  return { ...size, orientation, clean: Buffer.concat(kept) }
}
