// The ledger's SQL functions on the embedded database, against a model of them.
import { PGlite } from '@electric-sql/pglite'
import fc from 'fast-check'
import { Kysely, PGliteDialect, sql } from 'kysely'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { migrateToLatest } from '../../db/migrate.ts'
import type { Database } from '../../db/schema.ts'
import { CLOCK_PATH, makeClock } from '../support/clock.ts'
import { life, liveAgainstModel } from '../support/ledger-commands.ts'
import { seed } from '../support/seed.ts'

let database: Kysely<Database>

beforeAll(async () => {
  database = new Kysely<Database>({ dialect: new PGliteDialect({ pglite: await PGlite.create() }) })
  await migrateToLatest(database)
  await makeClock(database)
  await sql`select set_config('search_path', ${CLOCK_PATH}, false)`.execute(database)
})

afterAll(() => database.destroy())

describe('the ledger on PGlite', () => {
  test(`answers and moves what the model does, over months (seed ${seed})`, async () => {
    const property = fc.asyncProperty(life, (commands) => liveAgainstModel(database, commands))
    await fc.assert(property, { seed, numRuns: 50, interruptAfterTimeLimit: 45_000 })
  })
})
