// npm start: the whole product on one local port, from source, with no build and no account anywhere.
import { closeDatabase, db } from '../db/client.ts'
import { FolderInUseError } from '../db/folder-lock.ts'
import { migrationStatus } from '../db/migrate.ts'
import { seedAdmin } from '../lib/auth/accounts.ts'
import { config } from '../lib/config.ts'
import { ConfigError } from '../lib/config-errors.ts'
import { EnvError, env } from '../lib/env.ts'
import { features } from '../lib/features.ts'
import { clerkHost } from './clerk-csp.ts'
import { listen, SetupError } from './gateway.ts'
import { loadApp } from './router.ts'

/** Mistakes of whoever starts the server: they need the message, not the stack. */
const SETUP_ERRORS = [ConfigError, EnvError, FolderInUseError, SetupError]

try {
  await start()
} catch (error) {
  const isSetup = SETUP_ERRORS.some((kind) => error instanceof kind)
  console.error(isSetup && error instanceof Error ? error.message : error)
  process.exit(1)
}

async function start(): Promise<void> {
  const { brand } = config()
  const pending = await prepareDatabase()
  const host = clerkHost(config())
  const { fetch } = await loadApp(undefined, host === undefined ? [] : [host])
  const url = await listen({ port: env().port, fetch, close: closeDatabase })
  console.log(`\n${brand.name} is at ${url}\n`)
  for (const { name, on, reason } of features(env(), config())) {
    console.log(`  ${on ? 'on ' : 'off'}  ${name.padEnd(17)} ${reason}`)
  }
  if (pending.length > 0) console.log(`\nMigrations are pending: ${pending.join(', ')}. Run npm run migrate -- up`)
  console.log('')
}

/** Readies the embedded database, which migrates as it opens; of any other, returns the migrations that it lacks. */
async function prepareDatabase(): Promise<string[]> {
  const migrations = await migrationStatus(db())
  if (!env().databaseUrl) await seedAdmin()
  return migrations.filter(({ appliedAt }) => appliedAt === undefined).map(({ name }) => name)
}
