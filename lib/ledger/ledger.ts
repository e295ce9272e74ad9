// The token ledger: grants, holds, and what they settle to. Each operation is one round trip, exact under any concurrency.
import { type Kysely, sql } from 'kysely'
import type { Database, LotKind } from '../../db/schema.ts'
import { config } from '../config.ts'

/** What a user can spend now. */
export interface Balance {
  trialGenerations: number
  tokens: number
}

export type Reservation =
  /** `trial`: one trial generation is held instead of tokens. */
  | { outcome: 'held'; trial: boolean; balance: Balance }
  | { outcome: 'insufficient'; balance: Balance }
  /** The API key that asks would spend more than it may, where the balance would do. */
  | { outcome: 'over_budget'; balance: Balance; tokenBudget: number; tokensUsed: number }
  /** The API key that asks was revoked, or has expired. */
  | { outcome: 'key_ended' }
  /** The account may not act: what account_state said of it. */
  | { outcome: 'refused'; state: string }

/** Which run of which tool a hold paid for; becomes its usage_logs row. */
export interface UsageRecord {
  userId: string
  toolId: string
  requestId: string
  status: 'success' | 'error' | 'timeout'
  durationMs: number
  provider: string | undefined
  model: string | undefined
  costMicroUsd: number
  errorCode: string | undefined
}

export interface Closing {
  /** False when the hold had been closed another way: nothing was moved, and no usage row written. */
  closed: boolean
  chargedTokens: number
  trial: boolean
  balance: Balance
}

/**
 * Holds a price: a trial generation if one is left, else tokens, soonest-expiring first. Begins the plan's period and
 * gives back orphaned holds first where needed. The hold returns by itself after `ttlMs`. With `keyId`, tokens are also taken
 * from the budget of that API key, and come back to it with the hold. Throws if `holdId` was used before.
 */
export async function reserve(
  db: Kysely<Database>,
  hold: {
    id: string
    userId: string
    sessionId: string | undefined
    keyId?: string | undefined
    tokens: number
    ttlMs: number
  },
): Promise<Reservation> {
  const price = sql`${hold.id}, ${hold.tokens}, make_interval(secs => ${hold.ttlMs / 1000}), ${allowances()}`
  const { rows } = await sql<{ status: string; unit: string } & BalanceColumns & KeyColumns>`
    select * from ${
      hold.keyId === undefined
        ? sql`ledger_reserve(${hold.userId}, ${hold.sessionId ?? null}, ${price})`
        : sql`api_key_reserve(${hold.keyId}, ${hold.userId}, ${price})`
    }
  `.execute(db)
  const row = only(rows)
  switch (row.status) {
    case 'ok':
      return { outcome: 'held', trial: row.unit === 'generation', balance: balanceOf(row) }
    case 'insufficient':
      return { outcome: 'insufficient', balance: balanceOf(row) }
    case 'key_budget':
      return {
        outcome: 'over_budget',
        balance: balanceOf(row),
        tokenBudget: row.token_budget,
        tokensUsed: row.tokens_used,
      }
    case 'key_ended':
      return { outcome: 'key_ended' }
    case 'replay':
    case 'conflict':
      throw new Error(`Hold ${hold.id} exists already.`)
    default:
      return { outcome: 'refused', state: row.status }
  }
}

/** Charges a hold and writes its usage row; with `claimId`, also the receipt that keeps the key from ever running again. One statement. */
export async function settle(
  db: Kysely<Database>,
  holdId: string,
  usage: UsageRecord,
  receipt?: { claimId: string; facts: Record<string, unknown> },
): Promise<Closing> {
  const keepReceipt = receipt
    ? sql`, receipt as (
        update idempotency_keys set receipt = ${JSON.stringify(receipt.facts)}::jsonb
          where id = ${receipt.claimId} and (select status from closed) = 'ok'
      )`
    : sql``
  return await close(db, holdId, 'settled', usage, keepReceipt)
}

/** Gives a hold back whole and writes its usage row, in one statement; a run whose hold was taken from it is on record too. */
export async function release(db: Kysely<Database>, holdId: string, usage: UsageRecord): Promise<Closing> {
  return await close(db, holdId, 'voided', usage, sql``)
}

async function close(
  db: Kysely<Database>,
  holdId: string,
  state: 'settled' | 'voided',
  usage: UsageRecord,
  more: ReturnType<typeof sql>,
): Promise<Closing> {
  const { rows } = await sql<{ status: string; unit: string; spent: number } & BalanceColumns>`
    with closed as (select * from ledger_close(${holdId}, null, ${state})),
    logged as (
      insert into usage_logs (user_id, tool_id, tokens_used, request_id, response_status, duration_ms, trial, provider, model,
          cost_micro_usd, error_code, api_key_id)
        select ${usage.userId}, ${usage.toolId}, case when status = 'ok' and unit = 'token' then spent else 0 end,
          ${usage.requestId}, ${usage.status}, ${usage.durationMs}, unit = 'generation', ${usage.provider ?? null},
          ${usage.model ?? null}, ${usage.costMicroUsd}, ${usage.errorCode ?? null},
          (select h.api_key_id from ledger_hold h where h.id = ${holdId})
        from closed where status = 'ok' or (status = 'conflict' and ${state} = 'voided')
    )${more}
    select * from closed
  `.execute(db)
  const row = only(rows)
  const trial = row.unit === 'generation'
  return {
    closed: row.status === 'ok' || row.status === 'replay',
    chargedTokens: trial ? 0 : row.spent,
    trial,
    balance: balanceOf(row),
  }
}

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

/** Plan → tokens per period, as the SQL functions take it. */
function allowances(): string {
  const plans = Object.entries(config().plans)
  return JSON.stringify(Object.fromEntries(plans.map(([name, { monthlyTokens }]) => [name, monthlyTokens])))
}

interface BalanceColumns {
  trial_generations: number
  tokens: number
}

interface KeyColumns {
  token_budget: number
  tokens_used: number
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

function balanceOf({ trial_generations, tokens }: BalanceColumns): Balance {
  return { trialGenerations: trial_generations, tokens }
}

function only<T>(rows: T[]): T {
  const [row] = rows
  if (row === undefined) throw new Error('The ledger answered nothing.')
  return row
}
