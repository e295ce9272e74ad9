// Who is calling: the proof a request carries, checked as far as the route needs.
import { createHash, timingSafeEqual } from 'node:crypto'
import { sql } from 'kysely'
import { db } from '../../db/client.ts'
import type { Role, Scope } from '../../db/schema.ts'
import { config } from '../config.ts'
import { env } from '../env.ts'
import { AppError } from '../http/errors.ts'
import { describeError, log } from '../log.ts'
import { verifyAccessToken } from './access-token.ts'
import { refusalOf } from './account-state.ts'
import { callerOfKey, looksLikeKey } from './api-keys.ts'
import { verifyClerkToken } from './clerk.ts'
import { callerOfClerk, spenderOfClerk } from './clerk-users.ts'

/**
 * public: anyone. visitor: anyone, known when signed in. user: signed in, account and session alive.
 * spender: signed in by proof alone, for routes whose reservation checks account and session in its own round trip.
 * admin: a user with that role; hidden (404) from other users. cron: the bearer of CRON_SECRET. signature: whoever signed the
 * body, which the handler checks.
 */
export type Access = 'public' | 'visitor' | 'user' | 'spender' | 'admin' | 'cron' | 'signature'

/** Who may pass: the part of a route that is about its caller. */
export interface Admission {
  access: Access
  /** What an API key needs to pass; without a scope none passes. */
  scope?: Scope
  /** For the person alone: whoever acts in their name is refused. */
  personal?: boolean
}

/** What the proof proves. */
export interface Spender {
  userId: string
  /** The session of local sign-in, which lives in our own tables; undefined for any other proof. */
  sessionId: string | undefined
  /** Set when an API key speaks for the user. */
  key: CallingKey | undefined
  /** Who acts in the user's name, as Clerk calls them. */
  impersonator: string | undefined
}

export interface CallingKey {
  id: string
  scopes: readonly Scope[]
  requestsPerMinute: number | undefined
}

export interface Caller extends Spender {
  role: Role
  /** Whether a second factor was shown in this session. */
  mfa: boolean
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
export async function authenticate(
  request: Request,
  admission: Admission,
  ip: string,
): Promise<Spender | Caller | undefined> {
  const { access } = admission
  if (access === 'public' || access === 'signature') return undefined
  const token = proofOf(request)
  if (access === 'cron') return requireCronSecret(token)
  if (token === undefined) {
    if (access === 'visitor') return undefined
    throw new AppError('UNAUTHENTICATED', 'Sign in first: send Authorization: Bearer <access token>.', {
      headers: { 'www-authenticate': 'Bearer' },
    })
  }
  if (access === 'visitor') {
    const visitor = await activeCaller(token, request, ip).catch(asStranger)
    // What is shown to administrators is not shown to their keys.
    return visitor?.key ? undefined : visitor
  }
  if (access === 'spender') {
    const spender = await spenderOf(token, request, ip)
    requireAdmitted(spender, admission)
    return spender
  }
  const caller = await activeCaller(token, request, ip)
  if (access === 'admin') requireAdmin(caller)
  else requireAdmitted(caller, admission)
  return caller
}

/** The caller by proof alone, where that is enough: what the reservation checks is not checked here. */
async function spenderOf(token: string, request: Request, ip: string): Promise<Spender> {
  if (looksLikeKey(token)) return await callerOfKey(token)
  if (config().auth.provider === 'clerk')
    return await spenderOfClerk(await verifyClerkToken(token, originOf(request)), ip)
  return { ...(await verifyAccessToken(token)), key: undefined, impersonator: undefined }
}

async function activeCaller(token: string, request: Request, ip: string): Promise<Caller> {
  if (looksLikeKey(token)) return await callerOfKey(token)
  if (config().auth.provider === 'clerk')
    return await callerOfClerk(await verifyClerkToken(token, originOf(request)), ip)
  const { userId, sessionId } = await verifyAccessToken(token)
  const found = await db()
    .selectFrom('users')
    .select([
      'role',
      sql<string>`account_state(id, ${sessionId})`.as('state'),
      sql<boolean>`exists (select 1 from refresh_tokens t where t.family_id = ${sessionId} and t.mfa)`.as('mfa'),
    ])
    .where('id', '=', userId)
    .executeTakeFirst()
  if (found?.state !== 'active') throw refusalOf(found?.state ?? 'unknown_user')
  return { userId, sessionId, key: undefined, impersonator: undefined, role: found.role, mfa: found.mfa }
}

/** Where this product itself is, as the request sees it. */
function originOf({ url }: Request): string {
  return new URL(url).origin
}

function requireAdmitted({ key, impersonator }: Spender, { scope, personal = false }: Admission): void {
  if (key && scope === undefined) {
    throw new AppError('FORBIDDEN', 'An API key cannot do this. Sign in and use the access token.')
  }
  if (key && scope !== undefined && !key.scopes.includes(scope)) {
    throw new AppError('FORBIDDEN', `This API key lacks the scope "${scope}".`, { details: { scope } })
  }
  if (personal && impersonator !== undefined) {
    throw new AppError('FORBIDDEN', 'This is for the user alone, not for someone who acts in their name.')
  }
}

function requireAdmin({ key, impersonator, role, mfa }: Caller): void {
  if (role !== 'admin' || key || impersonator !== undefined)
    throw new AppError('NOT_FOUND', 'There is nothing at this address.')
  if (config().auth.mfaForAdmins && !mfa) {
    throw new AppError('FORBIDDEN', 'Administrators need a second factor. Set one up, then sign in with it.', {
      details: { reason: 'mfa_required' },
    })
  }
}

/** Visitors are served while the database is down: readiness is asked then. */
function asStranger(error: unknown): undefined {
  if (error instanceof AppError) throw error
  log('warn', 'caller_unknown', { error: describeError(error) })
}

/** What the request shows of itself: a bearer token, or a key in the header that is there for keys. */
function proofOf(request: Request): string | undefined {
  const header = request.headers.get('authorization')
  const key = request.headers.get('x-api-key')
  if (header === null) {
    if (key === null || looksLikeKey(key)) return key ?? undefined
    throw new AppError('UNAUTHENTICATED', 'X-API-Key does not hold an API key.')
  }
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
