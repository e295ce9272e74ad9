// Photos of any size, made from the test suite's own.
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'

/** A JPEG of that size. 2400 × 1800 pixels at quality 92 are about 500 kB, as from a phone's browser. */
export async function photoOf(width: number, height: number, quality = 92): Promise<Buffer> {
  const file = fileURLToPath(new URL('../tests/fixtures/photos/coffee.jpg', import.meta.url))
  return await sharp(file).resize(width, height, { fit: 'cover' }).jpeg({ quality }).toBuffer()
}
