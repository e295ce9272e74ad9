// The picture of a request as a provider takes it: made smaller here where its limits ask for that.
import { reencode } from '../image/pixels.ts'
import { type ModelRequest, ProviderError, type SourceImage, takesImage } from './provider.ts'

export type Source = Pick<SourceImage, 'bytes' | 'format'>

interface SourceLimits {
  bytesMax: number
  pixelsMax: number
  sideMax: number
  /** The longer side of a picture that was beyond one of these. */
  shrunkSide: number
}

/** Far more than a fork lets in. */
const DECODED_PIXELS_MAX = 100_000_000

/** Undefined for tasks that begin without a picture. Throws 'bad_request' when one is missing or cannot be decoded. */
export async function sourceWithin(request: ModelRequest, limits: SourceLimits): Promise<Source | undefined> {
  if (!takesImage(request.task)) return undefined
  const { image } = request
  if (!image) throw new ProviderError('bad_request', 'There is no picture.')
  const { bytes, width, height } = image
  const isWithin =
    bytes.length <= limits.bytesMax && width * height <= limits.pixelsMax && Math.max(width, height) <= limits.sideMax
  if (isWithin) return image
  try {
    return await reencode(bytes, 'small', DECODED_PIXELS_MAX, { sideMax: limits.shrunkSide })
  } catch (cause) {
    throw new ProviderError('bad_request', 'The picture could not be made smaller.', { cause })
  }
}
