// Whose an order or a subscription is. Never decided by e-mail: at Polar anyone can type anyone's address.
import type { Transaction } from 'kysely'
import * as v from 'valibot'
import type { Database } from '../../db/schema.ts'

const UserId = v.pipe(v.string(), v.uuid(), v.toLowerCase())

/** The user whom our checkout named, else the one Polar's customer is linked to; undefined when neither is a user here. */
export async function ownerOf(
  trx: Transaction<Database>,
  {
    metadata,
    customer,
  }: { metadata: Record<string, unknown>; customer?: { external_id?: string | null | undefined } | null | undefined },
): Promise<string | undefined> {
  const candidates = [metadata.user_id, customer?.external_id].filter((id) => v.is(UserId, id))
  if (candidates.length === 0) return undefined
  const found = await trx.selectFrom('users').select('id').where('id', 'in', candidates).execute()
  return candidates.find((candidate) => found.some(({ id }) => id === candidate.toLowerCase()))?.toLowerCase()
}
