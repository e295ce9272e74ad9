// Accounts whose life begins at a time that a test chooses, and what happens in one: holds, spends, grants.
import { sql, type Transaction } from 'kysely'
import { expect } from 'vitest'
import { db } from '../../db/client.ts'
import type { Database, LotKind } from '../../db/schema.ts'
import { beginSession } from '../../lib/auth/sessions.ts'
import { reserve, settle, type UsageRecord } from '../../lib/ledger/holds.ts'
import { openAccount } from '../../lib/ledger/ledger.ts'
import { toolId } from '../../lib/tools/catalogue.ts'
import { at } from './clock.ts'

const TOOL = 'coloring-page'

type Trx = Transaction<Database>

export interface Account {
  userId: string
  sessionId: string
}

/** A user without a password whose first period, of 1000 tokens, begins at `openedAt`, and who is signed in. */
export async function givenAccount(openedAt: string, { trial = 0 } = {}): Promise<Account> {
  const userId = crypto.randomUUID()
  await toolId(db(), TOOL) // While no transaction has the embedded database's only connection.
  await at(openedAt, async (trx) => {
    const user = { id: userId, name: 'Ada', email: `${userId}@example.com`, password_hash: '' }
    await trx.insertInto('users').values(user).execute()
    await openAccount(trx, userId, userId)
    await trx.updateTable('subscriptions').set({ period_anchor: openedAt }).where('user_id', '=', userId).execute()
    await sql`
      insert into ledger_entry (user_id, op, amount, lot_id)
        select user_id, 'lapse', available - ${trial}, id from ledger_lot
          where user_id = ${userId} and kind = 'trial' and available > ${trial}
    `.execute(trx)
  })
  return await beginSession(db(), userId, { ip: 'unknown', userAgent: null })
}

/** Hold ids and sources are made the account's own. */
export async function hold(trx: Trx, { userId, sessionId }: Account, id: string, tokens: number) {
  return await reserve(trx, { id: `${userId}:${id}`, userId, sessionId, tokens, ttlMs: 60_000 })
}

export async function spend(trx: Trx, account: Account, tokens: number) {
  const id = crypto.randomUUID()
  expect(await hold(trx, account, id, tokens)).toMatchObject({ outcome: 'held' })
  return await settle(trx, `${account.userId}:${id}`, await usageOf(account))
}

export async function grantTo(
  trx: Trx,
  { userId }: Account,
  kind: Exclude<LotKind, 'plan'>,
  tokens: number,
  source: string,
  expiresAt: string | null = null,
) {
  await sql`select ledger_credit(${userId}, ${kind}, ${tokens}, ${`${userId}:${source}`}, ${expiresAt}::timestamptz)`.execute(
    trx,
  )
}

export async function usageOf({ userId }: Account, status: 'success' | 'error' = 'success'): Promise<UsageRecord> {
  const tool = await toolId(db(), TOOL)
  const nothing = {
    provider: undefined,
    model: undefined,
    costMicroUsd: 0,
    errorCode: undefined,
    jobId: undefined,
    calls: [],
  }
  const not = { fallback: false, cached: false, freeTier: false }
  return { userId, toolId: tool, requestId: crypto.randomUUID(), status, durationMs: 1, ...nothing, ...not }
}

export async function lots(userId: string, kind: Exclude<LotKind, 'trial'>) {
  return await db()
    .selectFrom('ledger_lot')
    .select(['granted', 'available', 'held', 'spent', 'gone'])
    .where('user_id', '=', userId)
    .where('kind', '=', kind)
    .orderBy('id')
    .execute()
}
