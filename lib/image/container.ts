// What a walk through an image file's container tells, and the one way it fails.
import { AppError } from '../http/errors.ts'

export interface Container {
  /** Pixels as stored, before the EXIF orientation is applied. */
  width: number
  height: number
  /** The EXIF orientation, 1 to 8. */
  orientation: number
  /** The same picture without metadata or trailing bytes; null when only decoding it can give that. */
  clean: Buffer | null
}

/** The error for a damaged file; `what` completes "The image could not be read: it …". */
export function unreadable(what: string, cause?: unknown): AppError {
  return new AppError('IMAGE_UNREADABLE', `The image could not be read: it ${what}. Export or take it again.`, {
    cause,
  })
}

/** Reads the orientation out of an EXIF block (a TIFF file without pixels); damaged blocks count as upright. */
export function exifOrientation(tiff: Buffer): number {
  if (tiff.length < 8) return 1
  const littleEndian = tiff.toString('latin1', 0, 2) === 'II'
  const readUInt16 = (at: number) => (littleEndian ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at))
  const readUInt32 = (at: number) => (littleEndian ? tiff.readUInt32LE(at) : tiff.readUInt32BE(at))
  const directory = readUInt32(4)
  if (directory + 2 > tiff.length) return 1
  const entriesEnd = Math.min(directory + 2 + 12 * readUInt16(directory), tiff.length - 11)
  for (let entry = directory + 2; entry < entriesEnd; entry += 12) {
    if (readUInt16(entry) !== 0x0112) continue
    const orientation = readUInt16(entry + 2) === 4 ? readUInt32(entry + 8) : readUInt16(entry + 8)
    return orientation >= 1 && orientation <= 8 ? orientation : 1
  }
  return 1
}
