// Fails a test that writes an error to the log without having said that it would.
import { afterEach, beforeEach, expect, vi } from 'vitest'

let expected = false

beforeEach(() => {
  expected = false
  vi.spyOn(console, 'error').mockImplementation(() => {})
  vi.spyOn(console, 'log').mockImplementation(() => {})
})

afterEach(() => {
  const lines = vi.mocked(console.error).mock.calls.flat()
  vi.restoreAllMocks()
  if (!expected) expect(lines, 'errors in the log').toEqual([])
})

/** Called by a test that provokes an error on the server's side. */
export function expectErrorsInLog(): void {
  expected = true
}
