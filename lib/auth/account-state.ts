// What the database says of a caller's account, as the error a client sees.
import { sql } from 'kysely'
import { db } from '../../db/client.ts'
import { AppError } from '../http/errors.ts'

/** The refusal for any answer of the SQL function account_state but 'active'. */
export function refusalOf(state: string): AppError {
  switch (state) {
    case 'suspended':
      return new AppError('ACCOUNT_SUSPENDED', 'This account is suspended.')
    case 'signed_out':
      return new AppError('UNAUTHENTICATED', 'This session has ended. Sign in again.')
    case 'unknown_user':
      return new AppError('UNAUTHENTICATED', 'This account does not exist.')
    default:
      throw new Error(`Unknown account state: ${state}`)
  }
}

/** Throws 401 or 403 unless account and session are alive: for what must not wait until a reservation looks. */
export async function requireActive({ userId, sessionId }: { userId: string; sessionId: string | undefined }) {
  const { rows } = await sql<{ state: string }>`select account_state(${userId}, ${sessionId ?? null}) as state`.execute(
    db(),
  )
  const state = rows[0]?.state ?? 'unknown_user'
  if (state !== 'active') throw refusalOf(state)
}
