// HEIC and AVIF: the size read from the boxes, and personal metadata blanked where it stands.
import { type Container, unreadable } from './container.ts'

/** A box's type, and where its content begins and ends. */
interface Box {
  type: string
  start: number
  end: number
}

const FULL_BOX_HEADER = 4 // Version and flags.
const LOCATIONS_BYTES_MAX = 64 * 1024
/** Four bytes of offset, then a big-endian TIFF header with no entries. */
const EMPTY_EXIF = Buffer.from('\0\0\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0', 'latin1')

/** AVIF's size; its pixels can be decoded here, so that is how it is cleaned. */
export function walkAvif(bytes: Buffer): Container {
  return { ...uprightSize(bytes, metaBoxesOf(bytes)), orientation: 1, clean: null }
}

/** HEIC cannot be decoded here, so its metadata is blanked in a copy. Throws IMAGE_UNREADABLE when the layout is not understood. */
export function walkHeic(bytes: Buffer): Container {
  const metaBoxes = metaBoxesOf(bytes)
  return { ...uprightSize(bytes, metaBoxes), orientation: 1, clean: withoutMetadata(bytes, metaBoxes) }
}

function metaBoxesOf(bytes: Buffer): Box[] {
  const meta = child(boxes(bytes, 0, bytes.length), 'meta')
  return boxes(bytes, meta.start + FULL_BOX_HEADER, meta.end)
}

function uprightSize(bytes: Buffer, metaBoxes: Box[]): { width: number; height: number } {
  const properties = child(metaBoxes, 'iprp')
  const container = child(boxes(bytes, properties.start, properties.end), 'ipco')
  let largest = { width: 0, height: 0 }
  let isTurned = false
  for (const property of boxes(bytes, container.start, container.end)) {
    const read = reader(bytes, property)
    if (property.type === 'irot') isTurned = read(1) % 2 === 1
    if (property.type !== 'ispe') continue
    read(FULL_BOX_HEADER)
    const size = { width: read(4), height: read(4) }
    // Tiles, thumbnails and depth maps have sizes too; the picture's own is the largest.
    if (size.width * size.height > largest.width * largest.height) largest = size
  }
  if (largest.width === 0) throw unreadable('names no size')
  return isTurned ? { width: largest.height, height: largest.width } : largest
}

/** A copy in which EXIF items are an empty EXIF block and XMP items are blanks: nothing moves, so every offset still holds. */
function withoutMetadata(bytes: Buffer, metaBoxes: Box[]): Buffer {
  const personal = metadataItems(bytes, child(metaBoxes, 'iinf'))
  if (personal.size === 0) return bytes
  const clean = Buffer.from(bytes)
  /** Offsets count from the file's start, or (construction method 1) from the start of the idat box. */
  const origins = [0, metaBoxes.find(({ type }) => type === 'idat')?.start]
  let blankedBytes = 0
  for (const extent of extents(bytes, child(metaBoxes, 'iloc'))) {
    const isExif = personal.get(extent.itemId)
    if (isExif === undefined) continue
    const origin = origins[extent.method]
    if (origin === undefined) throw unreadable('is an unusual kind of HEIC')
    const start = origin + extent.offset
    blankedBytes += extent.length
    if (start + extent.length > bytes.length || blankedBytes > bytes.length) throw unreadable('is damaged')
    clean.fill(isExif ? 0 : ' ', start, start + extent.length)
    if (isExif && extent.length >= EMPTY_EXIF.length) EMPTY_EXIF.copy(clean, start)
  }
  return clean
}

/** Ids of the items that hold EXIF (true) or XMP (false). */
function metadataItems(bytes: Buffer, box: Box): Map<number, boolean> {
  const items = new Map<number, boolean>()
  const version = reader(bytes, box)(1)
  for (const { type, start, end } of boxes(bytes, box.start + FULL_BOX_HEADER + (version === 0 ? 2 : 4), box.end)) {
    if (type !== 'infe') continue
    const read = reader(bytes, { type, start, end })
    const idBytes = read(FULL_BOX_HEADER) >>> 24 === 3 ? 4 : 2
    const id = read(idBytes)
    const itemType = bytes.toString(
      'latin1',
      start + FULL_BOX_HEADER + idBytes + 2,
      start + FULL_BOX_HEADER + idBytes + 6,
    )
    if (itemType === 'Exif' || itemType === 'mime') items.set(id, itemType === 'Exif')
  }
  return items
}

/** Where every item's bytes stand: the iloc box, ISO/IEC 14496-12 §8.11.3. */
function* extents(bytes: Buffer, box: Box) {
  const read = reader(bytes, box)
  const version = read(FULL_BOX_HEADER) >>> 24
  const sizes = read(2)
  const [offsetBytes, lengthBytes, baseBytes] = [sizes >> 12, (sizes >> 8) & 15, (sizes >> 4) & 15]
  const indexBytes = version === 0 ? 0 : sizes & 15
  const isRegular = [offsetBytes, lengthBytes, baseBytes, indexBytes].every((size) => [0, 4, 8].includes(size))
  // An extent without a length would make the loop below free to run for ever; phones need a few kilobytes in all.
  const isBounded = lengthBytes > 0 && box.end - box.start <= LOCATIONS_BYTES_MAX
  if (version > 2 || !isRegular || !isBounded) throw unreadable('is an unusual kind of HEIC')
  for (let items = read(version < 2 ? 2 : 4); items > 0; items--) {
    const itemId = read(version < 2 ? 2 : 4)
    const method = version > 0 ? read(2) & 15 : 0
    read(2)
    const base = read(baseBytes)
    for (let extentsLeft = read(2); extentsLeft > 0; extentsLeft--) {
      read(indexBytes)
      yield { itemId, method, offset: base + read(offsetBytes), length: read(lengthBytes) }
    }
  }
}

function boxes(bytes: Buffer, start: number, end: number): Box[] {
  const found: Box[] = []
  for (let at = start; at + 8 <= end; ) {
    const shortLength = bytes.readUInt32BE(at)
    const headerBytes = shortLength === 1 ? 16 : 8
    if (at + headerBytes > end) throw unreadable('is cut short')
    // A length of 0 means "to the end", one of 1 that the real one follows in eight bytes.
    const length = shortLength === 1 ? Number(bytes.readBigUInt64BE(at + 8)) : shortLength || end - at
    if (length < headerBytes) throw unreadable('is damaged')
    if (at + length > end) throw unreadable('is cut short')
    found.push({ type: bytes.toString('latin1', at + 4, at + 8), start: at + headerBytes, end: at + length })
    at += length
  }
  return found
}

function child(siblings: Box[], type: string): Box {
  const box = siblings.find((sibling) => sibling.type === type)
  if (box === undefined) throw unreadable(`has no ${type} box`)
  return box
}

/** Reads big-endian numbers one after another, never past the box's end. */
function reader(bytes: Buffer, { start, end }: Box) {
  let position = start
  return (size: number): number => {
    if (position + size > end) throw unreadable('is damaged')
    position += size
    if (size === 0) return 0
    return size === 8 ? Number(bytes.readBigUInt64BE(position - 8)) : bytes.readUIntBE(position - size, size)
  }
}
