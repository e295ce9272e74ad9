// The audit log of a deployment without a secret, which can sign no head and trusts none.
import { rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { db } from '../../db/client.ts'
import { recordAudit } from '../../lib/audit.ts'
import { anchorAudit, auditHead, verifyAudit } from '../../lib/audit-chain.ts'
import { startApp } from '../support/app.ts'

beforeAll(async () => {
  await startApp({ AUTH_JWT_SECRET: '', VERCEL_ENV: 'production' })
  await recordAudit(db(), { actor: { type: 'system' }, action: 'thing.change' })
})

test('the head goes to the log alone', async () => {
  const said = vi.spyOn(console, 'log')
  const head = await anchorAudit(db())
  expect(head).toEqual(await auditHead(db()))
  expect(said.mock.calls.map(([line]) => JSON.parse(String(line)))).toMatchObject([{ event: 'audit_anchor', ...head }])
  expect(await db().selectFrom('audit_anchors').selectAll().execute()).toEqual([])
  expect(await verifyAudit(db(), head)).toMatchObject({ ok: true, rows: head.seq })
})

test('no head counts as signed', async () => {
  const head = await auditHead(db())
  const trx = await db().startTransaction().execute()
  for (const [index, mac] of ['', 'undefined', 'x'.repeat(43)].entries()) {
    await trx
      .insertInto('audit_anchors')
      .values({ ...head, seq: head.seq + index, mac })
      .execute()
  }
  const { ok, problems } = await verifyAudit(trx)
  await trx.rollback().execute()
  expect(ok).toBe(false)
  expect(problems).toEqual([0, 1, 2].map((index) => ({ problem: 'anchor_forged', seq: head.seq + index })))
})

test('a secret that cannot be read is a failure, not a log without one', async () => {
  const file = join(tmpdir(), `test-unsigned-${crypto.randomUUID()}`)
  await writeFile(file, '')
  onTestFinished(() => rm(file))
  vi.stubEnv('VERCEL_ENV', 'development').stubEnv('DATA_DIR', join(file, 'below'))
  onTestFinished(() => void vi.unstubAllEnvs())
  vi.resetModules()
  const afresh = await import('../../lib/audit-chain.ts')
  await expect(afresh.anchorAudit(db())).rejects.toMatchObject({ code: 'ENOTDIR' })
})
