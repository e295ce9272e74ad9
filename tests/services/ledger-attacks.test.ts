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

let victim: Victim

beforeAll(async () => {
  await startApp()
  victim = await givenVictim()
})

describe('the database refuses', () => {
  test.each<{ attack: string; code: string; statements: (v: Victim) => string[] }>([
    // The journal.
    {
      attack: 'to edit an entry',
      code: FORBIDDEN,
      statements: (v) => [`update ledger_entry set amount = 1 where user_id = '${v.user}'`],
    },
    {
      attack: 'to delete an entry',
      code: FORBIDDEN,
      statements: (v) => [`delete from ledger_entry where user_id = '${v.user}'`],
    },
    { attack: 'to empty the journal', code: FORBIDDEN, statements: () => ['truncate ledger_entry'] },
    { attack: 'to empty the holds', code: FORBIDDEN, statements: () => ['truncate ledger_hold cascade'] },
    { attack: 'to empty the lots', code: FORBIDDEN, statements: () => ['truncate ledger_lot cascade'] },
    { attack: 'to empty the accounts', code: FORBIDDEN, statements: () => ['truncate ledger_account cascade'] },
    { attack: 'to empty everything through the users', code: FORBIDDEN, statements: () => ['truncate users cascade'] },
    { attack: 'an entry of nothing', code: CHECK, statements: (v) => [entry(v, 'lapse', 0, v.pack)] },
    { attack: 'a negative entry', code: CHECK, statements: (v) => [entry(v, 'lapse', -5, v.pack)] },
    { attack: 'an operation it does not know', code: FOREIGN_KEY, statements: (v) => [entry(v, 'gift', 5, v.pack)] },
    {
      attack: 'an operation added behind its back',
      code: FORBIDDEN,
      statements: () => [`insert into ledger_op values ('gift', 'house:gifts', 'available')`],
    },
    {
      attack: 'an operation with another meaning',
      code: FORBIDDEN,
      statements: () => [`update ledger_op set target = 'house:lapsed' where op = 'spend'`],
    },
    // Lots.
    {
      attack: 'to raise a lot',
      code: FORBIDDEN,
      statements: (v) => [
        `update ledger_lot set granted = granted + 5, available = available + 5 where id = ${v.pack}`,
      ],
    },
    {
      attack: 'to move the expiry of a lot',
      code: FORBIDDEN,
      statements: (v) => [`update ledger_lot set expires_at = null where id = ${v.plan}`],
    },
    { attack: 'to delete a lot', code: FORBIDDEN, statements: (v) => [`delete from ledger_lot where id = ${v.pack}`] },
    {
      attack: 'a lot that is spent at birth',
      code: FORBIDDEN,
      statements: (v) => [lot(v, { kind: 'pack', unit: 'token', granted: 5, available: 4, spent: 1, source: 'x' })],
    },
    {
      attack: 'a lot with more in it than granted',
      code: FORBIDDEN,
      statements: (v) => [lot(v, { kind: 'pack', unit: 'token', granted: 5, available: 6, spent: 0, source: 'x' })],
    },
    {
      attack: 'a second lot of one source',
      code: UNIQUE,
      statements: (v) => [
        lot(v, { kind: 'pack', unit: 'token', granted: 60, available: 60, spent: 0, source: `pack:${v.user}` }),
      ],
    },
    {
      attack: 'a trial of tokens',
      code: CHECK,
      statements: (v) => [lot(v, { kind: 'trial', unit: 'token', granted: 5, available: 5, spent: 0, source: 'x' })],
    },
    { attack: 'a second grant of a lot', code: UNIQUE, statements: (v) => [entry(v, 'grant', 60, v.pack)] },
    { attack: 'to take more than there is', code: CHECK, statements: (v) => [entry(v, 'lapse', 41, v.pack)] },
    { attack: 'to take what is held', code: CHECK, statements: (v) => [entry(v, 'clawback', 60, v.pack)] },
    {
      attack: "an entry on somebody else's lot",
      code: FOREIGN_KEY,
      statements: (v) => [entry({ user: v.stranger }, 'lapse', 1, v.pack)],
    },
    // Accounts.
    {
      attack: 'to forgive a debt by hand',
      code: FORBIDDEN,
      statements: (v) => [`update ledger_account set debt = 0 where user_id = '${v.user}'`],
    },
    { attack: 'to repay what is not owed', code: CHECK, statements: (v) => [entry(v, 'repay', 1, v.pack)] },
    {
      attack: 'one refund taken twice',
      code: UNIQUE,
      statements: (v) => [1, 2].map(() => entry(v, 'clawback', 1, v.pack, { ref: 'refund' })),
    },
    {
      attack: 'to delete an account',
      code: FORBIDDEN,
      statements: (v) => [`delete from ledger_account where user_id = '${v.user}'`],
    },
    {
      attack: 'to delete a user who has an account',
      code: FOREIGN_KEY,
      statements: (v) => [
        `delete from subscriptions where user_id = '${v.user}'`,
        `delete from users where id = '${v.user}'`,
      ],
    },
    // Holds.
    {
      attack: 'a hold without entries',
      code: OUT_OF_BALANCE,
      statements: (v) => [newHold(v, 'token', 5)],
    },
    {
      attack: 'a hold that is closed at birth',
      code: OUT_OF_BALANCE,
      statements: (v) => [
        `insert into ledger_hold (id, user_id, asked, amount, unit, state, spent, closed_at, expires_at)
           values ('new', '${v.user}', 5, 5, 'token', 'settled', 5, now(), now())`,
      ],
    },
    {
      attack: 'a hold of more than its entries',
      code: OUT_OF_BALANCE,
      statements: (v) => [newHold(v, 'token', 5), entry(v, 'reserve', 4, v.pack, { hold: 'new' })],
    },
    {
      attack: 'to spend without closing the hold',
      code: OUT_OF_BALANCE,
      statements: (v) => [entry(v, 'spend', 20, v.pack, { hold: v.hold })],
    },
    {
      attack: 'to give back without closing the hold',
      code: OUT_OF_BALANCE,
      statements: (v) => [entry(v, 'release', 20, v.pack, { hold: v.hold })],
    },
    {
      attack: 'to close a hold without entries',
      code: OUT_OF_BALANCE,
      statements: (v) => [closeHold(v.hold, 'settled', 20)],
    },
    {
      attack: 'to close a hold for more than it holds',
      code: CHECK,
      statements: (v) => [closeHold(v.hold, 'settled', 21)],
    },
    {
      attack: 'to give a hold back and charge for it',
      code: CHECK,
      statements: (v) => [closeHold(v.hold, 'voided', 20)],
    },
    {
      attack: 'to charge less than the hold says',
      code: OUT_OF_BALANCE,
      statements: (v) => [
        closeHold(v.hold, 'settled', 20),
        entry(v, 'spend', 5, v.pack, { hold: v.hold }),
        entry(v, 'release', 15, v.pack, { hold: v.hold }),
      ],
    },
    {
      attack: 'to reserve twice from one lot for one hold',
      code: UNIQUE,
      statements: (v) => [entry(v, 'reserve', 1, v.pack, { hold: v.hold })],
    },
    {
      attack: 'to reserve more from another lot for the same hold',
      code: OUT_OF_BALANCE,
      statements: (v) => [entry(v, 'reserve', 1, v.plan, { hold: v.hold })],
    },
    {
      attack: 'to reserve for no hold',
      code: CHECK,
      statements: (v) => [entry(v, 'reserve', 1, v.plan)],
    },
    {
      attack: 'to reserve for a hold that is closed',
      code: OUT_OF_BALANCE,
      statements: (v) => [entry(v, 'reserve', 1, v.plan, { hold: v.closedHold })],
    },
    {
      attack: 'to charge one lot for what is held of another',
      code: OUT_OF_BALANCE,
      statements: (v) => [
        newHold(v, 'token', 20),
        entry(v, 'reserve', 20, v.plan, { hold: 'new' }),
        closeHold(v.hold, 'settled', 20),
        entry(v, 'spend', 20, v.plan, { hold: v.hold }),
      ],
    },
    {
      attack: 'to pay a generation with one token',
      code: OUT_OF_BALANCE,
      statements: (v) => [newHold(v, 'generation', 1), entry(v, 'reserve', 1, v.pack, { hold: 'new' })],
    },
    {
      attack: 'to pay tokens with a trial generation',
      code: OUT_OF_BALANCE,
      statements: (v) => [newHold(v, 'token', 1), entry(v, 'reserve', 1, v.trial, { hold: 'new' })],
    },
    {
      attack: 'to reopen a hold',
      code: FORBIDDEN,
      statements: (v) => [
        `update ledger_hold set state = 'pending', spent = null, closed_at = null where id = '${v.closedHold}'`,
      ],
    },
    {
      attack: 'to shrink a hold',
      code: FORBIDDEN,
      statements: (v) => [`update ledger_hold set amount = 1 where id = '${v.hold}'`],
    },
    {
      attack: 'to delete a hold',
      code: FORBIDDEN,
      statements: (v) => [`delete from ledger_hold where id = '${v.hold}'`],
    },
    {
      attack: "an entry on somebody else's hold",
      code: FOREIGN_KEY,
      statements: (v) => [
        `insert into ledger_entry (user_id, op, amount, lot_id, hold_id)
           select '${v.stranger}', 'reserve', 1, id, '${v.hold}' from ledger_lot where user_id = '${v.stranger}' limit 1`,
      ],
    },
    // What the subscription says of its plan lot.
    {
      attack: 'tokens_used by hand',
      code: MIRROR,
      statements: (v) => [`update subscriptions set tokens_used = 7 where user_id = '${v.user}'`],
    },
    {
      attack: 'token_limit by hand',
      code: MIRROR,
      statements: (v) => [`update subscriptions set token_limit = 5000 where user_id = '${v.user}'`],
    },
    {
      attack: 'a subscription on a lot that is no plan',
      code: MIRROR,
      statements: (v) => [
        `update subscriptions set plan_lot_id = ${v.pack}, token_limit = 60 where user_id = '${v.user}'`,
      ],
    },
    {
      attack: "a subscription on somebody else's plan",
      code: MIRROR,
      statements: (v) => [
        `update subscriptions set plan_lot_id = (select plan_lot_id from subscriptions where user_id = '${v.stranger}')
           where user_id = '${v.user}'`,
      ],
    },
  ])('$attack', async ({ code, statements }) => {
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

interface NewLot {
  kind: string
  unit: string
  granted: number
  available: number
  spent: number
  source: string
}

function lot({ user }: Victim, { kind, unit, granted, available, spent, source }: NewLot): string {
  return `insert into ledger_lot (user_id, kind, unit, priority, granted, available, spent, source)
    values ('${user}', '${kind}', '${unit}', 30, ${granted}, ${available}, ${spent}, '${source}')`
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
