// What the doctor says of margins: sales less fees and the dearest result that the tools sell.
import { describe, expect, test } from 'vitest'
import { findings } from '../../scripts/doctor.ts'

const warnings = (variables: Record<string, string>) => findings(variables).warnings
const GEMINI_ALONE = { FORK__TOOLS__0__PROVIDERS: '["gemini","sketch"]' }

describe('margins', () => {
  test('tell which products cost more than they bring in', () => {
    const variables = { ...GEMINI_ALONE, FORK__PLANS__PRO: '{"monthlyTokens":50000,"priceCents":1900}' }
    // 5 % of 1900 and 50; 6.5 % of 1900, rounded up, and 50; 500 pictures at 3.9 cents.
    expect(findings(variables).margins).toContainEqual({
      product: 'plan "pro", a month',
      priceCents: 1900,
      feeCents: 145,
      foreignCardFeeCents: 174,
      incomeCents: 1726,
      results: 500,
      costCents: 1950,
    })
    expect(warnings(variables)).toContain(
      'plan "pro", a month: using it up costs $19.50 for 500 results, and $17.26 come in.',
    )
    // 2139 less 6.5 % (140) and 50 is 1949; a cent more pays for the images.
    expect(warnings({ ...variables, FORK__PLANS__PRO__PRICE_CENTS: '2139' }).join()).toContain('and $19.49 come in')
    expect(warnings({ ...variables, FORK__PLANS__PRO__PRICE_CENTS: '2140' }).join()).not.toContain('plan "pro"')
    expect(warnings({ ...variables, FORK__TOOLS__0__PROVIDERS: '["sketch"]' }).join()).not.toContain('costs')
  })

  test('take the tool whose results cost most per token', () => {
    const tool = '{"name":"cheap","description":"C","prompt":"C","priceTokens":10,"providers":["gemini"]}'
    expect(findings({ ...GEMINI_ALONE, FORK__TOOLS__1: tool }).margins).toContainEqual(
      expect.objectContaining({ product: 'pack "starter"', results: 50, costCents: 195, incomeCents: 417 }),
    )
  })

  test('tell of a price that the fees eat up whole, also where results cost nothing', () => {
    const pack = { id: 'tiny', priceCents: 50, tokens: 100 }
    const variables = { FORK__PAYMENTS__MINIMUM_DEPOSIT_CENTS: '50', FORK__PAYMENTS__PACKS: JSON.stringify([pack]) }
    // 5 % of 50 is 2.5, rounded up.
    expect(findings(variables).margins).toContainEqual(
      expect.objectContaining({ product: 'pack "tiny"', feeCents: 53, foreignCardFeeCents: 54, incomeCents: -4 }),
    )
    expect(warnings({ ...variables, FORK__TOOLS__0__PROVIDERS: '["sketch"]' })).toContain(
      'pack "tiny": using it up costs $0.00 for 1 results, and -$0.04 come in.',
    )
  })

  /** What 10 results of a tool cost, in cents: the free plan's 1000 tokens at 100 each. */
  function costCents(tool: object, variables: Record<string, string> = {}): number | undefined {
    const whole = { name: 'tool', description: 'T', prompt: 'T', priceTokens: 100, ...tool }
    return findings({ FORK__TOOLS: JSON.stringify([whole]), ...variables }).margins[0]?.costCents
  }

  test('take the dearest provider that the tool lists and that does the task, whatever it is called first', () => {
    // Gemini as fork.config.json says 3.9 cents, OpenAI 9.302 for quality "high", Stability 5, each ten times.
    expect(costCents({ providers: ['sketch', 'gemini'] })).toBe(39)
    expect(costCents({ providers: ['gemini', 'openai', 'stability'] })).toBe(93)
    expect(costCents({ providers: ['gemini', 'stability'] })).toBe(50)
    expect(costCents({ providers: ['sketch'] })).toBe(0)
    // Anthropic draws drafts alone, and this tool sells none: (400 + 1446) × 0.1 and 8400 × 0.5 would be 0.44 cents.
    expect(costCents({ providers: ['anthropic'] })).toBe(0)
    expect(costCents({ providers: ['anthropic'], draftPriceTokens: 100 })).toBe(4)
  })

  test('leave out a provider that is switched off, and those without a key where another has one', () => {
    const tool = { providers: ['gemini', 'stability'] }
    expect(costCents(tool, { FORK__AI__PROVIDERS__STABILITY__ENABLED: 'false' })).toBe(39)
    expect(costCents(tool, { GEMINI_API_KEY: 'key' })).toBe(39)
    expect(costCents(tool, { GEMINI_API_KEY: 'key', STABILITY_API_KEY: 'key' })).toBe(50)
  })

  test('take words at the price of words, and a cut-out at that of its own endpoint', () => {
    // 10 times (400 + 1659) × 0.4 and 500 × 1.6 for gpt-4.1-mini, or less for its successor: 2 cents at most.
    expect(costCents({ does: 'image->text', providers: ['openai'] })).toBeLessThanOrEqual(2)
    const cutOut = { does: 'remove-background', providers: ['stability'] }
    expect(costCents(cutOut, { FORK__AI__PROVIDERS__STABILITY__MODEL: 'ultra' })).toBe(50)
  })
})
