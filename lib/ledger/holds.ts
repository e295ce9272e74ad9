// Holds: a price is taken out of what a user can spend, then charged or given back. Each is one round trip, exact under any concurrency.
import { type Kysely, sql } from 'kysely'
import type { Database } from '../../db/schema.ts'
import { allowances, type Balance, type BalanceColumns, balanceOf, only } from './columns.ts'

export type Reservation =
  /** `trial`: one trial generation is held instead of tokens. `paid`: the user has bought something that was not refunded. */
  | { outcome: 'held'; trial: boolean; paid: boolean; balance: Balance }
  | { outcome: 'insufficient'; balance: Balance }
  /** The API key that asks would spend more than it may, where the balance would do. */
  | { outcome: 'over_budget'; balance: Balance; tokenBudget: number; tokensUsed: number }
  /** The API key that asks was revoked, or has expired. */
  | { outcome: 'key_ended' }
  /** The account may not act: what account_state said of it. */
  | { outcome: 'refused'; state: string }

/** One call to a provider; becomes a row of provider_calls. */
export interface CallRecord {
  provider: string
  model: string | undefined
  /** 'ok', or what kind of failure it was. */
  outcome: string
  durationMs: number
  costMicroUsd: number
}

/** Which run of which tool a hold paid for; becomes its usage_logs row, and one row of provider_calls per call. */
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
  /** Another provider than the first one asked gave the answer. */
  fallback: boolean
  /** The answer had been kept from before. */
  cached: boolean
  jobId: string | undefined
  /** The user had never paid. */
  freeTier: boolean
  calls: CallRecord[]
}

export interface Closing {
  /** False when the hold had been closed another way: nothing was moved, and no usage row written. */
  closed: boolean
  /** Whether something was taken for it, by this closing or by another one before. */
  charged: boolean
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
  const { rows } = await sql<{ status: string; unit: string; paid: boolean } & BalanceColumns & KeyColumns>`
    select reserved.*, exists (
        select 1 from billing_orders where user_id = ${hold.userId} and paid and refunded_cents < net_cents
      ) as paid
      from ${
        hold.keyId === undefined
          ? sql`ledger_reserve(${hold.userId}, ${hold.sessionId ?? null}, ${price})`
          : sql`api_key_reserve(${hold.keyId}, ${hold.userId}, ${price})`
      } reserved
  `.execute(db)
  const row = only(rows)
  switch (row.status) {
    case 'ok':
      return { outcome: 'held', trial: row.unit === 'generation', paid: row.paid, balance: balanceOf(row) }
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

/** What is put on record of a run that came with an Idempotency-Key, in the statement that charges it. */
export interface Receipt {
  claimId: string
  facts: Record<string, unknown>
}

/**
 * Charges a hold, or `tokens` of it, and writes its usage row; with `receipt`, also what keeps the key from ever running again.
 * One statement.
 */
export async function settle(
  db: Kysely<Database>,
  holdId: string,
  usage: UsageRecord,
  receipt?: Receipt,
  tokens?: number,
): Promise<Closing> {
  const keepReceipt = receipt
    ? sql`, receipt as (
        update idempotency_keys set receipt = ${JSON.stringify(receipt.facts)}::jsonb
          where id = ${receipt.claimId} and (select status from closed) = 'ok'
      )`
    : sql``
  return await close(db, { holdId, state: 'settled', tokens }, usage, keepReceipt)
}

/** Gives a hold back whole and writes its usage row, in one statement; a run whose hold was taken from it is on record too, one that was charged is already. */
export async function release(db: Kysely<Database>, holdId: string, usage: UsageRecord): Promise<Closing> {
  return await close(db, { holdId, state: 'voided', tokens: undefined }, usage, sql``)
}

/**
 * Writes the usage row of a run that cost its user nothing and held nothing, and its receipt, in one statement; nothing unless
 * `state` is 'active', which says whether this caller could have spent: 'key_ended', or what account_state said.
 */
export async function settleFree(
  db: Kysely<Database>,
  { sessionId, keyId }: { sessionId: string | undefined; keyId: string | undefined },
  usage: UsageRecord,
  receipt?: Receipt,
): Promise<{ state: string; closing: Closing }> {
  const keepReceipt = receipt
    ? sql`, receipt as (
        update idempotency_keys set receipt = ${JSON.stringify(receipt.facts)}::jsonb
          where id = ${receipt.claimId} and (select state from caller) = 'active'
      )`
    : sql``
  const { rows } = await sql<{ state: string } & BalanceColumns>`
    with caller as (
      select b.trial_generations, b.tokens, case
          when ${keyId ?? null}::uuid is null or a.state <> 'active' then a.state
          when exists (select 1 from api_keys k where k.id = ${keyId ?? null}::uuid and k.user_id = ${usage.userId}
            and k.active and (k.expires_at is null or k.expires_at > now())) then 'active'
          else 'key_ended' end as state
        from account_state(${usage.userId}, ${sessionId ?? null}) as a (state), ledger_balance(${usage.userId}) b
    ),
    logged as (
      insert into usage_logs (user_id, tool_id, tokens_used, request_id, response_status, duration_ms, trial, provider, model,
          cost_micro_usd, error_code, fallback, cached, job_id, api_key_id)
        select ${usage.userId}, ${usage.toolId}, 0, ${usage.requestId}, ${usage.status}, ${usage.durationMs}, false,
          ${usage.provider ?? null}, ${usage.model ?? null}, ${usage.costMicroUsd}, ${usage.errorCode ?? null},
          ${usage.fallback}, ${usage.cached}, ${usage.jobId ?? null}, ${keyId ?? null}::uuid
        from caller where state = 'active'
    )${keepReceipt}
    select * from caller
  `.execute(db)
  const row = only(rows)
  return {
    state: row.state,
    closing: { closed: true, charged: false, chargedTokens: 0, trial: false, balance: balanceOf(row) },
  }
}

async function close(
  db: Kysely<Database>,
  { holdId, state, tokens }: { holdId: string; state: 'settled' | 'voided'; tokens: number | undefined },
  usage: UsageRecord,
  more: ReturnType<typeof sql>,
): Promise<Closing> {
  const { rows } = await sql<{ status: string; unit: string; spent: number } & BalanceColumns>`
    with closed as (select * from ledger_close(${holdId}, ${tokens ?? null}::bigint, ${state})),
    logged as (
      insert into usage_logs (user_id, tool_id, tokens_used, request_id, response_status, duration_ms, trial, provider, model,
          cost_micro_usd, error_code, fallback, cached, job_id, api_key_id)
        select ${usage.userId}, ${usage.toolId}, case when status = 'ok' and unit = 'token' then spent else 0 end,
          ${usage.requestId}, ${usage.status}, ${usage.durationMs}, unit = 'generation', ${usage.provider ?? null},
          ${usage.model ?? null}, ${usage.costMicroUsd}, ${usage.errorCode ?? null}, ${usage.fallback}, ${usage.cached},
          ${usage.jobId ?? null}, (select h.api_key_id from ledger_hold h where h.id = ${holdId})
        from closed where status = 'ok' or (status = 'conflict' and ${state} = 'voided' and spent = 0)
    ),
    called as (${insertCalls(usage)} where (select status = 'ok' or (status = 'conflict' and ${state} = 'voided' and spent = 0)
      from closed))${more}
    select * from closed
  `.execute(db)
  const row = only(rows)
  const trial = row.unit === 'generation'
  return {
    closed: row.status === 'ok' || row.status === 'replay',
    charged: row.spent > 0,
    chargedTokens: trial ? 0 : row.spent,
    trial,
    balance: balanceOf(row),
  }
}

/** Puts calls on record whose run goes on: a job that is tried again. */
export async function recordCalls(db: Kysely<Database>, usage: CallsOfRun): Promise<void> {
  await sql`${insertCalls(usage)} where true`.execute(db)
}

/**
 * Puts a run on record whose hold others close, or have closed: its calls, and what they cost in a usage row of its own without tokens.
 * One statement.
 */
export async function recordLost(db: Kysely<Database>, holdId: string, usage: UsageRecord): Promise<void> {
  await sql`
    with logged as (
      insert into usage_logs (user_id, tool_id, tokens_used, request_id, response_status, duration_ms, trial, provider, model,
          cost_micro_usd, error_code, fallback, cached, job_id, api_key_id)
        select ${usage.userId}, ${usage.toolId}, 0, ${usage.requestId}, 'error', ${usage.durationMs}, false,
          ${usage.provider ?? null}, ${usage.model ?? null}, ${usage.costMicroUsd}, ${usage.errorCode ?? null},
          ${usage.fallback}, ${usage.cached}, ${usage.jobId ?? null},
          (select h.api_key_id from ledger_hold h where h.id = ${holdId})
        where ${usage.costMicroUsd}::bigint > 0
    )
    ${insertCalls(usage)} where true
  `.execute(db)
}

type CallsOfRun = Pick<UsageRecord, 'requestId' | 'toolId' | 'freeTier' | 'calls'>

function insertCalls({ requestId, toolId, freeTier, calls }: CallsOfRun) {
  return sql`
    insert into provider_calls (request_id, tool_id, free_tier, provider, model, outcome, duration_ms, cost_micro_usd)
      select ${requestId}::uuid, ${toolId}::uuid, ${freeTier}::boolean, c.provider, c.model, c.outcome, c."durationMs", c."costMicroUsd"
        from jsonb_to_recordset(${JSON.stringify(calls)}::jsonb)
          as c (provider text, model text, outcome text, "durationMs" integer, "costMicroUsd" bigint)`
}

interface KeyColumns {
  token_budget: number
  tokens_used: number
}
