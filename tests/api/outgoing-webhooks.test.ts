// Events for the operator's own program: signed, told once, tried again until they arrive, and never for ever.
import { verifyWebhook } from '@clerk/backend/webhooks'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { parseEnv } from '../../lib/env.ts'
import { deliverWebhooks, signatureHeaders, tell } from '../../lib/outgoing-webhooks.ts'
import { startApp } from '../support/app.ts'
import { startWebhookReceiver, WEBHOOK_SECRET } from '../support/webhook-receiver.ts'

const ATTEMPTS_MAX = 10

let receiver: Awaited<ReturnType<typeof startWebhookReceiver>>
let events = 0

beforeAll(async () => {
  receiver = await startWebhookReceiver()
  await startApp(receiver.variables)
})

afterAll(() => receiver.close())

beforeEach(async () => {
  await db().deleteFrom('outgoing_webhooks').execute()
  receiver.behave([])
})

/** An event under a key of its own. */
function anEvent() {
  events += 1
  return { type: 'job.succeeded' as const, uniqueKey: `event:${events}`, data: { number: events } }
}

type Event = ReturnType<typeof anEvent>

const rowOf = ({ uniqueKey }: Event) =>
  db().selectFrom('outgoing_webhooks').selectAll().where('unique_key', '=', uniqueKey).executeTakeFirst()
const arrivals = ({ data }: Event) => receiver.received.filter(({ event }) => event.data.number === data.number)
const ended = async (event: Event) => {
  await expect.poll(async () => (await rowOf(event))?.delivered_at, { timeout: 20_000 }).toBeInstanceOf(Date)
}

/** An event on record as `tell` leaves it, which nobody has begun to send. */
async function waiting(event: Event, { attempts = 0, dueInSeconds = 0 } = {}): Promise<void> {
  const body = JSON.stringify({ type: event.type, timestamp: new Date().toISOString(), data: event.data })
  const next_attempt_at = sql<Date>`now() + make_interval(secs => ${dueInSeconds})`
  await db()
    .insertInto('outgoing_webhooks')
    .values({ type: event.type, body, unique_key: event.uniqueKey, attempts, next_attempt_at })
    .execute()
}

const makeDue = () => db().updateTable('outgoing_webhooks').set({ next_attempt_at: sql`now()` }).execute()

describe('an event', () => {
  test('arrives by itself, signed, once its transaction has ended', async () => {
    const event = anEvent()
    await db()
      .transaction()
      .execute(async (trx) => {
        expect(await tell(trx, event)).toBe(true)
        await new Promise((resolve) => setTimeout(resolve, 100)) // Longer than the first look for it waits.
      })
    await ended(event)
    const row = await rowOf(event)
    expect(arrivals(event)).toEqual([
      {
        id: row?.id,
        signed: true,
        path: '/events',
        event: { type: 'job.succeeded', timestamp: expect.stringMatching(/^\d{4}-.*Z$/), data: event.data },
      },
    ])
  })

  test('of a transaction that was rolled back is told to nobody', async () => {
    const event = anEvent()
    const work = db()
      .transaction()
      .execute(async (trx) => {
        await tell(trx, event)
        throw new Error('Rolled back.')
      })
    await expect(work).rejects.toThrow('Rolled back.')
    expect(await deliverWebhooks(10)).toEqual({ delivered: 0, failed: 0 })
    expect(arrivals(event)).toEqual([])
  })

  test('that fifty notice at once is told once', async () => {
    const event = anEvent()
    const told = await Promise.all(Array.from({ length: 50 }, () => tell(db(), event)))
    expect(told.filter(Boolean)).toHaveLength(1)
    await ended(event)
    await deliverWebhooks(10)
    expect(await tell(db(), event)).toBe(false)
    expect(arrivals(event)).toHaveLength(1)
  })

  test('is sent once, however many send what is due', async () => {
    const due = Array.from({ length: 12 }, anEvent)
    for (const event of due) await waiting(event)
    const counts = await Promise.all(Array.from({ length: 8 }, () => deliverWebhooks(20)))
    expect(counts.reduce((sum, { delivered }) => sum + delivered, 0)).toBe(12)
    for (const event of due) expect(arrivals(event)).toHaveLength(1)
  })

  test('no more of them are sent than the caller allows', async () => {
    for (const event of Array.from({ length: 7 }, anEvent)) await waiting(event)
    expect(await deliverWebhooks(6)).toEqual({ delivered: 6, failed: 0 })
    expect(await deliverWebhooks(6)).toEqual({ delivered: 1, failed: 0 })
  })
})

describe('an event that was not taken', () => {
  test('is kept with the beginning of the answer, and sent again later under the same id', async () => {
    const event = anEvent()
    await waiting(event)
    receiver.behave([{ status: 500, body: `broken\0\n${'x'.repeat(100_000)}` }])
    expect(await deliverWebhooks(10)).toEqual({ delivered: 0, failed: 1 })
    const row = await rowOf(event)
    expect(row?.last_error).toMatch(/^It answered 500: broken x+$/)
    expect(row?.last_error?.length).toBeLessThan(300)
    expect(row?.next_attempt_at.getTime()).toBeGreaterThan(row?.created_at.getTime() ?? 0)
    expect(await deliverWebhooks(10), 'before its time').toEqual({ delivered: 0, failed: 0 })

    await makeDue()
    expect(await deliverWebhooks(10)).toEqual({ delivered: 1, failed: 0 })
    expect(arrivals(event).map(({ id, signed }) => ({ id, signed }))).toEqual([
      { id: row?.id, signed: true },
      { id: row?.id, signed: true },
    ])
    expect(await rowOf(event)).toMatchObject({ attempts: 2, last_error: null, given_up_at: null })
  })

  test('with an answer that never ends is not listened to for longer than needed', async () => {
    const event = anEvent()
    await waiting(event)
    receiver.behave(['endless'])
    expect(await deliverWebhooks(10)).toEqual({ delivered: 0, failed: 1 })
    expect((await rowOf(event))?.last_error).toMatch(/^It answered 500: on and on /)
  })

  test('is not sent on to where a redirect points', async () => {
    const event = anEvent()
    await waiting(event)
    receiver.behave([{ status: 307, headers: { location: receiver.url.replace('/events', '/elsewhere') } }])
    expect(await deliverWebhooks(10)).toEqual({ delivered: 0, failed: 1 })
    expect(arrivals(event).map(({ path }) => path)).toEqual(['/events'])
    expect((await rowOf(event))?.last_error).toMatch(/^It answered 307/)
  })

  test(`is given up after ${ATTEMPTS_MAX} attempts, and stays for an operator to see`, async () => {
    const event = anEvent()
    await waiting(event)
    receiver.behave(Array.from({ length: ATTEMPTS_MAX + 1 }, () => ({ status: 503 })))
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
      expect(await rowOf(event)).toMatchObject({ given_up_at: null, delivered_at: null })
      await makeDue()
      expect(await deliverWebhooks(10)).toEqual({ delivered: 0, failed: 1 })
    }
    expect(vi.mocked(console.log).mock.calls.flat().join('\n')).toContain('"event":"webhook_given_up"')
    expect(await rowOf(event)).toMatchObject({
      attempts: ATTEMPTS_MAX,
      given_up_at: expect.any(Date),
      delivered_at: null,
    })
    await makeDue()
    expect(await deliverWebhooks(10)).toEqual({ delivered: 0, failed: 0 })
  })

  test('because its sender died is due again when the lease is over, and not before', async () => {
    const event = anEvent()
    await waiting(event, { attempts: 1, dueInSeconds: 60 })
    expect(await deliverWebhooks(10)).toEqual({ delivered: 0, failed: 0 })
    await makeDue()
    expect(await deliverWebhooks(10)).toEqual({ delivered: 1, failed: 0 })
  })

  test('because nobody listens is kept, and says why', async () => {
    const event = anEvent()
    await waiting(event)
    const { env } = await import('../../lib/env.ts')
    const { outgoingWebhook } = env()
    if (!outgoingWebhook) throw new Error('No webhook is set.')
    const { url } = outgoingWebhook
    outgoingWebhook.url = 'http://127.0.0.1:1/'
    try {
      expect(await deliverWebhooks(10)).toEqual({ delivered: 0, failed: 1 })
    } finally {
      outgoingWebhook.url = url
    }
    expect((await rowOf(event))?.last_error).toMatch(/^It could not be reached: /)
  })
})

test('what ended long ago is forgotten, what still waits is not', async () => {
  const [old, recent, open] = [anEvent(), anEvent(), anEvent()]
  for (const event of [old, recent, open]) await waiting(event, { dueInSeconds: 600 })
  const end = (event: Event, days: number) =>
    db()
      .updateTable('outgoing_webhooks')
      .set({ delivered_at: sql`now() - make_interval(days => ${days})` })
      .where('unique_key', '=', event.uniqueKey)
      .execute()
  await end(old, 41)
  await end(recent, 39)
  await sql`update outgoing_webhooks set created_at = now() - interval '100 days'`.execute(db())
  await deliverWebhooks(10)
  expect([await rowOf(old), await rowOf(recent), await rowOf(open)]).toEqual([
    undefined,
    expect.anything(),
    expect.anything(),
  ])
})

test('the signature is one that another implementation of Standard Webhooks accepts', async () => {
  const message = { id: 'msg_p5jXN8AQM9LWM0D4loKWxJek', body: '{"type":"user.created","data":{}}' }
  const headers = signatureHeaders(message, WEBHOOK_SECRET, Math.floor(Date.now() / 1000))
  const svix = Object.entries(headers).map(([name, value]) => [name.replace('webhook-', 'svix-'), value])
  const request = (body: string) =>
    new Request('https://example.com', { method: 'POST', headers: Object.fromEntries(svix), body })
  const options = { signingSecret: WEBHOOK_SECRET }
  expect(await verifyWebhook(request(message.body), options)).toMatchObject({ type: 'user.created' })
  await expect(verifyWebhook(request(`${message.body} `), options)).rejects.toThrow()
})

describe('the environment', () => {
  const problems = (url: string, secret: string) => {
    try {
      parseEnv({ OUTGOING_WEBHOOK_URL: url, OUTGOING_WEBHOOK_SECRET: secret })
      return 'none'
    } catch (error) {
      return String(error)
    }
  }

  test.each(['https://example.com/events', 'http://localhost:8080/', 'http://127.0.0.1/x', 'http://[::1]:3000/'])(
    'may name %s',
    (url) => {
      expect(problems(url, WEBHOOK_SECRET)).toBe('none')
    },
  )

  test.each(['http://example.com/events', 'http://127.0.0.1.example.com/', 'ftp://example.com', 'nonsense'])(
    'may not name %s',
    (url) => {
      expect(problems(url, WEBHOOK_SECRET)).toContain('OUTGOING_WEBHOOK_URL')
    },
  )

  test.each(['secret', 'whsec_', 'whsec_c2hvcnQ=', `${WEBHOOK_SECRET}!`])('refuses the secret %s', (secret) => {
    expect(problems('https://example.com', secret)).toContain('OUTGOING_WEBHOOK_SECRET')
  })
})
