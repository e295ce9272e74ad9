// What speaks for looking at an account twice: facts, no verdict.
import { type Kysely, sql } from 'kysely'
import type { Database, TrialWithheld } from '../../db/schema.ts'
import { hashSubject } from '../auth/throttle.ts'

export type RiskSignal =
  | { signal: 'trial_withheld'; why: TrialWithheld }
  /** Accounts that were made from the same network, this one included. */
  | { signal: 'shared_network'; accounts: number }
  | { signal: 'failed_sign_ins'; failures: number }
  | { signal: 'debt'; tokens: number }
  | { signal: 'refunds'; orders: number; cents: number }
  | { signal: 'disputes'; disputes: number; lost: number }
  | { signal: 'email_unverified' }

/** Nothing for a user who is not there. */
export async function riskOf(db: Kysely<Database>, userId: string): Promise<RiskSignal[]> {
  const facts = await factsOf(db, userId)
  if (!facts) return []
  const failures = await failuresOf(db, facts.email)
  const signals: RiskSignal[] = []
  if (facts.trial_withheld !== null) signals.push({ signal: 'trial_withheld', why: facts.trial_withheld })
  if (facts.accounts > 1) signals.push({ signal: 'shared_network', accounts: facts.accounts })
  if (failures > 0) signals.push({ signal: 'failed_sign_ins', failures })
  if (facts.debt > 0) signals.push({ signal: 'debt', tokens: facts.debt })
  if (facts.refunded > 0) signals.push({ signal: 'refunds', orders: facts.refunded, cents: facts.refunded_cents })
  if (facts.disputes > 0) signals.push({ signal: 'disputes', disputes: facts.disputes, lost: facts.lost })
  if (!facts.verified) signals.push({ signal: 'email_unverified' })
  return signals
}

interface Facts {
  email: string
  verified: boolean
  trial_withheld: TrialWithheld | null
  accounts: number
  debt: number
  refunded: number
  refunded_cents: number
  disputes: number
  lost: number
}

async function factsOf(db: Kysely<Database>, userId: string): Promise<Facts | undefined> {
  const { rows } = await sql<Facts>`
    select u.email, u.email_verified_at is not null as verified, u.trial_withheld, a.debt, o.refunded, o.refunded_cents,
        d.disputes, d.lost,
        (select count(*) from users other where other.signup_network = u.signup_network) as accounts
      from users u join ledger_account a on a.user_id = u.id
        cross join lateral (
          select count(*) filter (where refunded_cents > 0) as refunded, coalesce(sum(refunded_cents), 0)::bigint as refunded_cents
            from billing_orders where user_id = u.id
        ) o
        cross join lateral (
          select count(*) as disputes, count(*) filter (where x.status = 'lost') as lost
            from billing_disputes x join billing_orders y on y.id = x.order_id where y.user_id = u.id
        ) d
      where u.id = ${userId}
  `.execute(db)
  return rows[0]
}

/** How often signing in with the address failed since it last worked. */
async function failuresOf(db: Kysely<Database>, email: string): Promise<number> {
  const row = await db
    .selectFrom('sign_in_failures')
    .select('failures')
    .where('email_hash', '=', hashSubject(email))
    .executeTakeFirst()
  return row?.failures ?? 0
}
