// What the database says of a caller's account, as the error a client sees.
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
