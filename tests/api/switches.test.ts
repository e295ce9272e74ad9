// What an operator stops by hand stops, on every instance, and comes back by hand.
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, balanceOf, call, processImage, startApp } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { usageRows } from '../support/money.ts'
import { type ProviderStubs, startProviderStubs } from '../support/provider-stubs.ts'

const FORCE_SECONDS = 30

let app: App
let stubs: ProviderStubs
let admin: Account
let user: Account

beforeAll(async () => {
  stubs = await startProviderStubs()
  app = await startApp({ ...stubs.variables, FORK__TOOLS__0__PROVIDERS: '["gemini","openai"]' })
  admin = await givenAccount({ role: 'admin' })
})

afterAll(() => stubs.close())

beforeEach(async () => {
  letPass(0)
  stubs.forget()
  user = await givenAccount()
})

afterEach(async () => {
  for (const name of ['generate', 'gemini', 'openai']) await turn(name, { off: false, reason: 'The test is over.' })
})

/** Turns a switch, and lets the time pass after which every function believes it. */
async function turn(name: string, body: unknown, token = admin.token) {
  const reply = await call(app, `PUT /api/admin/switches/${name}`, { token, body })
  letPass(FORCE_SECONDS)
  return reply
}
const generate = () => processImage(app, { ...user, password: '' })

const realNow = Date.now
let secondsAhead = 0

/** Lets the clock of this process run ahead, never back, and with it what it believes grow old. */
function letPass(seconds: number) {
  secondsAhead += seconds
  vi.spyOn(Date, 'now').mockImplementation(() => realNow() + secondsAhead * 1000)
}

describe('the switch of a provider', () => {
  test('takes it out of the order, and brings it back', async () => {
    expect((await generate()).json.provider).toBe('gemini')
    const off = await turn('gemini', { off: true, reason: 'It answers with nonsense.' })
    expect([off.status, off.json]).toEqual([200, { name: 'gemini', off: true, reason: 'It answers with nonsense.' }])
    stubs.forget()
    const { json } = await generate()
    expect(json).toMatchObject({
      provider: 'openai',
      fallback: { used: true, failed: [{ provider: 'gemini', kind: 'switched_off' }] },
    })
    expect(JSON.stringify(json.fallback), 'what the operator wrote is for operators').not.toContain('nonsense')
    expect(stubs.asked('gemini')).toBe(0)
    await turn('gemini', { off: false, reason: 'It is well again.' })
    expect((await generate()).json.provider).toBe('gemini')
  })

  test('shows in readiness and, with its reason, in the report', async () => {
    await turn('openai', { off: true, reason: 'Too dear.' })
    expect((await call(app, 'GET /api/health/ready')).json).toMatchObject({
      status: 'degraded',
      checks: { providers: { status: 'degraded' } },
    })
    const { json } = await call(app, 'GET /api/admin/health', { token: admin.token })
    expect(json.providers).toContainEqual(
      expect.objectContaining({ provider: 'openai', status: 'switched_off', reason: 'Too dear.' }),
    )
  })

  test('with all of them off nothing is made, and nothing charged', async () => {
    expectErrorsInLog()
    for (const name of ['gemini', 'openai']) await turn(name, { off: true, reason: 'Closed.' })
    const before = await balanceOf(app, { ...user, password: '' })
    const { status, json } = await generate()
    expect([status, json.error.code]).toEqual([503, 'PROVIDER_UNAVAILABLE'])
    expect(json.error.details.providers.map(({ kind }: { kind: string }) => kind)).toEqual([
      'switched_off',
      'switched_off',
    ])
    expect(await balanceOf(app, { ...user, password: '' })).toEqual(before)
    expect((await call(app, 'GET /api/health/ready')).status).toBe(503)
  })
})

describe('the switch of making', () => {
  test('refuses before anything is held or asked', async () => {
    await turn('generate', { off: true, reason: 'Under attack.' })
    const { status, json } = await generate()
    expect([status, json.error.code, json.error.details]).toEqual([503, 'FEATURE_DISABLED', { reason: 'switched_off' }])
    expect(stubs.asked('gemini')).toBe(0)
    const report = await call(app, 'GET /api/admin/health', { token: admin.token })
    expect(report.json.generate).toEqual({ off: true, reason: 'Under attack.' })
    await turn('generate', { off: false, reason: 'Over.' })
    expect((await generate()).status).toBe(200)
  })

  test('keeps no answer back that was made before', async () => {
    const ask = (key: string) => processImage(app, { ...user, password: '' }, { headers: { 'idempotency-key': key } })
    const first = await ask('before-the-stop')
    await turn('generate', { off: true, reason: 'Under attack.' })
    const [again, other] = [await ask('before-the-stop'), await ask('after-the-stop')]
    expect([again.status, again.json]).toEqual([200, first.json])
    expect([other.status, other.json.error.code]).toEqual([503, 'FEATURE_DISABLED'])
    expect(await usageRows(user.id)).toHaveLength(1)
  })
})

describe('a switch turned on another instance', () => {
  const turnElsewhere = (off: boolean) =>
    db()
      .insertInto('switches')
      .values({ name: 'generate', off, reason: 'Elsewhere.', changed_by: null, changed_at: new Date() })
      .onConflict((conflict) => conflict.column('name').doUpdateSet({ off }))
      .execute()

  test(`is in force here within ${FORCE_SECONDS} seconds`, async () => {
    expect((await generate()).status).toBe(200)
    await turnElsewhere(true)
    letPass(FORCE_SECONDS)
    expect((await generate()).json.error.code).toBe('FEATURE_DISABLED')
  })

  test('stays what it was while the database cannot tell, and fails no request by that', async () => {
    await turn('generate', { off: true, reason: 'Under attack.' })
    expect((await generate()).json.error.code).toBe('FEATURE_DISABLED')
    await sql`alter table switches rename to switches_away`.execute(db())
    try {
      letPass(FORCE_SECONDS)
      expect((await generate()).json.error.code).toBe('FEATURE_DISABLED')
    } finally {
      await sql`alter table switches_away rename to switches`.execute(db())
    }
    await turn('generate', { off: false, reason: 'Over.' })
    expect((await generate()).status).toBe(200)
    await sql`alter table switches rename to switches_away`.execute(db())
    try {
      letPass(FORCE_SECONDS)
      expect((await generate()).status).toBe(200)
    } finally {
      await sql`alter table switches_away rename to switches`.execute(db())
    }
  })
})

describe('turning a switch', () => {
  test('is for admins', async () => {
    expect((await turn('gemini', { off: true, reason: 'Why not.' }, user.token)).status).toBe(404)
  })

  test.each([
    { why: 'a switch that is none', name: 'everything', body: { off: true, reason: 'Try.' }, status: 404 },
    { why: 'no reason', name: 'gemini', body: { off: true }, status: 400 },
    { why: 'an empty reason', name: 'gemini', body: { off: true, reason: ' ' }, status: 400 },
    { why: 'anything but yes or no', name: 'gemini', body: { off: 'yes', reason: 'Try.' }, status: 400 },
    { why: 'more than is asked', name: 'gemini', body: { off: true, reason: 'Try.', until: 1 }, status: 400 },
  ])('is refused with $why', async ({ name, body, status }) => {
    expect((await turn(name, body)).status).toBe(status)
  })

  test('is on the audit log, with who, why, and what it was before', async () => {
    await turn('stability', { off: true, reason: 'Too dear.' })
    await turn('stability', { off: false, reason: 'Cheaper now.' })
    const rows = await db()
      .selectFrom('audit_log')
      .select(['action', 'actor_id', 'reason', 'before', 'after'])
      .where('target_type', '=', 'switch')
      .where('target_id', '=', 'stability')
      .orderBy('id')
      .execute()
    expect(rows).toMatchObject([
      { action: 'switch.off', actor_id: admin.id, reason: 'Too dear.', before: { off: false }, after: { off: true } },
      { action: 'switch.on', actor_id: admin.id, reason: 'Cheaper now.', before: { off: true }, after: { off: false } },
    ])
  })
})
