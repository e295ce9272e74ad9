// When a race is where a test wants it: somebody stands before a lock.
import { sql } from 'kysely'
import { expect } from 'vitest'
import { db } from '../../db/client.ts'

/** Resolves when some query of this database waits for a lock, on real PostgreSQL. */
export async function somebodyWaits(): Promise<void> {
  const waiting = sql<{ waiting: number }>`
    select count(*)::int as waiting from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
  `
  await expect
    .poll(async () => (await waiting.execute(db())).rows[0]?.waiting, { timeout: 10_000, interval: 20 })
    .toBeGreaterThan(0)
}
