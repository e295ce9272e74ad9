// Mail as Resend takes it: with the key, once, tried twice, and never a word of an address in what goes wrong.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { parseEnv } from '../../lib/env.ts'
import { mailOffReason } from '../../lib/mail.ts'
import { MAIL_API_KEY, MAIL_FROM, type MailStub, startMailStub } from '../support/mail-stub.ts'

const MAIL = { to: 'ada@example.com', subject: 'Hello', text: 'How are you?' }

let stub: MailStub

beforeAll(async () => {
  stub = await startMailStub()
})

afterAll(() => stub.close())

beforeEach(() => {
  stub.mails.length = 0
  stub.requests.length = 0
  for (const [name, value] of Object.entries(stub.variables)) vi.stubEnv(name, value)
})

afterEach(() => {
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
})

/** The function as a process that starts now has it. */
async function send(mail = MAIL): Promise<void> {
  vi.resetModules()
  const { sendMail } = await import('../../lib/mail.ts')
  await sendMail(mail)
}

describe('with Resend', () => {
  test('a mail arrives as it was written', async () => {
    await send()
    expect(stub.mails).toEqual([{ from: MAIL_FROM, to: [MAIL.to], subject: MAIL.subject, text: MAIL.text }])
  })

  test('a mail goes to Resend itself as JSON, and an answer without a body is one', async () => {
    vi.stubEnv('RESEND_BASE_URL', undefined)
    const asked = vi.spyOn(globalThis, 'fetch').mockImplementation(async () => new Response(null, { status: 200 }))
    await send()
    expect(asked).toHaveBeenCalledExactlyOnceWith(
      'https://api.resend.com/emails',
      expect.objectContaining({ headers: expect.objectContaining({ 'content-type': 'application/json' }) }),
    )
  })

  test.each([500, 503, 429, 'lost', 'reset'] as const)(
    'a mail arrives once when the first try ends in %s',
    async (bad) => {
      stub.behave(bad)
      await send()
      expect(stub.mails).toHaveLength(1)
      expect(stub.requests).toHaveLength(2)
      expect(new Set(stub.requests.map(({ idempotencyKey }) => idempotencyKey)).size, 'one key for both').toBe(1)
    },
  )

  test('two mails have two keys', async () => {
    await send()
    await send()
    expect(stub.mails).toHaveLength(2)
    expect(new Set(stub.requests.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(2)
  })

  test.each([
    ['at once', [422], 'Resend answered 422.', 1],
    ['at once', [401], 'Resend answered 401.', 1],
    ['after the second try', [500, 502], 'Resend answered 502.', 2],
    ['after the second try', ['reset', 429], 'Resend answered 429.', 2],
  ] as const)('a refusal is given up %s: %o', async (_, behaviours, message, tries) => {
    stub.behave(...behaviours)
    const error = await send().catch((cause: unknown) => cause)
    expect(error).toMatchObject({ message })
    expect(String(error)).not.toContain(MAIL.to)
    expect(stub.requests).toHaveLength(tries)
    expect(stub.mails).toEqual([])
  })

  test('a Resend that is not there, or does not answer in time, is an error that says so', async () => {
    const closed = await startMailStub()
    await closed.close()
    vi.stubEnv('RESEND_BASE_URL', closed.url)
    await expect(send()).rejects.toThrow('Resend could not be reached: ECONNREFUSED.')
    vi.stubEnv('RESEND_BASE_URL', stub.url)
    stub.behave('hang', 'hang')
    const asked = vi
      .spyOn(AbortSignal, 'timeout')
      .mockImplementation(() => AbortSignal.abort(new DOMException('', 'TimeoutError')))
    await expect(send()).rejects.toThrow('Resend could not be reached: TimeoutError.')
    expect(asked).toHaveBeenCalledWith(5_000)
    stub.behave()
  })

  test('a wrong key is refused', async () => {
    vi.stubEnv('RESEND_API_KEY', `${MAIL_API_KEY}x`)
    await expect(send()).rejects.toThrow('Resend answered 401.')
  })
})

describe('without Resend', () => {
  beforeEach(() => {
    for (const name of Object.keys(stub.variables)) vi.stubEnv(name, undefined)
  })

  test('a mail is printed in development', async () => {
    const printed = vi.spyOn(console, 'log').mockImplementation(() => {})
    await send()
    expect(printed).toHaveBeenCalledOnce()
    for (const part of Object.values(MAIL)) expect(printed.mock.calls[0]?.[0]).toContain(part)
  })

  test.each([
    ['production', { VERCEL_ENV: 'production' }],
    ['preview', { VERCEL_ENV: 'preview' }],
    ['Vercel, whose log is not a mailbox', { VERCEL: '1' }],
  ])('mail is off in %s', async (_, variables) => {
    expect(mailOffReason(parseEnv(variables))).toBe('RESEND_API_KEY and MAIL_FROM are not set.')
    expect(mailOffReason(parseEnv({ ...variables, RESEND_API_KEY: 'x', MAIL_FROM: 'y' }))).toBeUndefined()
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value)
    const printed = vi.spyOn(console, 'log')
    await expect(send()).rejects.toMatchObject({
      code: 'FEATURE_DISABLED',
      message: expect.stringMatching(/\.$/),
      details: { reason: 'RESEND_API_KEY and MAIL_FROM are not set.' },
    })
    expect(printed).not.toHaveBeenCalled()
  })

  test('mail is on in development', () => {
    expect(mailOffReason(parseEnv({}))).toBeUndefined()
  })
})
