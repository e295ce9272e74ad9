// What mails to owners of accounts say: whom they are from, what to do, and nothing that another reader could use.
import { describe, expect, test } from 'vitest'
import { addressChangedMail, addressTakenMail, resetMail, verificationMail } from '../../lib/auth/account-mail.ts'
import { config } from '../../lib/config.ts'

const TO = 'ada@example.com'
const LINK = 'https://shop.example/?verify=token'

describe.each([
  { what: 'to confirm an address', write: () => verificationMail(TO, LINK), subject: /confirm/i, hasLink: true },
  { what: 'to choose a password', write: () => resetMail(TO, LINK), subject: /password/i, hasLink: true },
  { what: 'of a changed address', write: () => addressChangedMail(TO), subject: /changed/i, hasLink: false },
  { what: 'of a taken address', write: () => addressTakenMail(TO), subject: /account/i, hasLink: false },
])('a mail $what', ({ write, subject, hasLink }) => {
  const paragraphsOf = ({ text }: { text: string }) => text.split('\n\n')

  test('names what it is about and the brand', () => {
    const { name } = config().brand
    const mail = write()
    expect(mail.to).toBe(TO)
    expect(mail.subject).toMatch(subject)
    expect(mail.subject.endsWith(` – ${name}`)).toBe(true)
    expect(paragraphsOf(mail).at(-1)).toBe(name)
  })

  test('is made of sentences, with its link on a line of its own', () => {
    const paragraphs = paragraphsOf(write())
    expect(paragraphs.length).toBeGreaterThanOrEqual(3)
    const sentences = paragraphs.slice(0, -1).filter((paragraph) => paragraph !== LINK)
    for (const sentence of sentences) expect(sentence).toMatch(/^[A-Z].*[.:]$/)
    expect(paragraphs.filter((paragraph) => paragraph === LINK)).toHaveLength(hasLink ? 1 : 0)
  })
})

test('a mail of a changed address says where to write to, where the fork has such a place', () => {
  const { brand } = config()
  const { supportEmail = '' } = brand
  expect(supportEmail).toContain('@')
  expect(addressChangedMail(TO).text).toContain(`at once (${supportEmail}).`)
  delete brand.supportEmail
  try {
    expect(addressChangedMail(TO).text).toContain('at once.')
  } finally {
    brand.supportEmail = supportEmail
  }
})
