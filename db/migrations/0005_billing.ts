// What Polar says of money: orders, refunds, disputes, subscriptions, and the inbox of its webhooks.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
-- One row per delivered event, written in the transaction of its effect; a failed one is kept for a replay.
create table webhook_events (
  id varchar(100) primary key,
  source varchar(20) not null,
  type varchar(80) not null,
  body text not null,
  outcome varchar(20) not null check (outcome in ('applied', 'ignored', 'unreadable', 'failed')),
  error text,
  attempts integer not null default 1 check (attempts > 0),
  received_at timestamptz not null default now(),
  processed_at timestamptz,
  check ((outcome = 'failed') = (processed_at is null))
);
create index webhook_events_received_at on webhook_events (received_at, id);
create index webhook_events_failed on webhook_events (received_at) where outcome = 'failed';

-- The newest state known of every order. tokens_* say what the ledger did for it.
create table billing_orders (
  id varchar(100) primary key,
  user_id uuid references users (id),
  kind varchar(10) check (kind in ('tokens', 'plan')),
  plan subscription_plan,
  -- The order pays for a new period of its subscription; false for a change within one.
  starts_period boolean not null default false,
  description varchar(200) not null default '',
  status varchar(40) not null,
  paid boolean not null,
  currency varchar(3) not null,
  net_cents bigint not null,
  tax_cents bigint not null,
  refunded_cents bigint not null,
  fee_cents bigint not null,
  -- The customer's bank took the money back.
  dispute_lost boolean not null default false,
  customer_id varchar(100) not null,
  product_id varchar(100),
  checkout_id varchar(100),
  subscription_id varchar(100),
  invoice_number varchar(100),
  -- Why a paid order waits for an admin.
  problem varchar(20) check (problem in ('no_user', 'currency', 'product')),
  -- What it is worth in tokens; null when it sells nothing that is known here.
  tokens_worth bigint check (tokens_worth >= 0),
  tokens_granted bigint not null default 0 check (tokens_granted >= 0),
  tokens_taken_back bigint not null default 0 check (tokens_taken_back between 0 and tokens_granted),
  granted_at timestamptz,
  ordered_at timestamptz not null,
  modified_at timestamptz not null,
  check (problem is null or granted_at is null)
);
create index billing_orders_user on billing_orders (user_id, ordered_at, id);
create index billing_orders_subscription on billing_orders (subscription_id, ordered_at, id) where subscription_id is not null;
create index billing_orders_ordered_at on billing_orders (ordered_at, id);
create index billing_orders_problem on billing_orders (ordered_at, id) where problem is not null;
create index billing_orders_unpaid on billing_orders (ordered_at) where status = 'pending';

-- Refunds and disputes may be heard of before their order.
create table billing_refunds (
  id varchar(100) primary key,
  order_id varchar(100) not null,
  status varchar(40) not null,
  reason varchar(60) not null,
  amount_cents bigint not null,
  currency varchar(3) not null,
  refunded_at timestamptz not null,
  modified_at timestamptz not null
);
create index billing_refunds_order on billing_refunds (order_id);
create index billing_refunds_refunded_at on billing_refunds (refunded_at, id);
create index billing_refunds_pending on billing_refunds (refunded_at) where status = 'pending';

create table billing_disputes (
  id varchar(100) primary key,
  order_id varchar(100) not null,
  status varchar(40) not null,
  amount_cents bigint not null,
  disputed_at timestamptz not null,
  modified_at timestamptz not null
);
create index billing_disputes_order on billing_disputes (order_id);

-- The newest state known of every subscription. The seed's subscriptions row follows from these.
create table billing_subscriptions (
  id varchar(100) primary key,
  user_id uuid references users (id),
  plan subscription_plan,
  status varchar(40) not null,
  cancel_at_period_end boolean not null,
  period_start timestamptz not null,
  period_end timestamptz not null,
  ends_at timestamptz,
  -- Until when the plan stands if nothing more is heard; null when it does not.
  entitled_until timestamptz,
  pending_plan subscription_plan,
  customer_id varchar(100) not null,
  product_id varchar(100) not null,
  modified_at timestamptz not null
);
create index billing_subscriptions_user on billing_subscriptions (user_id);
create index billing_subscriptions_due on billing_subscriptions (period_end) where entitled_until is not null;

-- Where each pass over Polar's lists stands.
create table billing_cursors (
  name varchar(40) primary key,
  position jsonb not null,
  updated_at timestamptz not null default now()
);
`,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
drop table billing_cursors, billing_subscriptions, billing_disputes, billing_refunds, billing_orders, webhook_events;
`,
  )
}
