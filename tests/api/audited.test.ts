// Every route that changes something leaves its trace: the list is made of the route tables, and each of them is called.
import { Secret, TOTP } from 'otpauth'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { call, givenUser, type TestUser } from '../support/app.ts'
import { givenOrder } from '../support/billing-rows.ts'
import { type MailStub, startMailStub, tokenIn } from '../support/mail-stub.ts'
import { buy, type Payments, startPayments, subscribe } from '../support/payments.ts'
import { allRoutes } from '../support/routes.ts'

const PASSWORD = 'correct horse battery staple'
const PICTURED = 'a row of usage_logs and the journal of the ledger'
const DERIVED = 'rows of its own for every state, with the event that brought it'

/** The actions found in the log after the act, or where its trace is if it is not there. */
type Trace = { act: () => Promise<string[]>; actions: string[] } | { elsewhere: string }

let payments: Payments
let mail: MailStub
let admin: Account
/** Acted upon in turn; each act finds what the one before it left. */
let ada: TestUser

beforeAll(async () => {
  mail = await startMailStub()
  payments = await startPayments(mail.variables)
  admin = await givenAccount({ role: 'admin' })
  ada = await givenUser(payments.app)
})
afterAll(() => mail.close())

async function actionsAfter(position: number): Promise<string[]> {
  const rows = await db().selectFrom('audit_log').select('action').where('id', '>', position).orderBy('id').execute()
  return rows.map(({ action }) => action)
}

async function lastPosition(): Promise<number> {
  const row = await db().selectFrom('audit_log').select('id').orderBy('id', 'desc').limit(1).executeTakeFirst()
  return row?.id ?? 0
}

/** Calls a route, which has to succeed, and returns the actions that it left in the log. */
async function traced(what: string, token: string | undefined, body?: object): Promise<string[]> {
  const position = await lastPosition()
  const { status, json } = await call(payments.app, what, { token, ...(body && { body }) })
  if (status >= 300) throw new Error(`${what} failed: ${status} ${JSON.stringify(json)}`)
  await payments.polar.settled()
  return await actionsAfter(position)
}

async function codeOf(secret: string, stepsAhead: number): Promise<string> {
  return new TOTP({ secret: Secret.fromBase32(secret) }).generate({ timestamp: Date.now() + stepsAhead * 30_000 })
}

async function enrolled(): Promise<{ token: string; secret: string; recoveryCodes: string[] }> {
  const { token } = await givenAccount()
  const { json } = await call(payments.app, 'POST /api/auth/mfa/enroll', { token })
  const body = { code: await codeOf(json.secret, 0) }
  const verified = await call(payments.app, 'POST /api/auth/mfa/verify', { token, body })
  return { token, secret: json.secret, recoveryCodes: verified.json.recoveryCodes }
}

async function deleted(): Promise<{ email: string; password: string }> {
  const { token, email, password } = await givenUser(payments.app)
  await call(payments.app, 'DELETE /api/user/profile', { token })
  return { email, password }
}

const onKey = async (verb: string, path: string, body?: object) => {
  const { token } = await givenAccount()
  const { json } = await call(payments.app, 'POST /api/api-keys', { token, body: { name: 'robot' } })
  return await traced(`${verb} /api/api-keys/${json.id}${path}`, token, body)
}

const onUser = async (verb: string, path: string, body: object) =>
  await traced(`${verb} /api/admin/users/${(await givenAccount()).id}${path}`, admin.token, body)

/** A customer with a paid plan, which `before` has cancelled. */
const onPlan = async (action: string, before?: string) => {
  const customer = await givenUser(payments.app)
  await subscribe(payments, customer, 'pro')
  if (before) await call(payments.app, `POST /api/billing/${before}`, { token: customer.token })
  return await traced(`POST /api/billing/${action}`, customer.token)
}

const TRACES: Record<string, Trace> = {
  'POST /api/auth/register': {
    act: () =>
      traced('POST /api/auth/register', undefined, { name: 'Bob', email: 'bob@example.org', password: PASSWORD }),
    actions: ['user.register'],
  },
  'POST /api/auth/login': {
    act: () => traced('POST /api/auth/login', undefined, { email: ada.email, password: PASSWORD }),
    actions: ['session.begin'],
  },
  'POST /api/auth/refresh': { elsewhere: 'refresh_tokens, a row for each exchange; what is stolen is session.reuse' },
  'POST /api/auth/logout': {
    act: async () => traced('POST /api/auth/logout', undefined, { refreshToken: (await givenAccount()).refreshToken }),
    actions: ['session.end'],
  },
  'DELETE /api/auth/sessions/:id': {
    act: async () => {
      const { sessionId, token } = await givenAccount()
      return await traced(`DELETE /api/auth/sessions/${sessionId}`, token)
    },
    actions: ['session.end'],
  },
  'POST /api/auth/restore': {
    act: async () => traced('POST /api/auth/restore', undefined, await deleted()),
    actions: ['user.restore', 'session.begin'],
  },
  'POST /api/auth/password': {
    act: () => traced('POST /api/auth/password', ada.token, { currentPassword: PASSWORD, newPassword: `${PASSWORD}!` }),
    actions: ['user.password'],
  },
  'POST /api/auth/password/forgot': { elsewhere: 'a mail; nothing changes until its link is used' },
  'POST /api/auth/password/reset': {
    act: async () => {
      const { email } = await givenUser(payments.app)
      await call(payments.app, 'POST /api/auth/password/forgot', { body: { email } })
      const token = tokenIn(await mail.arrived(email, 2), 'reset')
      return await traced('POST /api/auth/password/reset', undefined, { token, newPassword: `${PASSWORD}?` })
    },
    actions: ['user.password_reset'],
  },
  'POST /api/auth/email/verification': { elsewhere: 'a mail; nothing changes until its link is used' },
  'POST /api/auth/email/verify': {
    act: async () => {
      const { email } = await givenUser(payments.app)
      return await traced('POST /api/auth/email/verify', undefined, { token: tokenIn(await mail.arrived(email)) })
    },
    actions: ['email.verify'],
  },
  'POST /api/auth/email/change': {
    elsewhere: 'a mail, and email.request with it; nothing changes until its link is used',
  },
  'POST /api/auth/mfa/enroll': {
    act: async () => traced('POST /api/auth/mfa/enroll', (await givenAccount()).token),
    actions: ['mfa.enroll'],
  },
  'POST /api/auth/mfa/verify': {
    act: async () => {
      const { token } = await givenAccount()
      const { json } = await call(payments.app, 'POST /api/auth/mfa/enroll', { token })
      return await traced('POST /api/auth/mfa/verify', token, { code: await codeOf(json.secret, 0) })
    },
    actions: ['mfa.enable'],
  },
  'POST /api/auth/mfa/recovery-codes': {
    act: async () => {
      const { token, secret } = await enrolled()
      return await traced('POST /api/auth/mfa/recovery-codes', token, { code: await codeOf(secret, 1) })
    },
    actions: ['mfa.recovery_codes'],
  },
  'POST /api/auth/mfa/disable': {
    act: async () => {
      const { json: session } = await call(payments.app, 'POST /api/auth/register', {
        body: { name: 'Bob', email: `${crypto.randomUUID()}@example.org`, password: PASSWORD },
      })
      const token = session.accessToken
      const { json } = await call(payments.app, 'POST /api/auth/mfa/enroll', { token })
      const { json: made } = await call(payments.app, 'POST /api/auth/mfa/verify', {
        token,
        body: { code: await codeOf(json.secret, 0) },
      })
      const [code] = made.recoveryCodes
      return await traced('POST /api/auth/mfa/disable', token, { password: PASSWORD, code })
    },
    actions: ['mfa.disable'],
  },
  'PUT /api/user/profile': {
    act: async () => traced('PUT /api/user/profile', (await givenAccount()).token, { name: 'Ada L.' }),
    actions: ['user.profile'],
  },
  'DELETE /api/user/profile': {
    act: async () => traced('DELETE /api/user/profile', (await givenAccount()).token),
    actions: ['user.delete'],
  },
  'POST /api/api-keys': {
    act: async () => traced('POST /api/api-keys', (await givenAccount()).token, { name: 'robot' }),
    actions: ['api_key.create'],
  },
  'DELETE /api/api-keys/:id': { act: () => onKey('DELETE', ''), actions: ['api_key.revoke'] },
  'POST /api/api-keys/:id/rotate': { act: () => onKey('POST', '/rotate', {}), actions: ['api_key.rotate'] },
  'POST /api/process-image': { elsewhere: PICTURED },
  'POST /api/process-image/uploads': { elsewhere: 'nothing is changed: it hands out a permission that ends by itself' },
  'DELETE /api/jobs/:id': { elsewhere: 'the row of the job, and the journal of the ledger' },
  'POST /api/billing/checkout': {
    act: async () => traced('POST /api/billing/checkout', (await givenAccount()).token, { pack: 'starter' }),
    actions: ['checkout.open'],
  },
  'POST /api/billing/checkouts/:id/sync': { elsewhere: DERIVED },
  'POST /api/billing/upgrade': {
    act: async () => traced('POST /api/billing/upgrade', (await givenAccount()).token, { plan: 'pro' }),
    actions: ['plan.change'],
  },
  'POST /api/billing/cancel': { act: () => onPlan('cancel'), actions: ['plan.cancel'] },
  'POST /api/billing/resume': { act: () => onPlan('resume', 'cancel'), actions: ['plan.resume'] },
  'POST /api/billing/portal': { elsewhere: 'what is done there comes back as events' },
  'POST /api/webhooks/polar': { elsewhere: DERIVED },
  'POST /api/webhooks/clerk': { elsewhere: 'tests of the webhooks, under that provider' },
  'POST /api/jobs/sweep': {
    elsewhere: 'a row for each account that it purges; the rest is in the journal and the log',
  },
  'PATCH /api/admin/users/:id': {
    act: () => onUser('PATCH', '', { status: 'suspended', role: 'admin', plan: 'pro', reason: 'a test' }),
    actions: ['user.role', 'user.plan', 'user.suspend'],
  },
  'DELETE /api/admin/users/:id': { act: () => onUser('DELETE', '', { reason: 'a test' }), actions: ['user.delete'] },
  'POST /api/admin/users/:id/grant': {
    act: () => onUser('POST', '/grant', { tokens: 10, reason: 'a test' }),
    actions: ['tokens.grant'],
  },
  'POST /api/admin/users/:id/revoke': {
    act: async () => {
      const { id } = await givenAccount()
      const body = { tokens: 10, reason: 'a test' }
      await call(payments.app, `POST /api/admin/users/${id}/grant`, { token: admin.token, body })
      return await traced(`POST /api/admin/users/${id}/revoke`, admin.token, body)
    },
    actions: ['tokens.revoke'],
  },
  'POST /api/admin/orders/:id/assign': {
    act: async () => {
      const id = await givenOrder({ ordered_at: '2026-03-01T00:00:00Z', problem: 'no_user' })
      return await traced(`POST /api/admin/orders/${id}/assign`, admin.token, { userId: ada.id, reason: 'a test' })
    },
    actions: ['order.assign'],
  },
  'PUT /api/admin/switches/:name': {
    act: () => traced('PUT /api/admin/switches/gemini', admin.token, { off: true, reason: 'a test' }),
    actions: ['switch.off'],
  },
  'POST /api/admin/webhooks/:id/replay': {
    act: async () => {
      await buy(payments, ada, { pack: 'starter' })
      const { id } = await db().selectFrom('webhook_events').select('id').limit(1).executeTakeFirstOrThrow()
      return await traced(`POST /api/admin/webhooks/${id}/replay`, admin.token)
    },
    actions: ['webhook.replay'],
  },
  'POST /api/admin/polar/redeliver': {
    act: () => traced('POST /api/admin/polar/redeliver', admin.token, {}),
    actions: ['polar.redeliver'],
  },
  'POST /api/admin/polar/endpoint/enable': {
    act: () => traced('POST /api/admin/polar/endpoint/enable', admin.token),
    actions: ['polar.endpoint.enable'],
  },
}

describe('the audit log', () => {
  test('knows every route that changes something', async () => {
    const changing = (await allRoutes()).filter(({ method }) => method !== 'GET')
    expect(Object.keys(TRACES).sort()).toEqual(changing.map(({ method, path }) => `${method} ${path}`).sort())
  })

  for (const [route, trace] of Object.entries(TRACES)) {
    if ('elsewhere' in trace) continue
    test(`${route} leaves ${trace.actions.join(', ')}`, async () => {
      expect((await trace.act()).sort()).toEqual(trace.actions.toSorted())
    })
  }

  test('holds no name, address, password, token or key of anybody', async () => {
    const people = await db().selectFrom('users').select(['name', 'email']).execute()
    const rows = await db().selectFrom('audit_log').selectAll().execute()
    const text = JSON.stringify(rows.map(({ user_agent: _, reason: __, ...row }) => row))
    expect(rows.length).toBeGreaterThan(30)
    for (const { email } of people) expect(text).not.toContain(email)
    expect(text).not.toMatch(/"Ada|"Bob|correct horse|rt_[\w-]{20}|eyJ|key_[0-9A-Za-z]{8}_/)
  })

  test('is whole after all of this', async () => {
    const { json } = await call(payments.app, 'GET /api/admin/audit/verify', { token: admin.token })
    expect(json).toMatchObject({ ok: true, problems: [] })
  })
})
