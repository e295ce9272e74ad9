// Plans that are paid for: what a user's plan is follows from orders and subscriptions; and refunds that can be undone.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'
import * as ledgerOperations from './0003_ledger_operations.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
-- A refund that fails later gives back what it took: from the lot, from the debt, and from what repaid the debt.
-- What had lapsed before a refund was no use to anyone: it counts as taken back (waive), and leaves no debt.
alter table ledger_op disable trigger ledger_op_fixed;
insert into ledger_op values
  ('restore', 'house:refunded', 'available'),
  ('forgive', 'house:refunded', 'house:debt'),
  ('unrepay', 'house:debt', 'available'),
  ('waive', 'house:lapsed', 'house:refunded'),
  ('unwaive', 'house:refunded', 'house:lapsed')
  on conflict do nothing;
alter table ledger_op enable trigger ledger_op_fixed;

create or replace function ledger_entry_apply() returns trigger language plpgsql as $$
begin
  case new.op
    when 'grant', 'waive', 'unwaive' then null; -- a grant is written by the lot's own insert
    when 'reserve' then
      update ledger_lot set available = available - new.amount, held = held + new.amount where id = new.lot_id;
    when 'spend' then
      update ledger_lot set held = held - new.amount, spent = spent + new.amount where id = new.lot_id;
    when 'release' then
      update ledger_lot set held = held - new.amount, available = available + new.amount where id = new.lot_id;
    when 'lapse', 'clawback' then
      update ledger_lot set available = available - new.amount, gone = gone + new.amount where id = new.lot_id;
    when 'restore' then
      update ledger_lot set available = available + new.amount, gone = gone - new.amount where id = new.lot_id;
    when 'repay' then
      update ledger_lot set available = available - new.amount, gone = gone + new.amount where id = new.lot_id;
      update ledger_account set debt = debt - new.amount where user_id = new.user_id;
    when 'unrepay' then
      update ledger_lot set available = available + new.amount, gone = gone - new.amount where id = new.lot_id;
      update ledger_account set debt = debt + new.amount where user_id = new.user_id;
    when 'debt' then
      update ledger_account set debt = debt + new.amount where user_id = new.user_id;
    when 'forgive' then
      update ledger_account set debt = debt - new.amount where user_id = new.user_id;
  end case;
  return null;
end $$;

-- A plan lot sleeps while it belongs to another period or plan than the one in force. Only this may be set directly.
alter table ledger_lot add column dormant boolean not null default false check (not dormant or kind = 'plan');
create index ledger_lot_plan on ledger_lot (user_id) where kind = 'plan';
-- Grants as the history lists them.
create index ledger_lot_user on ledger_lot (user_id, created_at, id);
drop index ledger_lot_spendable;
create index ledger_lot_spendable on ledger_lot (user_id, priority, expires_at, id) where available > 0 and not dormant;
drop trigger ledger_lot_guard on ledger_lot;
create trigger ledger_lot_guard before update on ledger_lot for each row
  when (pg_trigger_depth() = 0 and (old.id, old.user_id, old.kind, old.unit, old.priority, old.granted, old.available, old.held,
      old.spent, old.gone, old.expires_at, old.source, old.created_at)
    is distinct from (new.id, new.user_id, new.kind, new.unit, new.priority, new.granted, new.available, new.held,
      new.spent, new.gone, new.expires_at, new.source, new.created_at))
  execute function ledger_forbid();

-- A period may be paid for in parts (an upgrade adds to it): token_limit and tokens_used are the sums over its lots.
alter table subscriptions add column plan_lot_ids bigint[];
alter table subscriptions add column stands_until timestamptz;
drop trigger subscription_matches_lot on subscriptions;
-- Whoever paid for a plan already is looked at again on first use: orders may say more than the one lot.
update subscriptions s set plan_lot_ids = array[plan_lot_id], stands_until = case
  when exists (select 1 from billing_orders o where o.user_id = s.user_id and o.kind = 'plan') then least(period_end, now())
  else period_end end;
update ledger_lot l set dormant = true
  where kind = 'plan' and not exists (select 1 from subscriptions s where s.user_id = l.user_id and l.id = any(s.plan_lot_ids));
alter table subscriptions alter column plan_lot_ids set not null, alter column stands_until set not null,
  drop column plan_lot_id;

create or replace function subscription_follow_lot() returns trigger language plpgsql as $$
begin
  update subscriptions set tokens_used = tokens_used + new.spent - old.spent
    where user_id = new.user_id and new.id = any(plan_lot_ids);
  return null;
end $$;

create or replace function subscription_matches_lot() returns trigger language plpgsql as $$
begin
  if not exists (
    select 1 from ledger_lot l
      where l.id = any(new.plan_lot_ids) and l.user_id = new.user_id and l.kind = 'plan'
      having count(*) = cardinality(new.plan_lot_ids) and sum(l.granted) = new.token_limit and sum(l.spent) = new.tokens_used
  ) then
    raise exception 'subscription of user % does not match its plan lots', new.user_id using errcode = 'LG003';
  end if;
  return new;
end $$;
create trigger subscription_matches_lot before insert or update of token_limit, tokens_used, plan_lot_ids, user_id
  on subscriptions for each row execute function subscription_matches_lot();

create or replace function ledger_balance(p_user uuid) returns table (trial_generations bigint, tokens bigint)
language sql stable as $$
  select coalesce(sum(l.available) filter (where l.unit = 'generation'), 0)::bigint,
         greatest(0, coalesce(sum(l.available) filter (where l.unit = 'token'), 0)
           - coalesce((select a.debt from ledger_account a where a.user_id = p_user), 0))::bigint
    from ledger_lot l
    where l.user_id = p_user and l.available > 0 and not l.dormant and (l.expires_at is null or l.expires_at > now())
$$;

-- The free plan's lot of the month that now falls in, counted from the account's anchor in UTC; granted on first sight.
create function plan_free_lot(p_user uuid, p_anchor timestamptz, p_tokens bigint)
returns table (lot_id bigint, period_start timestamptz, period_end timestamptz) language plpgsql as $$
declare
  v_anchor timestamp := p_anchor at time zone 'utc';
  v_now timestamp := now() at time zone 'utc';
  v_months int;
  v_start timestamptz;
  v_end timestamptz;
begin
  v_months := (extract(year from v_now) - extract(year from v_anchor)) * 12
    + extract(month from v_now) - extract(month from v_anchor);
  if v_anchor + make_interval(months => v_months) > v_now then
    v_months := v_months - 1;
  end if;
  v_start := (v_anchor + make_interval(months => v_months)) at time zone 'utc';
  v_end := (v_anchor + make_interval(months => v_months + 1)) at time zone 'utc';
  return query select c.lot_id, v_start, v_end from ledger_credit(p_user, 'plan', p_tokens,
    format('plan:%s:%s', p_user, to_char(v_start at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US')), v_end) c;
end $$;

-- What a user is entitled to now, by subscription. A paid order whose subscription was not heard of, or not whose it is, stands
-- for it for a month.
create function plan_entitlements(p_user uuid)
returns table (id varchar, plan subscription_plan, status subscription_status, period_start timestamptz,
  period_end timestamptz, expires_at timestamptz, until timestamptz)
language sql stable as $$
  select s.id, s.plan, (case when s.cancel_at_period_end then 'cancelled' else 'active' end)::subscription_status,
      s.period_start, s.period_end, coalesce(s.ends_at, s.period_end), s.entitled_until
    from billing_subscriptions s
    where s.user_id = p_user and s.plan is not null and s.entitled_until > now()
  union all
  select o.subscription_id, o.plan, 'active'::subscription_status, o.ordered_at, o.period_end, o.period_end, o.period_end
    from (
      select distinct on (b.subscription_id) b.subscription_id, b.plan, b.ordered_at,
          (b.ordered_at at time zone 'utc' + interval '1 month') at time zone 'utc' as period_end
        from billing_orders b
        where b.user_id = p_user and b.kind = 'plan' and b.tokens_granted > 0
          and not exists (select 1 from billing_subscriptions s where s.id = b.subscription_id and s.user_id = p_user)
        order by b.subscription_id, b.ordered_at desc, b.id desc
    ) o
    where o.period_end > now()
$$;

-- The lots of a subscription's newest paid period: of the order that began it, and of those that came after.
create function plan_period_lots(p_user uuid, p_subscription varchar) returns setof bigint language sql stable as $$
  with paid as (
    select l.id as lot_id, o.ordered_at, o.id, o.starts_period
      from billing_orders o join ledger_lot l on l.source = 'polar:order:' || o.id
      where o.subscription_id = p_subscription and o.user_id = p_user and l.kind = 'plan'
  )
  select p.lot_id from paid p
    where not exists (select 1 from paid later where later.starts_period and (later.ordered_at, later.id) > (p.ordered_at, p.id))
$$;

-- Puts the plan in force: the best that the user is entitled to now, with the allowance of every paid period that is running;
-- the free plan otherwise. The caller holds the account's lock. p_allowances maps plan to tokens per period.
create function plan_refresh(p_user uuid, p_allowances jsonb) returns void language plpgsql as $$
declare
  v_sub subscriptions;
  v_best record;
  v_free record;
  v_lots bigint[];
  v_until timestamptz;
  v_ended timestamptz;
begin
  select * into v_sub from subscriptions where user_id = p_user;
  select * into v_best from plan_entitlements(p_user) order by plan desc, expires_at desc, id limit 1;
  select min(e.until), array_agg(l order by l) filter (where l is not null) into v_until, v_lots
    from plan_entitlements(p_user) e left join lateral plan_period_lots(p_user, e.id) l on true;
  if v_lots is null then
    select * into v_free from plan_free_lot(p_user, v_sub.period_anchor, (p_allowances ->> 'free')::bigint);
    v_lots := array[v_free.lot_id];
    v_until := least(v_until, v_free.period_end);
  end if;
  if v_best.plan is null then
    select max(least(coalesce(s.ends_at, s.period_end), coalesce(s.entitled_until, s.modified_at))) into v_ended
      from billing_subscriptions s where s.user_id = p_user and s.plan is not null;
    select 'free'::subscription_plan as plan, v_free.period_start as period_start, v_free.period_end as period_end,
        case when v_ended is null then 'active' else 'expired' end::subscription_status as status,
        v_ended as expires_at
      into v_best;
  end if;
  perform ledger_lapse(old.id) from unnest(v_sub.plan_lot_ids) old (id);
  update ledger_lot set dormant = id <> all(v_lots)
    where user_id = p_user and kind = 'plan' and dormant <> (id <> all(v_lots));
  update subscriptions s
    set plan = v_best.plan, status = v_best.status, period_start = v_best.period_start, period_end = v_best.period_end,
      expires_at = v_best.expires_at, stands_until = v_until, plan_lot_ids = v_lots,
      token_limit = lots.granted, tokens_used = lots.spent
    from (select sum(l.granted)::int as granted, sum(l.spent)::int as spent from ledger_lot l where l.id = any(v_lots)) lots
    where s.user_id = p_user;
end $$;

-- The plan as time alone changes it. The caller holds the account's lock.
create or replace function ledger_begin_period(p_user uuid, p_allowances jsonb) returns void language plpgsql as $$
declare
  v_until timestamptz;
begin
  select stands_until into v_until from subscriptions where user_id = p_user;
  if v_until <= now() then
    perform plan_refresh(p_user, p_allowances);
  end if;
end $$;

create or replace function ledger_open(p_user uuid, p_allowances jsonb, p_trial bigint, p_trial_source text)
returns void language plpgsql as $$
declare
  v_free record;
begin
  insert into ledger_account (user_id) values (p_user);
  select * into v_free from plan_free_lot(p_user, now(), (p_allowances ->> 'free')::bigint);
  insert into subscriptions (user_id, plan, token_limit, period_start, period_end, plan_lot_ids, stands_until)
    values (p_user, 'free', (p_allowances ->> 'free')::int, v_free.period_start, v_free.period_end,
      array[v_free.lot_id], v_free.period_end);
  if p_trial > 0 then
    perform ledger_credit(p_user, 'trial', p_trial, p_trial_source, null);
  end if;
end $$;

create or replace function ledger_reserve(p_user uuid, p_session uuid, p_hold text, p_tokens bigint, p_ttl interval, p_allowances jsonb)
returns table (status text, unit text, held bigint, trial_generations bigint, tokens bigint) language plpgsql as $$
declare
  v_account ledger_account;
  v_state text;
  v_hold ledger_hold;
  v_lot record;
  v_need bigint := p_tokens;
  v_total bigint;
  v_lots bigint[] := '{}';
  v_takes bigint[] := '{}';
  v_unit text := 'token';
begin
  select * into v_account from ledger_account where user_id = p_user for no key update;
  v_state := account_state(p_user, p_session);
  if v_state <> 'active' then
    return query select v_state, null::text, null::bigint, null::bigint, null::bigint;
    return;
  end if;

  select * into v_hold from ledger_hold where id = p_hold;
  if found then
    return query select case when v_hold.user_id = p_user and v_hold.asked = p_tokens then 'replay' else 'conflict' end,
      v_hold.unit, v_hold.amount, b.trial_generations, b.tokens from ledger_balance(p_user) b;
    return;
  end if;

  perform ledger_begin_period(p_user, p_allowances);
  v_total := -v_account.debt;
  for v_lot in
    select l.id, l.available, l.unit from ledger_lot l
      where l.user_id = p_user and l.available > 0 and not l.dormant and (l.expires_at is null or l.expires_at > now())
      order by l.priority, l.expires_at nulls last, l.id
  loop
    if v_lot.unit = 'generation' then
      if v_account.debt = 0 then
        v_lots := array[v_lot.id];
        v_takes := array[1::bigint];
        v_unit := 'generation';
        exit;
      end if;
    else
      v_total := v_total + v_lot.available;
      if v_need > 0 then
        v_lots := v_lots || v_lot.id;
        v_takes := v_takes || least(v_need, v_lot.available);
        v_need := v_need - least(v_need, v_lot.available);
      end if;
      exit when v_need = 0 and v_total >= p_tokens;
    end if;
  end loop;

  if v_unit = 'token' and v_total < p_tokens then
    if ledger_release_orphans(p_user) > 0 then
      return query select * from ledger_reserve(p_user, null, p_hold, p_tokens, p_ttl, p_allowances);
      return;
    end if;
    return query select 'insufficient', null::text, null::bigint, b.trial_generations, b.tokens from ledger_balance(p_user) b;
    return;
  end if;

  insert into ledger_hold (id, user_id, asked, amount, unit, expires_at)
    values (p_hold, p_user, p_tokens, case v_unit when 'generation' then 1 else p_tokens end, v_unit, now() + p_ttl);
  insert into ledger_entry (user_id, op, amount, lot_id, hold_id)
    select p_user, 'reserve', part.take, part.lot, p_hold from unnest(v_lots, v_takes) part (lot, take);
  return query select 'ok', v_unit, h.amount, b.trial_generations, b.tokens
    from ledger_hold h, ledger_balance(p_user) b where h.id = p_hold;
end $$;

-- Brings what was taken back of a grant to p_target tokens, whatever was taken before: each call is a replay of the last
-- one or a step from it. Takes first what is left of the lot, then what lapsed from it; the rest was used and becomes debt.
-- Gives back in the other order. 'ok' | 'unknown'
create function ledger_take_back(p_source text, p_target bigint)
returns table (status text, taken bigint, debt bigint) language plpgsql as $$
declare
  v_lot ledger_lot;
  v_account ledger_account;
  v_sum record;
  v_part record;
  v_due bigint;
  v_step bigint;
begin
  select * into v_lot from ledger_lot where source = p_source;
  if not found then
    return query select 'unknown', 0::bigint, 0::bigint;
    return;
  end if;
  select * into v_account from ledger_account where user_id = v_lot.user_id for no key update;
  select * into v_lot from ledger_lot where id = v_lot.id;
  select
      coalesce(sum(case op when 'clawback' then amount when 'restore' then -amount end), 0) as clawed,
      coalesce(sum(case op when 'waive' then amount when 'unwaive' then -amount end), 0) as waived,
      coalesce(sum(case op when 'debt' then amount when 'forgive' then -amount end), 0) as owed,
      coalesce(sum(amount) filter (where op = 'lapse'), 0) as lapsed
    into v_sum from ledger_entry where lot_id = v_lot.id;
  v_due := least(greatest(p_target, 0), v_lot.granted) - v_sum.clawed - v_sum.waived - v_sum.owed;

  if v_due > 0 then
    v_step := least(v_due, v_lot.available);
    if v_step > 0 then
      insert into ledger_entry (user_id, op, amount, lot_id) values (v_lot.user_id, 'clawback', v_step, v_lot.id);
      v_due := v_due - v_step;
    end if;
    v_step := least(v_due, v_sum.lapsed - v_sum.waived);
    if v_step > 0 then
      insert into ledger_entry (user_id, op, amount, lot_id) values (v_lot.user_id, 'waive', v_step, v_lot.id);
      v_due := v_due - v_step;
    end if;
    if v_due > 0 then
      insert into ledger_entry (user_id, op, amount, lot_id) values (v_lot.user_id, 'debt', v_due, v_lot.id);
      perform ledger_repay(v_lot.user_id);
    end if;
  elsif v_due < 0 then
    v_step := least(-v_due, v_sum.owed);
    if v_step > 0 then
      -- Debt that was repaid already: whatever repaid it gets that much back, the last repayment first. What was repaid and
      -- given back before is a stack: of each repayment stands what the level never fell below since.
      v_due := v_due + v_step;
      for v_part in
        select p.lot_id, p.repaid from (
          select m.id, m.op, m.lot_id, m.amount - m.level
              + min(m.level) over (order by m.id rows between current row and unbounded following) as repaid
            from (
              select e.id, e.op, e.lot_id, e.amount,
                  sum(case e.op when 'repay' then e.amount else -e.amount end) over (order by e.id) as level
                from ledger_entry e where e.user_id = v_lot.user_id and e.op in ('repay', 'unrepay')
            ) m
        ) p where p.op = 'repay' and p.repaid > 0 order by p.id desc
      loop
        exit when v_account.debt >= v_step;
        v_part.repaid := least(v_part.repaid, v_step - v_account.debt);
        insert into ledger_entry (user_id, op, amount, lot_id) values (v_lot.user_id, 'unrepay', v_part.repaid, v_part.lot_id);
        v_account.debt := v_account.debt + v_part.repaid;
      end loop;
      insert into ledger_entry (user_id, op, amount, lot_id) values (v_lot.user_id, 'forgive', v_step, v_lot.id);
    end if;
    v_step := least(-v_due, v_sum.waived);
    if v_step > 0 then
      insert into ledger_entry (user_id, op, amount, lot_id) values (v_lot.user_id, 'unwaive', v_step, v_lot.id);
      v_due := v_due + v_step;
    end if;
    if v_due < 0 then
      insert into ledger_entry (user_id, op, amount, lot_id) values (v_lot.user_id, 'restore', -v_due, v_lot.id);
      perform ledger_repay(v_lot.user_id);
    end if;
  end if;
  return query select 'ok', least(greatest(p_target, 0), v_lot.granted), a.debt
    from ledger_account a where a.user_id = v_lot.user_id;
end $$;
drop function ledger_claw_back;

create or replace function ledger_status(p_user uuid, p_allowances jsonb)
returns table (plan text, status text, token_limit int, tokens_used int, period_start timestamptz, period_end timestamptz,
  expires_at timestamptz, trial_generations bigint, plan_tokens bigint, purchased_tokens bigint, reserved_tokens bigint,
  debt bigint, tokens bigint)
language plpgsql as $$
begin
  perform 1 from ledger_account where user_id = p_user for no key update;
  perform ledger_begin_period(p_user, p_allowances);
  perform ledger_release_orphans(p_user);
  return query
    select s.plan::text, s.status::text, s.token_limit, s.tokens_used, s.period_start, s.period_end, s.expires_at,
      b.trial_generations, l.plan_tokens, l.purchased_tokens, l.reserved_tokens, a.debt, b.tokens
    from subscriptions s
      join ledger_account a on a.user_id = s.user_id
      cross join ledger_balance(p_user) b
      cross join (
        select
          coalesce(sum(x.available) filter (where x.kind = 'plan' and not x.dormant
            and (x.expires_at is null or x.expires_at > now())), 0)::bigint as plan_tokens,
          coalesce(sum(x.available) filter (where x.kind in ('promo', 'pack')
            and (x.expires_at is null or x.expires_at > now())), 0)::bigint as purchased_tokens,
          coalesce(sum(x.held) filter (where x.unit = 'token'), 0)::bigint as reserved_tokens
        from ledger_lot x where x.user_id = p_user and (x.available > 0 or x.held > 0)
      ) l
    where s.user_id = p_user;
end $$;

-- Gives back orphaned holds, lapses expired lots and moves on plans whose time has come, up to p_limit of each;
-- several sweeps may run at once.
drop function ledger_sweep(int);
create function ledger_sweep(p_limit int, p_allowances jsonb) returns table (expired int, lapsed int, plans int)
language plpgsql as $$
declare
  v_row record;
  v_expired int := 0;
  v_lapsed int := 0;
  v_plans int := 0;
begin
  for v_row in
    select id, user_id from ledger_hold where state = 'pending' and expires_at < now() order by expires_at limit p_limit
  loop
    perform 1 from ledger_account where user_id = v_row.user_id for no key update skip locked;
    if found and (select c.status from ledger_close(v_row.id, 0, 'expired') c) = 'ok' then
      v_expired := v_expired + 1;
    end if;
  end loop;
  for v_row in
    select id, user_id from ledger_lot where available > 0 and expires_at <= now() order by expires_at limit p_limit
  loop
    perform 1 from ledger_account where user_id = v_row.user_id for no key update skip locked;
    if found and exists (select 1 from ledger_lot where id = v_row.id and available > 0) then
      perform ledger_lapse(v_row.id);
      v_lapsed := v_lapsed + 1;
    end if;
  end loop;
  -- A free plan begins its month when its user comes back; only a paid one that ended is worth moving on before.
  for v_row in
    select user_id from subscriptions where plan <> 'free' and stands_until <= now() order by stands_until limit p_limit
  loop
    perform 1 from ledger_account where user_id = v_row.user_id for no key update skip locked;
    if found and exists (select 1 from subscriptions where user_id = v_row.user_id and stands_until <= now()) then
      perform ledger_begin_period(v_row.user_id, p_allowances);
      v_plans := v_plans + 1;
    end if;
  end loop;
  return query select v_expired, v_lapsed, v_plans;
end $$;
create index ix_subscriptions_stands_until on subscriptions (stands_until) where plan <> 'free';
`,
  )
}

/** Leaves the new kinds of movement in the table of kinds when the journal has entries of them: it cannot be unwritten. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
drop index ix_subscriptions_stands_until;
drop function ledger_sweep, ledger_status, ledger_take_back, ledger_reserve, ledger_release_orphans, ledger_close, ledger_open,
  ledger_begin_period, plan_refresh, plan_period_lots, plan_entitlements, plan_free_lot, ledger_lapse, ledger_credit,
  ledger_repay, ledger_balance, account_state;

drop trigger subscription_matches_lot on subscriptions;
alter table subscriptions add column plan_lot_id bigint references ledger_lot (id);
create unique index ix_subscriptions_plan_lot_id on subscriptions (plan_lot_id);
update subscriptions s set plan_lot_id = l.id, token_limit = l.granted, tokens_used = l.spent
  from ledger_lot l where l.id = s.plan_lot_ids[1];
alter table subscriptions drop column plan_lot_ids, drop column stands_until;

create or replace function subscription_follow_lot() returns trigger language plpgsql as $$
begin
  update subscriptions set tokens_used = new.spent where plan_lot_id = new.id;
  return null;
end $$;

create or replace function subscription_matches_lot() returns trigger language plpgsql as $$
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

drop trigger ledger_lot_guard on ledger_lot;
drop index ledger_lot_plan, ledger_lot_user, ledger_lot_spendable;
alter table ledger_lot drop column dormant;
create index ledger_lot_spendable on ledger_lot (user_id, priority, expires_at, id) where available > 0;
create trigger ledger_lot_guard before update on ledger_lot for each row
  when (pg_trigger_depth() = 0) execute function ledger_forbid();

create or replace function ledger_entry_apply() returns trigger language plpgsql as $$
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

alter table ledger_op disable trigger ledger_op_fixed;
delete from ledger_op o where op in ('restore', 'forgive', 'unrepay', 'waive', 'unwaive')
  and not exists (select 1 from ledger_entry e where e.op = o.op);
alter table ledger_op enable trigger ledger_op_fixed;
`,
  )
  await ledgerOperations.up(db)
}
