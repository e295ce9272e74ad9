// Images at the two borders: what a client sent is checked and cleaned, what a provider sent is checked and converted.
import { ProviderError, type SourceImage } from './ai/provider.ts'
import { AppError } from './http/errors.ts'
import { type Container, unreadable } from './image/container.ts'
import { walkAvif, walkHeic } from './image/heif.ts'
import { walkJpeg } from './image/jpeg.ts'
import { reencode } from './image/pixels.ts'
import { walkPng } from './image/png.ts'
import { walkWebp } from './image/webp.ts'

export type ImageFormat = 'jpeg' | 'png' | 'webp' | 'gif' | 'avif' | 'heic'

export const MIME_TYPE: Record<ImageFormat, string> = {
  jpeg: 'image/jpeg',
  png: 'image/png',
  webp: 'image/webp',
  gif: 'image/gif',
  avif: 'image/avif',
  heic: 'image/heic',
}

type RefusedFormat = 'svg' | 'tiff' | 'pdf' | 'bmp'

interface ImageLimits {
  bytesMax: number
  pixelsMax: number
  /** Shortest side in pixels. */
  sideMin: number
  /** HEIC cannot be decoded here; accept it only when the provider reads it. */
  heicAccepted: boolean
}

const RESULT_PIXELS_MAX = 50_000_000
const SOURCE_SIDE_MAX = 2048
/** WebP ends at 16,383 pixels. */
const ENCODABLE_SIDE_MAX = 16_000
const HEVC_BRANDS = ['heic', 'heix', 'heim', 'heis', 'hevc', 'hevx', 'mif1', 'msf1']

/** Names a file by its first bytes alone; a file's name and declared type are never asked. */
export function sniffFormat(bytes: Buffer): ImageFormat | RefusedFormat | undefined {
  const head = bytes.toString('latin1', 0, 1024)
  if (head.startsWith('\xff\xd8\xff')) return 'jpeg'
  if (head.startsWith('\x89PNG\r\n\x1a\n')) return 'png'
  if (head.startsWith('GIF87a') || head.startsWith('GIF89a')) return 'gif'
  if (head.startsWith('RIFF') && head.startsWith('WEBP', 8)) return 'webp'
  if (head.startsWith('ftyp', 4)) return sniffBrand(head)
  if (/^(II[*+]\0|MM\0[*+])/.test(head)) return 'tiff'
  if (head.startsWith('%PDF')) return 'pdf'
  if (head.startsWith('BM')) return 'bmp'
  if (/^(\xef\xbb\xbf)?\s*</.test(head) && /<(!DOCTYPE\s+)?svg[\s>]/i.test(head)) return 'svg'
  return undefined
}

function sniffBrand(head: string): 'avif' | 'heic' | undefined {
  const boxEnd = head.charCodeAt(2) * 256 + head.charCodeAt(3)
  const brands = (head.slice(8, 12) + head.slice(16, boxEnd)).match(/.{4}/gs)
  if (brands?.some((brand) => brand === 'avif' || brand === 'avis')) return 'avif'
  return brands?.some((brand) => HEVC_BRANDS.includes(brand)) ? 'heic' : undefined
}

/**
 * Checks what a client sent and returns it upright, its first frame only, without metadata. Upright JPEG, PNG and WebP keep
 * their coded pixels and are never decoded. Throws only AppError: VALIDATION_FAILED, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE,
 * IMAGE_TOO_LARGE (known from the header, before any decoding) or IMAGE_UNREADABLE.
 */
export async function readImage(bytes: Buffer, limits: ImageLimits): Promise<SourceImage> {
  if (bytes.length === 0) throw new AppError('VALIDATION_FAILED', 'The image is empty.')
  if (bytes.length > limits.bytesMax) {
    throw new AppError(
      'PAYLOAD_TOO_LARGE',
      `The image has ${megabytes(bytes.length)} MB; at most ${megabytes(limits.bytesMax)} MB can be taken. Make it smaller or save it as JPEG.`,
      { details: { bytes: bytes.length, bytesMax: limits.bytesMax } },
    )
  }
  const format = acceptedFormat(bytes, limits.heicAccepted)
  const { width, height, clean } = walk(bytes, format)
  if (width * height > limits.pixelsMax) {
    throw new AppError(
      'IMAGE_TOO_LARGE',
      `The image is ${width} × ${height} pixels; at most ${(limits.pixelsMax / 1e6).toFixed(1)} megapixels can be taken. Scale it down.`,
      { details: { width, height, pixelsMax: limits.pixelsMax } },
    )
  }
  if (Math.min(width, height) < limits.sideMin) {
    throw new AppError(
      'IMAGE_UNREADABLE',
      `The image is ${width} × ${height} pixels; each side needs at least ${limits.sideMin}. Send a larger one.`,
      { details: { width, height, sideMin: limits.sideMin } },
    )
  }
  if (clean !== null) return { bytes: clean, format, width, height }
  return await reencode(bytes, format === 'png' || format === 'gif' ? 'png' : 'photo', limits.pixelsMax)
}

/**
 * Checks by its bytes that a provider sent one whole image of sane size. The image is not changed: marks of its origin
 * (C2PA) stay. Throws ProviderError `no_image`, which does not carry what the reply cost.
 */
export async function checkResult(bytes: Buffer): Promise<{ format: ImageFormat; width: number; height: number }> {
  const format = sniffFormat(bytes)
  if (!isImageFormat(format) || format === 'heic') {
    throw new ProviderError('no_image', `The provider's reply is ${named(format)}.`)
  }
  try {
    const { width, height } = walk(bytes, format)
    if (width > 0 && height > 0 && width * height <= RESULT_PIXELS_MAX) return { format, width, height }
  } catch (cause) {
    throw new ProviderError('no_image', 'The provider sent a damaged image.', { cause })
  }
  throw new ProviderError('no_image', 'The provider sent an image of impossible size.')
}

/** Re-encodes into `format`, upright and without metadata; an image that has it already comes back as it is. Throws IMAGE_UNREADABLE. */
export async function convertImage(
  image: SourceImage,
  format: 'png' | 'jpeg' | 'webp',
): Promise<Pick<SourceImage, 'bytes' | 'width' | 'height'>> {
  const { bytes, width, height } =
    image.format === format ? image : await reencode(image.bytes, format, RESULT_PIXELS_MAX)
  return { bytes, width, height }
}

/** Scales a picture that has more than `bytesMax` down to what providers take well; any other comes back as it is. Throws IMAGE_UNREADABLE. */
export async function fitSource(image: SourceImage, bytesMax: number): Promise<SourceImage> {
  let fitted = image
  for (let sideMax = SOURCE_SIDE_MAX; fitted.bytes.length > bytesMax; sideMax = Math.round(sideMax * 0.75)) {
    fitted = await reencode(image.bytes, 'photo', image.width * image.height, { quality: 88, sideMax })
  }
  return fitted
}

/** Encodes a result anew in at most `bytesMax`: with loss first, then scaled down as well. Throws IMAGE_UNREADABLE. */
export async function fitResult(
  { bytes, width, height }: Pick<SourceImage, 'bytes' | 'width' | 'height'>,
  bytesMax: number,
): Promise<{ bytes: Buffer; format: 'png' | 'jpeg' | 'webp'; width: number; height: number }> {
  let sideMax = Math.min(Math.max(width, height), ENCODABLE_SIDE_MAX)
  let fitted = await reencode(bytes, 'small', RESULT_PIXELS_MAX, { quality: 90, sideMax })
  while (fitted.bytes.length > bytesMax) {
    // Bytes go with the area; a little less, so that the next try is the last one as a rule.
    sideMax = Math.floor(sideMax * Math.min(0.9, Math.sqrt(bytesMax / fitted.bytes.length)))
    fitted = await reencode(bytes, 'small', RESULT_PIXELS_MAX, { quality: 85, sideMax })
  }
  return fitted
}

function acceptedFormat(bytes: Buffer, heicAccepted: boolean): ImageFormat {
  const format = sniffFormat(bytes)
  if (isImageFormat(format) && (format !== 'heic' || heicAccepted)) return format
  const accepted = Object.keys(MIME_TYPE).filter((name) => name !== 'heic' || heicAccepted)
  const cure =
    format === 'heic'
      ? 'On an iPhone choose Settings > Camera > Formats > Most Compatible, or export the photo as JPEG.'
      : `Send one of: ${accepted.join(', ')}.`
  throw new AppError('UNSUPPORTED_MEDIA_TYPE', `The file is ${named(format)}, which is not accepted. ${cure}`, {
    details: { format: format ?? null, accepted },
  })
}

const isImageFormat = (format: string | undefined): format is ImageFormat => format !== undefined && format in MIME_TYPE

const named = (format: string | undefined) =>
  format ? `of the ${format.toUpperCase()} format` : 'not an image we know'

function walk(bytes: Buffer, format: ImageFormat): Container {
  switch (format) {
    case 'jpeg':
      return walkJpeg(bytes)
    case 'png':
      return walkPng(bytes)
    case 'webp':
      return walkWebp(bytes)
    case 'avif':
      return walkAvif(bytes)
    case 'heic':
      return walkHeic(bytes)
    case 'gif':
      return walkGif(bytes)
  }
}

/** GIF's size is in its first bytes; the rest is checked by decoding. */
function walkGif(bytes: Buffer): Container {
  if (bytes.length < 13) throw unreadable('is cut short')
  return { width: bytes.readUInt16LE(6), height: bytes.readUInt16LE(8), orientation: 1, clean: null }
}

const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1)
