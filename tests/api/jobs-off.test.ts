// Without features.asyncJobs nothing is answered later; what was taken in before still is.
import { beforeAll, expect, test } from 'vitest'
import { type App, balanceOf, givenUser, processImage, startApp, type TestUser } from '../support/app.ts'
import { order } from '../support/jobs.ts'

let app: App
let user: TestUser

beforeAll(async () => {
  app = await startApp({ FORK__FEATURES__ASYNC_JOBS: 'false', FORK__TOOLS__0__PROVIDERS: '["sketch"]' })
  user = await givenUser(app)
})

test('an order to be answered later is refused, free of charge', async () => {
  const before = await balanceOf(app, user)
  const { status, json } = await order(app, user)
  expect([status, json.error.code, json.error.details]).toEqual([
    503,
    'FEATURE_DISABLED',
    { reason: 'features.asyncJobs is false.' },
  ])
  expect(await balanceOf(app, user)).toEqual(before)
})

test('an order to be answered now is answered', async () => {
  expect((await processImage(app, user)).status).toBe(200)
})
