// A request's body: read whole under a cap, and parsed as JSON or as the route's own form.
import * as v from 'valibot'
import { AppError } from './errors.ts'

/** Reads the body, refusing more than `bytesMax` before it is in memory. Chunk by chunk, which measured cheaper than arrayBuffer(). */
export async function readBytes(request: Request, bytesMax: number): Promise<Buffer> {
  const declared = Number(request.headers.get('content-length') ?? 0)
  if (declared > bytesMax) throw tooLarge(bytesMax)
  if (request.body === null) return Buffer.alloc(0)
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of request.body) {
    length += chunk.length
    if (length > bytesMax) throw tooLarge(bytesMax)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** The media type without parameters, in lower case; '' when the request names none. */
export function mediaType(request: Request): string {
  return (request.headers.get('content-type') ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? ''
}

/** Whether a body of this media type is read as JSON; one without a type is. */
export function isJson(type: string): boolean {
  return type === '' || type === 'application/json' || type.endsWith('+json')
}

/** Parses a JSON body, which is an object everywhere in this API. Throws INVALID_JSON or VALIDATION_FAILED. */
export function parseJson(bytes: Buffer): object {
  const value = parse(bytes)
  // Every object has these, so that no schema sees them as unknown.
  const inherited = Object.keys(value ?? {}).find((name) => name in Object.prototype)
  if (inherited !== undefined) throw invalidField(inherited, 'Unknown field.')
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  throw invalidField('', 'The body must be a JSON object.')
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch (cause) {
    const message = bytes.length === 0 ? 'The body is empty; JSON is expected.' : 'The body is not valid JSON.'
    throw new AppError('INVALID_JSON', message, { cause })
  }
}

/** Checks a value against a schema; every issue is reported with its dotted path. */
export function validate<S extends v.GenericSchema>(
  schema: S,
  value: unknown,
  what = 'request body',
): v.InferOutput<S> {
  const result = v.safeParse(schema, value)
  if (result.success) {
    const unstorable = unstorableTexts(result.output)
    if (unstorable.length > 0) throw invalid(what, unstorable)
    return result.output
  }
  const issues = result.issues.map((issue) => ({
    path: v.getDotPath(issue) ?? '',
    message: issue.type === 'strict_object' && issue.expected === 'never' ? 'Unknown field.' : issue.message,
  }))
  throw invalid(what, issues)
}

interface Issue {
  path: string
  message: string
}

/** Texts that JSON can carry but PostgreSQL cannot: with a NUL, or with half of a surrogate pair. */
function unstorableTexts(value: unknown, path: string[] = []): Issue[] {
  if (typeof value === 'string') {
    const storable = value.isWellFormed() && !value.includes('\0')
    return storable ? [] : [{ path: path.join('.'), message: 'Contains characters that are not text.' }]
  }
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, inner]) => unstorableTexts(inner, [...path, name]))
}

function invalid(what: string, issues: Issue[]): AppError {
  return new AppError('VALIDATION_FAILED', `The ${what} is not valid: ${summary(issues)}`, { details: { issues } })
}

function summary(issues: Issue[]): string {
  const [first] = issues
  const more = issues.length > 1 ? ` (and ${issues.length - 1} more)` : ''
  return first ? `${first.path ? `${first.path}: ` : ''}${first.message}${more}` : ''
}

/** One field that is well formed but not acceptable, in the form that `validate` reports. */
export function invalidField(path: string, message: string): AppError {
  return new AppError('VALIDATION_FAILED', message, { details: { issues: [{ path, message }] } })
}

function tooLarge(bytesMax: number): AppError {
  return new AppError(
    'PAYLOAD_TOO_LARGE',
    `The body is larger than the ${bytesMax.toLocaleString('en')} bytes accepted here.`,
    {
      details: { bytesMax },
    },
  )
}
