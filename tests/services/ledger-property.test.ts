// The ledger's SQL functions on real PostgreSQL: against a model, one step after another, and against their rules, all at once.
import fc from 'fast-check'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { startApp } from '../support/app.ts'
import { CLOCK_PATH, makeClock } from '../support/clock.ts'
import { type Command, life, liveAgainstModel, movement, openTestAccount, perform } from '../support/ledger-commands.ts'
import { ledgerViolations } from '../support/money.ts'
import { seed } from '../support/seed.ts'

const START_CAPITAL: Command = { do: 'credit', kind: 'pack', tokens: 60, source: 's0', expiresInMs: null }

/** Shrinking ends in time for the test to show what it found. */
const run = { seed, interruptAfterTimeLimit: 45_000 }

let url: string | undefined

beforeAll(async () => {
  const { stores } = await startApp()
  url = stores.variables.POSTGRES_URL
  pg.types.setTypeParser(pg.types.builtins.INT8, Number)
  await makeClock(db())
})

describe('the ledger', () => {
  test(`answers and moves what the model does, over months (seed ${seed})`, async () => {
    const database = connect({ max: 1, options: `-c search_path=${CLOCK_PATH}` })
    const property = fc.asyncProperty(life, (commands) => liveAgainstModel(database, commands))
    await fc.assert(property, { ...run, numRuns: 100 }).finally(() => database.destroy())
    expect(await ledgerViolations()).toEqual([])
  })

  test(`keeps its rules when three users do everything twice at once (seed ${seed})`, async () => {
    const database = connect({ max: 16 })
    const steps = fc.array(fc.tuple(fc.nat(2), movement), { minLength: 30, maxLength: 80, size: 'max' })
    const property = fc.asyncProperty(steps, (drawn) => doTwiceAtOnce(database, drawn))
    await fc.assert(property, { ...run, numRuns: 40 }).finally(() => database.destroy())
    expect(await ledgerViolations()).toEqual([])
  })
})

/** Nothing may fail, no hold is made or closed twice, no source granted twice and no refund taken twice. */
async function doTwiceAtOnce(database: Kysely<Database>, steps: [user: number, Command][]): Promise<void> {
  const users = await Promise.all([0, 1, 2].map(() => openTestAccount(database)))
  await Promise.all(users.map((user) => perform(database, user, START_CAPITAL)))
  const effects = await Promise.all(
    [...steps, ...steps].map(async ([index, command]) => {
      const answer = await perform(database, users[index] ?? '', command)
      if (answer?.status !== 'ok' || answer.taken === 0) return []
      if (command.do === 'credit') return [`${index} grants ${command.source}`]
      if (command.do === 'reserve') return [`${index} makes ${command.hold}`]
      if (command.do === 'close') return [`${index} closes ${command.hold}`]
      return command.do === 'clawBack' ? [`${index} refunds ${command.refund}`] : []
    }),
  )
  const times = Object.groupBy(effects.flat(), (effect) => effect)
  const repeated = Object.keys(times).filter((effect) => (times[effect]?.length ?? 0) > 1)
  expect(repeated, 'effects that happened twice').toEqual([])
}

function connect(options: pg.PoolConfig): Kysely<Database> {
  const pool = new pg.Pool({ connectionString: url, ...options })
  pool.on('error', () => {}) // It ends before its connections do, and the database is dropped under the last of them.
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
}
