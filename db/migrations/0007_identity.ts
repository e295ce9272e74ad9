// Identity beyond the password: Clerk's users, verified addresses, a second factor, mailed tokens, deletion with a grace.
import type { Kysely } from 'kysely'
import { runScript } from '../script.ts'

export async function up(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
alter table users
  alter column password_hash drop not null,
  add column clerk_id varchar(64),
  -- Clerk's own updated_at, in milliseconds, of the state applied last: webhooks come in any order.
  add column clerk_updated_at bigint,
  -- What Clerk has yet to be told. It is written with the act itself and cleared when Clerk has answered.
  add column clerk_pending varchar(10) check (clerk_pending in ('ban', 'unban', 'delete')),
  add column email_verified_at timestamptz,
  -- Why no trial was given at first; null when it was. 'repeat': this person had one before.
  add column trial_withheld varchar(20) check (trial_withheld in ('unverified', 'disposable', 'network', 'repeat')),
  -- A keyed hash of the network the account was made from.
  add column signup_network varchar(64),
  -- In which role: only what users did themselves can they take back themselves.
  add column deleted_by varchar(20),
  add column deleted_at timestamptz,
  add column purge_after timestamptz,
  add column purged_at timestamptz,
  add check (status = 'deleted' or (deleted_by is null and deleted_at is null and purge_after is null and purged_at is null));
create unique index ix_users_clerk_id on users (clerk_id);
create index ix_users_clerk_pending on users (id) where clerk_pending is not null;
create index ix_users_purge_after on users (purge_after) where purged_at is null;
create index ix_users_created_at on users (created_at, id);
create index ix_users_signup_network on users (signup_network, created_at);
-- An address is free again as soon as its account is deleted.
drop index ix_users_email;
create unique index ix_users_email on users (email) where status <> 'deleted';

-- Clerk ids that must never come to life again, whatever arrives late.
create table clerk_tombstones (
  clerk_id varchar(64) primary key,
  deleted_at timestamptz not null default now()
);

-- Trials given per network and day (keyed hash of the network).
create table trial_networks (
  network varchar(64) not null,
  day date not null,
  trials integer not null check (trials > 0),
  primary key (network, day)
);

alter table refresh_tokens
  -- Whether a second factor was shown when this session began, or since.
  add column mfa boolean not null default false,
  drop constraint refresh_tokens_revoked_reason_check,
  add constraint refresh_tokens_revoked_reason_check
    check (revoked_reason in ('rotated', 'logout', 'password', 'session', 'reuse', 'reset', 'email', 'suspended', 'deleted'));

-- The secret is encrypted and bound to this row. last_step makes every code good for one sign-in.
create table mfa_factors (
  user_id uuid primary key references users (id),
  secret text not null,
  confirmed_at timestamptz,
  last_step bigint not null default 0,
  created_at timestamptz not null default now()
);

create table mfa_recovery_codes (
  user_id uuid not null references users (id),
  code_hash varchar(64) not null,
  used_at timestamptz,
  primary key (user_id, code_hash)
);

-- Tokens sent by mail; each is good once. email is the address that the token proves.
create table email_tokens (
  token_hash varchar(64) primary key,
  user_id uuid not null references users (id),
  purpose varchar(10) not null check (purpose in ('verify', 'change', 'reset')),
  email varchar(255) not null check (email = lower(email)),
  expires_at timestamptz not null,
  created_at timestamptz not null default now()
);
create index email_tokens_user on email_tokens (user_id, purpose);
create index email_tokens_expires_at on email_tokens (expires_at);
`,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await runScript(
    db,
    `
drop table email_tokens, mfa_recovery_codes, mfa_factors, trial_networks, clerk_tombstones;
update refresh_tokens set revoked_reason = 'session' where revoked_reason in ('reset', 'email', 'suspended', 'deleted');
alter table refresh_tokens
  drop column mfa,
  drop constraint refresh_tokens_revoked_reason_check,
  add constraint refresh_tokens_revoked_reason_check
    check (revoked_reason in ('rotated', 'logout', 'password', 'session', 'reuse'));
drop index ix_users_email;
-- Addresses that were used again, and accounts without a password, have no place in the older shape.
update users set email = id || '@deleted.invalid' where status = 'deleted';
update users set password_hash = '!' where password_hash is null;
create unique index ix_users_email on users (email);
alter table users
  alter column password_hash set not null,
  drop column clerk_id, drop column clerk_updated_at, drop column clerk_pending, drop column email_verified_at,
  drop column trial_withheld, drop column signup_network, drop column deleted_by, drop column deleted_at, drop column purge_after,
  drop column purged_at;
drop index ix_users_created_at;
`,
  )
}
