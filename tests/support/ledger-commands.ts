// Random lives of a ledger account: commands that fast-check draws, as the SQL functions take them and as the model does.
import fc from 'fast-check'
import { type Kysely, sql } from 'kysely'
import { expect } from 'vitest'
import type { Database, LotKind } from '../../db/schema.ts'
import { LedgerModel } from './ledger-model.ts'

export type Command =
  | { do: 'credit'; kind: LotKind; tokens: number; source: string; expiresInMs: number | null }
  | { do: 'reserve'; hold: string; tokens: number; ttlMs: number }
  | { do: 'close'; hold: string; spent: number | null; state: 'settled' | 'voided' }
  | { do: 'takeBack'; source: string; target: number }
  | { do: 'sweep' | 'status' }
  | { do: 'wait'; ms: number }

type Answer = Record<string, unknown> | undefined

const MINUTE_MS = 60_000
export const HOUR_MS = 60 * MINUTE_MS
const FIRST_DAY_MS = Date.parse('2026-01-15T12:00:00Z')
/** Little, so that bought tokens are soon being spent, and refunds of them make debts. */
const ACCOUNT = { planTokens: 20, trialGenerations: 1 }
const ALLOWANCES = JSON.stringify({ free: ACCOUNT.planTokens })

export const HOLDS = ['h1', 'h2', 'h3', 'h4', 'h5', 'h6']
export const SOURCES = ['s1', 's2', 's3', 's4']
const holds = fc.constantFrom(...HOLDS)
const sources = fc.constantFrom(...SOURCES)
const tokens = fc.integer({ min: 1, max: 40 })
const credit = fc.record({
  do: fc.constant('credit' as const),
  kind: fc.constantFrom<LotKind>('promo', 'pack', 'pack', 'trial'),
  tokens: fc.constantFrom(2, 25, 60),
  source: sources,
  expiresInMs: fc.constantFrom(null, null, -HOUR_MS, 30 * HOUR_MS, 300 * HOUR_MS),
})
const reserve = fc.record({
  do: fc.constant('reserve' as const),
  hold: holds,
  tokens,
  ttlMs: fc.constantFrom(-MINUTE_MS, HOUR_MS, HOUR_MS),
})
const close = fc.record({
  do: fc.constant('close' as const),
  hold: holds,
  spent: fc.option(fc.integer({ min: 0, max: 45 })),
  state: fc.constantFrom('settled' as const, 'settled' as const, 'voided' as const),
})
const takeBack = fc.record({
  do: fc.constant('takeBack' as const),
  source: sources,
  target: fc.oneof(fc.constant(0), fc.integer({ min: -1, max: 70 })),
})
const upkeep = fc.record({ do: fc.constantFrom('sweep' as const, 'status' as const) })
const wait = fc.record({
  do: fc.constant('wait' as const),
  ms: fc.constantFrom(2 * HOUR_MS, 31 * HOUR_MS, 500 * HOUR_MS),
})

/** Anything that may happen at once with anything else. */
export const movement = fc.oneof(
  credit,
  credit,
  reserve,
  reserve,
  reserve,
  close,
  close,
  takeBack,
  takeBack,
  takeBack,
  upkeep,
)
/** One account's life over some months. */
export const life = fc.array<Command>(fc.oneof({ arbitrary: movement, weight: 9 }, { arbitrary: wait, weight: 1 }), {
  minLength: 10,
  maxLength: 60,
  size: 'max',
})

/**
 * Lives a life in the database and in the model, and compares every answer and in the end every lot.
 * `db` has one connection, on which now() is what the setting `clock.now` says.
 */
export async function liveAgainstModel(db: Kysely<Database>, commands: Command[]): Promise<void> {
  const model = new LedgerModel(FIRST_DAY_MS, ACCOUNT)
  const user = await live(db, commands, (command, answer, nowMs) => {
    model.nowMs = nowMs
    const expected = predict(model, command)
    if (expected) expect(answer, JSON.stringify(command)).toMatchObject(expected)
  })
  const lots = model.lots.map(({ unit, expiresAtMs, source, ...lot }) => lot)
  expect(await booksOf(db, user)).toEqual({ lots, debt: model.debt })
}

/** Lives a new user's life, a minute from one command to the next; `db` as above. */
export async function live(
  db: Kysely<Database>,
  commands: Command[],
  look: (command: Command, answer: Answer, nowMs: number) => void = () => {},
): Promise<string> {
  let nowMs = FIRST_DAY_MS
  await setClock(db, nowMs)
  const user = await openTestAccount(db)
  for (const command of commands) {
    nowMs += command.do === 'wait' ? command.ms : MINUTE_MS
    await setClock(db, nowMs)
    look(command, await perform(db, user, command), nowMs)
  }
  return user
}

/** What a user has and owes, to the last token. */
export async function booksOf(db: Kysely<Database>, user: string) {
  const lots = await db
    .selectFrom('ledger_lot')
    .select(['kind', 'granted', 'available', 'held', 'spent', 'gone', 'dormant'])
    .where('user_id', '=', user)
    .orderBy('id')
    .execute()
  const { rows } = await sql<{ debt: number }>`select debt from ledger_account where user_id = ${user}`.execute(db)
  return { lots, debt: rows[0]?.debt ?? 0 }
}

/** What the SQL function of a command must answer; undefined where it answers nothing about one user. */
function predict(model: LedgerModel, command: Command): Answer {
  switch (command.do) {
    case 'credit': {
      const expiresAtMs = command.expiresInMs === null ? undefined : model.nowMs + command.expiresInMs
      return model.credit(command.kind, command.tokens, command.source, expiresAtMs)
    }
    case 'reserve':
      return model.reserve(command.hold, command.tokens, command.ttlMs)
    case 'close':
      return model.close(command.hold, command.spent, command.state)
    case 'takeBack':
      return model.takeBack(command.source, command.target)
    case 'status':
      return model.status()
    case 'sweep':
      model.sweep()
      return undefined
    case 'wait':
      return undefined
  }
}

/** Sends a command to its SQL function; holds and sources are made the user's own. */
export async function perform(db: Kysely<Database>, user: string, command: Command): Promise<Answer> {
  const own = (name: string) => `${user}:${name}`
  const ask = async (query: ReturnType<typeof sql<Record<string, unknown>>>) => (await query.execute(db)).rows[0]
  switch (command.do) {
    case 'credit': {
      const { kind, source, expiresInMs } = command
      const expiresAt = sql`now() + make_interval(secs => ${expiresInMs === null ? null : expiresInMs / 1000})`
      return await ask(
        sql`select * from ledger_credit(${user}, ${kind}, ${command.tokens}, ${own(source)}, ${expiresAt})`,
      )
    }
    case 'reserve': {
      const ttl = sql`make_interval(secs => ${command.ttlMs / 1000})`
      const { hold } = command
      return await ask(
        sql`select * from ledger_reserve(${user}, null, ${own(hold)}, ${command.tokens}, ${ttl}, ${ALLOWANCES})`,
      )
    }
    case 'close':
      return await ask(sql`select * from ledger_close(${own(command.hold)}, ${command.spent}, ${command.state})`)
    case 'takeBack':
      return await ask(sql`select * from ledger_take_back(${own(command.source)}, ${command.target})`)
    case 'status':
      return await ask(sql`select * from ledger_status(${user}, ${ALLOWANCES})`)
    case 'sweep':
      return await ask(sql`select * from ledger_sweep(10000, ${ALLOWANCES})`)
    case 'wait':
      return undefined
  }
}

/** A user with 20 plan tokens and one trial generation. */
export async function openTestAccount(db: Kysely<Database>): Promise<string> {
  const user = { id: crypto.randomUUID(), name: 'Ada', password_hash: '' }
  await db
    .insertInto('users')
    .values({ ...user, email: `${user.id}@example.com` })
    .execute()
  await sql`select ledger_open(${user.id}, ${ALLOWANCES}, ${ACCOUNT.trialGenerations}, ${`trial:${user.id}`})`.execute(
    db,
  )
  await sql`update subscriptions set period_anchor = period_start where user_id = ${user.id}`.execute(db)
  return user.id
}

async function setClock(db: Kysely<Database>, nowMs: number): Promise<void> {
  await sql`select set_config('clock.now', ${new Date(nowMs).toISOString()}, false)`.execute(db)
}
