// Clerk chosen, but without its keys: every door says which variable is missing, and no token opens one.
import { beforeAll, expect, test } from 'vitest'
import { type App, call, startApp } from '../support/app.ts'
import { clerkUser, deliverClerkEvent } from '../support/clerk-stub.ts'
import { mintToken, newInstance } from '../support/clerk-tokens.ts'

const CRON_SECRET = 'the-secret-of-the-scheduler'

const instance = newInstance()

let app: App

beforeAll(async () => {
  app = await startApp({ FORK__AUTH__PROVIDER: 'clerk', CRON_SECRET })
})

test('whoever shows a token is told what is missing', async () => {
  const token = mintToken(instance, 'user_2ada')
  for (const what of ['GET /api/user/profile', 'POST /api/process-image', 'GET /api/health/ready']) {
    const { status, json } = await call(app, what, { token })
    expect([status, json.error.code, json.error.details], what).toEqual([
      503,
      'FEATURE_DISABLED',
      { reason: 'Neither CLERK_JWT_KEY nor CLERK_SECRET_KEY is set.' },
    ])
  }
  expect((await call(app, 'GET /api/user/profile')).status).toBe(401)
})

test('webhooks are off, and say why', async () => {
  const { status, json } = await deliverClerkEvent(app, 'user.created', clerkUser())
  expect([status, json.error.code, json.error.details]).toEqual([
    503,
    'FEATURE_DISABLED',
    { reason: 'CLERK_WEBHOOK_SIGNING_SECRET is not set.' },
  ])
})

test('readiness says that nobody can sign in', async () => {
  const { json } = await call(app, 'GET /api/health/ready')
  expect(json.checks.signIn).toEqual({ status: 'off' })
})

test('the sweep does its other work', async () => {
  const { status, json } = await call(app, 'POST /api/jobs/sweep', { token: CRON_SECRET })
  expect([status, json.clerk]).toEqual([200, { told: 0, failed: 0 }])
})
