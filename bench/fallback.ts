// What a dead provider costs: POST /api/process-image with the first provider down and its circuit open, beside the second one alone.
import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import * as v from 'valibot'
import { signAccessToken } from '../lib/auth/access-token.ts'
import { post } from './load.ts'
import { photoOf } from './photo.ts'
import { median, printTable, quantile, quick, rounded, saveResults } from './report.ts'
import { type Server, startServer } from './servers.ts'
import { addAccounts, scratchDatabase } from './stores.ts'

const TARGET_RATIO = 1.1
const UPSTREAM_MS = 200
const CONNECTIONS = 4
const ROUNDS = quick ? 2 : 9
const ROUND_SECONDS = quick ? 0.5 : 3
const RECOVERY_MAX_SECONDS = 60

const Reply = v.object({
  provider: v.string(),
  fallback: v.object({ failed: v.array(v.object({ kind: v.string() })) }),
})

process.env.AUTH_JWT_SECRET = randomUUID()
const database = await scratchDatabase()
const kvToken = randomUUID()
const [kv, gemini, openai] = await Promise.all([
  startServer('kv', { KV_REST_API_TOKEN: kvToken }),
  startServer('gemini'),
  startServer('openai'),
])
const common = {
  POSTGRES_URL: database.url,
  KV_REST_API_URL: kv.url,
  KV_REST_API_TOKEN: kvToken,
  GEMINI_API_KEY: 'bench',
  GEMINI_BASE_URL: gemini.url,
  OPENAI_API_KEY: 'bench',
  OPENAI_BASE_URL: openai.url,
  FORK__LIMITS__GENERATE__PER_MINUTE: '100000',
  FORK__AI__BUDGETS__DAILY_USD: '1000000',
  FORK__AI__BUDGETS__MONTHLY_USD: '1000000',
  FORK__AI__BUDGETS__FREE_TIER_DAILY_USD: '1000000',
}
const both = { ...common, FORK__TOOLS__0__PROVIDERS: '["openai","gemini"]' }
const [alone, guarded, unguarded] = await Promise.all([
  startServer('product', { ...common, FORK__TOOLS__0__PROVIDERS: '["gemini"]' }),
  startServer('product', both),
  startServer('product', { ...both, FORK__AI__CIRCUIT_BREAKERS: 'false' }),
])
const servers = [alone, guarded, unguarded, kv, gemini, openai]
const accounts = await addAccounts(database.url, CONNECTIONS)
const bearers = await Promise.all(accounts.map(async (account) => `Bearer ${await signAccessToken(account)}`))
const photo = await photoOf(1024, 768)

try {
  await behave(gemini, { kind: 'ok', delayMs: UPSTREAM_MS })
  await behave(openai, { kind: 'status', status: 503 })
  const opening = await untilReply((reply) => reply.fallback.failed[0]?.kind === 'circuit_open')
  await behave(openai, { kind: 'ok' })
  const recovery = await untilReply((reply) => reply.provider === 'openai')
  await behave(openai, { kind: 'status', status: 503 })
  await untilReply((reply) => reply.fallback.failed[0]?.kind === 'circuit_open')
  report(await measure(), opening, recovery)
} finally {
  await Promise.all(servers.map((server) => server.stop()))
  await database.drop()
}

async function behave(stub: Server, behaviour: Record<string, unknown>): Promise<void> {
  await fetch(`${stub.url}/__behave`, { method: 'POST', body: JSON.stringify(behaviour) })
}

function addressOf({ url }: Server): string {
  return `${url.replace(/\/$/, '')}/api/process-image`
}

/** Asks the guarded server one request after the other until a reply is as wanted; says how many it took, and how long. */
async function untilReply(isWanted: (reply: v.InferOutput<typeof Reply>) => boolean) {
  const startedAt = performance.now()
  for (let requests = 1; performance.now() - startedAt < RECOVERY_MAX_SECONDS * 1000; requests += 1) {
    const headers = { 'content-type': 'image/jpeg', authorization: bearers[0] ?? '' }
    const response = await fetch(addressOf(guarded), { method: 'POST', body: new Uint8Array(photo), headers })
    const reply = v.parse(Reply, await response.json())
    if (isWanted(reply)) return { requests, seconds: rounded((performance.now() - startedAt) / 1000) }
    await pause(100)
  }
  throw new Error(`No such reply in ${RECOVERY_MAX_SECONDS} seconds.`)
}

/** The servers take turns, so that a noisy moment hits all of them. */
async function measure() {
  const subjects = [
    { name: 'the second provider alone', server: alone },
    { name: 'the first one dead, its circuit open', server: guarded },
    { name: 'the same without circuits', server: unguarded },
  ]
  const p50s = subjects.map((): number[] => [])
  const latencies = subjects.map((): number[] => [])
  let failed = 0
  for (let round = -1; round < ROUNDS; round += 1) {
    for (const [index, { server }] of subjects.entries()) {
      const headers = (connection: number) => ({
        'content-type': 'image/jpeg',
        accept: 'image/*',
        authorization: bearers[connection] ?? '',
      })
      const load = { connections: CONNECTIONS, seconds: ROUND_SECONDS, body: photo, headers }
      const { latenciesMs, failures } = await post(addressOf(server), load)
      failed += failures.length
      if (round < 0) continue // Code that has not been compiled yet.
      p50s[index]?.push(quantile(latenciesMs, 0.5))
      latencies[index]?.push(...latenciesMs)
    }
  }
  const [baseline = []] = p50s
  return subjects.map(({ name }, index) => {
    const ratios = (p50s[index] ?? []).map((p50, round) => p50 / (baseline[round] ?? Number.NaN))
    return {
      subject: name,
      requests: latencies[index]?.length ?? 0,
      failed,
      p50Ms: rounded(median(p50s[index] ?? [])),
      p99Ms: Math.round(quantile(latencies[index] ?? [], 0.99)),
      ratio: rounded(median(ratios), 3),
    }
  })
}

type Phase = Awaited<ReturnType<typeof untilReply>>

function report(rows: Awaited<ReturnType<typeof measure>>, opening: Phase, recovery: Phase): void {
  const guardedRatio = rows[1]?.ratio ?? Number.NaN
  const facts = `${CONNECTIONS} connections, ${UPSTREAM_MS} ms upstream, ${ROUNDS} rounds in turn`
  printTable(`A dead provider: ${facts}; p50 is the median of rounds, ratio that of each round to its baseline`, rows, [
    `With the circuit open, p50 is ${guardedRatio} times the baseline (target < ${TARGET_RATIO}): ${guardedRatio < TARGET_RATIO ? 'met' : 'MISSED'}.`,
    `It opened after ${opening.requests} requests, ${opening.seconds} s; the provider answered again ${recovery.seconds} s after it was well.`,
  ])
  saveResults('fallback', { targetRatio: TARGET_RATIO, rows, opening, recovery })
}
