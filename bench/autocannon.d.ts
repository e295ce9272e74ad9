// The part of autocannon that is used here; the package has no types of its own.
declare module 'autocannon' {
  interface Client {
    setHeaders(headers: Record<string, string>): void
  }
  interface Result {
    '2xx': number
    non2xx: number
    errors: number
    timeouts: number
    /** Milliseconds. */
    latency: { p50: number; p99: number }
    requests: { total: number }
    /** Seconds. */
    duration: number
  }
  export default function autocannon(options: {
    url: string
    method: 'POST'
    connections: number
    /** Requests in all; the run ends when each has its answer. */
    amount: number
    /** Seconds. */
    timeout: number
    body: Buffer
    headers: Record<string, string>
    setupClient(client: Client): void
  }): Promise<Result>
}
