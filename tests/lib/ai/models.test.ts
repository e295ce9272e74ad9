// Names of models: which of them stand for another one, and from when on.
import { afterEach, describe, expect, test, vi } from 'vitest'
import { livingModel, providerOfModel, retirementOf } from '../../../lib/ai/models.ts'

afterEach(() => {
  vi.useRealTimers()
})

function on(day: string) {
  vi.useFakeTimers({ toFake: ['Date'], now: new Date(day) })
}

describe('a seed name', () => {
  test.each([
    ['gpt-4', 'openai', 'gpt-4.1'],
    ['dall-e-3', 'openai', 'gpt-image-2.5-flare'],
    ['claude-3-sonnet', 'anthropic', 'claude-sonnet-5'],
    ['stable-diffusion-xl', 'stability', 'control-structure'],
  ])('%s stands for a model of %s that lives', (name, provider, model) => {
    on('2026-11-21')
    expect(providerOfModel(name)).toBe(provider)
    expect(livingModel(name)).toBe(model)
  })

  test.each(['gpt-4.1', 'gemini', 'constructor', ''])('is none: %j stands for itself', (name) => {
    on('2026-11-21')
    expect(providerOfModel(name)).toBeUndefined()
    expect(livingModel(name)).toBe(name)
    expect(retirementOf('constructor')).toBeUndefined()
  })
})

describe('a model whose end is certain', () => {
  test('answers until that day, and from then on its successor does', () => {
    on('2027-01-13T23:59:59Z')
    expect(livingModel('gpt-4.1-mini')).toBe('gpt-4.1-mini')
    on('2027-01-14T00:00:00Z')
    expect(livingModel('gpt-4.1-mini')).toBe('gpt-6-luna')
  })

  test('takes the seed name that stands for it along', () => {
    on('2027-01-14')
    expect(livingModel('gpt-4')).toBe('gpt-6-luna')
  })
})

test('a model that may end is asked until it says so itself', () => {
  on('2030-01-01')
  expect(livingModel('gemini-2.5-flash-image')).toBe('gemini-2.5-flash-image')
  expect(retirementOf('gemini-2.5-flash-image')).toMatchObject({ endsOn: '2026-10-02', isEarliest: true })
})
