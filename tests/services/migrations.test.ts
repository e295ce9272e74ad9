// Migrations on real PostgreSQL: there and back, many at once, and the tables that the data model promises.
import { randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { isMigrated, migrateDown, migrateToLatest, migrationStatus, migrations } from '../../db/migrate.ts'
import type { Database } from '../../db/schema.ts'
import { seedAdmin } from '../../lib/auth/accounts.ts'
import { type App, call, startApp } from '../support/app.ts'
import { administer, serviceUrls } from '../support/lane.ts'

const ADMIN = { email: 'admin@example.com', password: 'the first password of the admin' }
const NAMES = Object.keys(migrations)

let app: App
const undo: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  app = await startApp({ ADMIN_EMAIL: ADMIN.email, ADMIN_PASSWORD: ADMIN.password })
})

afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

describe('migrations', () => {
  test('are registered as they stand in the folder', () => {
    const folder = new URL('../../db/migrations/', import.meta.url)
    const files = readdirSync(folder).map((file) => file.replace(/\.ts$/, ''))
    expect(NAMES).toEqual(files.sort())
  })

  test('lead up, down to nothing, and up again to the same schema', async () => {
    const database = connect(await emptyDatabase())
    const nothing = await schemaOf(database)
    expect(await migrateToLatest(database)).toEqual(NAMES)
    expect(await isMigrated(database)).toBe(true)
    const schema = await schemaOf(database)
    expect(schema.functions.length).toBeGreaterThan(10)

    for (const name of NAMES.toReversed()) expect(await migrateDown(database)).toEqual([name])
    expect(await migrateDown(database)).toEqual([])
    expect(await isMigrated(database)).toBe(false)
    expect(await schemaOf(database)).toEqual(nothing)

    expect(await migrateToLatest(database)).toEqual(NAMES)
    expect(await schemaOf(database)).toEqual(schema)
  })

  test('are applied once by ten migrators that start together', async () => {
    const url = await emptyDatabase()
    const migrators = Array.from({ length: 10 }, () => connect(url))
    const applied = await Promise.all(migrators.map(migrateToLatest))
    expect(applied.flat()).toEqual(NAMES)
    const [first] = migrators
    const status = first ? await migrationStatus(first) : []
    expect(status).toEqual(NAMES.map((name) => ({ name, appliedAt: expect.any(Date) })))
  })

  test('give the tables of the data model their columns, keys and indexes', async () => {
    const { columns, constraints, indexes, enums } = await schemaOf(db())
    expect(columns).toEqual(expect.arrayContaining(COLUMNS))
    expect(constraints).toEqual(expect.arrayContaining(KEYS))
    expect(indexes).toEqual(expect.arrayContaining(INDEXES.map((index) => expect.stringContaining(index))))
    expect(enums).toEqual(expect.arrayContaining(ENUMS))
  })
})

describe('the seeded admin', () => {
  test('is made once, and keeps the password and the name it has', async () => {
    expect(await seedAdmin()).toBe(true)
    const { token } = await signIn(ADMIN.password)
    const newPassword = 'another password of the admin'
    const change = { token, body: { currentPassword: ADMIN.password, newPassword } }
    expect((await call(app, 'POST /api/auth/password', change)).status).toBe(204)

    expect(await seedAdmin()).toBe(false)
    expect((await signIn(ADMIN.password)).status).toBe(401)
    expect(await signIn(newPassword)).toMatchObject({ status: 200, role: 'admin' })
    const admins = await db().selectFrom('users').select('email').where('role', '=', 'admin').execute()
    expect(admins).toEqual([{ email: ADMIN.email }])
  })
})

async function signIn(password: string): Promise<{ status: number; token: string; role: string | undefined }> {
  const { status, json } = await call(app, 'POST /api/auth/login', { body: { email: ADMIN.email, password } })
  return { status, token: json.accessToken, role: json.user?.role }
}

async function emptyDatabase(): Promise<string> {
  const name = `test_${randomUUID().replaceAll('-', '')}`
  const { postgres } = serviceUrls()
  await administer(postgres, `create database ${name}`)
  undo.push(() => administer(postgres, `drop database if exists ${name} with (force)`))
  const url = new URL(postgres)
  url.pathname = `/${name}`
  return url.href
}

function connect(connectionString: string): Kysely<Database> {
  const database = new Kysely<Database>({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString }) }) })
  undo.push(() => database.destroy())
  return database
}

/** Everything that a migration can leave behind, one line each; Kysely's own tables are left out. */
async function schemaOf(database: Kysely<Database>): Promise<Record<keyof typeof CATALOGUE, string[]>> {
  const lines = async (text: string) => {
    const { rows } = await database.executeQuery<{ line: string }>(CompiledQuery.raw(text))
    return rows.map(({ line }) => line).filter((line) => !/kysely_migration/.test(line))
  }
  return {
    columns: await lines(CATALOGUE.columns),
    constraints: await lines(CATALOGUE.constraints),
    indexes: await lines(CATALOGUE.indexes),
    triggers: await lines(CATALOGUE.triggers),
    functions: await lines(CATALOGUE.functions),
    views: await lines(CATALOGUE.views),
    enums: await lines(CATALOGUE.enums),
  }
}

const CATALOGUE = {
  columns: `
    select concat_ws(' ', table_name || '.' || column_name, case data_type when 'USER-DEFINED' then udt_name
      when 'character varying' then 'varchar(' || character_maximum_length || ')' else data_type end,
      case is_nullable when 'NO' then 'not null' end, 'default ' || column_default) as line
    from information_schema.columns where table_schema = 'public' order by 1`,
  constraints: `
    select conrelid::regclass || ': ' || pg_get_constraintdef(oid) as line
    from pg_constraint where connamespace = 'public'::regnamespace order by 1`,
  indexes: `select indexdef as line from pg_indexes where schemaname = 'public' order by 1`,
  triggers: `
    select pg_get_triggerdef(t.oid) as line from pg_trigger t join pg_class c on c.oid = t.tgrelid
    where not tgisinternal and relnamespace = 'public'::regnamespace order by 1`,
  functions: `
    select pg_get_functiondef(oid) as line from pg_proc where pronamespace = 'public'::regnamespace order by 1`,
  views: `select viewname || ': ' || definition as line from pg_views where schemaname = 'public' order by 1`,
  enums: `
    select typname || ': ' || string_agg(enumlabel, ', ' order by enumsortorder) as line
    from pg_type t join pg_enum e on e.enumtypid = t.oid group by typname order by 1`,
}
