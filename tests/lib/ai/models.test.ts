// Names of models: which of them stand for another one, and from when on.
import { afterEach, describe, expect, test, vi } from 'vitest'
import { announcedChain, livingChain, livingModel, providerOfModel, retirementOf } from '../../../lib/ai/models.ts'
import { parseConfig } from '../../../lib/config.ts'

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

describe('the name of a model in a configuration', () => {
  const named = (model: unknown) => {
    const tool = { name: 'tool', description: 'T', prompt: 'T', priceTokens: 1, providers: ['openai'] }
    const providers = { openai: { model, successors: [], textModel: 'gpt-4.1' } }
    const text = JSON.stringify({ version: 1, brand: { name: 'Acme' }, tools: [tool], ai: { providers } })
    return parseConfig(text, { file: 'fork.config.json', stage: 'production', forkOverrides: {} }).ai.providers.openai
  }

  test.each(['gpt-image-2', 'openai/gpt-image:2@x', '~', 'x'.repeat(100)])('may be %s', (name) => {
    expect(named(name).model).toBe(name)
  })

  test.each(['', 'gpt image', 'modèle', '模型', 'gpt\n', '\u007f', 'x'.repeat(101)])(
    'is refused where a header of an answer would not hold it: %j',
    (name) => {
      expect(() => named(name)).toThrow(/1 to 100 printable ASCII characters without blanks/)
    },
  )
})

describe('a chain', () => {
  test('has every model once, under the name it has today', () => {
    on('2026-11-21')
    expect(livingChain(['dall-e-3', 'gpt-image-1', 'gpt-image-2'])).toEqual(['gpt-image-2.5-flare', 'gpt-image-2'])
  })

  test.each([
    ['gpt-4', '2026-11-21', ['gpt-4.1', 'gpt-6-luna']],
    ['gpt-4', '2027-01-14', ['gpt-6-luna']],
    ['gpt-4.1-mini', '2026-11-21', ['gpt-4.1-mini', 'gpt-6-luna']],
    ['gemini-3.5-flash-lite', '2026-11-21', ['gemini-3.5-flash-lite']],
  ])('of %s on %s ends with who was announced to take over', (name, day, chain) => {
    on(day)
    expect(announcedChain(name)).toEqual(chain)
  })
})

test('a model that may end is asked until it says so itself', () => {
  on('2030-01-01')
  expect(livingModel('gemini-2.5-flash-image')).toBe('gemini-2.5-flash-image')
  expect(retirementOf('gemini-2.5-flash-image')).toMatchObject({ endsOn: '2026-10-02', isEarliest: true })
})
