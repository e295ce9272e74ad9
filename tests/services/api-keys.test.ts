// API keys on real PostgreSQL: everything at once, one query per request, and the rules that the tables keep themselves.
import { type RawBuilder, sql } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { callerOfKey, createKey, type KeyTerms, listKeys, revokeKey, rotateKey } from '../../lib/auth/api-keys.ts'
import { type Account, givenAccount } from '../support/accounts.ts'
import { type App, call, startApp } from '../support/app.ts'
import { countingStatements } from '../support/statements.ts'

const TERMS: KeyTerms = { name: 'CI', scopes: ['generate', 'read'] }

let app: App
let user: Account

beforeAll(async () => {
  app = await startApp({ FORK__API_KEYS__PER_USER_MAX: '5' })
})

beforeEach(async () => {
  user = await givenAccount()
})

const by = () => ({ actor: { type: 'user' as const, id: user.id } })
const create = (terms: Partial<KeyTerms> = {}) =>
  db()
    .transaction()
    .execute((trx) => createKey(trx, user.id, { ...TERMS, ...terms }, by()))
const rotate = (id: string, overlapSeconds = 0) =>
  db()
    .transaction()
    .execute((trx) => rotateKey(trx, { userId: user.id, id, overlapSeconds }, by()))
const revoke = (id: string) =>
  db()
    .transaction()
    .execute((trx) => revokeKey(trx, user.id, id, by()))
const keys = () =>
  db().selectFrom('api_keys').selectAll().where('user_id', '=', user.id).orderBy('created_at').execute()
const actions = async () => {
  const records = await db().selectFrom('audit_log').select('action').where('actor_id', '=', user.id).execute()
  return Object.entries(Object.groupBy(records, ({ action }) => action)).map(([name, all = []]) => [name, all.length])
}
const atOnce = <T>(times: number, work: () => Promise<T>) => Promise.allSettled(Array.from({ length: times }, work))
const fulfilled = <T>(results: PromiseSettledResult<T>[]) =>
  results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
const refusals = (results: PromiseSettledResult<unknown>[]) =>
  results.flatMap((result) => (result.status === 'rejected' ? [result.reason.code] : []))

describe('at once', () => {
  test('twenty keys are asked for, and as many are made as one may have', async () => {
    const results = await atOnce(20, () => create())
    expect(fulfilled(results)).toHaveLength(5)
    expect(refusals(results)).toEqual(Array(15).fill('CONFLICT'))
    expect(await keys()).toHaveLength(5)
    expect(await actions()).toEqual([['api_key.create', 5]])
  })

  test('the last place is fought for by new keys and by a replacement with an overlap', async () => {
    const [first] = [await create(), await create(), await create(), await create()]
    const results = await Promise.allSettled([create(), rotate(first.id, 60), create(), rotate(first.id, 60)])
    expect(fulfilled(results)).toHaveLength(1)
    expect(await keys()).toHaveLength(5)
  })

  test('one key is replaced ten times, and has one successor', async () => {
    const { id } = await create({ tokenBudget: 100 })
    const results = await atOnce(10, () => rotate(id, 60))
    const [successor, ...more] = fulfilled(results)
    expect(more).toEqual([])
    expect(refusals(results)).toEqual(Array(9).fill('CONFLICT'))
    const [old, made, ...others] = await keys()
    expect(others).toEqual([])
    expect(old).toMatchObject({ id, rotated_to: successor?.id, token_budget: 0 })
    expect(made).toMatchObject({ id: successor?.id, rotated_to: null, token_budget: 100 })
    expect(await actions()).toEqual([
      ['api_key.create', 1],
      ['api_key.rotate', 1],
    ])
  })

  test('one key is ended ten times and replaced: it is on record once, and nothing hangs', async () => {
    const { id } = await create()
    const results = await Promise.allSettled([...Array.from({ length: 10 }, () => revoke(id)), rotate(id, 60)])
    expect(refusals(results.slice(0, 10))).toEqual([])
    expect(Object.fromEntries(await actions())).toMatchObject({ 'api_key.revoke': 1 })
  })

  test('fifty requests with one key note its use once, and none waits for another', async () => {
    const { id, key } = await create()
    await db()
      .transaction()
      .execute(async (trx) => {
        await sql`select 1 from api_keys where id = ${id} for update`.execute(trx)
        expect(await callerOfKey(key)).toMatchObject({ userId: user.id })
      })
    expect((await keys())[0]?.last_used_at).toBeNull()
    const versions = async () => (await sql`select xmin from api_keys where id = ${id}`.execute(db())).rows
    await Promise.all(Array.from({ length: 50 }, () => callerOfKey(key)))
    const used = await versions()
    await Promise.all(Array.from({ length: 20 }, () => callerOfKey(key)))
    expect(await versions()).toEqual(used)
  })

  test('a repeated request to make a key makes one, and everyone who gets an answer gets the same', async () => {
    const post = () =>
      call(app, 'POST /api/api-keys', {
        token: user.token,
        body: { name: 'CI' },
        headers: { 'idempotency-key': 'one-of-ten' },
      })
    const replies = fulfilled(await atOnce(10, post))
    const made = new Set(replies.flatMap(({ status, json }) => (status === 201 ? [json.key] : [])))
    expect(made.size).toBe(1)
    for (const { status, json } of replies.filter((reply) => reply.status !== 201))
      expect([status, json.error.code]).toEqual([409, 'IDEMPOTENCY_IN_PROGRESS'])
    expect((await post()).json.key).toBe([...made][0])
    expect(await keys()).toHaveLength(1)
  })

  test('a run that was taken over by another leaves no key', async () => {
    const lost = await db()
      .transaction()
      .execute(async (trx) => {
        const { keepReceipt } = await import('../../lib/http/idempotency.ts')
        await createKey(trx, user.id, TERMS, by())
        await keepReceipt(trx, { id: crypto.randomUUID(), attempt: 1, holdId: '', sealed: true }, {})
      })
      .catch((error: unknown) => error)
    expect(lost).toMatchObject({ code: 'IDEMPOTENCY_IN_PROGRESS' })
    expect(await keys()).toEqual([])
  })
})

describe('who calls with a key', () => {
  test('is found in one query', async () => {
    const { id, key } = await create({ requestsPerMinute: 9 })
    const { result, statements } = await countingStatements(() => callerOfKey(key))
    expect(result).toEqual({
      userId: user.id,
      sessionId: undefined,
      key: { id, scopes: ['generate', 'read'], requestsPerMinute: 9 },
      impersonator: undefined,
      role: 'user',
      mfa: false,
    })
    expect(statements).toHaveLength(1)
  })

  test('is not looked for when the key is a typo', async () => {
    const { key } = await create()
    const typo = key.slice(0, 5) + (key[5] === 'a' ? 'b' : 'a') + key.slice(6)
    const { result, statements } = await countingStatements(() => callerOfKey(typo).catch((error: unknown) => error))
    expect(result).toMatchObject({ code: 'UNAUTHENTICATED' })
    expect(statements).toEqual([])
  })

  test('has no limit where the key has none', async () => {
    const { key } = await create()
    expect((await callerOfKey(key)).key?.requestsPerMinute).toBeUndefined()
  })
})

describe('the list', () => {
  test('goes through keys that were made in the same microsecond without losing one', async () => {
    for (let made = 0; made < 5; made += 1) await create()
    await db()
      .updateTable('api_keys')
      .set({ created_at: '2026-01-01T00:00:00.123456Z' })
      .where('user_id', '=', user.id)
      .execute()
    const seen: string[] = []
    let cursor: Parameters<typeof listKeys>[1]['cursor']
    for (let page = 0; page < 3; page += 1) {
      const {
        data,
        page: { nextCursor, hasMore },
      } = await listKeys(db(), { userId: user.id, limit: 2, cursor })
      seen.push(...data.map(({ id }) => id))
      expect(hasMore).toBe(page < 2)
      const [micros = '', id = ''] = Buffer.from(nextCursor ?? '', 'base64url')
        .toString()
        .split(' ')
      cursor = { micros: Number(micros), id }
    }
    expect(new Set(seen)).toEqual(new Set((await keys()).map(({ id }) => id)))
    expect(seen).toHaveLength(5)
  })
})

describe('the table', () => {
  test.each<[string, RawBuilder<unknown>]>([
    ['no scope', sql`scopes = '{}'`],
    ['a scope that does not exist', sql`scopes = '{admin}'`],
    ['a negative use', sql`token_budget = -1`],
    ['more used than the budget', sql`token_budget = -1, tokens_used = 0`],
    ['spending without a hold', sql`tokens_used = 1`],
    ['a limit of nothing', sql`requests_per_minute = 0`],
    ['an end without a time', sql`active = false`],
    ['an end without a reason', sql`active = false, revoked_at = now()`],
    ['a reason of its own', sql`active = false, revoked_at = now(), revoked_reason = 'tired'`],
    ['an end of a key that lives', sql`revoked_at = now(), revoked_reason = 'revoked'`],
    ['a successor that does not exist', sql`rotated_to = gen_random_uuid()`],
  ])('refuses %s', async (_, change) => {
    const { id } = await create({ tokenBudget: 10 })
    const before = await keys()
    await expect(sql`update api_keys set ${change} where id = ${id}`.execute(db())).rejects.toThrow()
    expect(await keys()).toEqual(before)
  })

  test('refuses a key that begins with something spent', async () => {
    await expect(
      db()
        .insertInto('api_keys')
        .values({ user_id: user.id, key_hash: 'x', key_prefix: 'x', name: 'x', scopes: ['read'], tokens_used: 1 })
        .execute(),
    ).rejects.toThrow('INSERT on api_keys is forbidden')
  })
})
