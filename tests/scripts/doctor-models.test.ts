// What the doctor says of models: names that stand for another one, models that end, unknown ones and old prices.
import { describe, expect, test } from 'vitest'
import { findings } from '../../scripts/doctor.ts'

/** The warnings about models on a day when every price is fresh, or on `now`. */
function warnings(variables: Record<string, string>, now = new Date('2026-11-21')): string[] {
  return findings(variables, undefined, now).warnings.filter((warning) => /^ai\.providers|prices of/.test(warning))
}

const oneTool = (does: string, ...providers: string[]) => ({
  FORK__TOOLS: JSON.stringify([
    {
      name: 'tool',
      description: 'T',
      prompt: does.startsWith('text') ? '{{text}}' : 'T',
      priceTokens: 1,
      does,
      providers,
    },
  ]),
})

describe('a model that ends', () => {
  const gemini = oneTool('image->image', 'gemini')

  test('is mentioned with who takes over, before and after the day that was announced', () => {
    expect(warnings(gemini, new Date('2026-10-01'))).toEqual([
      'ai.providers.gemini.model: "gemini-2.5-flash-image" comes to its announced shutdown (2026-10-02); "gemini-nano-banana-2.1" takes over when it no longer answers.',
    ])
    expect(warnings(gemini).join()).toContain('is past its announced shutdown (2026-10-02); "gemini-nano-banana-2.1"')
  })

  test('lacks a successor where the fork names none', () => {
    const alone = { ...gemini, FORK__AI__PROVIDERS__GEMINI__SUCCESSORS: '[]' }
    expect(warnings(alone).join()).toContain('name a successor, such as "gemini-nano-banana-2.1".')
  })

  test('for certain is answered for from that day on', () => {
    const openai = { ...oneTool('image->text', 'openai'), FORK__AI__PROVIDERS__OPENAI__TEXT_MODEL: 'gpt-4o' }
    expect(warnings(openai)).toEqual([
      'ai.providers.openai.textModel: "gpt-4o" ends on 2027-01-14, "gpt-6-luna" answers from then on.',
    ])
    expect(warnings(openai, new Date('2027-01-14'))).toContain(
      'ai.providers.openai.textModel: "gpt-4o" is gone since 2027-01-14, "gpt-6-luna" answers in its place.',
    )
  })
})

describe('a name', () => {
  test('of a seed model is followed by the model that answers', () => {
    const variables = { ...oneTool('image->image', 'openai'), FORK__AI__PROVIDERS__OPENAI__MODEL: 'dall-e-3' }
    expect(warnings(variables)).toEqual([
      'ai.providers.openai.model: "dall-e-3" is gone, "gpt-image-2.5-flare" answers in its place.',
    ])
  })

  test('of another provider is a mistake', () => {
    const variables = { ...oneTool('image->text', 'anthropic'), FORK__AI__PROVIDERS__ANTHROPIC__MODEL: 'gpt-4' }
    expect(warnings(variables)).toEqual(['ai.providers.anthropic.model: "gpt-4" is a model of openai.'])
  })

  test('that was mistyped is guessed', () => {
    const variables = {
      ...oneTool('image->image', 'gemini'),
      FORK__AI__PROVIDERS__GEMINI__MODEL: 'gemini-2.5-flash-imgae',
    }
    expect(warnings(variables)).toEqual([
      'ai.providers.gemini.model: "gemini-2.5-flash-imgae" is not in the price table, did you mean "gemini-2.5-flash-image"?',
    ])
  })

  test('that is new needs a price of the operator', () => {
    const variables = { ...oneTool('image->image', 'stability'), FORK__AI__PROVIDERS__STABILITY__MODEL: 'imagen-9' }
    expect(warnings(variables)).toEqual([
      'ai.providers.stability.model: "imagen-9" is not in the price table. Without ai.providers.stability.costPerImageUsd it counts as the dearest model there is.',
    ])
    expect(warnings({ ...variables, FORK__AI__PROVIDERS__STABILITY__COST_PER_IMAGE_USD: '0.08' })).toEqual([])
  })

  test('of a dated snapshot has the price of its model', () => {
    const model = { FORK__AI__PROVIDERS__ANTHROPIC__MODEL: 'claude-haiku-4-5-20251001' }
    expect(warnings({ ...oneTool('image->text', 'anthropic'), ...model })).toEqual([])
  })
})

describe('what no tool uses', () => {
  const bad = {
    FORK__AI__PROVIDERS__OPENAI: '{"model":"unknown-image-model","textModel":"unknown-text-model"}',
  }

  test('is not looked at: providers that no tool lists, or that are off', () => {
    expect(warnings({ ...bad, ...oneTool('image->image', 'sketch') })).toEqual([])
    const off = { FORK__AI__PROVIDERS__OPENAI: '{"enabled":false,"model":"unknown-image-model"}' }
    expect(warnings({ ...off, ...oneTool('image->image', 'openai') })).toEqual([])
  })

  test('is not looked at: models for pictures where all is words, and the other way round', () => {
    expect(warnings({ ...bad, ...oneTool('text->text', 'openai') })).toEqual([
      expect.stringContaining('ai.providers.openai.textModel: "unknown-text-model"'),
    ])
    expect(warnings({ ...bad, ...oneTool('text->image', 'openai') })).toEqual([
      expect.stringContaining('ai.providers.openai.model: "unknown-image-model"'),
    ])
  })
})

test('prices that were last looked at more than 90 days ago are named with where to look', () => {
  const stability = oneTool('image->image', 'stability')
  expect(warnings(stability, new Date('2027-02-18'))).toEqual([])
  expect(warnings(stability, new Date('2027-02-19'))).toEqual([
    'The prices of control-structure were last looked at on 2026-11-20, more than 90 days ago: compare lib/ai/prices.ts with https://stability.ai/api-pricing-update-25.',
  ])
})
