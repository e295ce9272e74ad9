// From a chosen file to an upload: decoded, turned upright, shrunk, and freed of EXIF and GPS by drawing it anew.
import { newId } from './api.js'

const SIDE_MAX = 2048
const BYTES_MAX = 3_500_000
const JPEG_QUALITY = 0.85
const SHRINK_STEP = 0.8

/** A file that cannot be used; `code` names the text to show. */
export class PhotoError extends Error {
  constructor(code, facts = {}) {
    super(code)
    this.name = 'PhotoError'
    this.code = code
    this.facts = facts
  }
}

/** Makes a JPEG of at most 2048 pixels and 3.5 MB. Throws PhotoError, never sends the original anywhere. */
export async function preparePhoto(file, { imageBytesMax, imagePixelsMax, imageSideMin }) {
  if (file.size === 0) throw new PhotoError('photoEmpty')
  const bitmap = await decode(file)
  try {
    const { width, height } = bitmap
    const bytesMax = Math.min(BYTES_MAX, imageBytesMax)
    let scale = Math.min(1, SIDE_MAX / Math.max(width, height), Math.sqrt(imagePixelsMax / (width * height)))
    for (;;) {
      if (Math.min(width, height) * scale < imageSideMin) {
        throw new PhotoError('photoTooSmall', { width, height, minimum: imageSideMin })
      }
      const drawn = await draw(bitmap, scale)
      if (drawn.blob.size <= bytesMax) {
        const name = file.name?.replace(/\.[^.]+$/, '') || 'photo'
        return { id: newId(), name, url: URL.createObjectURL(drawn.blob), ...drawn }
      }
      scale *= SHRINK_STEP
    }
  } finally {
    bitmap.close()
  }
}

async function decode(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: 'from-image' })
  } catch {
    throw new PhotoError(await reasonUnreadable(file))
  }
}

async function draw(bitmap, scale) {
  const canvas = document.createElement('canvas')
  canvas.width = Math.max(1, Math.round(bitmap.width * scale))
  canvas.height = Math.max(1, Math.round(bitmap.height * scale))
  const context = canvas.getContext('2d')
  // JPEG has no transparency: what was clear becomes white paper, not black.
  context.fillStyle = '#fff'
  context.fillRect(0, 0, canvas.width, canvas.height)
  context.imageSmoothingQuality = 'high'
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height)
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', JPEG_QUALITY))
  if (!blob) throw new PhotoError('photoUnreadable')
  return { blob, width: canvas.width, height: canvas.height }
}

async function reasonUnreadable(file) {
  const head = new Uint8Array(
    await file
      .slice(0, 16)
      .arrayBuffer()
      .catch(() => new ArrayBuffer(0)),
  )
  const ascii = String.fromCharCode(...head)
  if (/^ftyp(hei[cxms]|hev[cx]|mif1|msf1)/.test(ascii.slice(4))) return 'photoHeic'
  const isPicture = /^(\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|BM|II\*\0|MM\0\*|....ftypavi)/s.test(ascii)
  return isPicture ? 'photoUnreadable' : 'photoNotImage'
}
