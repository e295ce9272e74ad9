// Slows down guessing: after a few failures for an e-mail, or for a user's codes, each further try must wait longer, but never for good.
import { createHmac } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import type { Database } from '../../db/schema.ts'
import { AppError } from '../http/errors.ts'
import { keyFor } from './secret.ts'

const FREE_FAILURES = 5
const DELAY_MAX_SECONDS = 900
/** Where the delay is at its longest, and two to its power still a number. */
const FAILURES_MAX = 30

/**
 * Counts a try as failed before its password is looked at, so that guesses sent at once wait like guesses sent in turn; who
 * gets in takes it back. Throws RATE_LIMITED while the subject, such as an e-mail, has to wait. Known and unknown addresses are treated alike.
 */
export async function countTry(db: Kysely<Database>, subject: string): Promise<void> {
  const hash = hashSubject(subject)
  const delay = sql`case when kept.failures < ${FREE_FAILURES} then 0
    else least(${DELAY_MAX_SECONDS}, power(2, kept.failures - ${FREE_FAILURES})) end`
  const { rows } = await sql<{ wait_seconds: number }>`
    with counted as (
      insert into sign_in_failures as kept (email_hash, failures) values (${hash}, 1)
        on conflict (email_hash) do update set failures = least(kept.failures + 1, ${FAILURES_MAX}), last_failure_at = now()
          -- The free ones first: of two at the same time, now() may be before the other one's failure.
          where kept.failures < ${FREE_FAILURES} or kept.last_failure_at + make_interval(secs => ${delay}) <= now()
        returning 1
    )
    select coalesce(
      (select greatest(1, ceil(extract(epoch from kept.last_failure_at - now()) + ${delay}))
        from sign_in_failures kept where kept.email_hash = ${hash}), 1)::int as wait_seconds
      where not exists (select 1 from counted)
  `.execute(db)
  const [refused] = rows
  if (!refused) return
  const { wait_seconds: waitSeconds } = refused
  throw new AppError('RATE_LIMITED', `Too many failed sign-ins. Try again in ${waitSeconds} s.`, {
    details: { retryAfterSeconds: waitSeconds },
    headers: { 'retry-after': String(waitSeconds) },
  })
}

export async function forgetFailures(db: Kysely<Database>, subject: string): Promise<void> {
  await db.deleteFrom('sign_in_failures').where('email_hash', '=', hashSubject(subject)).execute()
}

/** What is counted, so that no store holds an address. */
export function hashSubject(subject: string): string {
  return createHmac('sha256', keyFor('sign-in-failures')).update(subject).digest('hex')
}
