// Two instances on one database and one KV store: what one of them ends, the other refuses at the very next request.
import { randomBytes } from 'node:crypto'
import { beforeAll, describe, expect, test } from 'vitest'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, call, processImage, startApp } from '../support/app.ts'
import { startServer } from '../support/server.ts'

let here: App
let admin: Account

beforeAll(async () => {
  here = await startApp({ CRON_SECRET: randomBytes(16).toString('hex') })
  admin = await givenAccount({ role: 'admin' })
})

const code = ({ status, json }: { status: number; json: { error?: { code: string } } }) =>
  json?.error ? `${status} ${json.error.code}` : String(status)
const generate = (app: App, token: string) =>
  processImage(app, { id: '', email: '', password: '', refreshToken: '', token })

describe('on two instances', () => {
  test('suspension bites at the next request, whichever instance it was pronounced on', async () => {
    const there = await startServer(here.stores)
    for (const [judge, witness] of [[here, there] as const, [there, here] as const]) {
      const ada = await givenAccount()
      const { json: key } = await call(here, 'POST /api/api-keys', { token: ada.token, body: { name: 'robot' } })
      // Both instances have served the user, so that whatever they keep in memory is warm.
      for (const app of [judge, witness]) {
        expect(code(await call(app, 'GET /api/user/profile', { token: ada.token }))).toBe('200')
        expect(code(await call(app, 'GET /api/user/profile', { token: key.key }))).toBe('200')
        expect(code(await generate(app, ada.token))).toBe('200')
      }
      const body = { status: 'suspended', reason: 'abuse' }
      expect(code(await call(judge, `PATCH /api/admin/users/${ada.id}`, { token: admin.token, body }))).toBe('200')
      for (const app of [witness, judge]) {
        expect(code(await call(app, 'GET /api/user/profile', { token: ada.token }))).toBe('403 ACCOUNT_SUSPENDED')
        expect(code(await generate(app, ada.token))).toBe('403 ACCOUNT_SUSPENDED')
        expect(code(await call(app, 'GET /api/user/profile', { token: key.key }))).toMatch(/^40[13] /)
        expect(code(await generate(app, key.key))).toMatch(/^40[13] /)
        expect(code(await call(app, 'POST /api/auth/refresh', { body: { refreshToken: ada.refreshToken } }))).toMatch(
          /^40[13] /,
        )
      }
    }
  })

  test('a role that was taken away, a session and a key that were ended are refused by the other at once', async () => {
    const there = await startServer(here.stores)
    const [ada, deputy] = [await givenAccount(), await givenAccount({ role: 'admin' })]
    const { json: key } = await call(here, 'POST /api/api-keys', { token: ada.token, body: { name: 'robot' } })
    expect(code(await call(there, 'GET /api/admin/users', { token: deputy.token }))).toBe('200')
    expect(code(await call(there, 'GET /api/user/profile', { token: key.key }))).toBe('200')

    const body = { role: 'user', reason: 'left' }
    await call(here, `PATCH /api/admin/users/${deputy.id}`, { token: admin.token, body })
    expect(code(await call(there, 'GET /api/admin/users', { token: deputy.token }))).toBe('404 NOT_FOUND')
    await call(here, `DELETE /api/api-keys/${key.id}`, { token: ada.token })
    expect(code(await call(there, 'GET /api/user/profile', { token: key.key }))).toBe('401 UNAUTHENTICATED')
    await call(here, 'POST /api/auth/logout', { body: { refreshToken: ada.refreshToken } })
    expect(code(await call(there, 'GET /api/user/profile', { token: ada.token }))).toBe('401 UNAUTHENTICATED')
  })
})
