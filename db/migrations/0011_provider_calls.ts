// What providers were asked and what it cost, call by call; who switched a provider off; and what usage rows say of both.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
alter table usage_logs
  add column fallback boolean not null default false,
  add column cached boolean not null default false,
  add column job_id uuid;

-- One row per call to a provider, failed ones included. Nothing here says who asked: usage_logs does, by request_id.
create table provider_calls (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  request_id uuid not null,
  tool_id uuid not null references tools (id),
  provider varchar(40) not null,
  model varchar(100),
  outcome varchar(20) not null check (outcome <> ''),
  duration_ms integer not null check (duration_ms >= 0),
  cost_micro_usd bigint not null default 0 check (cost_micro_usd >= 0),
  free_tier boolean not null default false
);
create index ix_provider_calls_at on provider_calls (at);
create index ix_provider_calls_request_id on provider_calls (request_id);

-- What an operator stopped by hand: 'generate', or one provider by its id.
create table switches (
  name varchar(40) primary key,
  off boolean not null,
  reason text not null,
  changed_by uuid references users (id),
  changed_at timestamptz not null default now()
);
`,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
drop table switches, provider_calls;
alter table usage_logs drop column fallback, drop column cached, drop column job_id;
`,
  )
}
