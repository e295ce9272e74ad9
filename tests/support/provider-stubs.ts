// Every provider that is reached over a network, as a loopback stub, and the environment that leads to them.
import type { PROVIDER_IDS } from '../../lib/ai/capabilities.ts'
import { startGeminiStub } from './gemini-stub.ts'
import { startProviderStub } from './provider-stub.ts'

export type NetworkProvider = Exclude<(typeof PROVIDER_IDS)[number], 'sketch'>

/** What every stub can be told to do, under the same name. */
export interface CommonBehaviour {
  kind: 'ok' | 'status' | 'hang'
  status?: number
  delayMs?: number
}

export interface ProviderStubs {
  variables: Record<string, string>
  /** How often a provider was asked since the last call of forget(). */
  asked(provider: NetworkProvider): number
  forget(): void
  behave(provider: NetworkProvider, behaviour: CommonBehaviour): void
  /** Makes a provider refuse whatever picture it is shown. */
  block(provider: NetworkProvider): void
  close(): Promise<void>
}

/** Starts all four. */
export async function startProviderStubs(): Promise<ProviderStubs> {
  const [gemini, openai, anthropic, stability] = await Promise.all([
    startGeminiStub(),
    startProviderStub('openai'),
    startProviderStub('anthropic'),
    startProviderStub('stability'),
  ])
  const stubs = { gemini, openai, anthropic, stability }
  const all = Object.entries(stubs)
  return {
    variables: Object.fromEntries(
      all.flatMap(([id, { url }]) => [
        [`${id.toUpperCase()}_API_KEY`, `${id}-key`],
        [`${id.toUpperCase()}_BASE_URL`, url],
      ]),
    ),
    asked: (provider) => stubs[provider].requests.length,
    forget: () => {
      for (const [, { requests }] of all) requests.length = 0
    },
    behave: (provider, behaviour) => stubs[provider].behave(behaviour),
    block: (provider) => {
      if (provider === 'gemini') gemini.behave({ kind: 'finish', reason: 'PROHIBITED_CONTENT' })
      else stubs[provider].behave({ kind: 'blocked' })
    },
    close: async () => {
      await Promise.all(all.map(([, stub]) => stub.close()))
    },
  }
}
