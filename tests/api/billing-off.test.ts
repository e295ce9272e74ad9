// A fork that sells nothing, though the keys are there: every payment route says so, and Polar is not asked.
import { beforeAll, expect, test } from 'vitest'
import { call, givenUser, type TestUser } from '../support/app.ts'
import { type Payments, startPayments } from '../support/payments.ts'

const SOMEBODYS_ID = '00000000-0000-4000-8000-000000000000'
const REASON = 'payments.provider is "none".'

let payments: Payments
let user: TestUser

beforeAll(async () => {
  payments = await startPayments({ FORK__PAYMENTS__PROVIDER: 'none' })
  user = await givenUser(payments.app)
})

test.each([
  { what: 'POST /api/billing/checkout', body: { pack: 'starter' } },
  { what: 'POST /api/billing/upgrade', body: { plan: 'pro' } },
  { what: 'POST /api/billing/cancel' },
  { what: 'POST /api/billing/resume' },
  { what: 'POST /api/billing/portal' },
  { what: `POST /api/billing/checkouts/${SOMEBODYS_ID}/sync` },
  { what: `GET /api/billing/invoices/${SOMEBODYS_ID}` },
  { what: 'POST /api/webhooks/polar', body: {} },
])('$what says that payments are off, and why', async ({ what, body }) => {
  const { status, json } = await call(payments.app, what, { token: user.token, body })
  expect([status, json.error.code, json.error.details]).toEqual([503, 'FEATURE_DISABLED', { reason: REASON }])
  expect(payments.wire.calls).toEqual([])
})

test('the status, the catalogue and the settings say so too', async () => {
  const { json: status } = await call(payments.app, 'GET /api/billing/status', { token: user.token })
  expect(status.payments).toEqual({ enabled: false, reason: REASON })
  const { json: settings } = await call(payments.app, 'GET /api/config')
  expect(settings.features.payments).toBe(false)
})

test('the sweep does its other work', async () => {
  const token = 'the-secret-of-the-scheduler'
  const { status, json } = await call(payments.app, 'POST /api/jobs/sweep', { token })
  expect([status, 'billing' in json]).toEqual([200, false])
  expect(payments.wire.calls).toEqual([])
})
