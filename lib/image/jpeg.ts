// JPEG: segments walked without decoding, metadata segments left out.
import { type Container, exifOrientation, unreadable } from './container.ts'

const START_OF_FRAME = [0xc0, 0xc1, 0xc2] // Baseline, extended and progressive: what everyone decodes.
const END_OF_IMAGE = 0xd9
const START_OF_SCAN = 0xda
const TABLES = [0xc4, 0xdb, 0xdc, 0xdd] // Huffman and quantisation tables, line count, restart interval.
const COMMENT = 0xfe
const JFIF_BYTES = 18

/** Throws IMAGE_UNREADABLE when the file ends before its end marker or its segments do not follow one another. */
export function walkJpeg(bytes: Buffer): Container {
  const kept: Buffer[] = []
  let keptFrom = 0
  let frame: Pick<Container, 'width' | 'height'> & { components: number } = { width: 0, height: 0, components: 0 }
  let orientation = 1
  let scanned = false
  let position = 2
  const cut = (from: number, to: number) => {
    if (from > keptFrom) kept.push(bytes.subarray(keptFrom, from))
    keptFrom = to
  }
  for (;;) {
    const start = nextMarker(bytes, position)
    const marker = bytes.readUInt8(start + 1)
    // Between segments libjpeg skips stray bytes; they are no part of the picture. After a scan's header they are its data.
    if (start > position && !scanned) cut(position, start)
    if (marker === END_OF_IMAGE) {
      if (!scanned) throw unreadable('holds no picture')
      cut(start + 2, bytes.length)
      break
    }
    const end = segmentEnd(bytes, start)
    const body = bytes.subarray(start + 4, end)
    if (START_OF_FRAME.includes(marker)) {
      if (body.length < 6 || body.readUInt8(0) !== 8) throw unreadable('is a JPEG with more than 8 bits per colour')
      frame = { height: body.readUInt16BE(1), width: body.readUInt16BE(3), components: body.readUInt8(5) }
    } else if (marker === START_OF_SCAN) {
      if (frame.width === 0 || frame.height === 0) throw unreadable('names no size before its pixels')
      scanned = true
    } else if (isMetadata(marker)) {
      if (marker === 0xe1 && startsWith(body, 'Exif\0\0')) orientation = exifOrientation(body.subarray(6))
      const survivor = withoutMetadata(marker, bytes.subarray(start, end))
      if (survivor === null) cut(start, end)
      else if (survivor.length < end - start) {
        cut(start, end)
        kept.push(survivor)
      }
    } else if (!TABLES.includes(marker)) {
      throw unreadable('is damaged, or a rare kind of JPEG (lossless or arithmetic coded)')
    }
    position = end
  }
  // Printers' CMYK becomes RGB by decoding only, and providers do not read it.
  if (orientation !== 1 || frame.components === 4) return { ...frame, orientation, clean: null }
  const untouched = kept.length === 1 && kept[0]?.length === bytes.length
  return { ...frame, orientation, clean: untouched ? bytes : Buffer.concat(kept) }
}

/** Where the next marker stands; stuffed zeros, fill bytes and restart markers are passed over. */
function nextMarker(bytes: Buffer, from: number): number {
  for (let at = bytes.indexOf(0xff, from); at !== -1 && at + 1 < bytes.length; at = bytes.indexOf(0xff, at + 1)) {
    const code = bytes.readUInt8(at + 1)
    const isRestart = code >= 0xd0 && code <= 0xd7
    if (code !== 0x00 && code !== 0xff && !isRestart) return at
  }
  throw unreadable('is cut short')
}

function segmentEnd(bytes: Buffer, start: number): number {
  if (start + 4 > bytes.length) throw unreadable('is cut short')
  const length = bytes.readUInt16BE(start + 2)
  if (length < 2) throw unreadable('is damaged')
  if (start + 2 + length > bytes.length) throw unreadable('is cut short')
  return start + 2 + length
}

const isMetadata = (marker: number) => (marker >= 0xe0 && marker <= 0xef) || marker === COMMENT

/** What decoding needs of an application segment: JFIF without its thumbnail, the colour profile, Adobe's colour transform. */
function withoutMetadata(marker: number, segment: Buffer): Buffer | null {
  const body = segment.subarray(4)
  if (marker === 0xe2 && startsWith(body, 'ICC_PROFILE\0')) return segment
  if (marker === 0xee && startsWith(body, 'Adobe')) return segment
  if (marker !== 0xe0 || !startsWith(body, 'JFIF\0') || segment.length < JFIF_BYTES) return null
  if (segment.length === JFIF_BYTES) return segment
  const header = Buffer.from(segment.subarray(0, JFIF_BYTES))
  header.writeUInt16BE(JFIF_BYTES - 2, 2)
  header.writeUInt16BE(0, JFIF_BYTES - 2)
  return header
}

const startsWith = (bytes: Buffer, text: string) => bytes.toString('latin1', 0, text.length) === text
