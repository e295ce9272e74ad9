// The route table: which handler a request reaches, what it is given, and what becomes of what it returns.
import * as v from 'valibot'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Context, endpoint, route } from '../../lib/http/endpoint.ts'
import { AppError } from '../../lib/http/errors.ts'
import { Events } from '../../lib/http/events.ts'

beforeEach(() => {
  vi.spyOn(console, 'log').mockImplementation(() => {})
  vi.spyOn(console, 'error').mockImplementation(() => {})
})

afterEach(() => vi.restoreAllMocks())

const logLines = () =>
  [console.log, console.error].flatMap((write) =>
    vi
      .mocked(write)
      .mock.calls.flat()
      .map((line) => JSON.parse(line)),
  )

const open = (handle: (context: Context<'public'>) => unknown) => route({ access: 'public', handle })

const Thing = v.strictObject({ name: v.string(), parts: v.optional(v.array(v.object({ size: v.number() })), []) })

const things = endpoint({
  'GET   /api/things': open(() => [1, 2]),
  'GET   /api/things/newest': open(() => 'the newest'),
  'GET   /api/things/:id': open(({ params }) => params),
  'GET   /api/things/:id/parts/:part_no': open(({ params }) => params),
  'POST  /api/things': route({ access: 'public', body: Thing, handle: ({ body }) => body }),
  'POST  /api/things/raw': route({
    access: 'public',
    bodyBytesMax: 10,
    read: ({ bytes, type }) => ({ type, text: bytes.toString() }),
    handle: ({ body }) => body,
  }),
  'GET   /api/things/of/nothing': open(() => undefined),
  'GET   /api/things/of/response': open(
    () => new Response('<p>', { status: 203, headers: { 'content-type': 'text/html', 'cache-control': 'public' } }),
  ),
  'GET   /api/things/of/refusal': open(() => {
    throw new AppError('CONFLICT', 'Not now.', {
      details: { when: 'later' },
      headers: { 'retry-after': '7' },
      cause: new Error('why'),
    })
  }),
  'GET   /api/things/of/failure': open(async () => {
    throw new Error('The database is on fire at 10.0.0.1.', { cause: new TypeError('root') })
  }),
  'GET   /api/things/of/nonsense': open(() => Promise.reject('a string')),
  'GET   /api/things/of/notes': open(({ note }) => note({ provider: 'sketch', tokens: 3 })),
  'GET   /api/things/of/progress': open(
    ({ url }) =>
      new Events(async (emit) => {
        emit('step', { at: 1 })
        if (url.searchParams.has('fail')) throw new AppError('PROVIDER_ERROR', 'It did not work.')
        return Response.json({ made: true })
      }),
  ),
})

const ask = (what: string, init: RequestInit = {}) => {
  const [method = 'GET', path = ''] = what.split(' ')
  return things.fetch(new Request(`http://localhost${path}`, { method, ...init }))
}

async function json(reply: Promise<Response>) {
  return JSON.parse(await (await reply).text())
}

describe('a route', () => {
  test.each([
    { path: '/api/things', found: [1, 2] },
    { path: '/api/things?id=7', found: [1, 2] },
    { path: '/api/things/newest', found: 'the newest' },
    { path: '/api/things/7', found: { id: '7' } },
    { path: '/api/things/a%20b%2Fc%3F', found: { id: 'a b/c?' } },
    { path: '/api/things/7/parts/8', found: { id: '7', part_no: '8' } },
    { path: '/api/things/__proto__', found: { id: '__proto__' } },
  ])('is found by $path, literal segments before named ones', async ({ path, found }) => {
    expect(await json(ask(`GET ${path}`))).toEqual(found)
  })

  test.each(['/api/things/7/parts', '/api/things//', '/api/thing', '/API/things', '/api/things/%ff', '/api/things/%'])(
    'is not found by %s',
    async (path) => {
      const reply = await ask(`GET ${path}`)
      expect(reply.status).toBe(404)
    },
  )

  test('is told by its table, for whoever reads it', () => {
    expect(Object.keys(things.routes)).toContain('POST  /api/things')
    expect(Object.values(things.routes).every(({ access }) => access === 'public')).toBe(true)
  })

  test('says what its address offers when the method is another', async () => {
    const reply = await ask('DELETE /api/things')
    expect([reply.status, reply.headers.get('allow')]).toEqual([405, 'GET, HEAD, POST, OPTIONS'])
  })
})

describe('a body', () => {
  const post = (path: string, body: string, type?: string) =>
    ask(`POST /api/things${path}`, {
      body: new TextEncoder().encode(body),
      ...(type !== undefined && { headers: { 'content-type': type } }),
    })

  test('reaches the handler as its schema made it', async () => {
    expect(await json(post('', '{"name":"a"}'))).toEqual({ name: 'a', parts: [] })
  })

  test('that the schema refuses is refused with the path of every mistake', async () => {
    const { error } = await json(post('', '{"name":1,"parts":[{"size":1},{"size":"2"}],"extra":true}'))
    expect(error.details.issues.map(({ path }: { path: string }) => path).sort()).toEqual([
      'extra',
      'name',
      'parts.1.size',
    ])
    expect(error.message).toMatch(/^The request body is not valid: \S+: .+ \(and 2 more\)$/)
  })

  test('is read by the route itself when it has a reader, under its own cap', async () => {
    expect(await json(post('/raw', 'ten bytes!', 'Text/Plain; charset=utf-8'))).toEqual({
      type: 'text/plain',
      text: 'ten bytes!',
    })
    const reply = await post('/raw', 'eleven byte')
    expect(reply.status).toBe(413)
    expect(JSON.parse(await reply.text()).error.details).toEqual({ bytesMax: 10 })
  })

  test('without end is refused as soon as it is over the cap, and the rest is not waited for', async () => {
    let bytesSent = 0
    let cancelled = false
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        bytesSent += 10_000
        controller.enqueue(new Uint8Array(10_000).fill(0x20))
      },
      cancel() {
        cancelled = true
      },
    })
    const init = { method: 'POST', body, duplex: 'half' as const }
    const reply = await things.fetch(new Request('http://localhost/api/things', init))
    expect(reply.status).toBe(413)
    expect(bytesSent).toBeLessThanOrEqual(130_000)
    expect(cancelled).toBe(true)
  })

  test('is not looked at where no route asks for one', async () => {
    const reply = await ask('GET /api/things', {
      headers: { 'content-length': '999999999', 'content-type': 'text/plain' },
    })
    expect(reply.status).toBe(200)
  })
})

describe('what a handler gives', () => {
  test('is the JSON of a value, null for nothing', async () => {
    const reply = await ask('GET /api/things/of/nothing')
    expect([reply.status, reply.headers.get('content-type'), await reply.text()]).toEqual([
      200,
      'application/json',
      'null',
    ])
  })

  test('is a Response as it is, with the common headers added', async () => {
    const reply = await ask('GET /api/things/of/response')
    expect([reply.status, await reply.text()]).toEqual([203, '<p>'])
    expect(Object.fromEntries(reply.headers)).toMatchObject({
      'cache-control': 'public',
      'content-type': 'text/html',
      vary: 'Origin',
      'x-content-type-options': 'nosniff',
      'x-request-id': expect.any(String),
    })
  })

  test('is the refusal it throws, headers and details included, its cause kept from the client', async () => {
    const reply = await ask('GET /api/things/of/refusal')
    expect([reply.status, reply.headers.get('retry-after')]).toEqual([409, '7'])
    const body = await reply.text()
    expect(JSON.parse(body).error).toMatchObject({ code: 'CONFLICT', message: 'Not now.', details: { when: 'later' } })
    expect(body).not.toContain('why')
    expect(logLines()).toMatchObject([{ level: 'info', status: 409, code: 'CONFLICT' }])
  })

  test.each(['failure', 'nonsense'])('is nothing but a 500 after a %s, whose cause is in the log', async (what) => {
    const reply = await ask(`GET /api/things/of/${what}`, { headers: { 'x-request-id': 'request-of-the-test' } })
    expect(reply.status).toBe(500)
    expect(await reply.json()).toEqual({
      error: {
        code: 'INTERNAL_ERROR',
        message: 'Something went wrong on our side.',
        details: {},
        timestamp: expect.any(String),
        requestId: 'request-of-the-test',
      },
    })
    const [line] = logLines()
    expect(line).toMatchObject({
      level: 'error',
      requestId: 'request-of-the-test',
      status: 500,
      code: 'INTERNAL_ERROR',
    })
    expect(line.error.message).toBe(what === 'failure' ? 'The database is on fire at 10.0.0.1.' : 'a string')
  })

  test('stands in the log with what the handler noted', async () => {
    await ask('GET /api/things/of/notes')
    expect(logLines()).toMatchObject([
      { route: 'GET /api/things/of/notes', provider: 'sketch', tokens: 3, status: 200 },
    ])
  })

  test('is progress, then the answer, in one stream and one log line', async () => {
    const reply = await ask('GET /api/things/of/progress')
    expect(reply.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
    expect(await reply.text()).toBe('event: step\ndata: {"at":1}\n\nevent: done\ndata: {"made":true}\n\n')
    await vi.waitFor(() => expect(logLines()).toHaveLength(1))
    expect(logLines()).toMatchObject([{ level: 'info', status: 200 }])
  })

  test('is progress, then the refusal, whose status stands in the log', async () => {
    const text = await (await ask('GET /api/things/of/progress?fail')).text()
    expect(text).toMatch(
      /^event: step\ndata: \{"at":1\}\n\nevent: error\ndata: \{"error":\{"code":"PROVIDER_ERROR",.*\}\}\n\n$/,
    )
    await vi.waitFor(() => expect(logLines()).toHaveLength(1))
    expect(logLines()).toMatchObject([{ level: 'error', status: 502, code: 'PROVIDER_ERROR' }])
  })
})
