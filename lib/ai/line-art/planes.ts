// Pictures as plain arrays, row after row, and the two smoothings that every stage shares.
//
// Reads are written `plane[index] ?? 0` all over: the compiler cannot know that an index is inside, and the optimiser
// removes the check.

/** A decoded photo, three bytes a pixel. */
export interface Photo {
  width: number
  height: number
  rgb: Uint8Array<ArrayBuffer>
}

/** One number a pixel. */
export interface Plane {
  width: number
  height: number
  values: Float32Array
}

/** Gaussian blur, separable; the border pixels repeat outwards. */
export function gaussianBlur({ width, height, values }: Plane, sigma: number): Plane {
  const radius = Math.max(1, Math.ceil(sigma * 2.5))
  const kernel = gaussianKernel(radius, sigma)
  const rows = new Float32Array(width * height)
  const padded = new Float32Array(width + 2 * radius)
  for (let y = 0; y < height; y++) {
    const start = y * width
    padded.fill(values[start] ?? 0, 0, radius)
    padded.set(values.subarray(start, start + width), radius)
    padded.fill(values[start + width - 1] ?? 0, radius + width)
    for (let x = 0; x < width; x++) {
      let sum = 0
      for (let tap = 0; tap <= 2 * radius; tap++) sum += (kernel[tap] ?? 0) * (padded[x + tap] ?? 0)
      rows[start + x] = sum
    }
  }
  const blurred = new Float32Array(width * height)
  for (let y = 0; y < height; y++) {
    for (let tap = -radius; tap <= radius; tap++) {
      const weight = kernel[tap + radius] ?? 0
      const source = clamp(y + tap, 0, height - 1) * width
      for (let x = 0; x < width; x++) {
        blurred[y * width + x] = (blurred[y * width + x] ?? 0) + weight * (rows[source + x] ?? 0)
      }
    }
  }
  return { width, height, values: blurred }
}

function gaussianKernel(radius: number, sigma: number): Float32Array {
  const weights = Array.from({ length: 2 * radius + 1 }, (_, tap) => gaussian(tap - radius, sigma))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return Float32Array.from(weights, (weight) => weight / total)
}

/** The bell curve of width `sigma`, 1 at its middle. */
export function gaussian(distance: number, sigma: number): number {
  return Math.exp((-distance * distance) / (2 * sigma * sigma))
}

/** Mean over a square of 2 × radius + 1 pixels, by running sums; the border pixels repeat outwards. */
export function boxBlur({ width, height, values }: Plane, radius: number): Plane {
  const side = 2 * radius + 1
  const rows = new Float32Array(width * height)
  for (let y = 0; y < height; y++) {
    const start = y * width
    const end = start + width - 1
    let sum = 0
    for (let tap = -radius; tap <= radius; tap++) sum += values[clamp(start + tap, start, end)] ?? 0
    for (let at = start; at <= end; at++) {
      rows[at] = sum / side
      sum += (values[Math.min(end, at + radius + 1)] ?? 0) - (values[Math.max(start, at - radius)] ?? 0)
    }
  }
  const blurred = new Float32Array(width * height)
  const sums = new Float32Array(width)
  for (let tap = -radius; tap <= radius; tap++) {
    const row = clamp(tap, 0, height - 1) * width
    for (let x = 0; x < width; x++) sums[x] = (sums[x] ?? 0) + (rows[row + x] ?? 0)
  }
  for (let y = 0; y < height; y++) {
    const entering = Math.min(height - 1, y + radius + 1) * width
    const leaving = Math.max(0, y - radius) * width
    for (let x = 0; x < width; x++) {
      const sum = sums[x] ?? 0
      blurred[y * width + x] = sum / side
      sums[x] = sum + (rows[entering + x] ?? 0) - (rows[leaving + x] ?? 0)
    }
  }
  return { width, height, values: blurred }
}

function clamp(value: number, lowest: number, highest: number): number {
  return Math.min(Math.max(value, lowest), highest)
}
