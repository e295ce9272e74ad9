// The migrations in order, and the one way to run them. A static map, because a folder listing does not survive bundling.
import { type Kysely, sql } from 'kysely'
import { type Migration, type MigrationResultSet, Migrator } from 'kysely/migration'
import * as accounts from './migrations/0001_accounts.ts'
import * as ledger from './migrations/0002_ledger.ts'
import * as ledgerOperations from './migrations/0003_ledger_operations.ts'
import * as idempotencyAudit from './migrations/0004_idempotency_audit.ts'
import * as billing from './migrations/0005_billing.ts'
import * as plans from './migrations/0006_plans.ts'
import * as identity from './migrations/0007_identity.ts'
import * as apiKeys from './migrations/0008_api_keys.ts'
import * as auditChain from './migrations/0009_audit_chain.ts'
import * as planGifts from './migrations/0010_plan_gifts.ts'
import * as providerCalls from './migrations/0011_provider_calls.ts'
import * as jobs from './migrations/0012_jobs.ts'
import * as resultCache from './migrations/0013_result_cache.ts'
import type { Database } from './schema.ts'

export const migrations: Record<string, Migration> = {
  '0001_accounts': accounts,
  '0002_ledger': ledger,
  '0003_ledger_operations': ledgerOperations,
  '0004_idempotency_audit': idempotencyAudit,
  '0005_billing': billing,
  '0006_plans': plans,
  '0007_identity': identity,
  '0008_api_keys': apiKeys,
  '0009_audit_chain': auditChain,
  '0010_plan_gifts': planGifts,
  '0011_provider_calls': providerCalls,
  '0012_jobs': jobs,
  '0013_result_cache': resultCache,
}

/** Applies every pending migration in one locked transaction; returns the names it applied. Throws on the first that fails. */
export async function migrateToLatest(db: Kysely<Database>): Promise<string[]> {
  return named(await migrator(db).migrateToLatest())
}

/** Undoes the newest applied migration; returns its name, or nothing when there is none. */
export async function migrateDown(db: Kysely<Database>): Promise<string[]> {
  return named(await migrator(db).migrateDown())
}

/** Every migration with the time it was applied, oldest first. */
export async function migrationStatus(db: Kysely<Database>): Promise<{ name: string; appliedAt: Date | undefined }[]> {
  const all = await migrator(db).getMigrations()
  return all.map(({ name, executedAt }) => ({ name, appliedAt: executedAt }))
}

/** Whether the newest migration of this code is in place; one query, for readiness. */
export async function isMigrated(db: Kysely<Database>): Promise<boolean> {
  const newest = Object.keys(migrations).at(-1)
  const { rows } = await sql<{
    found: boolean
  }>`select exists (select 1 from kysely_migration where name = ${newest}) as found`.execute(db)
  return rows[0]?.found ?? false
}

function migrator(db: Kysely<Database>): Migrator {
  return new Migrator({ db, provider: { getMigrations: async () => migrations } })
}

function named({ error, results = [] }: MigrationResultSet): string[] {
  if (error) {
    const failed = results.find(({ status }) => status === 'Error')
    throw new Error(`Migration ${failed?.migrationName ?? ''} failed.`, { cause: error })
  }
  return results.map(({ migrationName }) => migrationName)
}
