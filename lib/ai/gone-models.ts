// Models that a provider no longer has: found out by one instance, remembered by all of them for ten minutes.
import { kv } from '../kv.ts'

const GONE_FOR_MS = 10 * 60_000

/** For so long an instance believes what it knows, and asks KV for nothing. */
const BELIEVED_FOR_MS = 10_000

interface Knowledge {
  goneUntil: number
  believedUntil: number
}

const known = new Map<string, Knowledge>()

/** The models of a chain that are not known to be gone; all of them when none would be left. Never throws. */
export async function presentModels(provider: string, chain: readonly string[]): Promise<readonly string[]> {
  const now = Date.now()
  const present = await Promise.all(chain.map(async (model) => (await goneUntil(`${provider}:${model}`, now)) <= now))
  const left = chain.filter((_model, index) => present[index])
  return left.length > 0 ? left : chain
}

/** Remembers that a model answered 404. Never throws: with KV down this instance alone remembers. */
export async function rememberGone(provider: string, model: string): Promise<void> {
  const name = `${provider}:${model}`
  const until = Date.now() + GONE_FOR_MS
  known.set(name, { goneUntil: until, believedUntil: until })
  await kv()
    .set(keyOf(name), String(until), { ttlMs: GONE_FOR_MS })
    .catch(() => undefined)
}

async function goneUntil(name: string, now: number): Promise<number> {
  const knowledge = known.get(name) ?? { goneUntil: 0, believedUntil: 0 }
  if (now < knowledge.believedUntil) return knowledge.goneUntil
  // Noted before the answer is there, so that one request asks and not all of them.
  known.set(name, { ...knowledge, believedUntil: now + BELIEVED_FOR_MS })
  const kept = await kv()
    .get(keyOf(name))
    .catch(() => null)
  const until = Number(kept) || 0
  known.set(name, { goneUntil: until, believedUntil: Math.max(until, now + BELIEVED_FOR_MS) })
  return until
}

const keyOf = (name: string) => `model-gone:${name}`
