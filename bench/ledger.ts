// How many generations a second the ledger can hold and charge, beside the least any balance costs: one UPDATE of one row.
import { randomUUID } from 'node:crypto'
import { Kysely, PostgresDialect, sql } from 'kysely'
import pg from 'pg'
import { closeDatabase } from '../db/client.ts'
import type { Database } from '../db/schema.ts'
import { reserve, settle } from '../lib/ledger/holds.ts'
import { toolId } from '../lib/tools/catalogue.ts'
import { ledgerViolations } from '../tests/support/money.ts'
import { median, printTable, quantile, quick, rounded, saveResults } from './report.ts'
import { type Account, addAccounts, scratchDatabase } from './stores.ts'

const CONNECTIONS = 64
const ACCOUNTS = quick ? [1, 100] : [1, 100, 10_000]
const ROUNDS = quick ? 1 : 3
const ROUND_SECONDS = quick ? 0.5 : 3

const database = await scratchDatabase()
process.env.POSTGRES_URL = database.url
pg.types.setTypeParser(pg.types.builtins.INT8, Number)
const pool = new pg.Pool({ connectionString: database.url, max: CONNECTIONS })
// The product's own pool is smaller, since on Vercel every instance has one.
const db = new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })

try {
  const accounts = await addAccounts(database.url, Math.max(...ACCOUNTS))
  await sql`create table plain_balance as select id, 1000000000::bigint as balance from users`.execute(db)
  await sql`alter table plain_balance add primary key (id)`.execute(db)
  const tool = await toolId(db, 'coloring-page')
  // Every connection compiles the functions once, and the planner knows tables that are not empty: as in a running product.
  await repeat(accounts, (account) => reserveAndSettle(account, tool))
  await sql`vacuum analyze`.execute(db)
  const rows = []
  for (const count of ACCOUNTS) rows.push(await measure(accounts.slice(0, count), tool))
  const violations = await ledgerViolations()
  printTable(`ledger: ${CONNECTIONS} connections, ${ROUNDS} rounds of ${ROUND_SECONDS} s in turn`, rows, [
    'A cycle is reserve and settle with its usage row: two transactions. Latencies are of a whole cycle.',
    `The ledger afterwards: ${violations.length} contradictions.`,
  ])
  saveResults('ledger', { rows, violations })
} finally {
  await db.destroy()
  await closeDatabase()
  await database.drop()
}

async function measure(accounts: Account[], tool: string) {
  const updates: Round[] = []
  const cycles: Round[] = []
  for (let round = 0; round < ROUNDS; round += 1) {
    updates.push(await repeat(accounts, updateRow))
    cycles.push(await repeat(accounts, (account) => reserveAndSettle(account, tool)))
  }
  const perSecond = (rounds: Round[]) => median(rounds.map(({ done, seconds }) => done / seconds))
  const latenciesMs = (rounds: Round[]) => rounds.flatMap((round) => round.latenciesMs)
  return {
    accounts: accounts.length,
    'cycles/s': Math.round(perSecond(cycles)),
    p50Ms: rounded(quantile(latenciesMs(cycles), 0.5)),
    p99Ms: rounded(quantile(latenciesMs(cycles), 0.99)),
    'bare updates/s': Math.round(perSecond(updates)),
    bareP50Ms: rounded(quantile(latenciesMs(updates), 0.5)),
    bareP99Ms: rounded(quantile(latenciesMs(updates), 0.99)),
    'updates per cycle': rounded(perSecond(updates) / perSecond(cycles)),
  }
}

async function updateRow({ userId }: Account): Promise<void> {
  await sql`update plain_balance set balance = balance - 1 where id = ${userId}`.execute(db)
}

async function reserveAndSettle({ userId, sessionId }: Account, tool: string): Promise<void> {
  const id = randomUUID()
  const { outcome } = await reserve(db, { id, userId, sessionId, tokens: 1, ttlMs: 120_000 })
  if (outcome !== 'held') throw new Error(`The ledger refused: ${outcome}.`)
  const { closed } = await settle(db, id, {
    userId,
    toolId: tool,
    requestId: id,
    status: 'success',
    durationMs: 1,
    provider: 'bench',
    model: 'bench',
    costMicroUsd: 39_000,
    errorCode: undefined,
    fallback: false,
    cached: false,
    jobId: undefined,
    freeTier: false,
    calls: [],
  })
  if (!closed) throw new Error('The hold was closed before.')
}

interface Round {
  done: number
  seconds: number
  latenciesMs: number[]
}

/** Runs `work` on one account after another, on every connection at once, until the time is over and the last has ended. */
async function repeat(accounts: Account[], work: (account: Account) => Promise<void>): Promise<Round> {
  const latenciesMs: number[] = []
  const startedAt = performance.now()
  let next = 0
  const worker = async () => {
    while (performance.now() - startedAt < ROUND_SECONDS * 1000) {
      const account = accounts[next++ % accounts.length]
      const begunAt = performance.now()
      if (account) await work(account)
      latenciesMs.push(performance.now() - begunAt)
    }
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, worker))
  return { done: latenciesMs.length, seconds: (performance.now() - startedAt) / 1000, latenciesMs }
}
