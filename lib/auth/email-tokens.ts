// Tokens sent by mail: what stands behind a link, each good once and for a while.
import { createHash, randomBytes } from 'node:crypto'
import { type Kysely, sql, type Transaction } from 'kysely'
import type { Database } from '../../db/schema.ts'
import { invalidField } from '../http/body.ts'
import type { AppError } from '../http/errors.ts'

type Purpose = Database['email_tokens']['purpose']

const LIFETIME: Record<Purpose, string> = { verify: '24 hours', change: '24 hours', reset: '30 minutes' }

interface Redeemed {
  purpose: Purpose
  /** What the token proves to be its bearer's. */
  provenEmail: string
  user: { id: string; name: string; email: string }
}

/** Makes a token for a user, which proves `email` to be theirs; only its hash is kept. */
export async function issueToken(
  db: Kysely<Database>,
  { userId, purpose, email }: { userId: string; purpose: Purpose; email: string },
): Promise<string> {
  const token = randomBytes(32).toString('base64url')
  await db
    .insertInto('email_tokens')
    .values({
      token_hash: hashToken(token),
      user_id: userId,
      purpose,
      email,
      expires_at: sql`now() + ${LIFETIME[purpose]}::interval`,
    })
    .execute()
  return token
}

/** The living user behind a token, which stays good; undefined when it is not, or no more. */
export async function ownerOf(db: Kysely<Database>, token: string, purposes: Purpose[]): Promise<Redeemed | undefined> {
  const found = await db
    .selectFrom('email_tokens as token')
    .innerJoin('users', 'users.id', 'token.user_id')
    .select(['token.purpose', 'token.email as proven_email', 'users.id', 'users.name', 'users.email'])
    .where('token.token_hash', '=', hashToken(token))
    .where('token.purpose', 'in', purposes)
    .where('token.expires_at', '>', sql<Date>`now()`)
    .where('users.status', '!=', 'deleted')
    .executeTakeFirst()
  if (!found) return undefined
  const { purpose, proven_email: provenEmail, ...user } = found
  return { purpose, provenEmail, user }
}

/** Uses a token up; of two at the same time one gets it. The user's row is locked from then on. Throws VALIDATION_FAILED. */
export async function redeemToken(trx: Transaction<Database>, token: string, purposes: Purpose[]): Promise<Redeemed> {
  const owner = await ownerOf(trx, token, purposes)
  if (!owner) throw worthless()
  // The user before the token, as whoever ends all tokens of a user does.
  const user = await trx
    .selectFrom('users')
    .select(['id', 'name', 'email'])
    .where('id', '=', owner.user.id)
    .where('status', '!=', 'deleted')
    .forNoKeyUpdate()
    .executeTakeFirst()
  const { numDeletedRows } = await trx
    .deleteFrom('email_tokens')
    .where('token_hash', '=', hashToken(token))
    .executeTakeFirst()
  if (!user || numDeletedRows === 0n) throw worthless()
  return { ...owner, user }
}

/** Ends what was mailed to the user and is still good. */
export async function endTokens(trx: Transaction<Database>, userId: string, purposes: Purpose[]): Promise<void> {
  await trx.deleteFrom('email_tokens').where('user_id', '=', userId).where('purpose', 'in', purposes).execute()
}

/** Drops tokens that are past their time, and how many trials the networks of past days had. */
export async function sweepMailed(db: Kysely<Database>) {
  const tokens = await db.deleteFrom('email_tokens').where('expires_at', '<', sql<Date>`now()`).executeTakeFirst()
  const networks = await db
    .deleteFrom('trial_networks')
    .where('day', '<', sql<Date>`(now() at time zone 'utc')::date`)
    .executeTakeFirst()
  return { emailTokensDeleted: Number(tokens.numDeletedRows), trialNetworksForgotten: Number(networks.numDeletedRows) }
}

export function worthless(): AppError {
  return invalidField('token', 'This link is not valid: it was used before, or it is too old.')
}

function hashToken(token: string): string {
  return createHash('sha256').update(token).digest('hex')
}
