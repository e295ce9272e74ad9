// npm run start:payments: a machine with no account anywhere sells tokens for play money.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'

/** Of a real account, and half set at that: nothing of it may be used. */
const REAL = { POLAR_ACCESS_TOKEN: 'polar_oat_real', FORK__PLANS__PRO__POLAR_PRODUCT_ID: 'real-product' }

const BRAND = { FORK__BRAND__NAME: 'Ink & Co' }

const dataDir = mkdtempSync(join(tmpdir(), 'start-payments-'))
const children: ChildProcess[] = []

afterAll(() => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(dataDir, { recursive: true })
})

test('a purchase in the browser reaches the balance, and the next start sells the same products', async () => {
  const first = await start({ ...REAL, ...BRAND, FORK__PAYMENTS__PROVIDER: 'none' })
  expect(first.printed).toContain('play money')
  expect(first.printed).toMatch(/on {3}payments +Polar, sandbox at 127\.0\.0\.1:\d+\n/)
  expect(first.printed).toContain('Ink & Co is at')

  const { accessToken } = await post(`${first.url}/api/auth/register`, {
    name: 'Ada',
    email: 'ada@example.com',
    password: 'correct horse battery staple',
  })
  const headers = { authorization: `Bearer ${accessToken}` }
  const { checkoutUrl = '' } = await post(`${first.url}/api/billing/checkout`, { pack: 'starter' }, headers)
  const body = new URLSearchParams({ card: 'ok' })
  const paid = await fetch(checkoutUrl, { method: 'POST', body, redirect: 'manual' })
  expect(paid.headers.get('location')).toContain(`${first.url}/`)
  await expect
    .poll(async () => {
      const status = await fetch(`${first.url}/api/billing/status`, { headers })
      return JSON.parse(await status.text()).balance.purchasedTokens
    })
    .toBe(500)

  const swept = await fetch(`${first.url}/api/jobs/sweep`, { headers: { authorization: first.sweepKey } })
  expect(swept.status).toBe(200)
  const products = productIds()
  expect(await stop(first.child)).toBe(0)

  const second = await start(BRAND)
  expect(productIds()).toEqual(products)
  expect(products).not.toContain('real-product')
  expect(await stop(second.child)).toBe(0)
})

/** Starts it as on a fresh clone, on a free port; resolves once everything is printed. */
async function start(variables: Record<string, string>) {
  const { PATH = '' } = process.env
  const env = { PATH, PORT: '0', DATA_DIR: dataDir, ...variables }
  const child = spawn(process.execPath, ['scripts/start-payments.ts'], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  let printed = ''
  const complete = Promise.withResolvers<void>()
  child.once('exit', (code) => complete.reject(new Error(`It ended with ${code}: ${printed}`)))
  child.stdout.on('data', (chunk) => {
    printed += chunk
    if (/(on |off) +sweep .*\n/.test(printed)) complete.resolve()
  })
  await complete.promise
  const [, url = ''] = /is at (http:\/\/localhost:\d+)/.exec(printed) ?? []
  const [, sweepKey = ''] = /(Bearer [\w-]+)/.exec(printed) ?? []
  return { child, printed, url, sweepKey }
}

async function stop(child: ChildProcess): Promise<unknown> {
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  const [code] = await exited
  return code
}

async function post(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Record<string, string>> {
  const init = {
    method: 'POST',
    headers: { ...headers, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  }
  const response = await fetch(url, init)
  expect(response.status).toBe(201)
  return JSON.parse(await response.text())
}

function productIds(): string[] {
  const { plans, payments } = JSON.parse(readFileSync(join(dataDir, 'fork.payments.json'), 'utf8'))
  const sold = [payments, ...payments.packs, plans.pro, plans.enterprise]
  return sold.map(({ polarProductId }: { polarProductId: string }) => polarProductId)
}
