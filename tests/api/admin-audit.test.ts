// The audit log as administrators read and check it, over HTTP and on the command line.
import { execFile } from 'node:child_process'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { closeDatabase, db } from '../../db/client.ts'
import { recordAudit } from '../../lib/audit.ts'
import { seedAdmin } from '../../lib/auth/accounts.ts'
import { type App, call, givenUser, startApp, type TestUser } from '../support/app.ts'

const CRON_SECRET = 'the-secret-of-the-scheduler'
const ADMIN = { email: 'root@example.com', password: 'a password for the admin' }

let app: App
let user: TestUser
let admin: { id: string; token: string }

beforeAll(async () => {
  app = await startApp({ CRON_SECRET, ADMIN_EMAIL: ADMIN.email, ADMIN_PASSWORD: ADMIN.password })
  await seedAdmin()
  const { json } = await call(app, 'POST /api/auth/login', { body: ADMIN })
  admin = { id: json.user.id, token: json.accessToken }
  user = await givenUser(app)
})

const get = (path: string) => call(app, `GET /api/admin/${path}`, { token: admin.token })
const actions = async (query: string) =>
  (await get(`audit?${query}`)).json.data.map(({ action }: { action: string }) => action) as string[]

describe('GET /api/admin/audit', () => {
  test('shows an act with everything that is known of it', async () => {
    const path = `PATCH /api/admin/users/${user.id}`
    const body = { plan: 'pro', reason: 'A friend of the house.' }
    const headers = { 'x-request-id': 'request-of-the-test', 'user-agent': 'console' }
    await call(app, path, { token: admin.token, body, headers, ip: '203.0.113.7' })
    const { status, json } = await get(`audit?target=user:${user.id}&action=user.plan`)
    expect(status).toBe(200)
    expect(json).toEqual({
      data: [
        {
          id: expect.any(Number),
          seq: expect.any(Number),
          at: expect.stringMatching(/Z$/),
          actor: { type: 'admin', id: admin.id },
          impersonator: null,
          action: 'user.plan',
          target: { type: 'user', id: user.id },
          reason: 'A friend of the house.',
          before: { plan: 'free', gift: null },
          after: { plan: 'pro', gift: 'pro' },
          details: {},
          ip: '203.0.113.7',
          userAgent: 'console',
          requestId: 'request-of-the-test',
        },
      ],
      page: { nextCursor: null, hasMore: false },
    })
  })

  test('filters by actor, action, target and time', async () => {
    const actor = crypto.randomUUID()
    const about = async (action: string, kind: 'system' | 'user', target?: { type: string; id: string }) =>
      await recordAudit(db(), {
        actor: kind === 'user' ? { type: kind, id: actor } : { type: kind },
        action,
        ...(target && { target }),
      })
    await about('filter.one', 'user', { type: 'tool', id: 'a:b' })
    await about('filter.two', 'user', { type: 'tool', id: 'c' })
    await about('filter.three', 'system')
    const { rows } = await sql<{ at: Date }>`select now() as at`.execute(db())
    await about('filter.four', 'user')
    const between = encodeURIComponent(rows[0]?.at.toISOString() ?? '')
    expect(await actions(`actor=${actor}`)).toEqual(['filter.four', 'filter.two', 'filter.one'])
    expect(await actions(`actor=${actor}&action=filter.two`)).toEqual(['filter.two'])
    expect(await actions('actor=system&action=filter.three')).toEqual(['filter.three'])
    expect(await actions('actor=webhook&action=filter.three')).toEqual([])
    expect(await actions('target=tool:a:b')).toEqual(['filter.one'])
    expect(await actions(`target=tool&actor=${actor}`)).toEqual(['filter.two', 'filter.one'])
    expect(await actions('target=order:a:b')).toEqual([])
    expect(await actions(`actor=${actor}&from=${between}`)).toEqual(['filter.four'])
    expect(await actions(`actor=${actor}&to=${between}`)).toEqual(['filter.two', 'filter.one'])
  })

  test.each([1, 4, 30])('walked %i at a time shows every act once, also of one instant', async (limit) => {
    const action = `walk.${limit}`
    await db()
      .transaction()
      .execute(async (trx) => {
        for (let row = 0; row < 9; row += 1) await recordAudit(trx, { actor: { type: 'system' }, action })
      })
    const seen: number[] = []
    for (let cursor: string | null = ''; cursor !== null; ) {
      const { json } = await get(`audit?action=${action}&limit=${limit}${cursor && `&cursor=${cursor}`}`)
      seen.push(...json.data.map(({ id }: { id: number }) => id))
      cursor = json.page.nextCursor
      expect(seen.length).toBeLessThanOrEqual(9)
    }
    expect(seen).toHaveLength(9)
    expect(seen).toEqual([...new Set(seen)].sort((one, two) => two - one))
  })

  test.each([
    'actor=me',
    'action=',
    'target=Tool:1',
    'target=:1',
    'from=yesterday',
    'limit=0',
    'cursor=x',
    `cursor=${Buffer.from('1 abc').toString('base64url')}`,
    'other=1',
  ])('refuses %s', async (query) => {
    const { status, json } = await get(`audit?${query}`)
    expect([status, json.error.code]).toEqual([400, 'VALIDATION_FAILED'])
  })
})

describe('GET /api/admin/audit/verify', () => {
  test('finds the log whole, and a noted head in it', async () => {
    const { status, json } = await get('audit/verify')
    expect(status).toBe(200)
    expect(json).toMatchObject({ ok: true, problems: [], problemsFound: 0 })
    expect(json.rows).toBe(json.head.seq)
    const noted = `${json.head.seq}:${json.head.hash}`
    await givenUser(app)
    expect((await get(`audit/verify?head=${noted}`)).json).toMatchObject({ ok: true, rows: json.rows + 1 })
    const other = `${json.head.seq}:${'f'.repeat(64)}`
    expect((await get(`audit/verify?head=${other}`)).json).toMatchObject({
      ok: false,
      problems: [{ problem: 'noted_head_mismatch', seq: json.head.seq }],
    })
  })

  test.each(['head=', 'head=5', `head=x:${'f'.repeat(64)}`, 'other=1'])('refuses %s', async (query) => {
    expect((await get(`audit/verify?${query}`)).status).toBe(400)
  })
})

describe('the sweep', () => {
  test('signs the head, and says it on the log', async () => {
    const said = vi.spyOn(console, 'log')
    expect((await call(app, 'POST /api/jobs/sweep', { token: CRON_SECRET })).status).toBe(200)
    const { head } = (await get('audit/verify')).json
    expect(await db().selectFrom('audit_anchors').select(['seq', 'hash']).execute()).toContainEqual(head)
    const lines = said.mock.calls.map(([line]) => JSON.parse(String(line)))
    expect(lines.filter(({ event }) => event === 'audit_anchor')).toMatchObject([head])
    said.mockRestore()
    expect((await get('audit/verify')).json).toMatchObject({ ok: true })
  })
})

describe('npm run audit', () => {
  async function run(...args: string[]): Promise<{ code: number; output: string; problems: string }> {
    // The embedded database is of one process at a time: the command looks into a copy.
    await closeDatabase()
    const copy = await mkdtemp(join(tmpdir(), 'test-audit-'))
    onTestFinished(() => rm(copy, { recursive: true, force: true }))
    await cp(process.env.DATA_DIR ?? '', copy, { recursive: true, filter: (file) => !file.endsWith('.lock') })
    return await new Promise((resolve) => {
      execFile(
        'node',
        ['scripts/audit.ts', ...args],
        { env: { ...process.env, DATA_DIR: copy } },
        (error, output, problems) => resolve({ code: error ? Number(error.code) : 0, output, problems }),
      )
    })
  }

  test('prints the head, and finds the log whole from there on', async () => {
    const { code, output } = await run('head')
    expect(code).toBe(0)
    expect(output).toMatch(/^\d+:[\da-f]{64}\n$/)
    const verified = await run('verify', '--head', output.trim())
    expect(verified).toMatchObject({ code: 0, output: expect.stringContaining('The audit log is whole.') })
    expect(verified.output).toContain(`head ${output.trim()}`)
    expect(`${JSON.parse((await run('head', '--json')).output).seq}:`).toBe(output.slice(0, output.indexOf(':') + 1))
  })

  test('says what is broken, and fails', async () => {
    const noted = `1:${'f'.repeat(64)}`
    const { code, output } = await run('verify', '--head', noted)
    expect(code).toBe(1)
    expect(output).toContain('noted_head_mismatch  seq 1')
    expect(output).toContain('The audit log is BROKEN: 1 problem(s).')
    const json = await run('verify', '--json', '--head', noted)
    expect(json.code).toBe(1)
    expect(JSON.parse(json.output)).toMatchObject({ ok: false, problems: [{ problem: 'noted_head_mismatch', seq: 1 }] })
  })

  test.each([[[]], [['check']], [['verify', 'more']], [['verify', '--head', 'x']], [['verify', '--other']]])(
    'explains itself when asked for %j',
    async (args) => {
      const { code, problems } = await run(...args)
      expect(code).toBe(2)
      expect(problems).toContain('usage: npm run audit')
    },
  )
})
