// What one generated image costs the server: POST /api/process-image on a Gemini stub, beside a proxy that does nothing.
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { closeDatabase, db } from '../db/client.ts'
import { signAccessToken } from '../lib/auth/access-token.ts'
import { ledgerViolations } from '../tests/support/money.ts'
import { post } from './load.ts'
import { photoOf } from './photo.ts'
import { median, printTable, quantile, quick, type Row, rounded, saveResults } from './report.ts'
import { type Server, startServer, type Usage } from './servers.ts'
import { addAccounts, scratchDatabase } from './stores.ts'

const DELAYS_MS = [0, 200]
const CONNECTIONS = quick ? [1, 16] : [1, 16, 64, 256]
/** Of every subject before anything is measured: the first requests run code that has not been compiled yet. */
const WARM_UP_SECONDS = quick ? 0.5 : 2
const FOCUS = { delayMs: 0, connections: quick ? 16 : 64 }
const ROUNDS = quick ? 1 : 2
const ROUND_SECONDS = quick ? 0.3 : 0.8
const TARGETS = { cpuMs: 10, requestsPerCore: 100, kvRoundTrips: 1, sqlRoundTrips: 2 }

interface Subject {
  name: string
  url: string
  server: Server
  body: Buffer
  headers(connection: number): Record<string, string>
}

interface Cell extends Row {
  upstreamMs: number
  connections: number
  subject: string
  requests: number
  failed: number
  perSecond: number
  p50Ms: number
  p99Ms: number
  cpuMs: number
  perCpuSecond: number
  kv: number
  sql: number
}

process.env.AUTH_JWT_SECRET = randomUUID()
const database = await scratchDatabase()
process.env.POSTGRES_URL = database.url
const kvToken = randomUUID()
const [kv, gemini] = await Promise.all([startServer('kv', { KV_REST_API_TOKEN: kvToken }), startServer('gemini')])
const [product, proxy] = await Promise.all([
  startServer('product', {
    KV_REST_API_URL: kv.url,
    KV_REST_API_TOKEN: kvToken,
    GEMINI_API_KEY: 'bench',
    GEMINI_BASE_URL: gemini.url,
    FORK__LIMITS__GENERATE__PER_MINUTE: '100000',
    FORK__AI__BUDGETS__DAILY_USD: '1000000',
    FORK__AI__BUDGETS__MONTHLY_USD: '1000000',
    FORK__AI__BUDGETS__FREE_TIER_DAILY_USD: '1000000',
  }),
  startServer('proxy', { UPSTREAM_URL: `${gemini.url}/v1beta/models/bench:generateContent` }),
])
const servers = [product, proxy, kv, gemini]
const accounts = await addAccounts(database.url, Math.max(...CONNECTIONS))
const bearers = await Promise.all(accounts.map(async (account) => `Bearer ${await signAccessToken(account)}`))
const photo = await photoOf(2400, 1800)
const json = Buffer.from(JSON.stringify({ imageData: photo.toString('base64'), options: { detail: 'detailed' } }))

try {
  const cells = await measureGrid()
  const variants = await measureVariants()
  const ledger = await auditLedger()
  report(cells, variants, ledger)
} finally {
  await closeDatabase()
  await Promise.all(servers.map((server) => server.stop()))
  await database.drop()
}

function subjectsOf(accept: 'image/*' | 'application/json', form: 'raw' | 'base64', name: string): Subject {
  const type = form === 'raw' ? 'image/jpeg' : 'application/json'
  return {
    name,
    url: `${product.url.replace(/\/$/, '')}/api/process-image`,
    server: product,
    body: form === 'raw' ? photo : json,
    headers: (connection) => ({ 'content-type': type, accept, authorization: bearers[connection] ?? '' }),
  }
}

/** Every number of connections with and without a slow provider; the subjects take turns, so that a noisy moment hits all. */
async function measureGrid(): Promise<Cell[]> {
  const subjects = [
    {
      name: 'bare proxy',
      url: proxy.url,
      server: proxy,
      body: photo,
      headers: () => ({ 'content-type': 'image/jpeg' }),
    },
    subjectsOf('image/*', 'raw', 'bytes in, bytes out'),
    subjectsOf('application/json', 'base64', 'JSON in, JSON out'),
  ]
  for (const subject of subjects) {
    await post(subject.url, { ...subject, connections: 16, seconds: WARM_UP_SECONDS })
  }
  const cells: Cell[] = []
  for (const delayMs of DELAYS_MS) {
    await delayUpstream(delayMs)
    for (const connections of CONNECTIONS) cells.push(...(await measureInTurn(subjects, delayMs, connections)))
  }
  return cells
}

/** What else may cost: the crossed forms, a key to remember the answer by, and everyone spending from one account. */
async function measureVariants(): Promise<Cell[]> {
  const bytes = subjectsOf('image/*', 'raw', '')
  const variants = [
    subjectsOf('application/json', 'raw', 'bytes in, JSON out'),
    subjectsOf('image/*', 'base64', 'JSON in, bytes out'),
    {
      ...bytes,
      name: 'with Idempotency-Key',
      headers: (connection: number) => ({ ...bytes.headers(connection), 'idempotency-key': randomUUID() }),
    },
    { ...bytes, name: 'one account for all', headers: () => bytes.headers(0) },
  ]
  await delayUpstream(FOCUS.delayMs)
  return await measureInTurn(variants, FOCUS.delayMs, FOCUS.connections)
}

async function delayUpstream(delayMs: number): Promise<void> {
  await fetch(`${gemini.url}/__behave`, { method: 'POST', body: JSON.stringify({ kind: 'ok', delayMs }) })
}

async function measureInTurn(subjects: Subject[], delayMs: number, connections: number): Promise<Cell[]> {
  const rounds = new Map(subjects.map((subject) => [subject, [] as Round[]]))
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const subject of subjects) {
      rounds.get(subject)?.push(await measureOnce(subject, connections))
    }
  }
  return subjects.map((subject) => cellOf(subject.name, delayMs, connections, rounds.get(subject) ?? []))
}

type Round = Awaited<ReturnType<typeof measureOnce>>

async function measureOnce(subject: Subject, connections: number) {
  const before = await usageOf(subject.server)
  const outcome = await post(subject.url, { ...subject, connections, seconds: ROUND_SECONDS })
  const after = await usageOf(subject.server)
  const used = (what: keyof Usage) => (after[what] - before[what]) / outcome.answered
  return { ...outcome, cpuMs: used('cpuMs'), kv: used('kvRequests'), sql: used('sqlQueries') }
}

async function usageOf(server: Server): Promise<Usage> {
  const [own, { kvRequests }] = await Promise.all([server.usage(), kv.usage()])
  return { ...own, kvRequests }
}

function cellOf(subject: string, delayMs: number, connections: number, rounds: Round[]): Cell {
  const latenciesMs = rounds.flatMap((round) => round.latenciesMs)
  const cpuMs = median(rounds.map((round) => round.cpuMs))
  return {
    upstreamMs: delayMs,
    connections,
    subject,
    requests: latenciesMs.length,
    failed: rounds.flatMap(({ failures }) => failures).length,
    perSecond: rounded(median(rounds.map(({ answered, seconds }) => answered / seconds))),
    p50Ms: Math.round(quantile(latenciesMs, 0.5)),
    p99Ms: Math.round(quantile(latenciesMs, 0.99)),
    cpuMs: rounded(cpuMs),
    perCpuSecond: Math.round(1000 / cpuMs),
    kv: rounded(median(rounds.map((round) => round.kv)), 2),
    sql: rounded(median(rounds.map((round) => round.sql)), 2),
  }
}

/** Whether every token is accounted for after all that. */
async function auditLedger() {
  const violations = await ledgerViolations()
  const { rows } = await sql<{ state: string; holds: number; tokens: number }>`
    select state, count(*)::int as holds, sum(coalesce(spent, 0))::bigint as tokens from ledger_hold group by state
  `.execute(db())
  const { rows: usage } = await sql<{ rows: number; tokens: number }>`
    select count(*)::int as rows, coalesce(sum(tokens_used), 0)::bigint as tokens from usage_logs
  `.execute(db())
  return { violations, holds: rows, usage: usage[0] }
}

function report(cells: Cell[], variants: Cell[], ledger: Awaited<ReturnType<typeof auditLedger>>): void {
  const kilobytes = (body: Buffer) => Math.round(body.length / 1000)
  const facts = `${kilobytes(photo)} kB JPEG in (${kilobytes(json)} kB as JSON), 1.05 MB PNG out, ${ROUNDS} rounds in turn`
  printTable(`process-image: ${facts}`, cells)
  printTable(`The same at ${FOCUS.connections} connections, other ways to ask`, variants)
  const focus = cells.filter(({ upstreamMs, connections }) => {
    return upstreamMs === FOCUS.delayMs && connections === FOCUS.connections
  })
  const bare = focus.find(({ subject }) => subject === 'bare proxy')
  const verdicts = focus
    .filter((cell) => cell !== bare)
    .map((cell) => ({
      [`at ${FOCUS.connections} connections`]: cell.subject,
      [`CPU ms (target ≤ ${TARGETS.cpuMs})`]: cell.cpuMs,
      'over the bare proxy': rounded(cell.cpuMs - (bare?.cpuMs ?? 0)),
      [`requests per core and second (≥ ${TARGETS.requestsPerCore})`]: cell.perCpuSecond,
      [`KV (≤ ${TARGETS.kvRoundTrips})`]: cell.kv,
      [`SQL (≤ ${TARGETS.sqlRoundTrips})`]: cell.sql,
    }))
  const holds = ledger.holds.map(({ state, holds, tokens }) => `${holds} ${state} (${tokens} tokens)`).join(', ')
  printTable('Targets', verdicts, [
    `The ledger afterwards: ${ledger.violations.length} contradictions; holds: ${holds};`,
    `usage rows: ${ledger.usage?.rows} (${ledger.usage?.tokens} tokens).`,
  ])
  saveResults('process-image', { targets: TARGETS, cells, variants, ledger })
}
