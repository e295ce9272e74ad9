// Databases of one test's own on the real PostgreSQL, with nothing in them; gone when the test is over.
import { randomUUID } from 'node:crypto'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { onTestFinished } from 'vitest'
import type { Database } from '../../db/schema.ts'
import { administer, serviceUrls } from './lane.ts'

/** Makes one and returns its URL. */
export async function emptyDatabase(): Promise<string> {
  const name = `test_${randomUUID().replaceAll('-', '')}`
  const { postgres } = serviceUrls()
  await administer(postgres, `create database ${name}`)
  onTestFinished(() => administer(postgres, `drop database if exists ${name} with (force)`))
  const url = new URL(postgres)
  url.pathname = `/${name}`
  return url.href
}

export function connect(connectionString: string): Kysely<Database> {
  const pool = new pg.Pool({ connectionString })
  pool.on('error', () => {}) // It ends before its connections do, and the database is dropped under the last of them.
  const database = new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
  onTestFinished(() => database.destroy())
  return database
}
