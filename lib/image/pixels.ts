// The one place that decodes and encodes pixels: sharp, loaded on first use.
import type sharpFactory from 'sharp'
import type { Sharp, SharpOptions } from 'sharp'
import { unreadable } from './container.ts'

/** What sharp may decode; the untrusted rest stays blocked: an SVG of 1.5 kB can burn 8 s of CPU. */
const DECODERS = ['Jpeg', 'Png', 'Webp', 'Nsgif', 'Heif'].map((name) => `VipsForeignLoad${name}`)

/** Of JPEG, PNG, GIF, RIFF (WebP) and the length of an ftyp box (AVIF). No XML, plain or compressed, begins with one of them. */
const FIRST_BYTES = [0xff, 0x89, 0x47, 0x52, 0x00]

let loading: Promise<typeof sharpFactory> | undefined

/** sharp with only the decoders of photographs and GIF; the block holds for the whole process. */
export function loadSharp(): Promise<typeof sharpFactory> {
  loading ??= import('sharp').then(({ default: sharp }) => {
    sharp.block({ operation: ['VipsForeignLoad'] })
    sharp.unblock({ operation: DECODERS })
    return sharp
  })
  return loading
}

/**
 * Opens an encoded picture. Throws IMAGE_UNREADABLE unless it begins as a photograph or a GIF does: once `rasterize` has been
 * used, libvips takes whatever begins like markup for an SVG, and its own guess at the format comes before any other check.
 */
export async function openPicture(bytes: Uint8Array, options: SharpOptions): Promise<Sharp> {
  if (!FIRST_BYTES.includes(bytes[0] ?? -1)) throw unreadable('is of a format that is not decoded')
  const sharp = await loadSharp()
  return sharp(bytes, options)
}

/**
 * Draws an SVG that was built in this process on white, as PNG. Nothing that came from outside may ever be passed: the renderer
 * can neither be bounded nor stopped.
 */
export async function rasterize(svg: string): Promise<Buffer> {
  const sharp = await loadSharp()
  sharp.unblock({ operation: ['VipsForeignLoadSvgBuffer'] })
  return await sharp(Buffer.from(svg)).flatten({ background: 'white' }).png().toBuffer()
}

/**
 * Encodes the first frame again, upright, in sRGB and without metadata; 'photo' is JPEG, or PNG where there is transparency;
 * 'small' is JPEG, or WebP where there is. Throws IMAGE_UNREADABLE for what cannot be decoded to its end.
 */
export async function reencode(
  bytes: Buffer,
  target: 'photo' | 'small' | 'png' | 'jpeg' | 'webp',
  pixelsMax: number,
  { quality = 92, sideMax }: { quality?: number; sideMax?: number } = {},
) {
  try {
    const picture = await openPicture(bytes, { failOn: 'error', limitInputPixels: pixelsMax, autoOrient: true })
    const format = target === 'photo' || target === 'small' ? await formatFor(picture, target) : target
    if (sideMax !== undefined)
      picture.resize({ width: sideMax, height: sideMax, fit: 'inside', withoutEnlargement: true })
    const encoded = await encode(picture, format, quality).toBuffer({ resolveWithObject: true })
    return { bytes: encoded.data, format, width: encoded.info.width, height: encoded.info.height }
  } catch (cause) {
    throw unreadable('could not be decoded', cause)
  }
}

async function formatFor(picture: Sharp, target: 'photo' | 'small'): Promise<'png' | 'jpeg' | 'webp'> {
  const { hasAlpha } = await picture.metadata()
  if (!hasAlpha) return 'jpeg'
  return target === 'photo' ? 'png' : 'webp'
}

function encode(picture: Sharp, format: 'png' | 'jpeg' | 'webp', quality: number): Sharp {
  if (format === 'png') return picture.png()
  if (format === 'webp') return picture.webp({ quality })
  return picture.flatten({ background: 'white' }).jpeg({ quality })
}
