// Accounts and the catalogue: users, subscriptions, tools, usage_logs, api_keys, refresh_tokens, and who failed to sign in.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
create type user_role as enum ('user', 'admin');
create type user_status as enum ('active', 'suspended', 'deleted');
create type subscription_plan as enum ('free', 'pro', 'enterprise');
create type subscription_status as enum ('active', 'cancelled', 'expired');

create function touch_updated_at() returns trigger language plpgsql as $$
begin
  new.updated_at := now();
  return new;
end $$;

create table users (
  id uuid primary key default gen_random_uuid(),
  name varchar(100) not null check (name = btrim(name) and name <> ''),
  email varchar(255) not null check (email = lower(email)),
  password_hash varchar(255) not null,
  role user_role not null default 'user',
  status user_status not null default 'active',
  preferences jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create unique index ix_users_email on users (email);
create index ix_users_role on users (role);
create trigger users_touch before update on users for each row execute function touch_updated_at();

create table subscriptions (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references users (id),
  plan subscription_plan not null,
  status subscription_status not null default 'active',
  token_limit integer not null check (token_limit > 0),
  tokens_used integer not null default 0 check (tokens_used >= 0),
  -- Periods are whole months counted from the anchor, so that a subscription of the 31st does not drift.
  period_anchor timestamptz not null default now(),
  period_start timestamptz not null,
  period_end timestamptz not null check (period_end > period_start),
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create unique index ix_subscriptions_user_id on subscriptions (user_id);
create index ix_subscriptions_status on subscriptions (status);
create index ix_subscriptions_expires_at on subscriptions (expires_at);
create trigger subscriptions_touch before update on subscriptions for each row execute function touch_updated_at();

create table tools (
  id uuid primary key default gen_random_uuid(),
  name varchar(100) not null check (name <> ''),
  description text not null check (description <> ''),
  api_endpoint varchar(500) not null,
  kind varchar(20) not null default 'builtin' check (kind in ('builtin', 'http')),
  is_active boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create unique index ix_tools_name on tools (name);
create index ix_tools_is_active on tools (is_active);
create trigger tools_touch before update on tools for each row execute function touch_updated_at();

create table usage_logs (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references users (id),
  tool_id uuid not null references tools (id),
  timestamp timestamptz not null default now(),
  tokens_used integer not null check (tokens_used >= 0),
  request_id uuid not null,
  response_status varchar(20) not null check (response_status in ('success', 'error', 'timeout')),
  duration_ms integer check (duration_ms >= 0),
  trial boolean not null default false,
  provider varchar(40),
  model varchar(100),
  cost_micro_usd bigint not null default 0 check (cost_micro_usd >= 0),
  error_code varchar(40)
);
create index ix_usage_logs_user_id on usage_logs (user_id);
create index ix_usage_logs_tool_id on usage_logs (tool_id);
create index ix_usage_logs_timestamp on usage_logs (timestamp);
create index ix_usage_logs_user_timestamp on usage_logs (user_id, timestamp);

create table api_keys (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references users (id),
  key_hash varchar(255) not null,
  key_prefix varchar(8) not null,
  name varchar(100) not null check (name <> ''),
  active boolean not null default true,
  created_at timestamptz not null default now(),
  last_used_at timestamptz,
  expires_at timestamptz
);
create unique index ix_api_keys_key_hash on api_keys (key_hash);
create index ix_api_keys_user_id on api_keys (user_id);
create index ix_api_keys_active on api_keys (active);

-- A session is a family of refresh tokens: each rotation adds a row, and the row before it points at its successor.
create table refresh_tokens (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references users (id),
  token_hash varchar(255) not null,
  family_id uuid not null,
  expires_at timestamptz not null,
  absolute_expires_at timestamptz not null,
  revoked boolean not null default false,
  revoked_at timestamptz,
  revoked_reason varchar(20) check (revoked_reason in ('rotated', 'logout', 'password', 'session', 'reuse')),
  created_at timestamptz not null default now(),
  replaced_by uuid references refresh_tokens (id) deferrable initially deferred,
  user_agent varchar(255),
  ip varchar(64),
  check (expires_at > created_at),
  check (revoked = (revoked_at is not null) and revoked = (revoked_reason is not null))
);
create unique index ix_refresh_tokens_token_hash on refresh_tokens (token_hash);
create index ix_refresh_tokens_user_id on refresh_tokens (user_id);
create index ix_refresh_tokens_expires_at on refresh_tokens (expires_at);
create index ix_refresh_tokens_family on refresh_tokens (family_id);

-- Failed sign-ins by hashed e-mail; a row goes away with the next success.
create table sign_in_failures (
  email_hash varchar(64) primary key,
  failures integer not null check (failures > 0),
  last_failure_at timestamptz not null default now()
);
`,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
drop table sign_in_failures, refresh_tokens, api_keys, usage_logs, tools, subscriptions, users;
drop function touch_updated_at;
drop type subscription_status, subscription_plan, user_status, user_role;
`,
  )
}
