// Whether money can be taken, and why not.
import { config, type ForkConfig } from '../config.ts'
import { AppError } from '../http/errors.ts'

/** Why payments are off. This version sells nothing yet; balances grow by plan periods and admin grants. */
export function paymentsOffReason({ features, payments }: ForkConfig): string {
  if (!features.payments) return 'features.payments is false.'
  if (payments.provider === 'none') return 'payments.provider is "none".'
  return 'This version has no payment adapter yet; an admin can grant tokens.'
}

export function paymentsDisabled(): AppError {
  return new AppError('FEATURE_DISABLED', 'Payments are switched off.', {
    details: { reason: paymentsOffReason(config()) },
  })
}
