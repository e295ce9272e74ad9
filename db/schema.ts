// The tables' row types, as Kysely reads and writes them.
import type { ColumnType, Generated } from 'kysely'

type Timestamp = ColumnType<Date, Date | string, Date | string>
type GeneratedTimestamp = ColumnType<Date, Date | string | undefined, Date | string>
/** Written as JSON text, read as a value. */
type Json<T> = ColumnType<T, string | undefined, string>

export type Role = 'user' | 'admin'
export type UserStatus = 'active' | 'suspended' | 'deleted'
export type Plan = 'free' | 'pro' | 'enterprise'
export type JobStatus = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled'

export interface Database {
  users: {
    id: Generated<string>
    name: string
    email: string
    /** Null for users of Clerk. */
    password_hash: string | null
    role: ColumnType<Role, Role | undefined, Role>
    status: ColumnType<UserStatus, UserStatus | undefined, UserStatus>
    preferences: Json<Record<string, unknown>>
    clerk_id: string | null
    /** Milliseconds, Clerk's own clock. */
    clerk_updated_at: number | null
    clerk_pending: 'ban' | 'unban' | 'delete' | null
    email_verified_at: Timestamp | null
    trial_withheld: TrialWithheld | null
    signup_network: string | null
    deleted_by: string | null
    deleted_at: Timestamp | null
    purge_after: Timestamp | null
    purged_at: Timestamp | null
    created_at: GeneratedTimestamp
    updated_at: GeneratedTimestamp
  }
  clerk_tombstones: {
    clerk_id: string
    deleted_at: GeneratedTimestamp
  }
  trial_networks: {
    network: string
    day: Timestamp
    trials: number
  }
  mfa_factors: {
    user_id: string
    secret: string
    confirmed_at: Timestamp | null
    last_step: Generated<number>
    created_at: GeneratedTimestamp
  }
  mfa_recovery_codes: {
    user_id: string
    code_hash: string
    used_at: Timestamp | null
  }
  email_tokens: {
    token_hash: string
    user_id: string
    purpose: 'verify' | 'change' | 'reset'
    email: string
    expires_at: Timestamp
    created_at: GeneratedTimestamp
  }
  api_keys: {
    id: Generated<string>
    user_id: string
    key_hash: string
    key_prefix: string
    name: string
    active: Generated<boolean>
    scopes: Scope[]
    created_at: GeneratedTimestamp
    last_used_at: Timestamp | null
    expires_at: Timestamp | null
    revoked_at: Timestamp | null
    revoked_reason: 'revoked' | 'suspended' | 'deleted' | null
    rotated_to: string | null
    token_budget: number | null
    tokens_used: Generated<number>
    requests_per_minute: number | null
  }
  subscriptions: {
    id: Generated<string>
    user_id: string
    plan: Plan
    status: Generated<'active' | 'cancelled' | 'expired'>
    token_limit: number
    tokens_used: Generated<number>
    period_anchor: GeneratedTimestamp
    period_start: Timestamp
    period_end: Timestamp
    expires_at: Timestamp | null
    plan_lot_ids: number[]
    stands_until: Timestamp
    created_at: GeneratedTimestamp
    updated_at: GeneratedTimestamp
  }
  plan_gifts: {
    user_id: string
    plan: 'pro' | 'enterprise'
    granted_by: string
    granted_at: GeneratedTimestamp
  }
  tools: {
    id: Generated<string>
    name: string
    description: string
    api_endpoint: string
    kind: Generated<'builtin' | 'http'>
    is_active: Generated<boolean>
    created_at: GeneratedTimestamp
    updated_at: GeneratedTimestamp
  }
  usage_logs: {
    id: Generated<string>
    user_id: string
    tool_id: string
    timestamp: GeneratedTimestamp
    tokens_used: number
    request_id: string
    response_status: 'success' | 'error' | 'timeout'
    duration_ms: number | null
    trial: Generated<boolean>
    provider: string | null
    model: string | null
    cost_micro_usd: Generated<number>
    error_code: string | null
    api_key_id: string | null
    fallback: Generated<boolean>
    cached: Generated<boolean>
    job_id: string | null
  }
  provider_calls: {
    id: Generated<number>
    at: GeneratedTimestamp
    request_id: string
    tool_id: string
    provider: string
    model: string | null
    outcome: string
    duration_ms: number
    cost_micro_usd: Generated<number>
    free_tier: Generated<boolean>
  }
  switches: {
    name: string
    off: boolean
    reason: string
    changed_by: string | null
    changed_at: GeneratedTimestamp
  }
  jobs: {
    id: Generated<string>
    user_id: string
    request_id: string
    status: ColumnType<JobStatus, JobStatus | undefined, JobStatus>
    tool: string
    provider: string | null
    requested_provider: string | null
    options: Json<Record<string, string>>
    input: Uint8Array | null
    input_format: string | null
    input_width: number | null
    input_height: number | null
    input_text: string | null
    free_tier: Generated<boolean>
    hold_id: string
    attempts: Generated<number>
    cost_micro_usd: Generated<number>
    run_after: GeneratedTimestamp
    lease: string | null
    lease_until: Timestamp | null
    result: Uint8Array | null
    result_url: string | null
    result_type: string | null
    facts: Json<Record<string, unknown>> | null
    error: Json<Record<string, unknown>> | null
    created_at: GeneratedTimestamp
    started_at: Timestamp | null
    finished_at: Timestamp | null
    expires_at: Timestamp
  }
  outgoing_webhooks: {
    id: Generated<string>
    type: string
    body: string
    unique_key: string
    attempts: Generated<number>
    next_attempt_at: GeneratedTimestamp
    delivered_at: Timestamp | null
    given_up_at: Timestamp | null
    last_error: string | null
    created_at: GeneratedTimestamp
  }
  result_cache: {
    key: string
    user_id: string | null
    result: Uint8Array
    result_type: string
    width: number | null
    height: number | null
    provider: string
    model: string
    made_at: GeneratedTimestamp
    expires_at: Timestamp
  }
  refresh_tokens: {
    id: Generated<string>
    user_id: string
    token_hash: string
    family_id: string
    expires_at: Timestamp
    absolute_expires_at: Timestamp
    revoked: Generated<boolean>
    revoked_at: Timestamp | null
    revoked_reason:
      | 'rotated'
      | 'logout'
      | 'password'
      | 'session'
      | 'reuse'
      | 'reset'
      | 'email'
      | 'suspended'
      | 'deleted'
      | null
    mfa: Generated<boolean>
    created_at: GeneratedTimestamp
    replaced_by: string | null
    user_agent: string | null
    ip: string | null
  }
  sign_in_failures: {
    email_hash: string
    failures: number
    last_failure_at: GeneratedTimestamp
  }
  ledger_lot: {
    id: Generated<number>
    user_id: string
    kind: LotKind
    unit: 'token' | 'generation'
    granted: number
    available: number
    held: number
    spent: number
    gone: number
    dormant: Generated<boolean>
    expires_at: Timestamp | null
    source: string
    created_at: GeneratedTimestamp
  }
  ledger_hold: {
    id: string
    user_id: string
    asked: number
    amount: number
    unit: 'token' | 'generation'
    state: 'pending' | 'settled' | 'voided' | 'expired'
    spent: number | null
    expires_at: Timestamp
    created_at: GeneratedTimestamp
    closed_at: Timestamp | null
    api_key_id: string | null
  }
  idempotency_keys: {
    id: Generated<string>
    user_id: string
    scope: string
    key: string
    fingerprint: string
    attempt: Generated<number>
    locked_until: Timestamp | null
    status: number | null
    headers: Json<Record<string, string>> | null
    body: Uint8Array | null
    body_expires_at: Timestamp | null
    receipt: Json<Record<string, unknown>> | null
    created_at: GeneratedTimestamp
    expires_at: Timestamp
  }
  webhook_events: {
    id: string
    source: 'polar'
    type: string
    body: string
    outcome: 'applied' | 'ignored' | 'unreadable' | 'failed'
    error: string | null
    attempts: Generated<number>
    received_at: GeneratedTimestamp
    processed_at: Timestamp | null
  }
  billing_orders: {
    id: string
    user_id: string | null
    kind: 'tokens' | 'plan' | null
    plan: Plan | null
    starts_period: Generated<boolean>
    description: Generated<string>
    status: string
    paid: boolean
    currency: string
    net_cents: number
    tax_cents: number
    refunded_cents: number
    fee_cents: number
    dispute_lost: Generated<boolean>
    customer_id: string
    product_id: string | null
    checkout_id: string | null
    subscription_id: string | null
    invoice_number: string | null
    problem: OrderProblem | null
    tokens_worth: number | null
    tokens_granted: Generated<number>
    tokens_taken_back: Generated<number>
    granted_at: Timestamp | null
    ordered_at: Timestamp
    modified_at: Timestamp
  }
  billing_refunds: {
    id: string
    order_id: string
    status: string
    reason: string
    amount_cents: number
    currency: string
    refunded_at: Timestamp
    modified_at: Timestamp
  }
  billing_disputes: {
    id: string
    order_id: string
    status: string
    amount_cents: number
    disputed_at: Timestamp
    modified_at: Timestamp
  }
  billing_subscriptions: {
    id: string
    user_id: string | null
    plan: Plan | null
    status: string
    cancel_at_period_end: boolean
    period_start: Timestamp
    period_end: Timestamp
    ends_at: Timestamp | null
    entitled_until: Timestamp | null
    pending_plan: Plan | null
    customer_id: string
    product_id: string
    modified_at: Timestamp
  }
  billing_cursors: {
    name: string
    position: Json<Record<string, unknown>>
    updated_at: GeneratedTimestamp
  }
  audit_log: {
    id: Generated<number>
    at: GeneratedTimestamp
    actor_type: 'user' | 'admin' | 'api_key' | 'system' | 'webhook'
    actor_id: string | null
    impersonator: string | null
    action: string
    target_type: string | null
    target_id: string | null
    reason: string | null
    details: Json<Record<string, unknown>>
    before: Json<Record<string, unknown>> | null
    after: Json<Record<string, unknown>> | null
    ip: string | null
    user_agent: string | null
    request_id: string | null
  }
  audit_chain: {
    seq: number
    audit_id: number
    hash: string
  }
  audit_head: {
    one: Generated<boolean>
    seq: number
    hash: string
  }
  audit_anchors: {
    seq: number
    hash: string
    mac: string
    anchored_at: GeneratedTimestamp
  }
}

/** What a key may do. 'generate': run tools. 'read': look at the profile, usage and billing of its owner. */
export type Scope = 'generate' | 'read'
export type TrialWithheld = 'unverified' | 'disposable' | 'network' | 'repeat'

/** Why a paid order waits for an admin: nobody to give it to, another currency, or a product that is not sold here. */
export type OrderProblem = 'no_user' | 'currency' | 'product'
export type LotKind = 'trial' | 'plan' | 'promo' | 'pack'
