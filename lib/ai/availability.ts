// Whether a provider that costs money may be used at all, and what is missing when not.
import type { ForkConfig } from '../config.ts'
import type { Env } from '../env.ts'
import type { ProviderId } from './capabilities.ts'

export type PaidProviderId = Exclude<ProviderId, 'sketch'>

/** Half a sentence that names the setting or the variable which keeps a provider from being asked, or null. */
export function offReason(id: PaidProviderId, env: Env, { ai }: ForkConfig): string | null {
  if (!ai.providers[id].enabled) return `ai.providers.${id}.enabled is false`
  return env[id].apiKey ? null : `${id.toUpperCase()}_API_KEY is not set`
}
