// Vercel Blob: the store for pictures that are too large for a request, a reply or a row. Off without BLOB_READ_WRITE_TOKEN.
// Plain fetch: the SDK takes a tenth of a second to load and brings thirty packages for these four calls.
import { createHmac, randomBytes } from 'node:crypto'
import * as v from 'valibot'
import { env } from './env.ts'
import { AppError } from './http/errors.ts'
import { describeError, log } from './log.ts'

const API_URL = 'https://vercel.com/api/blob'
/** The version that the request and reply forms below are those of, as @vercel/blob 2.8.0 sends it. */
const API_VERSION = '12'
const TIMEOUT_MS = 20_000
/** The least the CDN allows: what is deleted must be gone. */
const CACHE_SECONDS = 60
const PERMIT_MS = 10 * 60_000
/** The name is all there is to it: no other is given, and none is written over. */
const NAMED_HERE = { addRandomSuffix: false, allowOverwrite: false }
const DELETE_MAX = 500
const LIST_ROWS = 1000
/** For each prefix: however many names that live on are listed first, within this time they hide no older ones. */
const SWEEP_MS = 10_000
/**
 * An upload is read minutes after it was permitted; a result's link is good for as long as an answer is kept for replays; what a
 * job has is deleted with it, and only a crash leaves something, for longer than any job is kept.
 */
const KEPT_MS = { 'uploads/': 60 * 60_000, 'replies/': 24 * 60 * 60_000, 'jobs/': 31 * 24 * 60 * 60_000 }

/** Whether there is such a store. */
export function blobOn(): boolean {
  return env().blob !== undefined
}

/** Stores bytes under a name that nobody can guess; returns their address. Whoever has the address can read them. */
export async function putBlob(name: string, bytes: Buffer, contentType: string): Promise<string> {
  const response = await callApi('PUT', `/?${new URLSearchParams({ pathname: unguessable(name, contentType) })}`, {
    headers: {
      ...contentHeaders(contentType),
      'x-add-random-suffix': '0',
      'x-cache-control-max-age': String(CACHE_SECONDS),
    },
    body: new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength),
  })
  return v.parse(v.object({ url: v.string() }), await response.json()).url
}

/** Forgets what was stored; an address that is gone already is fine. Throws when the store cannot be reached. */
export async function deleteBlobs(urls: string[]): Promise<void> {
  for (let from = 0; from < urls.length; from += DELETE_MAX) {
    const response = await callApi('POST', '/delete', {
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ urls: urls.slice(from, from + DELETE_MAX) }),
    })
    await response.body?.cancel()
  }
}

/** Lets a client put one picture of this type and size into the store, past the limit of our own requests. Throws FEATURE_DISABLED. */
export function permitUpload(userId: string, { contentType, bytes }: { contentType: string; bytes: number }) {
  const { token, storeId, apiUrl, filesUrl } = store()
  // The form of @vercel/blob's generateClientTokenFromReadWriteToken, and the headers of its client's put.
  const pathname = unguessable(`uploads/${userId}/`, contentType)
  const validUntil = Date.now() + PERMIT_MS
  const terms = { pathname, allowedContentTypes: [contentType], maximumSizeInBytes: bytes, validUntil }
  const payload = Buffer.from(JSON.stringify({ ...terms, ...NAMED_HERE, cacheControlMaxAge: CACHE_SECONDS })).toString(
    'base64',
  )
  const signature = createHmac('sha256', token).update(payload).digest('hex')
  const clientToken = `vercel_blob_client_${storeId}_${Buffer.from(`${signature}.${payload}`).toString('base64')}`
  return {
    uploadUrl: `${apiUrl}/?${new URLSearchParams({ pathname })}`,
    method: 'PUT',
    headers: { ...proof(clientToken, storeId), ...contentHeaders(contentType) },
    imageUrl: `${filesUrl}/${pathname}`,
    expiresAt: new Date(validUntil).toISOString(),
  }
}

/**
 * Reads what this user uploaded. Any other address than one that `permitUpload` gave them is refused before anything is
 * fetched; `url` is that address in the form in which the store knows it. Throws FEATURE_DISABLED, VALIDATION_FAILED,
 * PAYLOAD_TOO_LARGE or PROVIDER_UNAVAILABLE.
 */
export async function fetchUpload(
  imageUrl: string,
  userId: string,
  bytesMax: number,
): Promise<{ bytes: Buffer; url: string }> {
  const url = uploadOf(imageUrl, userId)
  let response: Response
  try {
    response = await fetch(url, { redirect: 'error', signal: AbortSignal.timeout(TIMEOUT_MS) })
    if (response.ok) return { bytes: await readUpTo(response, bytesMax), url }
  } catch (cause) {
    if (cause instanceof AppError) throw cause
    throw unreachable(cause)
  }
  await response.body?.cancel()
  if (response.status === 404) throw refused('Nothing has been uploaded at this address, or it is used up.')
  throw unreachable(new Error(`The store answered ${response.status}.`))
}

/** Deletes uploads that were never used and results whose link has run out. Never throws: what is left waits for the next sweep. */
export async function sweepBlobs(): Promise<{ blobsDeleted: number }> {
  let blobsDeleted = 0
  try {
    for (const [prefix, keptMs] of Object.entries(KEPT_MS)) {
      for await (const old of listOlder(prefix, Date.now() - keptMs)) {
        await deleteBlobs(old)
        blobsDeleted += old.length
      }
    }
  } catch (error) {
    log('warn', 'blobs_not_swept', { error: describeError(error) })
  }
  return { blobsDeleted }
}

const Listing = v.object({
  blobs: v.array(v.object({ url: v.string(), uploadedAt: v.string() })),
  cursor: v.nullish(v.string()),
  hasMore: v.nullish(v.boolean()),
})

/** Page by page, those that were stored before `beforeMs`, for as long as a sweep may take. */
async function* listOlder(prefix: string, beforeMs: number): AsyncGenerator<string[]> {
  const endsAtMs = Date.now() + SWEEP_MS
  let cursor: string | undefined
  do {
    const query = new URLSearchParams({ prefix, limit: String(LIST_ROWS), ...(cursor !== undefined && { cursor }) })
    const listing = v.parse(Listing, await (await callApi('GET', `?${query}`, {})).json())
    yield listing.blobs.filter(({ uploadedAt }) => Date.parse(uploadedAt) < beforeMs).map(({ url }) => url)
    cursor = listing.hasMore ? (listing.cursor ?? undefined) : undefined
  } while (cursor !== undefined && Date.now() < endsAtMs)
}

/** The store of this deployment. The files' own host is part of the token, and BLOB_BASE_URL stands for both. */
function store() {
  const { blob } = env()
  if (!blob) {
    throw new AppError('FEATURE_DISABLED', 'There is no store for large pictures. Send a smaller one as imageData.', {
      details: { reason: 'BLOB_READ_WRITE_TOKEN is not set.' },
    })
  }
  const [, , , storeId = ''] = blob.token.split('_')
  return {
    token: blob.token,
    storeId,
    apiUrl: blob.baseUrl ?? API_URL,
    filesUrl: blob.baseUrl ?? `https://${storeId.toLowerCase()}.public.blob.vercel-storage.com`,
  }
}

async function callApi(method: string, path: string, init: Pick<RequestInit, 'headers' | 'body'>): Promise<Response> {
  const { token, storeId, apiUrl } = store()
  const response = await fetch(apiUrl + path, {
    ...init,
    method,
    headers: { ...proof(token, storeId), ...init.headers },
    redirect: 'error',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  })
  if (response.ok) return response
  await response.body?.cancel()
  throw new Error(`Vercel Blob answered ${response.status} to ${method}.`)
}

function proof(token: string, storeId: string): Record<string, string> {
  return { authorization: `Bearer ${token}`, 'x-api-version': API_VERSION, 'x-vercel-blob-store-id': storeId }
}

/** Public means that no proof is asked for, so the name is the secret. */
function contentHeaders(contentType: string): Record<string, string> {
  return { 'x-vercel-blob-access': 'public', 'x-content-type': contentType }
}

function unguessable(name: string, contentType: string): string {
  const extension = contentType.startsWith('text/plain') ? 'txt' : (/^image\/(\w+)/.exec(contentType)?.[1] ?? 'bin')
  const folder = name.endsWith('/') ? name : `${name.replace(/\.\w+$/, '')}-`
  return `${folder}${randomBytes(24).toString('base64url')}.${extension}`
}

/** The address to fetch, put together here: of the client's nothing but the checked name goes into it. */
function uploadOf(imageUrl: string, userId: string): string {
  const { filesUrl } = store()
  const folder = `${filesUrl}/uploads/${userId}/`
  // Parsing brings every spelling of an address into one form.
  const href = URL.canParse(imageUrl) ? new URL(imageUrl).href : ''
  const name = href.startsWith(folder) ? href.slice(folder.length) : ''
  if (!/^[\w-]{32}\.[a-z]{1,10}$/.test(name)) {
    throw refused('imageUrl must be an address that POST /api/process-image/uploads gave to you.')
  }
  return folder + name
}

async function readUpTo(response: Response, bytesMax: number): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body ?? []) {
    length += chunk.length
    if (length > bytesMax) {
      // Leaving the loop cancels the rest.
      throw new AppError('PAYLOAD_TOO_LARGE', `The picture is larger than the ${bytesMax} bytes accepted here.`, {
        details: { bytesMax },
      })
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function refused(message: string): AppError {
  return new AppError('VALIDATION_FAILED', message, { details: { issues: [{ path: 'imageUrl', message }] } })
}

function unreachable(cause: unknown): AppError {
  return new AppError('PROVIDER_UNAVAILABLE', 'The uploaded picture could not be fetched. Nothing was charged.', {
    cause,
  })
}
