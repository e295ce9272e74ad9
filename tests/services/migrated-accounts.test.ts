// Accounts that lived before a migration and live on after it: nobody gains or loses a token.
import { type Kysely, sql } from 'kysely'
import { Migrator } from 'kysely/migration'
import pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { migrateDown, migrateToLatest, migrations } from '../../db/migrate.ts'
import type { Database } from '../../db/schema.ts'
import { connect, emptyDatabase } from '../support/empty-database.ts'
import { ledgerViolations } from '../support/money.ts'

const ALLOWANCES = '{"free": 1000, "pro": 50000, "enterprise": 500000}'
const ADA = '00000000-0000-4000-8000-000000000001'

let database: Kysely<Database>

beforeAll(() => pg.types.setTypeParser(pg.types.builtins.INT8, Number))

beforeEach(async () => {
  database = connect(await emptyDatabase())
})

describe('an account from before plans were paid for', () => {
  beforeEach(async () => {
    const provider = { getMigrations: async () => migrations }
    const { error } = await new Migrator({ db: database, provider }).migrateTo('0004_idempotency_audit')
    expect(error).toBeUndefined()
    await open()
  })

  test('keeps its plan, its balance, its holds and its debts', async () => {
    await run(credit('pack', 500, 'order'), ...spend('all', 1500), `select ledger_claw_back('order', 'refund', 200)`)
    await run(credit('pack', 350, 'next order'), reserve('open', 100))
    const before = await status()
    expect(before).toMatchObject({ tokens_used: 1000, purchased_tokens: 50, reserved_tokens: 100, debt: 0 })

    expect(await migrateToLatest(database)).toEqual(Object.keys(migrations).slice(4))
    expect(await status()).toEqual(before)
    expect(await ledgerViolations(database)).toEqual([])
    await run(`select ledger_close('open', null, 'settled')`)
    expect(await status()).toMatchObject({ tokens: 50, reserved_tokens: 0 })
    await run(`select ledger_take_back('order', 50)`)
    expect(await status(), 'of what the refund took').toMatchObject({ tokens: 200, debt: 0 })
    expect(await ledgerViolations(database)).toEqual([])
  })

  test('begins its next month when its time comes, and what was left of the last one lapses', async () => {
    await run(...spend('some', 300))
    await run(`update subscriptions set period_anchor = now() - interval '40 days',
      period_start = now() - interval '40 days', period_end = now() - interval '1 day'`)
    await migrateToLatest(database)
    expect(await status()).toMatchObject({ plan: 'free', status: 'active', tokens_used: 0, plan_tokens: 1000 })
    expect(await ledgerViolations(database)).toEqual([])
  })

  test('does not spend again what was left over from a month before', async () => {
    await run(reserve('long', 400))
    await run(`update subscriptions set period_anchor = now() - interval '40 days',
      period_start = now() - interval '40 days', period_end = now() - interval '1 day'`)
    await status()
    await migrateToLatest(database)
    await run(`select ledger_close('long', null, 'voided')`)
    expect(await status()).toMatchObject({ plan_tokens: 1000, tokens: 1000 })
    expect(await ledgerViolations(database)).toEqual([])
  })
})

describe('an account with a paid plan', () => {
  test('survives the way down and up again', async () => {
    await migrateToLatest(database)
    await open()
    await run(
      ...spend('of the free plan', 300),
      ...period('first', 'pro', 50_000, true),
      ...period('more', 'enterprise', 90_000, false),
    )
    await run(...spend('of the paid plan', 20_000), ...everyOperation)
    const before = await status()
    expect(before).toMatchObject({ plan: 'enterprise', token_limit: 140_000, tokens_used: 140_000 })
    expect(await ledgerViolations(database)).toEqual([])
    const { rows: ops } = await sql`select distinct op from ledger_entry order by op`.execute(database)
    expect(ops).toEqual((await sql`select op from ledger_op order by op`.execute(database)).rows)

    const undone = Object.keys(migrations).slice(5)
    for (const name of undone.toReversed()) expect(await migrateDown(database)).toEqual([name])
    expect(await status(), 'on the plan of one lot').toMatchObject({ plan: 'enterprise', token_limit: 50_000 })
    await run(...spend('in between, of the free lot', 100))

    expect(await migrateToLatest(database)).toEqual(undone)
    expect(await status(), 'the free lot sleeps again').toEqual(before)
    expect(await ledgerViolations(database)).toEqual([])
  })

  /** An order of the subscription, and the plan that follows. */
  function period(id: string, plan: string, tokens: number, startsPeriod: boolean): string[] {
    return [
      `insert into billing_subscriptions (id, user_id, plan, status, cancel_at_period_end, period_start, period_end,
          entitled_until, customer_id, product_id, modified_at)
        values ('sub', '${ADA}', '${plan}', 'active', false, now(), now() + interval '1 month', now() + interval '1 month',
          'customer', 'product', now())
        on conflict (id) do update set plan = excluded.plan`,
      `insert into billing_orders (id, user_id, kind, plan, starts_period, status, paid, currency, net_cents, tax_cents,
          refunded_cents, fee_cents, customer_id, subscription_id, tokens_worth, tokens_granted, granted_at, ordered_at, modified_at)
        values ('${id}', '${ADA}', 'plan', '${plan}', ${startsPeriod}, 'paid', true, 'usd', 1900, 0, 0, 0, 'customer', 'sub',
          ${tokens}, ${tokens}, now(), now(), now())`,
      credit('plan', tokens, `polar:order:${id}`, `now() + interval '1 month'`),
      `select plan_refresh('${ADA}', '${ALLOWANCES}')`,
    ]
  }

  /** Takes back and gives back in every way there is, so that the journal has entries of all of them. */
  const everyOperation = [
    credit('pack', 60, 'lapsed', `now() - interval '1 hour'`),
    `select ledger_sweep(10, '${ALLOWANCES}')`,
    ...[30, 10].map((target) => `select ledger_take_back('lapsed', ${target})`),
    credit('promo', 50, 'spent'),
    ...spend('everything', 120_050),
    credit('pack', 30, 'paying'),
    ...[40, 15].map((target) => `select ledger_take_back('spent', ${target})`),
    ...[10, 5].map((target) => `select ledger_take_back('paying', ${target})`),
    credit('pack', 100_000, 'left'),
    reserve('given back', 10),
    `select ledger_close('given back', 0, 'voided')`,
  ]
})

async function open(): Promise<void> {
  await run(
    `insert into users (id, name, email, password_hash) values ('${ADA}', 'Ada', 'ada@example.com', '')`,
    `select ledger_open('${ADA}', '${ALLOWANCES}', 0, 'trial')`,
  )
}

function credit(kind: string, tokens: number, source: string, expiresAt = 'null'): string {
  return `select ledger_credit('${ADA}', '${kind}', ${tokens}, '${source}', ${expiresAt})`
}

function reserve(hold: string, tokens: number): string {
  return `select ledger_reserve('${ADA}', null, '${hold}', ${tokens}, '1 hour', '${ALLOWANCES}')`
}

function spend(hold: string, tokens: number): string[] {
  return [reserve(hold, tokens), `select ledger_close('${hold}', null, 'settled')`]
}

async function run(...statements: string[]): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(database)
}

async function status(): Promise<Record<string, number>> {
  const { rows } = await sql<Record<string, number>>`select * from ledger_status(${ADA}, ${ALLOWANCES})`.execute(
    database,
  )
  return rows[0] ?? {}
}
