// What every visitor of a page does: sign up and out, press Tab, and look at it with the eyes of axe.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Page } from 'playwright-core'

export const PASSWORD = 'a calm and rainy afternoon'
/** Hashing a password takes its time, above all on a busy machine. */
export const PATIENTLY = { timeout: 20_000 }

let users = 0

export function newEmail(): string {
  users += 1
  return `ada.${process.pid}.${users}@example.com`
}

export async function fillSignUp(page: Page, { email, password }: { email: string; password: string }): Promise<void> {
  await page.getByLabel('Name', { exact: true }).fill('Ada')
  await page.getByLabel('E-mail').fill(email)
  await page.getByRole('textbox', { name: 'Password' }).fill(password)
}

export async function signUp(page: Page): Promise<string> {
  const email = newEmail()
  await fillSignUp(page, { email, password: PASSWORD })
  await page.keyboard.press('Enter')
  return email
}

/** Signs in with what signUp() used, from a page where nobody is. */
export async function signIn(page: Page, email: string, password = PASSWORD): Promise<void> {
  await page.getByRole('button', { name: 'Sign in' }).click()
  await fillSignIn(page, email, password)
}

export async function fillSignIn(page: Page, email: string, password = PASSWORD): Promise<void> {
  await page.getByLabel('E-mail').fill(email)
  await page.getByRole('textbox', { name: 'Password' }).fill(password)
  await page.keyboard.press('Enter')
}

export function photo(name: string): Buffer {
  return readFileSync(new URL(`../fixtures/photos/${name}.jpg`, import.meta.url))
}

export async function choosePhoto(page: Page, name: string): Promise<void> {
  const choosing = page.waitForEvent('filechooser')
  await page.getByRole('button', { name: 'Choose a photo' }).click()
  await (await choosing).setFiles({ name: `${name}.jpg`, mimeType: 'image/jpeg', buffer: photo(name) })
  await page.getByAltText(`Your photo: ${name}`).waitFor()
}

export async function signOut(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Account of Ada' }).click()
  await page.getByRole('button', { name: 'Sign out', exact: true }).click()
}

/** What axe finds against WCAG 2.2 AA and good practice, by rule and place. */
export async function violations(page: Page): Promise<string[]> {
  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve('axe-core'), 'utf8'))
  const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']
  const found: { id: string; nodes: { target: string[] }[] }[] = await page.evaluate(
    `axe.run({ runOnly: ${JSON.stringify(tags)} }).then(({ violations }) => violations)`,
  )
  return found.flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target.join(' ')}`))
}

/** What a field's described-by message says; empty while there is none. */
export async function messageOf(page: Page, label: string): Promise<string> {
  const id = await page.getByRole('textbox', { name: label }).getAttribute('aria-describedby')
  const message = id?.split(' ').find((part) => part.endsWith('-message'))
  return message ? ((await page.locator(`#${message}`).textContent()) ?? '') : ''
}

export async function focused(page: Page): Promise<string> {
  const script = 'document.activeElement === document.body ? "" : document.activeElement.textContent.trim()'
  return String(await page.evaluate(script))
}

/** Presses Tab until the focus is on something that says `text`. */
export async function tabTo(page: Page, text: string): Promise<void> {
  for (let presses = 0; presses < 40; presses += 1) {
    if ((await focused(page)).includes(text)) return
    await page.keyboard.press('Tab')
  }
  throw new Error(`The Tab key does not reach "${text}".`)
}
