// The token ledger: what is granted, taken back, and left. Each operation is one round trip, exact under any concurrency.
import { type Kysely, sql } from 'kysely'
import type { Database, LotKind } from '../../db/schema.ts'
import { config } from '../config.ts'
import { allowances, type Balance, type BalanceColumns, balanceOf, only } from './columns.ts'

/** Opens a new user's account inside the transaction that makes the user: the free plan, and the trial once per `person`; without one, none. */
export async function openAccount(db: Kysely<Database>, userId: string, person: string | undefined): Promise<void> {
  const generations = person === undefined ? 0 : config().trial.generations
  await sql`select ledger_open(${userId}, ${allowances()}, ${generations}, ${trialSource(person ?? '')})`.execute(db)
}

/** Gives the trial to an account that was opened without it, once per `person`. */
export async function giveTrial(db: Kysely<Database>, userId: string, person: string): Promise<void> {
  const { generations } = config().trial
  if (generations === 0) return
  await sql`select ledger_credit(${userId}, 'trial', ${generations}, ${trialSource(person)}, null)`.execute(db)
}

/** The source of a person's trial, which stays in the ledger for ever. */
export function trialSource(person: string): string {
  return `trial:${person}`
}

/**
 * Grants tokens once per `source`. 'replay' when this very grant stands already.
 * Throws when the source was used for another grant.
 */
export async function grant(
  db: Kysely<Database>,
  lot: { userId: string; kind: Exclude<LotKind, 'trial'>; tokens: number; source: string; expiresAt?: Date },
): Promise<'granted' | 'replay'> {
  const { rows } = await sql<{ status: string }>`
    select * from ledger_credit(${lot.userId}, ${lot.kind}, ${lot.tokens}, ${lot.source}, ${lot.expiresAt ?? null}::timestamptz)
  `.execute(db)
  const { status } = only(rows)
  if (status === 'conflict') throw new Error(`Grant ${lot.source} was made before with other terms.`)
  return status === 'ok' ? 'granted' : 'replay'
}

/**
 * Brings what was taken back of a grant to `tokens`, whatever was taken before: a larger refund takes more, one that failed gives
 * back. What was used already becomes debt. False when there is no such grant.
 */
export async function takeBack(
  db: Kysely<Database>,
  { source, tokens }: { source: string; tokens: number },
): Promise<boolean> {
  const { rows } = await sql<{
    status: 'ok' | 'unknown'
  }>`select * from ledger_take_back(${source}, ${tokens})`.execute(db)
  return only(rows).status === 'ok'
}

/**
 * Takes back tokens that were given and not bought, as many as are left and no more; returns how many. Once per `ref`, which
 * answers again what was taken.
 */
export async function revoke(
  db: Kysely<Database>,
  { userId, tokens, ref }: { userId: string; tokens: number; ref: string },
): Promise<{ outcome: 'taken' | 'replay'; tokens: number }> {
  const { rows } = await sql<{ status: 'ok' | 'replay' | 'unknown'; taken: number }>`
    select * from ledger_revoke(${userId}, ${tokens}, ${ref})
  `.execute(db)
  const { status, taken } = only(rows)
  if (status === 'unknown') throw new Error(`User ${userId} has no account.`)
  return { outcome: status === 'ok' ? 'taken' : 'replay', tokens: taken }
}

/** Puts the plan in force that the user's orders and subscriptions entitle to now. */
export async function refreshPlan(db: Kysely<Database>, userId: string): Promise<void> {
  await sql`select plan_refresh(a.user_id, ${allowances()}) from (
    select user_id from ledger_account where user_id = ${userId} for no key update
  ) a`.execute(db)
}

export interface Statement {
  plan: string
  status: string
  tokenLimit: number
  tokensUsed: number
  periodStart: Date
  periodEnd: Date
  expiresAt: Date | null
  planTokens: number
  purchasedTokens: number
  reservedTokens: number
  debtTokens: number
  balance: Balance
}

/** The account as it stands now, brought up to date first: period begun, orphaned holds given back. */
export async function statementOf(db: Kysely<Database>, userId: string): Promise<Statement> {
  const { rows } = await sql<StatementColumns>`select * from ledger_status(${userId}, ${allowances()})`.execute(db)
  const row = only(rows)
  return {
    plan: row.plan,
    status: row.status,
    tokenLimit: row.token_limit,
    tokensUsed: row.tokens_used,
    periodStart: row.period_start,
    periodEnd: row.period_end,
    expiresAt: row.expires_at,
    planTokens: row.plan_tokens,
    purchasedTokens: row.purchased_tokens,
    reservedTokens: row.reserved_tokens,
    debtTokens: row.debt,
    balance: balanceOf(row),
  }
}

/** Gives back orphaned holds, lapses expired lots and ends plans whose time is over, up to `limit` of each; may run in several places at once. */
export async function sweepLedger(
  db: Kysely<Database>,
  limit: number,
): Promise<{ expired: number; lapsed: number; plans: number }> {
  const { rows } = await sql<{ expired: number; lapsed: number; plans: number }>`
    select * from ledger_sweep(${limit}, ${allowances()})
  `.execute(db)
  return only(rows)
}

interface StatementColumns extends BalanceColumns {
  plan: string
  status: string
  token_limit: number
  tokens_used: number
  period_start: Date
  period_end: Date
  expires_at: Date | null
  plan_tokens: number
  purchased_tokens: number
  reserved_tokens: number
  debt: number
}
