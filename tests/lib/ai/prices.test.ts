// The price table: how old it is, whether it has every model that a fork may meet, and its arithmetic.
import { readdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { CAPABILITIES, PROVIDER_IDS } from '../../../lib/ai/capabilities.ts'
import { livingModel } from '../../../lib/ai/models.ts'
import {
  costMicroUsd,
  expectedMicroUsd,
  largestMicroUsd,
  MODEL_PRICES,
  PRICE_AGE_DAYS_MAX,
  priceOf,
  stalePrices,
} from '../../../lib/ai/prices.ts'
import type { Quality, Task, Work } from '../../../lib/ai/provider.ts'
import { loadConfig, parseConfig } from '../../../lib/config.ts'
import { configuredModels } from '../../../scripts/doctor-models.ts'

const PAID = PROVIDER_IDS.filter((id) => id !== 'sketch')
const work = (task: Task = 'image->image', quality: Quality = 'standard'): Work => ({ task, quality })
const NOTHING = { textIn: 0, imageIn: 0, textOut: 0, imageOut: 0 }

describe('the table', () => {
  test('was looked at in the last 90 days', () => {
    const lines = stalePrices(new Date()).map(({ model, source, asOf }) => `${model} (${asOf}): ${source}`)
    const advice = `Compare these prices with where they come from, correct lib/ai/prices.ts and tests/support/recorded-*.ts, and set asOf to today:\n${lines.join('\n')}`
    expect(lines, advice).toEqual([])
  })

  test('is too old on the day after', () => {
    const at = (days: number) => stalePrices(new Date(Date.parse('2026-09-09') + days * 86_400_000))
    expect(at(PRICE_AGE_DAYS_MAX).map(({ model }) => model)).not.toContain('gpt-image-2.5-flare')
    expect(at(PRICE_AGE_DAYS_MAX + 1).map(({ model }) => model)).toContain('gpt-image-2.5-flare')
  })

  test('says where each price was published and when it was looked at, in whole micro-dollars above nothing', () => {
    for (const [model, price] of Object.entries(MODEL_PRICES)) {
      expect(price.source, model).toMatch(/^https:\/\//)
      expect(new Date(price.asOf).toISOString().slice(0, 10), model).toBe(price.asOf)
      expect(Date.parse(price.asOf), model).toBeLessThanOrEqual(Date.now())
      const rates = 'microUsdPerCall' in price ? [price.microUsdPerCall] : Object.values(price.microUsdPerMillion)
      for (const rate of rates) expect(Number.isSafeInteger(rate) && rate > 0, model).toBe(true)
    }
  })

  const forks = ['fork.config.json', ...readdirSync('examples').map((name) => `examples/${name}`)].filter((name) =>
    name.endsWith('.json'),
  )
  const stages = ['development', 'preview', 'production'] as const

  test.each(forks.flatMap((file) => stages.map((stage) => ({ file, stage }))))(
    'has every model of $file in $stage',
    ({ file, stage }) => {
      const config = loadConfig({ forkConfig: file, onVercel: false, stage, forkOverrides: {} })
      const unpriced = PAID.flatMap((id) => configuredModels(id, config))
        .filter(({ provider }) => config.ai.providers[provider].costPerImageUsd === undefined)
        .filter(({ name }) => !priceOf(livingModel(name)))
      expect(unpriced, 'Add them to lib/ai/prices.ts, or set costPerImageUsd.').toEqual([])
    },
  )

  test('has every model that the schema names, and every one that answers for another', () => {
    const tools = [{ name: 'tool', description: 'T', prompt: 'T', priceTokens: 1, providers: ['sketch'] }]
    const bare = JSON.stringify({ version: 1, brand: { name: 'Acme' }, tools })
    const config = parseConfig(bare, { file: 'bare', stage: 'production', forkOverrides: {} })
    const standard = PAID.flatMap((id) => configuredModels(id, config)).map(({ name }) => name)
    const seeds = ['gpt-4', 'dall-e-3', 'claude-3-sonnet', 'stable-diffusion-xl'].map(livingModel)
    const successors = [...Object.keys(MODEL_PRICES), ...standard, ...seeds].map(livingModel)
    expect([...standard, ...seeds, ...successors].filter((name) => !priceOf(name))).toEqual([])
  })

  test('knows what every task of every provider is expected to cost, and a better quality costs no less', () => {
    const order: Quality[] = ['draft', 'standard', 'high']
    for (const id of PAID) {
      for (const [task, qualities] of Object.entries(CAPABILITIES[id])) {
        const costs = order
          .filter((quality) => qualities.includes(quality))
          .map((quality) => expectedMicroUsd(TYPICAL[id], { task: task as Task, quality }))
        expect(costs.every((cost) => Number.isSafeInteger(cost) && cost > 0)).toBe(true)
        expect(costs.toSorted((one, other) => one - other)).toEqual(costs)
      }
    }
  })

  const TYPICAL = {
    gemini: 'gemini-nano-banana-2.1',
    openai: 'gpt-image-2.5-flare',
    anthropic: 'claude-haiku-5-5',
    stability: 'control-structure',
  }
})

describe('a cost', () => {
  test('is exact in millions of tokens', () => {
    const million = { textIn: 1e6, imageIn: 1e6, textOut: 1e6, imageOut: 1e6 }
    // 0.30 + 0.30 + 2.50 + 30 dollars
    expect(costMicroUsd('gemini-2.5-flash-image', million, work())).toBe(33_100_000)
  })

  test('is rounded up, once, and nothing costs nothing', () => {
    // One token at 0.15: 0.15 of a micro-dollar; 20 of them are three whole ones.
    expect(costMicroUsd('gpt-4o-mini', { ...NOTHING, textIn: 1 }, work('text->text'))).toBe(1)
    expect(costMicroUsd('gpt-4o-mini', { ...NOTHING, textIn: 20 }, work('text->text'))).toBe(3)
    // 0.15 + 0.15 + 0.6 = 0.9, and not three roundings.
    expect(costMicroUsd('gpt-4o-mini', { textIn: 1, imageIn: 1, textOut: 1, imageOut: 0 }, work())).toBe(1)
    expect(costMicroUsd('gpt-4o-mini', NOTHING, work('text->text'))).toBe(0)
  })

  test('is never lessened by a count below nothing', () => {
    // 1000 × 0.15
    const usage = { textIn: 1000, imageIn: -1_000_000, textOut: -1, imageOut: 0 }
    expect(costMicroUsd('gpt-4o-mini', usage, work('image->text'))).toBe(150)
  })

  test('tells the kinds of tokens apart', () => {
    const cost = (usage: object) => costMicroUsd('gpt-image-2', { ...NOTHING, ...usage }, work())
    expect([cost({ textIn: 1000 }), cost({ imageIn: 1000 }), cost({ imageOut: 1000 })]).toEqual([5000, 8000, 30_000])
  })

  test('of a call with a price of its own does not look at tokens', () => {
    expect(costMicroUsd('ultra', { ...NOTHING, textIn: 1e6 }, work('text->image'), 0.5)).toBe(80_000)
  })

  test('of a dated snapshot is that of its model', () => {
    const usage = { ...NOTHING, textIn: 1000 }
    expect(costMicroUsd('claude-haiku-4-5-20251001', usage, work())).toBe(1000)
    expect(costMicroUsd('gpt-4.1-2025-04-14', usage, work())).toBe(2000)
    expect(priceOf('gpt-4.1-preview')).toBeUndefined()
    expect(priceOf('constructor')).toBeUndefined()
  })

  test('of an unknown model is the operator’s figure, whatever it used', () => {
    expect(costMicroUsd('new-model', { ...NOTHING, imageOut: 9e6 }, work(), 0.0425)).toBe(42_500)
    expect(costMicroUsd('new-model', undefined, work('image->text'), 0.0425)).toBe(42_500)
  })

  test('of a model of which nobody knows anything is that of the dearest one', () => {
    const dearest = Math.max(...Object.keys(MODEL_PRICES).map((model) => expectedMicroUsd(model, work())))
    expect(costMicroUsd('new-model', undefined, work())).toBe(dearest)
    // gpt-image-2 in quality "high": 400 × 5 + 1500 × 8 + 7024 × 30
    expect(costMicroUsd('new-model', undefined, work('image->image', 'high'))).toBe(224_720)
  })
})

describe('an expectation', () => {
  test('of pictures goes by the operator’s figure where there is one, else by the table', () => {
    expect(expectedMicroUsd('gpt-image-2.5-flare', work(), 0.02)).toBe(20_000)
    // 400 × 5 + 1500 × 8 + 659 × 30
    expect(expectedMicroUsd('gpt-image-2.5-flare', work())).toBe(33_770)
    expect(expectedMicroUsd('gpt-image-2.5-flare', work(), 0)).toBe(0)
  })

  test('of a picture made of another is that of the larger of its sizes, from words that of a square', () => {
    const costs = (model: string, task: Task) => {
      return (['draft', 'standard', 'high'] as const).map((quality) => expectedMicroUsd(model, work(task, quality)))
    }
    // 14,000 and 408, 1584 or 6240 × 32, which are .013, .050 and .200 dollars; square 2,000 and 272, 1056 or 4160 × 32.
    expect(costs('gpt-image-1.5', 'image->image')).toEqual([27_056, 64_688, 213_680])
    expect(costs('gpt-image-1.5', 'text->image')).toEqual([10_704, 35_792, 135_120])
    // 400 × 2 + 1500 × 2.5 = 4,550, and .006, .015 or .052 dollars.
    expect(costs('gpt-image-1-mini', 'remove-background')).toEqual([10_550, 19_550, 56_550])
    // 14,000 and 196, 1756 or 7024 × 30: its oblong ones are the smaller.
    expect(costs('gpt-image-2', 'image->image')).toEqual([19_880, 66_680, 224_720])
  })

  test('of a chain is that of its dearest model, whichever comes first', () => {
    const chain = ['claude-haiku-5-5', 'claude-haiku-4-5']
    // claude-haiku-4-5: (400 + 1434) × 1 + 500 × 5
    expect(largestMicroUsd(chain, work('image->text'))).toBe(4_334)
    expect(largestMicroUsd(chain.toReversed(), work('image->text'))).toBe(4_334)
    expect(largestMicroUsd(['gemini-2.5-flash-image', 'gpt-image-2'], work(), 0.039)).toBe(39_000)
    expect(largestMicroUsd([], work())).toBe(0)
  })

  test('of words goes by the table', () => {
    // (400 + 765) × 2 + 500 × 8
    expect(expectedMicroUsd('gpt-4.1', work('image->text'), 0.02)).toBe(6_330)
    // 400 × 2 + 500 × 8
    expect(expectedMicroUsd('gpt-4.1', work('text->text'), 0.02)).toBe(4_800)
  })

  test('of a drawing in SVG is that of its text', () => {
    // (400 + 1446) × 0.1 + (8000 + 400) × 0.5 = 184.6 + 4,200
    expect(expectedMicroUsd('claude-haiku-5-5', work('image->image', 'draft'))).toBe(4_385)
  })

  test('is whole when the operator’s figure is not', () => {
    expect(expectedMicroUsd('x', work(), 0.039)).toBe(39_000)
    expect(expectedMicroUsd('x', work(), 0.0000001)).toBe(1)
  })
})
