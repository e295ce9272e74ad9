// Whether money can be taken, and why not.
import { config, type ForkConfig } from '../config.ts'
import { type Env, env } from '../env.ts'
import { AppError } from '../http/errors.ts'

/** Why nothing can be bought; undefined when payments are on. Balances then grow by plan periods and admin grants alone. */
export function paymentsOffReason({ features, payments }: ForkConfig, settings: Env): string | undefined {
  if (!features.payments) return 'features.payments is false.'
  if (payments.provider === 'none') return 'payments.provider is "none".'
  if (!settings.polar) return 'POLAR_ACCESS_TOKEN and POLAR_WEBHOOK_SECRET are not set.'
  if (settings.onVercel && !settings.databaseUrl) return 'Demo mode: without a database a purchase would be lost.'
  return undefined
}

/** Throws FEATURE_DISABLED unless payments are on; returns what is needed to reach Polar. */
export function requirePayments(): NonNullable<Env['polar']> {
  const settings = env()
  const reason = paymentsOffReason(config(), settings)
  if (reason === undefined && settings.polar) return settings.polar
  throw new AppError('FEATURE_DISABLED', 'Payments are switched off.', { details: { reason } })
}
