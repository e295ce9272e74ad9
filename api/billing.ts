// What the caller has and what is for sale.
import { db } from '../db/client.ts'
import { paymentsDisabled, paymentsOffReason } from '../lib/billing/payments.ts'
import { config, publicConfig } from '../lib/config.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { statementOf } from '../lib/ledger/ledger.ts'

export default endpoint({
  'GET /api/billing/status': route({ access: 'user', limit: 'read', handle: status }),
  'GET /api/billing/catalogue': route({ access: 'public', limit: 'read', handle: catalogue }),
  'POST /api/billing/checkout': route({ access: 'user', limit: 'read', handle: refusePayment }),
  'POST /api/billing/upgrade': route({ access: 'user', limit: 'read', handle: refusePayment }),
  'POST /api/billing/cancel': route({ access: 'user', limit: 'read', handle: refusePayment }),
  'POST /api/billing/resume': route({ access: 'user', limit: 'read', handle: refusePayment }),
  'POST /api/billing/portal': route({ access: 'user', limit: 'read', handle: refusePayment }),
})

async function status({ caller }: Context<'user'>) {
  const statement = await statementOf(db(), caller.userId)
  return {
    plan: statement.plan,
    status: statement.status,
    tokenLimit: statement.tokenLimit,
    tokensUsed: statement.tokensUsed,
    periodStart: statement.periodStart,
    periodEnd: statement.periodEnd,
    expiresAt: statement.expiresAt,
    balance: {
      trialGenerations: statement.balance.trialGenerations,
      planTokens: statement.planTokens,
      purchasedTokens: statement.purchasedTokens,
      reservedTokens: statement.reservedTokens,
      debtTokens: statement.debtTokens,
      tokens: statement.balance.tokens,
    },
    payments: { enabled: false, reason: paymentsOffReason(config()) },
  }
}

function catalogue() {
  const { plans, payments, tools, trial } = publicConfig(config())
  return { plans, payments, tools, trial }
}

function refusePayment(): never {
  throw paymentsDisabled()
}
