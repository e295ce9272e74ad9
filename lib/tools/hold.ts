// The price of an order, held before any provider is asked.
import type { Kysely } from 'kysely'
import type { Database } from '../../db/schema.ts'
import { refusalOf } from '../auth/account-state.ts'
import type { Spender } from '../auth/caller.ts'
import { AppError } from '../http/errors.ts'
import { type Closing, type Receipt, type Reservation, reserve, settleFree, type UsageRecord } from '../ledger/holds.ts'

/** Holds `tokens` under `id` for `ttlMs`. Throws what keeps the caller from spending: 402, 401 or 403. */
export async function holdPrice(
  db: Kysely<Database>,
  { userId, sessionId, key }: Spender,
  { id, tokens, ttlMs }: { id: string; tokens: number; ttlMs: number },
): Promise<{ freeTier: boolean }> {
  const reservation = await reserve(db, { id, userId, sessionId, keyId: key?.id, tokens, ttlMs })
  if (reservation.outcome === 'held') return { freeTier: !reservation.paid }
  throw refusalOfReservation(reservation, tokens)
}

/** Puts on record what costs the caller nothing. Throws what keeps them from spending all the same: 401 or 403. */
export async function giveFree(
  db: Kysely<Database>,
  { sessionId, key }: Spender,
  usage: UsageRecord,
  receipt: Receipt | undefined,
): Promise<Closing> {
  const { state, closing } = await settleFree(db, { sessionId, keyId: key?.id }, usage, receipt)
  if (state === 'active') return closing
  throw state === 'key_ended' ? keyEnded() : refusalOf(state)
}

function keyEnded(): AppError {
  return new AppError('UNAUTHENTICATED', 'This API key has ended.')
}

function refusalOfReservation(reservation: Exclude<Reservation, { outcome: 'held' }>, tokens: number): AppError {
  if (reservation.outcome === 'refused') return refusalOf(reservation.state)
  if (reservation.outcome === 'key_ended') return keyEnded()
  const { balance } = reservation
  if (reservation.outcome === 'over_budget') {
    const { tokenBudget, tokensUsed } = reservation
    const left = tokenBudget - tokensUsed
    return new AppError(
      'INSUFFICIENT_TOKENS',
      `This needs ${tokens} tokens; the budget of this API key has ${left} left.`,
      {
        details: { required: tokens, balance: balance.tokens, apiKey: { tokenBudget, tokensUsed } },
      },
    )
  }
  return insufficientTokens(tokens, balance.tokens)
}

/** The refusal for a balance that does not cover a price, with the way to more. */
export function insufficientTokens(required: number, balance: number): AppError {
  return new AppError('INSUFFICIENT_TOKENS', `This needs ${required} tokens; ${balance} are left.`, {
    details: { required, balance, missing: required - balance, checkoutPath: '/api/billing/checkout' },
  })
}
