// Counts what this process asks PostgreSQL: one query is one round trip.
import pg from 'pg'

/** From now on every query on any pg connection is counted; returns the count so far. */
export function countQueries(): () => number {
  let count = 0
  const { query } = pg.Client.prototype
  pg.Client.prototype.query = function counted(this: pg.Client, ...parameters: unknown[]) {
    count += 1
    return Reflect.apply(query, this, parameters)
  }
  return () => count
}
