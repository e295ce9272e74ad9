// The page of forks whose tool begins or ends with words: what is asked, what is shown, and what can be done with it.
import { readFile } from 'node:fs/promises'
import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openPage, pageUrl } from '../support/browser.ts'
import { chromiumPath } from '../support/chromium.ts'
import { WORDS } from '../support/gemini-replies.ts'
import { startGeminiStub } from '../support/gemini-stub.ts'
import { choosePhoto, focused, PATIENTLY, signUp, tabTo, violations } from './visitor.ts'

let gemini: Awaited<ReturnType<typeof startGeminiStub>> | undefined

afterAll(() => gemini?.close())

const TEXTS = {
  uploadPrompt: 'What should it be about?',
  createButton: 'Go',
  resultTitle: 'Here it is',
  downloadName: 'made',
}

/** The page of a fork with this tool, and Gemini behind it. */
async function pageOf(tool: Record<string, unknown>): Promise<string> {
  gemini ??= await startGeminiStub({ sidePx: 300 })
  const common = { name: 'tool', description: 'Does something.', providers: ['gemini'], priceTokens: 5 }
  return await pageUrl({
    GEMINI_API_KEY: 'a key of the tests',
    GEMINI_BASE_URL: gemini.url,
    FORK__BRAND__TAGLINE: 'A tool for words.',
    FORK__BRAND__DESCRIPTION: 'It does one thing.',
    FORK__BRAND__TEXTS: JSON.stringify(TEXTS),
    FORK__TOOLS: JSON.stringify([{ ...common, ...tool }]),
  })
}

const go = (page: Page) => page.getByRole('button', { name: 'Go' })
const words = (page: Page) => page.getByRole('textbox', { name: 'What should it be about?' })
/** What a screen reader says of the words, beside their label. */
const descriptionOf = async (page: Page) => {
  const ids = (await words(page).getAttribute('aria-describedby'))?.split(' ') ?? []
  const texts = await Promise.all(ids.map((id) => page.locator(`#${id}`).textContent()))
  return texts.filter(Boolean).join(' ')
}

describe.skipIf(!chromiumPath)('the page of a tool that describes photos', () => {
  let url: string

  beforeAll(async () => {
    url = await pageOf({
      does: 'image->text',
      prompt: 'Say what is in this photo. {{tone}}',
      draftPriceTokens: 2,
      options: { tone: { enum: ['plain', 'playful'], default: 'plain' } },
    })
  })

  test('shows the words below the photo, and lets them be copied and saved', async () => {
    const { page, problems } = await openPage(url, { permissions: ['clipboard-read', 'clipboard-write'] })
    await choosePhoto(page, 'cat')
    await go(page).click()
    await signUp(page)
    await page.getByRole('heading', { name: 'Here it is' }).waitFor()
    expect(await page.locator('.answer-text').textContent()).toBe(WORDS)
    expect(await page.getByAltText('Your photo: cat').isVisible()).toBe(true)
    await page.getByRole('button', { name: 'Copy' }).click()
    await page.getByText('Copied.').waitFor()
    expect(await page.evaluate('navigator.clipboard.readText()')).toBe(WORDS)
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('link', { name: 'Download' }).click(),
    ])
    expect(download.suggestedFilename()).toBe('made-cat-1.txt')
    expect(await readFile(await download.path(), 'utf8')).toBe(WORDS)
    expect(await page.getByRole('button', { name: 'Print' }).count()).toBe(0)
    expect(problems).toEqual([])
  })

  test('offers drafts where the fork has a price for them', async () => {
    const { page } = await openPage(url)
    await choosePhoto(page, 'cat')
    await page.getByRole('radio', { name: /Draft/ }).check()
    await go(page).click()
    const asked = page.waitForRequest(/process-image/)
    await signUp(page)
    expect((await asked).url()).toContain('quality=draft')
    expect((await asked).url()).not.toContain('format=')
    await page.getByRole('heading', { name: 'Here it is' }).waitFor()
  })

  test.each(['light', 'dark'] as const)('meets WCAG 2.2 AA in %s with a text', async (colorScheme) => {
    const { page } = await openPage(url, { colorScheme, reducedMotion: 'reduce' })
    await choosePhoto(page, 'coffee')
    await go(page).click()
    await signUp(page)
    await page.getByRole('heading', { name: 'Here it is' }).waitFor()
    expect(await violations(page)).toEqual([])
  })
})

describe.skipIf(!chromiumPath)('the page of a tool that draws what is written', () => {
  let url: string

  beforeAll(async () => {
    url = await pageOf({ does: 'text->image', prompt: 'Draw: {{text}}', inputCharactersMax: 60 })
  })

  test('takes a visitor from words through sign-up to a picture by keyboard alone, and back to the words', async () => {
    const { page, problems } = await openPage(url, { reducedMotion: 'reduce' })
    await words(page).waitFor()
    expect(await page.getByText(/photo/i).count()).toBe(0)
    await words(page).focus()
    await page.keyboard.type('a cat on a mat')
    await tabTo(page, 'Go')
    await page.keyboard.press('Enter')
    await signUp(page)
    await page.getByRole('heading', { name: 'Here it is' }).waitFor()
    expect(await page.getByAltText('The finished picture of: a cat on a mat').isVisible()).toBe(true)
    expect(gemini?.requests.at(-1)?.prompt).toBe('Draw: a cat on a mat')
    await tabTo(page, 'Change the words')
    await page.keyboard.press('Enter')
    await expect.poll(() => words(page).inputValue(), PATIENTLY).toBe('a cat on a mat')
    await expect.poll(() => page.evaluate('document.activeElement.tagName'), PATIENTLY).toBe('TEXTAREA')
    expect(problems).toEqual([])
  })

  test('asks for words where there are none, and says how many are left', async () => {
    const { page } = await openPage(url)
    await words(page).waitFor()
    await go(page).click()
    await page.getByRole('note').getByText('Write a few words first.').waitFor()
    expect(await page.evaluate('document.activeElement.tagName')).toBe('TEXTAREA')
    expect(await words(page).getAttribute('aria-invalid')).toBe('true')
    expect(await descriptionOf(page)).toContain('Write a few words first.')
    await words(page).fill('x'.repeat(55))
    await page.getByText('5 characters left').waitFor()
    expect(await page.getByText('Write a few words first.').count()).toBe(0)
    expect(await words(page).getAttribute('aria-invalid')).toBeNull()
    expect(await descriptionOf(page)).toBe('5 characters left')
    await words(page).press('End')
    await page.keyboard.type('0123456789')
    expect(await words(page).inputValue()).toHaveLength(60)
  })

  test('ignores a photo that is dropped on it', async () => {
    const { page, problems } = await openPage(url)
    await words(page).waitFor()
    const transfer = await page.evaluateHandle(`(() => {
      const transfer = new DataTransfer()
      transfer.items.add(new File(['x'], 'cat.jpg'))
      return transfer
    })()`)
    await page.dispatchEvent('body', 'dragover', { dataTransfer: transfer })
    await page.dispatchEvent('body', 'drop', { dataTransfer: transfer })
    expect(await page.getByRole('alert').count()).toBe(0)
    expect(problems).toEqual([])
  })

  test.each(['light', 'dark'] as const)('meets WCAG 2.2 AA in %s, empty and with a picture', async (colorScheme) => {
    const { page } = await openPage(url, { colorScheme, reducedMotion: 'reduce' })
    await words(page).waitFor()
    expect(await violations(page)).toEqual([])
    await words(page).fill('a dog')
    await go(page).click()
    await signUp(page)
    await page.getByRole('heading', { name: 'Here it is' }).waitFor()
    await expect.poll(() => focused(page), PATIENTLY).toBe('Here it is')
    expect(await violations(page)).toEqual([])
  })
})
