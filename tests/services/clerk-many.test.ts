// More users of Clerk than one process remembers.
import { sql } from 'kysely'
import { beforeAll, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { spenderOfClerk } from '../../lib/auth/clerk-users.ts'
import { startApp } from '../support/app.ts'
import { proofOf, queriesOf } from '../support/clerk-people.ts'
import { clerkVariables } from '../support/clerk-stub.ts'
import { newInstance } from '../support/clerk-tokens.ts'

const KNOWN_MAX = 10_000

const userOf = (number: number) => `user_spender${number}`
const spend = (number: number) => spenderOfClerk(proofOf(userOf(number)), 'unknown')

beforeAll(async () => {
  await startApp(clerkVariables(newInstance(), 'http://127.0.0.1:9'))
  await sql`
    insert into users (name, email, clerk_id)
      select 'Ada', 'spender' || i || '@example.com', 'user_spender' || i from generate_series(0, ${KNOWN_MAX}::int) i
  `.execute(db())
})

test('the ten thousand seen first are known without a query; the next one takes the place of the first', async () => {
  for (let number = 0; number < KNOWN_MAX; number += 100)
    await Promise.all(Array.from({ length: 100 }, (_, index) => spend(number + index)))
  expect(await queriesOf(() => spend(0))).toBe(0)
  expect(await queriesOf(() => spend(KNOWN_MAX))).toBe(1)
  expect(await queriesOf(() => spend(KNOWN_MAX))).toBe(0)
  expect(await queriesOf(() => spend(1))).toBe(0)
  expect(await queriesOf(() => spend(0))).toBe(1)
}, 120_000)
