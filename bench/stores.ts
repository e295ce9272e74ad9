// Stores of a benchmark's own: a migrated scratch database, and users in it with sessions and tokens.
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import pg from 'pg'

const POSTGRES_URL = process.env.TEST_POSTGRES_URL ?? 'postgres://postgres@127.0.0.1:5432/postgres'
export const REDIS_URL = process.env.TEST_REDIS_URL ?? 'redis://127.0.0.1:6379'

/** Enough for any run, and still an int4. */
const PLAN_TOKENS = 1_000_000_000

/** Makes an empty database with every migration applied. The caller drops it, when nothing is connected any more. */
export async function scratchDatabase(): Promise<{ url: string; drop(): Promise<void> }> {
  const name = `bench_${randomUUID().replaceAll('-', '')}`
  await query(POSTGRES_URL, `create database ${name}`)
  const url = new URL(POSTGRES_URL)
  url.pathname = `/${name}`
  const migrate = fileURLToPath(new URL('../scripts/migrate.ts', import.meta.url))
  const env = { ...process.env, POSTGRES_URL: url.href, POSTGRES_URL_NON_POOLING: '', DATABASE_URL_UNPOOLED: '' }
  execFileSync(process.execPath, [migrate, 'up'], { env, stdio: 'pipe' })
  return {
    url: url.href,
    async drop() {
      // PostgreSQL waits a moment for connections that are just closing; force is for what a failed run left behind.
      await query(POSTGRES_URL, `drop database ${name}`).catch(() =>
        query(POSTGRES_URL, `drop database if exists ${name} with (force)`),
      )
    },
  }
}

/** Runs statements on a connection of their own; returns the rows of the last one. */
export async function query(url: string, ...statements: string[]): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    let rows: Record<string, unknown>[] = []
    for (const statement of statements) rows = (await client.query(statement)).rows
    return rows
  } finally {
    await client.end()
  }
}

export interface Account {
  userId: string
  sessionId: string
}

/** Adds users who are signed in and have a full plan and no trial, so that every run takes the same way through the ledger. */
export async function addAccounts(url: string, count: number): Promise<Account[]> {
  const rows = await query(
    url,
    `create temporary table added as
       select gen_random_uuid() as user_id, gen_random_uuid() as session_id from generate_series(1, ${Number(count)})`,
    `insert into users (id, name, email, password_hash) select user_id, 'Bench', user_id || '@example.com', '' from added`,
    `insert into refresh_tokens (user_id, family_id, token_hash, expires_at, absolute_expires_at)
       select user_id, session_id, 'bench:' || session_id, now() + interval '1 day', now() + interval '1 day' from added`,
    `select ledger_open(user_id, '{"free":${PLAN_TOKENS}}', 0, 'trial:' || user_id) from added`,
    'select user_id, session_id from added',
  )
  return rows.map(({ user_id, session_id }) => ({ userId: String(user_id), sessionId: String(session_id) }))
}
