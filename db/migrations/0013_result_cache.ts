// Results kept to be given again for the same picture and options.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
create table result_cache (
  -- A hash of picture, tool, options, prompt and, where results are not shared, user.
  key varchar(64) primary key,
  -- Whose it is; null where the fork shares results between users.
  user_id uuid references users (id),
  result bytea not null,
  result_type varchar(60) not null,
  width integer,
  height integer,
  provider varchar(40) not null,
  model varchar(100) not null,
  made_at timestamptz not null default now(),
  expires_at timestamptz not null
);
create index ix_result_cache_expires_at on result_cache (expires_at);
create index ix_result_cache_user_id on result_cache (user_id);
`,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(db, 'drop table result_cache;')
}
