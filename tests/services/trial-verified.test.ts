// The trial where a mail proves an address: it waits for that, and is given once however often and fast the proof comes.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { addressProven, createUser, type NewUser } from '../../lib/auth/new-user.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { type MailStub, startMailStub } from '../support/mail-stub.ts'
import { ledgerViolations } from '../support/money.ts'

let count = 0
let stub: MailStub

beforeAll(async () => {
  stub = await startMailStub()
  await startApp({
    ...stub.variables,
    FORK__TRIAL__PER_NETWORK_DAILY: '2',
    FORK__AUTH__ADMINS: '["boss@example.com"]',
  })
})

afterAll(() => stub.close())

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

async function prove(userId: string): Promise<void> {
  await db()
    .transaction()
    .execute((trx) => addressProven(trx, userId))
}

async function outcome(userId: string) {
  const { email_verified_at, trial_withheld, role } = await db()
    .selectFrom('users')
    .select(['trial_withheld', 'email_verified_at', 'role'])
    .where('id', '=', userId)
    .executeTakeFirstOrThrow()
  const { balance } = await statementOf(db(), userId)
  return { withheld: trial_withheld, verified: email_verified_at !== null, role, trials: balance.trialGenerations }
}

const WAITING = { withheld: 'unverified', verified: false, role: 'user', trials: 0 }
const GIVEN = { withheld: null, verified: true, role: 'user', trials: 3 }

describe('an address that was never proven', () => {
  test('gets no trial until it is', async () => {
    const id = await signUp()
    expect(await outcome(id)).toEqual(WAITING)
    await prove(id)
    expect(await outcome(id)).toEqual(GIVEN)
  })

  test('gets it once, however often it is proven, and keeps the time of the first proof', async () => {
    const id = await signUp()
    await prove(id)
    const at = () => db().selectFrom('users').select('email_verified_at').where('id', '=', id).executeTakeFirstOrThrow()
    const first = await at()
    await prove(id)
    expect(await at()).toEqual(first)
    expect(await outcome(id)).toEqual(GIVEN)
  })

  test('gets it once, in a race of twenty proofs', async () => {
    const id = await signUp({ ip: '203.0.113.1' })
    await Promise.all(Array.from({ length: 20 }, () => prove(id)))
    expect(await outcome(id)).toEqual(GIVEN)
    expect(await db().selectFrom('trial_networks').select('trials').execute()).toEqual([{ trials: 1 }])
  })

  test('counts for the network it was made from once it is proven', async () => {
    const ids = [
      await signUp({ ip: '198.51.100.1' }),
      await signUp({ ip: '198.51.100.2' }),
      await signUp({ ip: '198.51.100.3' }),
    ]
    for (const id of ids) await prove(id)
    const outcomes = await Promise.all(ids.map(outcome))
    expect(outcomes).toEqual([GIVEN, GIVEN, { ...GIVEN, withheld: 'network', trials: 0 }])
  })

  test('of a person who had the trial is proven, and gets none', async () => {
    const [first, second] = [
      await signUp({ email: 'twice+1@example.com' }),
      await signUp({ email: 'twice+2@example.com' }),
    ]
    await Promise.all([prove(first), prove(second)])
    const outcomes = await Promise.all([outcome(first), outcome(second)])
    expect(outcomes.map(({ trials }) => trials).sort()).toEqual([0, 3])
    expect(outcomes.map(({ withheld }) => withheld)).toContainEqual('repeat')
  })

  test('to throw away gets none when it is proven', async () => {
    const id = await signUp({ email: 'someone@mailinator.com' })
    expect(await outcome(id)).toMatchObject({ withheld: 'disposable' })
    await prove(id)
    expect(await outcome(id)).toEqual({ ...GIVEN, withheld: 'disposable', trials: 0 })
  })

  test('becomes that of an administrator when it is proven and auth.admins names it, on record once', async () => {
    const id = await signUp({ email: 'boss@example.com' })
    expect(await outcome(id)).toMatchObject({ role: 'user' })
    await Promise.all([prove(id), prove(id)])
    expect(await outcome(id)).toMatchObject({ role: 'admin', trials: 3 })
    const audit = await db().selectFrom('audit_log').selectAll().where('target_id', '=', id).execute()
    expect(audit).toMatchObject([{ action: 'user.role', actor_type: 'system', after: { role: 'admin' } }])
  })
})

test('an address that was proven when the trial was withheld for its network gets none later', async () => {
  for (const last of [1, 2]) await signUp({ ip: `192.0.2.${last}`, emailVerified: true })
  const id = await signUp({ ip: '192.0.2.3', emailVerified: true })
  const withheld = { ...GIVEN, withheld: 'network', trials: 0 }
  expect(await outcome(id)).toEqual(withheld)
  await db().deleteFrom('trial_networks').execute()
  await prove(id)
  expect(await outcome(id)).toEqual(withheld)
})

test('a verified address has the trial from the start', async () => {
  expect(await outcome(await signUp({ emailVerified: true }))).toEqual(GIVEN)
})

test('a deleted account proves nothing any more', async () => {
  const id = await signUp()
  await db().updateTable('users').set({ status: 'deleted' }).where('id', '=', id).execute()
  await prove(id)
  expect(await outcome(id)).toEqual(WAITING)
})

test('an account that is not there proves nothing', async () => {
  await expect(prove(crypto.randomUUID())).resolves.toBeUndefined()
})

test('nothing of all that brought the ledger out of balance', async () => {
  expect(await ledgerViolations()).toEqual([])
})
