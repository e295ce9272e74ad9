// npm run migrate -- up | down | status: migrations on whatever database the environment names.
import { closeDatabase, db, unpooledDb } from '../db/client.ts'
import { migrateDown, migrateToLatest, migrationStatus } from '../db/migrate.ts'
import { seedAdmin } from '../lib/auth/accounts.ts'
import { missingSecret } from '../lib/auth/secret.ts'
import { env } from '../lib/env.ts'

const [command = 'status', ...flags] = process.argv.slice(2)

/** A first deployment has no database yet; its build must pass all the same. */
if (flags.includes('--if-configured') && !env().databaseUrl) {
  console.log('No database is configured: nothing to migrate.')
} else {
  await migrate()
}

async function migrate(): Promise<void> {
  const database = env().databaseUrl ? unpooledDb() : db()
  try {
    switch (command) {
      case 'up':
        print('applied', await migrateToLatest(database), 'Every migration is applied already.')
        if (missingSecret(env()) === null && (await seedAdmin())) console.log('admin made from ADMIN_EMAIL')
        break
      case 'down':
        print('undone', await migrateDown(database), 'There is nothing to undo.')
        break
      case 'status':
        for (const { name, appliedAt } of await migrationStatus(database)) {
          console.log(`${appliedAt ? appliedAt.toISOString() : 'pending'.padEnd(24)}  ${name}`)
        }
        break
      default:
        console.error('usage: npm run migrate -- up | down | status')
        process.exitCode = 2
    }
  } finally {
    await database.destroy()
    await closeDatabase()
  }
}

function print(what: string, names: string[], otherwise: string): void {
  for (const name of names) console.log(`${what} ${name}`)
  if (names.length === 0) console.log(otherwise)
}
