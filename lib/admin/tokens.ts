// Tokens that an administrator gives, and takes back.
import { randomUUID } from 'node:crypto'
import type { Kysely } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { type Actor, recordAudit } from '../audit.ts'
import { AppError } from '../http/errors.ts'
import type { Balance } from '../ledger/columns.ts'
import { grant, revoke, statementOf } from '../ledger/ledger.ts'

interface Act {
  userId: string
  tokens: number
  /** The request's idempotency claim: what was done under it is done once. */
  claimId: string | undefined
  by: Actor
}

/** Gives tokens once per claim. Throws NOT_FOUND. */
export async function giveTokens({ userId, tokens, claimId, by }: Act): Promise<Balance> {
  await requireUser(userId)
  const source = `admin:${claimId ?? randomUUID()}`
  await db()
    .transaction()
    .execute(async (trx) => {
      const before = await balanceOf(trx, userId)
      if ((await grant(trx, { userId, kind: 'promo', tokens, source })) === 'replay') return
      await recordAudit(trx, {
        ...by,
        action: 'tokens.grant',
        target: { type: 'user', id: userId },
        before: { tokens: before.tokens },
        after: { tokens: (await balanceOf(trx, userId)).tokens },
        details: { tokens, source },
      })
    })
  return await balanceOf(db(), userId)
}

/** Takes back given tokens, as many as are left of them, once per claim; `revoked` says how many. Throws NOT_FOUND. */
export async function takeTokens({ userId, tokens, claimId, by }: Act): Promise<{ revoked: number; balance: Balance }> {
  await requireUser(userId)
  const ref = `revoke:${claimId ?? randomUUID()}`
  const revoked = await db()
    .transaction()
    .execute(async (trx) => {
      const before = await balanceOf(trx, userId)
      const taken = await revoke(trx, { userId, tokens, ref })
      if (taken.outcome === 'replay') return taken.tokens
      await recordAudit(trx, {
        ...by,
        action: 'tokens.revoke',
        target: { type: 'user', id: userId },
        before: { tokens: before.tokens },
        after: { tokens: (await balanceOf(trx, userId)).tokens },
        details: { asked: tokens, tokens: taken.tokens, ref },
      })
      return taken.tokens
    })
  return { revoked, balance: await balanceOf(db(), userId) }
}

async function requireUser(userId: string): Promise<void> {
  const user = await db().selectFrom('users').select('id').where('id', '=', userId).executeTakeFirst()
  if (!user) throw new AppError('NOT_FOUND', 'There is no such user.')
}

async function balanceOf(database: Kysely<Database>, userId: string): Promise<Balance> {
  return (await statementOf(database, userId)).balance
}
