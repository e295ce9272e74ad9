// Idempotency keys (one run per key, whatever crashes) and the append-only audit log.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
-- A row is running (locked_until set), free to run again (neither locked nor answered), or answered (status set).
-- receipt is written in the statement that charges, so that a paid run is known even if its answer was lost.
create table idempotency_keys (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references users (id),
  scope varchar(200) not null,
  key varchar(255) not null,
  fingerprint char(64) not null,
  attempt integer not null default 1,
  locked_until timestamptz,
  status integer,
  headers jsonb,
  body bytea,
  body_expires_at timestamptz,
  receipt jsonb,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  unique (user_id, scope, key),
  check (status is null or locked_until is null)
);
-- Pictures are compressed already: trying again costs more than everything else a request does here.
alter table idempotency_keys alter column body set storage external;
create index idempotency_keys_expires_at on idempotency_keys (expires_at);

-- Claims a key for one run. The run's hold, if it makes one, is named '<id>:<attempt>'.
-- 'run' | 'replay' | 'gone' (done before, its answer no longer kept) | 'in_progress' | 'reused' (another request's key)
-- | whatever account_state says that is not 'active'
create function idempotency_claim(p_user uuid, p_session uuid, p_scope text, p_key text, p_fingerprint text, p_lock interval, p_keep interval)
returns table (outcome text, id uuid, attempt int, status int, headers jsonb, body bytea, receipt jsonb)
language plpgsql as $$
declare
  v_row idempotency_keys;
  v_outcome text := account_state(p_user, p_session);
begin
  if v_outcome <> 'active' then
    return query select v_outcome, null::uuid, null::int, null::int, null::jsonb, null::bytea, null::jsonb;
    return;
  end if;
  insert into idempotency_keys (user_id, scope, key, fingerprint, locked_until, expires_at)
    values (p_user, p_scope, p_key, p_fingerprint, now() + p_lock, now() + p_keep)
    on conflict (user_id, scope, key) do nothing returning * into v_row;
  if found then
    return query select 'run', v_row.id, v_row.attempt, null::int, null::jsonb, null::bytea, null::jsonb;
    return;
  end if;
  select * into v_row from idempotency_keys k
    where k.user_id = p_user and k.scope = p_scope and k.key = p_key for update;
  v_outcome := case
    when v_row.expires_at <= now() then 'run'
    when v_row.status is null and v_row.locked_until is null and v_row.receipt is null then 'run'
    when v_row.fingerprint <> p_fingerprint then 'reused'
    when v_row.status is not null and v_row.body_expires_at > now() then 'replay'
    when v_row.locked_until > now() then 'in_progress'
    when v_row.status is not null or v_row.receipt is not null then 'gone'
    else 'run' end;
  if v_outcome = 'run' then
    -- Whatever the crashed run still holds goes back before the next run begins.
    perform ledger_close(v_row.id || ':' || v_row.attempt, 0, 'expired');
    update idempotency_keys k
      set fingerprint = p_fingerprint, attempt = v_row.attempt + 1, locked_until = now() + p_lock, status = null,
        headers = null, body = null, body_expires_at = null, receipt = null, expires_at = now() + p_keep
      where k.id = v_row.id returning * into v_row;
    return query select 'run', v_row.id, v_row.attempt, null::int, null::jsonb, null::bytea, null::jsonb;
    return;
  end if;
  return query select v_outcome, v_row.id, v_row.attempt, v_row.status, v_row.headers,
    case when v_outcome = 'replay' then v_row.body end, v_row.receipt;
end $$;

create table audit_log (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  actor_type varchar(20) not null check (actor_type in ('user', 'admin', 'system')),
  actor_id uuid,
  action varchar(80) not null,
  target_type varchar(40),
  target_id varchar(80),
  reason text,
  details jsonb not null default '{}',
  ip varchar(64),
  user_agent varchar(255),
  request_id varchar(128)
);
create index audit_log_actor on audit_log (actor_id, id);
create index audit_log_target on audit_log (target_type, target_id, id);

create function audit_log_forbid() returns trigger language plpgsql as $$
begin
  raise exception '% on audit_log is forbidden', tg_op using errcode = 'AU001';
end $$;
create trigger audit_log_append_only before update or delete on audit_log
  for each row execute function audit_log_forbid();
create trigger audit_log_no_truncate before truncate on audit_log
  for each statement execute function audit_log_forbid();
`,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
drop table audit_log;
drop function audit_log_forbid;
drop function idempotency_claim;
drop table idempotency_keys;
`,
  )
}
