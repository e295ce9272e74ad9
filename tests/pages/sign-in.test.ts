// Signing in on the demo page beyond name and password: links from mails, the second factor, and an account that was deleted.
import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { codeOf, wrongCodeOf } from '../support/authenticator.ts'
import { openPage, pageUrl } from '../support/browser.ts'
import { chromiumPath } from '../support/chromium.ts'
import { type MailStub, startMailStub } from '../support/mail-stub.ts'
import { fillSignIn, messageOf, PATIENTLY, signIn, signOut, signUp, violations } from './visitor.ts'

const ACCOUNT = 'Account of Ada'
const NEW_PASSWORD = 'another calm and rainy evening'

describe.skipIf(!chromiumPath)('signing in on the demo page', () => {
  let url: string
  let mail: MailStub

  beforeAll(async () => {
    mail = await startMailStub()
    url = await pageUrl(mail.variables)
  })
  afterAll(() => mail?.close())

  async function newcomer() {
    const opened = await openPage(url)
    await opened.page.getByRole('button', { name: 'Sign up' }).click()
    const email = await signUp(opened.page)
    await opened.page.getByRole('button', { name: ACCOUNT }).waitFor(PATIENTLY)
    return { ...opened, email }
  }

  /** The latest of so many links to an address. */
  async function linkTo(email: string, count: number): Promise<string> {
    const { text } = await mail.arrived(email, count)
    return /^http\S+$/m.exec(text)?.[0] ?? ''
  }

  test('a newcomer confirms the address by the link of a mail and gets the free tries', async () => {
    const { page, email, problems } = await newcomer()
    await page.getByText(`We sent a link to ${email}. Open it to get your free tries.`).waitFor()
    await page.getByRole('button', { name: ACCOUNT }).click()
    await page.getByRole('button', { name: 'Send the link' }).click()
    await page.getByText(`A link is on its way to ${email}.`).waitFor()
    const link = await linkTo(email, 1)
    await page.goto(link)
    await page.getByText('Thank you. Your e-mail address is confirmed.').waitFor()
    expect(page.url()).toBe(`${url}/`)
    await page.getByRole('button', { name: '3 free left' }).waitFor()
    await page.getByRole('button', { name: ACCOUNT }).click()
    expect(await page.getByText('This address is not confirmed yet.').count()).toBe(0)
    expect(problems).toEqual([])
    await page.goto(link)
    await page.getByText('This link is not valid any more.').waitFor()
    expect(await violations(page)).toEqual([])
  })

  test('a forgotten password is replaced by the link of a mail, which works once', async () => {
    const { page, email } = await newcomer()
    await signOut(page)
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.getByLabel('E-mail').fill(email)
    await page.getByRole('button', { name: 'Forgot your password?' }).click()
    expect(await page.getByLabel('E-mail').inputValue()).toBe(email)
    expect(await violations(page)).toEqual([])
    await page.getByRole('button', { name: 'Send the link' }).click()
    await page.getByText(`If there is an account for ${email}, a link is on its way.`, { exact: false }).waitFor()

    const link = await linkTo(email, 2)
    await page.goto(link)
    await page.getByRole('heading', { name: 'Choose a new password' }).waitFor()
    expect(page.url()).toBe(`${url}/`)
    expect(await violations(page)).toEqual([])
    await setPassword(page, 'short')
    expect(await messageOf(page, 'New password')).toBe('Use at least 12 characters.')
    await setPassword(page, NEW_PASSWORD)
    await page.getByText('Your new password is saved.').waitFor(PATIENTLY)
    await page.getByRole('dialog').getByRole('button', { name: 'Sign in' }).click()
    await fillSignIn(page, email, NEW_PASSWORD)
    await page.getByRole('button', { name: ACCOUNT }).waitFor(PATIENTLY)

    await page.goto(link)
    await setPassword(page, `${NEW_PASSWORD} again`)
    await page.getByText('This link is not valid any more. Ask for a new one.').waitFor(PATIENTLY)
    await page.getByRole('button', { name: 'Forgot your password?' }).click()
    await page.getByRole('heading', { name: 'Reset your password' }).waitFor()
  })

  test('a second factor is set up, asked for, met by a recovery code as well, and switched off', async () => {
    const { page, email, problems } = await newcomer()
    await openFactor(page)
    await page.getByRole('button', { name: 'Set it up' }).click()
    const box = page.locator('.once')
    const href = await box.getByRole('link', { name: 'Open in an app on this device' }).getAttribute('href')
    const secret = new URL(href ?? '').searchParams.get('secret') ?? ''
    expect(((await box.locator('code').textContent()) ?? '').replaceAll(/\s/g, '')).toBe(secret)
    await page.getByRole('img', { name: 'The key as a QR code' }).waitFor()
    expect(await violations(page)).toEqual([])
    await sendCode(page, wrongCodeOf(secret), 'Switch it on')
    await expect.poll(() => messageOf(page, 'Code')).toBe('This code is not right, or no longer.')
    await sendCode(page, codeOf(secret), 'Switch it on')
    await page.getByText('Your recovery codes').waitFor()
    const codes = await page.locator('.once code span').allTextContents()
    expect(codes).toHaveLength(10)
    await page.getByText('Recovery codes left: 10.').waitFor()
    expect(await violations(page)).toEqual([])
    await page.getByRole('button', { name: 'Sign out', exact: true }).click()

    await signIn(page, email)
    await page.getByRole('heading', { name: 'One more step' }).waitFor(PATIENTLY)
    expect(await violations(page)).toEqual([])
    await page.getByRole('textbox', { name: 'Code' }).fill(wrongCodeOf(secret))
    await page.keyboard.press('Enter')
    await expect.poll(() => messageOf(page, 'Code'), PATIENTLY).toBe('This code is not right, or no longer.')
    await page.getByRole('textbox', { name: 'Code' }).fill(codes[0] ?? '')
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: ACCOUNT }).waitFor(PATIENTLY)

    await openFactor(page)
    await page.getByText('Recovery codes left: 9.').waitFor()
    await page.getByRole('button', { name: 'Switch it off' }).click()
    await page.getByRole('textbox', { name: 'Password' }).fill('a calm and rainy afternoon')
    await sendCode(page, codes[1] ?? '', 'Switch it off')
    await page.getByText('The second factor is off.').waitFor(PATIENTLY)
    await page.getByRole('button', { name: 'Set it up' }).waitFor()
    expect(problems.filter((problem) => !/status of 40[13]/.test(problem))).toEqual([])
  })

  test('whoever deleted an account and signs in to it may have it back', async () => {
    const { page, email } = await newcomer()
    await page.getByRole('button', { name: ACCOUNT }).click()
    await page.getByText('Your data', { exact: true }).click()
    await page.getByRole('button', { name: 'Delete my account' }).click()
    expect(await violations(page)).toEqual([])
    await page.getByRole('button', { name: 'Delete it' }).click()
    await page.getByText('Until then it can be given back to you.', { exact: false }).waitFor()
    await signIn(page, email)
    await page.getByRole('button', { name: 'Did you delete your account lately? Get it back' }).click(PATIENTLY)
    await page.getByRole('button', { name: ACCOUNT }).waitFor(PATIENTLY)
  })

  test('a wrong password does not bring back an account that was not deleted', async () => {
    const { page, email } = await newcomer()
    await signOut(page)
    await signIn(page, email, 'not the password at all')
    await page.getByRole('button', { name: 'Did you delete your account lately? Get it back' }).click(PATIENTLY)
    await page.getByText('There is no deleted account with this e-mail and password.').waitFor(PATIENTLY)
  })
})

async function setPassword(page: Page, password: string): Promise<void> {
  await page.getByRole('textbox', { name: 'New password' }).fill(password)
  await page.getByRole('button', { name: 'Save the new password' }).click()
}

async function openFactor(page: Page): Promise<void> {
  await page.getByRole('button', { name: ACCOUNT }).click()
  await page.getByText('Second factor', { exact: true }).click()
}

async function sendCode(page: Page, code: string, button: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Code' }).fill(code)
  await page.getByRole('button', { name: button }).click()
}
