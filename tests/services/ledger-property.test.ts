// The ledger's SQL functions on real PostgreSQL: against a model, one step after another, and against their rules, all at once.
import fc from 'fast-check'
import { Kysely, PostgresDialect, sql } from 'kysely'
import pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { startApp } from '../support/app.ts'
import { CLOCK_PATH, makeClock } from '../support/clock.ts'
import {
  booksOf,
  type Command,
  HOLDS,
  HOUR_MS,
  life,
  live,
  liveAgainstModel,
  movement,
  openTestAccount,
  perform,
  SOURCES,
} from '../support/ledger-commands.ts'
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

/** So that every life has grants to take back, that lapse and that stay. */
const BOUGHT: Command[] = [
  { do: 'credit', kind: 'pack', tokens: 60, source: 's1', expiresInMs: null },
  { do: 'credit', kind: 'pack', tokens: 25, source: 's2', expiresInMs: 300 * HOUR_MS },
]
const CLOSE_ALL = HOLDS.map((hold): Command => ({ do: 'close', hold, spent: null, state: 'voided' }))
const UNDO_ALL = SOURCES.map((source): Command => ({ do: 'takeBack', source, target: 0 }))
/** A grant that was spent, and a debt for part of it that others repaid. */
const REPAID: Command[] = [
  { do: 'credit', kind: 'pack', tokens: 60, source: 'spent', expiresInMs: null },
  ...spending('the trial', 1),
  ...spending('the plan and the grant', 80),
  { do: 'takeBack', source: 'spent', target: 15 },
]

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

  test('is exact when one grant is taken back to many targets while it is being spent', async () => {
    const database = connect({ max: 16 })
    const user = await openTestAccount(database)
    const act = (command: Command) => perform(database, user, command)
    await act({ do: 'credit', kind: 'pack', tokens: 500, source: 'order', expiresInMs: null })
    await act({ do: 'credit', kind: 'pack', tokens: 100, source: 'other', expiresInMs: null })
    const spend = async (hold: string, spent: number) => {
      await act({ do: 'reserve', hold, tokens: 10, ttlMs: HOUR_MS })
      await act({ do: 'close', hold, spent, state: 'settled' })
    }
    const targets = Array.from({ length: 40 }, (_, step) => (step * 171) % 501)
    await Promise.all(
      targets.flatMap((target, step) => [
        act({ do: 'takeBack', source: 'order', target }),
        spend(`hold ${step}`, step % 11),
      ]),
    )
    expect(await ledgerViolations()).toEqual([])

    const last = 321
    await act({ do: 'takeBack', source: 'order', target: last })
    const { lots, debt } = await booksOf(database, user)
    await database.destroy()
    const tokens = lots.filter(({ kind }) => kind !== 'trial')
    const sum = (part: 'granted' | 'available' | 'spent') => tokens.reduce((total, lot) => total + lot[part], 0)
    expect(sum('available') - debt).toBe(sum('granted') - sum('spent') - last)
    expect(await ledgerViolations()).toEqual([])
  })
})

describe('taking back', () => {
  const target = fc.integer({ min: 0, max: 70 })
  const step = fc.record({ do: fc.constant('takeBack' as const), source: fc.constantFrom(...SOURCES), target })

  test('gives back to what repaid a debt, the last repayment first', async () => {
    const database = connect({ max: 1 })
    const user = await openTestAccount(database)
    const follow = async (steps: Command[]) => {
      for (const command of steps) await perform(database, user, command)
      return await booksOf(database, user)
    }
    const credit = (source: string, tokens: number): Command => ({
      do: 'credit',
      kind: 'pack',
      tokens,
      source,
      expiresInMs: null,
    })
    const takeBack = (target: number): Command => ({ do: 'takeBack', source: 'spent', target })
    const before = await follow([
      ...spending('the trial', 1),
      credit('spent', 60),
      ...spending('everything', 80),
      takeBack(5),
      credit('older', 20),
      credit('newer', 10),
    ])
    const after = await follow([takeBack(25)])
    expect(after.lots.slice(-2)).toMatchObject([{ available: 5 }, { available: 0 }])
    expect(await follow([takeBack(5)])).toEqual(before)
    await database.destroy()
  })

  test(`leads to where the last targets say, whatever was tried before, and back (seed ${seed})`, async () => {
    const database = connect({ max: 1, options: `-c search_path=${CLOCK_PATH}` })
    const steps = fc.array(step, { minLength: 1, maxLength: 8, size: 'max' })
    const property = fc.asyncProperty(life, steps, async (commands, path) => {
      const user = await live(database, [...REPAID, ...BOUGHT, ...commands, ...UNDO_ALL])
      const follow = async (then: Command[]) => {
        for (const command of then) await perform(database, user, command)
        return await booksOf(database, user)
      }
      const start = await booksOf(database, user)
      const last = path.filter(({ source }, index) => !path.slice(index + 1).some((later) => later.source === source))
      const end = await follow(path)
      expect(await follow(UNDO_ALL), 'all given back').toEqual(start)
      expect(totalOf(await follow(last)), 'the last targets alone').toEqual(totalOf(end))

      await follow(UNDO_ALL)
      const ofOne = path.map((each): Command => ({ ...each, source: 's2' }))
      const endOfOne = await follow(ofOne)
      expect(await follow(UNDO_ALL), 'all of one given back').toEqual(start)
      expect(await follow(ofOne.slice(-1)), 'the last target of one alone').toEqual(endOfOne)
    })
    await fc.assert(property, { ...run, numRuns: 60 }).finally(() => database.destroy())
    expect(await ledgerViolations()).toEqual([])
  })

  test(`leaves the same owed for a grant before and after it lapsed (seed ${seed})`, async () => {
    const database = connect({ max: 1, options: `-c search_path=${CLOCK_PATH}` })
    const lapse: Command[] = [{ do: 'wait', ms: 500 * HOUR_MS }, { do: 'sweep' }]
    const property = fc.asyncProperty(life, step, target, async (commands, last, earlier) => {
      const before = [...BOUGHT, ...commands, ...CLOSE_ALL, ...UNDO_ALL]
      const owed = async (then: Command[]) => owedFor(database, await live(database, [...before, ...then]), last.source)
      const after = await owed([...lapse, last])
      expect(await owed([last, ...lapse])).toBe(after)
      expect(await owed([{ ...last, target: earlier }, ...lapse, last])).toBe(after)
    })
    await fc.assert(property, { ...run, numRuns: 40 }).finally(() => database.destroy())
  })
})

function spending(hold: string, tokens: number): Command[] {
  return [
    { do: 'reserve', hold, tokens, ttlMs: HOUR_MS },
    { do: 'close', hold, spent: null, state: 'settled' },
  ]
}

/** Nothing may fail, no hold is made or closed twice, no source granted twice; and refunds that are all undone leave no trace. */
async function doTwiceAtOnce(database: Kysely<Database>, steps: [user: number, Command][]): Promise<void> {
  const users = await Promise.all([0, 1, 2].map(() => openTestAccount(database)))
  await Promise.all(users.map((user) => perform(database, user, START_CAPITAL)))
  const effects = await Promise.all(
    [...steps, ...steps].map(async ([index, command]) => {
      const answer = await perform(database, users[index] ?? '', command)
      if (answer?.status !== 'ok') return []
      if (command.do === 'credit') return [`${index} grants ${command.source}`]
      if (command.do === 'reserve') return [`${index} makes ${command.hold}`]
      return command.do === 'close' ? [`${index} closes ${command.hold}`] : []
    }),
  )
  const times = Object.groupBy(effects.flat(), (effect) => effect)
  const repeated = Object.keys(times).filter((effect) => (times[effect]?.length ?? 0) > 1)
  expect(repeated, 'effects that happened twice').toEqual([])
  await Promise.all(users.flatMap((user) => UNDO_ALL.map((command) => perform(database, user, command))))
  const { rows } = await sql`
    select e.user_id from ledger_entry e where e.user_id in (${sql.join(users)}) group by e.user_id
      having sum(case e.op when 'repay' then e.amount when 'unrepay' then -e.amount else 0 end) <> 0
        or sum(case e.op when 'debt' then e.amount when 'forgive' then -e.amount else 0 end) <> 0
  `.execute(database)
  expect(rows, 'users who still owe or repaid something').toEqual([])
}

/** What is left and what is owed. Which of several lots repaid a debt does depend on what came first. */
function totalOf({ lots, debt }: Awaited<ReturnType<typeof booksOf>>) {
  return { available: lots.reduce((total, lot) => total + lot.available, 0), debt }
}

async function owedFor(database: Kysely<Database>, user: string, source: string): Promise<unknown> {
  const { rows } = await sql<{ owed: number }>`
    select coalesce(sum(case e.op when 'debt' then e.amount when 'forgive' then -e.amount end), 0)::int as owed
      from ledger_entry e join ledger_lot l on l.id = e.lot_id where l.source = ${`${user}:${source}`}
  `.execute(database)
  return rows[0]?.owed
}

function connect(options: pg.PoolConfig): Kysely<Database> {
  const pool = new pg.Pool({ connectionString: url, ...options })
  pool.on('error', () => {}) // It ends before its connections do, and the database is dropped under the last of them.
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
}
