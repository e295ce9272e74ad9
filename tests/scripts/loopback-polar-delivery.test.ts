// Webhooks of the pretend Polar: signed for the real SDK, delivered by Polar's rules.
import { createServer, type Server } from 'node:http'
import { createPolar, type Polar, webhooks } from '@polar-sh/sdk/2026-10'
import { afterEach, describe, expect, test } from 'vitest'
import { type LoopbackOptions, type LoopbackPolar, startLoopbackPolar } from '../../scripts/loopback-polar/server.ts'
import { signedHeaders } from '../../scripts/loopback-polar/signing.ts'

const URL_OF_APP = 'http://app.test/api/webhooks/polar'
const STARTER = { name: 'Starter', prices: [{ amount_type: 'fixed' as const, price_amount: 500 }] }

const opened: LoopbackPolar[] = []
const servers: Server[] = []

afterEach(async () => {
  for (const loopback of opened.splice(0)) await loopback.close()
  for (const server of servers.splice(0)) server.close()
})

async function start(options: LoopbackOptions = {}): Promise<{ loopback: LoopbackPolar; polar: Polar }> {
  const loopback = await startLoopbackPolar({
    webhookUrl: URL_OF_APP,
    products: [STARTER],
    timeScale: 1_000_000,
    ...options,
  })
  opened.push(loopback)
  const { accessToken, baseUrl } = loopback
  return { loopback, polar: createPolar({ accessToken, baseUrl }) }
}

/** Makes the shop announce `product.created` so many times. */
function announce({ shop }: LoopbackPolar, times = 1): void {
  for (let index = 0; index < times; index += 1) shop.addProduct({ ...STARTER, name: `Starter ${index}` })
}

const answer = (status: number) => Promise.resolve(new Response(null, { status }))

describe('signatures', () => {
  test.each(['standard', 'legacy'] as const)('the SDK accepts every event of the %s scheme', async (signing) => {
    const accepted: string[] = []
    const { loopback, polar } = await start({
      signing,
      deliver: async (request) => {
        const { webhookSecret } = loopback
        const event = await webhooks.validateEvent(
          await request.text(),
          Object.fromEntries(request.headers),
          webhookSecret,
        )
        accepted.push(event.type)
        return new Response(null, { status: 202 })
      },
    })
    const [product = ''] = loopback.shop.products.keys()
    const { id } = await polar.checkouts.create({ products: [product], customer_email: 'ada@example.com' })
    const order = loopback.shop.pay(id)
    loopback.shop.refund({ orderId: order.id })
    await loopback.settled()
    expect(accepted).toEqual(loopback.deliveries.events.map(({ type }) => type))
    expect(accepted).toContain('order.refunded')
  })

  test('the schemes differ, and a foreign secret or an old attempt is refused', async () => {
    const message = { id: 'event', body: '{}', timestampSeconds: 1, secret: 'whsec_c2VjcmV0' }
    const signatures = (['standard', 'legacy'] as const).map((scheme) => signedHeaders({ ...message, scheme }))
    expect(new Set(signatures.map((headers) => headers['webhook-signature'])).size).toBe(2)
    const { loopback } = await start()
    loopback.deliveries.mode = 'hold'
    announce(loopback)
    const [event] = loopback.deliveries.events
    if (!event) return expect.fail('No event was announced.')
    const validate = async (request: Request, secret: string) =>
      await webhooks.validateEvent(await request.text(), Object.fromEntries(request.headers), secret)
    const { signedRequest } = loopback.deliveries
    const { webhookSecret } = loopback
    expect(await validate(signedRequest(event, URL_OF_APP), webhookSecret)).toMatchObject({ type: 'product.created' })
    await expect(validate(signedRequest(event, URL_OF_APP), 'whsec_b3RoZXI=')).rejects.toThrow('No matching signature')
    const old = signedRequest(event, URL_OF_APP, { timestampSeconds: Math.floor(Date.now() / 1000) - 301 })
    await expect(validate(old, webhookSecret)).rejects.toThrow('too old')
  })
})

describe('delivery', () => {
  test('first attempts go out one after the other, in the order of the events', async () => {
    const started: string[] = []
    let running = 0
    const { loopback } = await start({
      deliver: async (request) => {
        started.push(request.headers.get('webhook-id') ?? '')
        running += 1
        expect(running).toBe(1)
        await new Promise((resolve) => setImmediate(resolve))
        running -= 1
        return new Response()
      },
    })
    announce(loopback, 5)
    await loopback.settled()
    expect(started).toEqual(loopback.deliveries.events.map(({ id }) => id))
  })

  test('an event waits no longer for an earlier one than the guard allows', async () => {
    const started: string[] = []
    const first = Promise.withResolvers<Response>()
    const { loopback } = await start({
      limits: { orderGuardMs: 1 },
      deliver: async (request) => {
        started.push(request.headers.get('webhook-id') ?? '')
        if (started.length === 1) return await first.promise
        first.resolve(new Response())
        return new Response()
      },
    })
    announce(loopback, 2)
    await loopback.settled()
    expect(started).toHaveLength(2)
  })

  test('a failed event is repeated under the same id while later ones overtake it', async () => {
    const ids: (string | null)[] = []
    const { loopback } = await start({
      timeScale: 100,
      deliver: (request) => {
        ids.push(request.headers.get('webhook-id'))
        return answer(ids.length === 1 ? 500 : 204)
      },
    })
    announce(loopback, 2)
    await loopback.settled()
    const [first, second] = loopback.deliveries.events.map(({ id }) => id)
    expect(ids).toEqual([first, second, first])
    expect(loopback.deliveries.events.map(({ succeeded }) => succeeded)).toEqual([true, true])
  })

  test.each([
    { why: 'a redirect', deliver: () => answer(307) },
    { why: 'a refusal', deliver: () => answer(401) },
    { why: 'no answer in time', deliver: () => new Promise<Response>(() => undefined) },
    { why: 'a broken connection', deliver: () => Promise.reject(new Error('refused')) },
  ])('$why is a failure, given up after ten attempts', async ({ deliver }) => {
    const { loopback } = await start({ deliver, limits: { timeoutMs: 5 } })
    announce(loopback)
    await loopback.settled()
    expect(loopback.deliveries.events).toMatchObject([{ succeeded: false, skipped: false }])
    expect(loopback.deliveries.events[0]?.attempts).toHaveLength(10)
  })

  test('over the network a redirect is not followed', async () => {
    const paths: (string | undefined)[] = []
    const server = createServer((request, response) => {
      paths.push(request.url)
      response.writeHead(paths.length === 1 ? 307 : 202, { location: '/elsewhere' }).end()
    })
    servers.push(server)
    const listening = Promise.withResolvers<void>()
    server.listen(0, '127.0.0.1', listening.resolve)
    await listening.promise
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    const { loopback } = await start({ webhookUrl: `http://127.0.0.1:${port}/hook` })
    announce(loopback)
    await loopback.settled()
    expect(paths).toEqual(['/hook', '/hook'])
  })

  test('ten dead events in a row switch the endpoint off, and what waits is skipped for good', async () => {
    const { loopback, polar } = await start({ deliver: () => answer(500) })
    announce(loopback, 9)
    await loopback.settled()
    const [endpoint] = (await polar.webhooks.listWebhookEndpoints()).items
    expect(endpoint?.enabled).toBe(true)
    announce(loopback, 1)
    await loopback.settled()
    expect((await polar.webhooks.getWebhookEndpoint(endpoint?.id ?? '')).enabled).toBe(false)
    announce(loopback, 3)
    expect(loopback.deliveries.events).toHaveLength(10)
  })

  test('what still waits for an attempt when the endpoint goes off is skipped', async () => {
    const stuck = Promise.withResolvers<Response>()
    let attempts = 0
    const { loopback, polar } = await start({
      limits: { failuresMax: 1, attemptsMax: 1 },
      deliver: () => {
        attempts += 1
        return stuck.promise
      },
    })
    announce(loopback, 3)
    stuck.resolve(new Response(null, { status: 500 }))
    await loopback.settled()
    expect(attempts).toBe(1)
    expect(loopback.deliveries.events.map(({ skipped }) => skipped)).toEqual([false, true, true])
    const [endpoint] = (await polar.webhooks.listWebhookEndpoints()).items
    await polar.webhooks.updateWebhookEndpoint(endpoint?.id ?? '', { enabled: true })
    await loopback.settled()
    expect(attempts).toBe(1)
  })

  test('held events go out in their order once the mode is deliver again', async () => {
    const started: string[] = []
    const { loopback } = await start({
      deliver: (request) => {
        started.push(request.headers.get('webhook-id') ?? '')
        return answer(202)
      },
    })
    loopback.deliveries.mode = 'hold'
    announce(loopback, 3)
    await loopback.settled()
    expect(started).toEqual([])
    loopback.deliveries.mode = 'deliver'
    await loopback.settled()
    expect(started).toEqual(loopback.deliveries.events.map(({ id }) => id))
  })

  test('closing leaves nothing running, whatever still waits', async () => {
    const { loopback } = await start({ timeScale: 1, deliver: () => answer(500) })
    announce(loopback)
    await loopback.close()
    expect(loopback.deliveries.events[0]?.attempts.length).toBeLessThanOrEqual(1)
  })
})

describe('endpoints over the API', () => {
  test('get a secret of the shop, only their events, and a new secret on demand', async () => {
    const seen: { secret: string; type: string }[] = []
    let secret = ''
    const { loopback, polar } = await start({
      deliver: async (request) => {
        const { type } = await webhooks.validateEvent(await request.text(), Object.fromEntries(request.headers), secret)
        seen.push({ secret, type })
        return new Response()
      },
    })
    const [initial] = (await polar.webhooks.listWebhookEndpoints()).items
    await polar.webhooks.deleteWebhookEndpoint(initial?.id ?? '')
    const made = await polar.webhooks.createWebhookEndpoint({
      url: URL_OF_APP,
      format: 'raw',
      events: ['product.updated'],
    })
    secret = made.secret
    expect(made).toMatchObject({ enabled: true, uses_standard_webhook_signature: true })
    expect(made.secret).toMatch(/^whsec_/)
    const [product = ''] = loopback.shop.products.keys()
    await polar.products.update(product, { name: 'Renamed' })
    announce(loopback)
    await loopback.settled()
    const { secret: renewed } = await polar.webhooks.resetWebhookEndpointSecret(made.id)
    secret = renewed
    await polar.products.update(product, { name: 'Again' })
    await loopback.settled()
    expect(seen).toEqual([
      { secret: made.secret, type: 'product.updated' },
      { secret: renewed, type: 'product.updated' },
    ])
    expect(renewed).not.toBe(made.secret)
  })

  test('deliveries are listed by outcome, and an event is sent again on demand', async () => {
    let status = 500
    const { loopback, polar } = await start({ deliver: () => answer(status) })
    announce(loopback)
    await loopback.settled()
    const failed = await polar.webhooks.listWebhookDeliveries({ succeeded: false, limit: 100 })
    expect(failed.pagination.total_count).toBe(10)
    expect(failed.items[0]).toMatchObject({
      http_code: 500,
      webhook_event: { type: 'product.created', succeeded: false },
    })
    status = 202
    await polar.webhooks.redeliverWebhookEvent(failed.items[0]?.webhook_event.id ?? '')
    await loopback.settled()
    const succeeded = await polar.webhooks.listWebhookDeliveries({ succeeded: true })
    expect(succeeded.items).toMatchObject([{ webhook_event: { succeeded: true } }])
  })
})
