// API keys where Clerk signs people in: the same keys, which ask nothing of Clerk.
import { generateKeyPairSync } from 'node:crypto'
import { beforeAll, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { createKey } from '../../lib/auth/api-keys.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { type App, call, startApp } from '../support/app.ts'
import { suspend } from '../support/money.ts'

const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })

let app: App
let userId: string
let key: string

beforeAll(async () => {
  app = await startApp({
    FORK__AUTH__PROVIDER: 'clerk',
    CLERK_SECRET_KEY: 'sk_test_of_the_loopback',
    CLERK_JWT_KEY: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    CLERK_WEBHOOK_SIGNING_SECRET: `whsec_${Buffer.from('a secret of the tests').toString('base64')}`,
    CLERK_API_URL: 'http://127.0.0.1:1',
    CLERK_ISSUER: 'https://clerk.example.com',
  })
  const person = { name: 'Ada', email: 'ada@example.com', emailVerified: true, role: 'user' as const }
  await db()
    .transaction()
    .execute(async (trx) => {
      userId = await createUser(trx, { ...person, clerk: { id: 'user_ada', updatedAt: 1 } })
      const made = await createKey(trx, userId, { name: 'CI', scopes: ['read'] }, { actor: { type: 'system' } })
      key = made.key
    })
})

test('a key is its owner’s', async () => {
  for (const proof of [{ token: key }, { headers: { 'x-api-key': key } }]) {
    expect(await call(app, 'GET /api/user/profile', proof)).toMatchObject({ status: 200, json: { id: userId } })
  }
})

test('a key makes no keys', async () => {
  const reply = await call(app, 'POST /api/api-keys', { token: key, body: { name: 'more' } })
  expect(reply).toMatchObject({ status: 403, json: { error: { code: 'FORBIDDEN' } } })
})

test('a key stops with its owner', async () => {
  await suspend(userId)
  const reply = await call(app, 'GET /api/user/profile', { token: key })
  expect(reply).toMatchObject({ status: 403, json: { error: { code: 'ACCOUNT_SUSPENDED' } } })
})
