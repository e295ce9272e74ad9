// The audit log under many appends at once, from before it had a chain, and when it is empty.
import { Kysely, PostgresDialect, sql } from 'kysely'
import pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { migrateDown, migrateToLatest, migrations } from '../../db/migrate.ts'
import type { Database } from '../../db/schema.ts'
import { recordAudit } from '../../lib/audit.ts'
import { anchorAudit, auditHead, verifyAudit } from '../../lib/audit-chain.ts'
import { suspendAccount } from '../../lib/auth/lifecycle.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { startApp } from '../support/app.ts'
import { fullEvent as full } from '../support/audit-events.ts'
import { connect, emptyDatabase } from '../support/empty-database.ts'

let url: string

beforeAll(async () => {
  pg.types.setTypeParser(pg.types.builtins.INT8, Number)
  const app = await startApp()
  url = app.stores.variables.POSTGRES_URL ?? ''
})

describe('an empty log', () => {
  test('is whole, and has no head to sign', async () => {
    const database = connect(await emptyDatabase())
    await migrateToLatest(database)
    expect(await anchorAudit(database)).toEqual({ seq: 0, hash: '0'.repeat(64) })
    expect(await database.selectFrom('audit_anchors').selectAll().execute()).toEqual([])
    expect(await verifyAudit(database)).toMatchObject({ ok: true, rows: 0, head: { seq: 0 } })
    await sql`alter table audit_head disable trigger user`.execute(database)
    await sql`delete from audit_head`.execute(database)
    await expect(anchorAudit(database)).rejects.toThrow('The head of the audit log is gone.')
  })
})

describe('a thousand appends at once', () => {
  test('keep the chain whole, with rollbacks among them and locks taken after the row was written', async () => {
    const pool = new pg.Pool({ connectionString: url, max: 25 })
    const many = new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
    const users = await Promise.all(
      Array.from({ length: 4 }, () =>
        db()
          .transaction()
          .execute((trx) =>
            createUser(trx, { name: 'Ada', email: `${crypto.randomUUID()}@example.com`, role: 'user' }),
          ),
      ),
    )
    const before = await auditHead(db())
    let rolledBack = 0
    const append = async (number: number) => {
      const userId = users[number % users.length] ?? ''
      const work = many.transaction().execute(async (trx) => {
        await recordAudit(trx, full(`append.${number}`))
        // As transactions do that put themselves on record first: the chain must not be locked yet.
        if (number % 3 === 0) await sql`select 1 from users where id = ${userId} for no key update`.execute(trx)
        if (number % 5 === 0)
          await sql`select 1 from ledger_account where user_id = ${userId} for no key update`.execute(trx)
        if (number % 10 === 0) throw new Error('rolled back')
        if (number % 7 === 0) await recordAudit(trx, full(`append.${number}.again`))
      })
      await work.catch((error: Error) => {
        if (error.message !== 'rolled back') throw error
        rolledBack += 1
      })
    }
    const checks = [verifyAudit(db()), anchorAudit(db())]
    await Promise.all(Array.from({ length: 1000 }, (_, number) => append(number)))
    await Promise.all(checks)
    expect(await checks[0]).toMatchObject({ ok: true })
    await many.destroy()
    expect(rolledBack).toBe(100)
    const expected = 900 + Array.from({ length: 1000 }, (_, n) => n).filter((n) => n % 7 === 0 && n % 10 !== 0).length
    const after = await verifyAudit(db())
    expect(after).toMatchObject({ ok: true, problems: [], rows: before.seq + expected })
    expect(after.head.seq).toBe(before.seq + expected)
    const [user = ''] = users
    await db()
      .transaction()
      .execute((trx) => suspendAccount(trx, user, full('x')))
    expect(await verifyAudit(db())).toMatchObject({ ok: true })
  })
})

describe('a log from before the chain', () => {
  test('is chained row by row, and unchained and chained again by the way down and up', async () => {
    const database = connect(await emptyDatabase())
    await migrateToLatest(database)
    const names = Object.keys(migrations)
    const toBefore = async () => {
      for (const name of names.slice(names.indexOf('0009_audit_chain')).toReversed()) {
        expect(await migrateDown(database)).toEqual([name])
      }
    }
    await toBefore()
    await sql`insert into audit_log (actor_type, action, details) select 'user', 'old.' || n, '{"n": 1}' from generate_series(1, 20) n`.execute(
      database,
    )
    await migrateToLatest(database)
    expect(await verifyAudit(database)).toMatchObject({ ok: true, rows: 20 })
    await recordAudit(database, full('new'))
    await recordAudit(database, { actor: { type: 'api_key' }, action: 'by.key' })
    expect(await verifyAudit(database)).toMatchObject({ ok: true, rows: 22 })

    await toBefore()
    const { rows } = await sql<{
      actor_type: string
    }>`select actor_type from audit_log order by id desc limit 2`.execute(database)
    expect(rows).toEqual([{ actor_type: 'system' }, { actor_type: 'admin' }])
    await migrateToLatest(database)
    expect(await verifyAudit(database)).toMatchObject({ ok: true, rows: 22 })
  })
})
