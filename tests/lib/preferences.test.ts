// Preferences, checked directly: those that the fork names and nothing else, or anything where it names none.
import { afterEach, describe, expect, test, vi } from 'vitest'

afterEach(() => vi.unstubAllEnvs())

const DECLARED = {
  theme: { type: 'string', enum: ['light', 'dark'] },
  nickname: { type: 'string' },
  pages: { type: 'number' },
  hints: { type: 'boolean' },
}

/** What is refused of these, by path; nothing when they are fine. */
async function refused(given: Record<string, unknown>, declared?: unknown): Promise<string[]> {
  vi.stubEnv('FORK__PREFERENCES', declared === undefined ? undefined : JSON.stringify(declared))
  vi.resetModules()
  const { requireKnownPreferences } = await import('../../lib/auth/preferences.ts')
  try {
    requireKnownPreferences(given)
    return []
  } catch (error) {
    expect(error).toMatchObject({ code: 'VALIDATION_FAILED' })
    const { issues } = Object(error).details
    return issues.map(({ path }: { path: string }) => path)
  }
}

test('where the fork names none, all names and values are fine', async () => {
  expect(await refused({ theme: 'blue', pages: 'two', deep: { down: [1] }, nothing: null })).toEqual([])
})

describe('where the fork names some', () => {
  test.each([
    {},
    { theme: 'dark' },
    { theme: 'light', nickname: '', pages: -2.5, hints: false },
    { theme: null, nickname: null, pages: null, hints: null },
  ])('%o is fine', async (given) => {
    expect(await refused(given, DECLARED)).toEqual([])
  })

  test.each([
    [{ theme: 'blue' }, ['theme']],
    [{ theme: '' }, ['theme']],
    [{ nickname: 1 }, ['nickname']],
    [{ pages: '2' }, ['pages']],
    [{ hints: 'yes' }, ['hints']],
    [{ hints: 0 }, ['hints']],
    [{ colour: 'red' }, ['colour']],
    [{ toString: 'x' }, ['toString']],
    [{ theme: 'blue', pages: 'two', hints: true }, ['theme', 'pages']],
  ])('%o is refused', async (given, names) => {
    expect(await refused(given, DECLARED)).toEqual(names.map((name) => `preferences.${name}`))
  })

  test('and none at all, every preference is refused', async () => {
    expect(await refused({ theme: 'dark' }, {})).toEqual(['preferences.theme'])
  })
})
