// Keys for programs: what each may do, until when, how much it may spend, and what it spent.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
alter table api_keys
  add column scopes text[] not null default '{generate,read}' check (cardinality(scopes) > 0 and scopes <@ '{generate,read}'),
  add column revoked_at timestamptz,
  add column revoked_reason varchar(20) check (revoked_reason in ('revoked', 'suspended', 'deleted')),
  add column rotated_to uuid unique references api_keys (id),
  add column token_budget bigint,
  -- Tokens charged through this key, open holds included.
  add column tokens_used bigint not null default 0 check (tokens_used >= 0),
  add column requests_per_minute integer check (requests_per_minute > 0),
  add constraint api_keys_within_budget check (tokens_used <= token_budget);
update api_keys set revoked_at = now(), revoked_reason = 'revoked' where not active;
alter table api_keys
  add check (active = (revoked_at is null) and active = (revoked_reason is null));

-- Which key a hold and a usage row came from: a bare id, which outlives the key.
alter table ledger_hold add column api_key_id uuid;
alter table usage_logs add column api_key_id uuid;

-- What a key spent moves with its holds alone.
create trigger api_keys_unspent before insert on api_keys for each row
  when (new.tokens_used <> 0) execute function ledger_forbid();
create trigger api_keys_spending before update of tokens_used on api_keys for each row
  when (pg_trigger_depth() = 0 and new.tokens_used <> old.tokens_used) execute function ledger_forbid();
create trigger ledger_hold_api_key_fixed before update of api_key_id on ledger_hold for each row
  when (old.api_key_id is not null and new.api_key_id is distinct from old.api_key_id) execute function ledger_forbid();
create trigger ledger_hold_api_key_first before insert on ledger_hold for each row
  when (new.api_key_id is not null) execute function ledger_forbid();

-- The last of a chain of rotations: it keeps what is left of the budget.
create function api_key_last(p_key uuid) returns uuid language sql stable as $$
  with recursive chain as (
    select k.id, k.rotated_to from api_keys k where k.id = p_key
    union all
    select k.id, k.rotated_to from api_keys k join chain c on k.id = c.rotated_to
  )
  select id from chain where rotated_to is null
$$;

-- Adds to what a key spent; a negative amount comes back. The account's lock is held wherever holds are made or closed.
create function api_key_charge(p_key uuid, p_tokens bigint) returns void language plpgsql as $$
declare
  v_last uuid := api_key_last(p_key);
begin
  -- A key with a successor has no budget left of its own: it spends from the successor's.
  update api_keys set token_budget = token_budget - p_tokens where id = v_last and id <> p_key;
  update api_keys set tokens_used = tokens_used + p_tokens,
      token_budget = token_budget + case when id = v_last then 0 else p_tokens end
    where id = p_key;
end $$;

create function api_key_held() returns trigger language plpgsql as $$
begin
  perform api_key_charge(new.api_key_id, new.amount);
  return null;
end $$;
create trigger ledger_hold_api_key_held after update of api_key_id on ledger_hold for each row
  when (old.api_key_id is null and new.api_key_id is not null and new.unit = 'token')
  execute function api_key_held();

create function api_key_closed() returns trigger language plpgsql as $$
begin
  perform api_key_charge(new.api_key_id, new.spent - new.amount);
  return null;
end $$;
create trigger ledger_hold_api_key_closed after update of state on ledger_hold for each row
  when (old.state = 'pending' and new.state <> 'pending' and new.api_key_id is not null and new.unit = 'token'
    and new.spent < new.amount)
  execute function api_key_closed();

-- ledger_reserve for a key: tokens that it holds are also taken out of the key's budget, a trial generation is not.
-- Answers as ledger_reserve does, or 'key_ended' | 'key_budget' (with the budget, and what is used of it).
create function api_key_reserve(p_key uuid, p_user uuid, p_hold text, p_tokens bigint, p_ttl interval, p_allowances jsonb)
returns table (status text, unit text, held bigint, trial_generations bigint, tokens bigint, token_budget bigint, tokens_used bigint)
language plpgsql as $$
declare
  v_state text;
  v_answer record;
  v_constraint text;
begin
  -- The account first, as everywhere: budgets are only ever moved under its lock.
  perform 1 from ledger_account where user_id = p_user for no key update;
  v_state := account_state(p_user, null);
  if v_state = 'active' and not exists (
    select 1 from api_keys k
      where k.id = p_key and k.user_id = p_user and k.active and (k.expires_at is null or k.expires_at > now())
  ) then
    v_state := 'key_ended';
  end if;
  if v_state <> 'active' then
    return query select v_state, null::text, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint;
    return;
  end if;
  begin
    select * into v_answer from ledger_reserve(p_user, null, p_hold, p_tokens, p_ttl, p_allowances);
    if v_answer.status = 'ok' then
      update ledger_hold set api_key_id = p_key where id = p_hold;
    end if;
    return query select v_answer.status, v_answer.unit, v_answer.held, v_answer.trial_generations, v_answer.tokens,
      null::bigint, null::bigint;
    return;
  exception when check_violation then
    -- The subtransaction took the hold back, as if it had never been.
    get stacked diagnostics v_constraint = constraint_name;
    if v_constraint <> 'api_keys_within_budget' then
      raise;
    end if;
  end;
  if ledger_release_orphans(p_user) > 0 then
    return query select * from api_key_reserve(p_key, p_user, p_hold, p_tokens, p_ttl, p_allowances);
    return;
  end if;
  return query select 'key_budget', null::text, null::bigint, b.trial_generations, b.tokens, k.token_budget, k.tokens_used
    from ledger_balance(p_user) b, api_keys k where k.id = api_key_last(p_key);
end $$;
`,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
drop function api_key_reserve;
drop trigger ledger_hold_api_key_closed on ledger_hold;
drop trigger ledger_hold_api_key_held on ledger_hold;
drop trigger ledger_hold_api_key_first on ledger_hold;
drop trigger ledger_hold_api_key_fixed on ledger_hold;
drop trigger api_keys_spending on api_keys;
drop trigger api_keys_unspent on api_keys;
drop function api_key_closed, api_key_held, api_key_charge, api_key_last;
alter table usage_logs drop column api_key_id;
alter table ledger_hold drop column api_key_id;
alter table api_keys
  drop column scopes, drop column revoked_at, drop column revoked_reason, drop column rotated_to, drop column token_budget,
  drop column tokens_used, drop column requests_per_minute;
`,
  )
}
