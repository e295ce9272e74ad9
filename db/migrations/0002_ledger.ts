// The ledger's tables and the rules the database itself keeps: lots, holds, and a journal nobody can edit.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
-- Every movement of tokens has one of these names; each moves an amount from one account to another.
create table ledger_op (
  op text primary key,
  source text not null,
  target text not null,
  check (source <> target)
);
insert into ledger_op values
  ('grant', 'house:issued', 'available'),
  ('reserve', 'available', 'held'),
  ('spend', 'held', 'house:usage'),
  ('release', 'held', 'available'),
  ('lapse', 'available', 'house:lapsed'),
  ('clawback', 'available', 'house:refunded'),
  ('repay', 'available', 'house:debt'),
  ('debt', 'house:debt', 'house:refunded');

-- One row per user: the lock of every operation, and what the user owes for refunded tokens already spent.
create table ledger_account (
  user_id uuid primary key references users (id),
  debt bigint not null default 0 check (debt >= 0),
  created_at timestamptz not null default now()
);

-- One row per grant. Spending order is (priority, expires_at, id).
create table ledger_lot (
  id bigint generated always as identity primary key,
  user_id uuid not null references ledger_account,
  kind text not null check (kind in ('trial', 'plan', 'promo', 'pack')),
  unit text not null check (unit in ('token', 'generation')),
  priority smallint not null,
  granted bigint not null check (granted > 0),
  available bigint not null check (available >= 0),
  held bigint not null default 0 check (held >= 0),
  spent bigint not null default 0 check (spent >= 0),
  gone bigint not null default 0 check (gone >= 0),
  expires_at timestamptz,
  source text not null unique,
  created_at timestamptz not null default now(),
  check (granted = available + held + spent + gone),
  check ((kind = 'trial') = (unit = 'generation')),
  unique (id, user_id)
) with (fillfactor = 70);
create index ledger_lot_spendable on ledger_lot (user_id, priority, expires_at, id) where available > 0;
create index ledger_lot_lapsing on ledger_lot (expires_at) where available > 0 and expires_at is not null;

-- One row per reservation. A pending hold past its expiry belongs to a request that died.
create table ledger_hold (
  id text primary key,
  user_id uuid not null references ledger_account,
  asked bigint not null check (asked > 0),
  amount bigint not null check (amount > 0),
  unit text not null check (unit in ('token', 'generation')),
  state text not null default 'pending' check (state in ('pending', 'settled', 'voided', 'expired')),
  spent bigint check (spent between 0 and amount),
  expires_at timestamptz not null,
  created_at timestamptz not null default now(),
  closed_at timestamptz,
  check ((state = 'pending') = (closed_at is null)),
  check ((state = 'pending') = (spent is null)),
  check (state not in ('voided', 'expired') or spent = 0),
  unique (id, user_id)
) with (fillfactor = 70);
create index ledger_hold_open on ledger_hold (expires_at) where state = 'pending';
create index ledger_hold_user_open on ledger_hold (user_id) where state = 'pending';

-- The journal. Composite keys keep an entry on its own user's lots and holds.
create table ledger_entry (
  id bigint generated always as identity primary key,
  user_id uuid not null references ledger_account,
  op text not null references ledger_op,
  amount bigint not null check (amount > 0),
  lot_id bigint not null,
  hold_id text,
  ref text,
  at timestamptz not null default now(),
  foreign key (lot_id, user_id) references ledger_lot (id, user_id),
  foreign key (hold_id, user_id) references ledger_hold (id, user_id),
  check ((op in ('reserve', 'spend', 'release')) = (hold_id is not null)),
  unique (hold_id, lot_id, op),
  unique (ref, op)
);
create unique index ledger_entry_grant on ledger_entry (lot_id) where op = 'grant';
create index ledger_entry_user on ledger_entry (user_id, id);
create index ledger_entry_lot on ledger_entry (lot_id);

create function ledger_forbid() returns trigger language plpgsql as $$
begin
  raise exception '% on % is forbidden', tg_op, tg_table_name using errcode = 'LG001';
end $$;

create trigger ledger_op_fixed before insert or update or delete on ledger_op
  for each statement execute function ledger_forbid();

-- Balances move only by inserting an entry.
create function ledger_entry_apply() returns trigger language plpgsql as $$
begin
  case new.op
    when 'grant' then null; -- written by the lot's own insert
    when 'reserve' then
      update ledger_lot set available = available - new.amount, held = held + new.amount where id = new.lot_id;
    when 'spend' then
      update ledger_lot set held = held - new.amount, spent = spent + new.amount where id = new.lot_id;
    when 'release' then
      update ledger_lot set held = held - new.amount, available = available + new.amount where id = new.lot_id;
    when 'lapse', 'clawback' then
      update ledger_lot set available = available - new.amount, gone = gone + new.amount where id = new.lot_id;
    when 'repay' then
      update ledger_lot set available = available - new.amount, gone = gone + new.amount where id = new.lot_id;
      update ledger_account set debt = debt - new.amount where user_id = new.user_id;
    when 'debt' then
      update ledger_account set debt = debt + new.amount where user_id = new.user_id;
  end case;
  return null;
end $$;
create trigger ledger_entry_apply after insert on ledger_entry for each row execute function ledger_entry_apply();

create trigger ledger_entry_append_only before update or delete on ledger_entry
  for each row execute function ledger_forbid();
create trigger ledger_entry_no_truncate before truncate on ledger_entry
  for each statement execute function ledger_forbid();

create function ledger_lot_opened() returns trigger language plpgsql as $$
begin
  insert into ledger_entry (user_id, op, amount, lot_id) values (new.user_id, 'grant', new.granted, new.id);
  return null;
end $$;
create trigger ledger_lot_fresh before insert on ledger_lot for each row
  when (new.available <> new.granted or new.held <> 0 or new.spent <> 0 or new.gone <> 0)
  execute function ledger_forbid();
create trigger ledger_lot_opened after insert on ledger_lot for each row execute function ledger_lot_opened();
create trigger ledger_lot_guard before update on ledger_lot for each row
  when (pg_trigger_depth() = 0) execute function ledger_forbid();
create trigger ledger_lot_no_delete before delete on ledger_lot for each row execute function ledger_forbid();
create trigger ledger_lot_no_truncate before truncate on ledger_lot
  for each statement execute function ledger_forbid();

create trigger ledger_account_guard before update on ledger_account for each row
  when (pg_trigger_depth() = 0) execute function ledger_forbid();
create trigger ledger_account_no_delete before delete on ledger_account for each row execute function ledger_forbid();

create trigger ledger_hold_guard before update on ledger_hold for each row
  when (old.state <> 'pending' or new.id <> old.id or new.user_id <> old.user_id
    or new.asked <> old.asked or new.amount <> old.amount or new.unit <> old.unit)
  execute function ledger_forbid();
create trigger ledger_hold_no_delete before delete on ledger_hold for each row execute function ledger_forbid();

-- At commit every hold's entries add up to the hold, lot by lot, and all of them are in its unit.
create function ledger_hold_balanced() returns trigger language plpgsql as $$
declare
  v_hold ledger_hold;
  v_reserved bigint;
  v_spent bigint;
  v_matched boolean;
begin
  if tg_table_name = 'ledger_hold' then
    select * into v_hold from ledger_hold where id = new.id;
  else
    select * into v_hold from ledger_hold where id = new.hold_id;
  end if;
  select coalesce(sum(part.reserved), 0), coalesce(sum(part.spent), 0),
      coalesce(bool_and(part.unit = v_hold.unit
        and part.spent + part.released = case v_hold.state when 'pending' then 0 else part.reserved end), true)
    into v_reserved, v_spent, v_matched
    from (
      select l.unit,
          coalesce(sum(e.amount) filter (where e.op = 'reserve'), 0) as reserved,
          coalesce(sum(e.amount) filter (where e.op = 'spend'), 0) as spent,
          coalesce(sum(e.amount) filter (where e.op = 'release'), 0) as released
        from ledger_entry e join ledger_lot l on l.id = e.lot_id
        where e.hold_id = v_hold.id group by l.id
    ) part;
  if not v_matched or v_reserved <> v_hold.amount or v_spent <> coalesce(v_hold.spent, 0) then
    raise exception 'hold % does not balance: reserved % of %, spent % of %, lot by lot %',
      v_hold.id, v_reserved, v_hold.amount, v_spent, coalesce(v_hold.spent, 0), v_matched using errcode = 'LG002';
  end if;
  return null;
end $$;
create constraint trigger ledger_hold_balanced after insert or update on ledger_hold
  deferrable initially deferred for each row execute function ledger_hold_balanced();
create constraint trigger ledger_hold_balanced after insert on ledger_entry
  deferrable initially deferred for each row when (new.hold_id is not null) execute function ledger_hold_balanced();

-- subscriptions.token_limit and tokens_used mirror the lot of the current period, at every statement's end.
alter table subscriptions add column plan_lot_id bigint references ledger_lot (id);
create unique index ix_subscriptions_plan_lot_id on subscriptions (plan_lot_id);

create function subscription_follow_lot() returns trigger language plpgsql as $$
begin
  update subscriptions set tokens_used = new.spent where plan_lot_id = new.id;
  return null;
end $$;
create trigger subscription_follow_lot after update of spent on ledger_lot for each row
  when (new.kind = 'plan' and new.spent <> old.spent) execute function subscription_follow_lot();

create function subscription_matches_lot() returns trigger language plpgsql as $$
begin
  if not exists (
    select 1 from ledger_lot l
    where l.id = new.plan_lot_id and l.user_id = new.user_id and l.kind = 'plan'
      and l.granted = new.token_limit and l.spent = new.tokens_used
  ) then
    raise exception 'subscription of user % does not match its plan lot', new.user_id using errcode = 'LG003';
  end if;
  return new;
end $$;
create trigger subscription_matches_lot before insert or update of token_limit, tokens_used, plan_lot_id, user_id
  on subscriptions for each row execute function subscription_matches_lot();

-- For auditors: two postings per entry, whose sum is zero by construction. House accounts are never stored.
create view ledger_posting as
  select e.id as entry_id, e.user_id, e.at, o.source as account, -e.amount as delta, e.lot_id, e.hold_id
    from ledger_entry e join ledger_op o using (op)
  union all
  select e.id, e.user_id, e.at, o.target, e.amount, e.lot_id, e.hold_id
    from ledger_entry e join ledger_op o using (op);
`,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
drop view ledger_posting;
drop trigger subscription_matches_lot on subscriptions;
alter table subscriptions drop column plan_lot_id;
drop table ledger_entry, ledger_hold, ledger_lot, ledger_account, ledger_op;
drop function subscription_matches_lot, subscription_follow_lot, ledger_hold_balanced, ledger_lot_opened,
  ledger_entry_apply, ledger_forbid;
`,
  )
}
