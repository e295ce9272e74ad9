// Decides which pixels are ink: starts lines at strong pixels, follows them through weaker ones, drops the short ones.
import type { Plane } from './planes.ts'
import type { LineStyle } from './styles.ts'

/** No line starts below this strength, however empty the photo: grain stays white. */
const STRENGTH_MIN = 0.006
const STRONG_PIXELS_MIN = 3
const HISTOGRAM_BINS = 4096

/** One byte a pixel: 255 on a line, 0 elsewhere. */
export function traceStrokes(lines: Plane, style: LineStyle): Uint8Array<ArrayBuffer> {
  const { width, height, values } = lines
  const strong = Math.max(STRENGTH_MIN, strengthOfTop(values, style.strongShare))
  const weak = Math.max(STRENGTH_MIN / 2, strong * style.weakRatio)
  const strokes = new Uint8Array(values.length)
  const seen = new Uint8Array(values.length)
  const stroke = new Int32Array(values.length)
  for (let start = 0; start < values.length; start++) {
    if (seen[start] || (values[start] ?? 0) < weak) continue
    // `stroke` lists the pixels found so far; those from `next` on still wait for their neighbours to be looked at.
    let length = 0
    let strongPixels = 0
    let left = width
    let right = 0
    let top = height
    let bottom = 0
    stroke[length++] = start
    seen[start] = 1
    for (let next = 0; next < length; next++) {
      const at = stroke[next] ?? 0
      const x = at % width
      const y = (at - x) / width
      if ((values[at] ?? 0) >= strong) strongPixels++
      if (x < left) left = x
      if (x > right) right = x
      if (y < top) top = y
      if (y > bottom) bottom = y
      for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
        for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
          const neighbour = row * width + column
          if (seen[neighbour] || (values[neighbour] ?? 0) < weak) continue
          seen[neighbour] = 1
          stroke[length++] = neighbour
        }
      }
    }
    if (strongPixels < STRONG_PIXELS_MIN || Math.hypot(right - left, bottom - top) < style.lineLengthMin) continue
    for (const at of stroke.subarray(0, length)) strokes[at] = 255
  }
  return strokes
}

/** The strength that this share of all pixels reaches. */
function strengthOfTop(values: Float32Array, share: number): number {
  let highest = 0
  for (let at = 0; at < values.length; at++) highest = Math.max(highest, values[at] ?? 0)
  if (highest === 0) return 0
  const scale = (HISTOGRAM_BINS - 1) / highest
  const histogram = new Uint32Array(HISTOGRAM_BINS)
  for (let at = 0; at < values.length; at++) {
    const value = values[at] ?? 0
    if (value === 0) continue
    const bin = (value * scale) | 0
    histogram[bin] = (histogram[bin] ?? 0) + 1
  }
  let bin = HISTOGRAM_BINS - 1
  for (let counted = 0; bin > 0 && counted < share * values.length; bin--) counted += histogram[bin] ?? 0
  return bin / scale
}
