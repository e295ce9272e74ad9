// Sessions of local sign-in: refresh tokens that rotate without forking, theft that shows, and every way a session ends.
import { setTimeout as pause } from 'node:timers/promises'
import { sql } from 'kysely'
import sharp from 'sharp'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { rotateSession } from '../../lib/auth/sessions.ts'
import { type App, call, givenUser, photo, processImage, startApp, type TestUser } from '../support/app.ts'
import { currentLane } from '../support/lane.ts'
import { suspend } from '../support/money.ts'

interface SignedIn {
  accessToken: string
  refreshToken: string
}

let app: App
let thumbnail: Buffer
let user: TestUser
let stranger: TestUser

beforeAll(async () => {
  app = await startApp({ FORK__TOOLS__0__PROVIDERS: '["sketch"]' })
  thumbnail = await sharp(photo()).resize(64).jpeg().toBuffer()
  user = await givenUser(app)
  stranger = await givenUser(app)
})

let session: SignedIn

beforeEach(async () => {
  session = await signIn()
})

async function signIn({ ip, userAgent = 'node' }: { ip?: string; userAgent?: string } = {}): Promise<SignedIn> {
  const { email, password } = user
  const headers = { 'user-agent': userAgent }
  return (await call(app, 'POST /api/auth/login', { body: { email, password }, headers, ...(ip && { ip }) })).json
}

const refresh = (refreshToken: string) => call(app, 'POST /api/auth/refresh', { body: { refreshToken } })
const logOut = (refreshToken: string) => call(app, 'POST /api/auth/logout', { body: { refreshToken } })
const sessionsOf = async ({ accessToken }: SignedIn) =>
  (await call(app, 'GET /api/auth/sessions', { token: accessToken })).json.data
const endSession = (id: string, { accessToken }: SignedIn = session) =>
  call(app, `DELETE /api/auth/sessions/${id}`, { token: accessToken })

function sessionIdOf({ accessToken }: SignedIn): string {
  return JSON.parse(Buffer.from(accessToken.split('.')[1] ?? '', 'base64url').toString()).sid
}

/** Statuses of both kinds of route for an access token. */
async function statusesOf({ accessToken }: SignedIn) {
  const profile = await call(app, 'GET /api/user/profile', { token: accessToken })
  const image = await processImage(app, { ...user, token: accessToken }, { image: thumbnail, query: '?provider=nobody' })
  return [profile.status, image.status]
}

/** The spending route says 400 here, because it looks at the request before the session, and 401 only for what can be run. */
async function isAlive(signedIn: SignedIn): Promise<boolean> {
  const profile = await call(app, 'GET /api/user/profile', { token: signedIn.accessToken })
  return profile.status === 200
}
