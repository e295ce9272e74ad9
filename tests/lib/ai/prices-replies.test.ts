// Recorded replies through the adapters: each costs what the list beside them says, to the micro-dollar.
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { CAPABILITIES } from '../../../lib/ai/capabilities.ts'
import { MODEL_PRICES } from '../../../lib/ai/prices.ts'
import { type ModelRequest, makesImage, type Provider, takesImage } from '../../../lib/ai/provider.ts'
import { noisePng } from '../../support/gemini-replies.ts'
import { RECORDED_REPLIES } from '../../support/recorded-replies.ts'
import type { RecordedReply } from '../../support/recorded-row.ts'

/** Every model of the table is still there on this day. */
const TODAY = new Date('2026-11-21T12:00:00Z')
const photo = { bytes: noisePng(128, 128), format: 'png' as const, width: 128, height: 128 }

let answer: Pick<RecordedReply, 'headers' | 'body'> | undefined
const server = createServer((request, response) => {
  request.resume().on('end', () => response.writeHead(200, answer?.headers).end(answer?.body))
})
let folder: string

beforeAll(async () => {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  folder = await mkdtemp(join(tmpdir(), 'prices-'))
})

afterAll(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  await rm(folder, { recursive: true })
})

afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllEnvs()
})

/** The adapter of a fork that names this model and nothing else. */
async function adapterFor({ provider, model }: RecordedReply): Promise<Provider> {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The server has no port.')
  const withWords = provider === 'gemini' || provider === 'openai'
  const settings = { model, successors: [], ...(withWords && { textModel: model }) }
  const tool = { name: 'tool', description: 'T', prompt: 'T', priceTokens: 1, providers: ['sketch'] }
  const fork = { version: 1, brand: { name: 'Acme' }, tools: [tool], ai: { providers: { [provider]: settings } } }
  const path = join(folder, 'fork.config.json')
  await writeFile(path, JSON.stringify(fork))
  vi.stubEnv('FORK_CONFIG', path)
  vi.stubEnv(`${provider.toUpperCase()}_API_KEY`, 'test-key')
  vi.stubEnv(`${provider.toUpperCase()}_BASE_URL`, `http://127.0.0.1:${address.port}`)
  vi.resetModules()
  switch (provider) {
    case 'gemini':
      return (await import('../../../lib/ai/gemini.ts')).gemini
    case 'openai':
      return (await import('../../../lib/ai/openai.ts')).openai
    case 'anthropic':
      return (await import('../../../lib/ai/anthropic.ts')).anthropic
    case 'stability':
      return (await import('../../../lib/ai/stability.ts')).stability
  }
}

describe('a recorded reply costs what was worked out by hand', () => {
  test.each(RECORDED_REPLIES)('$model, $task, $quality $what: $costMicroUsd', async (reply) => {
    vi.useFakeTimers({ toFake: ['Date'], now: TODAY })
    const { task, quality, model, kind, costMicroUsd } = reply
    answer = reply
    const adapter = await adapterFor(reply)
    const image = takesImage(task) ? photo : undefined
    const request: ModelRequest = { task, quality, image, prompt: 'Draw it as a colouring page.', options: {} }
    const run = adapter.run(request, { signal: new AbortController().signal })
    if (kind) await expect(run).rejects.toMatchObject({ name: 'ProviderError', kind, costMicroUsd })
    else
      expect(await run).toMatchObject({
        model,
        costMicroUsd,
        output: makesImage(task) ? { bytes: expect.anything() } : { text: expect.stringMatching(/\w/) },
      })
  })
})

describe('the list', () => {
  test('has every model of the table, in every quality that changes its price', () => {
    const covered = new Set(RECORDED_REPLIES.map(({ model, quality }) => `${model} ${quality}`))
    const wanted = Object.entries(MODEL_PRICES).flatMap(([model, price]) => {
      const provider = RECORDED_REPLIES.find((reply) => reply.model === model)?.provider
      expect(provider, `${model} has no recorded reply.`).toBeDefined()
      const isDrawn = provider && 'expects' in price && price.expects.imageOut
      return isDrawn ? (CAPABILITIES[provider]['image->image'] ?? []).map((quality) => `${model} ${quality}`) : []
    })
    expect(wanted.filter((one) => !covered.has(one))).toEqual([])
  })

  test('has thirty replies and more, failures that were billed among them', () => {
    expect(RECORDED_REPLIES.length).toBeGreaterThanOrEqual(30)
    expect(RECORDED_REPLIES.filter(({ kind }) => kind !== undefined).length).toBeGreaterThanOrEqual(5)
  })
})
