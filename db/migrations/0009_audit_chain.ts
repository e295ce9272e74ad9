// The audit log as a hash chain: each row is sealed, in the order of commits, onto all rows before it.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
alter table audit_log
  drop constraint audit_log_actor_type_check,
  add constraint audit_log_actor_type_check check (actor_type in ('user', 'admin', 'api_key', 'system', 'webhook')),
  -- Who acted in the actor's name, as the identity provider calls them.
  add column impersonator varchar(80),
  add column before jsonb,
  add column after jsonb;

-- Without gaps: seq counts what was committed, while audit_log.id also counts what was rolled back.
create table audit_chain (
  seq bigint primary key check (seq > 0),
  audit_id bigint not null unique references audit_log (id),
  hash char(64) not null
);

-- Where the chain ends: a log that was cut short does not reach it.
create table audit_head (
  one boolean primary key default true check (one),
  seq bigint not null,
  hash char(64) not null
);
insert into audit_head (seq, hash) values (0, repeat('0', 64));

-- The hash of a row on top of the one before it: SHA-256 over both, every column in a fixed order and form.
create function audit_hash(p_previous text, p_row audit_log) returns text language sql stable as $$
  select encode(sha256(convert_to(p_previous || jsonb_build_array(
    p_row.id, (extract(epoch from p_row.at) * 1000000)::bigint, p_row.actor_type, p_row.actor_id, p_row.impersonator,
    p_row.action, p_row.target_type, p_row.target_id, p_row.reason, p_row.details, p_row.before, p_row.after, p_row.ip,
    p_row.user_agent, p_row.request_id)::text, 'UTF8')), 'hex')
$$;

-- Runs at commit, so that the chain's lock is the last one taken and nobody waits behind it for another.
create function audit_chain_append() returns trigger language plpgsql as $$
declare
  v_head audit_head;
begin
  perform pg_advisory_xact_lock(hashtextextended('audit_chain', 0));
  update audit_head h set seq = h.seq + 1, hash = audit_hash(h.hash, new) returning * into v_head;
  insert into audit_chain (seq, audit_id, hash) values (v_head.seq, new.id, v_head.hash);
  return null;
end $$;

do $$
declare
  v_row audit_log;
  v_head audit_head;
begin
  for v_row in select * from audit_log order by id loop
    update audit_head h set seq = h.seq + 1, hash = audit_hash(h.hash, v_row) returning * into v_head;
    insert into audit_chain (seq, audit_id, hash) values (v_head.seq, v_row.id, v_head.hash);
  end loop;
end $$;

create constraint trigger audit_log_chained after insert on audit_log deferrable initially deferred
  for each row execute function audit_chain_append();

-- Only the log's own trigger extends the chain and moves the head.
create function audit_chain_forbid() returns trigger language plpgsql as $$
begin
  raise exception '% on % is forbidden', tg_op, tg_table_name using errcode = 'AU001';
end $$;
create trigger audit_chain_append_only before update or delete on audit_chain
  for each row execute function audit_chain_forbid();
create trigger audit_chain_no_truncate before truncate on audit_chain
  for each statement execute function audit_chain_forbid();
create trigger audit_chain_guard before insert on audit_chain for each row
  when (pg_trigger_depth() = 0) execute function audit_chain_forbid();
create trigger audit_head_guard before update on audit_head for each row
  when (pg_trigger_depth() = 0) execute function audit_chain_forbid();
create trigger audit_head_one before insert or delete on audit_head
  for each row execute function audit_chain_forbid();
create trigger audit_head_no_truncate before truncate on audit_head
  for each statement execute function audit_chain_forbid();

-- Heads signed with a key that the database does not have: whoever rewrites the chain cannot sign it.
create table audit_anchors (
  seq bigint primary key,
  hash char(64) not null,
  mac varchar(64) not null,
  anchored_at timestamptz not null default now()
);
create trigger audit_anchors_append_only before update or delete on audit_anchors
  for each row execute function audit_chain_forbid();
create trigger audit_anchors_no_truncate before truncate on audit_anchors
  for each statement execute function audit_chain_forbid();

-- The log as it is read: newest first, of a time.
create index audit_log_at on audit_log (at, id);
`,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
drop trigger audit_log_chained on audit_log;
drop function audit_chain_append;
drop index audit_log_at;
drop table audit_anchors, audit_head, audit_chain;
drop function audit_hash, audit_chain_forbid;
alter table audit_log disable trigger audit_log_append_only;
update audit_log set actor_type = 'system' where actor_type in ('api_key', 'webhook');
alter table audit_log enable trigger audit_log_append_only;
alter table audit_log
  drop column impersonator, drop column before, drop column after,
  drop constraint audit_log_actor_type_check,
  add constraint audit_log_actor_type_check check (actor_type in ('user', 'admin', 'system'));
`,
  )
}
