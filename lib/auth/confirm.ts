// Asks for the password again before what a stolen session must not do.
import { db } from '../../db/client.ts'
import { AppError } from '../http/errors.ts'
import { verifyPassword } from './passwords.ts'
import { countTry, forgetFailures } from './throttle.ts'

/** The user, when the password is theirs. Throws FORBIDDEN, and RATE_LIMITED after wrong ones, which count as failed sign-ins. */
export async function confirmPassword(
  userId: string,
  password: string,
): Promise<{ name: string; email: string; passwordHash: string | null }> {
  const user = await db()
    .selectFrom('users')
    .select(['name', 'email', 'password_hash as passwordHash'])
    .where('id', '=', userId)
    .executeTakeFirstOrThrow()
  await countTry(db(), user.email)
  if (!(await verifyPassword(password, user.passwordHash ?? undefined))) {
    throw new AppError('FORBIDDEN', 'The current password is wrong.')
  }
  await forgetFailures(db(), user.email)
  return user
}
