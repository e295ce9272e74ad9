// The log: one JSON line per event, in which no secret and no address can be read.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { describeError, log } from '../../lib/log.ts'

const JWT = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl'
const REFRESH_TOKEN = `rt_${'Ab1-_'.repeat(9)}`

beforeEach(() => {
  vi.spyOn(console, 'log').mockImplementation(() => {})
  vi.spyOn(console, 'error').mockImplementation(() => {})
})

afterEach(() => vi.restoreAllMocks())

const lines = () => [console.log, console.error].flatMap((write) => vi.mocked(write).mock.calls.flat())

/** What stands in the log for these fields. */
function logged(fields: Record<string, unknown>) {
  log('info', 'test', fields)
  const { time: _, level: __, event: ___, ...rest } = JSON.parse(lines().at(-1) ?? 'null')
  return rest
}

describe('log', () => {
  test('writes one line of JSON with time, level and event, whatever the values hold', () => {
    log('warn', 'kv_down', { text: 'two\nlines\r\u2028', number: 1, nothing: null, left: undefined, list: [1, 'a'] })
    expect(lines()).toHaveLength(1)
    expect(lines()[0]).not.toMatch(/[\n\r]/)
    expect(JSON.parse(lines()[0])).toEqual({
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      level: 'warn',
      event: 'kv_down',
      text: 'two\nlines\r\u2028',
      number: 1,
      nothing: null,
      list: [1, 'a'],
    })
  })

  test('writes errors, and them alone, to standard error', () => {
    log('info', 'a')
    log('warn', 'b')
    log('error', 'c')
    expect(vi.mocked(console.log).mock.calls).toHaveLength(2)
    expect(vi.mocked(console.error).mock.calls).toHaveLength(1)
  })

  test.each([
    'authorization',
    'Authorization',
    'cookie',
    'set-cookie',
    'password',
    'newPassword',
    'password_hash',
    'AUTH_JWT_SECRET',
    'secret',
    'token',
    'accessToken',
    'refresh_token',
    'KV_REST_API_TOKEN',
    'apiKey',
    'api_key',
    'GEMINI_API_KEY',
    'x-api-key',
    'x-goog-api-key',
  ])('never writes what is called %s, however deep it stands', (name) => {
    const value = 'open sesame'
    const text = JSON.stringify(logged({ [name]: value, deep: { list: [{ [name]: { inner: value } }] } }))
    expect(text).not.toContain(value)
    expect(text).toContain('[redacted]')
  })

  test('writes what only sounds like a secret', () => {
    const fields = { tokens: 100, key: 'value', keyName: 'k', event2: 'token', cached: true }
    expect(logged(fields)).toEqual(fields)
  })

  test.each([
    { what: 'an access token', value: JWT },
    { what: 'a refresh token', value: REFRESH_TOKEN },
    { what: 'an Authorization header', value: 'Bearer abc.def' },
    { what: 'an e-mail address', value: 'ada.lovelace+tag@mail.example.com' },
    { what: 'an e-mail address in a URL', value: 'ada%40example.com' },
  ])('cuts $what out of a sentence, and leaves the sentence', ({ value }) => {
    expect(logged({ message: `before ${value} after`, list: [`(${value}`] })).toEqual({
      message: 'before [redacted] after',
      list: ['([redacted]'],
    })
  })

  test('cuts them out of errors too: messages, causes and stacks', () => {
    const cause = new Error(`duplicate key (email)=(ada@example.com) for ${JWT}`)
    const text = JSON.stringify(logged({ error: describeError(new Error(`while using ${REFRESH_TOKEN}`, { cause })) }))
    for (const secret of ['ada@example.com', JWT, REFRESH_TOKEN]) expect(text).not.toContain(secret)
    expect(text).toContain('duplicate key')
  })

  test('takes no longer than a text deserves, whatever a stranger puts into an address', () => {
    const startedAt = performance.now()
    for (const character of ['a', 'a.', 'eyJ', 'rt_', '@', 'a@', '%40'])
      log('info', 'test', { path: character.repeat(16_000) })
    expect(performance.now() - startedAt).toBeLessThan(200)
  })
})

describe('describeError', () => {
  test('gives the chain of causes, and the stack of the one that began it', () => {
    const root = new TypeError('root')
    const error = new Error('outer', { cause: new Error('middle', { cause: root }) })
    expect(describeError(error)).toEqual({
      name: 'Error',
      message: 'outer',
      cause: { name: 'Error', message: 'middle', cause: { name: 'TypeError', message: 'root', stack: root.stack } },
    })
  })

  test.each([
    { thrown: 'a string', expected: { message: 'a string' } },
    { thrown: undefined, expected: { message: 'undefined' } },
    { thrown: null, expected: { message: 'null' } },
    { thrown: 42, expected: { message: '42' } },
  ])('takes $thrown, which should not have been thrown', ({ thrown, expected }) => {
    expect(describeError(thrown)).toEqual(expected)
  })
})
