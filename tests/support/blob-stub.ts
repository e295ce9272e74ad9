// A loopback Vercel Blob: its API and the public files, with the checks of client tokens that the real one makes.
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'

const TOKEN = 'vercel_blob_rw_TestStore_0123456789abcdef'

interface StoredBlob {
  bytes: Buffer
  contentType: string
  uploadedAt: Date
}

export interface BlobStub {
  url: string
  /** Environment under which the application uses this store. */
  variables: Record<string, string>
  /** What is stored, by pathname. */
  files: Map<string, StoredBlob>
  /** What was asked, oldest first, as `PUT /?pathname=…`. */
  calls: string[]
  /** An answer in place of the usual one, for the calls that it is given for. */
  answer: ((call: string, response: ServerResponse) => boolean) | undefined
  close(): Promise<void>
}

/** Starts the stub on 127.0.0.1; the API and the files share its origin, as BLOB_BASE_URL has it. */
export async function startBlobStub(): Promise<BlobStub> {
  const server = createServer((request, response) => {
    handle(stub, request, response).catch((error: unknown) =>
      response.destroy(error instanceof Error ? error : undefined),
    )
  })
  const stub: BlobStub = {
    url: '',
    variables: {},
    files: new Map(),
    calls: [],
    answer: undefined,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The stub has no port.')
  stub.url = `http://127.0.0.1:${address.port}`
  stub.variables = { BLOB_READ_WRITE_TOKEN: TOKEN, BLOB_BASE_URL: stub.url }
  return stub
}

async function handle(stub: BlobStub, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method = '', headers } = request
  const { pathname, searchParams } = new URL(request.url ?? '', stub.url)
  const body = await bytesOf(request)
  const call = `${method} ${request.url}`
  stub.calls.push(call)
  if (stub.answer?.(call, response)) return
  const file = stub.files.get(pathname.slice(1))
  if (method === 'GET' && pathname !== '/') {
    if (file) response.writeHead(200, { 'content-type': file.contentType }).end(file.bytes)
    else response.writeHead(404).end('Not found')
    return
  }
  const token = /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? ''
  const refuse = (code: string, status = 403) => reply(response, status, { error: { code, message: code } })
  if (headers['x-api-version'] !== '12' || headers['x-vercel-blob-store-id'] !== 'TestStore')
    return refuse('bad_request', 400)
  if (method === 'PUT' && pathname === '/') {
    const name = searchParams.get('pathname') ?? ''
    const contentType = String(headers['x-content-type'] ?? '')
    const reason = refusalOf(token, { name, contentType, length: body.length, exists: stub.files.has(name) })
    if (reason) return refuse(reason)
    if (headers['x-vercel-blob-access'] !== 'public') return refuse('bad_request', 400)
    stub.files.set(name, { bytes: body, contentType, uploadedAt: new Date() })
    return reply(response, 200, {
      url: `${stub.url}/${name}`,
      downloadUrl: `${stub.url}/${name}?download=1`,
      pathname: name,
      contentType,
    })
  }
  if (token !== TOKEN) return refuse('forbidden')
  if (method === 'POST' && pathname === '/delete') {
    const { urls } = JSON.parse(body.toString())
    for (const url of urls) if (url.startsWith(`${stub.url}/`)) stub.files.delete(url.slice(stub.url.length + 1))
    return reply(response, 200, null)
  }
  if (method === 'GET') return reply(response, 200, listing(stub, searchParams))
  return refuse('not_found', 404)
}

/** A page of two, so that paging is always met. */
function listing({ files, url }: BlobStub, query: URLSearchParams) {
  const names = [...files.keys()].filter((name) => name.startsWith(query.get('prefix') ?? '')).sort()
  const rest = names.filter((name) => name > (query.get('cursor') ?? ''))
  const page = rest.slice(0, 2)
  return {
    blobs: page.map((name) => ({
      url: `${url}/${name}`,
      pathname: name,
      size: files.get(name)?.bytes.length,
      uploadedAt: files.get(name)?.uploadedAt.toISOString(),
    })),
    hasMore: rest.length > page.length,
    ...(rest.length > page.length && { cursor: page.at(-1) }),
  }
}

/** Why the store does not take a file: the token of the owner takes all, a client's what was signed for it. */
function refusalOf(
  token: string,
  file: { name: string; contentType: string; length: number; exists: boolean },
): string | undefined {
  if (token === TOKEN) return undefined
  const [, , , storeId, encoded = ''] = token.split('_')
  const [signature = '', payload = ''] = Buffer.from(encoded, 'base64').toString().split('.')
  if (storeId !== 'TestStore' || createHmac('sha256', TOKEN).update(payload).digest('hex') !== signature)
    return 'forbidden'
  const terms = JSON.parse(Buffer.from(payload, 'base64').toString())
  if (terms.validUntil < Date.now()) return 'client_token_expired'
  if (terms.pathname !== file.name) return 'client_token_pathname_mismatch'
  if (!terms.allowedContentTypes.includes(file.contentType)) return 'content_type_not_allowed'
  if (file.length > terms.maximumSizeInBytes) return 'file_too_large'
  if (file.exists && terms.allowOverwrite !== true) return 'forbidden'
  return undefined
}

async function bytesOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk)
  return Buffer.concat(chunks)
}

function reply(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}
