// The providers this version has adapters for.
import { anthropic } from './anthropic.ts'
import { gemini } from './gemini.ts'
import { openai } from './openai.ts'
import type { Provider } from './provider.ts'
import { sketch } from './sketch.ts'
import { stability } from './stability.ts'

/** Adding a provider: its file, its id and its capabilities, and its line here. */
export const PROVIDERS: Record<string, Provider> = { gemini, openai, anthropic, stability, sketch }

/** Works on this machine: costs nothing and hangs on no network, so it needs neither a budget nor a circuit. */
export function runsHere({ id }: Provider): boolean {
  return id === sketch.id
}
