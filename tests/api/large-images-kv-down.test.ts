// The daily limit of uploads while the KV store cannot be reached: this instance counts by itself.
import { expect, test } from 'vitest'
import { call, givenUser, startApp } from '../support/app.ts'
import { startBlobStub } from '../support/blob-stub.ts'

test('a hundred uploads are permitted and no more, however many ask at once', async () => {
  const blob = await startBlobStub()
  // Nobody listens there.
  const app = await startApp({ ...blob.variables, KV_REST_API_URL: 'http://127.0.0.1:9', KV_REST_API_TOKEN: 'x' })
  const { token } = await givenUser(app)
  const body = { contentType: 'image/png', bytes: 10 }
  const permits = Array.from({ length: 105 }, () => call(app, 'POST /api/process-image/uploads', { token, body }))
  const statuses = (await Promise.all(permits)).map(({ status }) => status)
  expect(statuses.filter((status) => status === 201)).toHaveLength(100)
  expect(statuses.filter((status) => status === 429)).toHaveLength(5)
  await blob.close()
})
