// Webhooks to a receiver that never answers, and from a process that dies while it sends.
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { deliverWebhooks } from '../../lib/outgoing-webhooks.ts'
import { type App, call, startApp } from '../support/app.ts'
import { startServer } from '../support/server.ts'
import { startWebhookReceiver } from '../support/webhook-receiver.ts'

const CRON_SECRET = 'secret-of-the-scheduler'

let app: App
let receiver: Awaited<ReturnType<typeof startWebhookReceiver>>

beforeAll(async () => {
  receiver = await startWebhookReceiver()
  app = await startApp({ ...receiver.variables, CRON_SECRET })
})

afterAll(() => receiver.close())

beforeEach(async () => {
  await db().deleteFrom('outgoing_webhooks').execute()
  receiver.received.length = 0
  receiver.behave([])
})

const rows = () => db().selectFrom('outgoing_webhooks').selectAll().execute()
const makeDue = () => db().updateTable('outgoing_webhooks').set({ next_attempt_at: sql`now()` }).execute()
const waiting = (key: string) =>
  db().insertInto('outgoing_webhooks').values({ type: 'job.failed', body: '{"data":{}}', unique_key: key }).execute()

describe('an event', () => {
  test('whose receiver never answers is let go of after a while, and due again later', async () => {
    receiver.behave(['hang'])
    await waiting('hangs')
    expect(await deliverWebhooks(5)).toEqual({ delivered: 0, failed: 1 })
    expect(await rows()).toMatchObject([
      { attempts: 1, last_error: 'It could not be reached: TimeoutError.', delivered_at: null, given_up_at: null },
    ])
    await makeDue()
    expect(await deliverWebhooks(5)).toEqual({ delivered: 1, failed: 0 })
  })

  test('whose sender is killed in the middle arrives by the next sweep after its lease, under the same id', async () => {
    receiver.behave(['hang'])
    await waiting('orphaned')
    const server = await startServer(app.stores)
    const sweep = (where: App) => call(where, 'POST /api/jobs/sweep', { token: CRON_SECRET })
    const lost = sweep(server).catch(() => undefined)
    await expect.poll(() => receiver.received.length, { timeout: 20_000 }).toBe(1)
    await server.kill()
    await lost
    expect((await sweep(app)).json, 'within the lease').toMatchObject({ webhooks: { delivered: 0, failed: 0 } })
    await makeDue()
    expect((await sweep(app)).json).toMatchObject({ webhooks: { delivered: 1, failed: 0 } })
    const [row] = await rows()
    expect(receiver.received.map(({ id }) => id)).toEqual([row?.id, row?.id])
    expect(row).toMatchObject({ attempts: 2, delivered_at: expect.any(Date) })
  })
})
