// Turns a photo into a colouring page: bold, closed black lines on pure white.
//
// The method is the flow-based difference of Gaussians: "Coherent Line Drawing" (Kang, Lee, Chui, NPAR 2007), in the
// separable form of Winnemöller, Kyprianidis and Olsen, "XDoG" (Computers & Graphics 2012). A plain edge detector
// breaks soft outlines into dots; summing its response along the direction in which edges run joins them again.
import { loadSharp, openPicture } from '../image/pixels.ts'
import type { Photo } from './line-art/planes.ts'
import { type LineStyle, STYLES, type StyleName } from './line-art/styles.ts'
import { traceLines } from './line-art/trace.ts'
import { ProviderError } from './provider.ts'

export interface Drawing {
  /** A greyscale PNG without metadata. */
  png: Buffer
  width: number
  height: number
}

/** The page is this many times as large as the working copy. */
const PAGE_SCALE = 2
const INPUT_PIXELS_MAX = 50_000_000
const INPUT_SIDE_PIXELS_MIN = 16
const INPUT_FORMATS: readonly string[] = ['jpeg', 'png', 'webp', 'gif', 'heif']
/** An icon is enlarged no further than this: stretched edges are too soft to be found. */
const ENLARGEMENT_MAX = 4
/** A banner keeps this many rows if its length allows it: a 4000 × 40 one would shrink to nine. */
const WORK_SHORT_SIDE_PIXELS = 64
/** Below this a filter window no longer fits into the picture. */
const WORK_SHORT_SIDE_PIXELS_MIN = 8
/** WebP, to which a page may be converted, ends at 16 383 pixels, and the page is twice as large. */
const WORK_LONG_SIDE_PIXELS_MAX = 8191
const PRE_BLUR_SIGMA = 0.8
/** Slope of the final cut: steep enough for pure black on pure white, flat enough for smooth edges. */
const INK_SLOPE = 6

/**
 * Draws `bytes` (JPEG, PNG, WebP, GIF or AVIF, turned upright by its EXIF orientation) as a colouring page. `trace` is
 * where the arithmetic runs: here, or on another thread. Throws ProviderError 'bad_request' for bytes it cannot draw.
 */
export async function drawLineArt(
  bytes: Uint8Array,
  styleName: StyleName,
  trace: (photo: Photo, styleName: StyleName) => Uint8Array | Promise<Uint8Array> = traceLines,
): Promise<Drawing> {
  const style = STYLES[styleName]
  const sharp = await loadSharp()
  const photo = await readPhoto(bytes, style)
  const { width, height } = photo
  const strokes = await trace(photo, styleName)
  return await inkPage(sharp, { width, height, strokes }, style)
}

type Sharp = Awaited<ReturnType<typeof loadSharp>>

interface Strokes {
  width: number
  height: number
  strokes: Uint8Array
}

/** Decodes, turns upright, scales to the working size, puts on white, stretches the contrast and smooths the grain. */
async function readPhoto(bytes: Uint8Array, style: LineStyle): Promise<Photo> {
  try {
    const source = await openPicture(bytes, {
      limitInputPixels: INPUT_PIXELS_MAX,
      failOn: 'error',
      sequentialRead: true,
    })
    const { format, autoOrient } = await source.metadata()
    if (!INPUT_FORMATS.includes(format)) throw new Error(`The format ${format} is not read.`)
    const { data, info } = await source
      .autoOrient()
      .resize({
        ...workSize(autoOrient, style.workSidePixels),
        fit: 'fill',
        kernel: 'lanczos3',
        fastShrinkOnLoad: true,
      })
      .flatten({ background: '#fff' })
      .toColourspace('srgb')
      .normalise({ lower: 1, upper: 99 })
      .median(style.medianPixels)
      .blur(PRE_BLUR_SIGMA)
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true })
    if (info.channels !== 3) throw new Error(`The photo was decoded to ${info.channels} channels.`)
    // Copied, because memory of the native library cannot be handed to another thread.
    return { width: info.width, height: info.height, rgb: new Uint8Array(data) }
  } catch (cause) {
    throw new ProviderError('bad_request', 'The picture cannot be read.', { cause })
  }
}

/** The long side becomes `side` pixels, less for an icon, more for a banner. Throws when hardly a row would be left. */
function workSize({ width, height }: { width: number; height: number }, side: number) {
  const long = Math.max(width, height)
  const short = Math.min(width, height)
  const usual = Math.min(side / long, ENLARGEMENT_MAX)
  const banner = Math.min(WORK_SHORT_SIDE_PIXELS / short, WORK_LONG_SIDE_PIXELS_MAX / long)
  const scale = Math.max(usual, banner)
  if (short < INPUT_SIDE_PIXELS_MIN || short * scale < WORK_SHORT_SIDE_PIXELS_MIN) {
    throw new Error(`A picture of ${width} × ${height} pixels is too narrow to be drawn.`)
  }
  return { width: Math.round(width * scale), height: Math.round(height * scale) }
}

/** Enlarges the strokes, softens and cuts them again: smooth bold lines, pure black on pure white. */
async function inkPage(sharp: Sharp, { width, height, strokes }: Strokes, style: LineStyle): Promise<Drawing> {
  const { data, info } = await sharp(strokes, { raw: { width, height, channels: 1 } })
    .resize({ width: width * PAGE_SCALE, height: height * PAGE_SCALE, fit: 'fill', kernel: 'cubic' })
    .blur(style.boldSigma * PAGE_SCALE)
    .linear(-INK_SLOPE, 255 * (1 + INK_SLOPE * style.inkLevel))
    .toColourspace('b-w')
    .png({ compressionLevel: 6 })
    .toBuffer({ resolveWithObject: true })
  return { png: data, width: info.width, height: info.height }
}
