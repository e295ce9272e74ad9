// What a process sends to PostgreSQL, looked at from the driver.
import pg from 'pg'

/** Every statement that any connection of this process sends while `work` runs. */
export async function countingStatements<T>(work: () => Promise<T>): Promise<{ result: T; statements: string[] }> {
  const { query } = pg.Client.prototype
  const statements: string[] = []
  pg.Client.prototype.query = function (this: pg.Client, ...args: [pg.QueryConfig | string, ...unknown[]]) {
    statements.push(typeof args[0] === 'string' ? args[0] : args[0].text)
    return Reflect.apply(query, this, args)
  }
  try {
    return { result: await work(), statements }
  } finally {
    pg.Client.prototype.query = query
  }
}
