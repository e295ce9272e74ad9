// The database connection: Neon through @vercel/postgres, any other PostgreSQL through pg, none through embedded PGlite.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { PGlite } from '@electric-sql/pglite'
import { Kysely, PGliteDialect, PostgresDialect, type PostgresPool } from 'kysely'
import type { Pool } from 'pg'
import { env } from '../lib/env.ts'
import { lockFolder } from './folder-lock.ts'
import { migrateToLatest } from './migrate.ts'
import type { Database } from './schema.ts'

const POOL = { max: 10, idleTimeoutMillis: 5_000, connectionTimeoutMillis: 10_000, statement_timeout: 30_000 }

const INT8 = 20

let connection: Kysely<Database> | undefined

/** The process's one connection, opened by the first query. An embedded database is migrated as it opens. */
export function db(): Kysely<Database> {
  connection ??= connect(env().databaseUrl)
  return connection
}

/** A connection for migrations: past any transaction pooler, where their session lock would not hold. The caller destroys it. */
export function unpooledDb(): Kysely<Database> {
  return connect(env().databaseUrlUnpooled)
}

export async function closeDatabase(): Promise<void> {
  await connection?.destroy()
  connection = undefined
}

function connect(url: string | undefined): Kysely<Database> {
  const dialect = url ? new PostgresDialect({ pool: () => openPool(url) }) : new PGliteDialect({ pglite: openEmbedded })
  return new Kysely<Database>({ dialect })
}

async function openPool(connectionString: string): Promise<PostgresPool> {
  const { attachDatabasePool } = await import('@vercel/functions')
  if (isNeon(connectionString)) {
    const { VercelPool, types } = await import('@vercel/postgres')
    // Not createPool: it refuses every host but a pooled one, and migrations need the other.
    const pool = new VercelPool({ ...POOL, connectionString, types: { getTypeParser: safeInt8(types.getTypeParser) } })
    // Its own types say less than pg's, whose pool it is underneath.
    const pgPool = pool as unknown as Pool
    surviveLostConnections(pgPool)
    attachDatabasePool(pgPool)
    return pgPool
  }
  const { default: pg } = await import('pg')
  const pool = new pg.Pool({ ...POOL, connectionString, types: { getTypeParser: safeInt8(pg.types.getTypeParser) } })
  surviveLostConnections(pool)
  attachDatabasePool(pool)
  return pool
}

/** A connection lost while idle is replaced on the next query, one lost in use fails its query; unheard, either would end the process. */
function surviveLostConnections(pool: Pool): void {
  pool.on('connect', (client) => client.on('error', () => {}))
  pool.on('error', (error) =>
    console.error(JSON.stringify({ level: 'warn', event: 'database_connection_lost', message: error.message })),
  )
}

function isNeon(connectionString: string): boolean {
  return new URL(connectionString).hostname.endsWith('.neon.tech')
}

async function openEmbedded(): Promise<PGlite> {
  const folder = join(env().dataDir, 'pglite')
  mkdirSync(folder, { recursive: true })
  lockFolder(folder)
  const { PGlite } = await import('@electric-sql/pglite')
  const pglite = await PGlite.create({ dataDir: folder, parsers: { [INT8]: toSafeInteger } })
  await migrateToLatest(new Kysely({ dialect: new PGliteDialect({ pglite }) }))
  return pglite
}

/** Gives every driver the same int8: a JavaScript number, or an error where one would not be exact. */
function safeInt8<Get extends (oid: number, format?: never) => unknown>(getTypeParser: Get): Get {
  const parser = (oid: number, format?: never) => (oid === INT8 ? toSafeInteger : getTypeParser(oid, format))
  return parser as Get // the drivers' overloads cannot be written out once for both
}

function toSafeInteger(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new RangeError(`int8 ${text} is not a safe integer.`)
  return value
}
