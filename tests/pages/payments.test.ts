// Buying on the demo page in a real browser: to the checkout and back, plans, the history, and everything that can go wrong.
import { readFile } from 'node:fs/promises'
import type { Page, Request } from 'playwright-core'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connectPolar } from '../../lib/billing/polar.ts'
import { loadConfig } from '../../lib/config.ts'
import { type LoopbackPolar, startLoopbackPolar } from '../../scripts/loopback-polar/server.ts'
import { ensurePolarSetup } from '../../scripts/polar-setup.ts'
import { openPage, pageUrl } from '../support/browser.ts'
import { chromiumPath } from '../support/chromium.ts'
import { fillSignUp, focused, messageOf, newEmail, PASSWORD, PATIENTLY, signOut, tabTo, violations } from './visitor.ts'

const NOBODYS_CHECKOUT = '00000000-0000-4000-8000-000000000000'
const WEBHOOK_PATH = '/api/webhooks/polar'
const BILLING_ADDRESS = {
  country: 'FR',
  line1: '1 rue de Rivoli',
  city: 'Paris',
  postal_code: '75001',
  line2: null,
  state: null,
} as const

/** Waiting takes a hundredth of its time, and what was waited for is kept where a test can read it. */
const TIME_LAPSE = `{
  const wait = setTimeout
  globalThis.waits = []
  globalThis.setTimeout = (work, ms = 0, ...rest) => {
    if (ms >= 1000) waits.push(ms)
    return wait(work, ms / 100, ...rest)
  }
}`

const SignedIn = v.object({ accessToken: v.string() })
const Opened = v.object({ checkoutId: v.string() })

describe.skipIf(!chromiumPath)('payments on the demo page', () => {
  let url: string
  let polar: LoopbackPolar

  beforeAll(async () => {
    polar = await startLoopbackPolar({
      deliver: (request) => fetch(new Request(`${url}${WEBHOOK_PATH}`, request)),
    })
    const { accessToken, baseUrl } = polar
    const client = await connectPolar({ accessToken, environment: 'sandbox', baseUrl })
    const config = loadConfig({ forkConfig: undefined, onVercel: false, stage: 'development', forkOverrides: {} })
    const setup = await ensurePolarSetup({ client, config, webhookUrl: `http://localhost:9${WEBHOOK_PATH}` })
    const { plans, payments } = setup.config
    url = await pageUrl({
      POLAR_ACCESS_TOKEN: accessToken,
      POLAR_WEBHOOK_SECRET: setup.webhook?.secret ?? '',
      POLAR_ENVIRONMENT: 'sandbox',
      POLAR_BASE_URL: baseUrl,
      FORK__PLANS__PRO__POLAR_PRODUCT_ID: plans.pro.polarProductId,
      FORK__PLANS__ENTERPRISE__POLAR_PRODUCT_ID: plans.enterprise.polarProductId,
      FORK__PAYMENTS__POLAR_PRODUCT_ID: payments.polarProductId,
      FORK__TRIAL__GENERATIONS: '0',
      FORK__PLANS__FREE__MONTHLY_TOKENS: '30',
    })
  })
  afterAll(() => polar?.close())

  test('takes a newcomer through the checkout to tokens, and lists the order', async () => {
    const { page, problems } = await newcomer(url)
    await page.getByRole('button', { name: 'Buy 500 tokens for $5' }).click()
    await payNow(page)
    await page.getByText('Thank you. 500 tokens were added.').waitFor()
    expect(page.url()).toBe(`${url}/`)
    await page.getByRole('button', { name: 'Balance: 530 tokens' }).waitFor()

    await page.getByRole('button', { name: 'Show balance' }).click()
    expect(await figure(page, 'Bought')).toBe('500')
    await page.getByText('History', { exact: true }).click()
    const order = page.getByRole('listitem').filter({ hasText: '+500 tokens' })
    await order.waitFor()
    expect(await order.textContent()).toContain('$5 plus $1 tax')
    expect(problems.filter(isOfThePage)).toEqual([])
  })

  test('sends an amount of one’s own in cents, and says what it gives before', async () => {
    const { page } = await newcomer(url)
    await page.getByLabel('Your own amount, in USD').fill('12,50')
    expect(await messageOf(page, 'Your own amount')).toBe('1,250 tokens for $12.50')
    const sending = page.waitForRequest('**/api/billing/checkout')
    await page.keyboard.press('Enter')
    const request = await sending
    expect(request.postDataJSON()).toEqual({ amountCents: 1250 })
    expect(request.headers()['idempotency-key']).toMatch(/^[\da-f-]{36}$/)
    await payNow(page)
    await page.getByText('Thank you. 1,250 tokens were added.').waitFor()
  })

  test.each([
    { written: '4.99', says: 'The smallest amount is $5.' },
    { written: '', says: 'Write an amount such as $12.50.' },
    { written: 'ten', says: 'Write an amount such as $12.50.' },
    { written: '10.005', says: 'Use at most two digits after the point.' },
    { written: '-10', says: 'Write an amount such as $12.50.' },
  ])('refuses the amount "$written" before anything is sent', async ({ written, says }) => {
    const { page } = await newcomer(url)
    const sent = requestsTo(page, '/api/billing/checkout')
    await page.getByLabel('Your own amount').fill(written)
    await page.getByRole('button', { name: 'Buy', exact: true }).click()
    await expect.poll(() => messageOf(page, 'Your own amount'), PATIENTLY).toBe(says)
    expect(await page.getByLabel('Your own amount').getAttribute('aria-invalid')).toBe('true')
    expect(sent).toEqual([])
  })

  test('buys a plan, cancels it after a question, resumes it, and changes to a dearer one', async () => {
    const { page, problems } = await newcomer(url)
    await buyPlan(page, 'Pro')
    await page.getByText('Thank you. You are on Pro now: 50,000 tokens were added.').waitFor()
    await page.getByRole('button', { name: 'Show balance' }).click()

    await page.getByRole('button', { name: 'Cancel plan' }).click()
    await expect.poll(() => focused(page), PATIENTLY).toBe('Keep Pro')
    await page.keyboard.press('Enter')
    await expect.poll(() => focused(page), PATIENTLY).toBe('Cancel plan')
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: 'Yes, cancel Pro' }).click()
    await page.getByText(/^You are on Pro\. It ends on \w+ \d+, \d{4}\.$/).waitFor()
    await expect.poll(() => focused(page), PATIENTLY).toBe('Plan')

    await page.getByRole('button', { name: 'Resume plan' }).click()
    await page.getByText('Your plan goes on.').waitFor()
    await page.getByRole('button', { name: 'Cancel plan' }).waitFor()

    await page.getByRole('button', { name: 'Upgrade to Enterprise' }).click()
    await page.getByRole('button', { name: 'Yes, change to Enterprise' }).click()
    await page.getByText('You are on Enterprise now.').waitFor()
    await page.getByRole('button', { name: 'Change to Pro' }).click()
    await page.getByRole('button', { name: 'Yes, change to Pro' }).click()
    await page.getByText(/^You change to Pro on \w+ \d+, \d{4}\.$/).waitFor()
    expect(problems.filter(isOfThePage)).toEqual([])
  })

  test('leaves the balance as it was when the card is declined at the checkout', async () => {
    const { page } = await newcomer(url)
    await page.getByRole('button', { name: 'Buy 500 tokens for $5' }).click()
    await page.getByRole('button', { name: 'Card is declined' }).click()
    await page.getByText('Your card was declined.').waitFor()
    await page.getByRole('link', { name: 'Back' }).click()
    await page.getByRole('button', { name: 'Balance: 30 tokens' }).waitFor()
  })

  test('says beside the plans that the card was declined for a change', async () => {
    const { page } = await newcomer(url)
    await buyPlan(page, 'Pro')
    await page.getByRole('button', { name: 'Show balance' }).click()
    polar.shop.declineNextCharge()
    await page.getByRole('button', { name: 'Upgrade to Enterprise' }).click()
    await page.getByRole('button', { name: 'Yes, change to Enterprise' }).click()
    const alert = page.getByRole('region', { name: 'Plan' }).getByRole('alert')
    await alert.waitFor()
    expect(await alert.textContent()).toBe('The payment did not go through. Check the card and try again.')
  })

  test('says beside the packs that the payment service does not answer, and lets the buyer try again', async () => {
    const { page } = await newcomer(url)
    polar.failNext(1, 500)
    const buy = page.getByRole('button', { name: 'Buy 500 tokens for $5' })
    await buy.click()
    await page.getByRole('region', { name: 'Buy tokens' }).getByRole('alert').waitFor()
    await buy.click()
    await page.getByRole('button', { name: 'Pay', exact: true }).waitFor()
  })

  test.each([
    { why: 'expired', act: (id: string) => polar.shop.expire(id), says: 'The payment was not completed.' },
    { why: 'is not ours', id: NOBODYS_CHECKOUT, says: 'We found no such purchase in your account.' },
    { why: 'is no id', id: 'nonsense', says: 'We found no such purchase in your account.' },
  ])('says calmly that a checkout $why', async ({ act, id, says }) => {
    const { page } = await newcomer(url)
    const checkoutId = id ?? (await openCheckout(page, polar))
    act?.(checkoutId)
    await page.goto(`${url}/?checkout_id=${checkoutId}`)
    await page.getByText(says).waitFor()
    expect(page.url()).toBe(`${url}/`)
    await page.getByRole('button', { name: 'Close this message' }).click()
    expect(await page.getByText(says).count()).toBe(0)
  })

  test('asks again while a payment is under way, and leaves it at that after about 20 s', async () => {
    const { page } = await newcomer(url)
    const checkoutId = await openCheckout(page, polar)
    await page.addInitScript(TIME_LAPSE)
    const asked = requestsTo(page, '/sync')
    await page.goto(`${url}/?checkout_id=${checkoutId}`)
    await page.getByText('Your payment is still being processed.').waitFor()
    expect(asked).toHaveLength(6)
    expect(await page.evaluate('waits.reduce((sum, ms) => sum + ms)')).toBe(19_000)
    expect(page.url()).toBe(`${url}/`)
  })

  test('waits with the answer for a buyer who is signed out', async () => {
    const { page, email } = await newcomer(url)
    const checkoutId = await openCheckout(page, polar)
    await page.goto(url)
    await signOut(page)
    polar.shop.pay(checkoutId)
    await page.goto(`${url}/?checkout_id=${checkoutId}&customer_session_token=polar_cst_secret`)
    await page.getByText('Sign in to see what became of your payment.').waitFor()
    expect(page.url()).toBe(`${url}/?checkout_id=${checkoutId}`)
    await page.getByRole('region', { name: 'Your purchase' }).getByRole('button', { name: 'Sign in' }).click()
    await page.getByLabel('E-mail').fill(email)
    await page.getByRole('textbox', { name: 'Password' }).fill(PASSWORD)
    await page.keyboard.press('Enter')
    await page.getByText('Thank you. 500 tokens were added.').waitFor()
    expect(page.url()).toBe(`${url}/`)
  })

  test('says in plain words what is owed after a refund of tokens that were used', async () => {
    const { page } = await newcomer(url)
    await page.getByRole('button', { name: 'Buy 500 tokens for $5' }).click()
    await payNow(page)
    await page.getByText('Thank you.').waitFor()
    await page.getByRole('button', { name: 'Try with a sample photo' }).click()
    await page.getByRole('button', { name: 'Make my coloring page' }).click()
    await page.getByRole('heading', { name: 'Your coloring page' }).waitFor()
    const order = [...polar.shop.orders.values()].at(-1)
    polar.shop.refund({ orderId: order?.id ?? '' })
    await polar.settled()
    await page.reload()
    await page.getByRole('button', { name: 'Balance: 0 tokens' }).click()
    expect(await figure(page, 'Owed after a refund')).toBe('−70')
    await page.getByText('History', { exact: true }).click()
    for (const change of ['−$5', '−100 tokens', '+500 tokens', '+30 tokens']) {
      await page.getByRole('listitem').filter({ hasText: change }).waitFor()
    }
    await page.getByText('$5 refunded · 500 tokens taken back').waitFor()
  })

  test('opens invoices in a tab of their own, saves the history as CSV, and shows more on request', async () => {
    const { page, email } = await newcomer(url)
    await buyPacks(url, polar, { email, count: 21 })
    await page.reload()
    await page.getByRole('button', { name: /^Balance:/ }).click()
    await page.getByText('History', { exact: true }).click()
    const orders = page.locator('.entries > li').filter({ hasText: '+500 tokens' })
    await page.getByRole('button', { name: 'Show more' }).click()
    await expect.poll(() => orders.count(), PATIENTLY).toBe(21)
    await expect.poll(() => focused(page), PATIENTLY).toContain('+500 tokens')

    const [invoice] = await Promise.all([
      page.context().waitForEvent('page'),
      page
        .getByRole('button', { name: /^Invoice for / })
        .first()
        .click(),
    ])
    await invoice.getByText('Invoice', { exact: false }).first().waitFor()
    expect(await invoice.evaluate('opener')).toBe(null)

    const [csv] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Download as CSV' }).click(),
    ])
    expect(csv.suggestedFilename()).toBe('history.csv')
    expect((await readFile(await csv.path(), 'utf8')).match(/,order,/g)).toHaveLength(21)
  })

  test('leads to the customer portal', async () => {
    const { page } = await newcomer(url)
    await page.getByRole('button', { name: 'Manage payment' }).click()
    await page.getByRole('heading', { name: /^Purchases of / }).waitFor()
  })

  test.each([
    { colorScheme: 'light', width: 1280 },
    { colorScheme: 'dark', width: 360 },
  ] as const)('meets WCAG 2.2 AA in $colorScheme at $width pixels', async ({ colorScheme, width }) => {
    const { page } = await newcomer(url, { colorScheme, reducedMotion: 'reduce', viewport: { width, height: 740 } })
    await page.getByLabel('Your own amount').fill('1')
    await page.keyboard.press('Enter')
    expect(await violations(page)).toEqual([])
    await buyPlan(page, 'Pro')
    await page.getByText('Thank you.').waitFor()
    expect(await violations(page)).toEqual([])
    await page.getByRole('button', { name: 'Show balance' }).click()
    await page.getByText('History', { exact: true }).click()
    await page.getByText('+50,000 tokens').waitFor()
    await page.getByRole('button', { name: 'Cancel plan' }).click()
    expect(await violations(page)).toEqual([])
    const overflow = 'const box = document.querySelector("dialog"); box.scrollWidth - box.clientWidth'
    expect(await page.evaluate(overflow)).toBe(0)
  })

  test('is bought from with the keyboard alone', async () => {
    const { page } = await newcomer(url)
    await page.keyboard.press('Escape')
    await page.locator('dialog').waitFor({ state: 'detached' })
    await tabTo(page, 'Balance:')
    await page.keyboard.press('Enter')
    await page.getByRole('dialog').waitFor()
    await tabTo(page, '$20')
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: 'Pay', exact: true }).waitFor()
  })
})

/** A page of somebody who has just signed up, with the balance open. */
async function newcomer(url: string, options: Parameters<typeof openPage>[1] = {}) {
  const opened = await openPage(url, options)
  const email = newEmail()
  await signUpAs(opened.page, email)
  return { ...opened, email }
}

async function signUpAs(page: Page, email: string): Promise<void> {
  await page.getByRole('button', { name: 'Sign up' }).click()
  await fillSignUp(page, { email, password: PASSWORD })
  await page.keyboard.press('Enter')
  await page.getByRole('button', { name: 'Balance: 30 tokens' }).click()
  await page.getByRole('heading', { name: 'Buy tokens' }).waitFor()
}

async function payNow(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Pay', exact: true }).click()
}

async function buyPlan(page: Page, name: string): Promise<void> {
  await page.getByRole('button', { name: `Upgrade to ${name}` }).click()
  await payNow(page)
}

/** Goes to the checkout of a pack; resolves to its id. */
async function openCheckout(page: Page, polar: LoopbackPolar): Promise<string> {
  await page.getByRole('button', { name: 'Buy 500 tokens for $5' }).click()
  await page.getByRole('button', { name: 'Pay', exact: true }).waitFor()
  await page.waitForLoadState()
  return [...polar.shop.checkouts.keys()].at(-1) ?? ''
}

/** Packs that are bought while the page does not look. */
async function buyPacks(url: string, polar: LoopbackPolar, { email, count }: { email: string; count: number }) {
  const post = async (path: string, body: object, headers = {}): Promise<unknown> => {
    const init = { method: 'POST', headers: { 'content-type': 'application/json', ...headers } }
    return await (await fetch(url + path, { ...init, body: JSON.stringify(body) })).json()
  }
  const { accessToken } = v.parse(SignedIn, await post('/api/auth/login', { email, password: PASSWORD }))
  const headers = { authorization: `Bearer ${accessToken}` }
  for (let bought = 0; bought < count; bought += 1) {
    const { checkoutId } = v.parse(Opened, await post('/api/billing/checkout', { pack: 'starter' }, headers))
    polar.shop.pay(checkoutId)
  }
  for (const customer of polar.shop.customers.values()) customer.billing_address ??= BILLING_ADDRESS
  await polar.settled()
}

/** The figure that stands beside a word in the balance. */
async function figure(page: Page, name: string): Promise<string | null> {
  return await page.locator('.sources div').filter({ hasText: name }).locator('dd').first().textContent()
}

function requestsTo(page: Page, path: string): Request[] {
  const requests: Request[] = []
  page.on('request', (request) => request.url().endsWith(path) && requests.push(request))
  return requests
}

/** Not of the checkout, which lacks an icon. */
function isOfThePage(problem: string): boolean {
  return !problem.startsWith('Failed to load resource')
}
