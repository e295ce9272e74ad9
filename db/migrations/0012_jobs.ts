// Work that is answered later, and what the operator's own program is told about it.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
create table jobs (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references users (id),
  request_id uuid not null,
  status varchar(12) not null default 'queued' check (status in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
  -- What is asked: the tool, the caller's choices, and the picture or text, dropped when the job ends.
  tool varchar(100) not null,
  provider varchar(40),
  -- What the caller called that provider, where it was a model's old name.
  requested_provider varchar(100),
  options jsonb not null,
  input bytea,
  input_format varchar(10),
  input_width integer,
  input_height integer,
  input_text text,
  free_tier boolean not null default false,
  -- The price, held until the job ends.
  hold_id text not null,
  attempts integer not null default 0 check (attempts >= 0),
  -- What the attempts before the last one cost.
  cost_micro_usd bigint not null default 0 check (cost_micro_usd >= 0),
  run_after timestamptz not null default now(),
  -- Who works on it now: a worker that lost its lease may not end the job.
  lease uuid,
  lease_until timestamptz,
  -- What came of it.
  result bytea,
  result_url text,
  result_type varchar(60),
  facts jsonb,
  error jsonb,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  -- When it is given up, while it waits; when it is forgotten, afterwards.
  expires_at timestamptz not null,
  check ((lease is null) = (lease_until is null)),
  check (status <> 'running' or lease is not null),
  check ((status in ('queued', 'running')) = (finished_at is null))
);
create index ix_jobs_due on jobs ((coalesce(lease_until, run_after))) where status in ('queued', 'running');
create index ix_jobs_user_id_created_at on jobs (user_id, created_at, id);
create index ix_jobs_created_at on jobs (created_at, id);
create index ix_jobs_expires_at on jobs (expires_at);

-- Events on their way to OUTGOING_WEBHOOK_URL; the id is the webhook-id, the same on every try.
create table outgoing_webhooks (
  id uuid primary key default gen_random_uuid(),
  type varchar(60) not null,
  body text not null,
  -- An event is told once, however often it is noticed.
  unique_key varchar(200) not null unique,
  attempts integer not null default 0,
  -- While it is being sent, when that would be taken to have failed.
  next_attempt_at timestamptz not null default now(),
  delivered_at timestamptz,
  -- After the last attempt; the row stays for an operator to see.
  given_up_at timestamptz,
  last_error text,
  created_at timestamptz not null default now(),
  check (delivered_at is null or given_up_at is null)
);
create index ix_outgoing_webhooks_due on outgoing_webhooks (next_attempt_at) where delivered_at is null and given_up_at is null;
create index ix_outgoing_webhooks_ended on outgoing_webhooks ((coalesce(delivered_at, given_up_at)));
`,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(db, 'drop table outgoing_webhooks, jobs;')
}
