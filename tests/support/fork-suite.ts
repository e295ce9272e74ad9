// What every fork does, whatever it sells: one suite, run on the repository's own configuration and on each sample fork.
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { CAPABILITIES } from '../../lib/ai/capabilities.ts'
import { config, type ForkConfig } from '../../lib/config.ts'
import { type Account, givenAccount } from './accounts.ts'
import { type App, type CallOptions, call, startApp } from './app.ts'
import { expectErrorsInLog } from './console.ts'
import { noisePng } from './gemini-replies.ts'
import { leaveTokens, ledgerViolations, usageRows } from './money.ts'
import { type NetworkProvider, type ProviderStubs, startProviderStubs } from './provider-stubs.ts'

let pictures = 0

/** No two are alike, so that no result that was kept is the answer. */
function freshPicture(): Buffer {
  pictures += 1
  return noisePng(96 + pictures, 96)
}

/** Runs the suite on the configuration in `file`, with every provider at hand. */
export function forkSuite(file: string): void {
  let app: App
  let stubs: ProviderStubs
  let settings: ForkConfig
  let tool: ForkConfig['tools'][number]
  let network: NetworkProvider[]

  beforeAll(async () => {
    stubs = await startProviderStubs()
    app = await startApp({
      ...stubs.variables,
      FORK_CONFIG: file,
      FORK__AI__PROVIDER_TIMEOUT_MS: '10000',
      FORK__AI__DEADLINE_MS: '40000',
      // The order of the list is what the tests of fallback are about; other policies have tests of their own.
      FORK__AI__ROUTING: 'ordered',
    })
    settings = config()
    const [first] = settings.tools
    if (!first) throw new Error(`${file} has no tool.`)
    tool = first
    network = tool.providers.filter((id) => id !== 'sketch')
  })
  beforeEach(() => {
    for (const id of ['gemini', 'openai', 'anthropic', 'stability'] as const) stubs.behave(id, { kind: 'ok' })
    stubs.forget()
  })
  afterAll(() => stubs.close())

  /** Providers that can do the tool's work in standard quality; drafts-only ones are passed over. */
  function able(): NetworkProvider[] {
    return network.filter((id) => CAPABILITIES[id][tool.does]?.includes('standard'))
  }

  const invoke = (user: Account, { query = '', ...options }: CallOptions & { query?: string } = {}) =>
    call(app, `POST /api/process-image${query}`, {
      token: user.token,
      body: freshPicture(),
      ...options,
      headers: { 'content-type': 'image/png', ...options.headers },
    })
  async function balance(user: Account): Promise<{ trialGenerations: number; tokens: number }> {
    const { json } = await call(app, 'GET /api/billing/status', { token: user.token })
    return json.balance
  }

  /** Somebody whose trial is used up. */
  async function givenPayer(): Promise<Account> {
    const user = await givenAccount()
    await leaveTokens(user.id, 100_000)
    return user
  }

  describe(`the fork in ${file}`, () => {
    test('is what its file says, in its own words, and tells no prompt, model or key', async () => {
      const { json, bytes } = await call(app, 'GET /api/config')
      expect(json.brand).toMatchObject({ name: settings.brand.name, tagline: settings.brand.tagline })
      expect(json.tools[0]).toMatchObject({ name: tool.name, does: tool.does, priceTokens: tool.priceTokens })
      expect(bytes.toString()).not.toContain(tool.prompt.slice(0, 40))
      expect(bytes.toString()).not.toMatch(/-key|127\.0\.0\.1/)
    })

    test('has a schema beside it that knows every field', () => {
      const { $schema } = JSON.parse(readFileSync(file, 'utf8'))
      expect($schema).toMatch(/fork\.schema\.json$/)
    })

    test('gives the trial first, and then charges the price', async () => {
      const user = await givenAccount()
      const first = await invoke(user)
      expect(first.status, JSON.stringify(first.json)?.slice(0, 400)).toBe(200)
      expect(first.json.usage).toMatchObject({ trial: true, tokens: 0 })
      expect((await balance(user)).trialGenerations).toBe(settings.trial.generations - 1)
      const payer = await givenPayer()
      const before = await balance(payer)
      const { json } = await invoke(payer)
      expect(json.usage).toMatchObject({ trial: false, tokens: tool.priceTokens })
      expect((await balance(payer)).tokens).toBe(before.tokens - tool.priceTokens)
    })

    test('answers with what its tool makes, in JSON and as it is', async () => {
      const user = await givenPayer()
      const makesText = tool.does === 'image->text'
      const { json } = await invoke(user)
      expect(json).toMatchObject({ provider: able()[0], cached: false, fallback: { used: false, failed: [] } })
      expect(json.cost).toBeGreaterThan(0)
      const result = Buffer.from(json.result, 'base64')
      if (makesText) {
        expect(json).toMatchObject({ text: result.toString(), mimeType: expect.stringContaining('text/plain') })
        expect(json.text).not.toBe('')
      } else {
        expect(json).toMatchObject({ mimeType: 'image/png', width: expect.any(Number), height: expect.any(Number) })
        expect(result.subarray(1, 4).toString()).toBe('PNG')
      }
      const plain = await invoke(user, { headers: { accept: makesText ? 'text/plain' : 'image/*' } })
      expect(plain.headers.get('content-type')).toContain(makesText ? 'text/plain' : 'image/png')
      expect(plain.headers.get('x-tokens-charged')).toBe(
        String(plain.headers.get('x-cached') === 'true' ? tool.cachedPriceTokens : tool.priceTokens),
      )
    })

    test('takes every value of its options and no other, and charges nothing for a refusal', async () => {
      const user = await givenPayer()
      const before = await balance(user)
      const names = Object.keys(tool.options)
      expect((await invoke(user, { query: `?${names[0] ?? 'detail'}=no-such-value` })).status).toBe(400)
      expect((await invoke(user, { query: '?quality=ultra' })).status).toBe(400)
      expect((await balance(user)).tokens).toBe(before.tokens)
      for (const [name, option] of Object.entries(tool.options)) {
        for (const value of option.enum) {
          expect((await invoke(user, { query: `?${name}=${value}` })).status, `${name}=${value}`).toBe(200)
        }
      }
    })

    test('charges high quality at its own price', async () => {
      const user = await givenPayer()
      const { json } = await invoke(user, { query: '?quality=high' })
      expect(json.usage.tokens).toBe(tool.highQualityPriceTokens)
    })

    test('offers drafts exactly when it has a price for them', async () => {
      const user = await givenPayer()
      const { status, json } = await invoke(user, { query: '?quality=draft' })
      expect(status).toBe(tool.draftPriceTokens === undefined ? 400 : 200)
      if (tool.draftPriceTokens !== undefined) expect(json.usage.tokens).toBe(tool.draftPriceTokens)
    })

    test('goes on with its next provider when the first one fails, and says so', async () => {
      const [first, second] = able()
      if (!first) throw new Error('Nobody can do this work.')
      const next = second ?? 'sketch'
      stubs.behave(first, { kind: 'status', status: 400 })
      const { status, json } = await invoke(await givenPayerBefore(first))
      expect(status, JSON.stringify(json)?.slice(0, 400)).toBe(200)
      expect(json).toMatchObject({ provider: next, fallback: { used: true } })
      expect(json.fallback.failed[0]).toMatchObject({ provider: first, kind: 'bad_request' })
    })

    /** A payer made while all is well, after which the first provider is broken again. */
    async function givenPayerBefore(broken: NetworkProvider): Promise<Account> {
      stubs.behave(broken, { kind: 'ok' })
      const user = await givenPayer()
      stubs.behave(broken, { kind: 'status', status: 400 })
      return user
    }

    test('charges nothing when all of them fail, and has it on record', async () => {
      const user = await givenPayer()
      const before = await balance(user)
      for (const id of network) stubs.behave(id, { kind: 'status', status: 400 })
      const { status, json } = await invoke(user)
      if (tool.providers.includes('sketch')) {
        expect(json).toMatchObject({ provider: 'sketch', cost: 0, fallback: { used: true } })
        return
      }
      expectErrorsInLog()
      expect(status).toBe(502)
      expect(json.error).toMatchObject({ code: 'PROVIDER_ERROR', details: { provider: able()[0] } })
      expect(await balance(user)).toEqual(before)
      expect((await usageRows(user.id)).at(-1)).toMatchObject({ response_status: 'error', tokens_used: 0 })
    })

    test('shows a blocked picture to nobody else', async () => {
      const user = await givenPayer()
      const [first] = able()
      if (!first) throw new Error('Nobody can do this work.')
      const before = await balance(user)
      stubs.block(first)
      const { status, json } = await invoke(user)
      expect(status, JSON.stringify(json)?.slice(0, 400)).toBe(422)
      expect(json.error.code).toBe('CONTENT_BLOCKED')
      for (const id of network.filter((other) => other !== first)) expect(stubs.asked(id), id).toBe(0)
      expect(await balance(user)).toEqual(before)
    })

    test('asks the provider that the caller names, and only those it lists', async () => {
      const user = await givenPayer()
      const chosen = able().at(-1)
      const { json } = await invoke(user, { query: `?provider=${chosen}` })
      expect(json.provider).toBe(chosen)
      const other = (['gemini', 'openai', 'anthropic', 'stability', 'sketch'] as const).find(
        (id) => !tool.providers.includes(id),
      )
      if (other) expect((await invoke(user, { query: `?provider=${other}` })).status).toBe(400)
    })

    test('runs once per Idempotency-Key', async () => {
      const user = await givenPayer()
      const before = await balance(user)
      const once = { body: freshPicture(), headers: { 'idempotency-key': `once-${user.id}` } }
      const [one, other] = [await invoke(user, once), await invoke(user, once)]
      expect(other.headers.get('idempotent-replayed')).toBe('true')
      expect(other.bytes.equals(one.bytes)).toBe(true)
      expect((await balance(user)).tokens).toBe(before.tokens - tool.priceTokens)
    })

    test('answers later when asked to, for the same price', async () => {
      const user = await givenPayer()
      const before = await balance(user)
      const { status, json, headers } = await invoke(user, { headers: { prefer: 'respond-async' } })
      expect(status).toBe(202)
      const location = headers.get('location') ?? ''
      expect(location).toBe(`/api/jobs/${json.jobId}`)
      await expect
        .poll(async () => (await call(app, `GET ${location}`, { token: user.token })).json.status, { timeout: 30_000 })
        .toBe('succeeded')
      const job = await call(app, `GET ${location}`, { token: user.token })
      expect(job.json.result.result.length).toBeGreaterThan(0)
      expect((await balance(user)).tokens).toBe(before.tokens - tool.priceTokens)
    })

    test('refuses who cannot pay, before any provider is asked', async () => {
      const user = await givenPayer()
      await leaveTokens(user.id, tool.priceTokens - 1)
      const { status, json } = await invoke(user)
      expect(status).toBe(402)
      expect(json.error).toMatchObject({ code: 'INSUFFICIENT_TOKENS', details: { required: tool.priceTokens } })
      for (const id of network) expect(stubs.asked(id), id).toBe(0)
    })

    test('keeps exact books', async () => {
      expect(await ledgerViolations()).toEqual([])
    })
  })
}
