// What the adapters without an SDK share: one bounded request, and what its answer says about waiting.
import { getEventListeners, once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { apiBase, post, refusal, retryAfterMs, unreadable } from '../../../lib/ai/http.ts'

const servers: { close(): void }[] = []
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
})

/** Serves with `listener` until the test is over. */
async function serve(listener: RequestListener) {
  const server = createServer(listener)
  servers.push({
    close() {
      server.closeAllConnections()
      server.close()
    },
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('There is no port.')
  return { url: `http://127.0.0.1:${address.port}`, server }
}

const call = (url: string, signal = new AbortController().signal) => ({
  provider: 'Somebody',
  url,
  headers: { 'x-test': 'yes' },
  body: '{}',
  signal,
  expectedMicroUsd: 7,
})

describe('a request', () => {
  test('is a POST with the headers and the body, and asks for no compression', async () => {
    const seen: unknown[] = []
    const { url } = await serve(async (request, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk)
      const { 'x-test': test, 'accept-encoding': encoding } = request.headers
      seen.push(request.method, test, encoding, Buffer.concat(chunks).toString())
      response.writeHead(201, { 'content-type': 'application/json', 'x-answer': 'yes' }).end('{"a":1}')
    })
    const answer = await post(call(url))
    expect(seen).toEqual(['POST', 'yes', 'identity', '{}'])
    expect({ status: answer.status, header: answer.headers.get('x-answer'), body: answer.bytes.toString() }).toEqual({
      status: 201,
      header: 'yes',
      body: '{"a":1}',
    })
  })

  test('follows no redirect', async () => {
    let asked = 0
    const { url } = await serve((_request, response) => {
      asked += 1
      response.writeHead(307, { location: '/elsewhere' }).end()
    })
    expect((await post(call(url))).status).toBe(307)
    expect(asked).toBe(1)
  })

  test('keeps only the beginning of a refusal that has no end, and hangs up', async () => {
    let isClosed = false
    const { url } = await serve((_request, response) => {
      response.on('close', () => {
        isClosed = true
      })
      response.writeHead(500)
      const pour = () => {
        while (!response.destroyed && response.write(Buffer.alloc(64 * 1024, 'x')));
        if (!response.destroyed) response.once('drain', pour)
      }
      pour()
    })
    const answer = await post(call(url))
    expect(answer.status).toBe(500)
    expect(answer.bytes.length).toBeLessThanOrEqual(64 * 1024)
    await expect.poll(() => isClosed, { timeout: 10_000 }).toBe(true)
  })

  test.each([
    [200, 32 * 1024 * 1024],
    [500, 64 * 1024],
  ])('with status %i takes %i bytes and not one more', async (status, bytesMax) => {
    let length = bytesMax
    const { url } = await serve((_request, response) => {
      response.writeHead(status).end(Buffer.alloc(length))
    })
    expect((await post(call(url))).bytes).toHaveLength(bytesMax)
    length += 1
    const beyond = await post(call(url)).catch((error: unknown) => error)
    expect(beyond).toMatchObject(status === 200 ? { kind: 'no_image' } : { bytes: Buffer.alloc(0) })
  })

  test('that is compressed to almost nothing is bounded by what comes out of it', async () => {
    const { gzipSync } = await import('node:zlib')
    const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024))
    const { url } = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': 'image/png', 'content-encoding': 'gzip' }).end(bomb)
    })
    await expect(post(call(url))).rejects.toMatchObject({ kind: 'no_image', costMicroUsd: 7 })
  })

  test.each([
    ['application/json', 7],
    ['application/json; charset=utf-8', 7],
    ['image/png', 7],
    ['text/html', 0],
    [undefined, 0],
  ])('that breaks off in a body of %s has cost %i', async (contentType, costMicroUsd) => {
    const { url } = await serve((_request, response) => {
      response.writeHead(200, { ...(contentType && { 'content-type': contentType }), 'content-length': 100 })
      response.write('{', () => response.socket?.resetAndDestroy())
    })
    await expect(post(call(url))).rejects.toMatchObject({ kind: 'network', costMicroUsd })
  })

  test('that breaks off in a refusal has cost nothing', async () => {
    const { url } = await serve((_request, response) => {
      response.writeHead(500, { 'content-type': 'application/json', 'content-length': 100 })
      response.write('{', () => response.socket?.resetAndDestroy())
    })
    await expect(post(call(url))).rejects.toMatchObject({ kind: 'network', costMicroUsd: 0 })
  })

  test('leaves nothing on a signal that outlives a thousand of them', async () => {
    const { url } = await serve((_request, response) => response.end('{}'))
    const { signal } = new AbortController()
    for (let round = 0; round < 20; round++) await post(call(url, signal))
    expect(getEventListeners(signal, 'abort')).toHaveLength(0)
  })

  test('that is aborted closes its connection', async () => {
    const { url, server } = await serve(() => undefined)
    const abortion = new AbortController()
    const failing = post(call(url, abortion.signal))
    await once(server, 'request')
    abortion.abort()
    await expect(failing).rejects.toMatchObject({ kind: 'timeout', message: 'Somebody ran out of time.' })
    const connections = () => new Promise<number>((resolve) => server.getConnections((_error, count) => resolve(count)))
    await expect.poll(connections, { timeout: 10_000 }).toBe(0)
  })
})

describe('the base of an API', () => {
  test.each([
    [undefined, 'https://standard/v1'],
    ['https://gateway', 'https://gateway/v1'],
    ['https://gateway/', 'https://gateway/v1'],
    ['https://gateway/v1', 'https://gateway/v1'],
    ['https://gateway/v1//', 'https://gateway/v1'],
    ['https://gateway/openai', 'https://gateway/openai/v1'],
  ])('%s is %s', (baseUrl, expected) => {
    expect(apiBase(baseUrl, 'https://standard', '/v1')).toBe(expected)
  })
})

describe('when to ask again', () => {
  const now = Date.parse('2026-11-20T12:00:00Z')
  test.each<[Record<string, string>, number | undefined]>([
    [{}, undefined],
    [{ 'retry-after': '3' }, 3000],
    [{ 'retry-after': '1.25' }, 1250],
    [{ 'retry-after': '0' }, 0],
    [{ 'retry-after-ms': '250', 'retry-after': '1' }, 250],
    [{ 'retry-after-ms': '250.4' }, 251],
    [{ 'retry-after-ms': '0', 'retry-after': '1' }, 0],
    [{ 'retry-after-ms': 'soon', 'retry-after': '1' }, 1000],
    [{ 'retry-after-ms': '-5', 'retry-after': '1' }, 1000],
    [{ 'retry-after': 'Fri, 20 Nov 2026 12:00:30 GMT' }, 30_000],
    [{ 'retry-after': 'Fri, 20 Nov 2026 11:00:00 GMT' }, 0],
    [{ 'retry-after': 'later' }, undefined],
    [{ 'x-ratelimit-remaining-requests': '0', 'x-ratelimit-reset-requests': '1.2s' }, 1200],
    [{ 'x-ratelimit-remaining-requests': '0', 'x-ratelimit-reset-requests': '120ms' }, 120],
    [{ 'x-ratelimit-remaining-tokens': '0', 'x-ratelimit-reset-tokens': '6m0s' }, 360_000],
    [{ 'x-ratelimit-remaining-tokens': '0', 'x-ratelimit-reset-tokens': '1h2m3s' }, 3_723_000],
    [{ 'x-ratelimit-remaining-tokens': '0', 'x-ratelimit-reset-tokens': '1d' }, 86_400_000],
    [{ 'x-ratelimit-remaining-tokens': '0', 'x-ratelimit-reset-tokens': 'soon' }, undefined],
    [{ 'x-ratelimit-remaining-tokens': '5', 'x-ratelimit-reset-tokens': '6m0s' }, undefined],
    [{ 'x-ratelimit-reset-tokens': '6m0s' }, undefined],
    [{ 'retry-after': '1', 'x-ratelimit-remaining-tokens': '0', 'x-ratelimit-reset-tokens': '6m0s' }, 1000],
    [
      {
        'x-ratelimit-remaining-requests': '0',
        'x-ratelimit-reset-requests': '2s',
        'x-ratelimit-remaining-tokens': '0',
        'x-ratelimit-reset-tokens': '5s',
      },
      5000,
    ],
    [
      {
        'anthropic-ratelimit-input-tokens-remaining': '0',
        'anthropic-ratelimit-input-tokens-reset': '2026-11-20T12:00:07Z',
      },
      7000,
    ],
    [
      { 'anthropic-ratelimit-requests-remaining': '0', 'anthropic-ratelimit-requests-reset': '2026-11-20T11:00:00Z' },
      0,
    ],
  ])('by %o', (headers, expected) => {
    expect(retryAfterMs(new Headers(headers), now)).toBe(expected)
  })
})

describe('a reply that cannot be read', () => {
  const answer = (headers: Record<string, string>) => ({
    status: 200,
    headers: new Headers(headers),
    bytes: Buffer.alloc(0),
  })

  test.each<[Record<string, string>, number]>([
    [{ 'content-type': 'application/json' }, 7],
    [{ 'content-type': 'text/html' }, 0],
    [{}, 0],
  ])('has cost something if it came from the API: %o', (headers, costMicroUsd) => {
    expect(unreadable('Somebody', answer(headers), 7)).toMatchObject({
      kind: 'network',
      message: "Somebody's reply could not be read.",
      costMicroUsd,
    })
  })
})

describe('a refusal', () => {
  const answer = (status: number, headers: Record<string, string> = {}) => ({
    status,
    headers: new Headers({ 'retry-after': '2', ...headers }),
    bytes: Buffer.alloc(0),
  })

  test.each([
    [400, 'bad_request', undefined],
    [401, 'auth', undefined],
    [402, 'auth', undefined],
    [403, 'auth', undefined],
    [404, 'bad_request', undefined],
    [408, 'overloaded', 2000],
    [409, 'overloaded', 2000],
    [413, 'bad_request', undefined],
    [422, 'bad_request', undefined],
    [429, 'rate_limited', 2000],
    [499, 'bad_request', undefined],
    [500, 'overloaded', 2000],
    [529, 'overloaded', 2000],
  ])('with status %i is %s', (status, kind, waitMs) => {
    expect(refusal('Somebody', answer(status))).toMatchObject({ kind, retryAfterMs: waitMs, costMicroUsd: 0 })
  })

  test("carries the provider's words and the id of the request for the log, of a refused key neither", () => {
    const upstream = `The size is wrong. ${'x'.repeat(1000)}`
    const { cause } = refusal('Somebody', answer(400, { 'request-id': 'req_1' }), { upstream })
    expect(String(cause)).toMatch(/^Error: HTTP 400, request req_1: The size is wrong\. x{481}$/)
    const secret = refusal('Somebody', answer(401, { 'x-request-id': 'req_2' }), { upstream: 'sk-123 is wrong' })
    expect(String(secret.cause)).toBe('Error: HTTP 401, request req_2: ')
  })
})
