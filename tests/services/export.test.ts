// The export of somebody with a long history: bounded, and in pieces.
import { sql } from 'kysely'
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { exportOf } from '../../lib/auth/export.ts'
import { createUser } from '../../lib/auth/new-user.ts'
import { toolId } from '../../lib/tools/catalogue.ts'
import { startApp } from '../support/app.ts'

const ROWS_MAX = 100_000

let userId: string

beforeAll(async () => {
  await startApp()
  const tool = await toolId(db(), 'coloring-page')
  userId = await db()
    .transaction()
    .execute((trx) => createUser(trx, { name: 'Ada', email: 'ada@example.com', role: 'user' }))
  await sql`insert into usage_logs (user_id, tool_id, tokens_used, request_id, response_status, timestamp)
    select ${userId}, ${tool}, 0, gen_random_uuid(), 'error', timestamptz '2026-01-01' + (n / 3) * interval '1 second'
      from generate_series(1, ${ROWS_MAX + 1}) n`.execute(db())
  // As the database does by itself, some time after.
  await sql`analyze usage_logs`.execute(db())
})

async function read(stream: ReadableStream<Uint8Array>) {
  const pieces: number[] = []
  let text = ''
  const decoder = new TextDecoder()
  for await (const piece of stream) {
    pieces.push(piece.length)
    text += decoder.decode(piece, { stream: true })
  }
  return { pieces, json: JSON.parse(text) }
}

describe('a long history', () => {
  test('is exported up to its newest 100,000 rows, in small pieces, and says so', async () => {
    const { pieces, json } = await read(await exportOf(db(), userId))
    expect(json.usage).toHaveLength(ROWS_MAX)
    expect(new Set(json.usage.map(({ id }: { id: string }) => id)).size).toBe(ROWS_MAX)
    expect(json.usage[0].at).toBe('2026-01-01T09:15:33.000Z')
    expect(json.cut).toEqual(['usage'])
    expect(Math.max(...pieces)).toBeLessThan(1_000_000)
    expect(pieces.length).toBeGreaterThan(100)
  })

  test('that is just as long as that is not cut', async () => {
    await sql`delete from usage_logs where id = (select id from usage_logs where user_id = ${userId} limit 1)`.execute(
      db(),
    )
    const { json } = await read(await exportOf(db(), userId))
    expect(json.usage).toHaveLength(ROWS_MAX)
    expect(json.cut).toEqual([])
  })
})
