// Every provider in every kind of trouble, alone and with another one behind it: docs/fault-matrix.md is what came of it.
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, call, photo, startApp } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import type { Behaviour as GeminiBehaviour } from '../support/gemini-replies.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { leaveTokens, ledgerViolations } from '../support/money.ts'
import { type Behaviour, startProviderStub } from '../support/provider-stub.ts'

const DAY_MS = 86_400_000
const OVERSIZED = 'x'.repeat(33_000_000)

/** What goes wrong, and how each kind of stub is told to do it. */
const FAULTS: { fault: string; gemini: GeminiBehaviour; others: Behaviour }[] = [
  { fault: 'none', gemini: { kind: 'ok' }, others: { kind: 'ok' } },
  ...[400, 401, 403].map((status) => ({
    fault: String(status),
    gemini: { kind: 'status' as const, status },
    others: { kind: 'status' as const, status },
  })),
  { fault: '404, model gone', gemini: { kind: 'modelGone' }, others: { kind: 'modelGone' } },
  {
    fault: '429, try again in 0.2 s',
    gemini: { kind: 'rateLimited', quota: 'minute', retryDelay: '0.2s' },
    others: { kind: 'rateLimited', retryAfterMs: 200 },
  },
  {
    fault: '429, no delay given',
    gemini: { kind: 'rateLimited', quota: 'minute' },
    others: { kind: 'rateLimited' },
  },
  ...[500, 503, 529].map((status) => ({
    fault: String(status),
    gemini: { kind: 'status' as const, status },
    others: { kind: 'status' as const, status },
  })),
  { fault: 'no answer', gemini: { kind: 'hang' }, others: { kind: 'hang' } },
  { fault: 'a byte at a time', gemini: { kind: 'slowDrip' }, others: { kind: 'slowDrip' } },
  { fault: 'reset within the body', gemini: { kind: 'reset' }, others: { kind: 'reset' } },
  { fault: 'body cut short', gemini: { kind: 'truncated' }, others: { kind: 'truncated' } },
  { fault: 'HTML error page', gemini: { kind: 'html502' }, others: { kind: 'html502' } },
  { fault: 'picture blocked', gemini: { kind: 'finish', reason: 'IMAGE_SAFETY' }, others: { kind: 'blocked' } },
  { fault: 'no picture', gemini: { kind: 'textOnly' }, others: { kind: 'noImage' } },
  {
    fault: 'picture of another type than said',
    gemini: { kind: 'ok', format: 'jpeg', mimeType: 'image/png' },
    others: { kind: 'wrongMime' },
  },
  { fault: 'oversized body', gemini: { kind: 'raw', status: 200, body: OVERSIZED }, others: { kind: 'oversized' } },
]

const NETWORK = ['gemini', 'openai', 'anthropic', 'stability'] as const
type NetworkProvider = (typeof NETWORK)[number]
/** The quality each is asked in: pictures of Anthropic are drafts. */
const QUALITY: Partial<Record<NetworkProvider, string>> = { anthropic: 'draft' }
/** Who is asked next where somebody is. */
const BEHIND: Record<NetworkProvider, NetworkProvider> = {
  gemini: 'openai',
  openai: 'gemini',
  anthropic: 'openai',
  stability: 'gemini',
}

interface Outcome {
  answer: string
  by: string
  calls: string
  charged: number
  costMicroUsd: number
}

let app: App
let stubs: Record<NetworkProvider, Awaited<ReturnType<typeof startGeminiStub> | ReturnType<typeof startProviderStub>>>
let gemini: Awaited<ReturnType<typeof startGeminiStub>>
let others: Record<Exclude<NetworkProvider, 'gemini'>, Awaited<ReturnType<typeof startProviderStub>>>
let daysAhead = 0

beforeAll(async () => {
  const realNow = Date.now
  vi.spyOn(Date, 'now').mockImplementation(() => realNow() + daysAhead * DAY_MS)
  gemini = await startGeminiStub()
  others = {
    openai: await startProviderStub('openai'),
    anthropic: await startProviderStub('anthropic'),
    stability: await startProviderStub('stability'),
  }
  stubs = { gemini, ...others }
  app = await startApp({
    ...Object.fromEntries(
      NETWORK.flatMap((id) => [
        [`${id.toUpperCase()}_API_KEY`, `${id}-key`],
        [`${id.toUpperCase()}_BASE_URL`, stubs[id].url],
      ]),
    ),
    FORK__TOOLS__0__PROVIDERS: JSON.stringify([...NETWORK, 'sketch']),
    FORK__TOOLS__0__DRAFT_PRICE_TOKENS: '100',
    FORK__AI__PROVIDER_TIMEOUT_MS: '2000',
    FORK__AI__DEADLINE_MS: '20000',
    FORK__AI__BUDGETS__FREE_TIER_DAILY_USD: '25',
  })
})
afterAll(async () => {
  vi.restoreAllMocks()
  await Promise.all(Object.values(stubs).map((stub) => stub.close()))
})

/** Leaves these providers on and switches the others off. A day later nothing is remembered of switches, circuits and budgets. */
async function leaveOn(ids: readonly string[]): Promise<void> {
  daysAhead += 1
  await db().deleteFrom('switches').execute()
  const off = [...NETWORK, 'sketch'].filter((id) => !ids.includes(id))
  await db()
    .insertInto('switches')
    .values(off.map((name) => ({ name, off: true, reason: 'Not part of this row.' })))
    .execute()
}

async function givenPayer(): Promise<Account> {
  const user = await givenAccount()
  await leaveTokens(user.id, 1000)
  return user
}

async function ask(
  user: Account,
  { quality = 'standard', provider }: { quality?: string | undefined; provider: string },
  image = photo(),
): Promise<Outcome> {
  const { status, json, headers } = await call(app, `POST /api/process-image?quality=${quality}&provider=${provider}`, {
    token: user.token,
    body: image,
    headers: { 'content-type': 'image/jpeg' },
  })
  const requestId = headers.get('x-request-id') ?? ''
  const usage = await db().selectFrom('usage_logs').selectAll().where('request_id', '=', requestId).executeTakeFirst()
  const calls = await db()
    .selectFrom('provider_calls')
    .selectAll()
    .where('request_id', '=', requestId)
    .orderBy('id')
    .execute()
  const made = calls.map(({ provider, outcome }) => `${provider} ${outcome}`)
  expect(calls.reduce((sum, { cost_micro_usd }) => sum + cost_micro_usd, 0)).toBe(usage?.cost_micro_usd ?? 0)
  return {
    answer: status === 200 ? '200' : `${status} ${json.error.code}`,
    by: status === 200 ? json.provider : '–',
    calls: counted(made),
    charged: usage?.tokens_used ?? 0,
    costMicroUsd: usage?.cost_micro_usd ?? 0,
  }
}

/** `2 × overloaded, ok`: what each call came to, without the provider's name where it goes without saying. */
function counted(calls: string[]): string {
  const runs: { what: string; times: number }[] = []
  for (const what of calls) {
    const last = runs.at(-1)
    if (last?.what === what) last.times += 1
    else runs.push({ what, times: 1 })
  }
  return runs.map(({ what, times }) => (times > 1 ? `${times} × ${what}` : what)).join(', ') || 'none'
}

const cell = ({ answer, by, calls, charged, costMicroUsd }: Outcome) =>
  `${answer} | ${by} | ${calls} | ${charged} | ${costMicroUsd}`

const HEADER = `# Every provider in every kind of trouble

Made by \`npx vitest run --project embedded tests/docs/fault-matrix.test.ts -u\` and compared with what happens by every run of the tests. Each row is one
\`POST /api/process-image\` (price: 100 tokens) through the whole product against a stub of the provider's API over HTTP; \`calls\` are what provider_calls recorded, retries
included, and \`cost\` is in micro-USD: where an answer broke off after it had begun, or did not come
in time, the provider may bill it, and it counts as what such a call is expected to cost. Gemini is asked a second time, in other words, within the call that brought no picture. Pictures of Anthropic are asked for in quality \`draft\`.
`
const COLUMNS =
  '| what goes wrong | answer | by | calls | tokens charged | cost |\n| --- | --- | --- | --- | ---: | ---: |'

test('the table in the docs is what happens', { timeout: 400_000 }, async () => {
  expectErrorsInLog()
  const sections: string[] = []
  for (const id of NETWORK) {
    const tables: Record<'alone' | 'backed', string[]> = { alone: [], backed: [] }
    for (const { fault, gemini: forGemini, others: forOthers } of FAULTS) {
      for (const way of ['alone', 'backed'] as const) {
        await leaveOn(way === 'alone' ? [id] : [id, BEHIND[id]])
        for (const stub of Object.values(stubs)) stub.behave({ kind: 'ok' })
        if (id === 'gemini') gemini.behave(forGemini)
        else others[id].behave(forOthers)
        const outcome = await ask(await givenPayer(), { quality: QUALITY[id], provider: id })
        if (fault !== 'none' && outcome.answer !== '200') expect(outcome.charged, `${id}: ${fault}`).toBe(0)
        tables[way].push(`| ${fault} | ${cell(outcome)} |`)
      }
    }
    sections.push(
      `## ${id}, alone\n\n${COLUMNS}\n${tables.alone.join('\n')}`,
      `## ${id}, with ${BEHIND[id]} behind it\n\n${COLUMNS}\n${tables.backed.join('\n')}`,
    )
  }
  await leaveOn(['sketch'])
  const damaged = photo().subarray(0, 20_000)
  const ownRows = [
    `| none | ${cell(await ask(await givenPayer(), { provider: 'sketch' }))} |`,
    `| picture damaged | ${cell(await ask(await givenPayer(), { provider: 'sketch' }, damaged))} |`,
  ]
  sections.push(
    `## sketch\n\nIt runs on the machine itself, so that no network can fail it.\n\n${COLUMNS}\n${ownRows.join('\n')}`,
  )
  expect(await ledgerViolations()).toEqual([])
  await expect(`${HEADER}\n${sections.join('\n\n')}\n`).toMatchFileSnapshot('../../docs/fault-matrix.md')
})
