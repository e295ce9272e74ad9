// Line art from a model's reply: nothing of its SVG is kept; a new one is built from the shapes that are on the list.
import { ellipseSteps, lineSteps, type Matrix, multiply, parsePath, round, writePath } from './svg-path.ts'

/** As much as a model can say in the tokens it is given, several times over. */
const TEXT_LENGTH_MAX = 100_000
const ELEMENTS_MAX = 2000
const DEPTH_MAX = 32
const STEPS_MAX = 20_000
/** Pixels from the origin, beyond which nothing is drawn. */
const REACH_PX = 8192
const STROKE_WIDTH_MAX_PX = 200
/**
 * What the renderer may be given to do: the pixels of outline it follows, twice for a stroke, and the joins it rounds. So much
 * takes up to a third of a second of CPU; a rich drawing is a fifth of it.
 */
const WORK_MAX = 1_000_000

interface Tag {
  name: string
  attributes: Map<string, string>
  isClosing: boolean
  isEmpty: boolean
}

/** What elements inherit. */
interface Style {
  fill: string
  stroke: string
  strokeWidth: number
  cap: string
  join: string
  fillRule: string
  matrix: Matrix
}

/** Line art, unless the document says otherwise; what the model was told to begin with. */
const ROOT_STYLE: Omit<Style, 'matrix'> = {
  fill: 'none',
  stroke: '#000',
  strokeWidth: 2,
  cap: 'round',
  join: 'round',
  fillRule: 'nonzero',
}

const CAPS = ['butt', 'round', 'square']
const JOINS = ['miter', 'round', 'bevel']
const FILL_RULES = ['nonzero', 'evenodd']
const COLOR = /^(?:#[0-9a-f]{3}|#[0-9a-f]{6}|rgb\(\s*\d{1,3}\s*(?:,\s*\d{1,3}\s*){2}\)|[a-z]{3,20})$/i
const NUMBER = /^\s*([+-]?(?:\d{1,9}\.?\d{0,9}|\.\d{1,9})(?:e[+-]?\d)?)(?:px)?\s*$/i

/**
 * A new SVG of `width` × `height` pixels with the shapes of the first one in `text`, as plain paths in black, white and colours;
 * undefined when there is none, when it is damaged, draws nothing, or would be too much work to render. Whatever is not on the
 * list is left out, with all that is in it.
 */
export function cleanSvg(text: string, width: number, height: number): string | undefined {
  const begin = text.search(/<svg[\s>]/)
  const end = text.indexOf('</svg', begin)
  if (begin < 0 || end < 0 || end - begin > TEXT_LENGTH_MAX) return undefined
  const paths = new Drawing(width, height).read(tagsOf(text.slice(begin, end)))
  if (!paths || paths.length === 0) return undefined
  const size = `width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} fill="none">${paths.join('')}</svg>`
}

const TAG_NAME = /<(\/?)([a-zA-Z][\w:.-]*)/y
const ATTRIBUTE = /\s+([a-zA-Z_][\w:.-]*)\s*=\s*(?:"([^"<]*)"|'([^'<]*)')/y
const TAG_END = /\s*(\/?)>/y

/** The tags of a document in their order. Ends with undefined at a declaration or at damage. */
function* tagsOf(markup: string): Generator<Tag | undefined> {
  for (let at = markup.indexOf('<'); at >= 0; at = markup.indexOf('<', at)) {
    if (markup.startsWith('<!--', at)) {
      const end = markup.indexOf('-->', at + 4)
      if (end < 0) return yield undefined
      at = end
      continue
    }
    const opening = matchAt(TAG_NAME, markup, at)
    if (!opening) return yield undefined
    at += opening[0].length
    const attributes = new Map<string, string>()
    for (let found = matchAt(ATTRIBUTE, markup, at); found; found = matchAt(ATTRIBUTE, markup, at)) {
      attributes.set(found[1] ?? '', found[2] ?? found[3] ?? '')
      at += found[0].length
    }
    const closing = matchAt(TAG_END, markup, at)
    if (!closing) return yield undefined
    at += closing[0].length
    yield { name: opening[2] ?? '', attributes, isClosing: opening[1] === '/', isEmpty: closing[1] === '/' }
  }
}

function matchAt(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at
  return pattern.exec(text)
}

class Drawing {
  readonly #width: number
  readonly #height: number
  readonly #paths: string[] = []
  #steps = 0
  #work = 0

  constructor(width: number, height: number) {
    this.#width = width
    this.#height = height
  }

  read(tags: Iterable<Tag | undefined>): string[] | undefined {
    /** Of the open elements; undefined for those that are left out with all that is in them. */
    const open: { name: string; style: Style | undefined }[] = []
    let elements = 0
    for (const tag of tags) {
      if (!tag) return undefined
      if (tag.isClosing) {
        if (open.pop()?.name !== tag.name) return undefined
        continue
      }
      elements++
      if (elements > ELEMENTS_MAX || open.length > DEPTH_MAX) return undefined
      const style = open.length === 0 ? this.#rootStyle(tag) : this.#styleIn(open.at(-1)?.style, tag)
      if (open.length === 0 && !style) return undefined
      if (style && open.length > 0 && !this.#draw(tag, style)) return undefined
      if (!tag.isEmpty) open.push({ name: tag.name, style })
    }
    return this.#paths
  }

  /** The document's own coordinates, centred in the picture as large as they fit. */
  #rootStyle({ attributes }: Tag): Style | undefined {
    const sides = [numberIn(attributes, 'width'), numberIn(attributes, 'height')]
    const box = attributes.has('viewBox') ? numbersIn(attributes.get('viewBox') ?? '') : [0, 0, ...sides]
    const [x = 0, y = 0, width = 0, height = 0] = box ?? []
    if (!(width >= 1 && height >= 1)) return undefined
    const scale = Math.min(this.#width / width, this.#height / height)
    const matrix: Matrix = [
      scale,
      0,
      0,
      scale,
      (this.#width - width * scale) / 2 - x * scale,
      (this.#height - height * scale) / 2 - y * scale,
    ]
    return { ...styled(ROOT_STYLE, attributes), matrix }
  }

  #styleIn(outer: Style | undefined, { name, attributes }: Tag): Style | undefined {
    if (!outer || !(name === 'g' || Object.hasOwn(SHAPES, name))) return undefined
    const transform = attributes.get('transform')
    const own = transform === undefined ? IDENTITY : readTransform(transform)
    return own && { ...styled(outer, attributes), matrix: multiply(outer.matrix, own) }
  }

  /** Adds the shape, if it is one; false when the drawing has become too much. */
  #draw({ name, attributes }: Tag, style: Style): boolean {
    const steps = Object.hasOwn(SHAPES, name) ? SHAPES[name]?.(attributes) : undefined
    if (!steps || steps.length === 0) return true
    this.#steps += steps.length
    const path = writePath(steps, style.matrix, REACH_PX)
    if (!path) return this.#steps <= STEPS_MAX
    const [a, b, c, d] = style.matrix
    const scaledWidth = style.strokeWidth * Math.sqrt(Math.abs(a * d - b * c))
    // A scale beyond all numbers: what is not a number could not be counted, nor be drawn.
    if (!Number.isFinite(scaledWidth)) return this.#steps <= STEPS_MAX
    const strokeWidth = Math.min(STROKE_WIDTH_MAX_PX, round(scaledWidth))
    this.#work += 2 * path.length + 4 * strokeWidth * steps.length
    if (!(this.#steps <= STEPS_MAX && this.#work <= WORK_MAX)) return false
    const stroke =
      style.stroke === 'none'
        ? ''
        : ` stroke="${style.stroke}" stroke-width="${strokeWidth}" stroke-linecap="${style.cap}" stroke-linejoin="${style.join}"`
    this.#paths.push(`<path d="${path.data}" fill="${style.fill}" fill-rule="${style.fillRule}"${stroke}/>`)
    return true
  }
}

type Attributes = ReadonlyMap<string, string>

/** Each of these attributes is left out when its value is not one it may have. */
function styled<T extends Omit<Style, 'matrix'>>(inherited: T, attributes: Attributes): T {
  const oneOf = (name: string, allowed: string[]) => allowed.find((value) => value === attributes.get(name)?.trim())
  const width = numberIn(attributes, 'stroke-width')
  return {
    ...inherited,
    fill: colorIn(attributes, 'fill') ?? inherited.fill,
    stroke: colorIn(attributes, 'stroke') ?? inherited.stroke,
    strokeWidth: width !== undefined && width >= 0 ? width : inherited.strokeWidth,
    cap: oneOf('stroke-linecap', CAPS) ?? inherited.cap,
    join: oneOf('stroke-linejoin', JOINS) ?? inherited.join,
    fillRule: oneOf('fill-rule', FILL_RULES) ?? inherited.fillRule,
  }
}

function colorIn(attributes: Attributes, name: string): string | undefined {
  const color = attributes.get(name)?.trim().toLowerCase()
  if (color === undefined || color === 'inherit' || !COLOR.test(color)) return undefined
  if (color === 'transparent') return 'none'
  return color === 'currentcolor' ? '#000' : color
}

function numberIn(attributes: Attributes, name: string): number | undefined {
  const number = NUMBER.exec(attributes.get(name) ?? '')?.[1]
  return number === undefined ? undefined : Number(number)
}

/** Numbers between blanks or commas; undefined when anything else is among them. */
function numbersIn(list: string): number[] | undefined {
  const numbers = list
    .trim()
    .split(/[\s,]+/)
    .map((part) => Number(NUMBER.exec(part)?.[1] ?? Number.NaN))
  return numbers.every(Number.isFinite) ? numbers : undefined
}

const SHAPES: Record<string, (attributes: Attributes) => ReturnType<typeof parsePath>> = {
  path: (attributes) => parsePath(attributes.get('d') ?? '', STEPS_MAX),
  line: (attributes) =>
    lineSteps(
      ['x1', 'y1', 'x2', 'y2'].map((name) => numberIn(attributes, name) ?? 0),
      false,
    ),
  polyline: (attributes) => pointSteps(attributes, false),
  polygon: (attributes) => pointSteps(attributes, true),
  circle: (attributes) => ellipse(attributes, 'r', 'r'),
  ellipse: (attributes) => ellipse(attributes, 'rx', 'ry'),
  rect(attributes) {
    const [x = 0, y = 0, width = 0, height = 0] = ['x', 'y', 'width', 'height'].map((name) =>
      numberIn(attributes, name),
    )
    if (!(width > 0 && height > 0)) return undefined
    return lineSteps([x, y, x + width, y, x + width, y + height, x, y + height], true)
  },
}

function pointSteps(attributes: Attributes, isClosed: boolean) {
  const points = numbersIn(attributes.get('points') ?? '')
  return points && lineSteps(points, isClosed)
}

function ellipse(attributes: Attributes, radiusX: string, radiusY: string) {
  const [rx = 0, ry = 0] = [numberIn(attributes, radiusX), numberIn(attributes, radiusY)]
  return rx > 0 && ry > 0
    ? ellipseSteps(numberIn(attributes, 'cx') ?? 0, numberIn(attributes, 'cy') ?? 0, rx, ry)
    : undefined
}

const IDENTITY: Matrix = [1, 0, 0, 1, 0, 0]
const TRANSFORM = /[\s,]*(matrix|translate|scale|rotate|skewX|skewY)\s*\(([^()]*)\)/y
const TRANSFORMS_MAX = 16

/** The matrix of a transform list; undefined when it is not one, so that the element is left out. */
function readTransform(list: string): Matrix | undefined {
  let matrix = IDENTITY
  let at = 0
  for (let count = 0; list.slice(at).trim() !== ''; count++) {
    const found = matchAt(TRANSFORM, list, at)
    const numbers = found && numbersIn(found[2] ?? '')
    const own = numbers ? transformation(found[1] ?? '', numbers) : undefined
    if (!found || !own || count >= TRANSFORMS_MAX) return undefined
    matrix = multiply(matrix, own)
    at += found[0].length
  }
  return matrix
}

function transformation(name: string, numbers: number[]): Matrix | undefined {
  const [a = 0, b, c, d, e, f] = numbers
  const radians = (a * Math.PI) / 180
  if (name === 'translate') return [1, 0, 0, 1, a, b ?? 0]
  if (name === 'scale') return [a, 0, 0, b ?? a, 0, 0]
  if (name === 'skewX') return [1, 0, Math.tan(radians), 1, 0, 0]
  if (name === 'skewY') return [1, Math.tan(radians), 0, 1, 0, 0]
  if (name === 'rotate') {
    const [cos, sin] = [Math.cos(radians), Math.sin(radians)]
    const [x, y] = [b ?? 0, c ?? 0]
    return [cos, sin, -sin, cos, x - cos * x + sin * y, y - sin * x - cos * y]
  }
  if (b === undefined || c === undefined || d === undefined || e === undefined || f === undefined) return undefined
  return [a, b, c, d, e, f]
}
