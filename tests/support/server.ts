// The application as a process of its own, from source: a second instance, or one to be killed.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, onTestFinished } from 'vitest'
import type { App } from './app.ts'
import { secretsIn } from './console.ts'
import type { Stores } from './lane.ts'

const START_TIMEOUT_MS = 30_000

export interface ServerProcess extends App {
  /** Ends it as a crash does, in the middle of whatever it was doing; resolves when nothing of it is left. */
  kill(): Promise<void>
  /** Asks it to end, as whoever runs it does; resolves when nothing of it is left. */
  stop(): Promise<void>
  /** Everything it has written so far. */
  output(): string
}

/**
 * Starts `npm start` on a free port, with the environment of this process and so on the same stores. Called by a test,
 * with which it ends.
 */
export async function startServer(stores: Stores, variables: Record<string, string> = {}): Promise<ServerProcess> {
  const child = spawn(process.execPath, ['scripts/dev.ts'], {
    env: { ...process.env, ...variables, PORT: '0' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const exited = once(child, 'exit')
  const end = async (signal: 'SIGKILL' | 'SIGTERM') => {
    child.kill(signal)
    await exited
    expect(secretsIn(output), 'secrets in the output of the server').toEqual([])
  }
  const kill = () => end('SIGKILL')
  onTestFinished(kill)
  let output = ''
  const base = await new Promise<string>((resolve, reject) => {
    const fail = () => reject(new Error(`The server did not start:\n${output}`))
    const timer = setTimeout(fail, START_TIMEOUT_MS)
    const read = (chunk: Buffer) => {
      output += chunk
      const url = / is at (http:\S+)/.exec(output)?.[1]
      if (url === undefined) return
      clearTimeout(timer)
      resolve(url)
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
    child.once('exit', fail)
  })
  return {
    stores,
    output: () => output,
    fetch: (request) => {
      const { pathname, search } = new URL(request.url)
      return fetch(new Request(base + pathname + search, request))
    },
    kill,
    stop: () => end('SIGTERM'),
  }
}
