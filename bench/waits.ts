// What this process waits for: how often and how long for PostgreSQL, and how long for hosts it fetches from.
import pg from 'pg'

export interface Waits {
  /** One query is one round trip. */
  sqlQueries: number
  databaseMs: number
  kvMs: number
  providerMs: number
}

/** From now on every query on any pg connection and every fetch is timed; returns the sums so far. */
export function measureWaits(hosts: { kv: string | undefined; provider: string | undefined }): () => Waits {
  const waits: Waits = { sqlQueries: 0, databaseMs: 0, kvMs: 0, providerMs: 0 }
  const { query } = pg.Client.prototype
  pg.Client.prototype.query = function timed(this: pg.Client, ...parameters: unknown[]) {
    waits.sqlQueries += 1
    const startedAt = performance.now()
    const result = Reflect.apply(query, this, parameters)
    // With a callback there is no promise, and the pool asks that way only when it connects.
    Promise.resolve(result).then(
      () => {
        waits.databaseMs += performance.now() - startedAt
      },
      () => {},
    )
    return result
  }
  const { fetch } = globalThis
  globalThis.fetch = async (input, init) => {
    const startedAt = performance.now()
    const url = input instanceof Request ? input.url : String(input)
    try {
      return await fetch(input, init)
    } finally {
      const spentMs = performance.now() - startedAt
      if (hosts.kv && url.startsWith(hosts.kv)) waits.kvMs += spentMs
      else if (hosts.provider && url.startsWith(hosts.provider)) waits.providerMs += spentMs
    }
  }
  return () => ({ ...waits })
}
