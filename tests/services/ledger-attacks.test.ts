// Statements that would falsify the books, sent as the tables' owner: the database itself refuses every one.
import { sql } from 'kysely'
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { startApp } from '../support/app.ts'

/** An account with 50 of a plan, a trial of 2, 60 bought, 20 of them held, and a closed hold; and somebody else's. */
interface Victim {
  user: string
  plan: number
  trial: number
  pack: number
  /** A pending hold of 20, all from the pack. */
  hold: string
  closedHold: string
  stranger: string
}

const FORBIDDEN = 'LG001'
const OUT_OF_BALANCE = 'LG002'
const MIRROR = 'LG003'
const CHECK = '23514'
const FOREIGN_KEY = '23503'
const UNIQUE = '23505'
const NOT_NULL = '23502'

let victim: Victim

beforeAll(async () => {
  await startApp()
  victim = await givenVictim()
})

describe('the database refuses', () => {
  test.each<[attack: string, code: string, statements: (v: Victim) => string[]]>([
    // The journal.
    ['to edit an entry', FORBIDDEN, (v) => [`update ledger_entry set amount = 1 where user_id = '${v.user}'`]],
    ['to delete an entry', FORBIDDEN, (v) => [`delete from ledger_entry where user_id = '${v.user}'`]],
    ['to empty the journal', FORBIDDEN, () => ['truncate ledger_entry']],
    ['to empty the holds', FORBIDDEN, () => ['truncate ledger_hold cascade']],
    ['to empty the lots', FORBIDDEN, () => ['truncate ledger_lot cascade']],
    ['to empty the accounts', FORBIDDEN, () => ['truncate ledger_account cascade']],
    ['to empty everything through the users', FORBIDDEN, () => ['truncate users cascade']],
    ['an entry of nothing', CHECK, (v) => [entry(v, 'lapse', 0, v.pack)]],
    ['a negative entry', CHECK, (v) => [entry(v, 'lapse', -5, v.pack)]],
    ['an operation it does not know', FOREIGN_KEY, (v) => [entry(v, 'gift', 5, v.pack)]],
    [
      'an operation added behind its back',
      FORBIDDEN,
      () => [`insert into ledger_op values ('gift', 'house:gifts', 'available')`],
    ],
    [
      'an operation with another meaning',
      FORBIDDEN,
      () => [`update ledger_op set target = 'house:lapsed' where op = 'spend'`],
    ],
    // Lots.
    [
      'to raise a lot',
      FORBIDDEN,
      (v) => [`update ledger_lot set granted = granted + 5, available = available + 5 where id = ${v.pack}`],
    ],
    ['to move the expiry of a lot', FORBIDDEN, (v) => [`update ledger_lot set expires_at = null where id = ${v.plan}`]],
    [
      'to let a lot expire later',
      FORBIDDEN,
      (v) => [`update ledger_lot set expires_at = 'infinity' where id = ${v.pack}`],
    ],
    [
      'to empty a lot in passing while it is put to sleep',
      FORBIDDEN,
      (v) => [`update ledger_lot set dormant = true, available = 0, gone = gone + available where id = ${v.plan}`],
    ],
    ...(['kind', 'source', 'created_at'] as const).map((column): [string, string, (v: Victim) => string[]] => [
      `to change the ${column} of a lot`,
      FORBIDDEN,
      (v) => [`update ledger_lot set ${column} = default where id = ${v.plan}`],
    ]),
    ...(['pack', 'trial'] as const).map((kind): [string, string, (v: Victim) => string[]] => [
      `to put a ${kind} to sleep`,
      CHECK,
      (v) => [`update ledger_lot set dormant = true where id = ${v[kind]}`],
    ]),
    ['to delete a lot', FORBIDDEN, (v) => [`delete from ledger_lot where id = ${v.pack}`]],
    ['a lot that is spent at birth', FORBIDDEN, (v) => [lot(v, { available: 4, spent: 1 })]],
    ['a lot with more in it than granted', FORBIDDEN, (v) => [lot(v, { available: 6 })]],
    ['a second lot of one source', UNIQUE, (v) => [lot(v, { source: `pack:${v.user}` })]],
    ['a trial of tokens', CHECK, (v) => [lot(v, { kind: 'trial' })]],
    ['a second grant of a lot', UNIQUE, (v) => [entry(v, 'grant', 60, v.pack)]],
    ['to take more than there is', CHECK, (v) => [entry(v, 'lapse', 41, v.pack)]],
    ['to take what is held', CHECK, (v) => [entry(v, 'clawback', 60, v.pack)]],
    ["an entry on somebody else's lot", FOREIGN_KEY, (v) => [entry({ user: v.stranger }, 'lapse', 1, v.pack)]],
    ['to give back what was not taken', CHECK, (v) => [entry(v, 'restore', 1, v.pack)]],
    ['to give back what did not repay a debt', CHECK, (v) => [entry(v, 'unrepay', 1, v.pack)]],
    ['to waive in the name of a hold', CHECK, (v) => [entry(v, 'waive', 1, v.pack, { hold: v.hold })]],
    // Accounts.
    ['to forgive a debt by hand', FORBIDDEN, (v) => [`update ledger_account set debt = 0 where user_id = '${v.user}'`]],
    ['to repay what is not owed', CHECK, (v) => [entry(v, 'repay', 1, v.pack)]],
    ['to forgive what is not owed', CHECK, (v) => [entry(v, 'forgive', 1, v.pack)]],
    ['one reference used twice', UNIQUE, (v) => [1, 2].map(() => entry(v, 'clawback', 1, v.pack, { ref: 'refund' }))],
    ['to delete an account', FORBIDDEN, (v) => [`delete from ledger_account where user_id = '${v.user}'`]],
    [
      'to delete a user who has an account',
      FOREIGN_KEY,
      (v) => [`delete from subscriptions where user_id = '${v.user}'`, `delete from users where id = '${v.user}'`],
    ],
    // Holds.
    ['a hold without entries', OUT_OF_BALANCE, (v) => [newHold(v, 'token', 5)]],
    [
      'a hold that is closed at birth',
      OUT_OF_BALANCE,
      (v) => [
        `insert into ledger_hold (id, user_id, asked, amount, unit, state, spent, closed_at, expires_at)
           values ('new', '${v.user}', 5, 5, 'token', 'settled', 5, now(), now())`,
      ],
    ],
    [
      'a hold of more than its entries',
      OUT_OF_BALANCE,
      (v) => [newHold(v, 'token', 5), entry(v, 'reserve', 4, v.pack, { hold: 'new' })],
    ],
    ['to spend without closing the hold', OUT_OF_BALANCE, (v) => [entry(v, 'spend', 20, v.pack, { hold: v.hold })]],
    [
      'to give back without closing the hold',
      OUT_OF_BALANCE,
      (v) => [entry(v, 'release', 20, v.pack, { hold: v.hold })],
    ],
    ['to close a hold without entries', OUT_OF_BALANCE, (v) => [closeHold(v.hold, 'settled', 20)]],
    ['to close a hold for more than it holds', CHECK, (v) => [closeHold(v.hold, 'settled', 21)]],
    ['to give a hold back and charge for it', CHECK, (v) => [closeHold(v.hold, 'voided', 20)]],
    [
      'to charge less than the hold says',
      OUT_OF_BALANCE,
      (v) => [
        closeHold(v.hold, 'settled', 20),
        entry(v, 'spend', 5, v.pack, { hold: v.hold }),
        entry(v, 'release', 15, v.pack, { hold: v.hold }),
      ],
    ],
    ['to reserve twice from one lot for one hold', UNIQUE, (v) => [entry(v, 'reserve', 1, v.pack, { hold: v.hold })]],
    [
      'to reserve more from another lot for the same hold',
      OUT_OF_BALANCE,
      (v) => [entry(v, 'reserve', 1, v.plan, { hold: v.hold })],
    ],
    ['to reserve for no hold', CHECK, (v) => [entry(v, 'reserve', 1, v.plan)]],
    [
      'to reserve for a hold that is closed',
      OUT_OF_BALANCE,
      (v) => [entry(v, 'reserve', 1, v.plan, { hold: v.closedHold })],
    ],
    [
      'to charge one lot for what is held of another',
      OUT_OF_BALANCE,
      (v) => [
        newHold(v, 'token', 20),
        entry(v, 'reserve', 20, v.plan, { hold: 'new' }),
        closeHold(v.hold, 'settled', 20),
        entry(v, 'spend', 20, v.plan, { hold: v.hold }),
      ],
    ],
    [
      'to pay a generation with one token',
      OUT_OF_BALANCE,
      (v) => [newHold(v, 'generation', 1), entry(v, 'reserve', 1, v.pack, { hold: 'new' })],
    ],
    [
      'to pay tokens with a trial generation',
      OUT_OF_BALANCE,
      (v) => [newHold(v, 'token', 1), entry(v, 'reserve', 1, v.trial, { hold: 'new' })],
    ],
    [
      'to reopen a hold',
      FORBIDDEN,
      (v) => [`update ledger_hold set state = 'pending', spent = null, closed_at = null where id = '${v.closedHold}'`],
    ],
    ['to shrink a hold', FORBIDDEN, (v) => [`update ledger_hold set amount = 1 where id = '${v.hold}'`]],
    ['to delete a hold', FORBIDDEN, (v) => [`delete from ledger_hold where id = '${v.hold}'`]],
    [
      "an entry on somebody else's hold",
      FOREIGN_KEY,
      (v) => [
        `insert into ledger_entry (user_id, op, amount, lot_id, hold_id)
           select '${v.stranger}', 'reserve', 1, id, '${v.hold}' from ledger_lot where user_id = '${v.stranger}' limit 1`,
      ],
    ],
    // What the subscription says of its plan lot.
    ['tokens_used by hand', MIRROR, (v) => [`update subscriptions set tokens_used = 7 where user_id = '${v.user}'`]],
    ['token_limit by hand', MIRROR, (v) => [`update subscriptions set token_limit = 5000 where user_id = '${v.user}'`]],
    [
      'a subscription on a lot that is no plan',
      MIRROR,
      (v) => [`update subscriptions set plan_lot_ids = '{${v.pack}}', token_limit = 60 where user_id = '${v.user}'`],
    ],
    [
      "a subscription on somebody else's plan",
      MIRROR,
      (v) => [
        `update subscriptions set plan_lot_ids = (select plan_lot_ids from subscriptions where user_id = '${v.stranger}')
           where user_id = '${v.user}'`,
      ],
    ],
    ...['', 'null', '$,null', '$,$', '$,0'].map((ids): [string, string, (v: Victim) => string[]] => [
      `a subscription on the lots {${ids}}`,
      MIRROR,
      (v) => [
        `update subscriptions set plan_lot_ids = '{${ids.replaceAll('$', String(v.plan))}}' where user_id = '${v.user}'`,
      ],
    ]),
    [
      'a plan that nothing ends',
      NOT_NULL,
      (v) => [`update subscriptions set stands_until = null where user_id = '${v.user}'`],
    ],
  ])('%s', async (_attack, code, statements) => {
    const attempt = db()
      .transaction()
      .execute(async (trx) => {
        for (const statement of statements(victim)) await sql.raw(statement).execute(trx)
        await sql`set constraints all immediate`.execute(trx) // As the commit would, but this one is never made.
        throw new Error('The database accepted it.')
      })
    await expect(attempt).rejects.toMatchObject({ code })
  })
})

test('the database lets a plan lot be put to sleep and woken, and keeps what is in it', async () => {
  const lots = db().selectFrom('ledger_lot').selectAll().where('id', '=', victim.plan)
  const before = await lots.executeTakeFirstOrThrow()
  await db().updateTable('ledger_lot').set({ dormant: true }).where('id', '=', victim.plan).execute()
  expect(await lots.executeTakeFirst()).toEqual({ ...before, dormant: true })
  await db().updateTable('ledger_lot').set({ dormant: false }).where('id', '=', victim.plan).execute()
  expect(await lots.executeTakeFirst()).toEqual(before)
})

function entry(
  { user }: Pick<Victim, 'user'>,
  op: string,
  amount: number,
  lotId: number,
  { hold, ref }: { hold?: string; ref?: string } = {},
): string {
  const quoted = (text: string | undefined) => (text === undefined ? 'null' : `'${text}'`)
  return `insert into ledger_entry (user_id, op, amount, lot_id, hold_id, ref)
    values ('${user}', '${op}', ${amount}, ${lotId}, ${quoted(hold)}, ${quoted(ref)})`
}

/** A lot of 5 tokens, unless said otherwise. */
function lot({ user }: Victim, { kind = 'pack', available = 5, spent = 0, source = 'new' }): string {
  return `insert into ledger_lot (user_id, kind, unit, priority, granted, available, spent, source)
    values ('${user}', '${kind}', 'token', 30, 5, ${available}, ${spent}, '${source}')`
}

function newHold({ user }: Victim, unit: string, amount: number): string {
  return `insert into ledger_hold (id, user_id, asked, amount, unit, expires_at)
    values ('new', '${user}', ${amount}, ${amount}, '${unit}', now())`
}

function closeHold(id: string, state: string, spent: number): string {
  return `update ledger_hold set state = '${state}', spent = ${spent}, closed_at = now() where id = '${id}'`
}

async function givenVictim(): Promise<Victim> {
  const [user, stranger] = [await givenAccount(), await givenAccount()]
  const lots = await db().selectFrom('ledger_lot').select(['id', 'kind']).where('user_id', '=', user).execute()
  const lotOf = (kind: string) => lots.find((found) => found.kind === kind)?.id ?? 0
  const ids = { hold: `open:${user}`, closedHold: `closed:${user}` }
  const hold = sql`values (${ids.hold}, 20), (${ids.closedHold}, 5)`
  await sql`
    with holds (id, amount) as (${hold}),
    made as (
      insert into ledger_hold (id, user_id, asked, amount, unit, expires_at)
        select id, ${user}, amount, amount, 'token', now() + interval '1 hour' from holds
    )
    insert into ledger_entry (user_id, op, amount, lot_id, hold_id)
      select ${user}, 'reserve', amount, ${lotOf('pack')}, id from holds
  `.execute(db())
  await sql`select ledger_close(${ids.closedHold}, 0, 'voided')`.execute(db())
  return { user, stranger, plan: lotOf('plan'), trial: lotOf('trial'), pack: lotOf('pack'), ...ids }
}

async function givenAccount(): Promise<string> {
  const { id } = await db()
    .insertInto('users')
    .values({ name: 'Ada', email: `${crypto.randomUUID()}@example.com`, password_hash: '' })
    .returning('id')
    .executeTakeFirstOrThrow()
  await sql`select ledger_open(${id}, '{"free": 50}', 2, ${`trial:${id}`})`.execute(db())
  await sql`select ledger_credit(${id}, 'pack', 60, ${`pack:${id}`}, null)`.execute(db())
  return id
}
