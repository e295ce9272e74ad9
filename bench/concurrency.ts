// How many callers at once the product carries: up to 1,000 connections against a provider that takes 200 ms, and where a request's time goes.
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { closeDatabase, db } from '../db/client.ts'
import { signAccessToken } from '../lib/auth/access-token.ts'
import { ledgerViolations } from '../tests/support/money.ts'
import { type Outcome, post } from './load.ts'
import { photoOf } from './photo.ts'
import { printTable, quantile, quick, type Row, rounded, saveResults } from './report.ts'
import { startServer, type Usage } from './servers.ts'
import { addAccounts, scratchDatabase } from './stores.ts'

const UPSTREAM_MS = 200
const LADDER = quick ? [16, 1000] : [16, 64, 128, 256, 512, 1000]
const STEP_SECONDS = quick ? 1 : 10
/** Of the last step, which is the one that has to hold. */
const LONG_SECONDS = quick ? 3 : 60
const P95_TARGET_MS = 2000
const SAMPLE_EVERY_MS = 1000
/** The later half of the long run may use this much more memory than the earlier one and still count as flat. */
const MEMORY_GROWTH_MAX = 1.15

interface Step extends Row {
  connections: number
  seconds: number
  answered: number
  failed: number
  perSecond: number
  p50Ms: number
  p95Ms: number
  p99Ms: number
  cpuMs: number
  databaseMs: number
  kvMs: number
  providerMs: number
  queueingMs: number
  carried: string
}

process.env.AUTH_JWT_SECRET = randomUUID()
const database = await scratchDatabase()
process.env.POSTGRES_URL = database.url
const kvToken = randomUUID()
const [kv, gemini] = await Promise.all([
  startServer('kv', { KV_REST_API_TOKEN: kvToken }),
  startServer('gemini', { STUB_SIDE_PX: '256' }),
])
Object.assign(process.env, { KV_REST_API_URL: kv.url, KV_REST_API_TOKEN: kvToken })
const product = await startServer('product', {
  GEMINI_API_KEY: 'bench',
  GEMINI_BASE_URL: gemini.url,
  FORK__TOOLS__0__PROVIDERS: '["gemini"]',
  FORK__LIMITS__GENERATE__PER_MINUTE: '100000',
  FORK__AI__BUDGETS__DAILY_USD: '1000000',
  FORK__AI__BUDGETS__MONTHLY_USD: '1000000',
  FORK__AI__BUDGETS__FREE_TIER_DAILY_USD: '1000000',
})
const servers = [product, kv, gemini]

try {
  await fetch(`${gemini.url}/__behave`, { method: 'POST', body: JSON.stringify({ kind: 'ok', delayMs: UPSTREAM_MS }) })
  const accounts = await addAccounts(database.url, Math.max(...LADDER))
  const bearers = await Promise.all(accounts.map(async (account) => `Bearer ${await signAccessToken(account)}`))
  const load = {
    body: await photoOf(640, 480, 80),
    headers: (connection: number) => ({
      'content-type': 'image/jpeg',
      accept: 'image/*',
      authorization: bearers[connection] ?? '',
    }),
  }
  await post(url(), { ...load, connections: 16, seconds: 1 })
  const steps: Step[] = []
  const memoryMb: number[] = []
  const failures: string[] = []
  for (const connections of LADDER) {
    const isLast = connections === LADDER.at(-1)
    const seconds = isLast ? LONG_SECONDS : STEP_SECONDS
    const before = await product.usage()
    const sampling = isLast ? sampleMemory(memoryMb) : undefined
    const outcome = await post(url(), { ...load, connections, seconds })
    await sampling?.stop()
    steps.push(stepOf(connections, outcome, before, await product.usage()))
    failures.push(...outcome.failures)
  }
  await report(steps, memoryMb, failures)
} finally {
  await closeDatabase()
  await Promise.all(servers.map((server) => server.stop()))
  await database.drop()
}

function url(): string {
  return `${product.url.replace(/\/$/, '')}/api/process-image`
}

function sampleMemory(samples: number[]) {
  let running = true
  const done = (async () => {
    while (running) {
      samples.push((await product.usage()).memoryMb)
      await new Promise((resolve) => setTimeout(resolve, SAMPLE_EVERY_MS))
    }
  })()
  return {
    stop: () => {
      running = false
      return done
    },
  }
}

/** Waits are sums over all requests, divided by their number; what is left of the mean latency is time in queues. */
function stepOf(connections: number, outcome: Outcome, before: Usage, after: Usage): Step {
  const { latenciesMs, answered, failures, seconds } = outcome
  const each = (what: 'cpuMs' | 'databaseMs' | 'kvMs' | 'providerMs') => (after[what] - before[what]) / answered
  const meanMs = latenciesMs.reduce((sum, ms) => sum + ms, 0) / answered
  const parts = {
    cpuMs: each('cpuMs'),
    databaseMs: each('databaseMs'),
    kvMs: each('kvMs'),
    providerMs: each('providerMs'),
  }
  const p95Ms = Math.round(quantile(latenciesMs, 0.95))
  return {
    connections,
    seconds: Math.round(seconds),
    answered,
    failed: failures.length,
    perSecond: rounded(answered / seconds),
    p50Ms: Math.round(quantile(latenciesMs, 0.5)),
    p95Ms,
    p99Ms: Math.round(quantile(latenciesMs, 0.99)),
    cpuMs: rounded(parts.cpuMs),
    databaseMs: rounded(parts.databaseMs),
    kvMs: rounded(parts.kvMs),
    providerMs: rounded(parts.providerMs),
    queueingMs: Math.max(0, Math.round(meanMs - parts.cpuMs - parts.databaseMs - parts.kvMs - parts.providerMs)),
    carried: p95Ms < P95_TARGET_MS && failures.length === 0 ? 'yes' : 'no',
  }
}

/** Whether what was answered, charged, called and budgeted is one number. */
async function auditBooks(answered: number) {
  const { budgetStates } = await import('../lib/ai/budget.ts')
  const { rows } = await sql<{ succeeded: number; other: number; settled: number; open: number; cost: number }>`
    select (select count(*)::int from usage_logs where response_status = 'success') as succeeded,
      (select count(*)::int from usage_logs where response_status <> 'success') as other,
      (select count(*)::int from ledger_hold where state = 'settled') as settled,
      (select count(*)::int from ledger_hold where state = 'pending') as open,
      (select coalesce(sum(cost_micro_usd), 0)::bigint from provider_calls) as cost
  `.execute(db())
  const [counts] = rows
  const budgets = await budgetStates()
  const day = budgets.find(({ name }) => name === 'day')
  return {
    answered,
    ...counts,
    violations: await ledgerViolations(),
    daySpentMicroUsd: day?.spentMicroUsd,
    dayHeldMicroUsd: day?.heldMicroUsd,
  }
}

async function report(steps: Step[], memoryMb: number[], failures: string[]): Promise<void> {
  // The sixteen connections that warmed up were answered too, and are in the books.
  const half = Math.floor(memoryMb.length / 2)
  const [early, late] = [memoryMb.slice(0, half), memoryMb.slice(half)].map((part) => quantile(part, 0.5))
  const books = await auditBooks(steps.reduce((sum, { answered }) => sum + answered, 0))
  const carried = steps.filter(({ carried }) => carried === 'yes').at(-1)
  const growth = rounded((late ?? 0) / (early ?? 1), 2)
  printTable(
    `concurrency: a provider of ${UPSTREAM_MS} ms, ${LONG_SECONDS} s at the end; parts are means per request`,
    steps,
    [
      `p95 stays below ${P95_TARGET_MS} ms up to ${carried?.connections ?? 'none of these'} connections on one process and what is left of this machine.`,
      `Failures: ${failures.length === 0 ? 'none' : [...new Set(failures)].join(', ')}.`,
      `Memory in the long run: ${early} MB in its first half, ${late} MB in its second (${growth}, flat up to ${MEMORY_GROWTH_MAX}).`,
      `Books: ${books.succeeded} successes, ${books.settled} charged, ${books.open} holds open, ${books.violations.length} contradictions;`,
      `calls cost ${books.cost} micro-USD, the budget of the day says ${books.daySpentMicroUsd} spent and ${books.dayHeldMicroUsd} held.`,
    ],
  )
  saveResults('concurrency', { steps, memoryMb, failures: failures.slice(0, 20), books, growth })
}
