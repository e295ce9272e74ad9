// Local sign-in with Clerk's variables set: its tokens and its webhooks are nothing here.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type App, call, startApp } from '../support/app.ts'
import { type ClerkStub, clerkUser, deliverClerkEvent, startClerkStub } from '../support/clerk-stub.ts'

let clerk: ClerkStub
let app: App

beforeAll(async () => {
  clerk = await startClerkStub()
  app = await startApp({ ...clerk.variables, FORK__AUTH__PROVIDER: 'local' })
})

afterAll(() => clerk.close())

test('a session token of Clerk is refused, and Clerk is not asked', async () => {
  const token = clerk.token(clerk.addUser().id)
  for (const what of ['GET /api/user/profile', 'POST /api/process-image', 'GET /api/health/ready']) {
    const { status, json } = await call(app, what, { token })
    expect([status, json.error.code], what).toEqual([401, 'UNAUTHENTICATED'])
  }
  expect(clerk.calls).toEqual([])
})

test('there is nothing at the address of its webhooks', async () => {
  const { status, json } = await deliverClerkEvent(app, 'user.created', clerkUser())
  expect([status, json.error.code]).toEqual([404, 'NOT_FOUND'])
})
