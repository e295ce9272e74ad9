// The one place that decodes and encodes pixels: sharp, loaded on first use.
import type sharpFactory from 'sharp'
import type { Sharp } from 'sharp'
import { unreadable } from './container.ts'

/** What sharp may decode; the untrusted rest stays blocked: an SVG of 1.5 kB can burn 8 s of CPU. */
const DECODERS = ['Jpeg', 'Png', 'Webp', 'Nsgif', 'Heif'].map((name) => `VipsForeignLoad${name}`)

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
 * Encodes the first frame again, upright, in sRGB and without metadata; 'photo' is JPEG, or PNG where there is transparency.
 * Throws IMAGE_UNREADABLE for what cannot be decoded to its end.
 */
export async function reencode(bytes: Buffer, target: 'photo' | 'png' | 'jpeg' | 'webp', pixelsMax: number) {
  const sharp = await loadSharp()
  try {
    const picture = sharp(bytes, { failOn: 'error', limitInputPixels: pixelsMax, autoOrient: true })
    const format = target === 'photo' ? ((await picture.metadata()).hasAlpha ? 'png' : 'jpeg') : target
    const encoded = await encode(picture, format).toBuffer({ resolveWithObject: true })
    return { bytes: encoded.data, format, width: encoded.info.width, height: encoded.info.height }
  } catch (cause) {
    throw unreadable('could not be decoded', cause)
  }
}

function encode(picture: Sharp, format: 'png' | 'jpeg' | 'webp'): Sharp {
  if (format === 'png') return picture.png()
  if (format === 'webp') return picture.webp({ quality: 92 })
  return picture.flatten({ background: 'white' }).jpeg({ quality: 92 })
}
