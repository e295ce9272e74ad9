// Is it up, and can it reach what it needs: for monitors, without telling strangers how it is built.
import { sql } from 'kysely'
import { serve } from 'srvx'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import packageJson from '../../package.json' with { type: 'json' }
import { type App, call, givenUser, startApp, type TestUser } from '../support/app.ts'
import { expectErrorsInLog } from '../support/console.ts'
import { currentLane, serviceUrls } from '../support/lane.ts'
import { startUpstashRest, type UpstashRest } from '../support/upstash-rest.ts'

const COMMIT = '4d32219aa0000000000000000000000000000000'
const embedded = currentLane() === 'embedded'

let app: App
let admin: TestUser
let user: TestUser
let store: UpstashRest | undefined
let polar: Awaited<ReturnType<typeof startSilentPolar>>

beforeAll(async () => {
  // A KV server of this file's own, because one of its tests breaks it.
  const token = crypto.randomUUID()
  if (!embedded) store = await startUpstashRest({ redisUrl: serviceUrls().redis, token, keyPrefix: `test:${token}:` })
  polar = await startSilentPolar()
  app = await startApp({
    VERCEL_GIT_COMMIT_SHA: COMMIT,
    POLAR_ACCESS_TOKEN: 'polar_oat_of-the-tests',
    POLAR_WEBHOOK_SECRET: 'whsec_b2YtdGhlLXRlc3Rz',
    POLAR_ENVIRONMENT: 'sandbox',
    POLAR_BASE_URL: polar.url,
    ...(store && { KV_REST_API_URL: store.url, KV_REST_API_TOKEN: token }),
  })
  admin = await givenUser(app)
  user = await givenUser(app)
  await db().updateTable('users').set({ role: 'admin' }).where('id', '=', admin.id).execute()
})

afterAll(async () => {
  await store?.close()
  await polar.close()
})

/** Answers nothing of use, and remembers what was asked. */
async function startSilentPolar() {
  const asked: string[] = []
  const server = serve({
    port: 0,
    hostname: '127.0.0.1',
    silent: true,
    gracefulShutdown: false,
    fetch: ({ url }) => {
      asked.push(url)
      return new Response(null, { status: 500 })
    },
  })
  await server.ready()
  return { url: `http://127.0.0.1:${new URL(server.url ?? '').port}`, asked, close: () => server.close(true) }
}

const ready = (token?: string) => call(app, 'GET /api/health/ready', { token })

/** Runs while a table is missing, which is as near as a test comes to a database that is gone. */
async function without(table: string, run: () => Promise<void>) {
  expectErrorsInLog()
  await sql`alter table ${sql.table(table)} rename to ${sql.table(`${table}_away`)}`.execute(db())
  try {
    await run()
  } finally {
    await sql`alter table ${sql.table(`${table}_away`)} rename to ${sql.table(table)}`.execute(db())
  }
}

describe('GET /api/health', () => {
  test('says which version runs, and asks nothing else', async () => {
    const { status, headers, json } = await call(app, 'GET /api/health')
    expect(status).toBe(200)
    expect(json).toEqual({ status: 'ok', version: packageJson.version, commit: COMMIT })
    expect(headers.get('cache-control')).toBe('no-store')
    expect(headers.has('ratelimit-policy'), 'a monitor is never refused').toBe(false)
  })

  test('is up while the database is not', async () => {
    await without('users', async () => {
      expect((await call(app, 'GET /api/health')).status).toBe(200)
    })
  })
})

describe('GET /api/health/ready', () => {
  test('tells anybody what works and how fast, and no more', async () => {
    for (const token of [undefined, user.token]) {
      const { status, json } = await ready(token)
      expect(status).toBe(200)
      expect(json).toEqual({
        status: 'ok',
        checks: {
          database: { status: 'ok', latencyMs: expect.any(Number) },
          kv: { status: 'ok', latencyMs: expect.any(Number) },
          providers: { status: 'ok' },
          signIn: { status: 'ok' },
          payments: { status: 'ok' },
        },
      })
    }
  })

  test('tells an admin what each is, and why it is off', async () => {
    const { checks } = (await ready(admin.token)).json
    expect(checks.database.details).toBe(embedded ? 'Embedded database' : 'PostgreSQL')
    expect(checks.kv.details).toMatch(embedded ? /memory/ : /Vercel KV/)
    expect(checks.signIn.details).toBe('AUTH_JWT_SECRET is set')
    expect(checks.providers.details.usable).toContain('sketch')
    expect(checks.providers.details.skipped).toContainEqual({
      provider: 'gemini',
      status: 'unavailable',
      reason: expect.stringContaining('GEMINI_API_KEY'),
    })
  })

  test('says that payments are on without asking Polar', async () => {
    expect((await ready(admin.token)).json.checks.payments.details).toBe(`Polar, sandbox at ${new URL(polar.url).host}`)
    expect(polar.asked).toEqual([])
  })

  test('is 503 while migrations are pending, and tells an admin the cure', async () => {
    const newest = await sql<{ name: string }>`select max(name) as name from kysely_migration`.execute(db())
    const name = newest.rows[0]?.name ?? ''
    expectErrorsInLog()
    await sql`update kysely_migration set name = 'away' where name = ${name}`.execute(db())
    try {
      const asStranger = await ready()
      expect(asStranger.status).toBe(503)
      expect(asStranger.json).toMatchObject({
        status: 'down',
        checks: { database: { status: 'down' }, kv: { status: 'ok' } },
      })
      expect(asStranger.json.checks.database).not.toHaveProperty('details')
      expect((await ready(admin.token)).json.checks.database.details).toContain('npm run migrate')
    } finally {
      await sql`update kysely_migration set name = ${name} where name = 'away'`.execute(db())
    }
    expect((await ready()).status).toBe(200)
  })

  test('is 503 while the database fails, and shows strangers no SQL', async () => {
    await without('kysely_migration', async () => {
      const { status, json, bytes } = await ready()
      expect(status).toBe(503)
      expect(json).toMatchObject({
        status: 'down',
        checks: { database: { status: 'down', latencyMs: expect.any(Number) } },
      })
      expect(bytes.toString()).not.toContain('kysely_migration')
      expect((await ready(admin.token)).json.checks.database.details.message).toContain('kysely_migration')
    })
  })

  test('is 503 also to who is signed in, when the database cannot tell who they are', async () => {
    await without('users', async () => {
      await without('kysely_migration', async () => {
        const { status, json } = await ready(admin.token)
        expect(status).toBe(503)
        expect(json).toMatchObject({ status: 'down', checks: { database: { status: 'down' } } })
        expect(json.checks.database).not.toHaveProperty('details')
      })
    })
  })

  // The embedded store is this process's memory and cannot be down.
  if (!embedded)
    test('is degraded, and works, while the KV store is down', async () => {
      store?.down(true)
      try {
        const { status, json } = await ready()
        expect(status).toBe(200)
        expect(json).toMatchObject({
          status: 'degraded',
          checks: { database: { status: 'ok' }, kv: { status: 'down' } },
        })
        const asAdmin = (await ready(admin.token)).json
        expect(JSON.stringify(asAdmin.checks.kv.details)).toContain('KV')
        expect(JSON.stringify(asAdmin)).not.toContain('readiness')
      } finally {
        store?.down(false)
      }
      expect((await ready()).json.status).toBe('ok')
    })

  test('refuses who claims to be somebody and is not', async () => {
    expect((await ready('nonsense')).status).toBe(401)
  })
})
