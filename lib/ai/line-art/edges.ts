// How strongly each pixel belongs to a line: darker than what lies across the edge, and so all along it.
import type { Flow } from './flow.ts'
import { boxBlur, gaussian, type Photo, type Plane } from './planes.ts'
import type { LineStyle } from './styles.ts'

/** The wider Gaussian of the difference, in units of the narrower: near the ideal edge filter of Marr and Hildreth. */
const WIDER = 1.6
/** Weber's law: the eye sees the ratio, not the difference, so an edge in the dark counts for up to 1/0.35 as much. */
const WEBER_FLOOR = 0.35

/** Line strength of every pixel, 0 or more; flat regions and dense texture are near 0. */
export function findLines(photo: Photo, flow: Flow, style: LineStyle): Plane {
  const edges = darkSides(photo, flow, style.edgeSigma)
  const lines = alongFlow(edges, flow, style.lineSigma)
  return withoutTexture(lines, style.surroundWeight, style.surroundRadius)
}

/** Difference of Gaussians sampled on a straight line across each edge; only the darker side of an edge answers. */
function darkSides({ width, height, rgb }: Photo, flow: Flow, sigma: number): Plane {
  const kernel = differenceKernel(sigma)
  const reach = kernel.length - 1
  const values = new Float32Array(width * height)
  const row = width * 3
  const rightmost = width - 1.01
  const lowest = height - 1.01
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const cell = (y >> 1) * flow.width + (x >> 1)
      if (!flow.active[cell]) continue
      const acrossX = -(flow.y[cell] ?? 0)
      const acrossY = flow.x[cell] ?? 0
      const at = y * row + x * 3
      const centre = kernel[0] ?? 0
      let red = centre * (rgb[at] ?? 0)
      let green = centre * (rgb[at + 1] ?? 0)
      let blue = centre * (rgb[at + 2] ?? 0)
      for (let step = -reach; step <= reach; step++) {
        if (step === 0) continue
        // Bilinear sample at a fractional position.
        let sampleX = x + acrossX * step
        let sampleY = y + acrossY * step
        if (sampleX < 0) sampleX = 0
        else if (sampleX > rightmost) sampleX = rightmost
        if (sampleY < 0) sampleY = 0
        else if (sampleY > lowest) sampleY = lowest
        const left = sampleX | 0
        const top = sampleY | 0
        const right = sampleX - left
        const bottom = sampleY - top
        const weight = kernel[step < 0 ? -step : step] ?? 0
        const nw = weight * (1 - right) * (1 - bottom)
        const ne = weight * right * (1 - bottom)
        const sw = weight * (1 - right) * bottom
        const se = weight * right * bottom
        const a = top * row + left * 3
        const b = a + row
        red += nw * (rgb[a] ?? 0) + ne * (rgb[a + 3] ?? 0) + sw * (rgb[b] ?? 0) + se * (rgb[b + 3] ?? 0)
        green += nw * (rgb[a + 1] ?? 0) + ne * (rgb[a + 4] ?? 0) + sw * (rgb[b + 1] ?? 0) + se * (rgb[b + 4] ?? 0)
        blue += nw * (rgb[a + 2] ?? 0) + ne * (rgb[a + 5] ?? 0) + sw * (rgb[b + 2] ?? 0) + se * (rgb[b + 5] ?? 0)
      }
      // Half the luma, half the colour that changes most: red on green of equal brightness is an edge as well.
      const darkness = -0.5 * (Math.min(red, green, blue) + luma(red, green, blue))
      if (darkness <= 0) continue
      const brightness = luma(rgb[at] ?? 0, rgb[at + 1] ?? 0, rgb[at + 2] ?? 0) / 255
      values[y * width + x] = darkness / 255 / (WEBER_FLOOR + (1 - WEBER_FLOOR) * brightness)
    }
  }
  return { width, height, values }
}

function luma(red: number, green: number, blue: number): number {
  return 0.3 * red + 0.59 * green + 0.11 * blue
}

/** Half of the symmetric kernel: weight at distance 0, 1, 2, … pixels. Its whole sums to 0, so flat colour gives 0. */
function differenceKernel(sigma: number): Float64Array {
  const reach = Math.max(2, Math.ceil(2 * sigma * WIDER))
  const bell = (width: number) => {
    const half = Array.from({ length: reach + 1 }, (_, distance) => gaussian(distance, width))
    const total = half.reduce((sum, weight, distance) => sum + (distance === 0 ? weight : 2 * weight), 0)
    return half.map((weight) => weight / total)
  }
  const wide = bell(sigma * WIDER)
  return Float64Array.from(bell(sigma), (weight, distance) => weight - (wide[distance] ?? 0))
}

/** Gaussian mean of the response along the curve that follows the flow both ways: this is what joins broken lines. */
function alongFlow({ width, height, values: edges }: Plane, flow: Flow, sigma: number): Plane {
  const steps = Math.max(1, Math.ceil(sigma * 2))
  const kernel = Float64Array.from({ length: steps + 1 }, (_, step) => gaussian(step, sigma))
  const values = new Float32Array(width * height)
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const start = (y >> 1) * flow.width + (x >> 1)
      if (!flow.active[start]) continue
      let sum = edges[y * width + x] ?? 0
      let weights = 1
      for (let way = -1; way <= 1; way += 2) {
        let stepX = way * (flow.x[start] ?? 0)
        let stepY = way * (flow.y[start] ?? 0)
        let walkX = x + 0.5
        let walkY = y + 0.5
        for (let step = 1; step <= steps; step++) {
          walkX += stepX
          walkY += stepY
          if (walkX < 0 || walkY < 0 || walkX >= width || walkY >= height) break
          const column = walkX | 0
          const line = walkY | 0
          const weight = kernel[step] ?? 0
          sum += weight * (edges[line * width + column] ?? 0)
          weights += weight
          const cell = (line >> 1) * flow.width + (column >> 1)
          const tangentX = flow.x[cell] ?? 0
          const tangentY = flow.y[cell] ?? 0
          // A tangent has no sign: keep walking the way we came.
          const back = tangentX * stepX + tangentY * stepY < 0
          stepX = back ? -tangentX : tangentX
          stepY = back ? -tangentY : tangentY
        }
      }
      values[y * width + x] = sum / weights
    }
  }
  return { width, height, values }
}

/** Surround suppression: what is as strong as all around it (fur, grass, fabric) fades, a lone outline stays. */
function withoutTexture(lines: Plane, weight: number, radius: number): Plane {
  const surround = boxBlur(boxBlur(lines, radius >> 1), radius >> 1).values
  const values = new Float32Array(surround.length)
  for (let at = 0; at < values.length; at++) {
    values[at] = Math.max(0, (lines.values[at] ?? 0) - weight * (surround[at] ?? 0))
  }
  return { width: lines.width, height: lines.height, values }
}
