// Sign-in of the fork's own: register, log in, refresh, log out, password, address, second factor, sessions.
import * as v from 'valibot'
import { db } from '../db/client.ts'
import { actorOf } from '../lib/audit.ts'
import { ACCESS_TOKEN_SECONDS, signAccessToken } from '../lib/auth/access-token.ts'
import { changePassword, register, requireActive } from '../lib/auth/accounts.ts'
import { redeemAddress, requestAddressChange, sendVerification } from '../lib/auth/addresses.ts'
import { confirmFactor, disableMfa, enrol, mfaOf, renewRecoveryCodes } from '../lib/auth/mfa.ts'
import { forgotPassword, resetPassword } from '../lib/auth/password-reset.ts'
import { profileOf } from '../lib/auth/profile.ts'
import { endSession, listSessions, rotateSession, type Session, sessionOf } from '../lib/auth/sessions.ts'
import { restore, signIn } from '../lib/auth/sign-in.ts'
import { env } from '../lib/env.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { AppError } from '../lib/http/errors.ts'

const Email = v.pipe(v.string(), v.trim(), v.toLowerCase(), v.maxLength(255), v.email('Not an e-mail address.'))
const Name = v.pipe(v.string(), v.trim(), v.minLength(1, 'A name is needed.'), v.maxLength(100))
const Password = v.pipe(v.string(), v.minLength(1, 'A password is needed.'), v.maxLength(1_000))
const Code = v.pipe(v.string(), v.trim(), v.minLength(1, 'A code is needed.'), v.maxLength(40))
const MailedToken = v.pipe(v.string(), v.minLength(1), v.maxLength(200))
const Registration = v.strictObject({ name: Name, email: Email, password: Password })
const Credentials = v.strictObject({ email: Email, password: Password, code: v.optional(Code) })
const RefreshToken = v.strictObject({ refreshToken: v.pipe(v.string(), v.minLength(1), v.maxLength(200)) })
const PasswordChange = v.strictObject({ currentPassword: Password, newPassword: Password })
const Forgotten = v.strictObject({ email: Email })
const PasswordReset = v.strictObject({ token: MailedToken, newPassword: Password })
const Verification = v.strictObject({ token: MailedToken })
const AddressChange = v.strictObject({ email: Email, password: Password })
const CodeOnly = v.strictObject({ code: Code })
const PasswordAndCode = v.strictObject({ password: Password, code: Code })

const stranger = { access: 'public', limit: 'signIn' } as const
const owner = { access: 'user', limit: 'signIn', personal: true } as const
const reader = { access: 'user', limit: 'read' } as const

export default endpoint(
  {
    'POST /api/auth/register': route({ ...stranger, body: Registration, handle: registerUser }),
    'POST /api/auth/login': route({ ...stranger, body: Credentials, handle: logIn }),
    'POST /api/auth/restore': route({ ...stranger, body: Credentials, handle: restoreUser }),
    'POST /api/auth/refresh': route({ ...stranger, body: RefreshToken, handle: refresh }),
    'POST /api/auth/logout': route({ ...stranger, body: RefreshToken, handle: logOut }),
    'POST /api/auth/password': route({ ...owner, body: PasswordChange, handle: setPassword }),
    'POST /api/auth/password/forgot': route({ ...stranger, body: Forgotten, handle: forgot }),
    'POST /api/auth/password/reset': route({ ...stranger, body: PasswordReset, handle: reset }),
    'POST /api/auth/email/verification': route({ ...owner, handle: askForVerification }),
    'POST /api/auth/email/verify': route({ access: 'visitor', limit: 'signIn', body: Verification, handle: verify }),
    'POST /api/auth/email/change': route({ ...owner, body: AddressChange, handle: changeAddress }),
    'GET /api/auth/mfa': route({ ...reader, handle: ({ caller }) => mfaOf(caller) }),
    'POST /api/auth/mfa/enroll': route({ ...owner, handle: enrolFactor }),
    'POST /api/auth/mfa/verify': route({ ...owner, body: CodeOnly, handle: verifyFactor }),
    'POST /api/auth/mfa/recovery-codes': route({ ...owner, body: CodeOnly, handle: newRecoveryCodes }),
    'POST /api/auth/mfa/disable': route({ ...owner, body: PasswordAndCode, handle: disable }),
    'GET /api/auth/sessions': route({ ...reader, handle: sessions }),
    'DELETE /api/auth/sessions/:id': route({ ...reader, handle: deleteSession }),
  },
  { authProvider: 'local' },
)

async function registerUser(context: Context<'public', v.InferOutput<typeof Registration>>) {
  const session = await register(context.body, originOf(context))
  if (env().resend) await sendVerification(session.userId, pagesOf(context.url))
  return Response.json(await signedIn(session), { status: 201 })
}

async function logIn(context: Context<'public', v.InferOutput<typeof Credentials>>) {
  return await signedIn(await signIn(context.body, originOf(context)))
}

async function restoreUser(context: Context<'public', v.InferOutput<typeof Credentials>>) {
  return await signedIn(await restore(context.body, originOf(context)))
}

async function refresh(context: Context<'public', v.InferOutput<typeof RefreshToken>>) {
  // Before the exchange: a refused one would leave the client with a token that is spent.
  const known = await sessionOf(db(), context.body.refreshToken)
  if (known) await requireActive(db(), known.userId)
  const session = await rotateSession(db(), context.body.refreshToken, originOf(context))
  if (session.reused) {
    throw new AppError(
      'UNAUTHENTICATED',
      'This refresh token was used before. The session has been ended; sign in again.',
    )
  }
  return await signedIn(session)
}

/** Always 204: whoever signs out is signed out, whatever the token was worth. */
async function logOut(context: Context<'public', v.InferOutput<typeof RefreshToken>>) {
  const session = await sessionOf(db(), context.body.refreshToken)
  if (session) await endSession(db(), session, 'logout', originOf(context))
  return noContent()
}

async function setPassword(context: Context<'user', v.InferOutput<typeof PasswordChange>>) {
  await changePassword(context.caller, context.body, originOf(context))
  return noContent()
}

async function forgot({ body, url }: Context<'public', v.InferOutput<typeof Forgotten>>) {
  await forgotPassword(body.email, pagesOf(url))
  return accepted()
}

async function reset(context: Context<'public', v.InferOutput<typeof PasswordReset>>) {
  await resetPassword(context.body, originOf(context))
  return noContent()
}

async function askForVerification({ caller, url }: Context<'user'>) {
  await sendVerification(caller.userId, pagesOf(url))
  return accepted()
}

async function verify(context: Context<'visitor', v.InferOutput<typeof Verification>>) {
  const keptSessionId = context.caller?.sessionId
  await redeemAddress(context.body.token, { keptSessionId, origin: originOf(context) })
  return noContent()
}

async function changeAddress(context: Context<'user', v.InferOutput<typeof AddressChange>>) {
  const { body, caller, url } = context
  await requestAddressChange(caller.userId, body, pagesOf(url), actorOf(context, 'user'))
  return accepted()
}

async function enrolFactor(context: Context<'user'>) {
  return await enrol(context.caller.userId, actorOf(context, 'user'))
}

async function verifyFactor(context: Context<'user', v.InferOutput<typeof CodeOnly>>) {
  return { recoveryCodes: await confirmFactor(context.caller, context.body.code, actorOf(context, 'user')) }
}

async function newRecoveryCodes(context: Context<'user', v.InferOutput<typeof CodeOnly>>) {
  const { body, caller } = context
  return { recoveryCodes: await renewRecoveryCodes(caller.userId, body.code, actorOf(context, 'user')) }
}

async function disable(context: Context<'user', v.InferOutput<typeof PasswordAndCode>>) {
  await disableMfa(context.caller, context.body, actorOf(context, 'user'))
  return noContent()
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

async function deleteSession(context: Context<'user'>) {
  const { caller, params } = context
  const id = v.safeParse(v.pipe(v.string(), v.uuid()), params.id)
  const session = id.success ? { userId: caller.userId, sessionId: id.output } : undefined
  if (!session || !(await endSession(db(), session, 'session', originOf(context)))) {
    throw new AppError('NOT_FOUND', 'There is no such session.')
  }
  return noContent()
}

async function signedIn({ userId, sessionId, refreshToken }: Session) {
  const [user, accessToken] = await Promise.all([profileOf(userId), signAccessToken({ userId, sessionId })])
  return { user, accessToken, refreshToken, expiresIn: ACCESS_TOKEN_SECONDS }
}

function originOf({ ip, request, requestId }: { ip: string; request: Request; requestId: string }) {
  return { ip, userAgent: request.headers.get('user-agent'), requestId }
}

/** Where links in mails lead. */
function pagesOf({ origin }: URL): string {
  return env().appOrigin ?? origin
}

function accepted(): Response {
  return new Response(null, { status: 202 })
}

function noContent(): Response {
  return new Response(null, { status: 204 })
}
