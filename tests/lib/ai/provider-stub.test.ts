// The stand-ins for OpenAI, Anthropic and Stability AI: as strict as they are, and steered from other processes.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { noisePng } from '../../support/gemini-replies.ts'
import { type Behaviour, type StubProvider, startProviderStub } from '../../support/provider-stub.ts'

const PNG = noisePng(64, 64)
const BASE64 = PNG.toString('base64')
const stubs = new Map<StubProvider, Awaited<ReturnType<typeof startProviderStub>>>()

beforeAll(async () => {
  for (const id of ['openai', 'anthropic', 'stability'] as const) stubs.set(id, await startProviderStub(id))
})
afterAll(async () => {
  for (const stub of stubs.values()) await stub.close()
})

interface Sent {
  path: string
  headers?: Record<string, string>
  json?: unknown
  form?: Record<string, string | Blob>
  method?: string
}

const AUTH: Record<StubProvider, Record<string, string>> = {
  openai: { authorization: 'Bearer key' },
  anthropic: { 'x-api-key': 'key', 'anthropic-version': '2023-06-01' },
  stability: { authorization: 'Bearer key', accept: 'image/*' },
}

async function send(id: StubProvider, { path, headers = {}, json, form, method = 'POST' }: Sent) {
  const body = new FormData()
  for (const [name, value] of Object.entries(form ?? {})) body.append(name, value)
  const type: Record<string, string> = json === undefined ? {} : { 'content-type': 'application/json' }
  return await fetch(`${stubs.get(id)?.url}${path}`, {
    method,
    headers: { ...AUTH[id], ...type, ...headers },
    ...(method === 'POST' && { body: form ? body : JSON.stringify(json) }),
  })
}

const image = (bytes = PNG, type = 'image/png') => new Blob([new Uint8Array(bytes)], { type })
const edit = (form: Record<string, string | Blob>): Sent => ({
  path: '/v1/images/edits',
  form: { model: 'gpt-image-2.5-flare', prompt: 'Draw.', 'image[]': image(), ...form },
})
const generation = (json: object): Sent => ({
  path: '/v1/images/generations',
  json: { model: 'gpt-image-2', prompt: 'Draw.', ...json },
})
const chat = (url: string, json: object = {}): Sent => ({
  path: '/v1/chat/completions',
  json: {
    model: 'gpt-4.1-mini',
    messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }],
    ...json,
  },
})
const message = (content: unknown, json: object = {}): Sent => ({
  path: '/v1/messages',
  json: { model: 'claude-haiku-5-5', max_tokens: 9, messages: [{ role: 'user', content }], ...json },
})
const picture = (data: string, media_type = 'image/png') => [
  { type: 'image', source: { type: 'base64', media_type, data } },
]
const words = [{ type: 'text', text: 'Hello.' }]
const structure = (form: Record<string, string | Blob>): Sent => ({
  path: '/v2beta/stable-image/control/structure',
  form: { prompt: 'Draw.', image: image(), ...form },
})

const short = PNG.subarray(0, PNG.length / 2)
const calls: [StubProvider, string, Sent, number][] = [
  ['openai', 'an edit', edit({}), 200],
  ['openai', 'a generation', generation({}), 200],
  ['openai', 'a chat', chat(`data:image/png;base64,${BASE64}`), 200],
  ['openai', 'a chat in plain words', chat('', { messages: [{ role: 'user', content: 'Hello.' }] }), 200],
  ['openai', 'no key', { ...edit({}), headers: { authorization: '' } }, 401],
  ['openai', 'a wrong key', { ...edit({}), headers: { authorization: 'Bearer invalid' } }, 401],
  ['openai', 'another path', { ...edit({}), path: '/v1/v1/images/edits' }, 404],
  ['openai', 'another method', { path: '/v1/images/edits', method: 'GET' }, 404],
  ['openai', 'an edit as JSON', { path: '/v1/images/edits', json: {} }, 400],
  ['openai', 'no image', { path: '/v1/images/edits', form: { model: 'gpt-image-2', prompt: 'Draw.' } }, 400],
  ['openai', 'an image under another name', edit({ picture: image() }), 400],
  ['openai', 'half an image', edit({ 'image[]': image(short) }), 400],
  ['openai', 'an image of another type than it says', edit({ 'image[]': image(PNG, 'image/jpeg') }), 400],
  ['openai', 'an image of a type it does not take', edit({ 'image[]': image(PNG, 'image/gif') }), 400],
  ['openai', 'no prompt', edit({ prompt: '' }), 400],
  ['openai', 'a prompt too long', edit({ prompt: 'x'.repeat(32_001) }), 400],
  ['openai', 'an unknown field', edit({ response_format: 'b64_json' }), 400],
  ['openai', 'an unknown quality', edit({ quality: 'standard' }), 400],
  ['openai', 'an unknown size', edit({ size: '512x512' }), 400],
  ['openai', 'transparent JPEG', edit({ background: 'transparent', output_format: 'jpeg' }), 400],
  ['openai', 'a model that is gone', edit({ model: 'dall-e-3' }), 404],
  ['openai', 'a model that draws nothing', edit({ model: 'gpt-4.1' }), 400],
  ['openai', 'a model that only draws', chat('', { model: 'gpt-image-2' }), 404],
  ['openai', 'broken base64', chat('data:image/png;base64,?'), 400],
  ['openai', 'an address', chat('https://example.com/x.png'), 400],
  ['openai', 'an unknown parameter', generation({ n: 1, foo: 2 }), 400],
  ['openai', 'no JSON', { path: '/v1/images/generations', json: undefined }, 400],
  ['anthropic', 'words', message(words), 200],
  ['anthropic', 'a picture', message(picture(BASE64)), 200],
  [
    'anthropic',
    'the newer way',
    { ...message(words), headers: { 'x-api-key': '', authorization: 'Bearer key', 'anthropic-version': '2026-10-21' } },
    200,
  ],
  ['anthropic', 'no key', { ...message(words), headers: { 'x-api-key': '' } }, 401],
  ['anthropic', 'a wrong key', { ...message(words), headers: { 'x-api-key': 'invalid' } }, 401],
  ['anthropic', 'no version', { ...message(words), headers: { 'anthropic-version': '' } }, 400],
  ['anthropic', 'another type of body', { ...message(words), headers: { 'content-type': 'text/plain' } }, 400],
  ['anthropic', 'another path', { ...message(words), path: '/messages' }, 404],
  ['anthropic', 'no tokens', message(words, { max_tokens: 0 }), 400],
  ['anthropic', 'an unknown field', message(words, { foo: 1 }), 400],
  ['anthropic', 'an empty text', message([{ type: 'text', text: '' }]), 400],
  ['anthropic', 'a model that is gone', message(words, { model: 'claude-3-sonnet' }), 404],
  ['anthropic', 'half a picture', message(picture(short.toString('base64'))), 400],
  ['anthropic', 'a picture of another type than it says', message(picture(BASE64, 'image/jpeg')), 400],
  ['anthropic', 'a type it does not take', message(picture(BASE64, 'image/avif')), 400],
  ['anthropic', 'a picture too large', message(picture('A'.repeat(5 * 1024 * 1024 + 4))), 400],
  ['stability', 'a structure', structure({}), 200],
  ['stability', 'no key', { ...structure({}), headers: { authorization: '' } }, 401],
  ['stability', 'a wrong key', { ...structure({}), headers: { authorization: 'Bearer invalid' } }, 401],
  ['stability', 'another path', { ...structure({}), path: '/v2beta/control/structure' }, 404],
  ['stability', 'a body of JSON', { path: '/v2beta/stable-image/generate/core', json: {} }, 400],
  ['stability', 'another answer', { ...structure({}), headers: { accept: 'text/html' } }, 400],
  ['stability', 'no image', { path: '/v2beta/stable-image/control/structure', form: { prompt: 'Draw.' } }, 400],
  ['stability', 'an image where none belongs', { ...structure({}), path: '/v2beta/stable-image/generate/core' }, 400],
  [
    'stability',
    'a prompt where none belongs',
    { ...structure({}), path: '/v2beta/stable-image/edit/remove-background' },
    400,
  ],
  ['stability', 'no prompt', structure({ prompt: '' }), 400],
  ['stability', 'a strength beyond one', structure({ control_strength: '1.5' }), 400],
  ['stability', 'an unknown field', structure({ foo: 'x' }), 400],
  ['stability', 'half an image', structure({ image: image(short) }), 400],
  ['stability', 'an image too small', structure({ image: image(noisePng(63, 64)) }), 400],
  ['stability', 'an image too long', structure({ image: image(noisePng(161, 64)) }), 400],
  ['stability', 'an image with too many pixels', structure({ image: image(noisePng(4000, 2400)) }), 400],
  ['stability', 'an image of too many bytes', structure({ image: image(Buffer.alloc(10 * 1024 * 1024 + 1)) }), 413],
]

describe('a request', () => {
  test.each(calls)('to %s with %s is answered with its status', async (id, _what, sent, status) => {
    const response = await send(id, sent)
    expect(response.status, await response.text()).toBe(status)
  })
})

describe('steering', () => {
  test('works over HTTP, and what was sent is read there', async () => {
    const call = edit({})
    const stub = stubs.get('openai')
    const control = (path: string, method: string, body?: Behaviour | Behaviour[] | { kind: string }) =>
      fetch(`${stub?.url}${path}`, { method, ...(body && { body: JSON.stringify(body) }) })
    await control('/__requests', 'DELETE')
    expect((await control('/__behave', 'POST', [{ kind: 'status', status: 503 }])).status).toBe(200)
    expect((await send('openai', call)).status).toBe(503)
    expect((await send('openai', call)).status).toBe(200)
    expect(await (await control('/__requests', 'GET')).json()).toMatchObject([
      { path: '/v1/images/edits', prompt: 'Draw.' },
      { images: [{ name: 'image[]', mimeType: 'image/png', byteLength: PNG.length, sha256: expect.any(String) }] },
    ])
    expect((await control('/__behave', 'POST', { kind: 'dance' })).status).toBe(400)
    expect((await control('/__dance', 'POST')).status).toBe(404)
    await control('/__requests', 'DELETE')
    expect(stub?.requests).toHaveLength(0)
  })
})
