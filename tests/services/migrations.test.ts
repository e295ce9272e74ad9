// Migrations on real PostgreSQL: there and back, many at once, and the tables that the data model promises.
import { readdirSync } from 'node:fs'
import { CompiledQuery, Kysely, PGliteDialect, sql } from 'kysely'
import { Migrator } from 'kysely/migration'
import pg from 'pg'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { db } from '../../db/client.ts'
import { isMigrated, migrateDown, migrateToLatest, migrationStatus, migrations } from '../../db/migrate.ts'
import type { Database } from '../../db/schema.ts'
import { seedAdmin } from '../../lib/auth/accounts.ts'
import { type App, call, startApp } from '../support/app.ts'
import { connect, emptyDatabase } from '../support/empty-database.ts'
import { ledgerViolations } from '../support/money.ts'

const ADMIN = { email: 'admin@example.com', password: 'the first password of the admin' }
const NAMES = Object.keys(migrations)

let app: App

beforeAll(async () => {
  pg.types.setTypeParser(pg.types.builtins.INT8, Number)
  app = await startApp({ ADMIN_EMAIL: ADMIN.email, ADMIN_PASSWORD: ADMIN.password })
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
    const { columns, constraints, indexes, triggers, enums } = await schemaOf(db())
    expect(columns).toEqual(expect.arrayContaining(COLUMNS))
    expect(constraints).toEqual(expect.arrayContaining(KEYS))
    expect(indexes).toEqual(expect.arrayContaining(INDEXES.map((index) => expect.stringContaining(index))))
    expect(triggers).toEqual(expect.arrayContaining(TRIGGERS.map((trigger) => expect.stringContaining(trigger))))
    expect(enums).toEqual(expect.arrayContaining(ENUMS))
  })
})

describe('people and keys', () => {
  const ADA = '00000000-0000-4000-8000-000000000001'
  const GRACE = '00000000-0000-4000-8000-000000000002'
  const [LIVING, ENDED] = ['10000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000002']
  const ALLOWANCES = '{"free": 1000, "pro": 50000, "enterprise": 500000}'

  test.each([
    ['PostgreSQL', async () => connect(await emptyDatabase())],
    ['the embedded database', embedded],
  ])('from before identity live on after it, after its undoing, and after it again: on %s', async (_, open) => {
    const database = await open()
    const run = async (...statements: string[]) => {
      for (const statement of statements) await sql.raw(statement).execute(database)
    }
    const rows = async (text: string) => (await sql.raw<Record<string, unknown>>(text).execute(database)).rows
    const keys = () => rows('select * from api_keys order by id')
    const reserve = (hold: string, tokens: number) =>
      `select * from api_key_reserve('${LIVING}', '${ADA}', '${hold}', ${tokens}, '1 hour', '${ALLOWANCES}')`

    const { error } = await migrator(database).migrateTo('0006_plans')
    expect(error).toBeUndefined()
    await run(
      `insert into users (id, name, email, password_hash) values ('${ADA}', 'Ada', 'ada@example.com', 'x')`,
      `select ledger_open('${ADA}', '${ALLOWANCES}', 0, 'trial')`,
      `insert into api_keys (id, user_id, key_hash, key_prefix, name, active) values
        ('${LIVING}', '${ADA}', 'a', 'aaaaaaaa', 'living', true), ('${ENDED}', '${ADA}', 'b', 'bbbbbbbb', 'ended', false)`,
      `insert into audit_log (actor_type, actor_id, action) values ('user', '${ADA}', 'before')`,
    )
    const before = await keys()

    expect(await migrateToLatest(database)).toEqual(NAMES.slice(6))
    const defaults = { scopes: ['generate', 'read'], token_budget: null, tokens_used: 0, requests_per_minute: null }
    expect(await keys()).toMatchObject([
      { ...defaults, active: true, revoked_at: null, revoked_reason: null },
      { ...defaults, active: false, revoked_at: expect.any(Date), revoked_reason: 'revoked' },
    ])
    await run(
      `update api_keys set token_budget = 100 where id = '${LIVING}'`,
      `update users set status = 'deleted', deleted_at = now(), purge_after = now() where id = '${ADA}'`,
      `insert into users (id, name, email, clerk_id) values ('${GRACE}', 'Grace', 'ada@example.com', 'user_grace')`,
      `update users set status = 'active', email = 'ada.again@example.com', deleted_at = null, purge_after = null where id = '${ADA}'`,
      `insert into audit_log (actor_type, actor_id, action) values ('api_key', '${ADA}', 'between')`,
    )
    expect(await rows(reserve('paid', 60))).toMatchObject([{ status: 'ok', held: 60 }])
    await run(`select ledger_close('paid', 50, 'settled')`)
    expect(await rows(reserve('open', 50))).toMatchObject([{ status: 'ok' }])
    expect(await rows(reserve('more', 1))).toMatchObject([
      { status: 'key_budget', token_budget: 100, tokens_used: 100 },
    ])
    await run(`update users set status = 'deleted' where id = '${ADA}'`)

    const undone = NAMES.slice(6)
    for (const name of undone.toReversed()) expect(await migrateDown(database)).toEqual([name])
    expect(await keys()).toEqual(before)
    expect(await rows('select id, email from users order by id')).toEqual([
      { id: ADA, email: `${ADA}@deleted.invalid` },
      { id: GRACE, email: 'ada@example.com' },
    ])
    await run(`update users set status = 'active' where id = '${ADA}'`, `select ledger_close('open', null, 'voided')`)

    expect(await migrateToLatest(database)).toEqual(undone)
    expect(await keys()).toMatchObject([
      { active: true, ...defaults },
      { active: false, ...defaults },
    ])
    expect(await rows(reserve('again', 100))).toMatchObject([{ status: 'ok' }])
    expect(await keys()).toMatchObject([{ tokens_used: 100 }, { tokens_used: 0 }])
    expect(await ledgerViolations(database)).toEqual([])
    expect(
      await rows('select count(*)::int as logged, (select seq::int from audit_head) as chained from audit_log'),
    ).toEqual([{ logged: 2, chained: 2 }])
  })
})

/** An embedded database of one test's own, in memory. */
async function embedded(): Promise<Kysely<Database>> {
  const { PGlite } = await import('@electric-sql/pglite')
  const pglite = await PGlite.create({ parsers: { 20: Number } })
  const database = new Kysely<Database>({ dialect: new PGliteDialect({ pglite }) })
  onTestFinished(() => database.destroy())
  return database
}

function migrator(database: Kysely<Database>): Migrator {
  return new Migrator({ db: database, provider: { getMigrations: async () => migrations } })
}

describe('the seeded admin', () => {
  test('is made once, even by several at once, and keeps the password it has', async () => {
    const made = await Promise.all([seedAdmin(), seedAdmin(), seedAdmin()])
    expect(made.filter(Boolean)).toHaveLength(1)
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

/** Everything that a migration can leave behind, one line each; Kysely's own tables are left out. */
async function schemaOf(database: Kysely<Database>): Promise<Record<keyof typeof CATALOGUE, string[]>> {
  const read = async (text: string) => {
    const { rows } = await database.executeQuery<{ line: string }>(CompiledQuery.raw(text))
    return rows.map(({ line }) => line).filter((line) => !/kysely_migration/.test(line))
  }
  return {
    columns: await read(CATALOGUE.columns),
    constraints: await read(CATALOGUE.constraints),
    indexes: await read(CATALOGUE.indexes),
    triggers: await read(CATALOGUE.triggers),
    functions: await read(CATALOGUE.functions),
    views: await read(CATALOGUE.views),
    enums: await read(CATALOGUE.enums),
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

const COLUMNS = lines(`
  users.id uuid not null default gen_random_uuid()
  users.name varchar(100) not null
  users.email varchar(255) not null
  users.password_hash varchar(255)
  users.role user_role not null default 'user'::user_role
  users.created_at timestamp with time zone not null default now()
  users.updated_at timestamp with time zone not null default now()
  subscriptions.id uuid not null default gen_random_uuid()
  subscriptions.user_id uuid not null
  subscriptions.plan subscription_plan not null
  subscriptions.status subscription_status not null default 'active'::subscription_status
  subscriptions.token_limit integer not null
  subscriptions.tokens_used integer not null default 0
  subscriptions.period_start timestamp with time zone not null
  subscriptions.expires_at timestamp with time zone
  subscriptions.created_at timestamp with time zone not null default now()
  subscriptions.updated_at timestamp with time zone not null default now()
  tools.id uuid not null default gen_random_uuid()
  tools.name varchar(100) not null
  tools.description text not null
  tools.api_endpoint varchar(500) not null
  tools.is_active boolean not null default true
  tools.created_at timestamp with time zone not null default now()
  tools.updated_at timestamp with time zone not null default now()
  usage_logs.id uuid not null default gen_random_uuid()
  usage_logs.user_id uuid not null
  usage_logs.tool_id uuid not null
  usage_logs.timestamp timestamp with time zone not null default now()
  usage_logs.tokens_used integer not null
  usage_logs.request_id uuid not null
  usage_logs.response_status varchar(20) not null
  usage_logs.duration_ms integer
  api_keys.id uuid not null default gen_random_uuid()
  api_keys.user_id uuid not null
  api_keys.key_hash varchar(255) not null
  api_keys.key_prefix varchar(8) not null
  api_keys.name varchar(100) not null
  api_keys.active boolean not null default true
  api_keys.created_at timestamp with time zone not null default now()
  api_keys.last_used_at timestamp with time zone
  api_keys.expires_at timestamp with time zone
  api_keys.scopes ARRAY not null default '{generate,read}'::text[]
  api_keys.revoked_at timestamp with time zone
  api_keys.revoked_reason varchar(20)
  api_keys.rotated_to uuid
  api_keys.token_budget bigint
  api_keys.tokens_used bigint not null default 0
  api_keys.requests_per_minute integer
  ledger_hold.api_key_id uuid
  usage_logs.api_key_id uuid
  refresh_tokens.id uuid not null default gen_random_uuid()
  refresh_tokens.user_id uuid not null
  refresh_tokens.token_hash varchar(255) not null
  refresh_tokens.expires_at timestamp with time zone not null
  refresh_tokens.revoked boolean not null default false
  refresh_tokens.created_at timestamp with time zone not null default now()
  refresh_tokens.replaced_by uuid
`)

const KEYS = lines(`
  users: PRIMARY KEY (id)
  users: CHECK (((email)::text = lower((email)::text)))
  users: CHECK ((((name)::text = btrim((name)::text)) AND ((name)::text <> ''::text)))
  subscriptions: PRIMARY KEY (id)
  subscriptions: FOREIGN KEY (user_id) REFERENCES users(id)
  subscriptions: CHECK ((token_limit > 0))
  subscriptions: CHECK ((tokens_used >= 0))
  tools: PRIMARY KEY (id)
  usage_logs: PRIMARY KEY (id)
  usage_logs: FOREIGN KEY (user_id) REFERENCES users(id)
  usage_logs: FOREIGN KEY (tool_id) REFERENCES tools(id)
  usage_logs: CHECK ((tokens_used >= 0))
  usage_logs: CHECK ((duration_ms >= 0))
  api_keys: PRIMARY KEY (id)
  api_keys: FOREIGN KEY (user_id) REFERENCES users(id)
  api_keys: FOREIGN KEY (rotated_to) REFERENCES api_keys(id)
  api_keys: CHECK ((tokens_used >= 0))
  api_keys: CHECK ((tokens_used <= token_budget))
  refresh_tokens: PRIMARY KEY (id)
  refresh_tokens: FOREIGN KEY (user_id) REFERENCES users(id)
  refresh_tokens: FOREIGN KEY (replaced_by) REFERENCES refresh_tokens(id) DEFERRABLE INITIALLY DEFERRED
`)

const INDEXES = lines(`
  UNIQUE INDEX ix_users_email ON public.users USING btree (email) WHERE (status <> 'deleted'::user_status)
  INDEX ix_users_role ON public.users USING btree (role)
  UNIQUE INDEX ix_subscriptions_user_id ON public.subscriptions USING btree (user_id)
  INDEX ix_subscriptions_status ON public.subscriptions USING btree (status)
  INDEX ix_subscriptions_expires_at ON public.subscriptions USING btree (expires_at)
  UNIQUE INDEX ix_tools_name ON public.tools USING btree (name)
  INDEX ix_tools_is_active ON public.tools USING btree (is_active)
  INDEX ix_usage_logs_user_id ON public.usage_logs USING btree (user_id)
  INDEX ix_usage_logs_tool_id ON public.usage_logs USING btree (tool_id)
  INDEX ix_usage_logs_timestamp ON public.usage_logs USING btree ("timestamp")
  INDEX ix_usage_logs_user_timestamp ON public.usage_logs USING btree (user_id, "timestamp")
  UNIQUE INDEX ix_api_keys_key_hash ON public.api_keys USING btree (key_hash)
  INDEX ix_api_keys_user_id ON public.api_keys USING btree (user_id)
  INDEX ix_api_keys_active ON public.api_keys USING btree (active)
  UNIQUE INDEX ix_refresh_tokens_token_hash ON public.refresh_tokens USING btree (token_hash)
  INDEX ix_refresh_tokens_user_id ON public.refresh_tokens USING btree (user_id)
  INDEX ix_refresh_tokens_expires_at ON public.refresh_tokens USING btree (expires_at)
`)

const TRIGGERS = lines(`
  users_touch BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION touch_updated_at()
  subscriptions_touch BEFORE UPDATE ON public.subscriptions FOR EACH ROW EXECUTE FUNCTION touch_updated_at()
  tools_touch BEFORE UPDATE ON public.tools FOR EACH ROW EXECUTE FUNCTION touch_updated_at()
`)

const ENUMS = lines(`
  subscription_plan: free, pro, enterprise
  subscription_status: active, cancelled, expired
  user_role: user, admin
`)

function lines(text: string): string[] {
  return text
    .trim()
    .split('\n')
    .map((line) => line.trim())
}
