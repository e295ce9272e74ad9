// In which order providers are asked: as the tool lists them, by expected cost, or by measured latency.
import type { ForkConfig } from '../config.ts'
import { circuitStates } from './circuit.ts'
import type { Provider, Work } from './provider.ts'
import { runsHere } from './registry.ts'

export interface Plan {
  order: Provider[]
  /** For the log: by what they were sorted. */
  why: string
}

/**
 * Sorts the providers that can be asked, ties by the list. The caller's own choice stays first when `pinned`. A provider that works on
 * this machine is free and quick, and would win by any measure over those a fork pays for because they are better: it comes last,
 * unless the list begins with it.
 */
export async function arrange(
  usable: Provider[],
  {
    list,
    pinned,
    routing,
    work,
  }: { list: string[]; pinned: boolean; routing: ForkConfig['ai']['routing']; work: Work },
): Promise<Plan> {
  if (routing === 'ordered') return { order: usable, why: 'listed so' }
  const [chosen, ...others] = pinned ? list : [undefined, ...list]
  const isFixed = (provider: Provider) => runsHere(provider) && provider.id === others[0]
  const head = [...usable.filter(({ id }) => id === chosen), ...usable.filter(isFixed)]
  const rest = usable.filter((provider) => !head.includes(provider))
  const rivals = rest.filter((provider) => !runsHere(provider))
  const sorted = routing === 'cheapest' ? byCost(rivals, work) : await byLatency(rivals)
  return { order: [...head, ...sorted.order, ...rest.filter(runsHere)], why: sorted.why }
}

function byCost(rivals: Provider[], work: Work): Plan {
  const costs = new Map(rivals.map((provider) => [provider, provider.estimateMicroUsd(work)]))
  return {
    order: rivals.toSorted((one, other) => (costs.get(one) ?? 0) - (costs.get(other) ?? 0)),
    why: rivals.map((provider) => `${provider.id} ${costs.get(provider)} micro-USD`).join(', '),
  }
}

/** Who has no figure of late goes last, but first once in as many requests as there are rivals: that is how it gets one. */
async function byLatency(rivals: Provider[]): Promise<Plan> {
  const states = await circuitStates(rivals.map(({ id }) => id))
  const latencyOf = ({ id }: Provider) => states.get(id)?.latencyMs ?? Number.POSITIVE_INFINITY
  // Not the difference: infinity minus itself is no number.
  const sorted = rivals.toSorted((one, other) => {
    const [first, second] = [latencyOf(one), latencyOf(other)]
    return first === second ? 0 : first < second ? -1 : 1
  })
  const unmeasured = sorted.find((provider) => latencyOf(provider) === Number.POSITIVE_INFINITY)
  const itsTurn = unmeasured !== undefined && Math.random() < 1 / rivals.length
  const figures = rivals.map((provider) => `${provider.id} ${states.get(provider.id)?.latencyMs ?? '?'} ms`).join(', ')
  return {
    order: itsTurn ? [unmeasured, ...sorted.filter((provider) => provider !== unmeasured)] : sorted,
    why: itsTurn ? `${figures}; ${unmeasured.id} is to be measured` : figures,
  }
}
