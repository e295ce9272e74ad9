// Who is calling: the proof a request carries, checked as far as the route needs.
import { createHash, timingSafeEqual } from 'node:crypto'
import { sql } from 'kysely'
import { db } from '../../db/client.ts'
import type { Role } from '../../db/schema.ts'
import { env } from '../env.ts'
import { AppError } from '../http/errors.ts'
import { describeError, log } from '../log.ts'
import { verifyAccessToken } from './access-token.ts'
import { refusalOf } from './account-state.ts'

/**
 * public: anyone. visitor: anyone, known when signed in. user: signed in, account and session alive.
 * spender: signed in by proof alone, for routes whose reservation checks account and session in its own round trip.
 * admin: a user with that role; hidden (404) from other users. cron: the bearer of CRON_SECRET. signature: whoever signed the
 * body, which the handler checks.
 */
export type Access = 'public' | 'visitor' | 'user' | 'spender' | 'admin' | 'cron' | 'signature'

/** What the token proves. */
export interface Spender {
  userId: string
  sessionId: string
}

export interface Caller extends Spender {
  role: Role
}

export type CallerFor<A extends Access> = {
  public: undefined
  cron: undefined
  signature: undefined
  visitor: Caller | undefined
  spender: Spender
  user: Caller
  admin: Caller
}[A]

/** Throws 401, 403 or 404 unless the request may pass; returns what is known of the caller. */
export async function authenticate(request: Request, access: Access): Promise<Spender | Caller | undefined> {
  if (access === 'public' || access === 'signature') return undefined
  const token = bearerToken(request)
  if (access === 'cron') return requireCronSecret(token)
  if (token === undefined) {
    if (access === 'visitor') return undefined
    throw new AppError('UNAUTHENTICATED', 'Sign in first: send Authorization: Bearer <access token>.', {
      headers: { 'www-authenticate': 'Bearer' },
    })
  }
  const spender = await verifyAccessToken(token)
  if (access === 'spender') return spender
  const caller = await (access === 'visitor' ? activeCaller(spender).catch(asStranger) : activeCaller(spender))
  if (!caller) return undefined
  if (access === 'admin' && caller.role !== 'admin')
    throw new AppError('NOT_FOUND', 'There is nothing at this address.')
  return caller
}

async function activeCaller({ userId, sessionId }: Spender): Promise<Caller> {
  const found = await db()
    .selectFrom('users')
    .select(['role', sql<string>`account_state(id, ${sessionId})`.as('state')])
    .where('id', '=', userId)
    .executeTakeFirst()
  if (found?.state !== 'active') throw refusalOf(found?.state ?? 'unknown_user')
  return { userId, sessionId, role: found.role }
}

/** Visitors are served while the database is down: readiness is asked then. */
function asStranger(error: unknown): undefined {
  if (error instanceof AppError) throw error
  log('warn', 'caller_unknown', { error: describeError(error) })
}

function bearerToken(request: Request): string | undefined {
  const header = request.headers.get('authorization')
  if (header === null) return undefined
  const token = /^Bearer +(\S+)$/i.exec(header)?.[1]
  if (token === undefined) throw new AppError('UNAUTHENTICATED', 'Authorization must be: Bearer <access token>.')
  return token
}

function requireCronSecret(token: string | undefined): undefined {
  const { cronSecret } = env()
  if (cronSecret === undefined) {
    throw new AppError('FEATURE_DISABLED', 'The scheduled sweep is switched off.', {
      details: { reason: 'CRON_SECRET is not set.' },
    })
  }
  const digest = (text: string) => createHash('sha256').update(text).digest()
  if (token === undefined || !timingSafeEqual(digest(token), digest(cronSecret))) {
    throw new AppError('UNAUTHENTICATED', 'This address is for the scheduler.')
  }
}
