// Models that answered 404: how long they are passed over, by whom, and what happens without KV.
import { afterEach, expect, test, vi } from 'vitest'

const CHAIN = ['one', 'two']

afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllEnvs()
})

/** The module as another instance has it. */
async function instance(kvUrl = '') {
  vi.stubEnv('KV_REST_API_URL', kvUrl)
  vi.stubEnv('KV_REST_API_TOKEN', kvUrl && 'token')
  vi.resetModules()
  return await import('../../../lib/ai/gone-models.ts')
}

test('a model is passed over for ten minutes, of its own provider alone', async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.UTC(2026, 0, 1) })
  const { presentModels, rememberGone } = await instance()
  await rememberGone('gemini', 'one')
  expect(await presentModels('gemini', CHAIN)).toEqual(['two'])
  expect(await presentModels('openai', CHAIN)).toEqual(CHAIN)
  vi.setSystemTime(Date.UTC(2026, 0, 1, 0, 9, 59))
  expect(await presentModels('gemini', CHAIN)).toEqual(['two'])
  vi.setSystemTime(Date.UTC(2026, 0, 1, 0, 10, 1))
  expect(await presentModels('gemini', CHAIN)).toEqual(CHAIN)
})

test('a chain of which nothing is left is tried afresh', async () => {
  const { presentModels, rememberGone } = await instance()
  await rememberGone('gemini', 'one')
  await rememberGone('gemini', 'two')
  expect(await presentModels('gemini', CHAIN)).toEqual(CHAIN)
})

test('without KV an instance believes itself, and passes over nothing that it does not know of', async () => {
  const { presentModels, rememberGone } = await instance('http://127.0.0.1:9')
  expect(await presentModels('gemini', CHAIN)).toEqual(CHAIN)
  await rememberGone('gemini', 'one')
  expect(await presentModels('gemini', CHAIN)).toEqual(['two'])
})
