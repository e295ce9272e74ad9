// Slows down guessing: after a few failures for an e-mail each further try must wait longer, but never for good.
import { createHmac } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import type { Database } from '../../db/schema.ts'
import { AppError } from '../http/errors.ts'
import { keyFor } from './secret.ts'

const FREE_FAILURES = 5
const DELAY_MAX_SECONDS = 900

/** Throws RATE_LIMITED while the e-mail has to wait. Known and unknown addresses are treated alike. */
export async function requireNotThrottled(db: Kysely<Database>, email: string): Promise<void> {
  const row = await db
    .selectFrom('sign_in_failures')
    .select(
      sql<number>`ceil(extract(epoch from last_failure_at - now()) +
      case when failures < ${FREE_FAILURES} then 0 else least(${DELAY_MAX_SECONDS}, power(2, failures - ${FREE_FAILURES})) end)::int`.as(
        'wait_seconds',
      ),
    )
    .where('email_hash', '=', hashEmail(email))
    .executeTakeFirst()
  const waitSeconds = row?.wait_seconds ?? 0
  if (waitSeconds <= 0) return
  throw new AppError('RATE_LIMITED', `Too many failed sign-ins. Try again in ${waitSeconds} s.`, {
    details: { retryAfterSeconds: waitSeconds },
    headers: { 'retry-after': String(waitSeconds) },
  })
}

export async function countFailure(db: Kysely<Database>, email: string): Promise<void> {
  await db
    .insertInto('sign_in_failures')
    .values({ email_hash: hashEmail(email), failures: 1 })
    .onConflict((conflict) =>
      conflict.column('email_hash').doUpdateSet({
        // Capped where the delay is, so that two to its power stays a number.
        failures: sql`least(sign_in_failures.failures + 1, 30)`,
        last_failure_at: sql`now()`,
      }),
    )
    .execute()
}

export async function forgetFailures(db: Kysely<Database>, email: string): Promise<void> {
  await db.deleteFrom('sign_in_failures').where('email_hash', '=', hashEmail(email)).execute()
}

function hashEmail(email: string): string {
  return createHmac('sha256', keyFor('sign-in-failures')).update(email).digest('hex')
}
