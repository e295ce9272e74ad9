// A user as the API shows them: who they are and what they can spend.
import { db } from '../../db/client.ts'
import { config } from '../config.ts'
import { statementOf } from '../ledger/ledger.ts'

/** The caller's own profile. */
export async function profileOf(userId: string) {
  const [user, statement] = await Promise.all([
    db()
      .selectFrom('users')
      .leftJoin('mfa_factors', 'mfa_factors.user_id', 'users.id')
      .selectAll('users')
      .select('mfa_factors.confirmed_at as mfa_confirmed_at')
      .where('users.id', '=', userId)
      .executeTakeFirstOrThrow(),
    statementOf(db(), userId),
  ])
  return {
    id: user.id,
    name: user.name,
    email: user.email,
    emailVerified: user.email_verified_at !== null,
    ...(config().auth.provider === 'local' && { mfaEnabled: user.mfa_confirmed_at !== null }),
    role: user.role,
    status: user.status,
    plan: statement.plan,
    balance: statement.balance,
    preferences: user.preferences,
    createdAt: user.created_at.toISOString(),
  }
}
