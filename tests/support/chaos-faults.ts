// Faults of our own while webhooks are handled, ordered per event and attempt: triggers in a test's database raise them.
import { sql } from 'kysely'
import { db } from '../../db/client.ts'
import type { Chance } from './chaos-chance.ts'

/** Where the transaction of an event breaks, at the latest as it ends. 'terminated' loses the connection there. */
const PLACES = [
  'billing_orders',
  'billing_subscriptions',
  'ledger_entry',
  'subscriptions',
  'end',
  'commit',
  'terminated',
] as const
type Place = (typeof PLACES)[number]

export interface Fault {
  eventId: string
  /** Which attempt; 0 for every one. */
  attempt: number
  place: Place
  /** Does not break there but stands still for so long. */
  pauseMs?: number
}

/** Attempts are counted by the inbox itself, which keeps failed events. */
export async function installFaults(): Promise<void> {
  await sql`create schema chaos`.execute(db())
  await sql`
    create table chaos.fault (
      event_id text, attempt int, place text not null, pause_ms int not null, primary key (event_id, attempt)
    )`.execute(db())
  await sql`
    create function chaos.strike() returns trigger language plpgsql as $$
    declare
      v_fault text[] := string_to_array(nullif(current_setting('chaos.fault', true), ''), ' ');
    begin
      if v_fault is null or not (v_fault[1] = tg_argv[0] or tg_argv[0] = 'end' and v_fault[1] <> 'commit') then
        return null;
      end if;
      perform set_config('chaos.fault', '', true);
      if v_fault[2] <> '0' then
        perform pg_sleep(v_fault[2]::int / 1000.0);
        return null;
      end if;
      if v_fault[1] = 'terminated' then
        perform pg_terminate_backend(pg_backend_pid()), pg_sleep(10);
      end if;
      raise exception 'ordered failure at %', v_fault[1];
    end $$`.execute(db())
  await sql`
    create function chaos.arm() returns trigger language plpgsql as $$
    begin
      perform set_config('chaos.fault', coalesce((
        select place || ' ' || pause_ms from chaos.fault where event_id = new.id and attempt in (0, new.attempts)
          order by attempt desc limit 1), ''), true);
      return null;
    end $$`.execute(db())
  await sql`
    create trigger chaos_arm after insert or update on webhook_events for each row
      when (new.outcome = 'failed') execute function chaos.arm()`.execute(db())
  await sql`
    create trigger chaos_end after update on webhook_events for each row
      when (new.outcome <> 'failed') execute function chaos.strike('end')`.execute(db())
  await sql`
    create constraint trigger chaos_commit after update on webhook_events deferrable initially deferred for each row
      when (new.outcome <> 'failed') execute function chaos.strike('commit')`.execute(db())
  for (const table of ['billing_orders', 'billing_subscriptions', 'ledger_entry', 'subscriptions']) {
    await sql`
      create trigger chaos_strike after insert or update on ${sql.table(table)} for each row
        execute function chaos.strike(${sql.lit(table)})`.execute(db())
  }
}

export async function orderFaults(faults: Fault[]): Promise<void> {
  const rows = faults.map(({ eventId, attempt, place, pauseMs = 0 }) => ({ eventId, attempt, place, pauseMs }))
  await sql`
    insert into chaos.fault select "eventId", attempt, place, "pauseMs"
      from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
        as fault ("eventId" text, attempt int, place text, "pauseMs" int)`.execute(db())
}

/** Without an event: of all events. */
export async function liftFaults(eventId?: string): Promise<void> {
  await sql`delete from chaos.fault where event_id = coalesce(${eventId ?? null}, event_id)`.execute(db())
}

export function anyPlace(chance: Chance): Place {
  return chance.one(PLACES)
}
