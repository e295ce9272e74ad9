// Pictures as the stubs of providers send and take them.
import sharp from 'sharp'
import { noisePng } from './gemini-replies.ts'

const FORMATS: Record<string, string> = {
  'image/png': 'png',
  'image/jpeg': 'jpeg',
  'image/webp': 'webp',
  'image/gif': 'gif',
}
const made = new Map<string, Buffer | Promise<Buffer>>()

/** Noise, made once for each size. */
export function picture(widthPx: number, heightPx: number, format: 'png' | 'jpeg' = 'png'): Buffer | Promise<Buffer> {
  const key = [widthPx, heightPx, format].join()
  const png = noisePng(widthPx, heightPx)
  const bytes = made.get(key) ?? (format === 'png' ? png : sharp(png).jpeg().toBuffer())
  made.set(key, bytes)
  return bytes
}

/** The size of a picture that can be decoded and is what it is said to be; undefined for any other. */
export async function sizeOf(bytes: Buffer, mimeType: string): Promise<{ width: number; height: number } | undefined> {
  try {
    const { format, width, height } = await sharp(bytes).metadata()
    // To its end: a picture that was cut short is refused too.
    await sharp(bytes, { failOn: 'error' }).resize(8).raw().toBuffer()
    return format === FORMATS[mimeType] ? { width, height } : undefined
  } catch {
    return undefined
  }
}
