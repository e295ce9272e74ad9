// A clock that tests set, for SQL: PostgreSQL looks for now() along the search path, and finds this one before its own.
import { type Kysely, sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'

/** Under this search path it is what the setting `clock.now` says; column defaults keep the real time, as they were bound to it. */
export const CLOCK_PATH = 'clock,public,pg_catalog'

/** Makes the clock in a test's database, where it changes nothing until a search path names it. */
export async function makeClock(database: Kysely<Database>): Promise<void> {
  await sql`create schema clock`.execute(database)
  await sql`
    create function clock.now() returns timestamptz language sql stable
      as $$ select current_setting('clock.now')::timestamptz $$
  `.execute(database)
}

/** Runs `work` in a transaction in which it is `time`. */
export async function at<T>(time: string, work: (trx: Transaction<Database>) => Promise<T>): Promise<T> {
  return await db()
    .transaction()
    .execute(async (trx) => {
      const settings = sql`set_config('search_path', ${CLOCK_PATH}, true), set_config('clock.now', ${time}, true)`
      await sql`select ${settings}`.execute(trx)
      return await work(trx)
    })
}
