// Where links in mails lead when the operator says where the pages are.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type App, call, givenUser, startApp } from '../support/app.ts'
import { type MailStub, startMailStub } from '../support/mail-stub.ts'

let app: App
let stub: MailStub

beforeAll(async () => {
  stub = await startMailStub()
  app = await startApp({ ...stub.variables, APP_URL: 'https://pages.example.com/start' })
})

afterAll(() => stub.close())

test('links lead to APP_URL, whatever host a request names', async () => {
  const { email } = await givenUser(app)
  await call(app, 'POST /api/auth/password/forgot', { body: { email }, headers: { host: 'evil.example.net' } })
  for (const number of [1, 2]) {
    const { text } = await stub.arrived(email, number)
    expect(text).toMatch(/^https:\/\/pages\.example\.com\/\?(verify|reset)=[\w-]{43}$/m)
    expect(text).not.toMatch(/evil|localhost/)
  }
})
