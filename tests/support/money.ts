// Looking into the ledger and moving its clock hands: what the API does not show.
import { type Kysely, sql } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'

/** Every way the ledger could contradict itself; a healthy one has none. */
export async function ledgerViolations(database: Kysely<Database> = db()): Promise<unknown[]> {
  const { rows } = await sql`
    select 'lot <> journal' as violation, l.id::text as what from ledger_lot l left join lateral (
        select
          coalesce(sum(case when op in ('grant', 'release', 'restore', 'unrepay') then amount
            when op in ('reserve', 'lapse', 'clawback', 'repay') then -amount else 0 end), 0) as available,
          coalesce(sum(case op when 'reserve' then amount when 'spend' then -amount when 'release' then -amount else 0 end), 0) as held,
          coalesce(sum(amount) filter (where op = 'spend'), 0) as spent,
          coalesce(sum(case when op in ('lapse', 'clawback', 'repay') then amount
            when op in ('restore', 'unrepay') then -amount else 0 end), 0) as gone
        from ledger_entry e where e.lot_id = l.id) j on true
      where (l.available, l.held, l.spent, l.gone) is distinct from (j.available, j.held, j.spent, j.gone)
    union all
    select 'debt <> journal', a.user_id::text from ledger_account a left join lateral (
        select coalesce(sum(case when op in ('debt', 'unrepay') then amount
          when op in ('repay', 'forgive') then -amount else 0 end), 0) as debt
        from ledger_entry e where e.user_id = a.user_id) j on true
      where a.debt <> j.debt
    union all
    select 'postings <> 0', entry_id::text from ledger_posting group by entry_id having sum(delta) <> 0
    union all
    select 'held <> open holds', l.user_id::text from ledger_lot l left join lateral (
        select coalesce(sum(h.amount), 0) as amount from ledger_hold h where h.user_id = l.user_id and h.state = 'pending') q on true
      group by l.user_id, q.amount having sum(l.held) <> q.amount
    union all
    select 'hold out of balance', h.id from ledger_hold h left join lateral (
        select coalesce(sum(amount) filter (where op = 'reserve'), 0) as reserved,
               coalesce(sum(amount) filter (where op = 'spend'), 0) as spent,
               coalesce(sum(amount) filter (where op = 'release'), 0) as released
        from ledger_entry e where e.hold_id = h.id) j on true
      where j.reserved <> h.amount
        or (h.state = 'pending' and (j.spent <> 0 or j.released <> 0))
        or (h.state <> 'pending' and (j.spent <> h.spent or j.released <> h.amount - h.spent))
    union all
    select 'not one grant per lot', l.id::text from ledger_lot l
      left join ledger_entry e on e.lot_id = l.id and e.op = 'grant'
      group by l.id, l.granted having count(e.id) <> 1 or min(e.amount) <> l.granted
    union all
    select 'units mixed in a hold', e.hold_id from ledger_entry e join ledger_lot l on l.id = e.lot_id
      where e.hold_id is not null group by e.hold_id having count(distinct l.unit) > 1
    union all
    select 'taken back <> 0 .. granted, part by part', t.lot_id::text from (${takenBack}) t
      where least(t.clawed, t.waived, t.owed, t.repaid) < 0 or t.clawed + t.waived + t.owed > t.granted or t.waived > t.lapsed
    union all
    select 'taken back <> order', o.id from billing_orders o
      join ledger_lot l on l.source = 'polar:order:' || o.id join (${takenBack}) t on t.lot_id = l.id
      where (l.granted, t.clawed + t.waived + t.owed, l.user_id)
        is distinct from (o.tokens_granted, o.tokens_taken_back, o.user_id)
    union all
    select 'owed while there is something to repay with', a.user_id::text from ledger_account a
      where a.debt > 0 and exists (select 1 from ledger_lot l where l.user_id = a.user_id and l.kind in ('pack', 'promo')
        and l.available > 0 and (l.expires_at is null or l.expires_at > now()))
    union all
    select 'subscription <> plan lots', s.user_id::text from subscriptions s
      left join ledger_lot l on l.user_id = s.user_id and l.kind = 'plan' and l.id = any(s.plan_lot_ids)
      group by s.id having (sum(l.granted), sum(l.spent), count(*))
        is distinct from (s.token_limit, s.tokens_used, cardinality(s.plan_lot_ids))
    union all
    select 'awake <> in force', l.id::text from ledger_lot l join subscriptions s on s.user_id = l.user_id
      where l.kind = 'plan' and (l.available > 0 or l.held > 0) and l.dormant = (l.id = any(s.plan_lot_ids))
    union all
    select 'charged without usage row', h.user_id::text from ledger_hold h
      where h.state = 'settled' and exists (select 1 from usage_logs u where u.user_id = h.user_id)
      group by h.user_id having
        coalesce(sum(h.spent) filter (where h.unit = 'token'), 0)
          <> (select coalesce(sum(u.tokens_used), 0) from usage_logs u where u.user_id = h.user_id)
    union all
    select 'spent by a key <> its holds', k.id::text from api_keys k left join lateral (
        select coalesce(sum(case h.state when 'pending' then h.amount else h.spent end), 0) as tokens
        from ledger_hold h where h.api_key_id = k.id and h.unit = 'token') q on true
      where k.tokens_used <> q.tokens
  `.execute(database)
  return rows
}

/** What the journal says was taken back of each lot, and of what; and what of it repaid debts. */
const takenBack = sql`
  select e.lot_id, max(l.granted) as granted,
    coalesce(sum(case op when 'clawback' then amount when 'restore' then -amount end), 0) as clawed,
    coalesce(sum(case op when 'waive' then amount when 'unwaive' then -amount end), 0) as waived,
    coalesce(sum(case op when 'debt' then amount when 'forgive' then -amount end), 0) as owed,
    coalesce(sum(case op when 'repay' then amount when 'unrepay' then -amount end), 0) as repaid,
    coalesce(sum(amount) filter (where op = 'lapse'), 0) as lapsed
  from ledger_entry e join ledger_lot l on l.id = e.lot_id group by e.lot_id`

/** Leaves a user exactly this much: no trial generation, and a balance of `tokens` from an admin's grant. */
export async function leaveTokens(userId: string, tokens: number): Promise<void> {
  await sql`
    insert into ledger_entry (user_id, op, amount, lot_id)
      select user_id, 'lapse', available, id from ledger_lot where user_id = ${userId} and available > 0
  `.execute(db())
  if (tokens > 0)
    await sql`select ledger_credit(${userId}, 'promo', ${tokens}, ${`test:${crypto.randomUUID()}`}, null)`.execute(db())
}

export async function suspend(userId: string): Promise<void> {
  await db().updateTable('users').set({ status: 'suspended' }).where('id', '=', userId).execute()
}

export async function usageRows(userId: string) {
  return await db().selectFrom('usage_logs').selectAll().where('user_id', '=', userId).orderBy('timestamp').execute()
}
