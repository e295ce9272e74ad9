// The forms an image arrives in: JSON with base64 or with the address of an upload, multipart, or raw bytes with options in the query.
import { randomUUID } from 'node:crypto'
import { invalidField, isJson, parseJson } from './body.ts'
import { AppError } from './errors.ts'

/** The image itself, or where the client says that it lies. */
export type ImageUpload = ({ image: Buffer; imageUrl?: undefined } | { image?: undefined; imageUrl: string }) & {
  /** Everything else the client sent, unchecked. */
  fields: { provider?: unknown; options?: unknown } & Record<string, unknown>
}

const IMAGE_KEY = Buffer.from('"imageData"')
/** Stands where the image was cut out; nobody can send it, so it is found again only there. */
const CUT = randomUUID()
const QUOTE = 0x22
const BACKSLASH = 0x5c
const DATA_URL = /^data:[\w.+-]+\/[\w.+-]+(?:;[\w=.+-]+)*;base64,/

/** Takes a request's body apart. Throws INVALID_JSON, VALIDATION_FAILED or UNSUPPORTED_MEDIA_TYPE. */
export async function readUpload({
  bytes,
  type,
  request,
}: {
  bytes: Buffer
  type: string
  request: Request
}): Promise<ImageUpload> {
  if (type === 'multipart/form-data') return await readMultipart(bytes, request)
  if (type.startsWith('image/') || type === 'application/octet-stream') return readRaw(bytes, request)
  if (isJson(type)) return readJson(bytes)
  throw new AppError(
    'UNSUPPORTED_MEDIA_TYPE',
    `Send the image as application/json, multipart/form-data or image/*, not ${type}.`,
  )
}

function readRaw(image: Buffer, request: Request): ImageUpload {
  const { provider, ...options } = Object.fromEntries(new URL(request.url).searchParams)
  return { image, fields: { ...(provider !== undefined && { provider }), options } }
}

async function readMultipart(bytes: Buffer, request: Request): Promise<ImageUpload> {
  const headers = { 'content-type': request.headers.get('content-type') ?? '' }
  const form = await new Response(new Uint8Array(bytes), { headers }).formData().catch((cause) => {
    throw new AppError('VALIDATION_FAILED', 'The multipart body cannot be read.', { cause })
  })
  const { image, options, ...fields } = Object.fromEntries(form)
  if (!(image instanceof File)) throw invalidField('image', 'The file part "image" is missing.')
  return {
    image: Buffer.from(await image.arrayBuffer()),
    fields: { ...fields, ...(options !== undefined && { options: parseOptions(options) }) },
  }
}

function parseOptions(options: File | string): unknown {
  try {
    return JSON.parse(String(options))
  } catch (cause) {
    throw new AppError('INVALID_JSON', 'The field "options" is not valid JSON.', { cause })
  }
}

function readJson(bytes: Buffer): ImageUpload {
  const { text, rest } = cutImage(bytes)
  const { imageData: _cut, imageUrl, ...fields } = rest
  if (imageUrl === undefined) return { image: decodeBase64(text), fields }
  if (rest.imageData !== undefined) throw invalidField('imageUrl', 'Send either imageData or imageUrl.')
  if (typeof imageUrl === 'string') return { imageUrl, fields }
  throw invalidField('imageUrl', 'imageUrl must be a string.')
}

/**
 * Parses the JSON around the image without parsing the image: megabytes of base64 are found by their quotes and cut out
 * as bytes, which costs a tenth of JSON.parse. Anything unusual (escapes, a nested key) is parsed the plain way.
 */
function cutImage(bytes: Buffer): { text: string; rest: Record<string, unknown> } {
  const key = bytes.indexOf(IMAGE_KEY)
  const start = key < 0 ? -1 : openingQuote(bytes, key + IMAGE_KEY.length)
  const end = start < 0 ? -1 : bytes.indexOf(QUOTE, start + 1)
  const value = end < 0 ? undefined : bytes.subarray(start + 1, end)
  if (value && !value.includes(BACKSLASH)) {
    const rest: Record<string, unknown> = {
      ...parseJson(Buffer.concat([bytes.subarray(0, start + 1), Buffer.from(CUT), bytes.subarray(end)])),
    }
    if (rest.imageData === CUT) return { text: value.toString('latin1'), rest }
  }
  const rest: Record<string, unknown> = { ...parseJson(bytes) }
  if (typeof rest.imageData === 'string') return { text: rest.imageData, rest }
  if (rest.imageData === undefined && rest.imageUrl !== undefined) return { text: '', rest }
  throw invalidField('imageData', 'imageData must be a base64 string or a data: URL.')
}

/** Where the string value after a key opens, or -1 when the value is no string. */
function openingQuote(bytes: Buffer, from: number): number {
  const between = /^\s*:\s*"/.exec(bytes.toString('latin1', from, from + 64))
  return between ? from + between[0].length - 1 : -1
}

/** Node skips what is not base64, so a text that decodes to fewer bytes than it spells was not base64. */
function decodeBase64(text: string): Buffer {
  const base64 = text.slice(DATA_URL.exec(text.slice(0, 200))?.[0].length ?? 0).trimEnd()
  if (base64 === '') throw invalidField('imageData', 'imageData is empty.')
  const image = Buffer.from(base64, 'base64')
  const padding = base64.endsWith('==') ? 2 : base64.endsWith('=') ? 1 : 0
  if (image.length === Math.floor(((base64.length - padding) * 3) / 4)) return image
  throw invalidField('imageData', 'imageData is not base64.')
}
