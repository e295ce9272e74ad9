// The audit log: who did what to what, written in the transaction that does it, and sealed into a hash chain as it commits.
import type { Kysely } from 'kysely'
import type { Database } from '../db/schema.ts'

/** Who does something and why, and where the request came from. */
export interface Actor {
  actor: { type: 'user' | 'admin' | 'api_key' | 'system' | 'webhook'; id?: string }
  /** Who acts in the actor's name, as the identity provider calls them. */
  impersonator?: string | undefined
  reason?: string
  ip?: string
  userAgent?: string | null
  requestId?: string
}

export interface AuditEvent extends Actor {
  action: string
  target?: { type: string; id: string }
  /** What was changed, and to what. Neither these nor `details` may hold secrets, addresses or names: rows are kept for ever. */
  before?: Record<string, unknown>
  after?: Record<string, unknown>
  details?: Record<string, unknown>
}

/** Appends one row. The chain is extended when the transaction commits; see the migration that made audit_chain. */
export async function recordAudit(db: Kysely<Database>, event: AuditEvent): Promise<void> {
  await db
    .insertInto('audit_log')
    .values({
      actor_type: event.actor.type,
      actor_id: event.actor.id ?? null,
      impersonator: event.impersonator ?? null,
      action: event.action,
      target_type: event.target?.type ?? null,
      target_id: event.target?.id ?? null,
      reason: event.reason ?? null,
      details: JSON.stringify(event.details ?? {}),
      before: event.before ? JSON.stringify(event.before) : null,
      after: event.after ? JSON.stringify(event.after) : null,
      ip: event.ip ?? null,
      user_agent: event.userAgent?.slice(0, 255) ?? null,
      request_id: event.requestId ?? null,
    })
    .execute()
}

interface SignedInRequest {
  caller: { userId: string; key: { id: string } | undefined; impersonator: string | undefined }
  ip: string
  request: Request
  requestId: string
}

/** The caller of a request as the actor of what it does; `as` says in which role they act. */
export function actorOf(context: SignedInRequest, as: 'user' | 'admin', reason?: string): Actor {
  const { caller, ip, request, requestId } = context
  return {
    actor: { type: caller.key ? 'api_key' : as, id: caller.userId },
    impersonator: caller.impersonator,
    ...(reason !== undefined && { reason }),
    ip,
    userAgent: request.headers.get('user-agent'),
    requestId,
  }
}
