// The edge to Polar against a loopback of it: one client, and what becomes of every way in which a call can fail.
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { askPolar, connectPolar, ownEndpoints, polar, refusedStatus, unlessRefused } from '../../lib/billing/polar.ts'
import { AppError } from '../../lib/http/errors.ts'
import { type DirectShop, refusal, startDirectShop } from '../support/direct-shop.ts'
import { SHOP_VARIABLES } from '../support/polar-states.ts'

let shop: DirectShop

beforeAll(async () => {
  shop = await startDirectShop()
})

beforeEach(() => {
  shop.answer = undefined
  shop.calls.length = 0
})

describe('a call to Polar', () => {
  test.each([400, 401, 404, 422, 429, 500, 503])(
    'that is refused with %i is a fault of the payment service',
    async (status) => {
      shop.answer = () => refusal(status)
      const failure = askPolar((client) => client.products.list({}))
      await expect(failure).rejects.toBeInstanceOf(AppError)
      await expect(failure).rejects.toMatchObject({
        code: 'PROVIDER_ERROR',
        message: 'The payment service did not answer as it should. Nothing was changed here.',
        details: { provider: 'polar' },
        cause: expect.any(Error),
      })
    },
  )

  test('that is refused for the card says so', async () => {
    shop.answer = () => refusal(402)
    await expect(askPolar((client) => client.products.list({}))).rejects.toMatchObject({
      code: 'PAYMENT_FAILED',
      message: 'The payment did not go through. Check the card and try again.',
      cause: expect.objectContaining({ statusCode: 402 }),
    })
  })

  test('that fails for a reason of ours says that reason', async () => {
    const ours = new AppError('CONFLICT', 'ours')
    await expect(askPolar(() => Promise.reject(ours))).rejects.toBe(ours)
  })

  test('gives what it gives', async () => {
    expect(await askPolar(async () => 7)).toBe(7)
    expect(await unlessRefused(404, async () => 7)).toBe(7)
  })

  test('may be refused with one status and no other', async () => {
    const client = await polar()
    shop.answer = () => refusal(404)
    expect(await unlessRefused(404, () => client.orders.get('order'))).toBeUndefined()
    await expect(unlessRefused(403, () => client.orders.get('order'))).rejects.toMatchObject({ statusCode: 404 })
    await expect(unlessRefused(404, () => Promise.reject(new Error('ours')))).rejects.toThrow('ours')
  })

  test.each([
    { error: Object.assign(new Error(), { statusCode: 400 }), status: 400 },
    { error: Object.assign(new Error(), { statusCode: 499 }), status: 499 },
    { error: Object.assign(new Error(), { statusCode: 399 }), status: undefined },
    { error: Object.assign(new Error(), { statusCode: 500 }), status: undefined },
    { error: Object.assign(new Error(), { statusCode: '404' }), status: undefined },
    { error: new Error('no status'), status: undefined },
    { error: { statusCode: 404 }, status: undefined },
    { error: null, status: undefined },
  ])('was refused with $status when it failed with $error', ({ error, status }) => {
    expect(refusedStatus(error)).toBe(status)
  })
})

describe('the edge to Polar', () => {
  test('is one client, at the address of the environment', async () => {
    expect(await polar()).toBe(await polar())
  })

  test('is any account that is named', async () => {
    const stranger = await connectPolar({
      accessToken: 'another',
      environment: 'sandbox',
      baseUrl: shop.polar.baseUrl,
    })
    await expect(stranger.products.list({})).rejects.toMatchObject({ statusCode: 401 })
    const { POLAR_ACCESS_TOKEN: accessToken } = SHOP_VARIABLES
    const own = await connectPolar({ accessToken, environment: 'production', baseUrl: shop.polar.baseUrl })
    expect((await own.products.list({})).items).toHaveLength(5)
  })

  test('knows the webhook endpoints that lead here, on whatever host', async () => {
    const client = await polar()
    const wanted = ['https://one.example/api/webhooks/polar', 'https://two.example/api/webhooks/polar?x=1']
    for (const url of [...wanted, 'https://one.example/api/webhooks/clerk', 'https://one.example/']) {
      await client.webhooks.createWebhookEndpoint({
        url,
        format: 'raw',
        api_version: '2026-10',
        events: ['order.paid'],
      })
    }
    shop.calls.length = 0
    expect((await ownEndpoints(client)).map(({ url }) => url).toSorted()).toEqual(wanted)
    expect(shop.calls).toEqual([expect.stringContaining('limit=100')])
  })
})
