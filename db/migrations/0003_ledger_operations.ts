// The ledger's operations, each one round trip. lib/ledger/ledger.ts is their only caller.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
-- Whether a caller may act: 'active' | 'unknown_user' | 'suspended' | 'signed_out' (p_session is no live session of the user).
-- A session is alive while its family has an unrevoked refresh token; without p_session only the user is checked.
create function account_state(p_user uuid, p_session uuid) returns text language plpgsql stable as $$
declare
  v_status user_status;
begin
  select status into v_status from users where id = p_user;
  if v_status is null or v_status = 'deleted' then
    return 'unknown_user';
  elsif v_status = 'suspended' then
    return 'suspended';
  elsif p_session is not null and not exists (
    select 1 from refresh_tokens t
      where t.family_id = p_session and t.user_id = p_user and not t.revoked and t.absolute_expires_at > now()
  ) then
    return 'signed_out';
  end if;
  return 'active';
end $$;

-- What the user can spend now. An expired lot no longer counts, whether or not it has been lapsed yet.
create function ledger_balance(p_user uuid) returns table (trial_generations bigint, tokens bigint)
language sql stable as $$
  select coalesce(sum(l.available) filter (where l.unit = 'generation'), 0)::bigint,
         greatest(0, coalesce(sum(l.available) filter (where l.unit = 'token'), 0)
           - coalesce((select a.debt from ledger_account a where a.user_id = p_user), 0))::bigint
    from ledger_lot l
    where l.user_id = p_user and l.available > 0 and (l.expires_at is null or l.expires_at > now())
$$;

-- Pays debt from bought tokens, last-consumed lots first; returns what was paid.
create function ledger_repay(p_user uuid) returns bigint language plpgsql as $$
declare
  v_debt bigint;
  v_lot record;
  v_take bigint;
  v_paid bigint := 0;
begin
  select debt into v_debt from ledger_account where user_id = p_user for no key update;
  if coalesce(v_debt, 0) = 0 then
    return 0;
  end if;
  for v_lot in
    select id, available from ledger_lot
      where user_id = p_user and kind in ('pack', 'promo') and available > 0
        and (expires_at is null or expires_at > now())
      order by priority desc, expires_at desc nulls first, id desc
  loop
    exit when v_debt = 0;
    v_take := least(v_debt, v_lot.available);
    insert into ledger_entry (user_id, op, amount, lot_id) values (p_user, 'repay', v_take, v_lot.id);
    v_debt := v_debt - v_take;
    v_paid := v_paid + v_take;
  end loop;
  return v_paid;
end $$;

-- Grants a lot, once per source. 'ok' | 'replay' (same source, same grant) | 'conflict' (same source, another grant)
create function ledger_credit(p_user uuid, p_kind text, p_amount bigint, p_source text, p_expires_at timestamptz)
returns table (status text, lot_id bigint, repaid bigint) language plpgsql as $$
declare
  v_id bigint;
  v_lot ledger_lot;
begin
  perform 1 from ledger_account where user_id = p_user for no key update;
  insert into ledger_lot (user_id, kind, unit, priority, granted, available, expires_at, source)
    values (p_user, p_kind, case p_kind when 'trial' then 'generation' else 'token' end,
      case p_kind when 'trial' then 0 when 'plan' then 10 when 'promo' then 20 else 30 end,
      p_amount, p_amount, p_expires_at, p_source)
    on conflict (source) do nothing returning id into v_id;
  if v_id is null then
    select * into v_lot from ledger_lot where source = p_source;
    return query select
      case when v_lot.user_id = p_user and v_lot.kind = p_kind and v_lot.granted = p_amount
        then 'replay' else 'conflict' end, v_lot.id, 0::bigint;
    return;
  end if;
  return query select 'ok', v_id, ledger_repay(p_user);
end $$;

-- Takes what is left of an expired lot out of the balance.
create function ledger_lapse(p_lot bigint) returns void language sql as $$
  insert into ledger_entry (user_id, op, amount, lot_id)
    select user_id, 'lapse', available, id from ledger_lot
      where id = p_lot and available > 0 and expires_at <= now()
$$;

-- Starts the plan's current period when the last one is over: a month counted from the anchor, in UTC.
-- The caller holds the account's lock. p_allowances maps plan to tokens per period.
create function ledger_begin_period(p_user uuid, p_allowances jsonb) returns void language plpgsql as $$
declare
  v_sub subscriptions;
  v_anchor timestamp;
  v_now timestamp := now() at time zone 'utc';
  v_months int;
  v_start timestamptz;
  v_end timestamptz;
  v_lot bigint;
begin
  select * into v_sub from subscriptions where user_id = p_user;
  if not found or v_sub.period_end > now() or (v_sub.expires_at is not null and v_sub.expires_at <= now()) then
    return;
  end if;
  v_anchor := v_sub.period_anchor at time zone 'utc';
  v_months := (extract(year from v_now) - extract(year from v_anchor)) * 12
    + extract(month from v_now) - extract(month from v_anchor);
  if v_anchor + make_interval(months => v_months) > v_now then
    v_months := v_months - 1;
  end if;
  v_start := (v_anchor + make_interval(months => v_months)) at time zone 'utc';
  v_end := (v_anchor + make_interval(months => v_months + 1)) at time zone 'utc';
  perform ledger_lapse(v_sub.plan_lot_id);
  select c.lot_id into v_lot from ledger_credit(p_user, 'plan', (p_allowances ->> v_sub.plan::text)::bigint,
    format('plan:%s:%s', p_user, to_char(v_start at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US')), v_end) c;
  update subscriptions s
    set plan_lot_id = l.id, token_limit = l.granted, tokens_used = l.spent, period_start = v_start, period_end = v_end
    from ledger_lot l where s.user_id = p_user and l.id = v_lot;
end $$;

-- Opens a user's account: the free plan's first period, and the trial unless this person had one already.
create function ledger_open(p_user uuid, p_allowances jsonb, p_trial bigint, p_trial_source text)
returns void language plpgsql as $$
declare
  v_end timestamptz := (now() at time zone 'utc' + interval '1 month') at time zone 'utc';
  v_lot bigint;
begin
  insert into ledger_account (user_id) values (p_user);
  select c.lot_id into v_lot from ledger_credit(p_user, 'plan', (p_allowances ->> 'free')::bigint,
    format('plan:%s:%s', p_user, to_char(now() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US')), v_end) c;
  insert into subscriptions (user_id, plan, token_limit, period_start, period_end, plan_lot_id)
    values (p_user, 'free', (p_allowances ->> 'free')::int, now(), v_end, v_lot);
  if p_trial > 0 then
    perform ledger_credit(p_user, 'trial', p_trial, p_trial_source, null);
  end if;
end $$;

-- Closes a hold: settle with what was spent (null = all of it), or give everything back ('voided', 'expired').
-- 'ok' | 'replay' (closed the same way before) | 'conflict' (closed another way) | 'unknown'
create function ledger_close(p_hold text, p_spent bigint, p_state text)
returns table (status text, unit text, spent bigint, trial_generations bigint, tokens bigint) language plpgsql as $$
declare
  v_hold ledger_hold;
  v_part record;
  v_spent bigint;
  v_left bigint;
begin
  select * into v_hold from ledger_hold where id = p_hold;
  if not found then
    return query select 'unknown', null::text, null::bigint, null::bigint, null::bigint;
    return;
  end if;
  -- The same lock order as reserve: the account, then the rest.
  perform 1 from ledger_account where user_id = v_hold.user_id for no key update;
  select * into v_hold from ledger_hold where id = p_hold;
  v_spent := case
    when p_state <> 'settled' then 0
    when v_hold.unit = 'generation' then 1
    else least(coalesce(p_spent, v_hold.amount), v_hold.amount) end;
  if v_hold.state <> 'pending' then
    return query select case when v_hold.state = p_state and v_hold.spent = v_spent then 'replay' else 'conflict' end,
      v_hold.unit, v_hold.spent, b.trial_generations, b.tokens from ledger_balance(v_hold.user_id) b;
    return;
  end if;
  update ledger_hold set state = p_state, spent = v_spent, closed_at = now() where id = p_hold;
  v_left := v_spent;
  for v_part in
    select e.lot_id, e.amount from ledger_entry e join ledger_lot l on l.id = e.lot_id
      where e.hold_id = p_hold and e.op = 'reserve'
      order by l.priority, l.expires_at nulls last, l.id
  loop
    if v_left > 0 then
      insert into ledger_entry (user_id, op, amount, lot_id, hold_id)
        values (v_hold.user_id, 'spend', least(v_left, v_part.amount), v_part.lot_id, p_hold);
    end if;
    if v_part.amount > v_left then
      insert into ledger_entry (user_id, op, amount, lot_id, hold_id)
        values (v_hold.user_id, 'release', v_part.amount - v_left, v_part.lot_id, p_hold);
    end if;
    v_left := greatest(0, v_left - v_part.amount);
  end loop;
  if v_hold.amount > v_spent then
    perform ledger_repay(v_hold.user_id);
  end if;
  return query select 'ok', v_hold.unit, v_spent, b.trial_generations, b.tokens from ledger_balance(v_hold.user_id) b;
end $$;

-- Gives back the user's own holds whose request died; returns how many.
create function ledger_release_orphans(p_user uuid) returns int language plpgsql as $$
declare
  v_id text;
  v_count int := 0;
begin
  for v_id in select id from ledger_hold where user_id = p_user and state = 'pending' and expires_at < now() loop
    perform ledger_close(v_id, 0, 'expired');
    v_count := v_count + 1;
  end loop;
  return v_count;
end $$;

-- Takes a price out of the balance and holds it. One trial generation covers any price.
-- 'ok' | 'replay' (same hold, same price) | 'conflict' (same hold, another price) | 'insufficient'
-- | whatever account_state says that is not 'active'
create function ledger_reserve(p_user uuid, p_session uuid, p_hold text, p_tokens bigint, p_ttl interval, p_allowances jsonb)
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
      where l.user_id = p_user and l.available > 0 and (l.expires_at is null or l.expires_at > now())
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

-- Takes back a refunded part of a grant, up to the whole of it: what is left of the lot first, the rest becomes debt.
-- Once per refund. 'ok' | 'replay' | 'unknown'
create function ledger_claw_back(p_source text, p_refund text, p_tokens bigint)
returns table (status text, taken bigint, debt bigint) language plpgsql as $$
declare
  v_lot ledger_lot;
  v_done bigint;
  v_due bigint;
  v_take bigint;
begin
  select * into v_lot from ledger_lot where source = p_source;
  if not found then
    return query select 'unknown', 0::bigint, 0::bigint;
    return;
  end if;
  perform 1 from ledger_account where user_id = v_lot.user_id for no key update;
  if exists (select 1 from ledger_entry where ref = p_refund) then
    return query select 'replay', 0::bigint, a.debt from ledger_account a where a.user_id = v_lot.user_id;
    return;
  end if;
  select * into v_lot from ledger_lot where id = v_lot.id;
  select coalesce(sum(amount), 0) into v_done from ledger_entry where lot_id = v_lot.id and op in ('clawback', 'debt');
  v_due := least(p_tokens, v_lot.granted - v_done);
  v_take := least(v_due, v_lot.available);
  if v_take > 0 then
    insert into ledger_entry (user_id, op, amount, lot_id, ref)
      values (v_lot.user_id, 'clawback', v_take, v_lot.id, p_refund);
  end if;
  if v_due > v_take then
    insert into ledger_entry (user_id, op, amount, lot_id, ref)
      values (v_lot.user_id, 'debt', v_due - v_take, v_lot.id, p_refund);
    perform ledger_repay(v_lot.user_id);
  end if;
  return query select 'ok', v_take, a.debt from ledger_account a where a.user_id = v_lot.user_id;
end $$;

-- Everything a statement of account needs, after bringing the account up to date.
create function ledger_status(p_user uuid, p_allowances jsonb)
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
          coalesce(sum(x.available) filter (where x.kind = 'plan'
            and (x.expires_at is null or x.expires_at > now())), 0)::bigint as plan_tokens,
          coalesce(sum(x.available) filter (where x.kind in ('promo', 'pack')
            and (x.expires_at is null or x.expires_at > now())), 0)::bigint as purchased_tokens,
          coalesce(sum(x.held) filter (where x.unit = 'token'), 0)::bigint as reserved_tokens
        from ledger_lot x where x.user_id = p_user and (x.available > 0 or x.held > 0)
      ) l
    where s.user_id = p_user;
end $$;

-- Gives back orphaned holds and lapses expired lots, up to p_limit of each; several sweeps may run at once.
create function ledger_sweep(p_limit int) returns table (expired int, lapsed int) language plpgsql as $$
declare
  v_row record;
  v_expired int := 0;
  v_lapsed int := 0;
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
    if found then
      perform ledger_lapse(v_row.id);
      v_lapsed := v_lapsed + 1;
    end if;
  end loop;
  return query select v_expired, v_lapsed;
end $$;
`,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
drop function ledger_sweep, ledger_status, ledger_claw_back, ledger_reserve, ledger_release_orphans,
  ledger_close, ledger_open, ledger_begin_period, ledger_lapse, ledger_credit, ledger_repay, ledger_balance, account_state;
`,
  )
}
