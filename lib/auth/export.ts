// Everything that is held about a user as one JSON document, read from the database in pages and written as it comes.
import { type Kysely, type RawBuilder, sql } from 'kysely'
import type { Database } from '../../db/schema.ts'
import { statementOf } from '../ledger/ledger.ts'
import { describeError, log } from '../log.ts'
import { microsOf } from '../paging.ts'

/** Rows of one section; the newest, when there are more. */
const ROWS_MAX = 100_000
const PAGE_ROWS = 1_000

/**
 * The document as a stream, which holds one page of rows at a time. `cut` at its end names the sections that have more rows than
 * it holds. No hashes, secrets or keys are in it. Throws before the first byte when the user is not there.
 */
export async function exportOf(db: Kysely<Database>, userId: string): Promise<ReadableStream<Uint8Array>> {
  return ReadableStream.from(inBytes(documentOf(db, userId, await headOf(db, userId))))
}

async function* inBytes(text: AsyncGenerator<string, void>): AsyncGenerator<Uint8Array, void> {
  const encoder = new TextEncoder()
  try {
    for await (const piece of text) yield encoder.encode(piece)
  } catch (error) {
    // Too late for another status: what arrives breaks off, and is no JSON.
    log('error', 'export_failed', { error: describeError(error) })
    throw error
  }
}

async function* documentOf(db: Kysely<Database>, userId: string, head: object): AsyncGenerator<string, void> {
  yield JSON.stringify(head).slice(0, -1)
  const cut: string[] = []
  for (const [name, section] of Object.entries(SECTIONS)) {
    yield `,${JSON.stringify(name)}:[`
    let rows = 0
    let after: Place | undefined
    do {
      const page = await pageOf(db, section, { userId, after, limit: Math.min(PAGE_ROWS, ROWS_MAX - rows) })
      if (page.entries.length > 0) yield (rows > 0 ? ',' : '') + page.entries.join()
      rows += page.entries.length
      after = page.next
    } while (after !== undefined && rows < ROWS_MAX)
    if (after !== undefined) cut.push(name)
    yield ']'
  }
  yield `,"cut":${JSON.stringify(cut)}}`
}

/** What there is one of. */
async function headOf(db: Kysely<Database>, userId: string) {
  const { rows } = await sql<{ head: Record<string, unknown> }>`
    select jsonb_build_object('exportedAt', ${iso(sql`now()`)},
      'profile', jsonb_build_object('id', u.id, 'name', u.name, 'email', u.email, 'role', u.role, 'status', u.status,
        'emailVerifiedAt', ${iso(sql`u.email_verified_at`)}, 'clerkId', u.clerk_id, 'trialWithheld', u.trial_withheld,
        'createdAt', ${iso(sql`u.created_at`)}, 'updatedAt', ${iso(sql`u.updated_at`)}),
      'preferences', u.preferences,
      'mfa', jsonb_build_object('enrolledAt', ${iso(sql`f.confirmed_at`)},
        'recoveryCodesLeft', (select count(*) from mfa_recovery_codes c where c.user_id = u.id and c.used_at is null)),
      'planGift', (select jsonb_build_object('plan', g.plan, 'grantedAt', ${iso(sql`g.granted_at`)})
        from plan_gifts g where g.user_id = u.id)) as head
      from users u left join mfa_factors f on f.user_id = u.id where u.id = ${userId}
  `.execute(db)
  const [row] = rows
  if (!row) throw new Error('The user to export is gone.')
  return { ...row.head, plan: await statementOf(db, userId) }
}

interface Place {
  micros: number
  key: string
}

interface Section {
  from(userId: string): RawBuilder<unknown>
  at: RawBuilder<unknown>
  key: RawBuilder<unknown>
  keyType: 'uuid' | 'bigint' | 'text'
  entry: RawBuilder<unknown>
}

/** One page, the newest first; `next` is where the rest begins, if there is one. */
async function pageOf(
  db: Kysely<Database>,
  { from, at, key, keyType, entry }: Section,
  { userId, after, limit }: { userId: string; after: Place | undefined; limit: number },
): Promise<{ entries: string[]; next: Place | undefined }> {
  const rest = after
    ? sql`and (${at}, ${key}) < (timestamptz 'epoch' + ${after.micros}::bigint * interval '1 microsecond',
        ${after.key}::${sql.raw(keyType)})`
    : sql``
  const { rows } = await sql<Place & { entry: string }>`
    select ${microsOf(at)} as micros, (${key})::text as key, (${entry})::text as entry
      from ${from(userId)} ${rest} order by ${at} desc, ${key} desc limit ${limit + 1}
  `.execute(db)
  const shown = rows.slice(0, limit)
  return { entries: shown.map((row) => row.entry), next: rows.length > limit ? shown.at(-1) : undefined }
}

const OWN_ACT = sql`coalesce(a.actor_id = u.id, false)`

const SECTIONS: Record<string, Section> = {
  sessions: {
    from: (userId) => sql`refresh_tokens t where t.user_id = ${userId}`,
    at: sql`t.created_at`,
    key: sql`t.id`,
    keyType: 'uuid',
    entry: sql`jsonb_build_object('sessionId', t.family_id, 'at', ${iso(sql`t.created_at`)}, 'ip', t.ip,
      'userAgent', t.user_agent, 'secondFactor', t.mfa, 'expiresAt', ${iso(sql`t.expires_at`)},
      'endedAt', ${iso(sql`t.revoked_at`)}, 'endedBy', t.revoked_reason)`,
  },
  apiKeys: {
    from: (userId) => sql`api_keys k where k.user_id = ${userId}`,
    at: sql`k.created_at`,
    key: sql`k.id`,
    keyType: 'uuid',
    entry: sql`jsonb_build_object('id', k.id, 'name', k.name, 'keyPrefix', k.key_prefix, 'scopes', k.scopes,
      'active', k.active, 'createdAt', ${iso(sql`k.created_at`)}, 'lastUsedAt', ${iso(sql`k.last_used_at`)},
      'expiresAt', ${iso(sql`k.expires_at`)}, 'revokedAt', ${iso(sql`k.revoked_at`)}, 'revokedReason', k.revoked_reason,
      'tokenBudget', k.token_budget, 'tokensUsed', k.tokens_used, 'requestsPerMinute', k.requests_per_minute)`,
  },
  mailedTokens: {
    from: (userId) => sql`email_tokens m where m.user_id = ${userId}`,
    at: sql`m.created_at`,
    key: sql`m.token_hash`,
    keyType: 'text',
    entry: sql`jsonb_build_object('purpose', m.purpose, 'email', m.email, 'createdAt', ${iso(sql`m.created_at`)},
      'expiresAt', ${iso(sql`m.expires_at`)})`,
  },
  keptRequests: {
    from: (userId) => sql`idempotency_keys i where i.user_id = ${userId}`,
    at: sql`i.created_at`,
    key: sql`i.id`,
    keyType: 'uuid',
    entry: sql`jsonb_build_object('request', i.scope, 'idempotencyKey', i.key, 'status', i.status,
      'at', ${iso(sql`i.created_at`)}, 'keptUntil', ${iso(sql`i.expires_at`)})`,
  },
  keptResults: {
    from: (userId) => sql`result_cache c where c.user_id = ${userId}`,
    at: sql`c.made_at`,
    key: sql`c.key`,
    keyType: 'text',
    entry: sql`jsonb_build_object('at', ${iso(sql`c.made_at`)}, 'type', c.result_type, 'bytes', length(c.result),
      'provider', c.provider, 'model', c.model, 'keptUntil', ${iso(sql`c.expires_at`)})`,
  },
  usage: {
    from: (userId) => sql`usage_logs u join tools t on t.id = u.tool_id where u.user_id = ${userId}`,
    at: sql`u.timestamp`,
    key: sql`u.id`,
    keyType: 'uuid',
    entry: sql`jsonb_build_object('id', u.id, 'at', ${iso(sql`u.timestamp`)}, 'tool', t.name, 'status', u.response_status,
      'tokens', u.tokens_used, 'trial', u.trial, 'provider', u.provider, 'model', u.model, 'durationMs', u.duration_ms,
      'errorCode', u.error_code, 'apiKeyId', u.api_key_id, 'requestId', u.request_id)`,
  },
  // The results themselves are at /api/jobs/<id>, while they are kept.
  jobs: {
    from: (userId) => sql`jobs j where j.user_id = ${userId}`,
    at: sql`j.created_at`,
    key: sql`j.id`,
    keyType: 'uuid',
    entry: sql`jsonb_build_object('id', j.id, 'at', ${iso(sql`j.created_at`)}, 'tool', j.tool, 'status', j.status,
      'provider', j.provider, 'options', j.options, 'inputFormat', j.input_format, 'inputText', j.input_text,
      'attempts', j.attempts, 'startedAt', ${iso(sql`j.started_at`)}, 'finishedAt', ${iso(sql`j.finished_at`)},
      'resultType', j.result_type, 'resultUrl', j.result_url, 'facts', j.facts, 'error', j.error,
      'keptUntil', ${iso(sql`j.expires_at`)}, 'requestId', j.request_id)`,
  },
  grants: {
    from: (userId) => sql`ledger_lot l where l.user_id = ${userId}`,
    at: sql`l.created_at`,
    key: sql`l.id`,
    keyType: 'bigint',
    entry: sql`jsonb_build_object('id', l.id, 'at', ${iso(sql`l.created_at`)}, 'kind', l.kind, 'unit', l.unit,
      'granted', l.granted, 'available', l.available, 'held', l.held, 'spent', l.spent, 'gone', l.gone,
      'expiresAt', ${iso(sql`l.expires_at`)})`,
  },
  ledger: {
    from: (userId) => sql`ledger_entry e where e.user_id = ${userId}`,
    at: sql`e.at`,
    key: sql`e.id`,
    keyType: 'bigint',
    entry: sql`jsonb_build_object('id', e.id, 'at', ${iso(sql`e.at`)}, 'op', e.op, 'amount', e.amount, 'grantId', e.lot_id,
      'holdId', e.hold_id)`,
  },
  orders: {
    from: (userId) => sql`billing_orders o where o.user_id = ${userId}`,
    at: sql`o.ordered_at`,
    key: sql`o.id`,
    keyType: 'text',
    entry: sql`jsonb_build_object('id', o.id, 'at', ${iso(sql`o.ordered_at`)}, 'description', o.description,
      'kind', o.kind, 'plan', o.plan, 'status', o.status, 'paid', o.paid, 'amountCents', o.net_cents, 'taxCents', o.tax_cents,
      'refundedCents', o.refunded_cents, 'currency', o.currency, 'disputeLost', o.dispute_lost, 'tokens', o.tokens_granted,
      'tokensTakenBack', o.tokens_taken_back, 'invoiceNumber', o.invoice_number, 'customerId', o.customer_id,
      'checkoutId', o.checkout_id, 'subscriptionId', o.subscription_id)`,
  },
  refunds: {
    from: (userId) => sql`billing_refunds r join billing_orders o on o.id = r.order_id where o.user_id = ${userId}`,
    at: sql`r.refunded_at`,
    key: sql`r.id`,
    keyType: 'text',
    entry: sql`jsonb_build_object('id', r.id, 'at', ${iso(sql`r.refunded_at`)}, 'orderId', r.order_id,
      'amountCents', r.amount_cents, 'currency', r.currency, 'status', r.status, 'reason', r.reason)`,
  },
  disputes: {
    from: (userId) => sql`billing_disputes d join billing_orders o on o.id = d.order_id where o.user_id = ${userId}`,
    at: sql`d.disputed_at`,
    key: sql`d.id`,
    keyType: 'text',
    entry: sql`jsonb_build_object('id', d.id, 'at', ${iso(sql`d.disputed_at`)}, 'orderId', d.order_id,
      'amountCents', d.amount_cents, 'status', d.status)`,
  },
  subscriptions: {
    from: (userId) => sql`billing_subscriptions s where s.user_id = ${userId}`,
    at: sql`s.modified_at`,
    key: sql`s.id`,
    keyType: 'text',
    entry: sql`jsonb_build_object('id', s.id, 'plan', s.plan, 'status', s.status, 'cancelled', s.cancel_at_period_end,
      'periodStart', ${iso(sql`s.period_start`)}, 'periodEnd', ${iso(sql`s.period_end`)}, 'endsAt', ${iso(sql`s.ends_at`)},
      'pendingPlan', s.pending_plan, 'customerId', s.customer_id, 'changedAt', ${iso(sql`s.modified_at`)})`,
  },
  // Where somebody else acted, from where and with what they did is theirs.
  audit: {
    from: (userId) => sql`audit_log a join users u on u.id = ${userId}
      where (a.actor_id = u.id or (a.target_type = 'user' and a.target_id = u.id::text))`,
    at: sql`a.at`,
    key: sql`a.id`,
    keyType: 'bigint',
    entry: sql`jsonb_build_object('at', ${iso(sql`a.at`)}, 'action', a.action, 'by', a.actor_type, 'own', ${OWN_ACT},
      'target', a.target_type, 'targetId', a.target_id, 'reason', a.reason, 'before', a.before, 'after', a.after,
      'details', a.details, 'ip', case when ${OWN_ACT} then a.ip end, 'userAgent', case when ${OWN_ACT} then a.user_agent end,
      'requestId', a.request_id)`,
  },
}

function iso(time: RawBuilder<unknown>) {
  return sql`to_char(${time} at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`
}
