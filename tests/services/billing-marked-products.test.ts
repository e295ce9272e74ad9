// A fork that has configured no product ids, on a loopback Polar: everything on sale is found by how it is marked there.
import { beforeAll, beforeEach, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { openCheckout, type Wish } from '../../lib/billing/checkout.ts'
import { changePlan } from '../../lib/billing/manage.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { makeClock } from '../support/clock.ts'
import { type DirectShop, PRODUCTS, startDirectShop, subscribed } from '../support/direct-shop.ts'
import { givenAccount } from '../support/ledger-account.ts'
import { OPENED } from '../support/paid-plans.ts'

const RETURN_URL = 'https://shop.example/account'

let shop: DirectShop
let userId: string

beforeAll(async () => {
  shop = await startDirectShop({
    FORK__PAYMENTS__POLAR_PRODUCT_ID: '',
    FORK__PAYMENTS__PACKS: JSON.stringify([
      { id: 'starter', priceCents: 500, tokens: 500, polarProductId: '' },
      { id: 'family', priceCents: 2000, tokens: 2400, polarProductId: '' },
    ]),
    FORK__PLANS__PRO__POLAR_PRODUCT_ID: '',
    FORK__PLANS__ENTERPRISE__POLAR_PRODUCT_ID: '',
  })
  await makeClock(db())
})

beforeEach(async () => {
  userId = (await givenAccount(OPENED)).userId
})

test.each<{ wish: Wish; product: string }>([
  { wish: { kind: 'pack', pack: 'family' }, product: PRODUCTS.family },
  { wish: { kind: 'deposit', amountCents: 700 }, product: PRODUCTS.tokens },
  { wish: { kind: 'plan', plan: 'pro' }, product: PRODUCTS.pro },
  { wish: { kind: 'plan', plan: 'enterprise' }, product: PRODUCTS.enterprise },
])('$wish is sold as the product with its mark', async ({ wish, product }) => {
  const { checkoutId } = await openCheckout(userId, wish, RETURN_URL)
  expect(shop.polar.shop.checkouts.get(checkoutId)).toMatchObject({ product_id: product })
})

test('a change to a cheaper plan leads to the product with its mark', async () => {
  const { subscription } = await subscribed(shop, userId, 'enterprise')
  await changePlan(userId, 'pro', RETURN_URL)
  expect(subscription.pending_update).toMatchObject({ product_id: PRODUCTS.pro })
})

test('a change to a dearer plan leads to the product with its mark', async () => {
  const { subscription } = await subscribed(shop, userId, 'pro')
  await changePlan(userId, 'enterprise', RETURN_URL)
  expect(subscription.product_id).toBe(PRODUCTS.enterprise)
  expect((await statementOf(db(), userId)).plan).toBe('enterprise')
})
