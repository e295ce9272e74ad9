// Which way edges run: the structure tensor of a photo and the field of tangents it gives.
import { gaussianBlur, type Photo } from './planes.ts'

/** Unit vectors along the edges, one for each 2 × 2 pixels of the photo: half resolution is smooth enough. */
export interface Flow {
  width: number
  height: number
  x: Float32Array
  y: Float32Array
  /** 1 where there is any edge near by; elsewhere nothing needs to be computed. */
  active: Uint8Array
}

/** Steepness below which the photo counts as flat, as a share of black-to-white over a pixel. */
const GRADIENT_MIN = 0.004

/** Follows the edges of all three colours together, smoothed so that neighbours (within `sigma` pixels) agree. */
export function tangentFlow(photo: Photo, sigma: number): Flow {
  const tensor = structureTensor(photo)
  const { width, height } = tensor
  const smooth = (values: Float32Array) => gaussianBlur({ width, height, values }, sigma / 2).values
  const xx = smooth(tensor.xx)
  const xy = smooth(tensor.xy)
  const yy = smooth(tensor.yy)
  const x = new Float32Array(width * height)
  const y = new Float32Array(width * height)
  for (let cell = 0; cell < x.length; cell++) {
    const a = xx[cell] ?? 0
    const b = xy[cell] ?? 0
    const c = yy[cell] ?? 0
    // The tangent is the eigenvector of the smaller eigenvalue of [a b; b c].
    const largerEigenvalue = 0.5 * (a + c + Math.sqrt((a - c) * (a - c) + 4 * b * b))
    const tangentX = largerEigenvalue - a
    const length = Math.sqrt(tangentX * tangentX + b * b)
    x[cell] = length < 1e-12 ? 0 : tangentX / length
    y[cell] = length < 1e-12 ? 1 : -b / length
  }
  return { width, height, x, y, active: grown(tensor) }
}

interface Tensor {
  width: number
  height: number
  xx: Float32Array
  xy: Float32Array
  yy: Float32Array
  /** 1 where some colour is steeper than GRADIENT_MIN. */
  steep: Uint8Array
}

/** Products of the Sobel gradients of each colour, summed over colours and over 2 × 2 pixels. */
function structureTensor({ width, height, rgb }: Photo): Tensor {
  const cellsWide = (width + 1) >> 1
  const cellsHigh = (height + 1) >> 1
  const cells = cellsWide * cellsHigh
  const xx = new Float32Array(cells)
  const xy = new Float32Array(cells)
  const yy = new Float32Array(cells)
  const steep = new Uint8Array(cells)
  const row = width * 3
  const unit = 1 / 255 / 8
  const steepness = GRADIENT_MIN * GRADIENT_MIN
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const cell = (y >> 1) * cellsWide + (x >> 1)
      const pixel = y * row + x * 3
      let sumXx = 0
      let sumXy = 0
      let sumYy = 0
      for (let at = pixel; at < pixel + 3; at++) {
        const northWest = rgb[at - row - 3] ?? 0
        const northEast = rgb[at - row + 3] ?? 0
        const southWest = rgb[at + row - 3] ?? 0
        const southEast = rgb[at + row + 3] ?? 0
        const acrossX = northEast + 2 * (rgb[at + 3] ?? 0) + southEast - northWest - 2 * (rgb[at - 3] ?? 0) - southWest
        const acrossY =
          southWest + 2 * (rgb[at + row] ?? 0) + southEast - northWest - 2 * (rgb[at - row] ?? 0) - northEast
        const dx = acrossX * unit
        const dy = acrossY * unit
        sumXx += dx * dx
        sumXy += dx * dy
        sumYy += dy * dy
        if (dx * dx + dy * dy > steepness) steep[cell] = 1
      }
      xx[cell] = (xx[cell] ?? 0) + sumXx
      xy[cell] = (xy[cell] ?? 0) + sumXy
      yy[cell] = (yy[cell] ?? 0) + sumYy
    }
  }
  return { width: cellsWide, height: cellsHigh, xx, xy, yy, steep }
}

/** The steep cells and their four neighbours. */
function grown({ width, height, steep }: Tensor): Uint8Array {
  const active = new Uint8Array(steep.length)
  for (let y = 1; y < height - 1; y++) {
    for (let cell = y * width + 1; cell < y * width + width - 1; cell++) {
      const any = steep[cell] || steep[cell - 1] || steep[cell + 1] || steep[cell - width] || steep[cell + width]
      if (any) active[cell] = 1
    }
  }
  return active
}
