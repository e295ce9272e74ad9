// Makes one migrated PostgreSQL database that every test file of the services and built lanes copies.
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import type { TestProject } from 'vitest/node'
import { administer, serviceUrls } from './lane.ts'

export default async function setup(project: TestProject) {
  const { postgres, redis } = serviceUrls()
  const client = new Redis(redis, { lazyConnect: true, maxRetriesPerRequest: 0, retryStrategy: () => null })
  await client.connect()
  client.disconnect()
  const name = `template_${randomUUID().replaceAll('-', '')}`
  await administer(postgres, `create database ${name}`)
  const url = new URL(postgres)
  url.pathname = `/${name}`
  execFileSync(process.execPath, ['scripts/migrate.ts', 'up'], { env: { ...process.env, POSTGRES_URL: url.href } })
  project.provide('lane', project.name === 'built' ? 'built' : 'services')
  project.provide('templateDatabase', name)
  return () => administer(postgres, `drop database if exists ${name} with (force)`)
}
