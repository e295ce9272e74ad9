// Whether this process has been asked to stop, for work that would otherwise go on after the last answer.
import { setMaxListeners } from 'node:events'

/** Process-wide, because every function of a build has a copy of this module. */
const KEY = Symbol.for('shutdown')

/** Tells whatever runs in this process to begin nothing more. */
export function beginShutdown(): void {
  controller().abort()
}

/** Aborts when this process has been asked to stop. */
export function shutdownSignal(): AbortSignal {
  return controller().signal
}

function controller(): AbortController {
  const known: unknown = Reflect.get(globalThis, KEY)
  if (known instanceof AbortController) return known
  const made = new AbortController()
  // As many listen as there is work that waits.
  setMaxListeners(0, made.signal)
  Reflect.set(globalThis, KEY, made)
  return made
}
