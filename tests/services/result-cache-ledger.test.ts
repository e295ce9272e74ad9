// What is given free of charge on real PostgreSQL: on record for who may spend at that very moment, and for nobody else.
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { beforeAll, beforeEach, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { settleFree, type UsageRecord } from '../../lib/ledger/holds.ts'
import { defaultTool, toolId } from '../../lib/tools/catalogue.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, call, startApp } from '../support/app.ts'
import { suspend, usageRows } from '../support/money.ts'

let app: App
let user: Account

beforeAll(async () => {
  app = await startApp()
})

beforeEach(async () => {
  user = await givenAccount()
})

async function usage(): Promise<UsageRecord> {
  return {
    userId: user.id,
    toolId: await toolId(db(), defaultTool().name),
    requestId: randomUUID(),
    status: 'success',
    durationMs: 1,
    provider: 'gemini',
    model: 'a-model',
    costMicroUsd: 0,
    errorCode: undefined,
    fallback: false,
    cached: true,
    jobId: undefined,
    freeTier: false,
    calls: [],
  }
}

const settled = async (keyId?: string) =>
  await settleFree(db(), { sessionId: keyId ? undefined : user.sessionId, keyId }, await usage())

test('an active caller gets it with their balance', async () => {
  const { state, closing } = await settled()
  expect(state).toBe('active')
  expect(closing).toMatchObject({ closed: true, chargedTokens: 0, trial: false, balance: { trialGenerations: 3 } })
  expect(await usageRows(user.id)).toMatchObject([{ cached: true, tokens_used: 0, api_key_id: null }])
})

test.each([
  { state: 'suspended', end: () => suspend(user.id) },
  {
    state: 'signed_out',
    end: () =>
      sql`update refresh_tokens set revoked = true, revoked_at = now(), revoked_reason = 'logout'`.execute(db()),
  },
  {
    state: 'unknown_user',
    end: () => db().updateTable('users').set({ status: 'deleted' }).where('id', '=', user.id).execute(),
  },
])('who is $state by now gets nothing, and nothing is on record', async ({ state, end }) => {
  await end()
  expect((await settled()).state).toBe(state)
  expect(await usageRows(user.id)).toEqual([])
})

test('a key that was revoked, has expired or is another user’s gets nothing', async () => {
  const body = { name: 'shop', scopes: ['generate'] }
  const made = (await call(app, 'POST /api/api-keys', { token: user.token, body })).json.id
  const owner = user
  expect((await settled(made)).state).toBe('active')
  user = await givenAccount()
  expect((await settled(made)).state).toBe('key_ended')
  expect(await usageRows(user.id)).toEqual([])
  user = owner
  await sql`update api_keys set expires_at = now() where id = ${made}`.execute(db())
  expect((await settled(made)).state).toBe('key_ended')
  await sql`update api_keys set expires_at = null where id = ${made}`.execute(db())
  await call(app, `DELETE /api/api-keys/${made}`, { token: user.token })
  expect((await settled(made)).state).toBe('key_ended')
  expect(await usageRows(user.id)).toHaveLength(1)
})
