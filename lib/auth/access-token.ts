// Access tokens of local sign-in: short-lived JWTs (RFC 9068, HS256) that name a user and a session.

import { AppError } from '../http/errors.ts'
import { keyFor } from './secret.ts'

export const ACCESS_TOKEN_SECONDS = 15 * 60
const ISSUER = 'local'
const AUDIENCE = 'api'
const TYPE = 'at+jwt'

export async function signAccessToken({ userId, sessionId }: { userId: string; sessionId: string }): Promise<string> {
  const { SignJWT } = await import('jose')
  return await new SignJWT({ sid: sessionId })
    .setProtectedHeader({ alg: 'HS256', typ: TYPE })
    .setSubject(userId)
    .setIssuer(ISSUER)
    .setAudience(AUDIENCE)
    .setIssuedAt()
    .setExpirationTime(`${ACCESS_TOKEN_SECONDS}s`)
    .sign(keyFor('access-token'))
}

/** Who a token speaks for. Throws TOKEN_EXPIRED for one of ours that is too old, UNAUTHENTICATED for anything else. */
export async function verifyAccessToken(token: string): Promise<{ userId: string; sessionId: string }> {
  const { errors, jwtVerify } = await import('jose')
  try {
    const { payload } = await jwtVerify(token, keyFor('access-token'), {
      algorithms: ['HS256'],
      issuer: ISSUER,
      audience: AUDIENCE,
      typ: TYPE,
      requiredClaims: ['sub', 'sid', 'exp'],
    })
    return { userId: String(payload.sub), sessionId: String(payload.sid) }
  } catch (error) {
    if (error instanceof AppError) throw error
    if (error instanceof errors.JWTExpired)
      throw new AppError('TOKEN_EXPIRED', 'The access token has expired. Refresh it.')
    throw new AppError('UNAUTHENTICATED', 'The access token is not valid.', { cause: error })
  }
}
