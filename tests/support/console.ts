// Fails a test that writes an error to the log without having said that it would, or a secret at any time.
import { afterEach, beforeEach, expect, vi } from 'vitest'

/** What must never be read in the output of the product, whichever module writes it. */
const SECRETS: Record<string, RegExp> = {
  'a session token': /eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}/,
  'a refresh token': /\brt_[\w-]{20,}/,
  'an API key': /\b[a-z][a-z0-9]{1,9}_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}\b/,
  'a hashed password': /\$2[aby]\$\d\d\$[./0-9A-Za-z]{20,}/,
  'a password of the tests': /correct horse|battery staple/i,
  'the signing secret': /a secret of the tests/,
  'a key of another service': /\b(?:sk_(?:test|live)|whsec|polar_oat|re)_[\w+/=]{12,}/,
  'a private key': /-----BEGIN [A-Z ]*PRIVATE KEY-----/,
  'a second factor': /otpauth:\/\//,
  'an e-mail address': /[\w.+-]+(?:@|%40)[\w-]+\.[\w.-]+/,
}

let expected = false
let mailed = false
let errors: unknown[] = []
let leaks: string[] = []

beforeEach(() => {
  expected = false
  mailed = false
  errors = []
  leaks = []
  vi.spyOn(console, 'error').mockImplementation((...lines) => {
    errors.push(...lines)
    leaks.push(...lines.flatMap(secretsIn))
  })
  for (const method of ['log', 'warn', 'info', 'debug'] as const)
    vi.spyOn(console, method).mockImplementation((...lines) => void leaks.push(...lines.flatMap(secretsIn)))
})

afterEach(() => {
  vi.restoreAllMocks()
  if (!expected) expect(errors, 'errors in the log').toEqual([])
  if (!mailed) expect(leaks, 'secrets in the log').toEqual([])
})

/** Called by a test that provokes an error on the server's side. */
export function expectErrorsInLog(): void {
  expected = true
}

/** Called by a test of the mail that development prints, which is there to be read. */
export function expectMailOnConsole(): void {
  mailed = true
}

/** The secrets in a text, each with the line it stands in. */
export function secretsIn(text: unknown): string[] {
  return String(text)
    .split('\n')
    .flatMap((line) =>
      Object.entries(SECRETS).flatMap(([what, pattern]) =>
        pattern.test(line) ? [`${what}: ${line.slice(0, 300)}`] : [],
      ),
    )
}
