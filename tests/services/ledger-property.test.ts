// The ledger's SQL functions against a model of them, one step after another, and against their own rules, all at once.
import fc from 'fast-check'
import pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import type { LotKind } from '../../db/schema.ts'
import { startApp } from '../support/app.ts'
import { CLOCK_PATH, makeClock } from '../support/clock.ts'
import { LedgerModel } from '../support/ledger-model.ts'
import { ledgerViolations } from '../support/money.ts'
import { seed } from '../support/seed.ts'

const HOUR_MS = 3_600_000
const MINUTE_MS = 60_000
const FIRST_DAY_MS = Date.parse('2026-01-15T12:00:00Z')
const ACCOUNT = { planTokens: 50, trialGenerations: 2 }
const ALLOWANCES = JSON.stringify({ free: ACCOUNT.planTokens })

let url: string

beforeAll(async () => {
  const { stores } = await startApp()
  url = stores.variables.POSTGRES_URL ?? ''
  pg.types.setTypeParser(pg.types.builtins.INT8, Number)
  await makeClock()
})

type Command =
  | { do: 'credit'; kind: LotKind; tokens: number; source: string; expiresInMs: number | null }
  | { do: 'reserve'; hold: string; tokens: number; ttlMs: number }
  | { do: 'close'; hold: string; spent: number | null; state: 'settled' | 'voided' }
  | { do: 'clawBack'; source: string; refund: string; tokens: number }
  | { do: 'sweep' | 'status' }
  | { do: 'wait'; ms: number }

const holds = fc.constantFrom('h1', 'h2', 'h3', 'h4', 'h5', 'h6')
const sources = fc.constantFrom('s1', 's2', 's3', 's4', 's5')
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
const clawBack = fc.record({
  do: fc.constant('clawBack' as const),
  source: sources,
  refund: fc.constantFrom('r1', 'r2', 'r3'),
  tokens,
})
const upkeep = fc.record({ do: fc.constantFrom('sweep' as const, 'status' as const) })
const wait = fc.record({
  do: fc.constant('wait' as const),
  ms: fc.constantFrom(2 * HOUR_MS, 31 * HOUR_MS, 500 * HOUR_MS),
})
const movements = [credit, credit, reserve, reserve, reserve, close, close, clawBack, upkeep]

describe('the ledger', () => {
  test(`answers and moves what the model does, over months (seed ${seed})`, async () => {
    const client = new pg.Client({ connectionString: url, options: `-c search_path=${CLOCK_PATH.replaceAll(' ', '')}` })
    await client.connect()
    const commands = fc.array<Command>(fc.oneof(...movements, wait), { minLength: 5, maxLength: 40 })
    const property = fc.asyncProperty(commands, (sequence) => playAgainstModel(client, sequence))
    await fc.assert(property, { seed, numRuns: 100 }).finally(() => client.end())
    expect(await ledgerViolations()).toEqual([])
  })

  test(`keeps its rules when three users do everything twice at once (seed ${seed})`, async () => {
    const pool = new pg.Pool({ connectionString: url, max: 16 })
    const step = fc.tuple(fc.nat(2), fc.oneof(...movements))
    const property = fc.asyncProperty(fc.array(step, { minLength: 30, maxLength: 80 }), async (steps) => {
      const users = await Promise.all([0, 1, 2].map(() => openAccount(pool)))
      await Promise.all(users.map((user) => perform(pool, user, START_CAPITAL)))
      await playAtOnce(
        pool,
        [...steps, ...steps].map(([index, command]) => ({ user: users[index] ?? '', command })),
      )
    })
    await fc.assert(property, { seed, numRuns: 40 }).finally(() => pool.end())
    expect(await ledgerViolations()).toEqual([])
  })
})

const START_CAPITAL: Command = { do: 'credit', kind: 'pack', tokens: 60, source: 's0', expiresInMs: null }

async function playAgainstModel(client: pg.Client, sequence: Command[]): Promise<void> {
  const model = new LedgerModel(FIRST_DAY_MS, ACCOUNT)
  await setClock(client, model.nowMs)
  const user = await openAccount(client)
  for (const command of sequence) {
    model.nowMs += command.do === 'wait' ? command.ms : MINUTE_MS
    await setClock(client, model.nowMs)
    const expected = predict(model, command)
    const answer = await perform(client, user, command)
    if (expected) expect(answer, JSON.stringify(command)).toMatchObject(expected)
  }
  const { rows } = await client.query(
    'select kind, granted, available, held, spent, gone from ledger_lot where user_id = $1 order by id',
    [user],
  )
  expect(rows).toEqual(model.lots.map(({ source, unit, expiresAtMs, ...buckets }) => buckets))
  const account = await client.query('select debt from ledger_account where user_id = $1', [user])
  expect(account.rows).toEqual([{ debt: model.debt }])
}

/** Nothing may fail, and no hold is made or closed twice, no source granted twice, no refund taken twice. */
async function playAtOnce(pool: pg.Pool, steps: { user: string; command: Command }[]): Promise<void> {
  const effects = await Promise.all(
    steps.map(async ({ user, command }) => {
      const answer = await perform(pool, user, command)
      if (answer?.status !== 'ok' || (command.do === 'clawBack' && answer.taken === 0)) return []
      if (command.do === 'credit') return [`${user} grants ${command.source}`]
      if (command.do === 'reserve') return [`${user} makes ${command.hold}`]
      if (command.do === 'close') return [`${user} closes ${command.hold}`]
      return command.do === 'clawBack' ? [`${user} refunds ${command.refund}`] : []
    }),
  )
  const repeated = Object.entries(Object.groupBy(effects.flat(), (effect) => effect)).filter(
    ([, times]) => (times?.length ?? 0) > 1,
  )
  expect(repeated, 'effects that happened twice').toEqual([])
}

/** What the SQL function of a command must answer; undefined where it answers nothing about one user. */
function predict(model: LedgerModel, command: Command): Record<string, unknown> | undefined {
  switch (command.do) {
    case 'credit': {
      const expiresAtMs = command.expiresInMs === null ? undefined : model.nowMs + command.expiresInMs
      return model.credit(command.kind, command.tokens, command.source, expiresAtMs)
    }
    case 'reserve':
      return model.reserve(command.hold, command.tokens, command.ttlMs)
    case 'close':
      return model.close(command.hold, command.spent, command.state)
    case 'clawBack':
      return model.clawBack(command.source, command.refund, command.tokens)
    case 'status':
      return model.status()
    case 'sweep':
      model.sweep()
      return undefined
    case 'wait':
      return undefined
  }
}

/** Sends a command to its SQL function; holds, sources and refunds are the user's own. */
async function perform(
  client: pg.Client | pg.Pool,
  user: string,
  command: Command,
): Promise<Record<string, unknown> | undefined> {
  const own = (name: string) => `${user}:${name}`
  const ask = async (text: string, ...values: unknown[]) => (await client.query(text, values)).rows[0]
  const interval = (ms: number | null) => (ms === null ? null : `${ms} milliseconds`)
  switch (command.do) {
    case 'credit': {
      const { kind, source, expiresInMs } = command
      const text = 'select * from ledger_credit($1, $2, $3, $4, now() + $5::interval)'
      return await ask(text, user, kind, command.tokens, own(source), interval(expiresInMs))
    }
    case 'reserve': {
      const text = 'select * from ledger_reserve($1, null, $2, $3, $4::interval, $5)'
      return await ask(text, user, own(command.hold), command.tokens, interval(command.ttlMs), ALLOWANCES)
    }
    case 'close':
      return await ask('select * from ledger_close($1, $2, $3)', own(command.hold), command.spent, command.state)
    case 'clawBack': {
      const text = 'select * from ledger_claw_back($1, $2, $3)'
      return await ask(text, own(command.source), own(command.refund), command.tokens)
    }
    case 'status':
      return await ask('select * from ledger_status($1, $2)', user, ALLOWANCES)
    case 'sweep':
      return await ask('select * from ledger_sweep(10000)')
    case 'wait':
      return undefined
  }
}

async function openAccount(client: pg.Client | pg.Pool): Promise<string> {
  const user = crypto.randomUUID()
  await client.query(`insert into users (id, name, email, password_hash) values ($1, 'Ada', $2, '')`, [
    user,
    `${user}@example.com`,
  ])
  await client.query('select ledger_open($1, $2, $3, $4)', [
    user,
    ALLOWANCES,
    ACCOUNT.trialGenerations,
    `trial:${user}`,
  ])
  await client.query('update subscriptions set period_anchor = period_start where user_id = $1', [user])
  return user
}

async function setClock(client: pg.Client, nowMs: number): Promise<void> {
  await client.query(`select set_config('clock.now', $1, false)`, [new Date(nowMs).toISOString()])
}
