// Accounts made straight in the database, for tests that need many: no password is hashed.
import { randomUUID } from 'node:crypto'
import { db } from '../../db/client.ts'
import type { Role, UserStatus } from '../../db/schema.ts'
import { signAccessToken } from '../../lib/auth/access-token.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { beginSession } from '../../lib/auth/sessions.ts'

export interface Account {
  id: string
  email: string
  sessionId: string
  token: string
  refreshToken: string
}

/** A user of local sign-in with one session. The status is set last, as an act that comes after signing in. */
export async function givenAccount({
  role = 'user',
  status = 'active',
}: {
  role?: Role
  status?: UserStatus
} = {}): Promise<Account> {
  const email = `${randomUUID()}@example.com`
  const { id, session } = await db()
    .transaction()
    .execute(async (trx) => {
      const id = await createUser(trx, { name: 'Ada', email, role, ip: '127.0.0.1' })
      return { id, session: await beginSession(trx, id, { ip: '127.0.0.1', userAgent: null }) }
    })
  if (status !== 'active') await db().updateTable('users').set({ status }).where('id', '=', id).execute()
  const { sessionId, refreshToken } = session
  return { id, email, sessionId, refreshToken, token: await signAccessToken({ userId: id, sessionId }) }
}
