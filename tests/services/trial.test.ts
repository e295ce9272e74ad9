// The trial, once per person and so many a day per network, where no address can be verified: on real PostgreSQL, and in races.
import { createHmac } from 'node:crypto'
import { sql } from 'kysely'
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { sweepMailed } from '../../lib/auth/email-tokens.ts'
import { createUser, type NewUser } from '../../lib/auth/new-user.ts'
import { keyFor } from '../../lib/auth/secret.ts'
import { canVerify, networkHash, personOf } from '../../lib/auth/trial.ts'
import { config } from '../../lib/config.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { ledgerViolations } from '../support/money.ts'

let count = 0

beforeAll(async () => {
  await startApp({ FORK__TRIAL__PER_NETWORK_DAILY: '4', FORK__AUTH__ADMINS: '["boss@example.com"]' })
})

function someone(): string {
  count += 1
  return `person-${count}@example.com`
}

async function signUp(user: Partial<NewUser> = {}): Promise<string> {
  const person = { name: 'Ada', email: someone(), role: 'user' as const, ...user }
  return await db()
    .transaction()
    .execute((trx) => createUser(trx, person))
}

async function outcome(userId: string) {
  const user = await db()
    .selectFrom('users')
    .select(['trial_withheld', 'signup_network', 'email_verified_at', 'role'])
    .where('id', '=', userId)
    .executeTakeFirstOrThrow()
  const { balance } = await statementOf(db(), userId)
  return { ...user, trials: balance.trialGenerations, tokens: balance.tokens }
}

const GIVEN = { trial_withheld: null, trials: 3, tokens: 1000 }
const repeated = { trial_withheld: 'repeat', trials: 0, tokens: 1000 }

describe('a person', () => {
  test('gets the trial at once, as no address can be verified here', async () => {
    expect(await outcome(await signUp())).toEqual({
      ...GIVEN,
      signup_network: null,
      email_verified_at: null,
      role: 'user',
    })
  })

  test.each([
    ['ada.once@gmail.com', 'a.d.a.once+tag@googlemail.com'],
    ['ada.once@example.com', 'ada.once+tag@example.com'],
  ])('is the same at %s and %s', async (one, other) => {
    expect(await outcome(await signUp({ email: one }))).toMatchObject(GIVEN)
    expect(await outcome(await signUp({ email: other }))).toMatchObject(repeated)
  })

  test.each([
    ['Ada@Example.com', 'ada@example.com'],
    ['ada+one+two@example.com', 'ada@example.com'],
    ['a.d.a@gmail.com', 'ada@gmail.com'],
    ['a.d.a@googlemail.com', 'ada@gmail.com'],
  ])('is %s as well as %s', (one, other) => {
    expect(personOf(one)).toBe(personOf(other))
  })

  test('is another at Gmail too, by the letters of the address', () => {
    expect(personOf('ada@gmail.com')).not.toBe(personOf('bob@gmail.com'))
  })

  test('is known again by every release, as a network is: each hashed under a key for that alone', () => {
    const hashed = (purpose: 'trial' | 'network', text: string) =>
      createHmac('sha256', keyFor(purpose)).update(text).digest('base64url')
    expect(personOf('ada+tag@example.com')).toBe(hashed('trial', 'ada@example.com'))
    expect(personOf('a.da@googlemail.com')).toBe(hashed('trial', 'ada@gmail.com'))
    expect(networkHash('8.8.4.4')).toBe(hashed('network', '8.8.4.0/24'))
    expect(networkHash('2001:db8:0:1::/64')).toBe(hashed('network', '2001:db8:0:1::/64'))
  })

  test('is another where dots matter, and at another host', async () => {
    for (const email of ['dots@example.com', 'd.ots@example.com', 'dots@example.org']) {
      expect(await outcome(await signUp({ email })), email).toMatchObject(GIVEN)
    }
    expect(personOf('dots@example.com')).toMatch(/^[\w-]{43}$/)
  })

  test('gets no second one after the account is deleted', async () => {
    const email = someone()
    const first = await signUp({ email })
    await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', first).execute()
    expect(await outcome(await signUp({ email }))).toMatchObject(repeated)
  })

  test('gets one, however many of their spellings sign up at the same time', async () => {
    const ids = await Promise.all(Array.from({ length: 20 }, (_, tag) => signUp({ email: `race+${tag}@example.com` })))
    const outcomes = await Promise.all(ids.map(outcome))
    expect(outcomes.filter(({ trials }) => trials === 3)).toHaveLength(1)
    expect(outcomes.filter(({ trial_withheld }) => trial_withheld === 'repeat')).toHaveLength(19)
  })

  test('whose sign-up fails in the end may try again', async () => {
    const email = someone()
    const failed = db()
      .transaction()
      .execute(async (trx) => {
        await createUser(trx, { name: 'Ada', email, role: 'user', ip: '198.18.0.1' })
        throw new Error('rolled back')
      })
    await expect(failed).rejects.toThrow('rolled back')
    expect(await outcome(await signUp({ email, ip: '198.18.0.1' }))).toMatchObject(GIVEN)
    const network = networkHash('198.18.0.1') ?? ''
    const kept = await db().selectFrom('trial_networks').select('trials').where('network', '=', network).execute()
    expect(kept, 'counted once').toEqual([{ trials: 1 }])
  })

  test('with a verified address that auth.admins names becomes an administrator, on record', async () => {
    const id = await signUp({ email: 'boss@example.com', emailVerified: true })
    expect(await outcome(id)).toMatchObject({ ...GIVEN, role: 'admin', email_verified_at: expect.any(Date) })
    const audit = await db().selectFrom('audit_log').selectAll().where('target_id', '=', id).execute()
    expect(audit).toMatchObject([
      {
        action: 'user.role',
        actor_type: 'system',
        target_type: 'user',
        before: { role: 'user' },
        after: { role: 'admin' },
      },
    ])
  })

  test('who is an administrator already is made none, and that is not on record', async () => {
    await db()
      .updateTable('users')
      .set({ email: 'earlier@example.com' })
      .where('email', '=', 'boss@example.com')
      .execute()
    const id = await signUp({ email: 'boss@example.com', emailVerified: true, role: 'admin' })
    expect(await outcome(id)).toMatchObject({ role: 'admin' })
    expect(await db().selectFrom('audit_log').selectAll().where('target_id', '=', id).execute()).toEqual([])
    await db().updateTable('users').set({ email: 'later@example.com' }).where('id', '=', id).execute()
    expect(await outcome(await signUp({ emailVerified: true })), 'nor is anybody else').toMatchObject({ role: 'user' })
  })

  test('is kept as they were given: the name, the address, the hash of the password, the user at Clerk', async () => {
    const given = { name: 'Grace', email: someone(), passwordHash: 'hashed', clerk: { id: 'user_1', updatedAt: 12 } }
    const columns = ['name', 'email', 'password_hash', 'clerk_id', 'clerk_updated_at'] as const
    const row = async (id: string) =>
      await db().selectFrom('users').select(columns).where('id', '=', id).executeTakeFirstOrThrow()
    const { clerk_updated_at, ...kept } = await row(await signUp(given))
    expect(kept).toEqual({ name: 'Grace', email: given.email, password_hash: 'hashed', clerk_id: 'user_1' })
    expect(Number(clerk_updated_at)).toBe(12)
    expect(await row(await signUp())).toMatchObject({ password_hash: null, clerk_id: null, clerk_updated_at: null })
  })

  test('with an address that only auth.admins knows stays a user until it is verified', async () => {
    await db()
      .updateTable('users')
      .set({ email: 'former@example.com' })
      .where('email', '=', 'boss@example.com')
      .execute()
    expect(await outcome(await signUp({ email: 'boss@example.com' }))).toMatchObject({ role: 'user' })
  })
})

test.each([
  ['clerk', undefined, true],
  ['clerk', { apiKey: 'x', from: 'y', baseUrl: undefined }, true],
  ['local', { apiKey: 'x', from: 'y', baseUrl: undefined }, true],
  ['local', undefined, false],
] as const)('an address can be verified with %s and %o: %s', (provider, resend, expected) => {
  expect(canVerify({ resend }, { auth: { ...config().auth, provider } })).toBe(expected)
})

describe('an address to throw away', () => {
  test.each(['mailinator.com', 'deep.sub.mailinator.com', 'yopmail.com'])('at %s gets no trial', async (host) => {
    expect(await outcome(await signUp({ email: `someone@${host}` }))).toMatchObject({
      trial_withheld: 'disposable',
      trials: 0,
      tokens: 1000,
    })
  })

  test('is no trial of its network', async () => {
    await signUp({ email: 'other@mailinator.com', ip: '198.18.9.1' })
    const network = networkHash('198.18.9.1') ?? ''
    expect(await db().selectFrom('trial_networks').selectAll().where('network', '=', network).execute()).toEqual([])
  })

  test.each(['xmailinator.example.com', 'mailinator.com.example.org'])('is not one at %s', async (host) => {
    expect(await outcome(await signUp({ email: `someone@${host}` }))).toMatchObject(GIVEN)
  })
})

describe('a network', () => {
  const withheld = { trial_withheld: 'network', trials: 0, tokens: 1000 }

  test('gets its trials of the day and no more, however its addresses differ', async () => {
    const ids: string[] = []
    for (const last of [1, 2, 3, 255]) ids.push(await signUp({ ip: `203.0.113.${last}` }))
    for (const id of ids)
      expect(await outcome(id)).toMatchObject({ ...GIVEN, signup_network: networkHash('203.0.113.9') })
    expect(await outcome(await signUp({ ip: '203.0.113.77' }))).toMatchObject(withheld)
    expect(await outcome(await signUp({ ip: '203.0.112.77' })), 'another network').toMatchObject(GIVEN)
  })

  test('gets no more in a race of fifty', async () => {
    const ids = await Promise.all(Array.from({ length: 50 }, (_, last) => signUp({ ip: `198.51.100.${last}` })))
    const outcomes = await Promise.all(ids.map(outcome))
    expect(outcomes.filter(({ trials }) => trials === 3)).toHaveLength(4)
    expect(outcomes.filter(({ trial_withheld }) => trial_withheld === 'network')).toHaveLength(46)
    const kept = await db()
      .selectFrom('trial_networks')
      .select('trials')
      .where('network', '=', networkHash('198.51.100.0') ?? '')
      .execute()
    expect(kept).toEqual([{ trials: 4 }])
  })

  test('gets new ones the next day, and the old count is swept away', async () => {
    const network = networkHash('192.0.2.1') ?? ''
    const yesterday = sql<Date>`(now() at time zone 'utc')::date - 1`
    await db().insertInto('trial_networks').values({ network, day: yesterday, trials: 4 }).execute()
    expect(await outcome(await signUp({ ip: '192.0.2.1' }))).toMatchObject(GIVEN)
    expect(await sweepMailed(db())).toMatchObject({ trialNetworksForgotten: 1 })
    const left = await db().selectFrom('trial_networks').select('trials').where('network', '=', network).execute()
    expect(left).toEqual([{ trials: 1 }])
  })

  test('does not count who had the trial before', async () => {
    const email = someone()
    await signUp({ email })
    await signUp({ email: email.replace('@', '+2@'), ip: '198.18.4.4' })
    const network = networkHash('198.18.4.4') ?? ''
    expect(await db().selectFrom('trial_networks').selectAll().where('network', '=', network).execute()).toEqual([])
  })

  test('of IPv6 is what one customer has', async () => {
    expect(networkHash('2001:db8:0:1::/64')).not.toBe(networkHash('2001:db8:0:2::/64'))
    for (let index = 0; index < 4; index += 1) await signUp({ ip: '2001:db8:0:1::/64' })
    expect(await outcome(await signUp({ ip: '2001:db8:0:1::/64' }))).toMatchObject(withheld)
  })

  test.each([
    'unknown',
    '127.0.0.1',
    '10.1.2.3',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '169.254.1.1',
    '100.64.0.1',
    '0.0.0.0',
    '0:0:0:0::/64',
    'fd00:1:2:3::/64',
    'fe80:0:0:0::/64',
    '2001:db8::1',
  ])('%s says nothing of who is calling', (ip) => {
    expect(networkHash(ip)).toBeNull()
  })

  test('that says nothing of who is calling has no limit', async () => {
    for (let index = 0; index < 5; index += 1) {
      expect(await outcome(await signUp({ ip: '127.0.0.1' }))).toMatchObject({ ...GIVEN, signup_network: null })
    }
  })

  test.each(['172.15.0.1', '172.32.0.1', '11.0.0.1', '192.169.0.1', '100.128.0.1', '8.8.8.8'])(
    '%s is a network like any other, kept as a keyed hash',
    (ip) => {
      expect(networkHash(ip)).toMatch(/^[\w-]{43}$/)
    },
  )

  test('has no limit where the fork sets none', async () => {
    config().trial.perNetworkDaily = 0
    try {
      const ids: string[] = []
      for (let index = 0; index < 6; index += 1) ids.push(await signUp({ ip: '198.19.0.1' }))
      for (const id of ids) expect(await outcome(id)).toMatchObject(GIVEN)
    } finally {
      config().trial.perNetworkDaily = 4
    }
  })

  test('and everything else is left alone where there is no trial', async () => {
    config().trial.generations = 0
    try {
      const id = await signUp({ ip: '198.19.1.1', email: 'nothing@mailinator.com' })
      expect(await outcome(id)).toMatchObject({ trial_withheld: null, trials: 0, tokens: 1000 })
    } finally {
      config().trial.generations = 3
    }
    const network = networkHash('198.19.1.1') ?? ''
    expect(await db().selectFrom('trial_networks').selectAll().where('network', '=', network).execute()).toEqual([])
  })
})

test('nothing of all that brought the ledger out of balance', async () => {
  expect(await ledgerViolations()).toEqual([])
})
