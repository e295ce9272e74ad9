// The demo page where Clerk checks identities, in a real browser: its tokens pass the real verification, under the real content policy.
import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type OpenPage, openPage, pageUrl } from '../support/browser.ts'
import { chromiumPath } from '../support/chromium.ts'
import { type ClerkPage, serveClerk } from '../support/clerk-page.ts'
import { type ClerkStub, startClerkStub } from '../support/clerk-stub.ts'
import { choosePhoto, PATIENTLY, violations } from './visitor.ts'

const CREATE = /Make my coloring page/
const ACCOUNT = 'Account of Ada'

describe.skipIf(!chromiumPath)('the demo page with Clerk', () => {
  let stub: ClerkStub
  let url: string

  beforeAll(async () => {
    stub = await startClerkStub()
    url = await pageUrl({ ...stub.variables, FORK__TRIAL__GENERATIONS: '3' })
  })
  afterAll(() => stub?.close())

  async function open(prepare: (clerk: ClerkPage) => void = () => {}): Promise<OpenPage & { clerk: ClerkPage }> {
    let clerk: ClerkPage | undefined
    const opened = await openPage(url, {}, async (page) => {
      clerk = await serveClerk(page, stub, url)
      prepare(clerk)
    })
    if (!clerk) throw new Error('The page was not prepared.')
    return { ...opened, clerk }
  }

  function signedIn(clerk: ClerkPage): void {
    clerk.session = { id: 'sess_2NwTvGqzXUKWiQPrgdNAvdVDsbr', userId: clerk.nextUserId }
  }

  test('takes a visitor from a photo through the sign-up of Clerk to a picture, with a token for every request', async () => {
    const { page, clerk, problems } = await open()
    const tokens = new Set<string>()
    let requests = 0
    page.on('request', (request) => {
      const { authorization } = request.headers()
      if (!authorization) return
      requests += 1
      tokens.add(authorization)
    })
    await choosePhoto(page, 'cat')
    await page.getByText('You will be asked to sign in first.').waitFor()
    await page.getByRole('button', { name: CREATE }).click()
    const dialog = page.getByRole('dialog', { name: 'Sign up at Clerk' })
    await dialog.getByRole('button', { name: 'Continue' }).click()
    await page.getByRole('heading', { name: 'Your coloring page' }).waitFor(PATIENTLY)
    await page.getByRole('button', { name: '2 free left' }).waitFor()
    expect(requests).toBeGreaterThan(2)
    expect(tokens.size).toBe(requests)
    expect(await page.evaluate('localStorage.length')).toBe(0)
    expect(clerk.calls.slice(0, 3).sort()).toEqual([
      'GET /npm/@clerk/clerk-js@6/dist/clerk.browser.js',
      'GET /npm/@clerk/ui@1/dist/ui.browser.js',
      'GET /v1/client',
    ])
    expect(problems).toEqual([])
  })

  test('knows who is signed in at Clerk already, and signs out there as well', async () => {
    const { page, clerk, problems } = await open(signedIn)
    await page.getByRole('button', { name: ACCOUNT }).click()
    await page.getByRole('button', { name: 'Sign out', exact: true }).click()
    await page.getByRole('button', { name: 'Sign in' }).waitFor()
    await expect.poll(() => clerk.session).toBeNull()
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.getByRole('dialog', { name: 'Sign in to Clerk' }).getByRole('button', { name: 'Continue' }).click()
    await page.getByRole('button', { name: ACCOUNT }).waitFor()
    expect(problems).toEqual([])
  })

  test('asks Clerk once for another token when the server refuses the first', async () => {
    const { page, clerk } = await open((prepared) => {
      signedIn(prepared)
      prepared.cachedToken = stub.token(prepared.nextUserId, { claims: { azp: url }, expiresIn: -10 })
    })
    const seen: number[] = []
    page.on('response', (response) => {
      if (response.url().includes('/api/process-image')) seen.push(response.status())
    })
    await page.getByRole('button', { name: '3 free left' }).waitFor()
    expect(clerk.calls.filter((call) => call.endsWith('/tokens?skip')).length).toBeGreaterThan(0)
    await choosePhoto(page, 'cat')
    await page.getByRole('button', { name: CREATE }).click()
    await page.getByRole('heading', { name: 'Your coloring page' }).waitFor(PATIENTLY)
    expect(seen).toEqual([401, 200])
  })

  test('follows Clerk: a session that ends elsewhere ends here', async () => {
    const { page, clerk } = await open(signedIn)
    await page.getByRole('button', { name: ACCOUNT }).waitFor()
    clerk.session = null
    await page.evaluate('Clerk.take({ session: null })')
    await page.getByRole('button', { name: 'Sign in' }).waitFor()
    expect(await page.getByRole('button', { name: ACCOUNT }).count()).toBe(0)
  })

  test('says that signing in is out of reach, stays usable, and recovers', async () => {
    const { page, clerk } = await open((prepared) => {
      prepared.isUp = false
    })
    const alert = page.getByRole('alert')
    await alert.waitFor()
    expect(await alert.textContent()).toContain('Sign-in could not be loaded.')
    expect(await violations(page)).toEqual([])
    await choosePhoto(page, 'cat')
    clerk.isUp = true
    await page.getByRole('button', { name: 'Try again' }).click()
    await page.getByRole('dialog', { name: 'Sign in to Clerk' }).getByRole('button', { name: 'Continue' }).click()
    await page.getByRole('button', { name: ACCOUNT }).waitFor()
    expect(await alert.count()).toBe(0)
  })

  test('starts no picture that was wished for before an earlier dialog was left', async () => {
    const { page } = await open()
    await choosePhoto(page, 'cat')
    await page.getByRole('button', { name: CREATE }).click()
    await page.getByRole('dialog', { name: 'Sign up at Clerk' }).waitFor()
    await page.evaluate('document.querySelector(".clerk").remove()')
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.getByRole('dialog', { name: 'Sign in to Clerk' }).getByRole('button', { name: 'Continue' }).click()
    await page.getByRole('button', { name: '3 free left' }).waitFor()
    expect(await page.getByRole('heading', { name: 'Your coloring page' }).count()).toBe(0)
    expect(await page.getByRole('button', { name: CREATE }).isVisible()).toBe(true)
  })

  test('says why the server lets nobody in whom Clerk lets in', async () => {
    const { page } = await openPage(url, {}, async (prepared) => {
      signedIn(await serveClerk(prepared, stub, 'https://elsewhere.example'))
    })
    const alert = page.getByRole('alert')
    await alert.waitFor()
    expect(await alert.textContent()).toContain('This site did not accept the sign-in.')
    await page.getByRole('button', { name: 'Sign in' }).waitFor()
  })

  test('leaves password, devices and second factor to Clerk, and offers the rest', async () => {
    const { page, problems } = await open(signedIn)
    await page.getByRole('button', { name: ACCOUNT }).click()
    for (const part of ['Change password', 'Where you are signed in', 'Second factor']) {
      expect(await page.getByText(part, { exact: true }).count()).toBe(0)
    }
    await page.getByText('API keys', { exact: true }).click()
    await page.getByRole('button', { name: 'New key' }).click()
    await page.getByLabel('Name', { exact: true }).fill('My website')
    await page.getByRole('button', { name: 'Create key' }).click()
    await page.getByText('Your new key "My website"').waitFor()
    await page.getByRole('button', { name: 'Password, devices and security' }).click()
    await page.getByRole('dialog', { name: 'Profile at Clerk' }).waitFor()
    expect(problems).toEqual([])
  })

  test('deletes the account and signs out at Clerk', async () => {
    const { page, clerk, problems } = await open(signedIn)
    await page.getByRole('button', { name: ACCOUNT }).click()
    await deleteAccount(page)
    await page.getByText('Your account is closed.').waitFor()
    await page.getByRole('button', { name: 'Sign in' }).waitFor()
    await expect.poll(() => clerk.session).toBeNull()
    expect(problems).toEqual([])
  })

  test('widens the content policy of the start page alone', async () => {
    const policyOf = async (path: string) => (await fetch(url + path)).headers.get('content-security-policy') ?? ''
    expect(await policyOf('/')).toContain(`script-src 'self' https://${stub.instance.frontendApi} `)
    expect(await policyOf('/?reset=x')).toContain(stub.instance.frontendApi)
    for (const path of ['/404', '/style.css', '/app/main.js', '/nowhere']) {
      expect(await policyOf(path)).not.toMatch(/clerk|cloudflare|unsafe/)
    }
  })
})

describe.skipIf(!chromiumPath)('the demo page without Clerk', () => {
  test('asks nobody but its own server, and keeps the strict policy', async () => {
    const url = await pageUrl()
    const hosts = new Set<string>()
    const { page } = await openPage(url, {}, async (prepared) => {
      prepared.on('request', (request) => hosts.add(new URL(request.url()).host))
    })
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.getByRole('heading', { name: 'Welcome back' }).waitFor()
    expect([...hosts]).toEqual([new URL(url).host])
    expect((await fetch(url)).headers.get('content-security-policy')).not.toMatch(/clerk|cloudflare|unsafe/)
  })
})

async function deleteAccount(page: Page): Promise<void> {
  await page.getByText('Your data', { exact: true }).click()
  await page.getByRole('button', { name: 'Delete my account' }).click()
  await page.getByRole('button', { name: 'Delete it' }).click()
}
