// Where settings come from and how the sources combine: objects merge, lists and values replace.
import { bareNode, childNode, isObject, type Key, nearest, type SchemaNode } from './config-check.ts'
import { type ConfigProblem, dottedPath } from './config-errors.ts'
import { Settings } from './config-schema.ts'

/** One source of settings. Its `value` stands at `prefix` in the merged whole. */
export interface Layer {
  source: string
  prefix: Key[]
  value: unknown
  /** Where `value` stands in the file; absent when it comes from a variable. */
  filePath?: Key[]
}

/** Merges the layers, later ones over earlier ones, without changing any. */
export function combine(layers: Layer[]): unknown {
  return layers.reduce<unknown>((whole, { prefix, value }) => withValue(whole, prefix, value), undefined)
}

function withValue(whole: unknown, path: Key[], value: unknown): unknown {
  const [key, ...rest] = path
  if (key === undefined) return isObject(whole) && isObject(value) ? mergeObjects(whole, value) : value
  if (typeof key === 'number') {
    const list = Array.isArray(whole) ? [...whole] : []
    list[key] = withValue(list[key], rest, value)
    return list
  }
  const object = isObject(whole) ? whole : {}
  return { ...object, [key]: withValue(object[key], rest, value) }
}

function mergeObjects(one: Record<string, unknown>, other: Record<string, unknown>): Record<string, unknown> {
  const merged = Object.entries(other).map(([key, value]) => [key, withValue(one[key], [], value)])
  return { ...one, ...Object.fromEntries(merged) }
}

/**
 * The layer to blame for what is wrong at `path`: the highest that has a value there; where the value is missing, the
 * lowest of those that come closest to it.
 */
export function responsibleLayer(path: Key[], layers: Layer[]): Layer | undefined {
  let closest: { layer: Layer; depth: number } | undefined
  for (const layer of layers.toReversed()) {
    const { depth, replaces } = followPath(layer, path)
    if (depth === path.length) return layer
    if (!closest || depth >= closest.depth) closest = { layer, depth }
    if (replaces) break
  }
  return closest?.layer
}

/** How much of `path` a layer has, and whether it hides the layers below it there. */
function followPath({ prefix, value }: Layer, path: Key[]): { depth: number; replaces: boolean } {
  let inner = value
  let replaces = false
  for (const [depth, key] of path.entries()) {
    if (depth < prefix.length) {
      if (key !== prefix[depth]) return { depth, replaces: false }
      continue
    }
    if (Array.isArray(inner)) replaces = true
    else if (!isObject(inner)) return { depth, replaces: true }
    if (!Object.hasOwn(inner, key)) return { depth, replaces }
    inner = Reflect.get(inner, key)
  }
  return { depth: path.length, replaces }
}

/**
 * Turns FORK__ variables into layers over `whole`, the shorter paths first, so that one variable may refine what
 * another one sets. Variables that name no setting become problems.
 */
export function overrideLayers(
  variables: Record<string, string>,
  whole: unknown,
): { overrides: Layer[]; problems: ConfigProblem[] } {
  const overrides: Layer[] = []
  const problems: ConfigProblem[] = []
  let current = whole
  const inOrder = Object.entries(variables)
    .map(([name, value]) => ({ name, value, segments: name.split('__').slice(1) }))
    .sort((one, other) => one.segments.length - other.segments.length || compareNames(one.name, other.name))
  for (const { name, value, segments } of inOrder) {
    const target = findSetting(name, segments, current)
    if ('message' in target) {
      problems.push(target)
      continue
    }
    const layer = { source: name, prefix: target.path, value: overrideValue(value, target.node) }
    overrides.push(layer)
    current = withValue(current, layer.prefix, layer.value)
  }
  return { overrides, problems }
}

/** Entry 2 before entry 10. */
function compareNames(one: string, other: string): number {
  return one.localeCompare(other, 'en', { numeric: true })
}

function findSetting(
  name: string,
  segments: string[],
  whole: unknown,
): { path: Key[]; node: SchemaNode } | ConfigProblem {
  const path: Key[] = []
  let node: SchemaNode = Settings
  let value = whole
  for (const [index, segment] of segments.entries()) {
    const key = matchKey(segment, node, value)
    const child = key === undefined ? undefined : childNode(node, key)
    if (key === undefined || child === undefined) {
      const meant = nearest(segment, keysOf(node, value).map(variableSegment))
      const suggestion = meant && ['FORK', ...segments.with(index, meant)].join('__')
      const message = Array.isArray(value)
        ? `no such entry: ${dottedPath(path)} has ${value.length} and takes one more at index ${value.length}`
        : 'no such setting'
      return { source: name, path: '', message, ...(suggestion && { suggestion }) }
    }
    path.push(key)
    node = child
    value = isObject(value) || Array.isArray(value) ? Reflect.get(value, key) : undefined
  }
  return { path, node }
}

function matchKey(segment: string, node: SchemaNode, value: unknown): Key | undefined {
  if (bareNode(node).item) {
    const indexMax = Array.isArray(value) ? value.length : 0
    return /^\d{1,4}$/.test(segment) && Number(segment) <= indexMax ? Number(segment) : undefined
  }
  const letters = (name: string) => name.toLowerCase().replaceAll('_', '')
  return keysOf(node, value).find((key) => letters(key) === letters(segment))
}

function keysOf(node: SchemaNode, value: unknown): string[] {
  const { entries, value: recordValue } = bareNode(node)
  if (entries) return Object.keys(entries)
  return recordValue && isObject(value) ? Object.keys(value) : []
}

function variableSegment(key: string): string {
  return key.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase()
}

function overrideValue(text: string, node: SchemaNode): unknown {
  const value = jsonOrText(text)
  // A brand called "1984" is text, although it reads as a number.
  return bareNode(node).type === 'string' && typeof value !== 'string' ? text : value
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
