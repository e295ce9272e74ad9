// Makes one migrated embedded database that every test file of the embedded lane copies.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'

export default function setup(project: TestProject) {
  const dataDir = mkdtempSync(join(tmpdir(), 'test-template-'))
  const { POSTGRES_URL: _, DATABASE_URL: __, ...env } = process.env
  execFileSync(process.execPath, ['scripts/migrate.ts', 'up'], { env: { ...env, DATA_DIR: dataDir } })
  project.provide('lane', 'embedded')
  project.provide('templateDataDir', dataDir)
  return () => rmSync(dataDir, { recursive: true })
}
