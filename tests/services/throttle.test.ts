// What slows guessing and mailing down, called directly on real PostgreSQL and Redis.
import { createHmac } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { afterAnswer } from '../../lib/after-answer.ts'
import { sendSparingly } from '../../lib/auth/account-mail.ts'
import { keyFor } from '../../lib/auth/secret.ts'
import { countTry, forgetFailures, hashSubject } from '../../lib/auth/throttle.ts'
import { KvError, kv } from '../../lib/kv.ts'
import { startApp } from '../support/app.ts'
import { type MailStub, startMailStub } from '../support/mail-stub.ts'

let stub: MailStub

beforeAll(async () => {
  stub = await startMailStub()
  await startApp(stub.variables)
})

afterAll(() => stub.close())

beforeEach(async () => {
  await db().deleteFrom('sign_in_failures').execute()
})

const kept = () => db().selectFrom('sign_in_failures').select(['email_hash', 'failures']).execute()

/** The seconds to wait, or 0 for a try that was counted. */
async function waitOf(subject: string): Promise<number> {
  try {
    await countTry(db(), subject)
    return 0
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'RATE_LIMITED' && 'headers' in error)) throw error
    const seconds = 'details' in error ? Number(Object(error.details).retryAfterSeconds) : Number.NaN
    expect(error).toMatchObject({ headers: { 'retry-after': String(seconds) } })
    expect(error.message).toContain(` ${seconds} s`)
    return seconds
  }
}

async function givenFailures(subject: string, failures: number, secondsAgo = 0): Promise<void> {
  const last_failure_at = sql<Date>`now() - make_interval(secs => ${secondsAgo})`
  await db().deleteFrom('sign_in_failures').execute()
  await db()
    .insertInto('sign_in_failures')
    .values({ email_hash: hashSubject(subject), failures, last_failure_at })
    .execute()
}

describe('tries', () => {
  test('are counted by a keyed hash, each subject for itself, until one succeeds', async () => {
    for (const subject of ['ada', 'ada', 'bob']) expect(await waitOf(subject)).toBe(0)
    expect(await kept()).toEqual(
      expect.arrayContaining([
        { email_hash: hashSubject('ada'), failures: 2 },
        { email_hash: hashSubject('bob'), failures: 1 },
      ]),
    )
    expect(hashSubject('ada')).toBe(createHmac('sha256', keyFor('sign-in-failures')).update('ada').digest('hex'))
    await forgetFailures(db(), 'ada')
    expect(await kept()).toEqual([{ email_hash: hashSubject('bob'), failures: 1 }])
  })

  test.each([
    [4, 0, 0],
    [5, 0, 1],
    [5, 2, 0],
    [6, 0, 2],
    [6, 3, 0],
    [10, 0, 32],
    [10, 20, 12],
    [14, 0, 512],
    [15, 0, 900],
    [30, 0, 900],
    [30, 901, 0],
  ])('after %i failures, the last %i s ago, wait %i s', async (failures, secondsAgo, expected) => {
    await givenFailures('ada', failures, secondsAgo)
    const wait = await waitOf('ada')
    expect(wait).toBeGreaterThanOrEqual(expected === 0 ? 0 : Math.max(1, expected - 1))
    expect(wait).toBeLessThanOrEqual(expected)
    const after = expected > 0 ? failures : Math.min(30, failures + 1)
    expect((await kept())[0]?.failures, 'a refused try is not one more').toBe(after)
  })

  test('in a race are five', async () => {
    const waits = await Promise.all(Array.from({ length: 20 }, () => waitOf('ada')))
    expect(waits.filter((wait) => wait === 0)).toHaveLength(5)
  })
})

describe('mails to one address', () => {
  const mail = (to: string) => ({ to, subject: 'Hello', text: 'How are you?' })

  test('are five an hour in a race of ten, and others get theirs', async () => {
    await Promise.all(Array.from({ length: 10 }, () => sendSparingly(mail('ada@example.com'))))
    await sendSparingly(mail('bob@example.com'))
    expect(stub.sentTo('ada@example.com')).toHaveLength(5)
    expect(stub.sentTo('bob@example.com')).toHaveLength(1)
    const lines = vi.mocked(console.log).mock.calls.map(([line]) => String(line))
    expect(lines.filter((line) => line.includes('mail_withheld'))).toHaveLength(5)
    expect(lines.join()).not.toContain('@')
  })

  test('are counted in memory while the KV store is down, and another fault is not hidden', async () => {
    const count = vi.spyOn(kv(), 'countWindows').mockRejectedValue(new KvError('down'))
    for (let index = 0; index < 7; index += 1) await sendSparingly(mail('eve@example.com'))
    expect(stub.sentTo('eve@example.com')).toHaveLength(5)
    count.mockRejectedValue(new Error('a bug'))
    await expect(sendSparingly(mail('eve@example.com'))).rejects.toThrow('a bug')
  })
})

test('what goes wrong after the answer is logged, and holds nothing up', async () => {
  let finish = () => {}
  const held = new Promise<void>((resolve) => {
    finish = resolve
  })
  await afterAnswer('mail_failed', () => held)
  finish()
  await afterAnswer('mail_failed', async () => {
    throw new Error('the mailer is gone')
  })
  const lines = () => vi.mocked(console.log).mock.calls.map(([line]) => String(line))
  await expect.poll(() => lines().filter((line) => line.includes('mail_failed'))).toHaveLength(1)
  expect(lines().join()).toContain('the mailer is gone')
})
