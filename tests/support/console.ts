// Fails a test that writes an error to the log without having said that it would.
import { afterEach, beforeEach, expect, vi } from 'vitest'

let expected = false
let errors: unknown[] = []

beforeEach(() => {
  expected = false
  errors = []
  vi.spyOn(console, 'error').mockImplementation((...lines) => void errors.push(...lines))
  vi.spyOn(console, 'log').mockImplementation(() => {})
})

afterEach(() => {
  vi.restoreAllMocks()
  if (!expected) expect(errors, 'errors in the log').toEqual([])
})

/** Called by a test that provokes an error on the server's side. */
export function expectErrorsInLog(): void {
  expected = true
}
