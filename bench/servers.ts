// Servers in processes of their own, so that each one's CPU time can be told apart from that of the load.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { Waits } from './waits.ts'

/** What a server has used so far; what it waited for is measured in the product only. */
export interface Usage extends Waits {
  /** User and system time of the whole process, its threads included. */
  cpuMs: number
  memoryMb: number
  /** Requests received, counted by the KV server only. */
  kvRequests: number
}

export interface Server {
  url: string
  usage(): Promise<Usage>
  stop(): Promise<void>
}

export type Role = 'product' | 'proxy' | 'gemini' | 'openai' | 'kv'

/** Starts bench/server.ts in a role, with these variables added to the environment; resolves when it listens. */
export async function startServer(role: Role, variables: Record<string, string> = {}): Promise<Server> {
  const child = fork(new URL('server.ts', import.meta.url), [role], {
    env: { ...process.env, ...variables },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  const gone = new AbortController()
  child.once('exit', (code) => gone.abort(new Error(`The ${role} server ended with exit code ${code}.`)))
  const reply = async <T>(): Promise<T> => {
    const [message] = await once(child, 'message', { signal: gone.signal })
    return message
  }
  const { url } = await reply<{ url: string }>()
  return {
    url,
    usage: async () => {
      child.send('usage')
      return await reply<Usage>()
    },
    stop: async () => {
      child.kill()
      await once(child, 'exit')
    },
  }
}
