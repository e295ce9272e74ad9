// The chain of the audit log on real PostgreSQL: whole under any concurrency, and no way to change the log unseen.
import { type Kysely, sql, type Transaction } from 'kysely'
import { beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { recordAudit } from '../../lib/audit.ts'
import { anchorAudit, auditHead, parseHead, verifyAudit } from '../../lib/audit-chain.ts'
import { startApp } from '../support/app.ts'
import { fullEvent as full } from '../support/audit-events.ts'

const ROWS = 30

/** The first row of the log, one in the middle, and the last. */
let [first, middle, last] = [0, 0, 0]

beforeAll(async () => {
  await startApp()
})

beforeEach(async () => {
  const { rows } = await sql<{ id: number }>`select id from audit_log order by id`.execute(db())
  if (rows.length === 0) {
    for (let row = 0; row < ROWS; row += 1) {
      await recordAudit(db(), row % 2 ? full(`act.${row}`) : { actor: { type: 'system' }, action: `act.${row}` })
    }
  }
  const all = await db().selectFrom('audit_log').select('id').orderBy('id').execute()
  first = all.at(0)?.id ?? 0
  middle = all.at(15)?.id ?? 0
  last = all.at(-1)?.id ?? 0
})

/** What a look at the log finds after someone with all rights has done this to it; then it is as it was. */
async function findAfter(
  tamper: (trx: Transaction<Database>) => Promise<unknown>,
  noted?: { seq: number; hash: string },
) {
  const trx = await db().startTransaction().execute()
  try {
    await sql`set local session_replication_role = replica`.execute(trx)
    await tamper(trx)
    return await verifyAudit(trx, noted)
  } finally {
    await trx.rollback().execute()
  }
}

const run = (text: string) => (trx: Kysely<Database>) => sql.raw(text).execute(trx)

describe('a whole log', () => {
  test('is found whole, with its rows and its head', async () => {
    const head = await auditHead(db())
    expect(await verifyAudit(db())).toEqual({ ok: true, rows: head.seq, head, problems: [], problemsFound: 0 })
    expect(head).toEqual({ seq: ROWS, hash: expect.stringMatching(/^[\da-f]{64}$/) })
  })

  test('has no gap where a transaction was rolled back, or a row refused', async () => {
    const before = await auditHead(db())
    const failing = db()
      .transaction()
      .execute(async (trx) => {
        await recordAudit(trx, full('rolled.back'))
        throw new Error('Never mind.')
      })
    await expect(failing).rejects.toThrow('Never mind.')
    await expect(sql`insert into audit_log (actor_type, action) values ('nobody', 'x')`.execute(db())).rejects.toThrow()
    expect(await auditHead(db())).toEqual(before)
    expect(await verifyAudit(db())).toMatchObject({ ok: true, rows: before.seq })
  })

  test('longer than a batch is walked to its end', async () => {
    const trx = await db().startTransaction().execute()
    await sql`insert into audit_log (actor_type, action) select 'system', 'bulk.' || n from generate_series(1, 1700) n`.execute(
      trx,
    )
    await sql`set constraints all immediate`.execute(trx)
    const { seq } = await auditHead(trx)
    expect(seq).toBe(ROWS + 1700)
    expect(await verifyAudit(trx)).toMatchObject({ ok: true, rows: seq })
    await sql`set local session_replication_role = replica`.execute(trx)
    await sql`update audit_log set action = 'other' where action = 'bulk.1650'`.execute(trx)
    expect(await verifyAudit(trx)).toMatchObject({ ok: false, problems: [{ problem: 'changed' }], problemsFound: 1 })
    await sql`update audit_log set action = 'other' where action like 'bulk.%'`.execute(trx)
    const { problems, problemsFound } = await verifyAudit(trx)
    expect([problems.length, problemsFound]).toEqual([100, 1700])
    await trx.rollback().execute()
  })
})

describe('a change of any column of any row is found', () => {
  const OTHER: Record<string, string> = {
    bigint: 'coalesce(COLUMN, 0) + 1000000',
    'timestamp with time zone': "COLUMN + interval '1 microsecond'",
    uuid: 'gen_random_uuid()',
    jsonb: `'{"other": 1}'`,
    character: "repeat('f', 64)",
    'character varying': "coalesce(COLUMN, '') || 'x'",
    text: "coalesce(COLUMN, '') || 'x'",
  }

  async function columnsOf(table: string) {
    const { rows } = await sql<{ name: string; type: string; nullable: boolean }>`
      select column_name as name, data_type as type, is_nullable = 'YES' as nullable from information_schema.columns
        where table_schema = 'public' and table_name = ${table} order by ordinal_position`.execute(db())
    return rows
  }

  test('of the log itself', async () => {
    const columns = await columnsOf('audit_log')
    expect(columns.length).toBeGreaterThanOrEqual(15)
    for (const { name, type, nullable } of columns) {
      const other = name === 'actor_type' ? "'webhook'" : (OTHER[type] ?? '').replaceAll('COLUMN', `"${name}"`)
      expect(other, `a value for ${name}`).not.toBe('')
      for (const id of [first, middle, last]) {
        const found = await findAfter(async (trx) => {
          if (name === 'id') await run('alter table audit_log alter column id drop identity')(trx)
          await run(`update audit_log set "${name}" = ${other} where id = ${id}`)(trx)
        })
        expect(found.ok, `${name} of ${id}`).toBe(false)
        const what = name === 'id' ? 'row_missing' : 'changed'
        expect(found.problems[0], `${name} of ${id}`).toMatchObject({ problem: what, auditId: id })
      }
      if (!nullable) continue
      const found = await findAfter(run(`update audit_log set "${name}" = null where id = ${middle}`))
      expect(found.problems, `${name} made null`).toEqual([{ problem: 'changed', seq: 16, auditId: middle }])
    }
  })

  test('of the chain and of the head', async () => {
    for (const [table, where] of [
      ['audit_chain', 'where seq = 16'],
      ['audit_head', ''],
    ] as const) {
      for (const { name, type } of await columnsOf(table)) {
        if (name === 'one') continue
        const other = (OTHER[type] ?? '').replaceAll('COLUMN', `"${name}"`)
        const found = await findAfter(run(`update ${table} set "${name}" = ${other} ${where}`))
        expect(found.ok, `${table}.${name}`).toBe(false)
        expect(found.problems[0]?.problem).toBe(
          { audit_chain: { seq: 'gap', audit_id: 'row_missing', hash: 'changed' }[name], audit_head: 'head_mismatch' }[
            table
          ],
        )
      }
    }
  })
})

describe('rows cannot be taken away, added or moved unseen', () => {
  test('a row that is gone leaves its entry', async () => {
    for (const [id, seq] of [
      [first, 1],
      [middle, 16],
      [last, ROWS],
    ]) {
      const found = await findAfter(run(`delete from audit_log where id = ${id}`))
      expect(found.problems).toEqual([{ problem: 'row_missing', seq, auditId: id }])
    }
  })

  test('a row that is gone with its entry leaves a gap, or a head that is not reached', async () => {
    const both = (condition: string) =>
      run(`with gone as (delete from audit_chain where ${condition} returning audit_id)
      delete from audit_log where id in (select audit_id from gone)`)
    expect((await findAfter(both('seq = 1'))).problems).toEqual([{ problem: 'gap', seq: 1 }])
    expect((await findAfter(both('seq in (10, 11)'))).problems).toEqual([{ problem: 'gap', seq: 11 }])
    expect((await findAfter(both(`seq = ${ROWS}`))).problems).toEqual([{ problem: 'head_mismatch', seq: ROWS - 1 }])
    expect((await findAfter(both('true'))).problems).toEqual([{ problem: 'head_mismatch', seq: 0 }])
  })

  test('an entry that is gone leaves its row', async () => {
    const { problems } = await findAfter(run(`delete from audit_chain where audit_id = ${middle}`))
    expect(problems).toEqual([
      { problem: 'gap', seq: 16 },
      { problem: 'not_chained', auditId: middle },
    ])
  })

  test('a row that was put there has no entry, wherever its number is', async () => {
    for (const id of [-5, 0, last + 1000]) {
      const found = await findAfter(
        run(
          `insert into audit_log (id, actor_type, action) overriding system value values (${id}, 'system', 'forged')`,
        ),
      )
      expect(found.problems).toEqual([{ problem: 'not_chained', auditId: id }])
    }
    const hidden = await findAfter(async (trx) => {
      await run(`alter table audit_chain drop constraint audit_chain_seq_check`)(trx)
      await run(
        `insert into audit_log (id, actor_type, action) overriding system value values (-1, 'system', 'forged')`,
      )(trx)
      await run(`insert into audit_chain values (0, -1, repeat('f', 64))`)(trx)
    })
    expect(hidden.problems).toEqual([{ problem: 'not_chained', auditId: -1 }])
  })

  test('an entry after the head is none of ours', async () => {
    const found = await findAfter(async (trx) => {
      await run(
        `insert into audit_log (id, actor_type, action) overriding system value values (99999, 'system', 'forged')`,
      )(trx)
      await run(`insert into audit_chain values (${ROWS + 1}, 99999, repeat('f', 64))`)(trx)
    })
    expect(found.problems).toEqual([
      { problem: 'changed', seq: ROWS + 1, auditId: 99999 },
      { problem: 'head_mismatch', seq: ROWS + 1 },
    ])
  })

  test('two rows that changed places are both out of order', async () => {
    const swapped = await findAfter(async (trx) => {
      await run('alter table audit_chain drop constraint audit_chain_audit_id_key')(trx)
      await run(`update audit_chain c set audit_id = o.audit_id from audit_chain o
        where (c.seq, o.seq) in ((5, 20), (20, 5))`)(trx)
    })
    expect(swapped.problems).toMatchObject([
      { problem: 'changed', seq: 5 },
      { problem: 'changed', seq: 20 },
    ])
    const numbers = await findAfter(async (trx) => {
      await run(`update audit_chain set seq = 1000 where seq = 5`)(trx)
      await run(`update audit_chain set seq = 5 where seq = 6`)(trx)
      await run(`update audit_chain set seq = 6 where seq = 1000`)(trx)
    })
    expect(numbers.problems.map((problem) => 'seq' in problem && problem.seq)).toEqual([5, 6, 7])
  })

  test('a head that is gone is missed', async () => {
    const { problems, head } = await findAfter(run('delete from audit_head'))
    expect(problems).toEqual([{ problem: 'head_mismatch', seq: ROWS }])
    expect(head).toEqual(await auditHead(db()))
  })
})

describe('a chain that was written anew', () => {
  /** Everything is consistent afterwards: whoever did it knows how the chain is made. */
  const rewrite = async (trx: Kysely<Database>) => {
    await run(`update audit_log set action = 'never.happened' where id = ${middle}`)(trx)
    await run(`do $$
      declare v_hash text := repeat('0', 64); v_entry record;
      begin
        for v_entry in select c.seq, l from audit_chain c join audit_log l on l.id = c.audit_id order by c.seq loop
          v_hash := audit_hash(v_hash, v_entry.l);
          update audit_chain set hash = v_hash where seq = v_entry.seq;
        end loop;
        update audit_head set hash = v_hash;
      end $$`)(trx)
  }
  const cut = async (trx: Kysely<Database>) => {
    await run(`delete from audit_log where id > ${middle}`)(trx)
    await run('delete from audit_chain where seq > 16')(trx)
    await run('update audit_head set (seq, hash) = (select seq, hash from audit_chain where seq = 16)')(trx)
  }

  test('is whole by itself, and not what was signed, or noted, before', async () => {
    expect(await findAfter(rewrite)).toMatchObject({ ok: true })
    const head = await anchorAudit(db())
    expect(head.seq).toBe(ROWS)
    expect(await verifyAudit(db())).toMatchObject({ ok: true })
    expect((await findAfter(rewrite)).problems).toEqual([{ problem: 'anchor_mismatch', seq: head.seq }])
    expect((await findAfter(cut)).problems).toEqual([{ problem: 'anchor_mismatch', seq: head.seq }])
    const withoutAnchors = (tamper: typeof cut) => async (trx: Transaction<Database>) => {
      await tamper(trx)
      await run('delete from audit_anchors')(trx)
    }
    expect(await findAfter(withoutAnchors(cut))).toMatchObject({ ok: true, rows: 16 })
    for (const tamper of [rewrite, cut]) {
      expect((await findAfter(withoutAnchors(tamper), head)).problems).toEqual([
        { problem: 'noted_head_mismatch', seq: head.seq },
      ])
    }
    const nothing = run('truncate audit_log, audit_chain, audit_anchors; ')
    const emptied = async (trx: Transaction<Database>) => {
      await nothing(trx)
      await run(`update audit_head set seq = 0, hash = repeat('0', 64)`)(trx)
    }
    expect(await findAfter(emptied)).toMatchObject({ ok: true, rows: 0 })
    expect((await findAfter(emptied, head)).problems).toMatchObject([{ problem: 'noted_head_mismatch' }])
  })

  test('cannot be signed by who has the database alone', async () => {
    await anchorAudit(db())
    const found = await findAfter(async (trx) => {
      await rewrite(trx)
      await run('update audit_anchors a set hash = c.hash from audit_chain c where c.seq = a.seq')(trx)
    })
    expect(found.problems).toEqual([{ problem: 'anchor_forged', seq: ROWS }])
    for (const mac of ['', 'x'.repeat(43)]) {
      const forged = await findAfter(run(`update audit_anchors set mac = '${mac}'`))
      expect(forged.problems).toEqual([{ problem: 'anchor_forged', seq: ROWS }])
    }
    const moved = await findAfter(run('update audit_anchors set seq = 7'))
    expect(moved.problems).toEqual([{ problem: 'anchor_forged', seq: 7 }])
  })

  test('a head noted at any time is compared, the very first too', async () => {
    const entry = await db()
      .selectFrom('audit_chain')
      .select(['seq', 'hash'])
      .where('seq', '=', 9)
      .executeTakeFirstOrThrow()
    expect(await verifyAudit(db(), entry)).toMatchObject({ ok: true })
    expect(await verifyAudit(db(), { seq: 0, hash: '0'.repeat(64) })).toMatchObject({ ok: true })
    expect((await verifyAudit(db(), { ...entry, seq: 10 })).problems).toEqual([
      { problem: 'noted_head_mismatch', seq: 10 },
    ])
    expect((await verifyAudit(db(), { ...entry, seq: ROWS + 1 })).problems).toMatchObject([
      { problem: 'noted_head_mismatch' },
    ])
  })

  test('heads are read as they are printed, and nothing else is', () => {
    const hash = 'ab'.repeat(32)
    expect(parseHead(`12:${hash}`)).toEqual({ seq: 12, hash })
    for (const text of [
      '',
      '12',
      `12:${hash}0`,
      `x12:${hash}`,
      `12:${hash.toUpperCase()}`,
      `:${hash}`,
      `${'1'.repeat(16)}:${hash}`,
    ]) {
      expect(parseHead(text)).toBeUndefined()
    }
  })
})

describe('without all rights', () => {
  test.each([
    `update audit_log set action = 'x'`,
    'delete from audit_log',
    'truncate audit_log cascade',
    `update audit_chain set hash = repeat('f', 64)`,
    'delete from audit_chain',
    'truncate audit_chain',
    `insert into audit_chain select max(seq) + 1, max(audit_id), repeat('f', 64) from audit_chain`,
    'update audit_head set seq = seq + 1',
    'delete from audit_head',
    'insert into audit_head values (true, 0, repeat($$0$$, 64))',
    'truncate audit_head',
    'update audit_anchors set mac = mac',
    'delete from audit_anchors',
    'truncate audit_anchors',
  ])('%s is refused', async (statement) => {
    await anchorAudit(db())
    await expect(sql.raw(statement).execute(db())).rejects.toMatchObject({ code: 'AU001' })
  })
})

describe('an anchor', () => {
  test('is the head, signed once and written to the log', async () => {
    await db()
      .transaction()
      .execute(async (trx) => {
        await recordAudit(trx, full('anchored'))
      })
    const said = vi.spyOn(console, 'log')
    const [one, two] = await Promise.all([anchorAudit(db()), anchorAudit(db())])
    expect(one).toEqual(two)
    expect(one).toEqual(await auditHead(db()))
    expect(said.mock.calls.map(([line]) => JSON.parse(String(line)))).toEqual(
      Array(2).fill({ time: expect.any(String), level: 'info', event: 'audit_anchor', ...one }),
    )
    const rows = await db().selectFrom('audit_anchors').selectAll().where('seq', '=', one.seq).execute()
    expect(rows).toEqual([{ ...one, mac: expect.stringMatching(/^[\w-]{43}$/), anchored_at: expect.any(Date) }])
  })

  test('is not made of an empty log, nor of one whose head is gone', async () => {
    const trx = await db().startTransaction().execute()
    await sql`set local session_replication_role = replica`.execute(trx)
    await run('truncate audit_log, audit_chain, audit_anchors')(trx)
    await run(`update audit_head set seq = 0, hash = repeat('0', 64)`)(trx)
    const said = vi.spyOn(console, 'log')
    expect(await anchorAudit(trx)).toEqual({ seq: 0, hash: '0'.repeat(64) })
    expect(await trx.selectFrom('audit_anchors').selectAll().execute()).toEqual([])
    expect(said).not.toHaveBeenCalled()
    await run('delete from audit_head')(trx)
    await expect(anchorAudit(trx)).rejects.toThrow('The head of the audit log is gone.')
    await trx.rollback().execute()
  })
})
