// A closed loop of requests from this process: every connection sends its next request when it has its answer.
import { Agent, type IncomingMessage, request as send } from 'node:http'
import { text } from 'node:stream/consumers'

export interface Load {
  connections: number
  /** For how long requests are begun; each connection sends at least one. */
  seconds: number
  body: Buffer
  headers(connection: number): Record<string, string>
}

export interface Outcome {
  answered: number
  /** Until the last answer was complete. */
  seconds: number
  latenciesMs: number[]
  /** What went wrong: a status with its error code, or the error of a broken connection. */
  failures: string[]
}

/** Posts until the time is over and then waits for all answers, so that no work is left behind for the next measurement. */
export async function post(url: string, { connections, seconds, body, headers }: Load): Promise<Outcome> {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const latenciesMs: number[] = []
  const failures: string[] = []
  const startedAt = performance.now()
  const endsAt = startedAt + seconds * 1000
  async function loop(connection: number) {
    do {
      const sentAt = performance.now()
      const failure = await postOnce(url, agent, body, headers(connection))
      latenciesMs.push(performance.now() - sentAt)
      if (failure !== undefined) failures.push(failure)
    } while (performance.now() < endsAt)
  }
  await Promise.all(Array.from({ length: connections }, (_, connection) => loop(connection)))
  agent.destroy()
  return {
    answered: latenciesMs.length,
    seconds: (performance.now() - startedAt) / 1000,
    latenciesMs,
    failures,
  }
}

/** What went wrong, or undefined when the answer was a 2xx. Bodies of good answers are dropped unread, to cost little. */
async function postOnce(url: string, agent: Agent, body: Buffer, headers: Record<string, string>) {
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  const outgoing = send(url, { method: 'POST', agent, headers: { ...headers, 'content-length': body.length } })
  outgoing.on('error', (error) => resolve(error.message))
  outgoing.on('response', (incoming: IncomingMessage) => {
    const { statusCode = 0 } = incoming
    incoming.on('error', (error) => resolve(error.message))
    if (statusCode < 300) incoming.on('end', () => resolve(undefined)).resume()
    else text(incoming).then((answer) => resolve(`${statusCode} ${/"code":"(\w+)"/.exec(answer)?.[1] ?? ''}`), resolve)
  })
  outgoing.end(body)
  return await promise
}
