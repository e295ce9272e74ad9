// A user as the API shows them: who they are and what they can spend.
import { db } from '../../db/client.ts'
import { AppError } from '../http/errors.ts'
import { statementOf } from '../ledger/ledger.ts'

/** The caller's own profile. Throws UNAUTHENTICATED when the user is gone. */
export async function profileOf(userId: string) {
  const [user, statement] = await Promise.all([
    db().selectFrom('users').selectAll().where('id', '=', userId).executeTakeFirst(),
    statementOf(db(), userId),
  ])
  if (!user) throw new AppError('UNAUTHENTICATED', 'This account does not exist.')
  return {
    id: user.id,
    name: user.name,
    email: user.email,
    role: user.role,
    status: user.status,
    plan: statement.plan,
    balance: statement.balance,
    preferences: user.preferences,
    createdAt: user.created_at.toISOString(),
  }
}
