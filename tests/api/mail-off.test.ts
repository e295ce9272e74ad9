// Where no mail can be sent, what needs one is off and says why; everything else works as if addresses were proven.
import { beforeAll, expect, test } from 'vitest'
import { type App, call, givenUser, startApp } from '../support/app.ts'

let app: App

beforeAll(async () => {
  app = await startApp({ VERCEL_ENV: 'production' })
})

test.each([
  ['password/forgot', { email: 'nobody@example.com' }],
  ['email/verification', undefined],
  ['email/change', { email: 'new@example.com', password: 'correct horse battery staple' }],
])('POST /api/auth/%s is off', async (path, body) => {
  const { token } = await givenUser(app)
  const { status, json } = await call(app, `POST /api/auth/${path}`, { body, token })
  expect(status).toBe(503)
  expect(json.error).toMatchObject({
    code: 'FEATURE_DISABLED',
    details: { reason: 'RESEND_API_KEY and MAIL_FROM are not set.' },
  })
})

test('the trial is given at once', async () => {
  const { token } = await givenUser(app)
  const { json } = await call(app, 'GET /api/user/profile', { token })
  expect(json).toMatchObject({ emailVerified: false, balance: { trialGenerations: 3 } })
  expect((await call(app, 'GET /api/config')).json.auth).toMatchObject({ passwordReset: false })
})
