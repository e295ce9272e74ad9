// What Clerk tells of a user in every order, twice and at the same time: the outcome is always that of the newest.
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { followClerkDeletion, followClerkUser, isTombstoned } from '../../lib/auth/clerk-sync.ts'
import { statementOf } from '../../lib/ledger/ledger.ts'
import { startApp } from '../support/app.ts'
import { actionsOf, freshAddress, rowOf, rowsOf, somebody, WEBHOOK } from '../support/clerk-people.ts'
import { clerkVariables } from '../support/clerk-stub.ts'
import { clerkIdOf, newInstance } from '../support/clerk-tokens.ts'

beforeAll(async () => {
  await startApp(clerkVariables(newInstance(), 'http://127.0.0.1:9'))
})

const trialOf = async (userId: string) => (await statementOf(db(), userId)).balance.trialGenerations

describe('any order', () => {
  /** Every order of the items. */
  function orders<T>(items: T[]): T[][] {
    if (items.length < 2) return [items]
    return items.flatMap((item, index) => orders(items.toSpliced(index, 1)).map((rest) => [item, ...rest]))
  }

  const STATES = [
    { name: 'First', updatedAt: 1_000 },
    { name: 'Second', banned: true, updatedAt: 2_000 },
    { name: 'Third', emailVerified: true, updatedAt: 3_000 },
  ]
  const DELETED = { deleted: true as const }

  async function outcomeOf(history: (Partial<ReturnType<typeof somebody>> & { deleted?: true })[]) {
    const id = clerkIdOf('user')
    const email = freshAddress()
    for (const { deleted, ...state } of history) {
      if (deleted) await followClerkDeletion(id, WEBHOOK)
      else await followClerkUser(somebody({ id, email, emailVerified: false, ...state }), WEBHOOK)
    }
    const [row, ...more] = await rowsOf(id)
    const registered = row ? (await actionsOf(row.id)).filter((action) => action === 'user.register').length : 0
    const trial = row && row.status !== 'deleted' ? await trialOf(row.id) : undefined
    return { row, more, registered, trial, ownAddress: row?.email === email, tombstone: await isTombstoned(db(), id) }
  }

  test('of three states, each delivered twice, ends in the last one', async () => {
    for (const history of orders([...STATES, ...STATES].map((state, index) => ({ state, index })))
      .filter((order) => order.findIndex(({ index }) => index === 0) < order.findIndex(({ index }) => index === 3))
      .filter((_, index) => index % 7 === 0)) {
      const { row, ...rest } = await outcomeOf(history.map(({ state }) => state))
      expect(row).toMatchObject({ name: 'Third', status: 'active', clerk_updated_at: 3_000 })
      expect(row?.email_verified_at).toBeInstanceOf(Date)
      expect(rest).toEqual({ more: [], registered: 1, trial: 3, ownAddress: true, tombstone: false })
    }
  })

  test('with a deletion among them, once or twice, leaves nobody alive', async () => {
    const histories = [...orders([...STATES, DELETED]), ...orders([...STATES.slice(1), DELETED, DELETED])]
    for (const history of histories) {
      const { row, more, tombstone } = await outcomeOf(history)
      expect([row?.status ?? 'deleted', more, tombstone]).toEqual(['deleted', [], true])
    }
  })

  test('at the same time ends in the same', async () => {
    for (let times = 0; times < 5; times++) {
      const id = clerkIdOf('user')
      const email = freshAddress()
      await Promise.all(
        [...STATES, ...STATES].map((state) =>
          followClerkUser(somebody({ id, email, emailVerified: false, ...state }), WEBHOOK),
        ),
      )
      const [row, ...more] = await rowsOf(id)
      expect(row).toMatchObject({ name: 'Third', status: 'active', email })
      expect([more, await trialOf(row?.id ?? '')]).toEqual([[], 3])

      await Promise.all([
        followClerkUser(somebody({ id, email, updatedAt: 4_000 }), WEBHOOK),
        followClerkDeletion(id, WEBHOOK),
        followClerkDeletion(id, WEBHOOK),
        followClerkUser(somebody({ id, email, updatedAt: 5_000 }), WEBHOOK),
      ])
      expect(await rowOf(id)).toMatchObject({ status: 'deleted' })
    }
  })
})
