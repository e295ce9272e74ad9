import { readdirSync, readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { config, type ForkConfig, loadConfig, parseConfig, publicConfig } from '../../lib/config.ts'
import { nearest } from '../../lib/config-check.ts'
import { ConfigError, formatProblem } from '../../lib/config-errors.ts'
import { schemaText } from '../../scripts/schema.ts'

type Options = Partial<Parameters<typeof parseConfig>[1]>

/** Four lines of a small but complete file; what a test adds stands on line 5 and after. */
function fileWith(...lines: string[]): string {
  return `{
  "version": 1,
  "brand": { "name": "Acme" },
  "tools": [{ "name": "draw", "description": "Draws.", "prompt": "Draw it.", "priceTokens": 5, "providers": ["sketch"] }]${lines.map((line) => `,\n  ${line}`).join('')}
}`
}

function parse(text: string, options: Options = {}): ForkConfig {
  return parseConfig(text, { file: 'fork.config.json', stage: 'development', forkOverrides: {}, ...options })
}

/** What is wrong with a file, as it is shown; nothing when it is fine. */
function complaints(text: string, options: Options = {}): string[] {
  try {
    parse(text, options)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems.map(formatProblem)
    throw error
  }
}

/** `text` with `found` replaced, which has to be there. */
function edited(text: string, found: string, replacement: string): string {
  expect(text).toContain(found)
  return text.replace(found, replacement)
}

/** The sample of the public contract, with its "…" filled in and the provider that this version has. */
const SAMPLE = {
  $schema: './fork.schema.json',
  version: 1,
  brand: {
    name: 'ColoringBook AI',
    tagline: '…',
    colors: { primary: '#112233' },
    supportEmail: 'help@example.com',
    legal: {},
  },
  auth: { provider: 'local', admins: [] },
  tools: [
    {
      name: 'coloring-page',
      description: '…',
      prompt: '… {{detail}} …',
      priceTokens: 100,
      highQualityPriceTokens: 200,
      providers: ['gemini', 'openai', 'stability', 'sketch'],
      options: { detail: { enum: ['simple', 'detailed'], default: 'simple' } },
    },
  ],
  ai: {
    routing: 'ordered',
    providerTimeoutMs: 30000,
    deadlineMs: 60000,
    cacheSeconds: 0,
    providers: { gemini: { model: 'gemini-2.5-flash-image', costPerImageUsd: 0.039 } },
    budgets: { dailyUsd: 25, monthlyUsd: 300, freeTierDailyUsd: 5 },
  },
  trial: { generations: 3 },
  plans: {
    free: { monthlyTokens: 1000 },
    pro: { monthlyTokens: 50000, priceCents: 1900, polarProductId: '' },
    enterprise: { monthlyTokens: 500000, priceCents: 9900, polarProductId: '' },
  },
  payments: {
    provider: 'polar',
    currency: 'usd',
    minimumDepositCents: 500,
    tokensPerDollar: 100,
    packs: [{ id: 'starter', priceCents: 500, tokens: 500 }],
  },
  limits: { generate: { perMinute: 10 }, imageBytesMax: 4000000, imagePixelsMax: 24000000 },
  cors: { origins: [] },
  features: { generate: true, payments: true, apiKeys: true, asyncJobs: true },
  environments: { development: {}, preview: {}, production: {} },
}

describe('fork.config.json', () => {
  test('is valid as it is shipped, and read from beside the code', () => {
    expect(config().brand.name).toBe('ColoringBook AI')
    expect(config()).toBe(config())
  })

  test('takes the sample of the contract', () => {
    expect(parse(JSON.stringify(SAMPLE))).toMatchObject({
      auth: { passwordLengthMin: 12 },
      ai: { providers: { gemini: { successors: ['gemini-nano-banana-2.1'] } } },
      limits: { signIn: { perMinute: 60 }, read: { perMinute: 120 }, imageSideMin: 16 },
    })
  })

  test('needs a version, a brand and a tool only', () => {
    const { tools, plans, limits, trial, auth, apiKeys, preferences } = parse(fileWith())
    expect(tools).toEqual([
      {
        name: 'draw',
        title: 'Draw',
        description: 'Draws.',
        does: 'image->image',
        prompt: 'Draw it.',
        priceTokens: 5,
        highQualityPriceTokens: 5,
        inputCharactersMax: 2000,
        providers: ['sketch'],
        options: {},
      },
    ])
    expect(plans.pro).toEqual({ monthlyTokens: 50_000, priceCents: 1900, polarProductId: '' })
    expect(limits).toEqual({
      generate: { perMinute: 10 },
      signIn: { perMinute: 60 },
      read: { perMinute: 120 },
      imageBytesMax: 4_000_000,
      imagePixelsMax: 24_000_000,
      imageSideMin: 16,
      uploadBytesMax: 20_000_000,
    })
    expect(trial).toEqual({ generations: 3, perNetworkDaily: 20 })
    expect(auth).toEqual({
      provider: 'local',
      admins: [],
      passwordLengthMin: 12,
      mfaForAdmins: false,
      deletionGraceDays: 30,
      clerk: { publishableKey: '', authorizedParties: [], allowMissingAzp: true },
    })
    expect(apiKeys).toEqual({ tag: 'key', perUserMax: 20 })
    expect(preferences).toBeUndefined()
  })

  test('gives every provider the models of this version where the fork names none', () => {
    expect(parse(fileWith()).ai.providers).toEqual({
      gemini: {
        enabled: true,
        model: 'gemini-2.5-flash-image',
        successors: ['gemini-nano-banana-2.1'],
        textModel: 'gemini-3.5-flash-lite',
      },
      openai: {
        enabled: true,
        model: 'gpt-image-2.5-flare',
        successors: ['gpt-image-2'],
        textModel: 'gpt-4.1-mini',
      },
      anthropic: { enabled: true, model: 'claude-haiku-5-5', successors: ['claude-haiku-4-5'] },
      stability: { enabled: true, model: 'control-structure', successors: [] },
    })
  })

  test.each(readdirSync('examples').filter((name) => name.endsWith('.json')))('takes examples/%s', (name) => {
    expect(complaints(readFileSync(`examples/${name}`, 'utf8'))).toEqual([])
  })

  test('gives settings without $schema and environments', () => {
    expect(parse(JSON.stringify(SAMPLE))).not.toHaveProperty('$schema')
    expect(parse(JSON.stringify(SAMPLE))).not.toHaveProperty('environments')
  })

  test('may start with a byte order mark', () => {
    expect(complaints(`\uFEFF${fileWith()}`)).toEqual([])
    expect(complaints(`\uFEFF${fileWith('"trail": {}')}`)).toEqual([
      'fork.config.json:5:3  trail  unknown key, did you mean "trial"?',
    ])
  })

  test('has a schema for editors that is current', () => {
    expect(readFileSync(new URL('../../fork.schema.json', import.meta.url), 'utf8')).toBe(schemaText())
  })
})

describe('mistakes in the file', () => {
  test.each([
    ['"trail": { "generations": 3 }', 'fork.config.json:5:3  trail  unknown key, did you mean "trial"?'],
    ['"colour": "red"', 'fork.config.json:5:3  colour  unknown key'],
    ['"constructor": {}', 'fork.config.json:5:3  constructor  unknown key'],
    ['"__proto__": {}', 'fork.config.json:5:3  __proto__  unknown key'],
    [
      '"limits": { "generate": { "perMinite": 3 } }',
      'fork.config.json:5:29  limits.generate.perMinite  unknown key, did you mean "perMinute"?',
    ],
    ['"limits": []', 'fork.config.json:5:13  limits  must be an object, not a list'],
    ['"limits": null', 'fork.config.json:5:13  limits  must be an object, not null'],
    ['"limits": { "imageSideMin": "16" }', 'fork.config.json:5:31  limits.imageSideMin  must be a number, not "16"'],
    [
      '"limits": { "imageSideMin": 1.5 }',
      'fork.config.json:5:31  limits.imageSideMin  must be a whole number, not 1.5',
    ],
    ['"limits": { "imageSideMin": 0 }', 'fork.config.json:5:31  limits.imageSideMin  0 is below the minimum of 1'],
    [
      '"limits": { "imageBytesMax": 5000000 }',
      'fork.config.json:5:32  limits.imageBytesMax  5000000 is above the maximum of 4500000',
    ],
    [
      '"auth": { "admins": "me@example.com" }',
      'fork.config.json:5:23  auth.admins  must be a list, not "me@example.com"',
    ],
    [
      '"auth": { "admins": ["a@example.com", "me"] }',
      'fork.config.json:5:41  auth.admins[1]  "me" is not an e-mail address',
    ],
    [
      '"auth": { "provider": "locla" }',
      'fork.config.json:5:25  auth.provider  must be "local" or "clerk", not "locla", did you mean "local"?',
    ],
    [
      '"auth": { "deletionGraceDays": 366 }',
      'fork.config.json:5:34  auth.deletionGraceDays  366 is above the maximum of 365',
    ],
    [
      '"auth": { "clerk": { "publishableKey": "pk_test_nonsense" } }',
      'fork.config.json:5:42  auth.clerk.publishableKey  must be a publishable key of Clerk, such as "pk_test_…"',
    ],
    [
      '"auth": { "clerk": { "authorizedParties": ["*"] } }',
      'fork.config.json:5:46  auth.clerk.authorizedParties[0]  must be an exact origin such as "https://app.example.com" or "http://localhost:5173"',
    ],
    [
      '"apiKeys": { "tag": "MyKey" }',
      'fork.config.json:5:23  apiKeys.tag  must be 2 to 10 lower case letters and digits',
    ],
    [
      '"preferences": { "a b": { "type": "string" } }',
      'fork.config.json:5:20  preferences.a b  must be a letter, then letters, digits or "_"',
    ],
    [
      '"preferences": { "theme": { "type": "text" } }',
      'fork.config.json:5:39  preferences.theme.type  must be "string" or "number" or "boolean", not "text"',
    ],
    [
      '"preferences": { "theme": { "type": "string", "enum": ["dark", "dark"] } }',
      'fork.config.json:5:66  preferences.theme.enum[1]  "dark" is there twice',
    ],
    [
      '"preferences": { "pages": { "type": "number", "enum": ["1"] } }',
      'fork.config.json:5:57  preferences.pages.enum  only a preference of type "string" has a list of values',
    ],
    [
      '"ai": { "routing": "cheap" }',
      'fork.config.json:5:22  ai.routing  must be "ordered" or "cheapest" or "fastest", not "cheap", did you mean "cheapest"?',
    ],
    ['"ai": { "providers": { "sketch": {} } }', 'fork.config.json:5:26  ai.providers.sketch  unknown key'],
    [
      '"ai": { "providers": { "gemini": { "costPerImageUsd": -1 } } }',
      'fork.config.json:5:57  ai.providers.gemini.costPerImageUsd  -1 is below the minimum of 0',
    ],
    [
      '"ai": { "budgets": { "providers": { "openai": { "dayUsd": 1 } } } }',
      'fork.config.json:5:51  ai.budgets.providers.openai.dayUsd  unknown key, did you mean "dailyUsd"?',
    ],
    [
      '"payments": { "provider": "polr" }',
      'fork.config.json:5:29  payments.provider  must be "none" or "polar", not "polr", did you mean "polar"?',
    ],
    [
      '"payments": { "currency": "USD" }',
      'fork.config.json:5:29  payments.currency  must be a currency code such as "usd"',
    ],
    [
      '"payments": { "packs": [{ "id": "s", "priceCents": 500 }] }',
      'fork.config.json:5:27  payments.packs[0].tokens  is missing',
    ],
    ['"plans": { "pro": { "monthlyTokens": 9 } }', 'fork.config.json:5:21  plans.pro.priceCents  is missing'],
    ['"features": { "generate": "yes" }', 'fork.config.json:5:29  features.generate  must be true or false, not "yes"'],
    [
      '"cors": { "origins": ["*"] }',
      'fork.config.json:5:25  cors.origins[0]  must be an exact origin such as "https://app.example.com" or "http://localhost:5173"',
    ],
    [
      '"environments": { "prod": {} }',
      'fork.config.json:5:21  environments.prod  unknown key, did you mean "production"?',
    ],
    [
      '"environments": { "preview": { "environments": {} } }',
      'fork.config.json:5:34  environments.preview.environments  unknown key',
    ],
  ])('%s is reported at its place', (line, complaint) => {
    expect(complaints(fileWith(line))).toEqual([complaint])
  })

  test.each([
    ['"version": 1', '"version": 2', 'fork.config.json:2:14  version  must be 1, not 2'],
    ['"name": "Acme"', '', 'fork.config.json:3:12  brand.name  is missing'],
    ['"Acme"', '""', 'fork.config.json:3:22  brand.name  must not be empty'],
    ['"Acme"', '3', 'fork.config.json:3:22  brand.name  must be text, not 3'],
    ['"Acme"', `"${'A'.repeat(61)}"`, 'fork.config.json:3:22  brand.name  is longer than 60 characters'],
    [
      '"name": "Acme"',
      '"name": "Acme", "colors": { "primary": "blue" }',
      'fork.config.json:3:53  brand.colors.primary  must be a colour such as "#1d4ed8"',
    ],
    [
      '"priceTokens"',
      '"pricetokens"',
      'fork.config.json:4:78  tools[0].pricetokens  unknown key, did you mean "priceTokens"?',
    ],
    [
      '"draw"',
      '"Draw it"',
      'fork.config.json:4:23  tools[0].name  must be lower case with dashes, such as "coloring-page"',
    ],
    ['["sketch"]', '[]', 'fork.config.json:4:109  tools[0].providers  must not be empty'],
    [
      '["sketch"]',
      '["skech"]',
      'fork.config.json:4:110  tools[0].providers[0]  must be "gemini" or "openai" or "anthropic" or "stability" or "sketch", not "skech", did you mean "sketch"?',
    ],
    ['["sketch"]', '["sketch", "sketch"]', 'fork.config.json:4:120  tools[0].providers[1]  "sketch" is there twice'],
  ])('%s as %s is reported at its place', (found, replacement, complaint) => {
    expect(complaints(edited(fileWith(), found, replacement))).toEqual([complaint])
  })

  test('are all reported at once', () => {
    expect(complaints(fileWith('"trail": {}', '"colour": 1', '"limits": { "imageSideMin": 0, "x": 1 }'))).toEqual([
      'fork.config.json:5:3  trail  unknown key, did you mean "trial"?',
      'fork.config.json:6:3  colour  unknown key',
      'fork.config.json:7:34  limits.x  unknown key',
      'fork.config.json:7:31  limits.imageSideMin  0 is below the minimum of 1',
    ])
  })

  test('stand in the message of the error', () => {
    expect(() => parse(fileWith('"trail": {}'))).toThrow(
      new ConfigError([
        { source: 'fork.config.json', path: 'trail', line: 5, column: 3, message: 'unknown key', suggestion: 'trial' },
      ]),
    )
  })

  test.each([
    ['https://app.example.com', true],
    ['http://localhost:5173', true],
    ['http://127.0.0.1', true],
    ['https://app.example.com/', false],
    ['https://app.example.com/path', false],
    ['http://app.example.com', false],
    ['https://*.example.com', false],
    ['app.example.com', false],
    ['null', false],
  ])('the origin %s is accepted: %s', (origin, accepted) => {
    expect(complaints(fileWith(`"cors": { "origins": ["${origin}"] }`)).length === 0).toBe(accepted)
  })
})

describe('a suggestion', () => {
  test.each([
    ['trail', 'trial'],
    ['TRIAL', 'trial'],
    ['tril', 'trial'],
    ['dev', 'development'],
    ['minimumDepozitsCent', 'minimumDepositCents'],
    ['trxxx', undefined],
    ['xy', undefined],
    ['de', undefined],
  ])('for %s is %s', (word, suggestion) => {
    expect(nearest(word, ['on', 'trial', 'development', 'minimumDepositCents'])).toBe(suggestion)
  })
})

describe('contradictions', () => {
  const tool = (prompt: string, options: string) =>
    edited(fileWith(), '"prompt": "Draw it."', `"prompt": "${prompt}",\n    "options": ${options}`)
  const DETAIL = '"enum": ["simple", "fine"], "default": "simple"'

  test.each([
    [
      '{{detial}}',
      `{ "detail": { ${DETAIL} } }`,
      'fork.config.json:4:66  tools[0].prompt  {{detial}} is not an option of this tool, did you mean "detail"?',
    ],
    ['{{x}} {{x}}', '{}', 'fork.config.json:4:66  tools[0].prompt  {{x}} is not an option of this tool'],
    [
      '.',
      '{ "detail": { "enum": ["simple", "fine"], "default": "simpl" } }',
      'fork.config.json:5:69  tools[0].options.detail.default  "simpl" is not in enum, did you mean "simple"?',
    ],
    [
      '.',
      `{ "detail": { ${DETAIL}, "labels": { "fin": "F" } } }`,
      'fork.config.json:5:91  tools[0].options.detail.labels.fin  not a value of enum, did you mean "fine"?',
    ],
    [
      '.',
      `{ "detail": { ${DETAIL}, "phrases": { "bold": "B" } } }`,
      'fork.config.json:5:92  tools[0].options.detail.phrases.bold  not a value of enum',
    ],
    [
      '.',
      '{ "detail": { "enum": ["a", "a"], "default": "a" } }',
      'fork.config.json:5:44  tools[0].options.detail.enum[1]  "a" is there twice',
    ],
    [
      '.',
      `{ "quality": { ${DETAIL} } }`,
      'fork.config.json:5:18  tools[0].options.quality  this name is taken by every tool',
    ],
    [
      '.',
      `{ "text": { ${DETAIL} } }`,
      'fork.config.json:5:18  tools[0].options.text  this name is taken by every tool',
    ],
    [
      '.',
      `{ "De-tail": { ${DETAIL} } }`,
      'fork.config.json:5:18  tools[0].options.De-tail  must be letters and digits, starting in lower case',
    ],
  ])('prompt "%s" with options %s is refused', (prompt, options, complaint) => {
    expect(complaints(tool(prompt, options))).toEqual([complaint])
  })

  test.each([
    ['image->text', 'Say it.', ['stability'], 'tools[0].providers[0]  "stability" cannot do image->text'],
    ['remove-background', 'Cut.', ['openai', 'gemini'], 'tools[0].providers[1]  "gemini" cannot do remove-background'],
    ['text->image', 'Draw {{text}}.', ['sketch'], 'tools[0].providers[0]  "sketch" cannot do text->image'],
    ['text->text', 'Go on.', ['openai'], 'tools[0].prompt  {{text}}, what the user wrote, stands nowhere in it'],
    ['image->text', 'Say {{text}}.', ['openai'], 'tools[0].prompt  {{text}} is not an option of this tool'],
  ])('a tool that does %s with prompt "%s" and providers %j is refused', (does, prompt, providers, complaint) => {
    const fork = { tools: [{ name: 'tool', description: 'T', does, prompt, priceTokens: 1, providers }] }
    const text = JSON.stringify({ version: 1, brand: { name: 'Acme' }, ...fork })
    expect(complaints(text)).toEqual([expect.stringContaining(complaint)])
  })

  test('a tool that begins with words has them in its prompt, beside its options', () => {
    const options = { tone: { enum: ['dry', 'warm'], default: 'dry' } }
    const prompt = 'In a {{tone}} tone: {{ text }}'
    const fork = { name: 'tool', description: 'T', does: 'text->text', prompt, priceTokens: 1, providers: ['gemini'] }
    const text = JSON.stringify({ version: 1, brand: { name: 'Acme' }, tools: [{ ...fork, options }] })
    expect(complaints(text)).toEqual([])
  })

  test('a placeholder may have spaces, and an option may go unused', () => {
    expect(complaints(tool('{{ detail }}', `{ "detail": { ${DETAIL} }, "line": { ${DETAIL} } }`))).toEqual([])
  })

  test.each([
    [
      '"payments": { "packs": [{ "id": "s", "priceCents": 300, "tokens": 1 }] }',
      'fork.config.json:5:54  payments.packs[0].priceCents  300 is below payments.minimumDepositCents (500)',
    ],
    [
      '"payments": { "packs": [{ "id": "s", "priceCents": 500, "tokens": 1 }, { "id": "s", "priceCents": 900, "tokens": 2 }] }',
      'fork.config.json:5:82  payments.packs[1].id  "s" is there twice',
    ],
    [
      '"payments": { "pastDueGraceDays": 61 }',
      'fork.config.json:5:37  payments.pastDueGraceDays  61 is above the maximum of 60',
    ],
    [
      '"payments": { "polarProductId": "p", "packs": [{ "id": "s", "priceCents": 500, "tokens": 1, "polarProductId": "p" }] }',
      'fork.config.json:5:113  payments.packs[0].polarProductId  "p" is there twice',
    ],
    [
      '"plans": { "pro": { "priceCents": 1900, "polarProductId": "p" }, "enterprise": { "priceCents": 9900, "polarProductId": "p" } }',
      'fork.config.json:5:122  plans.enterprise.polarProductId  "p" is there twice',
    ],
    [
      '"ai": { "providerTimeoutMs": 9000, "deadlineMs": 8000 }',
      'fork.config.json:5:52  ai.deadlineMs  8000 is below ai.providerTimeoutMs (9000)',
    ],
    [
      '"ai": { "deadlineMs": 29999 }',
      'fork.config.json:5:25  ai.deadlineMs  29999 is below ai.providerTimeoutMs (30000)',
    ],
    [
      '"ai": { "budgets": { "dailyUsd": 301 } }',
      'fork.config.json:5:36  ai.budgets.dailyUsd  301 is above ai.budgets.monthlyUsd (300)',
    ],
    [
      '"ai": { "budgets": { "freeTierDailyUsd": 26 } }',
      'fork.config.json:5:44  ai.budgets.freeTierDailyUsd  26 is above ai.budgets.dailyUsd (25)',
    ],
  ])('%s is refused', (line, complaint) => {
    expect(complaints(fileWith(line))).toEqual([complaint])
  })

  test('two tools of one name are refused', () => {
    const twoTools = JSON.stringify({ ...SAMPLE, tools: [...SAMPLE.tools, ...SAMPLE.tools] }, null, 2)
    expect(complaints(twoTools)).toEqual([
      expect.stringMatching(/^fork\.config\.json:\d+:15 {2}tools\[1\]\.name {2}"coloring-page" is there twice$/),
    ])
  })
})

describe('text that is not JSON', () => {
  test.each([
    ['a missing comma', '{\n  "version": 1\n  "brand": {}\n}', 'fork.config.json:3:3  a "," is missing here'],
    [
      'a comma too many',
      '{\n  "version": 1,\n}',
      'fork.config.json:3:1  a key in double quotes must stand here (or a comma is too many)',
    ],
    [
      'a comma too many in a list',
      '{ "a": [1,] }',
      'fork.config.json:1:11  a value must stand here (or a comma is too many)',
    ],
    ['a comment', '{\n  // brand\n  "version": 1\n}', 'fork.config.json:2:3  comments are not allowed in this file'],
    ['text without quotes', '{ "version": one }', 'fork.config.json:1:14  text must stand in double quotes'],
    ['an open brace', '{ "version": 1', 'fork.config.json:1:15  a "}" is missing here'],
    ['no text', '', 'fork.config.json:1:1  a value must stand here (or a comma is too many)'],
    ['more after the end', '{}\n{}', 'fork.config.json:2:1  the file must end here'],
    ['a list', '[]', 'fork.config.json:1:1  must be an object, not a list'],
    ['a number', '3', 'fork.config.json:1:1  must be an object, not 3'],
  ])('%s is reported at its place', (_why, text, complaint) => {
    expect(complaints(text)).toEqual([complaint])
  })

  test('gives nothing but ConfigError, whatever it is', () => {
    const anyText = fc.oneof(fc.string(), fc.json())
    fc.assert(fc.property(anyText, (text) => complaints(text).length > 0))
  })

  test('an unfit value anywhere in the file gives nothing but ConfigError', () => {
    const paths = leafPaths(SAMPLE)
    fc.assert(
      fc.property(fc.constantFrom(...paths), fc.jsonValue(), (path, value) => {
        const marked = JSON.stringify(SAMPLE, (key, inner) => (key === path ? 'HERE' : inner))
        const text = marked.replaceAll('"HERE"', () => JSON.stringify(value))
        return complaints(text).every((complaint) => /^fork\.config\.json:\d+:\d+ {2}/.test(complaint))
      }),
      { numRuns: 300 },
    )
  })
})

/** Every key of a value, at any depth. */
function leafPaths(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) => [key, ...leafPaths(inner)])
}

describe('layers', () => {
  const perMinute = (text: string, options: Options = {}) => parse(text, options).limits.generate.perMinute
  const inFile = '"limits": { "generate": { "perMinute": 20 } }'
  const inStage = '"environments": { "preview": { "limits": { "generate": { "perMinute": 30 } } } }'
  const forkOverrides = { FORK__LIMITS__GENERATE__PER_MINUTE: '40' }

  test('go from defaults to the file to its environment to variables', () => {
    expect(perMinute(fileWith())).toBe(10)
    expect(perMinute(fileWith(inFile))).toBe(20)
    expect(perMinute(fileWith(inFile, inStage), { stage: 'preview' })).toBe(30)
    expect(perMinute(fileWith(inFile, inStage), { stage: 'preview', forkOverrides })).toBe(40)
  })

  test('leave the other environments alone', () => {
    expect(perMinute(fileWith(inFile, inStage), { stage: 'production' })).toBe(20)
  })

  test('merge objects and replace lists', () => {
    const text = JSON.stringify({
      ...SAMPLE,
      cors: { origins: ['https://a.example.com', 'https://b.example.com'] },
      environments: {
        preview: { brand: { colors: { accent: '#000000' } }, cors: { origins: ['https://c.example.com'] } },
      },
    })
    const { brand, cors } = parse(text, { stage: 'preview' })
    expect(brand).toMatchObject({ name: 'ColoringBook AI', colors: { primary: '#112233', accent: '#000000' } })
    expect(cors.origins).toEqual(['https://c.example.com'])
  })

  test('a mistake in another environment shows before it is deployed', () => {
    const stage = '"environments": { "production": { "limits": { "imageSideMin": 0, "genrate": {} } } }'
    expect(complaints(fileWith(stage))).toEqual([
      'fork.config.json:5:68  environments.production.limits.genrate  unknown key, did you mean "generate"?',
      'fork.config.json:5:65  environments.production.limits.imageSideMin  0 is below the minimum of 1',
    ])
  })

  test('a list of an environment answers for its own entries', () => {
    const tools = '"tools": [{ "name": "other", "description": "D", "priceTokens": 1, "providers": ["sketch"] }]'
    expect(complaints(fileWith(`"environments": { "production": { ${tools} } }`))).toEqual([
      'fork.config.json:5:47  environments.production.tools[0].prompt  is missing',
    ])
  })

  test('a value that both lack is missing from the file', () => {
    const high = '"environments": { "production": { "plans": { "pro": { "monthlyTokens": 2 } } } }'
    expect(complaints(fileWith('"plans": { "pro": { "monthlyTokens": 1 } }', high))).toEqual([
      'fork.config.json:5:21  plans.pro.priceCents  is missing',
    ])
  })

  test('a contradiction between layers is blamed on the higher one', () => {
    const low = '"ai": { "providerTimeoutMs": 20000, "deadlineMs": 20000 }'
    const high = '"environments": { "production": { "ai": { "deadlineMs": 10000 } } }'
    expect(complaints(fileWith(low, high))).toEqual([
      'fork.config.json:6:59  environments.production.ai.deadlineMs  10000 is below ai.providerTimeoutMs (20000)',
    ])
  })
})

describe('FORK__ variables', () => {
  const text = JSON.stringify(SAMPLE)
  const settings = (forkOverrides: Record<string, string>) => parse(text, { forkOverrides })

  test.each([
    ['FORK__LIMITS__GENERATE__PER_MINUTE', '50', { limits: { generate: { perMinute: 50 } } }],
    ['FORK__limits__generate__perMinute', '50', { limits: { generate: { perMinute: 50 } } }],
    ['FORK__LIMITS__GENERATE__PERMINUTE', '50', { limits: { generate: { perMinute: 50 } } }],
    ['FORK__FEATURES__API_KEYS', 'false', { features: { apiKeys: false } }],
    ['FORK__BRAND__NAME', 'Sketchy & Sons', { brand: { name: 'Sketchy & Sons' } }],
    ['FORK__BRAND__NAME', '1984', { brand: { name: '1984' } }],
    ['FORK__BRAND__NAME', '"Quoted"', { brand: { name: 'Quoted' } }],
    ['FORK__TOOLS__0__PRICE_TOKENS', '7', { tools: [{ name: 'coloring-page', priceTokens: 7 }] }],
    [
      'FORK__TOOLS__0__OPTIONS__DETAIL__DEFAULT',
      'detailed',
      { tools: [{ options: { detail: { default: 'detailed' } } }] },
    ],
    ['FORK__TOOLS__0__PROVIDERS', '["sketch"]', { tools: [{ name: 'coloring-page', providers: ['sketch'] }] }],
    ['FORK__AUTH__ADMINS__0', 'Me@Example.com', { auth: { admins: ['me@example.com'] } }],
    ['FORK__AI__PROVIDERS__GEMINI__SUCCESSORS', '[]', { ai: { providers: { gemini: { successors: [] } } } }],
    ['FORK__PLANS__PRO', '{"priceCents":2900}', { plans: { pro: { priceCents: 2900, monthlyTokens: 50_000 } } }],
  ])('%s=%s is found and typed', (name, value, expected) => {
    expect(settings({ [name]: value })).toMatchObject(expected)
  })

  test('may refine each other, and lists count from 0 to 10 in order', () => {
    const admins = Array.from({ length: 11 }, (_, index) => [`FORK__AUTH__ADMINS__${index}`, `a${index}@example.com`])
    expect(settings(Object.fromEntries(admins.reverse())).auth.admins.at(10)).toBe('a10@example.com')
    expect(settings({ FORK__TRIAL__GENERATIONS: '5', FORK__TRIAL: '{"generations":4}' }).trial).toEqual({
      generations: 5,
      perNetworkDaily: 20,
    })
    const signIn = { FORK__LIMITS__SIGN_IN__PER_MINUTE: '5', FORK__LIMITS__SIGNIN: '{"perMinute":4}' }
    expect(settings(signIn).limits.signIn).toEqual({ perMinute: 5 })
  })

  test.each([
    [
      'FORK__LIMTS__GENERATE__PER_MINUTE',
      '1',
      'FORK__LIMTS__GENERATE__PER_MINUTE  no such setting, did you mean "FORK__LIMITS__GENERATE__PER_MINUTE"?',
    ],
    ['FORK__LIMITS__GENERATE__PERMIN', '1', 'FORK__LIMITS__GENERATE__PERMIN  no such setting'],
    [
      'FORK__LIMITS__IMAGE_SIDE_MN',
      '1',
      'FORK__LIMITS__IMAGE_SIDE_MN  no such setting, did you mean "FORK__LIMITS__IMAGE_SIDE_MIN"?',
    ],
    ['FORK__BRAND__NAME__X', '1', 'FORK__BRAND__NAME__X  no such setting'],
    ['FORK__', '1', 'FORK__  no such setting'],
    ['FORK__ENVIRONMENTS__PREVIEW', '{}', 'FORK__ENVIRONMENTS__PREVIEW  no such setting'],
    ['FORK__TOOLS__3__NAME', 'x', 'FORK__TOOLS__3__NAME  no such entry: tools has 1 and takes one more at index 1'],
    [
      'FORK__TOOLS__0__OPTIONS__DETIAL',
      '{}',
      'FORK__TOOLS__0__OPTIONS__DETIAL  no such setting, did you mean "FORK__TOOLS__0__OPTIONS__DETAIL"?',
    ],
    [
      'FORK__LIMITS__IMAGE_SIDE_MIN',
      'ten',
      'FORK__LIMITS__IMAGE_SIDE_MIN  limits.imageSideMin  must be a number, not "ten"',
    ],
    [
      'FORK__AI__DEADLINE_MS',
      '5000',
      'FORK__AI__DEADLINE_MS  ai.deadlineMs  5000 is below ai.providerTimeoutMs (30000)',
    ],
    [
      'FORK__PAYMENTS',
      '{"provider":"polr"}',
      'FORK__PAYMENTS  payments.provider  must be "none" or "polar", not "polr", did you mean "polar"?',
    ],
    ['FORK__PAYMENTS__PACKS__1__ID', 'big', 'FORK__PAYMENTS__PACKS__1__ID  payments.packs[1].priceCents  is missing'],
  ])('%s=%s is refused by its name', (name, value, complaint) => {
    expect(complaints(text, { forkOverrides: { [name]: value } })).toContain(complaint)
  })

  test('do not cover up a mistake that other environments have', () => {
    const wrong = fileWith('"limits": { "imageSideMin": 0 }')
    expect(complaints(wrong, { forkOverrides: { FORK__LIMITS__IMAGE_SIDE_MIN: '20' } })).toEqual([
      'fork.config.json:5:31  limits.imageSideMin  0 is below the minimum of 1',
    ])
  })
})

describe('FORK_CONFIG', () => {
  const anywhere = { onVercel: false, stage: 'development', forkOverrides: {} } as const

  test('names another file, and complaints name it too', () => {
    expect(loadConfig({ ...anywhere, forkConfig: 'fork.config.json' }).brand.name).toBe('ColoringBook AI')
    expect(() => loadConfig({ ...anywhere, forkConfig: 'package.json' })).toThrow(
      /package\.json:2:3 {2}name {2}unknown key/,
    )
  })

  test('names a file that exists', () => {
    expect(() => loadConfig({ ...anywhere, forkConfig: 'missing.json' })).toThrow(
      /missing\.json {2}cannot be read: ENOENT/,
    )
  })

  test('is refused on Vercel', () => {
    expect(() => loadConfig({ ...anywhere, onVercel: true, forkConfig: 'fork.config.json' })).toThrow(
      /FORK_CONFIG {2}cannot be set on Vercel/,
    )
  })
})

describe('publicConfig', () => {
  const full = parse(
    JSON.stringify({
      ...SAMPLE,
      auth: { provider: 'local', admins: ['secret-admin@example.com'] },
      tools: [
        {
          ...SAMPLE.tools[0],
          prompt: 'Secret words {{detail}}',
          options: {
            detail: {
              enum: ['simple'],
              default: 'simple',
              labels: { simple: 'S' },
              phrases: { simple: 'Secret phrase' },
            },
          },
        },
      ],
      payments: {
        ...SAMPLE.payments,
        polarProductId: 'secret-product-1',
        packs: [{ id: 'p', priceCents: 500, tokens: 5, polarProductId: 'secret-product-2' }],
      },
      plans: { pro: { priceCents: 1900, polarProductId: 'secret-product-3' } },
      ai: { providers: { gemini: { model: 'secret-model', costPerImageUsd: 0.125 } } },
    }),
  )

  test('leaks no prompts, models, costs, product ids or administrators', () => {
    const keys = leafPaths(publicConfig(full, { paymentsOn: true }))
    for (const key of [
      'prompt',
      'phrases',
      'polarProductId',
      'costPerImageUsd',
      'model',
      'providers',
      'admins',
      'ai',
      'cors',
    ]) {
      expect(keys).not.toContain(key)
    }
    expect(JSON.stringify(publicConfig(full, { paymentsOn: true }))).not.toMatch(/secret|0\.125/i)
  })

  test('has what a page needs', () => {
    expect(publicConfig(full, { paymentsOn: true })).toMatchObject({
      brand: { name: 'ColoringBook AI', texts: { resultTitle: 'Your result' } },
      auth: { provider: 'local', passwordLengthMin: 12 },
      tools: [
        { name: 'coloring-page', priceTokens: 100, options: { detail: { enum: ['simple'], labels: { simple: 'S' } } } },
      ],
      plans: { free: { monthlyTokens: 1000 }, pro: { monthlyTokens: 50_000, priceCents: 1900 } },
      payments: {
        provider: 'polar',
        currency: 'usd',
        minimumDepositCents: 500,
        tokensPerDollar: 100,
        packs: [{ id: 'p', priceCents: 500, tokens: 5 }],
      },
      limits: { generatePerMinute: 10, imageBytesMax: 4_000_000, imagePixelsMax: 24_000_000, imageSideMin: 16 },
    })
  })

  test('says how to sign in: with a password, which mail may set anew, or at Clerk', () => {
    const local = (mailOn?: boolean) =>
      publicConfig(full, { paymentsOn: true, ...(mailOn !== undefined && { mailOn }) }).auth
    expect(local()).toEqual({ provider: 'local', passwordLengthMin: 12, passwordReset: false })
    expect(local(true)).toEqual({ provider: 'local', passwordLengthMin: 12, passwordReset: true })
    const publishableKey = `pk_test_${Buffer.from('clerk.example.com$').toString('base64')}`
    const clerk = parse(fileWith(`"auth": { "provider": "clerk", "clerk": { "publishableKey": "${publishableKey}" } }`))
    expect(publicConfig(clerk, { paymentsOn: true }).auth).toEqual({
      provider: 'clerk',
      publishableKey,
      frontendApi: 'clerk.example.com',
    })
  })

  test('names the preferences that a user may set, where the fork says which', () => {
    expect(publicConfig(full, { paymentsOn: true }).preferences).toBeUndefined()
    const preferences = { theme: { type: 'string', enum: ['light', 'dark'] }, hints: { type: 'boolean' } }
    const fork = parse(fileWith(`"preferences": ${JSON.stringify(preferences)}`))
    expect(publicConfig(fork, { paymentsOn: true }).preferences).toEqual(preferences)
  })

  test('claims payments only where they are on', () => {
    expect(full.features).toMatchObject({ apiKeys: true, payments: true })
    const features = { generate: true, apiKeys: true, asyncJobs: true }
    expect(publicConfig(full, { paymentsOn: true }).features).toEqual({ ...features, payments: true })
    expect(publicConfig(full, { paymentsOn: false }).features).toEqual({ ...features, payments: false })
  })
})
