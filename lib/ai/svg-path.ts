// The geometry of SVG: path data and basic shapes as absolute lines and curves, transformed, measured and written anew.

/** a b c d e f of SVG's matrix(). */
export type Matrix = readonly [number, number, number, number, number, number]

/** One step of a path, in absolute coordinates: the points of a move, a line or a cubic curve; none for a close. */
interface Step {
  code: 'M' | 'L' | 'C' | 'Z'
  points: number[]
}

const PARAMETERS: Record<string, number> = { M: 2, L: 2, H: 1, V: 1, C: 6, S: 4, Q: 4, T: 2, A: 7, Z: 0 }
const COMMAND = /[\s,]*([MLHVCSQTAZ])/iy
const NUMBER = /[\s,]*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)/iy
/** Flags need no separator: "a1 1 0 0150 50". */
const FLAG = /[\s,]*([01])/y
const CIRCLE = 0.5522847498

/** The steps of path data; undefined when it is not written as SVG defines it, or is longer than `stepsMax`. */
export function parsePath(text: string, stepsMax: number): Step[] | undefined {
  const data = text.trimEnd()
  const pen = new Pen()
  let at = 0
  const take = (pattern: RegExp) => {
    pattern.lastIndex = at
    const found = pattern.exec(data)?.[1]
    if (found !== undefined) at = pattern.lastIndex
    return found
  }
  while (at < data.length) {
    const command = take(COMMAND)
    if (command === undefined || (pen.steps.length === 0 && !/m/i.test(command))) return undefined
    const count = PARAMETERS[command.toUpperCase()] ?? 0
    for (let round = 0; ; round++) {
      const values: number[] = []
      while (values.length < count) {
        const isFlag = count === 7 && (values.length === 3 || values.length === 4)
        const value = take(isFlag ? FLAG : NUMBER)
        if (value === undefined) break
        values.push(Number(value))
      }
      if (values.length < count) {
        if (round > 0 && values.length === 0) break
        return undefined
      }
      // Further pairs after a move are lines.
      pen.draw(round > 0 && /m/i.test(command) ? (command === 'm' ? 'l' : 'L') : command, values)
      if (pen.steps.length > stepsMax) return undefined
      if (count === 0) break
    }
  }
  return pen.steps
}

/** Turns commands, relative and shorthand ones too, into steps. */
class Pen {
  readonly steps: Step[] = []
  #x = 0
  #y = 0
  #startX = 0
  #startY = 0
  /** The last control point, for the shorthands that mirror it, and the kind of curve it belongs to. */
  #control: { kind: string; x: number; y: number } | undefined

  draw(command: string, values: number[]): void {
    const kind = command.toUpperCase()
    const [dx, dy] = command === kind ? [0, 0] : [this.#x, this.#y]
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = values.map((value, at) => value + (at % 2 === 0 ? dx : dy))
    if (kind === 'M') this.#move(a, b)
    else if (kind === 'L') this.#line(a, b)
    else if (kind === 'H') this.#line(a, this.#y)
    else if (kind === 'V') this.#line(this.#x, (values[0] ?? 0) + dy)
    else if (kind === 'C') this.#cubic(a, b, c, d, e, f)
    else if (kind === 'S') this.#cubic(...this.#mirrored('C'), a, b, c, d)
    else if (kind === 'Q') this.#quadratic(a, b, c, d)
    else if (kind === 'T') this.#quadratic(...this.#mirrored('Q'), a, b)
    else if (kind === 'A') this.#arc(values, dx, dy)
    else this.#close()
  }

  #move(x: number, y: number): void {
    this.steps.push({ code: 'M', points: [x, y] })
    this.#startX = x
    this.#startY = y
    this.#moveTo(x, y)
  }

  #line(x: number, y: number): void {
    this.steps.push({ code: 'L', points: [x, y] })
    this.#moveTo(x, y)
  }

  #cubic(x1: number, y1: number, x2: number, y2: number, x: number, y: number): void {
    this.steps.push({ code: 'C', points: [x1, y1, x2, y2, x, y] })
    this.#moveTo(x, y)
    this.#control = { kind: 'C', x: x2, y: y2 }
  }

  #quadratic(x1: number, y1: number, x: number, y: number): void {
    const third = (from: number, to: number) => from + (2 / 3) * (to - from)
    this.#cubic(third(this.#x, x1), third(this.#y, y1), third(x, x1), third(y, y1), x, y)
    this.#control = { kind: 'Q', x: x1, y: y1 }
  }

  /** In at most four curves. https://www.w3.org/TR/SVG11/implnote.html#ArcImplementationNotes */
  #arc(values: number[], dx: number, dy: number): void {
    const [rx0 = 0, ry0 = 0, angle = 0, large, sweep, x0 = 0, y0 = 0] = values
    const [x, y] = [x0 + dx, y0 + dy]
    const [cos, sin] = [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)]
    const [halfX, halfY] = [(this.#x - x) / 2, (this.#y - y) / 2]
    const [px, py] = [cos * halfX + sin * halfY, cos * halfY - sin * halfX]
    if (rx0 === 0 || ry0 === 0 || (px === 0 && py === 0)) {
      this.#line(x, y)
      return
    }
    const stretch = Math.max(1, Math.hypot(px / rx0, py / ry0))
    const [rx, ry] = [Math.abs(rx0) * stretch, Math.abs(ry0) * stretch]
    const reach = (px / rx) ** 2 + (py / ry) ** 2
    const aside = (large === sweep ? -1 : 1) * Math.sqrt(Math.max(0, 1 / reach - 1))
    const [cx, cy] = [(aside * rx * py) / ry, (-aside * ry * px) / rx]
    const from = Math.atan2((py - cy) / ry, (px - cx) / rx)
    const to = Math.atan2((-py - cy) / ry, (-px - cx) / rx)
    const turn = ((sweep ? 1 : -1) * (to - from) + 4 * Math.PI) % (2 * Math.PI)
    const pieces = Math.max(1, Math.ceil(turn / (Math.PI / 2) - 1e-9))
    const step = ((sweep ? 1 : -1) * turn) / pieces
    const handle = (4 / 3) * Math.tan(step / 4)
    const [midX, midY] = [(this.#x + x) / 2, (this.#y + y) / 2]
    const place = (ux: number, uy: number): [number, number] => {
      const [ex, ey] = [cx + rx * ux, cy + ry * uy]
      return [cos * ex - sin * ey + midX, sin * ex + cos * ey + midY]
    }
    for (let piece = 0; piece < pieces; piece++) {
      const [t, u] = [from + piece * step, from + (piece + 1) * step]
      this.#cubic(
        ...place(Math.cos(t) - handle * Math.sin(t), Math.sin(t) + handle * Math.cos(t)),
        ...place(Math.cos(u) + handle * Math.sin(u), Math.sin(u) - handle * Math.cos(u)),
        ...(piece === pieces - 1 ? ([x, y] as const) : place(Math.cos(u), Math.sin(u))),
      )
    }
    this.#control = undefined
  }

  #close(): void {
    this.steps.push({ code: 'Z', points: [] })
    this.#moveTo(this.#startX, this.#startY)
  }

  #moveTo(x: number, y: number): void {
    this.#x = x
    this.#y = y
    this.#control = undefined
  }

  #mirrored(kind: string): [number, number] {
    if (this.#control?.kind !== kind) return [this.#x, this.#y]
    return [2 * this.#x - this.#control.x, 2 * this.#y - this.#control.y]
  }
}

/** An ellipse as four curves. */
export function ellipseSteps(cx: number, cy: number, rx: number, ry: number): Step[] {
  const [kx, ky] = [rx * CIRCLE, ry * CIRCLE]
  return [
    { code: 'M', points: [cx + rx, cy] },
    { code: 'C', points: [cx + rx, cy + ky, cx + kx, cy + ry, cx, cy + ry] },
    { code: 'C', points: [cx - kx, cy + ry, cx - rx, cy + ky, cx - rx, cy] },
    { code: 'C', points: [cx - rx, cy - ky, cx - kx, cy - ry, cx, cy - ry] },
    { code: 'C', points: [cx + kx, cy - ry, cx + rx, cy - ky, cx + rx, cy] },
    { code: 'Z', points: [] },
  ]
}

/** Straight lines through the points x1 y1 x2 y2 … */
export function lineSteps(points: readonly number[], isClosed: boolean): Step[] {
  const steps: Step[] = []
  for (let at = 0; at + 1 < points.length; at += 2) {
    steps.push({ code: at === 0 ? 'M' : 'L', points: points.slice(at, at + 2) })
  }
  return isClosed ? [...steps, { code: 'Z', points: [] }] : steps
}

/** The matrix that applies `inner` first. */
export function multiply(outer: Matrix, inner: Matrix): Matrix {
  const [a, b, c, d, e, f] = outer
  const [g, h, i, j, k, l] = inner
  return [a * g + c * h, b * g + d * h, a * i + c * j, b * i + d * j, a * k + c * l + e, b * k + d * l + f]
}

/**
 * The steps written as path data after the transformation, with the length of their outline (of curves: of their handles,
 * which is never less). Undefined when a point lies farther than `reach` from the origin, or nowhere.
 */
export function writePath(steps: Step[], matrix: Matrix, reach: number): { data: string; length: number } | undefined {
  const [a, b, c, d, e, f] = matrix
  let [lastX, lastY] = [0, 0]
  let length = 0
  let data = ''
  for (const { code, points } of steps) {
    data += code
    for (let at = 0; at < points.length; at += 2) {
      const [x0 = 0, y0 = 0] = points.slice(at, at + 2)
      const [x, y] = [a * x0 + c * y0 + e, b * x0 + d * y0 + f]
      if (!(Math.abs(x) <= reach && Math.abs(y) <= reach)) return undefined
      if (code !== 'M') length += Math.hypot(x - lastX, y - lastY)
      data += `${at === 0 ? '' : ' '}${round(x)} ${round(y)}`
      lastX = x
      lastY = y
    }
  }
  return { data, length }
}

/** Hundredths of a pixel are finer than anyone sees. */
export function round(value: number): number {
  return Math.round(value * 100) / 100
}
