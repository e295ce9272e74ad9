// Which stores and which code a run of the API suite uses: the same tests run on every lane.
import { randomUUID } from 'node:crypto'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { inject } from 'vitest'
import { startUpstashRest } from './upstash-rest.ts'

/** embedded: source, PGlite, memory. services: source, PostgreSQL, Redis. built: Vercel's output, PostgreSQL, Redis. */
export type Lane = 'embedded' | 'services' | 'built'

export interface Stores {
  /** Environment variables that lead to these stores. */
  variables: Record<string, string>
  /** HTTP round trips to the KV server so far; always 0 on the embedded lane. */
  kvRequests(): number
  close(): Promise<void>
}

export function currentLane(): Lane {
  return inject('lane')
}

/** Stores of this test file's own, migrated and empty. */
export async function openStores(): Promise<Stores> {
  const dataDir = await mkdtemp(join(tmpdir(), 'test-data-'))
  if (currentLane() === 'embedded') {
    await cp(inject('templateDataDir'), dataDir, { recursive: true })
    return { variables: { DATA_DIR: dataDir }, kvRequests: () => 0, close: () => remove(dataDir) }
  }
  const database = await copyDatabase()
  const token = randomUUID()
  const kv = await startUpstashRest({ redisUrl: serviceUrls().redis, token, keyPrefix: `test:${token}:` })
  return {
    variables: { DATA_DIR: dataDir, POSTGRES_URL: database.url, KV_REST_API_URL: kv.url, KV_REST_API_TOKEN: token },
    kvRequests: kv.requests,
    async close() {
      await kv.close()
      await database.drop()
      await remove(dataDir)
    },
  }
}

/** Again where somebody was still writing: work that an answer did not wait for may end after its test. */
async function remove(folder: string): Promise<void> {
  await rm(folder, { recursive: true, maxRetries: 10, retryDelay: 200 })
}

/** A fresh copy of the migrated template database, on the real PostgreSQL. */
async function copyDatabase(): Promise<{ url: string; drop(): Promise<void> }> {
  const name = `test_${randomUUID().replaceAll('-', '')}`
  const { postgres } = serviceUrls()
  await administer(postgres, `create database ${name} template ${inject('templateDatabase')}`)
  const url = new URL(postgres)
  url.pathname = `/${name}`
  return { url: url.href, drop: () => administer(postgres, `drop database if exists ${name} with (force)`) }
}

export function serviceUrls(): { postgres: string; redis: string } {
  const { TEST_POSTGRES_URL: postgres, TEST_REDIS_URL: redis } = process.env
  if (!postgres || !redis) throw new Error('TEST_POSTGRES_URL and TEST_REDIS_URL must be set.')
  return { postgres, redis }
}

/** Runs statements outside any transaction, on a connection of their own. */
export async function administer(url: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}

declare module 'vitest' {
  interface ProvidedContext {
    lane: Lane
    templateDataDir: string
    templateDatabase: string
  }
}
