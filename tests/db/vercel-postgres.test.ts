// @vercel/postgres, the driver used with Neon, against a real PostgreSQL: its own code path except for the WebSocket proxy.
import { createPool, types, VercelPool } from '@vercel/postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { useTcp } from '../support/tcp-websocket.ts'

const postgresUrl = process.env.TEST_POSTGRES_URL
const INT8 = 20

describe.skipIf(!postgresUrl)('@vercel/postgres on a real PostgreSQL (TEST_POSTGRES_URL)', () => {
  const table = `vercel_postgres_${crypto.randomUUID().replaceAll('-', '')}`
  let pool: VercelPool

  beforeAll(async () => {
    useTcp(postgresUrl ?? '')
    const parserOf = (oid: number) => (oid === INT8 ? Number : types.getTypeParser(oid, 'text'))
    // The driver's type has an overload for each wire format; only text is ever asked for.
    const getTypeParser = parserOf as typeof types.getTypeParser
    pool = new VercelPool({ connectionString: postgresUrl ?? '', max: 4, types: { getTypeParser } })
    await pool.query(`create table ${table} (id int8 primary key, body text)`)
  })

  afterAll(async () => {
    await pool.query(`drop table ${table}`)
    await pool.end()
  })

  test('a transaction is seen by others only after its commit', async () => {
    const client = await pool.connect()
    await client.query('begin')
    await client.query(`insert into ${table} values (1, 'kept')`)
    const before = await pool.query(`select body from ${table} where id = 1`)
    await client.query('commit')
    const after = await pool.query(`select body from ${table} where id = 1`)
    client.release()
    expect([before.rows, after.rows]).toEqual([[], [{ body: 'kept' }]])
  })

  test('a rolled back transaction leaves nothing', async () => {
    const client = await pool.connect()
    await client.query('begin')
    await client.query(`insert into ${table} values (2, 'undone')`)
    await client.query('rollback')
    client.release()
    expect((await pool.query(`select * from ${table} where id = 2`)).rows).toEqual([])
  })

  test('a row of 2 MB comes back as it went', async () => {
    const body = 'žluťoučký kůň '.repeat(110_000)
    expect(Buffer.byteLength(body)).toBeGreaterThan(2_000_000)
    await pool.query(`insert into ${table} values (3, $1)`, [body])
    const { rows } = await pool.query(`select body from ${table} where id = 3`)
    expect(rows[0].body === body).toBe(true)
  })

  test("int8 goes through the pool's own parser", async () => {
    expect((await pool.query('select 9007199254740991::int8 as n')).rows).toEqual([{ n: Number.MAX_SAFE_INTEGER }])
  })

  test('a violated constraint carries its SQLSTATE and its name', async () => {
    await pool.query(`insert into ${table} values (4, 'first')`)
    const duplicate = pool.query(`insert into ${table} values (4, 'second')`)
    await expect(duplicate).rejects.toMatchObject({ code: '23505', constraint: `${table}_pkey` })
  })

  test('queries in parallel get their own answers', async () => {
    const numbers = Array.from({ length: 40 }, (_, index) => index)
    const answers = await Promise.all(numbers.map((number) => pool.query('select $1::int4 as n', [number])))
    expect(answers.map(({ rows }) => rows[0]?.n)).toEqual(numbers)
  })

  test("createPool takes a pooled connection string of Neon's", async () => {
    const url = new URL(postgresUrl ?? '')
    url.host = 'ep-example-pooler.eu-central-1.aws.neon.tech'
    const neon = createPool({ connectionString: url.href })
    const { rows } = await neon.query('select $1::text as answer', ['through'])
    await neon.end()
    expect(rows).toEqual([{ answer: 'through' }])
  })
})
