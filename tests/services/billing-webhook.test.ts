// The endpoint of Polar's webhooks, called with signed bytes on real PostgreSQL: what it answers, and what it writes down.
import { beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { verifyPolarEvent } from '../../lib/billing/polar.ts'
import { type SigningScheme, signedHeaders } from '../../scripts/loopback-polar/signing.ts'
import { type App, call, startApp } from '../support/app.ts'
import { makeClock } from '../support/clock.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { givenAccount, lots } from '../support/ledger-account.ts'
import { OPENED } from '../support/paid-plans.ts'
import { polarOrder, SHOP_VARIABLES } from '../support/polar-states.ts'

const OTHER_SECRET = 'whsec_b3RoZXIgc2VjcmV0IG9mIHRoZSBzYW1lIGxlbmd0aA=='

let app: App
let userId: string
let id: string

beforeAll(async () => {
  app = await startApp(SHOP_VARIABLES)
  await makeClock(db())
})

beforeEach(async () => {
  userId = (await givenAccount(OPENED)).userId
  id = crypto.randomUUID()
})

interface Signing {
  id?: string
  secret?: string
  scheme?: SigningScheme
  secondsAgo?: number
}

function signed(body: string, { secret, scheme = 'standard', secondsAgo = 0, ...rest }: Signing = {}) {
  const timestampSeconds = Math.floor(Date.now() / 1000) - secondsAgo
  return signedHeaders({
    id,
    body,
    timestampSeconds,
    secret: secret ?? SHOP_VARIABLES.POLAR_WEBHOOK_SECRET,
    scheme,
    ...rest,
  })
}

const deliver = async (body: string, signing?: Signing) => {
  const headers = signed(body, signing)
  const { status, json } = await call(app, 'POST /api/webhooks/polar', { body: Buffer.from(body), headers })
  return { status, json }
}
const paid = (changes: object = {}) =>
  JSON.stringify({ type: 'order.paid', timestamp: OPENED, data: { ...polarOrder(userId), ...changes } })
const granted = async () => (await lots(userId, 'pack')).map((lot) => lot.granted)
const kept = async () => await db().selectFrom('webhook_events').selectAll().where('id', '=', id).executeTakeFirst()
const requestLine = () =>
  vi
    .mocked(console.log)
    .mock.calls.map(([line]) => JSON.parse(String(line)))
    .find(({ event }) => event === 'request')

describe('a signed event', () => {
  test.each(['standard', 'legacy'] as const)(
    'by the %s scheme takes effect, and is kept as it came',
    async (scheme) => {
      const body = paid()
      expect(await deliver(body, { scheme })).toEqual({ status: 202, json: { receipt: 'applied' } })
      expect(await granted()).toEqual([500])
      expect(await kept()).toMatchObject({ type: 'order.paid', body, outcome: 'applied' })
      expect(requestLine()).toMatchObject({ status: 202, webhookId: id, webhook: 'order.paid', receipt: 'applied' })
      expect(await deliver(body, { scheme })).toEqual({ status: 202, json: { receipt: 'duplicate' } })
      expect(await granted()).toEqual([500])
    },
  )

  test('that means nothing here is accepted', async () => {
    const body = JSON.stringify({ type: 'checkout.created', timestamp: OPENED, data: {} })
    expect(await deliver(body)).toEqual({ status: 202, json: { receipt: 'ignored' } })
  })

  test('of a type that nobody knew is accepted, and not kept', async () => {
    const body = JSON.stringify({ type: 'order.teleported', timestamp: OPENED, data: {} })
    expect(await deliver(body)).toEqual({ status: 202, json: { receipt: 'unknown_type' } })
    expect(requestLine()).toMatchObject({ webhookId: id, receipt: 'unknown_type' })
    expect(requestLine()).not.toHaveProperty('webhook')
    expect(await kept()).toBeUndefined()
  })

  test.each(['', 'no JSON', '[]', '"text"'])('whose body is %o is accepted, and not kept', async (body) => {
    const { status, json } = await deliver(body)
    expect([status, ['unreadable', 'unknown_type']]).toEqual([202, expect.arrayContaining([json.receipt])])
    expect(await kept()).toBeUndefined()
  })

  test('that lacks what this product relies on is accepted, and kept for an admin', async () => {
    expectErrorsInLog()
    expect(await deliver(paid({ net_amount: null }))).toEqual({ status: 202, json: { receipt: 'unreadable' } })
    expect(await kept()).toMatchObject({ outcome: 'unreadable' })
  })

  test('with the longest id that fits is accepted', async () => {
    id = 'x'.repeat(100)
    expect(await deliver(paid())).toEqual({ status: 202, json: { receipt: 'applied' } })
  })

  test('that we fail to handle is answered with our fault, and kept', async () => {
    expectErrorsInLog()
    const { status, json } = await deliver(paid({ status: 's'.repeat(41) }))
    expect([status, json.error.code]).toEqual([500, 'INTERNAL_ERROR'])
    expect(await kept()).toMatchObject({ outcome: 'failed' })
  })
})

describe('a stranger', () => {
  test.each<{ why: string; signing: Signing }>([
    { why: 'with another secret', signing: { secret: OTHER_SECRET } },
    { why: 'with another secret, the legacy way', signing: { secret: OTHER_SECRET, scheme: 'legacy' } },
    { why: 'with a signature of ten minutes ago', signing: { secondsAgo: 600 } },
    { why: 'with a signature of ten minutes from now', signing: { secondsAgo: -600 } },
    { why: 'with an endless id', signing: { id: 'x'.repeat(101) } },
  ])('$why is turned away, and leaves nothing', async ({ signing }) => {
    const { status, json } = await deliver(paid(), signing)
    expect(status).toBe(401)
    const message = 'The signature is missing, wrong or too old.'
    expect(json.error).toMatchObject({ code: 'UNAUTHENTICATED', message })
    expect(await granted()).toEqual([])
    expect(await kept()).toBeUndefined()
  })

  test('who does not sign at all is turned away', async () => {
    const { status, json } = await call(app, 'POST /api/webhooks/polar', { body: Buffer.from(paid()) })
    expect([status, json.error.code]).toEqual([401, 'UNAUTHENTICATED'])
  })

  test('who sends more than a megabyte is turned away, and nobody else is', async () => {
    const { status, json } = await deliver('x'.repeat(1_000_001))
    expect([status, json.error.code]).toEqual([413, 'PAYLOAD_TOO_LARGE'])
    expect((await deliver(paid({ description: 'x'.repeat(900_000) }))).status).toBe(202)
  })
})

describe('what is made of a request', () => {
  const verified = (body: string, signing?: Signing) =>
    verifyPolarEvent(Buffer.from(body), new Headers(signed(body, signing)))

  test('is the event, or why there is none', async () => {
    const data = { any: 'thing' }
    expect(await verified(JSON.stringify({ type: 'order.paid', timestamp: OPENED, data }))).toEqual({
      outcome: 'event',
      type: 'order.paid',
      data,
    })
    expect(await verified('{"type":"order.teleported","data":{}}')).toEqual({ outcome: 'unknown_type' })
    expect(await verified('no JSON')).toEqual({ outcome: 'unreadable' })
    expect(await verified(paid(), { secret: OTHER_SECRET })).toEqual({ outcome: 'forged' })
  })
})
