// The account dialog in a real browser, against the real API: keys, devices, the password, a copy of the data, leaving.
import { readFile } from 'node:fs/promises'
import type { Page } from 'playwright-core'
import { beforeAll, describe, expect, test } from 'vitest'
import { openPage, pageUrl } from '../support/browser.ts'
import { chromiumPath } from '../support/chromium.ts'
import { focused, messageOf, PASSWORD, PATIENTLY, signIn, signUp, tabTo, violations } from './visitor.ts'

const ACCOUNT = 'Account of Ada'
const PARTS = ['API keys', 'Where you are signed in', 'Change password', 'Second factor', 'Your data']

describe.skipIf(!chromiumPath)('the account dialog', () => {
  let url: string

  beforeAll(async () => {
    url = await pageUrl()
  })

  async function newcomer(options: Parameters<typeof openPage>[1] = {}) {
    const opened = await openPage(url, options)
    await opened.page.getByRole('button', { name: 'Sign up' }).click()
    const email = await signUp(opened.page)
    await opened.page.getByRole('button', { name: ACCOUNT }).click(PATIENTLY)
    return { ...opened, email }
  }

  function statusOfKey(key: string): Promise<number> {
    return fetch(`${url}/api/billing/status`, { headers: { authorization: `Bearer ${key}` } }).then(
      ({ status }) => status,
    )
  }

  test('makes a key that works, shows it once, replaces it and ends it', async () => {
    const { page, problems } = await newcomer({ permissions: ['clipboard-read', 'clipboard-write'] })
    await open(page, 'API keys')
    await page.getByText('You have no keys yet.').waitFor()
    await page.getByRole('button', { name: 'New key' }).click()
    await page.getByRole('button', { name: 'Cancel' }).click()
    await expect.poll(() => focused(page)).toBe('New key')
    await page.keyboard.press('Enter')
    expect(await violations(page)).toEqual([])
    await page.getByRole('button', { name: 'Create key' }).click()
    expect(await messageOf(page, 'Name')).toBe('Give the key a name.')
    await page.getByLabel('Name', { exact: true }).fill('My website')
    await page.getByLabel('Most tokens it may spend').fill('a few')
    await page.getByRole('dialog').getByLabel('It works').selectOption({ label: 'for 30 days' })
    await page.getByRole('button', { name: 'Create key' }).click()
    expect(await messageOf(page, 'Most tokens it may spend')).toBe('Use a whole number of tokens.')
    await page.getByLabel('Most tokens it may spend').fill('500')
    await page.getByRole('button', { name: 'Create key' }).click()
    const first = await shownKey(page)
    await expect.poll(() => focused(page)).toBe('Your new key "My website"')
    expect(await statusOfKey(first)).toBe(200)
    await page.getByText('0 of 500 spent', { exact: false }).waitFor()
    await page.getByRole('button', { name: 'Copy' }).click()
    await page.getByText('Copied').waitFor()
    expect(await page.evaluate('navigator.clipboard.readText()')).toBe(first)
    expect(await violations(page)).toEqual([])

    await page.getByRole('button', { name: 'Replace the key My website' }).click()
    expect(await page.getByText('Your new key').count()).toBe(0)
    expect(await violations(page)).toEqual([])
    await page.getByLabel('The old key works').selectOption({ label: 'no longer' })
    await page.getByRole('button', { name: 'Replace key' }).click()
    const second = await shownKey(page)
    expect(second).not.toBe(first)
    expect([await statusOfKey(first), await statusOfKey(second)]).toEqual([401, 200])

    await page.getByRole('button', { name: 'End the key My website' }).first().click()
    await expect.poll(() => focused(page)).toBe('Keep it')
    await page.getByRole('button', { name: 'End this key' }).click()
    await page.getByText('"My website" no longer works.').waitFor()
    expect(await statusOfKey(second)).toBe(401)
    expect(problems).toEqual([])
  })

  test('opens and closes its parts with the keyboard alone', async () => {
    const { page } = await newcomer()
    for (const part of PARTS) {
      await tabTo(page, part)
      await page.keyboard.press('Enter')
      expect(await page.locator('details[open] > summary', { hasText: part }).count()).toBe(1)
    }
    await page.getByRole('button', { name: 'Download everything we hold about you' }).waitFor()
    await page.keyboard.press('Escape')
    expect(await page.getByRole('dialog').count()).toBe(0)
  })

  test('lists where you are signed in, and signs out there', async () => {
    const { page, email } = await newcomer()
    const other = await openPage(url)
    await signIn(other.page, email)
    await other.page.getByRole('button', { name: ACCOUNT }).waitFor(PATIENTLY)
    await open(page, 'Where you are signed in')
    await page.getByText('This device').waitFor()
    await page.getByRole('button', { name: /^Sign out on Chrome/ }).click()
    await page.getByText('Signed out there.').waitFor()
    expect(await page.getByRole('button', { name: /^Sign out on Chrome/ }).count()).toBe(0)
    await other.page.reload()
    await other.page.getByRole('button', { name: 'Sign in' }).waitFor()
  })

  test('changes the password, and says so when the current one is wrong', async () => {
    const { page, problems } = await newcomer()
    await open(page, 'Change password')
    await fillPasswords(page, 'not my password', 'another calm and rainy evening')
    await expect.poll(() => messageOf(page, 'Current password'), PATIENTLY).toBe('This is not your current password.')
    await fillPasswords(page, PASSWORD, 'another calm and rainy evening')
    await page.getByText('Your password is changed.', { exact: false }).waitFor(PATIENTLY)
    expect(problems.filter((problem) => !problem.includes('status of 403'))).toEqual([])
  })

  test('hands out everything we hold as a file', async () => {
    const { page, email } = await newcomer()
    await open(page, 'Your data')
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Download everything we hold about you' }).click(),
    ])
    expect(download.suggestedFilename()).toBe('my-data.json')
    expect(await readFile(await download.path(), 'utf8')).toContain(email)
    await page.getByText('The file is in your downloads.').waitFor()
  })

  test('keeps the account when the question is answered with no, and says what went wrong', async () => {
    const { page } = await newcomer()
    await open(page, 'Your data')
    await page.getByRole('button', { name: 'Delete my account' }).click()
    await expect.poll(() => focused(page)).toBe('Keep my account')
    await page.keyboard.press('Enter')
    await expect.poll(() => focused(page)).toBe('Delete my account')
    await page.getByRole('button', { name: 'Delete my account' }).click()
    await page.route('**/api/user/profile', (route) => route.abort())
    await page.getByRole('button', { name: 'Delete it' }).click()
    await page.getByText('The connection was lost. Please try again.').waitFor()
    await page.getByRole('button', { name: 'Keep my account' }).click()
    await page.keyboard.press('Escape')
    await page.getByRole('button', { name: ACCOUNT }).waitFor()
  })

  test('offers another try where a part could not be read', async () => {
    const { page } = await newcomer()
    await page.route('**/api/api-keys*', (route) => route.abort())
    await open(page, 'API keys')
    await page.getByText('The connection was lost. Please try again.').waitFor()
    await page.unroute('**/api/api-keys*')
    await page.getByRole('button', { name: 'Try again' }).click()
    await page.getByText('You have no keys yet.').waitFor()
  })

  test('is accessible and fits on a small dark phone with everything open', async () => {
    const { page, problems } = await newcomer({ viewport: { width: 360, height: 740 }, colorScheme: 'dark' })
    for (const part of PARTS) await open(page, part)
    await page.getByRole('button', { name: 'Set it up' }).click()
    await page.getByRole('button', { name: 'New key' }).click()
    await page.getByLabel('Name', { exact: true }).fill('A rather long name of a key for a small phone')
    await page.getByRole('button', { name: 'Create key' }).click()
    await shownKey(page)
    await page.getByText('Then enter the six digits it shows.').waitFor()
    expect(await violations(page)).toEqual([])
    expect(await page.evaluate('document.querySelector("dialog").scrollWidth')).toBeLessThanOrEqual(360 - 24)
    expect(problems).toEqual([])
  })
})

async function open(page: Page, part: string): Promise<void> {
  await page.locator('summary', { hasText: part }).click()
}

async function shownKey(page: Page): Promise<string> {
  await page.getByText('Your new key').waitFor()
  return ((await page.locator('.once code').first().textContent()) ?? '').trim()
}

async function fillPasswords(page: Page, current: string, next: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Current password' }).fill(current)
  await page.getByRole('textbox', { name: 'New password' }).fill(next)
  await page.locator('form').getByRole('button', { name: 'Change password' }).click()
}
