// A closed loop of requests from this process: every connection sends its next request when it has its answer.
import autocannon from 'autocannon'

const TIMEOUT_SECONDS = 60

export interface Load {
  connections: number
  /** Requests in all; the run ends when each of them has its answer. */
  amount: number
  body: Buffer
  /** Asked anew for every request of a connection. */
  headers(connection: number): Record<string, string>
}

export interface Outcome {
  answered: number
  /** Answers that were no 2xx, broken connections and timeouts. */
  failed: number
  seconds: number
  latenciesMs: number[]
}

/** Posts `amount` requests and waits for all answers. */
export async function post(url: string, { connections, amount, body, headers }: Load): Promise<Outcome> {
  let connection = 0
  let lastAnswerAt = 0
  const latenciesMs: number[] = []
  const startedAt = performance.now()
  const run = autocannon({
    url,
    method: 'POST',
    connections,
    amount,
    body,
    timeout: TIMEOUT_SECONDS,
    sampleInt: 100,
    setupClient(client) {
      const index = connection++
      client.setHeaders(headers(index))
      client.on('response', () => client.setHeaders(headers(index)))
    },
  })
  run.on('response', (_client, _status, _bytes, latencyMs) => {
    lastAnswerAt = performance.now()
    latenciesMs.push(latencyMs)
  })
  const { non2xx, errors, timeouts } = await run
  const seconds = (lastAnswerAt - startedAt) / 1000
  return { answered: latenciesMs.length, failed: non2xx + errors + timeouts, seconds, latenciesMs }
}
