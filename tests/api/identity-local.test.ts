// The behaviour of identities, on local sign-in.
import { SignJWT } from 'jose'
import { describe } from 'vitest'
import { keyFor } from '../../lib/auth/secret.ts'
import { call, givenUser, startApp } from '../support/app.ts'
import { identitySuite } from '../support/identity-suite.ts'

const PASSWORD = 'correct horse battery staple'

describe('local sign-in', () => {
  identitySuite({
    start: () => startApp(),
    signUp: (app, name) => givenUser(app, name),
    signUpAgain: async (app, { email }) => {
      const body = { name: 'Ada', email, password: PASSWORD }
      const { json } = await call(app, 'POST /api/auth/register', { body })
      return { id: json.user.id, email, token: json.accessToken }
    },
    signIn: async (app, { email }) => {
      const { json } = await call(app, 'POST /api/auth/login', { body: { email, password: PASSWORD } })
      return json.accessToken
    },
    expiredToken: async ({ id }) =>
      await new SignJWT({ sid: crypto.randomUUID() })
        .setProtectedHeader({ alg: 'HS256', typ: 'at+jwt' })
        .setSubject(id)
        .setIssuer('local')
        .setAudience('api')
        .setIssuedAt('-16 minutes')
        .setExpirationTime('-6 seconds')
        .sign(keyFor('access-token')),
  })
})
