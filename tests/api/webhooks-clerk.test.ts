// Webhooks of Clerk: only what Clerk signed counts, and what it tells counts once, in whatever order it comes.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, call, startApp } from '../support/app.ts'
import {
  type ClerkStub,
  clerkUser,
  deletedUser,
  deliverClerkEvent,
  otherSecret,
  SIGNING_SECRET,
  type StubUser,
  signed,
  startClerkStub,
} from '../support/clerk-stub.ts'
import { expectErrorsInLog } from '../support/console.ts'

let clerk: ClerkStub
let app: App

beforeAll(async () => {
  clerk = await startClerkStub()
  app = await startApp(clerk.variables)
})

afterAll(() => clerk.close())

beforeEach(() => {
  clerk.calls.length = 0
})

const rowsOf = async ({ id }: StubUser) =>
  await db()
    .selectFrom('users')
    .select(['id', 'name', 'email', 'status', 'email_verified_at', 'clerk_updated_at', 'signup_network'])
    .where('clerk_id', '=', id)
    .execute()

const deliver = async (type: string, data: unknown, options?: Parameters<typeof deliverClerkEvent>[3]) => {
  const { status, json } = await deliverClerkEvent(app, type, data, options)
  return [status, json.receipt ?? json.error.code]
}

describe('a signature', () => {
  const body = JSON.stringify({ data: clerkUser(), object: 'event', type: 'user.created' })
  const good = () => signed(body, { id: 'msg_1', age: 0, secret: SIGNING_SECRET })
  const { 'svix-id': _id, ...withoutId } = good()
  const { 'svix-timestamp': _timestamp, ...withoutTimestamp } = good()
  const { 'svix-signature': _signature, ...withoutSignature } = good()

  test.each([
    { why: 'missing', headers: { 'content-type': 'application/json' } },
    { why: 'without its id', headers: withoutId },
    { why: 'without its time', headers: withoutTimestamp },
    { why: 'without itself', headers: withoutSignature },
    { why: 'made with another secret', headers: signed(body, { id: 'msg_1', age: 0, secret: otherSecret() }) },
    { why: 'six minutes old', headers: signed(body, { id: 'msg_1', age: 360, secret: SIGNING_SECRET }) },
    { why: 'six minutes ahead', headers: signed(body, { id: 'msg_1', age: -360, secret: SIGNING_SECRET }) },
    { why: 'of another body', headers: signed(`${body} `, { id: 'msg_1', age: 0, secret: SIGNING_SECRET }) },
    { why: 'of another id', headers: { ...good(), 'svix-id': 'msg_2' } },
    { why: 'with a time that is none', headers: { ...good(), 'svix-timestamp': 'now' } },
    { why: 'garbage', headers: { ...good(), 'svix-signature': 'v1,AAAA' } },
  ])('that is $why is refused', async ({ headers }) => {
    const { status, json } = await call(app, 'POST /api/webhooks/clerk', { body, headers })
    expect([status, json.error.code]).toEqual([401, 'UNAUTHENTICATED'])
    expect(json.error.message).toBe('The signature is missing, wrong or too old.')
  })

  test('may be one of several, while the secret is exchanged', async () => {
    const { 'svix-signature': signature, ...rest } = good()
    const headers = { ...rest, 'svix-signature': `v1,AAAA ${signature}` }
    expect((await call(app, 'POST /api/webhooks/clerk', { body, headers })).status).toBe(202)
  })

  test('does not let a body through that is too large', async () => {
    const large = JSON.stringify({ data: 'x'.repeat(1_000_000), type: 'user.created' })
    const headers = signed(large, { id: 'msg_1', age: 0, secret: SIGNING_SECRET })
    expect((await call(app, 'POST /api/webhooks/clerk', { body: large, headers })).status).toBe(413)
  })
})

describe('an event', () => {
  test('user.created makes the account before its first call, which finds it without asking Clerk', async () => {
    const ada = clerkUser({ name: 'Ada Lovelace' })
    expect(await deliver('user.created', ada)).toEqual([202, 'made'])
    const { status, json } = await call(app, 'GET /api/user/profile', { token: clerk.token(ada.id) })
    expect([status, json.name, json.email]).toEqual([200, 'Ada Lovelace', ada.email_addresses[0]?.email_address])
    expect(clerk.calls).toEqual([])
  })

  test('user.updated of somebody unknown makes the account too', async () => {
    const ada = clerkUser()
    expect(await deliver('user.updated', ada)).toEqual([202, 'made'])
    expect(await deliver('user.created', { ...ada, updated_at: ada.updated_at - 1 })).toEqual([202, 'stale'])
    expect(await rowsOf(ada)).toHaveLength(1)
  })

  test('user.updated changes name and address, unless it is older than what is known', async () => {
    const ada = clerkUser({ updatedAt: 2_000 })
    await deliver('user.created', ada)
    const moved = { ...clerkUser({ id: ada.id, name: 'Ada King', updatedAt: 3_000 }) }
    expect(await deliver('user.updated', moved)).toEqual([202, 'changed'])
    expect(await deliver('user.updated', moved)).toEqual([202, 'stale'])
    expect(await deliver('user.updated', { ...ada, updated_at: 2_500 })).toEqual([202, 'stale'])
    expect(await rowsOf(ada)).toMatchObject([
      { name: 'Ada King', email: moved.email_addresses[0]?.email_address, clerk_updated_at: 3_000 },
    ])
  })

  test('user.updated with a ban shuts the user out at once', async () => {
    const ada = clerkUser({ updatedAt: 1_000 })
    await deliver('user.created', ada)
    const token = clerk.token(ada.id)
    expect((await call(app, 'GET /api/user/profile', { token })).status).toBe(200)
    await deliver('user.updated', { ...ada, banned: true, updated_at: 2_000 })
    expect((await call(app, 'GET /api/user/profile', { token })).json.error.code).toBe('ACCOUNT_SUSPENDED')
    await deliver('user.updated', { ...ada, banned: false, updated_at: 3_000 })
    expect((await call(app, 'GET /api/user/profile', { token })).status).toBe(200)
  })

  test('user.deleted shuts the user out for good, and what comes later changes nothing', async () => {
    const ada = clerk.addUser()
    await deliver('user.created', ada)
    expect(await deliver('user.deleted', deletedUser(ada.id))).toEqual([202, 'changed'])
    expect(await deliver('user.deleted', deletedUser(ada.id))).toEqual([202, 'gone'])
    expect(await deliver('user.updated', { ...ada, updated_at: ada.updated_at + 1 })).toEqual([202, 'gone'])
    const { status, json } = await call(app, 'GET /api/user/profile', { token: clerk.token(ada.id) })
    expect([status, json.error.code]).toEqual([401, 'UNAUTHENTICATED'])
  })

  test('user.deleted before everything else leaves no account behind', async () => {
    const ada = clerk.addUser()
    expect(await deliver('user.deleted', deletedUser(ada.id))).toEqual([202, 'gone'])
    expect(await deliver('user.created', ada)).toEqual([202, 'gone'])
    const { status, json } = await call(app, 'GET /api/user/profile', { token: clerk.token(ada.id) })
    expect([status, json.error.code, clerk.calls]).toEqual([401, 'UNAUTHENTICATED', []])
    expect(await rowsOf(ada)).toEqual([])
  })

  test('says where a new user signs up from; a later one does not', async () => {
    const networks: (string | null | undefined)[] = []
    for (const { type, clientIp } of [
      { type: 'user.created', clientIp: '203.0.113.5' },
      { type: 'user.created', clientIp: ' 203.0.113.77 ' },
      { type: 'user.created', clientIp: '2001:db8:1:2:3::4' },
      { type: 'user.created', clientIp: '' },
      { type: 'user.created', clientIp: 'somewhere' },
      { type: 'user.updated', clientIp: '203.0.113.5' },
    ]) {
      const user = clerkUser()
      await deliver(type, user, { clientIp })
      networks.push((await rowsOf(user))[0]?.signup_network)
    }
    const [first, second, third, ...rest] = networks
    expect(first).toEqual(expect.any(String))
    expect(second).toBe(first)
    expect(third).toEqual(expect.any(String))
    expect(third).not.toBe(first)
    expect(rest).toEqual([null, null, null])
  })

  test.each(['session.created', 'organization.created', 'user.invented', ''])(
    'of the type "%s" is taken and does nothing',
    async (type) => {
      expect(await deliver(type, { id: 'whatever' })).toEqual([202, 'ignored'])
    },
  )

  test.each([
    { what: 'no id', type: 'user.created', data: { ...clerkUser(), id: undefined } },
    { what: 'an id that is none', type: 'user.updated', data: { ...clerkUser(), id: 'org_1' } },
    { what: 'no time', type: 'user.updated', data: { ...clerkUser(), updated_at: undefined } },
    { what: 'no id of the deleted', type: 'user.deleted', data: { object: 'user', deleted: true } },
    { what: 'no data', type: 'user.created', data: null },
  ])('that is signed and has $what is our fault, and comes again', async ({ type, data }) => {
    expectErrorsInLog()
    expect(await deliver(type, data)).toEqual([500, 'INTERNAL_ERROR'])
  })

  test('with more than we read is taken', async () => {
    expect(await deliver('user.created', { ...clerkUser(), passkeys: [], invented: { deep: true } })).toEqual([
      202,
      'made',
    ])
  })

  test('leaves nothing of the person in the audit log', async () => {
    const ada = clerkUser({ name: 'Very Private' })
    await deliver('user.created', ada)
    await deliver('user.updated', { ...clerkUser({ id: ada.id, updatedAt: ada.updated_at + 1 }), banned: true })
    await deliver('user.deleted', deletedUser(ada.id))
    const [row] = await rowsOf(ada)
    const log = await db()
      .selectFrom('audit_log')
      .selectAll()
      .where('target_id', '=', row?.id ?? '')
      .execute()
    expect(log.map(({ action, actor_type }) => `${actor_type} ${action}`)).toEqual([
      'webhook user.register',
      'webhook user.profile',
      'webhook user.email',
      'webhook user.suspend',
      'webhook user.delete',
    ])
    expect(JSON.stringify(log)).not.toMatch(/@|Private/)
    expect(JSON.stringify(log)).not.toContain(ada.id)
  })
})
