// What one audit row says: who, in whose name, what to what, why, from where; and what it leaves out.
import { beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type AuditEvent, actorOf, recordAudit } from '../../lib/audit.ts'
import { startApp } from '../support/app.ts'

const ADA = '00000000-0000-4000-8000-000000000001'

beforeAll(async () => {
  await startApp()
})

async function recorded(event: AuditEvent) {
  await recordAudit(db(), event)
  const { id, at, ...row } = await db()
    .selectFrom('audit_log')
    .selectAll()
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirstOrThrow()
  expect([typeof id, at]).toEqual(['number', expect.any(Date)])
  return row
}

const requestOf = (userAgent?: string) =>
  new Request('http://localhost/', { headers: userAgent === undefined ? {} : { 'user-agent': userAgent } })

const contextOf = (caller: { key?: { id: string }; impersonator?: string } = {}, userAgent?: string) => ({
  caller: { userId: ADA, key: caller.key, impersonator: caller.impersonator },
  ip: '203.0.113.7',
  request: requestOf(userAgent),
  requestId: 'request-1',
})

describe('a row of the audit log', () => {
  test('says all that it is told', async () => {
    const event: AuditEvent = {
      actor: { type: 'admin', id: ADA },
      impersonator: 'user_support',
      action: 'thing.change',
      target: { type: 'thing', id: 'one' },
      reason: 'A test.',
      before: { value: 1 },
      after: { value: 2 },
      details: { more: [true, null] },
      ip: '203.0.113.7',
      userAgent: 'a browser',
      requestId: 'request-1',
    }
    expect(await recorded(event)).toEqual({
      actor_type: 'admin',
      actor_id: ADA,
      impersonator: 'user_support',
      action: 'thing.change',
      target_type: 'thing',
      target_id: 'one',
      reason: 'A test.',
      before: { value: 1 },
      after: { value: 2 },
      details: { more: [true, null] },
      ip: '203.0.113.7',
      user_agent: 'a browser',
      request_id: 'request-1',
    })
  })

  test('says nothing of what it is not told', async () => {
    const nothing = { actor_id: null, impersonator: null, target_type: null, target_id: null, reason: null }
    expect(await recorded({ actor: { type: 'system' }, action: 'thing.change' })).toEqual({
      ...nothing,
      ...{ actor_type: 'system', action: 'thing.change', details: {}, before: null, after: null },
      ...{ ip: null, user_agent: null, request_id: null },
    })
    expect(await recorded({ actor: { type: 'webhook' }, action: 'x', userAgent: null })).toMatchObject({
      user_agent: null,
    })
  })

  test('keeps as much of a browser’s name as there is room for', async () => {
    const row = await recorded({ actor: { type: 'system' }, action: 'x', userAgent: 'b'.repeat(400) })
    expect(row.user_agent).toBe('b'.repeat(255))
  })
})

describe('the caller as an actor', () => {
  test('is the user or the admin they act as, with where they call from', () => {
    expect(actorOf(contextOf({}, 'a browser'), 'user')).toEqual({
      actor: { type: 'user', id: ADA },
      impersonator: undefined,
      ip: '203.0.113.7',
      userAgent: 'a browser',
      requestId: 'request-1',
    })
    expect(actorOf(contextOf(), 'admin', 'A reason.')).toEqual({
      actor: { type: 'admin', id: ADA },
      impersonator: undefined,
      reason: 'A reason.',
      ip: '203.0.113.7',
      userAgent: null,
      requestId: 'request-1',
    })
  })

  test('is a key where a key speaks for them, and names who acts in their name', () => {
    expect(actorOf(contextOf({ key: { id: 'k' } }), 'user').actor).toEqual({ type: 'api_key', id: ADA })
    expect(actorOf(contextOf({ impersonator: 'user_support' }), 'user').impersonator).toBe('user_support')
  })
})
