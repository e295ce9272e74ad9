// API keys where the feature is switched off: nothing can be made, and what was made before does nothing.
import { beforeAll, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { createKey } from '../../lib/auth/api-keys.ts'
import { newKey } from '../../lib/auth/key-format.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, call, startApp } from '../support/app.ts'

const NOBODYS = '00000000-0000-4000-8000-000000000000'
const DISABLED = {
  status: 503,
  json: { error: { code: 'FEATURE_DISABLED', details: { reason: 'features.apiKeys is false.' } } },
}

let app: App
let user: Account

beforeAll(async () => {
  app = await startApp({ FORK__FEATURES__API_KEYS: 'false' })
  user = await givenAccount()
})

test.each([
  ['GET /api/api-keys', undefined],
  ['POST /api/api-keys', { name: 'CI' }],
  [`DELETE /api/api-keys/${NOBODYS}`, undefined],
  [`POST /api/api-keys/${NOBODYS}/rotate`, {}],
])('%s is off, and says why', async (what, body) => {
  expect(await call(app, what, { token: user.token, body })).toMatchObject(DISABLED)
})

test('a key that was made before stops, whatever it is used for', async () => {
  const { key } = await db()
    .transaction()
    .execute((trx) =>
      createKey(trx, user.id, { name: 'old', scopes: ['generate', 'read'] }, { actor: { type: 'system' } }),
    )
  for (const token of [key, newKey('key').key, 'key_00000000_typo']) {
    expect(await call(app, 'GET /api/user/profile', { token })).toMatchObject(DISABLED)
    expect(await call(app, 'POST /api/process-image', { token, body: {} })).toMatchObject(DISABLED)
    expect(await call(app, 'GET /api/user/profile', { headers: { 'x-api-key': token } })).toMatchObject(DISABLED)
  }
})
