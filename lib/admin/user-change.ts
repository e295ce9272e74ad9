// What an administrator changes about a user, all of it or nothing: status, role, plan.
import { sql, type Transaction } from 'kysely'
import * as v from 'valibot'
import { db } from '../../db/client.ts'
import type { Database, Plan } from '../../db/schema.ts'
import { type Actor, recordAudit } from '../audit.ts'
import { tellClerk } from '../auth/clerk-outbox.ts'
import { changeRole, reactivateAccount, restoreAccount, suspendAccount } from '../auth/lifecycle.ts'
import { AppError } from '../http/errors.ts'
import { refreshPlan } from '../ledger/ledger.ts'

export const Reason = v.pipe(v.string(), v.trim(), v.minLength(1, 'A reason is needed.'), v.maxLength(500))

export const UserChange = v.pipe(
  v.strictObject({
    status: v.optional(v.picklist(['active', 'suspended'])),
    role: v.optional(v.picklist(['user', 'admin'])),
    plan: v.optional(v.picklist(['free', 'pro', 'enterprise'])),
    reason: Reason,
  }),
  v.check(
    ({ status, role, plan }) => status !== undefined || role !== undefined || plan !== undefined,
    'Name at least one of status, role and plan.',
  ),
)

/**
 * Makes the changes in one transaction, each with its audit row; what is as it should be already is left alone. 'active' also
 * restores a deleted account within its grace. Throws NOT_FOUND, or CONFLICT for what cannot be.
 */
export async function changeUser(
  userId: string,
  { status, role, plan }: Pick<v.InferOutput<typeof UserChange>, 'status' | 'role' | 'plan'>,
  by: Actor,
): Promise<void> {
  if (userId === by.actor.id && (status !== undefined || role !== undefined)) {
    throw new AppError('CONFLICT', 'Another administrator has to change your own status and role.')
  }
  await db()
    .transaction()
    .execute(async (trx) => {
      if (status === 'active') await activate(trx, userId, by)
      if (role !== undefined) await changeRole(trx, userId, role, by)
      if (status === 'suspended') await suspendAccount(trx, userId, by)
      if (plan !== undefined) await givePlan(trx, userId, plan, by)
    })
  await tellClerk(userId)
}

async function activate(trx: Transaction<Database>, userId: string, by: Actor): Promise<void> {
  const user = await trx.selectFrom('users').select('status').where('id', '=', userId).executeTakeFirst()
  if (user?.status === 'deleted') await restoreAccount(trx, userId, by)
  else await reactivateAccount(trx, userId, by)
}

/**
 * Lifts the user to a plan until it is taken back, which 'free' does. It counts while nothing as good is paid for, and never takes
 * away what is.
 */
async function givePlan(trx: Transaction<Database>, userId: string, plan: Plan, by: Actor): Promise<void> {
  const before = await lockPlan(trx, userId)
  if ((before.gift ?? 'free') === plan) return
  if (plan === 'free') {
    await trx.deleteFrom('plan_gifts').where('user_id', '=', userId).execute()
  } else {
    const { id: grantedBy } = by.actor
    if (grantedBy === undefined) throw new Error('A plan is given by somebody.')
    const gift = { plan, granted_by: grantedBy, granted_at: sql<Date>`now()` }
    await trx
      .insertInto('plan_gifts')
      .values({ user_id: userId, ...gift })
      .onConflict((conflict) => conflict.column('user_id').doUpdateSet(gift))
      .execute()
  }
  await refreshPlan(trx, userId)
  await recordAudit(trx, {
    ...by,
    action: 'user.plan',
    target: { type: 'user', id: userId },
    before: { ...before },
    after: { plan: (await planOf(trx, userId)).plan, gift: plan === 'free' ? null : plan },
  })
}

/** The plan in force and the one that was a gift, with the account locked: plans are changed by one at a time. */
async function lockPlan(trx: Transaction<Database>, userId: string) {
  const user = await trx.selectFrom('users').select('status').where('id', '=', userId).executeTakeFirst()
  if (!user) throw new AppError('NOT_FOUND', 'There is no such user.')
  if (user.status === 'deleted') throw new AppError('CONFLICT', 'A deleted account has no plan to change.')
  await sql`select 1 from ledger_account where user_id = ${userId} for no key update`.execute(trx)
  return await planOf(trx, userId)
}

async function planOf(trx: Transaction<Database>, userId: string) {
  return await trx
    .selectFrom('subscriptions')
    .leftJoin('plan_gifts', 'plan_gifts.user_id', 'subscriptions.user_id')
    .select(['subscriptions.plan', 'plan_gifts.plan as gift'])
    .where('subscriptions.user_id', '=', userId)
    .executeTakeFirstOrThrow()
}
