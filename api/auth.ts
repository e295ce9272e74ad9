// Sign-in of the fork's own: register, log in, refresh, log out, password, sessions.
import * as v from 'valibot'
import { db } from '../db/client.ts'
import { recordAudit } from '../lib/audit.ts'
import { ACCESS_TOKEN_SECONDS, signAccessToken } from '../lib/auth/access-token.ts'
import { changePassword, register, requireActive, signIn } from '../lib/auth/accounts.ts'
import { profileOf } from '../lib/auth/profile.ts'
import { listSessions, revokeSession, rotateSession, type Session, sessionOf } from '../lib/auth/sessions.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { AppError } from '../lib/http/errors.ts'

const Email = v.pipe(v.string(), v.trim(), v.toLowerCase(), v.maxLength(255), v.email('Not an e-mail address.'))
const Name = v.pipe(v.string(), v.trim(), v.minLength(1, 'A name is needed.'), v.maxLength(100))
const Password = v.pipe(v.string(), v.minLength(1, 'A password is needed.'), v.maxLength(1_000))
const Registration = v.strictObject({ name: Name, email: Email, password: Password })
const Credentials = v.strictObject({ email: Email, password: Password })
const RefreshToken = v.strictObject({ refreshToken: v.pipe(v.string(), v.minLength(1), v.maxLength(200)) })
const PasswordChange = v.strictObject({ currentPassword: Password, newPassword: Password })

export default endpoint({
  'POST /api/auth/register': route({ access: 'public', limit: 'signIn', body: Registration, handle: registerUser }),
  'POST /api/auth/login': route({ access: 'public', limit: 'signIn', body: Credentials, handle: logIn }),
  'POST /api/auth/refresh': route({ access: 'public', limit: 'signIn', body: RefreshToken, handle: refresh }),
  'POST /api/auth/logout': route({ access: 'public', limit: 'signIn', body: RefreshToken, handle: logOut }),
  'POST /api/auth/password': route({ access: 'user', limit: 'signIn', body: PasswordChange, handle: setPassword }),
  'GET /api/auth/sessions': route({ access: 'user', limit: 'read', handle: sessions }),
  'DELETE /api/auth/sessions/:id': route({ access: 'user', limit: 'read', handle: endSession }),
})

async function registerUser(context: Context<'public', v.InferOutput<typeof Registration>>) {
  return Response.json(await signedIn(await register(context.body, originOf(context))), { status: 201 })
}

async function logIn(context: Context<'public', v.InferOutput<typeof Credentials>>) {
  return await signedIn(await signIn(context.body, originOf(context)))
}

async function refresh(context: Context<'public', v.InferOutput<typeof RefreshToken>>) {
  const origin = originOf(context)
  // Before the exchange: a refused one would leave the client with a token that is spent.
  const owner = await sessionOf(db(), context.body.refreshToken)
  if (owner) await requireActive(db(), owner.userId)
  const session = await rotateSession(db(), context.body.refreshToken, origin)
  if (session.reused) {
    const { userId, sessionId } = session
    await recordAudit(db(), {
      actor: { type: 'user', id: userId },
      action: 'session.reuse',
      target: { type: 'session', id: sessionId },
      ...origin,
    })
    throw new AppError(
      'UNAUTHENTICATED',
      'This refresh token was used before. The session has been ended; sign in again.',
    )
  }
  return await signedIn(session)
}

/** Always 204: whoever signs out is signed out, whatever the token was worth. */
async function logOut({ body }: Context<'public', v.InferOutput<typeof RefreshToken>>) {
  const session = await sessionOf(db(), body.refreshToken)
  if (session) await revokeSession(db(), session.userId, session.sessionId, 'logout')
  return new Response(null, { status: 204 })
}

async function setPassword(context: Context<'user', v.InferOutput<typeof PasswordChange>>) {
  await changePassword(context.caller, context.body, originOf(context))
  return new Response(null, { status: 204 })
}

async function sessions({ caller }: Context<'user'>) {
  const rows = await listSessions(db(), caller.userId)
  const data = rows.map((row) => ({
    id: row.family_id,
    current: row.family_id === caller.sessionId,
    ip: row.ip,
    userAgent: row.user_agent,
    createdAt: row.created_at,
    lastUsedAt: row.last_used_at,
    expiresAt: row.expires_at,
  }))
  return { data, page: { nextCursor: null, hasMore: false } }
}

async function endSession({ caller, params }: Context<'user'>) {
  const id = v.safeParse(v.pipe(v.string(), v.uuid()), params.id)
  if (!id.success || !(await revokeSession(db(), caller.userId, id.output, 'session'))) {
    throw new AppError('NOT_FOUND', 'There is no such session.')
  }
  return new Response(null, { status: 204 })
}

async function signedIn({ userId, sessionId, refreshToken }: Session) {
  const [user, accessToken] = await Promise.all([profileOf(userId), signAccessToken({ userId, sessionId })])
  return { user, accessToken, refreshToken, expiresIn: ACCESS_TOKEN_SECONDS }
}

function originOf({ ip, request, requestId }: { ip: string; request: Request; requestId: string }) {
  return { ip, userAgent: request.headers.get('user-agent'), requestId }
}
