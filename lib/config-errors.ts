// Configuration problems for people: which file or variable, which line and column, and what was probably meant.
import { createRequire } from 'node:module'
import type { Node, ParseError } from 'jsonc-parser'
import type { Key } from './config-check.ts'

// Vercel's file tracer follows a `require` that was made by this very line.
const require = createRequire(import.meta.url)

export interface ConfigProblem {
  /** The file, or the environment variable, that holds the mistake. */
  source: string
  /** Such as `payments.packs[0].priceCents`; empty when it is about the source as a whole. */
  path: string
  line?: number
  column?: number
  message: string
  suggestion?: string
}

/** Everything that is wrong with the configuration at once; the message lists it as `formatProblem` does. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: ConfigProblem[]

  constructor(problems: ConfigProblem[]) {
    super(`The configuration cannot be used:\n${problems.map(formatProblem).join('\n')}`)
    this.problems = problems
  }
}

/** One line: `fork.config.json:14:3  trail  unknown key, did you mean "trial"?`. */
export function formatProblem({ source, path, line, column, message, suggestion }: ConfigProblem): string {
  const place = line === undefined ? source : `${source}:${line}:${column}`
  const question = suggestion === undefined ? '' : `, did you mean "${suggestion}"?`
  return [place, path, message + question].filter((part) => part !== '').join('  ')
}

export function dottedPath(path: readonly Key[]): string {
  return path
    .map((key) => (typeof key === 'number' ? `[${key}]` : `.${key}`))
    .join('')
    .replace(/^\./, '')
}

interface Position {
  line: number
  column: number
}

/**
 * Finds places in the text of a JSON file: the value at a path, or the key that names it. A path that leads nowhere
 * gives the innermost value on the way.
 */
export function positionFinder(text: string): (path: readonly Key[], at: 'key' | 'value') => Position {
  let root: Node | undefined
  return (path, at) => {
    root ??= parser().parseTree(text)
    const [node, depth] = innermostNode(root, path)
    const isKey = at === 'key' && depth === path.length && node?.parent?.type === 'property'
    const place = isKey ? node.parent?.children?.[0] : node
    return positionAt(text, place?.offset ?? 0)
  }
}

function innermostNode(root: Node | undefined, path: readonly Key[]): [Node | undefined, number] {
  if (root) {
    for (let depth = path.length; depth > 0; depth--) {
      const node = parser().findNodeAtLocation(root, path.slice(0, depth))
      if (node) return [node, depth]
    }
  }
  return [root, 0]
}

/** The first mistake in a text that is not JSON, as this product's words and place; undefined when there is none. */
export function syntaxMistake(text: string): (Position & { message: string }) | undefined {
  const errors: ParseError[] = []
  parser().parseTree(text, errors, { disallowComments: true, allowTrailingComma: false, allowEmptyContent: false })
  const [first] = errors
  if (!first) return undefined
  const code = parser().printParseErrorCode(first.error)
  return { ...positionAt(text, first.offset), message: SYNTAX_MISTAKES[code] ?? `is not JSON (${code})` }
}

const SYNTAX_MISTAKES: Record<string, string> = {
  PropertyNameExpected: 'a key in double quotes must stand here (or a comma is too many)',
  ValueExpected: 'a value must stand here (or a comma is too many)',
  ColonExpected: 'a ":" is missing here',
  CommaExpected: 'a "," is missing here',
  CloseBraceExpected: 'a "}" is missing here',
  CloseBracketExpected: 'a "]" is missing here',
  EndOfFileExpected: 'the file must end here',
  InvalidCommentToken: 'comments are not allowed in this file',
  InvalidSymbol: 'text must stand in double quotes',
  UnexpectedEndOfString: 'the closing quote is missing',
  InvalidEscapeCharacter: 'this escape is not known in JSON',
  InvalidCharacter: 'this character must be escaped',
}

function positionAt(text: string, offset: number): Position {
  const before = text.slice(0, offset)
  return { line: before.split('\n').length, column: offset - before.lastIndexOf('\n') }
}

/** Loaded only when there is something to report; synchronously, because reading the configuration is. */
function parser(): typeof import('jsonc-parser') {
  return require('jsonc-parser')
}
