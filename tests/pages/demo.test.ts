// The demo page in a real browser, against the real product: from a visitor with a photo to a picture on paper.
import { readdirSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Page, Request, Route } from 'playwright-core'
import sharp from 'sharp'
import { beforeAll, describe, expect, test } from 'vitest'
import { openPage, pageUrl } from '../support/browser.ts'
import { chromiumPath } from '../support/chromium.ts'
import {
  choosePhoto,
  fillSignUp,
  focused,
  messageOf,
  newEmail,
  PASSWORD,
  PATIENTLY,
  photo,
  signOut,
  signUp,
  tabTo,
  violations,
} from './visitor.ts'

const PUBLIC = new URL('../../public/', import.meta.url)
const CREATE = 'Make my coloring page'

/** Keeps the body of the upload where a test can read it: Chromium does not report bodies that are files. */
const KEEP_UPLOAD = `{
  const send = fetch
  globalThis.fetch = async (path, init) => {
    if (String(path).includes('process-image')) {
      const bytes = new Uint8Array(await init.body.arrayBuffer())
      globalThis.upload = bytes.reduce((text, byte) => text + String.fromCharCode(byte), '')
    }
    return send(path, init)
  }
}`

/** What happens to the first answer on its way to the page; the server has the request and goes on working. */
const FIRST_ANSWER = {
  isLost: "await response.body.cancel(); throw new TypeError('network error')",
  isLate: "await new Promise((_, reject) => init.signal.addEventListener('abort', () => reject(init.signal.reason)))",
}

describe.skipIf(!chromiumPath)('the demo page', () => {
  let url: string

  beforeAll(async () => {
    url = await pageUrl()
  })

  test('takes a visitor from a photo through sign-up to a downloaded PNG, and remembers them', async () => {
    const { page, problems } = await openPage(url)
    await choosePhoto(page, 'cat')
    await createButton(page).click()
    await page.getByRole('heading', { name: 'One small step before we start' }).waitFor()
    await signUp(page)
    await page.getByRole('heading', { name: 'Your coloring page' }).waitFor()
    expect(await page.getByText(/Made by Sketch in [\d.]+ s; it was free\./).isVisible()).toBe(true)

    const [download] = await Promise.all([page.waitForEvent('download'), page.getByText('Download PNG').click()])
    expect(download.suggestedFilename()).toBe('coloring-page-cat-1.png')
    const picture = await sharp(await readFile(await download.path())).metadata()
    expect(picture).toMatchObject({ format: 'png' })

    await page.getByRole('button', { name: '2 free left' }).waitFor()
    await page.reload()
    await page.getByRole('button', { name: '2 free left' }).waitFor()
    expect(problems).toEqual([])
  })

  test('sends a JPEG without the place where the photo was taken', async () => {
    const { page } = await openPage(url)
    await choosePhoto(page, 'portrait-with-gps')
    await createButton(page).click()
    await page.evaluate(KEEP_UPLOAD)
    await signUp(page)
    const uploadOf = async () => Buffer.from(String(await page.evaluate('globalThis.upload ?? ""')), 'latin1')
    await expect.poll(async () => (await uploadOf()).length, PATIENTLY).toBeGreaterThan(0)
    const { format, exif, width, height } = await sharp(await uploadOf()).metadata()
    expect({ format, exif, isUpright: height > width }).toEqual({ format: 'jpeg', exif: undefined, isUpright: true })
  })

  test('scales a photo that no request could carry down before it is sent, upright', async () => {
    const { page } = await openPage(url)
    const grain = { type: 'gaussian', mean: 128, sigma: 60 } as const
    const size = { width: 3600, height: 2400, channels: 3, background: '#888' } as const
    const noise = sharp({ create: { ...size, noise: grain } })
    const buffer = await noise.jpeg({ quality: 100 }).withMetadata({ orientation: 6 }).toBuffer()
    expect(buffer.length).toBeGreaterThan(4_500_000)
    await page.evaluate(KEEP_UPLOAD)
    const choosing = page.waitForEvent('filechooser')
    await page.getByRole('button', { name: 'Choose a photo' }).click()
    await (await choosing).setFiles({ name: 'huge.jpg', mimeType: 'image/jpeg', buffer })
    await page.getByAltText('Your photo: huge').waitFor()
    await createButton(page).click()
    await signUp(page)
    const uploadOf = async () => Buffer.from(String(await page.evaluate('globalThis.upload ?? ""')), 'latin1')
    await expect.poll(async () => (await uploadOf()).length, PATIENTLY).toBeGreaterThan(0)
    const upload = await uploadOf()
    const { width, height, orientation } = await sharp(upload).metadata()
    expect(upload.length).toBeLessThanOrEqual(3_500_000)
    expect({ isUpright: height > width, long: height <= 2048, orientation }).toEqual({
      isUpright: true,
      long: true,
      orientation: undefined,
    })
  })

  test.each([
    { why: 'a text file', name: 'notes.txt', bytes: Buffer.from('not a picture'), says: 'That is not a picture.' },
    {
      why: 'a HEIC photo',
      name: 'IMG_1.HEIC',
      bytes: Buffer.from('\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'latin1'),
      says: 'This browser cannot open HEIC photos.',
    },
    {
      why: 'a damaged photo',
      name: 'photo.jpg',
      bytes: Buffer.from('\xff\xd8\xff\xe0\0\x10', 'latin1'),
      says: 'We could not read this picture.',
    },
    { why: 'an empty file', name: 'photo.jpg', bytes: Buffer.alloc(0), says: 'This file is empty.' },
  ])('says what is wrong with $why that is dropped on it', async ({ name, bytes, says }) => {
    const { page, problems } = await openPage(url)
    await page.getByRole('button', { name: 'Choose a photo' }).waitFor()
    await drop(page, name, bytes)
    await page.getByRole('alert').waitFor()
    expect(await page.getByRole('alert').textContent()).toContain(says)
    expect(problems).toEqual([])
  })

  test('takes a photo that is dropped anywhere on it', async () => {
    const { page } = await openPage(url)
    await page.getByRole('button', { name: 'Choose a photo' }).waitFor()
    await drop(page, 'coffee.jpg', photo('coffee'))
    await page.getByAltText('Your photo: coffee').waitFor()
  })

  test.each([
    { name: 'coffee', shape: 'wide' },
    { name: 'portrait-with-gps', shape: 'tall' },
  ] as const)('prints a $shape result alone on one page', async ({ name, shape }) => {
    const { page } = await openPage(url)
    await makeOne(page, name)
    await page.emulateMedia({ media: 'print' })
    expect(await page.locator('.shell').isVisible()).toBe(false)
    for (const format of ['A4', 'Letter']) {
      const pdf = (await page.pdf({ format, preferCSSPageSize: true })).toString('latin1')
      expect(pdf.match(/\/Type\s*\/Page\b/g), format).toHaveLength(1)
      const [width = 0, height = 0] = /MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]/.exec(pdf)?.slice(1).map(Number) ?? []
      expect(width > height ? 'wide' : 'tall', format).toBe(shape)
    }
  })

  test.each(['light', 'dark'] as const)('meets WCAG 2.2 AA in %s, empty and with a result', async (colorScheme) => {
    const { page } = await openPage(url, { colorScheme, reducedMotion: 'reduce' })
    await page.getByText('Choose a photo', { exact: true }).first().waitFor()
    expect(await violations(page)).toEqual([])
    await makeOne(page, 'coffee')
    expect(await violations(page)).toEqual([])
  })

  test('works with the keyboard alone', async () => {
    const { page } = await openPage(url, { reducedMotion: 'reduce' })
    await page.getByRole('button', { name: 'Choose a photo' }).waitFor()
    await tabTo(page, 'Try with a sample photo')
    await page.keyboard.press('Enter')
    await page.getByAltText('Your photo: sample').waitFor()
    await expect.poll(() => focused(page), PATIENTLY).toContain(CREATE)
    await page.keyboard.press('Enter')
    await page.getByRole('dialog').waitFor()
    for (const text of ['Ada', newEmail(), PASSWORD]) {
      await page.keyboard.type(text)
      await page.keyboard.press('Tab')
    }
    await tabTo(page, 'Create account')
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: 'Your coloring page' }).waitFor()
    await expect.poll(() => focused(page), PATIENTLY).toBe('Your coloring page')
    const slider = page.getByRole('slider', { name: 'Compare before and after' })
    await slider.focus()
    await expect.poll(() => slider.getAttribute('aria-valuetext'), PATIENTLY).toBe('50 % of your photo')
    await page.keyboard.press('End')
    await expect.poll(() => slider.getAttribute('aria-valuetext'), PATIENTLY).toBe('100 % of your photo')
    await page.keyboard.press('ArrowLeft')
    await expect.poll(() => slider.getAttribute('aria-valuetext'), PATIENTLY).toBe('99 % of your photo')
    await tabTo(page, 'Download PNG')
  })

  test('shows refusals of a sign-up beside their fields', async () => {
    const { page } = await openPage(url)
    await page.getByRole('button', { name: 'Sign up' }).click()
    await page.getByRole('dialog').waitFor()
    await page.keyboard.press('Enter')
    await expect.poll(() => messageOf(page, 'Name'), PATIENTLY).toBe('What should we call you?')
    const email = newEmail()
    await fillSignUp(page, { email, password: 'passwordpassword' })
    await page.keyboard.press('Enter')
    await expect.poll(() => messageOf(page, 'Password'), PATIENTLY).toContain('among the first anybody would try')
    await fillSignUp(page, { email, password: PASSWORD })
    await page.keyboard.press('Enter')
    await signOut(page)
    await page.getByRole('button', { name: 'Sign up' }).click()
    await fillSignUp(page, { email, password: PASSWORD })
    await page.keyboard.press('Enter')
    await expect.poll(() => messageOf(page, 'E-mail'), PATIENTLY).toBe('There is already an account with this e-mail.')
    await page.getByRole('button', { name: 'Sign in instead?' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Sign in', exact: true }).click()
    await page.getByRole('button', { name: '3 free left' }).waitFor()
  })

  test('renews an expired access token once for all requests that meet it', async () => {
    const { page } = await openPage(url)
    await makeOne(page, 'cat')
    const refreshes: Request[] = []
    page.on('request', (request) => request.url().endsWith('/api/auth/refresh') && refreshes.push(request))
    const expired = { error: { code: 'TOKEN_EXPIRED', message: 'The access token has expired.', details: {} } }
    const refused: string[] = []
    const bothRefused = Promise.withResolvers<void>()
    for (const path of ['**/api/process-image*', '**/api/auth/sessions']) {
      const refuse = async (route: Route) => {
        refused.push(path)
        if (refused.length === 2) bothRefused.resolve()
        await bothRefused.promise
        await route.fulfill({ status: 401, json: expired })
      }
      await page.route(path, refuse, { times: 1 })
    }
    await page.getByRole('button', { name: 'Create another' }).click()
    await page.getByRole('button', { name: 'Account of Ada' }).click()
    await page.getByText('Where you are signed in').click()
    await page.getByText('This device').waitFor()
    await page.keyboard.press('Escape')
    await page.getByRole('button', { name: '1 free left' }).waitFor()
    expect(refreshes).toHaveLength(1)
  })

  test('repeats a request under the same key when the connection drops, and is charged once', async () => {
    const { page } = await openPage(url)
    await choosePhoto(page, 'coffee')
    await createButton(page).click()
    const keys: (string | undefined)[] = []
    page.on('request', (request) => {
      if (request.url().includes('/api/process-image')) keys.push(request.headers()['idempotency-key'])
    })
    await meddle(page, 'isLost')
    await signUp(page)
    await page.getByRole('heading', { name: 'Your coloring page' }).waitFor()
    expect(keys.length).toBeGreaterThan(1)
    expect(new Set(keys).size).toBe(1)
    await page.getByRole('button', { name: '2 free left' }).waitFor()
  })

  test('stops waiting on request and picks the same picture up again, charged once', async () => {
    const { page } = await openPage(url)
    await choosePhoto(page, 'astronaut')
    await createButton(page).click()
    await meddle(page, 'isLate')
    await signUp(page)
    await page.getByRole('button', { name: 'Stop waiting' }).click()
    await page.getByText('Stopped.', { exact: false }).first().waitFor()
    await createButton(page).click()
    await page.getByRole('heading', { name: 'Your coloring page' }).waitFor()
    await page.getByRole('button', { name: '2 free left' }).waitFor()
  })
})

describe.skipIf(!chromiumPath)('the demo page of another fork', () => {
  let url: string

  beforeAll(async () => {
    url = await pageUrl({
      FORK__BRAND__NAME: 'Pet Portraits',
      FORK__BRAND__TAGLINE: 'Your dog in oil.',
      FORK__BRAND__COLORS__PRIMARY: '#ffd400',
      FORK__TRIAL__GENERATIONS: '0',
      FORK__PLANS__FREE__MONTHLY_TOKENS: '30',
      FORK__LIMITS__GENERATE__PER_MINUTE: '2',
    })
  })

  test('wears the brand of the configuration, readable on any colour', async () => {
    const { page, problems } = await openPage(url)
    await page.getByRole('heading', { level: 1, name: 'Your dog in oil.' }).waitFor()
    expect(await page.title()).toBe('Pet Portraits · Your dog in oil.')
    expect(await page.getByText(/first \d+ are free/).count()).toBe(0)
    const colors = await page.evaluate(
      '(({ color, backgroundColor }) => [color, backgroundColor])(getComputedStyle(document.querySelector(".primary")))',
    )
    expect(colors).toEqual([expect.stringMatching(/^rgb\((\d\d?), /), 'rgb(255, 212, 0)'])
    expect(problems).toEqual([])
  })

  test('says how many tokens are missing, why none are sold, and counts down a rate limit', async () => {
    const { page } = await openPage(url)
    await choosePhoto(page, 'cat')
    await createButton(page).click()
    await signUp(page)
    const alert = page.getByRole('alert')
    await alert.waitFor()
    expect(await alert.textContent()).toContain('This needs 100 tokens and you have 30: 70 are missing.')
    await page.getByRole('button', { name: 'Get tokens' }).click()
    await page.getByText('This site does not sell tokens yet.').waitFor()
    expect(await page.getByText('Reason:').textContent()).toContain('POLAR_ACCESS_TOKEN')
    await page.keyboard.press('Escape')

    // Forced, because the button says that it is disabled while it works and while it counts down.
    const countdown = page.getByText(/You can go on in \d+ s\./)
    const pressAgain = () => createButton(page).click({ force: true })
    await expect.poll(() => pressAgain().then(() => countdown.count()), PATIENTLY).toBeGreaterThan(0)
    expect(await createButton(page).getAttribute('aria-disabled')).toBe('true')
  })
})

describe('the files of the pages', () => {
  const files = readdirSync(PUBLIC, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(html|js|css|svg|txt|webmanifest)$/.test(entry.name))
    .map((entry) => `${entry.parentPath}/${entry.name}`)
    .filter((path) => !/\/(vendor|fonts)\//.test(path))

  test('leave every word of the brand to the configuration', () => {
    const branded = files.filter((path) => /colou?ring|line art|sketch/i.test(readFileSync(path, 'utf8')))
    expect(branded).toEqual([])
  })

  test('are all fetched ahead by the start page', () => {
    const html = readFileSync(new URL('index.html', PUBLIC), 'utf8')
    const ahead = [...html.matchAll(/(?:modulepreload" href|script type="module" src)="\/app\/([\w-]+\.js)"/g)]
    const modules = readdirSync(new URL('app/', PUBLIC))
    expect(ahead.map(([, name]) => name).sort()).toEqual(modules.sort())
  })
})

function createButton(page: Page) {
  return page.getByRole('button', { name: CREATE })
}

async function makeOne(page: Page, name: string): Promise<void> {
  await choosePhoto(page, name)
  await createButton(page).click()
  await signUp(page)
  await page.getByRole('heading', { name: 'Your coloring page' }).waitFor()
}

/** Lets something happen to the answer of the first generation. */
async function meddle(page: Page, how: keyof typeof FIRST_ANSWER): Promise<void> {
  await page.evaluate(`{
    const send = fetch
    globalThis.fetch = async (path, init) => {
      const response = await send(path, init)
      if (!String(path).includes('process-image')) return response
      globalThis.fetch = send
      ${FIRST_ANSWER[how]}
    }
  }`)
}

/** Drops a file as a person would: it lies over the page before it is let go. */
async function drop(page: Page, name: string, bytes: Buffer): Promise<void> {
  const transfer = await page.evaluateHandle(
    `(() => {
      const transfer = new DataTransfer()
      const bytes = Uint8Array.from(atob('${bytes.toString('base64')}'), (character) => character.charCodeAt(0))
      transfer.items.add(new File([bytes], '${name}'))
      return transfer
    })()`,
  )
  await page.dispatchEvent('body', 'dragover', { dataTransfer: transfer })
  await page.dispatchEvent('body', 'drop', { dataTransfer: transfer })
}
