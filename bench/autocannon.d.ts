// The part of autocannon that is used here; the package has no types of its own.
declare module 'autocannon' {
  interface Client {
    setHeaders(headers: Record<string, string>): void
    on(event: 'response', listener: () => void): void
  }
  interface Run extends PromiseLike<{ non2xx: number; errors: number; timeouts: number }> {
    on(event: 'response', listener: (client: Client, status: number, bytes: number, latencyMs: number) => void): void
  }
  export default function autocannon(options: {
    url: string
    method: 'POST'
    connections: number
    amount: number
    /** Seconds. */
    timeout: number
    /** Milliseconds between looks at whether the run is over. */
    sampleInt: number
    body: Buffer
    setupClient(client: Client): void
  }): Run
}
