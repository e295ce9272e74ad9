// The audit log: who did what to what, written in the transaction that does it.
import type { Kysely } from 'kysely'
import type { Database } from '../db/schema.ts'

export interface AuditEvent {
  actor: { type: 'user' | 'admin' | 'system'; id?: string }
  action: string
  target?: { type: string; id: string }
  reason?: string
  /** Never secrets: what changed, in words an auditor can read. */
  details?: Record<string, unknown>
  ip?: string
  userAgent?: string | null
  requestId?: string
}

export async function recordAudit(db: Kysely<Database>, event: AuditEvent): Promise<void> {
  await db
    .insertInto('audit_log')
    .values({
      actor_type: event.actor.type,
      actor_id: event.actor.id ?? null,
      action: event.action,
      target_type: event.target?.type ?? null,
      target_id: event.target?.id ?? null,
      reason: event.reason ?? null,
      details: JSON.stringify(event.details ?? {}),
      ip: event.ip ?? null,
      user_agent: event.userAgent?.slice(0, 255) ?? null,
      request_id: event.requestId ?? null,
    })
    .execute()
}
