// Housekeeping, run daily by the scheduler: nothing's correctness waits for it.
import { sql } from 'kysely'
import { db } from '../db/client.ts'
import { anchorAudit } from '../lib/audit-chain.ts'
import { sweepClerk } from '../lib/auth/clerk-outbox.ts'
import { sweepMailed } from '../lib/auth/email-tokens.ts'
import { sweepDeletedAccounts } from '../lib/auth/purge.ts'
import { paymentsOffReason } from '../lib/billing/payments.ts'
import { reconcile } from '../lib/billing/reconcile.ts'
import { config } from '../lib/config.ts'
import { env } from '../lib/env.ts'
import { endpoint, route } from '../lib/http/endpoint.ts'
import { sweepLedger } from '../lib/ledger/ledger.ts'

const BATCH = 500
/** Each may wait for Clerk and Polar. */
const ACCOUNTS_MAX = 50
/** Well within a function's time, of which the rest of the sweep takes little. */
const RECONCILE_MS = 120_000

export default endpoint({
  'GET /api/jobs/sweep': route({ access: 'cron', handle: sweep }),
  'POST /api/jobs/sweep': route({ access: 'cron', handle: sweep }),
})

/** Gives back orphaned holds, lapses what expired, drops what need not be kept, hears from Polar what no webhook told, and anchors the audit log. */
async function sweep() {
  const ledger = await sweepLedger(db(), BATCH)
  const keys = await db().deleteFrom('idempotency_keys').where('expires_at', '<', sql<Date>`now()`).executeTakeFirst()
  const bodies = await db()
    .updateTable('idempotency_keys')
    .set({ body: null })
    .where('body', 'is not', null)
    .where('body_expires_at', '<', sql<Date>`now()`)
    .executeTakeFirst()
  const sessions = await db()
    .deleteFrom('refresh_tokens')
    .where('absolute_expires_at', '<', sql<Date>`now() - interval '7 days'`)
    .executeTakeFirst()
  const failures = await db()
    .deleteFrom('sign_in_failures')
    .where('last_failure_at', '<', sql<Date>`now() - interval '1 day'`)
    .executeTakeFirst()
  const mailed = await sweepMailed(db())
  const billing = paymentsOffReason(config(), env()) === undefined ? await reconcile(RECONCILE_MS) : undefined
  const clerk = config().auth.provider === 'clerk' ? await sweepClerk(ACCOUNTS_MAX) : undefined
  const accounts = await sweepDeletedAccounts(ACCOUNTS_MAX)
  await anchorAudit(db())
  return {
    holdsReturned: ledger.expired,
    lotsLapsed: ledger.lapsed,
    plansMovedOn: ledger.plans,
    idempotencyKeysDeleted: Number(keys.numDeletedRows),
    idempotencyBodiesDeleted: Number(bodies.numUpdatedRows),
    sessionsDeleted: Number(sessions.numDeletedRows),
    signInFailuresForgotten: Number(failures.numDeletedRows),
    plansOfDeletedCancelled: accounts.plansCancelled,
    accountsPurged: accounts.purged,
    purgesPostponed: accounts.postponed,
    ...mailed,
    ...(clerk && { clerk }),
    ...(billing && { billing }),
  }
}
