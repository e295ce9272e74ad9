// What an admin gives and takes back: a plan that nobody pays for, and tokens that were a gift.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

/** What was there before is renamed and called: the functions of paid plans stay as they are. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
-- A plan that an admin lifts a user to. It counts while nothing as good is paid for.
create table plan_gifts (
  user_id uuid primary key references users (id),
  plan subscription_plan not null check (plan <> 'free'),
  granted_by uuid not null references users (id),
  granted_at timestamptz not null default now()
);

-- The month that now falls in, counted from an anchor in UTC.
create function plan_month(p_anchor timestamptz) returns table (period_start timestamptz, period_end timestamptz)
language plpgsql stable rows 1 as $$
declare
  v_anchor timestamp := p_anchor at time zone 'utc';
  v_now timestamp := now() at time zone 'utc';
  v_months int;
begin
  v_months := (extract(year from v_now) - extract(year from v_anchor)) * 12
    + extract(month from v_now) - extract(month from v_anchor);
  if v_anchor + make_interval(months => v_months) > v_now then
    v_months := v_months - 1;
  end if;
  return query select (v_anchor + make_interval(months => v_months)) at time zone 'utc',
    (v_anchor + make_interval(months => v_months + 1)) at time zone 'utc';
end $$;

-- The allowance of a gift is granted once per account, plan and month: taken back and given again, it is the same lot.
create function plan_gift_source(p_user uuid, p_plan subscription_plan, p_start timestamptz) returns text
language sql stable as $$
  select format('gift:%s:%s:%s', p_user, p_plan, to_char(p_start at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US'))
$$;

alter function plan_entitlements(uuid) rename to plan_paid_entitlements;
create function plan_entitlements(p_user uuid)
returns table (id varchar, plan subscription_plan, status subscription_status, period_start timestamptz,
  period_end timestamptz, expires_at timestamptz, until timestamptz)
language sql stable as $$
  select * from plan_paid_entitlements(p_user)
  union all
  select 'gift', g.plan, 'active'::subscription_status, m.period_start, m.period_end, null, m.period_end
    from plan_gifts g join subscriptions s on s.user_id = g.user_id cross join lateral plan_month(s.period_anchor) m
    where g.user_id = p_user and not exists (select 1 from plan_paid_entitlements(p_user) e where e.plan >= g.plan)
$$;

alter function plan_period_lots(uuid, varchar) rename to plan_paid_period_lots;
create function plan_period_lots(p_user uuid, p_subscription varchar) returns setof bigint language sql stable as $$
  select paid.id from plan_paid_period_lots(p_user, p_subscription) paid (id)
  union all
  select l.id from plan_entitlements(p_user) e
    join ledger_lot l on l.user_id = p_user and l.kind = 'plan' and l.source = plan_gift_source(p_user, e.plan, e.period_start)
    where p_subscription = 'gift' and e.id = 'gift'
$$;

-- The caller holds the account's lock.
alter function plan_refresh(uuid, jsonb) rename to plan_put_in_force;
create function plan_refresh(p_user uuid, p_allowances jsonb) returns void language plpgsql as $$
begin
  perform ledger_credit(p_user, 'plan', (p_allowances ->> e.plan::text)::bigint,
      plan_gift_source(p_user, e.plan, e.period_start), e.period_end)
    from plan_entitlements(p_user) e where e.id = 'gift';
  perform plan_put_in_force(p_user, p_allowances);
end $$;

-- Takes back tokens that were given and not bought: what is left of them, the last to be spent first, and never more. Once per
-- p_ref, which answers again what was taken. 'ok' | 'replay' | 'unknown'
create function ledger_revoke(p_user uuid, p_tokens bigint, p_ref text) returns table (status text, taken bigint)
language plpgsql as $$
declare
  v_lot record;
  v_left bigint := p_tokens;
  v_take bigint;
begin
  perform 1 from ledger_account where user_id = p_user for no key update;
  if not found then
    return query select 'unknown', 0::bigint;
    return;
  end if;
  if exists (select 1 from ledger_entry where user_id = p_user and starts_with(ref, p_ref || ':')) then
    return query select 'replay', sum(amount)::bigint from ledger_entry where user_id = p_user and starts_with(ref, p_ref || ':');
    return;
  end if;
  for v_lot in
    select id, available from ledger_lot
      where user_id = p_user and kind = 'promo' and available > 0 and (expires_at is null or expires_at > now())
      order by expires_at desc nulls first, id desc
  loop
    exit when v_left <= 0;
    v_take := least(v_left, v_lot.available);
    insert into ledger_entry (user_id, op, amount, lot_id, ref)
      values (p_user, 'clawback', v_take, v_lot.id, p_ref || ':' || v_lot.id);
    v_left := v_left - v_take;
  end loop;
  return query select 'ok', greatest(p_tokens, 0) - greatest(v_left, 0);
end $$;
`,
  )
}

/** Whoever is on a plan that was a gift is looked at again on first use, and the lots of gifts sleep. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
drop function ledger_revoke, plan_refresh, plan_period_lots, plan_entitlements;
alter function plan_put_in_force rename to plan_refresh;
alter function plan_paid_period_lots rename to plan_period_lots;
alter function plan_paid_entitlements rename to plan_entitlements;
drop function plan_gift_source, plan_month;
update subscriptions s set stands_until = least(s.stands_until, now()) from plan_gifts g where g.user_id = s.user_id;
drop table plan_gifts;
`,
  )
}
