// What Clerk is told of users: what this database said first, until Clerk has answered, and in the order in which it was said.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { sweepClerk, tellClerk } from '../../lib/auth/clerk-outbox.ts'
import { followClerkUser } from '../../lib/auth/clerk-sync.ts'
import { config } from '../../lib/config.ts'
import { env } from '../../lib/env.ts'
import { startApp } from '../support/app.ts'
import { rowOf, somebody, WEBHOOK } from '../support/clerk-people.ts'
import { type ClerkStub, type StubUser, startClerkStub, waitsInSilence } from '../support/clerk-stub.ts'

type Act = 'ban' | 'unban' | 'delete'
const STATUS = { ban: 'suspended', unban: 'active', delete: 'deleted' } as const

let clerk: ClerkStub

beforeAll(async () => {
  clerk = await startClerkStub()
  await startApp(clerk.variables)
})

afterAll(() => clerk.close())

beforeEach(async () => {
  clerk.answer = undefined
  clerk.calls.length = 0
  await db().updateTable('users').set({ clerk_pending: null }).where('clerk_pending', 'is not', null).execute()
})

/** A user about whom Clerk has yet to be told something. */
async function waiting(act: Act): Promise<{ id: string; user: StubUser }> {
  const user = clerk.addUser()
  await followClerkUser(somebody({ id: user.id }), WEBHOOK)
  const { id } = await rowOf(user.id)
  await decide(id, act)
  return { id, user }
}

/** What an administrator's act writes. */
async function decide(id: string, act: Act): Promise<void> {
  await db().updateTable('users').set({ status: STATUS[act], clerk_pending: act }).where('id', '=', id).execute()
}

async function pending(id: string) {
  const row = await db().selectFrom('users').select('clerk_pending').where('id', '=', id).executeTakeFirstOrThrow()
  return row.clerk_pending
}

describe('telling Clerk', () => {
  test.each([
    { act: 'ban', call: (id: string) => `POST /v1/users/${id}/ban` },
    { act: 'unban', call: (id: string) => `POST /v1/users/${id}/unban` },
    { act: 'delete', call: (id: string) => `DELETE /v1/users/${id}` },
  ] as const)('of "$act" is done once', async ({ act, call }) => {
    const { id, user } = await waiting(act)
    await tellClerk(id)
    expect(await pending(id)).toBeNull()
    await tellClerk(id)
    expect(clerk.calls).toEqual([call(user.id)])
    if (act !== 'delete') expect(user.banned).toBe(act === 'ban')
    else expect(clerk.users.has(user.id)).toBe(false)
  })

  test('of somebody whom it does not know is done', async () => {
    for (const act of ['ban', 'unban', 'delete'] as const) {
      const { id, user } = await waiting(act)
      clerk.users.delete(user.id)
      await tellClerk(id)
      expect(await pending(id)).toBeNull()
    }
  })

  test('of somebody who is not there, or not of Clerk, is nothing', async () => {
    await tellClerk(crypto.randomUUID())
    const { id } = await db()
      .insertInto('users')
      .values({ name: 'Local', email: 'local@example.com', clerk_pending: 'ban' })
      .returning('id')
      .executeTakeFirstOrThrow()
    await tellClerk(id)
    expect(clerk.calls).toEqual([])
    expect(console.log).not.toHaveBeenCalled()
    expect(await sweepClerk(10)).toEqual({ told: 0, failed: 0 })
  })

  test('fails without a word to the caller, and the sweep heals it', async () => {
    const { id, user } = await waiting('ban')
    clerk.answer = () => ({ status: 500, body: { errors: [] } })
    await tellClerk(id)
    expect(console.log).toHaveBeenCalledExactlyOnceWith(
      expect.stringContaining(`"level":"warn","event":"clerk_not_told","user":"${id}","error":{`),
    )
    expect([await pending(id), user.banned]).toEqual(['ban', false])
    expect(await sweepClerk(10)).toEqual({ told: 0, failed: 1 })
    clerk.answer = undefined
    expect(await sweepClerk(10)).toEqual({ told: 1, failed: 0 })
    expect([await pending(id), user.banned]).toEqual([null, true])
    expect(await sweepClerk(10)).toEqual({ told: 0, failed: 0 })
  })

  test('takes five seconds at most', async () => {
    const { id } = await waiting('ban')
    await waitsInSilence(clerk, 5_000, () => tellClerk(id))
    expect(console.log).toHaveBeenCalledExactlyOnceWith(expect.stringContaining('No answer of Clerk within 5000 ms'))
    expect(await pending(id)).toBe('ban')
  })

  test.each(['ban', 'unban'] as const)('of "%s" while the opposite is decided, tells that as well', async (act) => {
    const { id, user } = await waiting(act)
    const opposite = act === 'ban' ? 'unban' : 'ban'
    clerk.answer = async (call) => {
      if (call.endsWith(`/${act}`)) await decide(id, opposite)
      return undefined
    }
    await tellClerk(id)
    expect([await pending(id), user.banned]).toEqual([null, opposite === 'ban'])
    expect(clerk.calls).toEqual([`POST /v1/users/${user.id}/${act}`, `POST /v1/users/${user.id}/${opposite}`])
  })

  test.each(['ban', 'unban'] as const)(
    'of "%s" that arrives after the opposite was told, tells it again',
    async (act) => {
      const { id, user } = await waiting(act)
      const opposite = act === 'ban' ? 'unban' : 'ban'
      let slow = true
      clerk.answer = async (call) => {
        if (!slow || !call.endsWith(`/${act}`)) return undefined
        slow = false
        await decide(id, opposite)
        await tellClerk(id) // Another instance's, which overtakes.
        return undefined
      }
      await tellClerk(id)
      expect([await pending(id), user.banned]).toEqual([null, opposite === 'ban'])
    },
  )

  test('of somebody about whom minds change all the time is left to the sweep after three times', async () => {
    const { id } = await waiting('ban')
    clerk.answer = async (call) => {
      await decide(id, call.endsWith('/ban') ? 'unban' : 'ban')
      return undefined
    }
    await tellClerk(id)
    expect([await pending(id), clerk.calls.length]).toEqual(['unban', 3])
    expect(await sweepClerk(10)).toEqual({ told: 0, failed: 1 })
    expect([await pending(id), clerk.calls.length]).toEqual(['ban', 6])
  })

  test('of what nobody took back is done once, whatever the account is by now', async () => {
    for (const [act, status] of [
      ['ban', 'active'],
      ['unban', 'suspended'],
    ] as const) {
      const { id } = await waiting(act)
      await db().updateTable('users').set({ status }).where('id', '=', id).execute()
      await tellClerk(id)
      expect([await pending(id), clerk.calls.splice(0).length]).toEqual([null, 1])
    }
  })

  test('of a deletion is the last that Clerk is told', async () => {
    const { id } = await waiting('delete')
    clerk.answer = async () => {
      await db().updateTable('users').set({ status: 'suspended', clerk_pending: null }).where('id', '=', id).execute()
      return undefined
    }
    await tellClerk(id)
    expect([await pending(id), clerk.calls.length]).toEqual([null, 1])
  })

  test('of one act by two instances at once changes nothing more', async () => {
    const { id, user } = await waiting('ban')
    await Promise.all([tellClerk(id), tellClerk(id)])
    expect([await pending(id), user.banned]).toEqual([null, true])
    expect(new Set(clerk.calls)).toEqual(new Set([`POST /v1/users/${user.id}/ban`]))
  })

  test('of a deletion by two at once asks for nothing else', async () => {
    const { id, user } = await waiting('delete')
    await Promise.all([tellClerk(id), tellClerk(id)])
    expect(await pending(id)).toBeNull()
    expect(new Set(clerk.calls)).toEqual(new Set([`DELETE /v1/users/${user.id}`]))
  })

  test('of what changes all the time ends, and is left for the sweep', async () => {
    const { id } = await waiting('ban')
    clerk.answer = async (call) => {
      await decide(id, call.endsWith('/ban') ? 'unban' : 'ban')
      return undefined
    }
    await tellClerk(id)
    expect(clerk.calls).toHaveLength(3)
    expect(await pending(id)).not.toBeNull()
  })
})

describe('the sweep', () => {
  test('tells of as many as it is asked to, those who wait longest first', async () => {
    const first = await waiting('ban')
    const second = await waiting('delete')
    await waiting('ban')
    expect(await sweepClerk(2)).toEqual({ told: 2, failed: 0 })
    expect([await pending(first.id), await pending(second.id)]).toEqual([null, null])
    expect(await sweepClerk(2)).toEqual({ told: 1, failed: 0 })
  })

  test('is held up by nobody', async () => {
    const bad = await waiting('ban')
    const good = await waiting('ban')
    clerk.answer = (call) => (call.includes(bad.user.id) ? { status: 422, body: { errors: [] } } : undefined)
    expect(await sweepClerk(10)).toEqual({ told: 1, failed: 1 })
    expect([await pending(bad.id), await pending(good.id)]).toEqual(['ban', null])
  })

  test('gives up when nothing gets through, and begins with the others next time', async () => {
    const ids: string[] = []
    for (let count = 0; count < 7; count++) ids.push((await waiting('ban')).id)
    clerk.answer = () => ({ status: 500, body: { errors: [] } })
    expect(await sweepClerk(10)).toEqual({ told: 0, failed: 5 })
    clerk.answer = undefined
    expect(await sweepClerk(2)).toEqual({ told: 2, failed: 0 })
    expect([await pending(ids[5] ?? ''), await pending(ids[6] ?? '')]).toEqual([null, null])
    let calls = 0
    clerk.answer = () => (++calls === 5 ? undefined : { status: 500, body: { errors: [] } })
    for (let count = 0; count < 6; count++) await waiting('ban')
    expect(await sweepClerk(20)).toEqual({ told: 1, failed: 9 })
  })

  test('leaves everything where Clerk cannot be told', async () => {
    const { id } = await waiting('ban')
    const { clerk: keys } = env()
    const { auth } = config()
    const { secretKey } = keys
    keys.secretKey = undefined
    await tellClerk(id)
    expect(await sweepClerk(10)).toEqual({ told: 0, failed: 0 })
    keys.secretKey = secretKey
    auth.provider = 'local'
    await tellClerk(id)
    expect(await sweepClerk(10)).toEqual({ told: 0, failed: 0 })
    auth.provider = 'clerk'
    expect([await pending(id), clerk.calls]).toEqual(['ban', []])
    expect(await sweepClerk(10)).toEqual({ told: 1, failed: 0 })
  })
})
