// A clock that tests set, for SQL: PostgreSQL looks for now() along the search path, and finds this one before its own.
import { sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'

/** Under this search path it is what the setting `clock.now` says. */
export const CLOCK_PATH = 'clock, public, pg_catalog'

/** Makes the clock in this test's database, where it changes nothing until a search path names it. */
export async function makeClock(): Promise<void> {
  await sql`create schema clock`.execute(db())
  await sql`
    create function clock.now() returns timestamptz language sql stable
      as $$ select current_setting('clock.now')::timestamptz $$
  `.execute(db())
}

/** Runs `work` in a transaction in which it is `time`. Column defaults keep the real time: they were bound to it when made. */
export async function at<T>(time: string, work: (trx: Transaction<Database>) => Promise<T>): Promise<T> {
  return await db()
    .transaction()
    .execute(async (trx) => {
      await sql`select set_config('search_path', ${CLOCK_PATH}, true), set_config('clock.now', ${time}, true)`.execute(
        trx,
      )
      return await work(trx)
    })
}
