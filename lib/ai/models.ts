// Names of models that are gone or will be, and who does their work then.

interface Successor {
  provider: string
  model: string
}

/** A seed name → the provider that answers for it, and the model that does its work. */
const ALIASES: Record<string, Successor> = {
  'gpt-4': { provider: 'openai', model: 'gpt-4.1' },
  'dall-e-3': { provider: 'openai', model: 'gpt-image-2.5-flare' },
  'claude-3-sonnet': { provider: 'anthropic', model: 'claude-sonnet-5' },
  'stable-diffusion-xl': { provider: 'stability', model: 'control-structure' },
}

export interface Retirement {
  /** The day (UTC) from which the model no longer answers. */
  endsOn: string
  /** Not before that day, and perhaps later: such a model is asked until it answers 404. */
  isEarliest: boolean
  successor: string
}

const openAiWords = { endsOn: '2027-01-14', isEarliest: false, successor: 'gpt-6-luna' }

/** As announced by the providers on their pages of deprecations, looked at on 2026-11-21. */
const RETIREMENTS: Record<string, Retirement> = {
  'gemini-2.5-flash-image': { endsOn: '2026-10-02', isEarliest: true, successor: 'gemini-nano-banana-2.1' },
  'gemini-3.1-flash-image': { endsOn: '2026-10-29', isEarliest: true, successor: 'gemini-nano-banana-2.1' },
  'gemini-2.5-flash': { endsOn: '2026-12-01', isEarliest: false, successor: 'gemini-3.5-flash-lite' },
  'gpt-image-1': { endsOn: '2026-10-23', isEarliest: false, successor: 'gpt-image-2.5-flare' },
  'gpt-image-1.5': { endsOn: '2026-12-01', isEarliest: false, successor: 'gpt-image-2.5-flare' },
  'gpt-image-1-mini': { endsOn: '2026-12-01', isEarliest: false, successor: 'gpt-image-2.5-flare' },
  'gpt-4o': openAiWords,
  'gpt-4o-mini': openAiWords,
  'gpt-4.1': openAiWords,
  'gpt-4.1-mini': openAiWords,
}

/** The model that answers to a name today: the name itself, unless it is a seed name or that of a model known to be gone. */
export function livingModel(name: string): string {
  const model = aliasOf(name)?.model ?? name
  const end = retirementOf(model)
  return end && !end.isEarliest && Date.parse(end.endsOn) <= Date.now() ? end.successor : model
}

/** The models that answer to these names today, in their order and each once. */
export function livingChain(names: readonly string[]): string[] {
  return [...new Set(names.map(livingModel))]
}

/** The model that answers to a name today, and the one that is announced to take over from it, where one is. */
export function announcedChain(name: string): string[] {
  const model = livingModel(name)
  return livingChain([model, retirementOf(model)?.successor ?? model])
}

/** The provider a caller means, who may name one of the seed models instead; undefined when it is no such name. */
export function providerOfModel(name: string): string | undefined {
  return aliasOf(name)?.provider
}

/** What is known of a model's end; undefined when none has been announced. */
export function retirementOf(model: string): Retirement | undefined {
  return Object.hasOwn(RETIREMENTS, model) ? RETIREMENTS[model] : undefined
}

function aliasOf(name: string): Successor | undefined {
  return Object.hasOwn(ALIASES, name) ? ALIASES[name] : undefined
}
