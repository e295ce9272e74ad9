// Mail in development: printed for who runs the server, so that every link can be followed without a mailer.
import { beforeAll, expect, test, vi } from 'vitest'
import { type App, call, givenUser, startApp } from '../support/app.ts'
import { expectMailOnConsole } from '../support/console.ts'
import { tokenIn } from '../support/mail-stub.ts'

let app: App

beforeAll(async () => {
  app = await startApp()
})

/** What was printed, lines of the log apart. */
const printed = () =>
  vi
    .mocked(console.log)
    .mock.calls.map(([text]) => String(text))
    .filter((text) => !text.startsWith('{'))

test('registering prints nothing, as no mail can prove an address here, and gives the trial', async () => {
  const { token } = await givenUser(app)
  const { json } = await call(app, 'GET /api/user/profile', { token })
  expect(json).toMatchObject({ emailVerified: false, balance: { trialGenerations: 3 } })
  expect(printed()).toEqual([])
})

test('a forgotten password is set anew with the printed link, which the log does not hold', async () => {
  expectMailOnConsole()
  const { email } = await givenUser(app)
  expect((await call(app, 'POST /api/auth/password/forgot', { body: { email } })).status).toBe(202)
  await expect.poll(printed, { timeout: 5_000 }).toHaveLength(1)
  const [text = ''] = printed()
  expect(text).toContain(`Mail to ${email}`)
  const token = tokenIn({ text }, 'reset')
  const body = { token, newPassword: 'a wholly new password' }
  expect((await call(app, 'POST /api/auth/password/reset', { body })).status).toBe(204)
  expect((await call(app, 'POST /api/auth/login', { body: { email, password: body.newPassword } })).status).toBe(200)
  const log = vi
    .mocked(console.log)
    .mock.calls.map(([line]) => String(line))
    .filter((line) => line.startsWith('{'))
  expect(log.join()).not.toContain(token)
  expect(log.join()).not.toContain(email)
})
