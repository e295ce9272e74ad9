// Models that are shut down while a fork still names them: the next one of its list does the work.
import { presentModels, rememberGone } from './gone-models.ts'
import { ProviderError, type ProviderReply } from './provider.ts'

/**
 * Asks the first model of `chain` that is not known to be gone, and the next one whenever `ask` fails as 'model_gone'. When all
 * of them are known to be gone they are tried afresh. Throws what the last one failed with.
 */
export async function withSuccessors(
  provider: string,
  chain: readonly string[],
  ask: (model: string) => Promise<ProviderReply>,
): Promise<ProviderReply> {
  let gone: unknown = new ProviderError('model_gone', 'No model is configured.')
  for (const model of await presentModels(provider, chain)) {
    try {
      return await ask(model)
    } catch (error) {
      if (!(error instanceof ProviderError) || error.kind !== 'model_gone') throw error
      await rememberGone(provider, model)
      gone = error
    }
  }
  throw gone
}
