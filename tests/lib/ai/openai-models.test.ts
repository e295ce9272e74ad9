// Which models the OpenAI adapter asks, and what becomes of those that are gone.
import { describe, expect, test } from 'vitest'
import { openai } from '../../../lib/ai/openai.ts'
import type { ModelRequest } from '../../../lib/ai/provider.ts'
import { config } from '../../../lib/config.ts'
import { IMAGE_REQUEST, testAdapter } from '../../support/adapter.ts'

const adapter = testAdapter(openai, 'openai', IMAGE_REQUEST)
const { behave, sent } = adapter

const MODEL = 'gpt-image-2.5-flare'
const WORDS: Partial<ModelRequest> = { task: 'image->text' }
const CUT_OUT: ModelRequest = { ...IMAGE_REQUEST, task: 'remove-background' }

describe('models', () => {
  const signal = new AbortController().signal
  const settings = (variables: Record<string, string>) =>
    adapter.fresh({
      OPENAI_API_KEY: 'test-key',
      OPENAI_BASE_URL: adapter.url(),
      FORK__AI__PROVIDERS__OPENAI__COSTPERIMAGEUSD: '0.01',
      ...variables,
    })

  test('that are gone make room for their successors, and are remembered', async () => {
    const provider = await settings({})
    const { model, successors } = config().ai.providers.openai
    behave({ kind: 'modelGone', models: [model] })
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ model: successors[0] })
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ model: successors[0] })
    expect(sent().map((request) => request.model)).toEqual([model, successors[0], successors[0]])
  })

  test('that are all gone fail as model_gone', async () => {
    const provider = await settings({})
    behave({ kind: 'modelGone' })
    await expect(provider.run(IMAGE_REQUEST, { signal })).rejects.toMatchObject({ kind: 'model_gone' })
    expect(sent()).toHaveLength(2)
  })

  test('that cannot cut out any more are not asked to', async () => {
    const provider = await settings({})
    const { model } = config().ai.providers.openai
    behave({ kind: 'modelGone', models: [model] })
    await expect(provider.run(CUT_OUT, { signal })).rejects.toMatchObject({ kind: 'model_gone' })
    expect(sent().map((request) => request.model)).toEqual([model])
  })

  test.each(['gpt-image-2', 'gpt-image-2-2026-04-21'])('cannot cut out when all there is is %s', async (model) => {
    const provider = await settings({ FORK__AI__PROVIDERS__OPENAI__MODEL: model })
    const reason = 'OpenAI has no model here that removes backgrounds.'
    expect(provider.cannot?.(CUT_OUT)).toBe(reason)
    expect(provider.cannot?.(IMAGE_REQUEST)).toBeNull()
    await expect(provider.run(CUT_OUT, { signal })).rejects.toMatchObject({ kind: 'bad_request', message: reason })
    expect(provider.ceilingMicroUsd(CUT_OUT)).toBe(0)
    expect(sent()).toHaveLength(0)
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ model })
  })

  test('for words have the successor their provider announced', async () => {
    const provider = await settings({})
    behave({ kind: 'modelGone', models: ['gpt-4.1-mini'] })
    expect(await provider.run({ ...IMAGE_REQUEST, ...WORDS }, { signal })).toMatchObject({ model: 'gpt-6-luna' })
  })

  test.each([
    ['an unknown value of the field', 400, { param: 'model', code: 'invalid_value' }],
    ['no access to it', 403, { code: 'model_not_found' }],
  ])('are gone as well when OpenAI says: %s', async (_what, status, error) => {
    const provider = await settings({})
    behave([{ kind: 'raw', status, body: JSON.stringify({ error }) }])
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ model: 'gpt-image-2' })
  })

  test('with the names of the past are the living ones', async () => {
    const provider = await settings({
      FORK__AI__PROVIDERS__OPENAI__MODEL: 'dall-e-3',
      FORK__AI__PROVIDERS__OPENAI__TEXTMODEL: 'gpt-4',
    })
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ model: MODEL })
    expect(await provider.run({ ...IMAGE_REQUEST, ...WORDS }, { signal })).toMatchObject({ model: 'gpt-4.1' })
  })

  test('for words that are named by the past have the successor of the living one', async () => {
    const provider = await settings({ FORK__AI__PROVIDERS__OPENAI__TEXTMODEL: 'gpt-4' })
    behave({ kind: 'modelGone', models: ['gpt-4.1'] })
    expect(await provider.run({ ...IMAGE_REQUEST, ...WORDS }, { signal })).toMatchObject({ model: 'gpt-6-luna' })
  })

  test.each(['/', '/v1', '/v1/'])('are asked under a base URL that ends in %s', async (ending) => {
    const provider = await settings({ OPENAI_BASE_URL: adapter.url() + ending })
    await provider.run(IMAGE_REQUEST, { signal })
    expect(sent()[0]?.path).toBe('/v1/images/edits')
  })
})
