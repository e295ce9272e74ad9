// Webhooks of Clerk at the edge: what it signed is read, anything else is nothing, and a secret of ours that is wrong is an error.
import { afterEach, describe, expect, test, vi } from 'vitest'
import { otherSecret, SIGNING_SECRET, signed } from '../support/clerk-stub.ts'

afterEach(() => vi.unstubAllEnvs())

const BODY = JSON.stringify({
  type: 'user.created',
  data: { id: 'user_2abc', first_name: 'Adä' },
  event_attributes: { http_request: { client_ip: '192.0.2.1' } },
})

const good = () => signed(BODY, { id: 'msg_1', age: 0, secret: SIGNING_SECRET })

/** The event as it is read under a signing secret of ours. */
async function read(headers: Record<string, string>, { secret = SIGNING_SECRET, body = BODY } = {}) {
  vi.stubEnv('CLERK_WEBHOOK_SIGNING_SECRET', secret || undefined)
  vi.resetModules()
  const { verifyClerkEvent } = await import('../../lib/auth/clerk.ts')
  return await verifyClerkEvent(Buffer.from(body), new Headers(headers))
}

describe('an event', () => {
  test('that Clerk signed is read', async () => {
    expect(await read(good())).toEqual({
      type: 'user.created',
      data: { id: 'user_2abc', first_name: 'Adä' },
      attributes: { http_request: { client_ip: '192.0.2.1' } },
    })
  })

  test.each(['svix-id', 'svix-timestamp', 'svix-signature'])('without %s is nothing', async (name) => {
    const headers = Object.fromEntries(Object.entries(good()).filter(([header]) => header !== name))
    expect(await read(headers)).toBeUndefined()
  })

  test.each([
    { why: 'signed with another secret', headers: signed(BODY, { id: 'msg_1', age: 0, secret: otherSecret() }) },
    { why: 'six minutes old', headers: signed(BODY, { id: 'msg_1', age: 360, secret: SIGNING_SECRET }) },
    { why: 'signed for another id', headers: { ...good(), 'svix-id': 'msg_2' } },
    { why: 'signed by nobody', headers: { ...good(), 'svix-signature': 'v1,AAAA' } },
  ])('that is $why is nothing', async ({ headers }) => {
    expect(await read(headers)).toBeUndefined()
  })

  test('that is not what was signed is nothing', async () => {
    expect(await read(good(), { body: `${BODY} ` })).toBeUndefined()
  })

  test('cannot be read without a signing secret, which is named, nor with one that is none', async () => {
    await expect(read(good(), { secret: '' })).rejects.toMatchObject({
      code: 'FEATURE_DISABLED',
      message: 'Webhooks of Clerk are switched off.',
      details: { reason: 'CLERK_WEBHOOK_SIGNING_SECRET is not set.' },
    })
    await expect(read(good(), { secret: 'whsec_%%%%' })).rejects.toThrow()
  })
})
