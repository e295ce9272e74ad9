// Every limited route answers 429 when its caller has used up the minute.
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { allRoutes, examplePath } from '../support/routes.ts'

const QUOTA = 3

let app: App
let user: TestUser

beforeAll(async () => {
  const policies = ['GENERATE', 'READ', 'SIGN_IN']
  const limits = policies.map((name) => [`FORK__LIMITS__${name}__PER_MINUTE`, String(QUOTA)])
  // Not 'development', where mail is printed.
  app = await startApp({ ...Object.fromEntries(limits), VERCEL_ENV: 'preview' })
  user = await givenUser(app)
  await db().updateTable('users').set({ role: 'admin' }).where('id', '=', user.id).execute()
})

const limited = (await allRoutes()).filter(({ route }) => route.limit !== undefined)
const unlimited = (await allRoutes())
  .filter(({ route }) => route.limit === undefined)
  .map(({ method, path }) => `${method} ${path}`)

describe('limits', () => {
  test('only liveness, the scheduler and what is signed are not limited', () => {
    expect(unlimited).toEqual([
      'GET /api/health',
      'GET /api/jobs/sweep',
      'POST /api/jobs/sweep',
      'POST /api/webhooks/clerk',
      'POST /api/webhooks/polar',
    ])
  })

  test.each(
    limited.map(({ method, path, route }, index) => ({
      name: `${method} ${path}`,
      path: examplePath(path),
      method,
      access: route.access,
      index,
    })),
  )('$name answers 429 after the quota', async ({ path, method, access, index }) => {
    const options = { ip: `198.51.100.${index}`, ...(access !== 'public' && { token: user.token }) }
    let last = await call(app, `${method} ${path}`, options)
    for (let round = 0; round < QUOTA * 6 && last.status !== 429; round += 1)
      last = await call(app, `${method} ${path}`, options)
    expect(last.status).toBe(429)
    expect(last.json.error).toMatchObject({ code: 'RATE_LIMITED', details: { retryAfterSeconds: expect.any(Number) } })
    expect(Number(last.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(last.headers.get('ratelimit-policy')).toContain(`q=${QUOTA}`)
  })
})
