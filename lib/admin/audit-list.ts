// The audit log as an administrator reads it.
import { type Kysely, sql } from 'kysely'
import * as v from 'valibot'
import type { Database } from '../../db/schema.ts'
import { Instant } from '../billing/period.ts'
import { Cursor, isAfter, microsOf, type Page, PageLimit, pageOf, positionOf } from '../paging.ts'

const ACTOR_TYPES = ['user', 'admin', 'api_key', 'system', 'webhook'] as const

export const AuditQuery = v.strictObject({
  /** The id of whoever acted, or the kind of actor they were. */
  actor: v.optional(
    v.union([v.picklist(ACTOR_TYPES), v.pipe(v.string(), v.uuid())], 'Neither an id nor a kind of actor.'),
  ),
  action: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(80))),
  /** `user:<id>`, or a kind of target alone. */
  target: v.optional(v.pipe(v.string(), v.regex(/^[a-z_]{1,40}(:.{1,80})?$/, 'Not kind:id.'))),
  from: v.optional(Instant),
  to: v.optional(Instant),
  limit: PageLimit,
  cursor: v.optional(
    v.pipe(
      Cursor,
      v.check(({ id }) => /^\d{1,15}$/.test(id), 'Not a cursor of ours.'),
    ),
  ),
})

/** What was done, the newest first. */
export async function listAudit(
  db: Kysely<Database>,
  { actor, action, target, from, to, limit, cursor }: v.InferOutput<typeof AuditQuery>,
): Promise<Page<ListedAct>> {
  let acts = actsWithSeal(db)
    .select(microsOf(sql.ref('row.at')).as('micros'))
    .orderBy('row.at', 'desc')
    .orderBy('row.id', 'desc')
    .limit(limit + 1)
  const actorType = ACTOR_TYPES.find((type) => type === actor)
  if (actorType !== undefined) acts = acts.where('row.actor_type', '=', actorType)
  else if (actor !== undefined) acts = acts.where('row.actor_id', '=', actor)
  if (action !== undefined) acts = acts.where('row.action', '=', action)
  if (target !== undefined) {
    const [type = '', ...id] = target.split(':')
    acts = acts.where('row.target_type', '=', type)
    if (id.length > 0) acts = acts.where('row.target_id', '=', id.join(':'))
  }
  if (from) acts = acts.where('row.at', '>=', from)
  if (to) acts = acts.where('row.at', '<', to)
  if (cursor) acts = acts.where(isAfter(cursor, sql.ref('row.at'), sql.ref('row.id')))
  const position = ({ micros, id }: { micros: number; id: number }) => positionOf({ micros, id: String(id) })
  return pageOf(await acts.execute(), limit, { position, show: showAct })
}

function actsWithSeal(db: Kysely<Database>) {
  return db
    .selectFrom('audit_log as row')
    .leftJoin('audit_chain as chain', 'chain.audit_id', 'row.id')
    .selectAll('row')
    .select('chain.seq')
}

type ActRow = Awaited<ReturnType<ReturnType<typeof actsWithSeal>['executeTakeFirstOrThrow']>>
type ListedAct = ReturnType<typeof showAct>

function showAct(row: ActRow) {
  return {
    id: row.id,
    seq: row.seq,
    at: row.at,
    actor: { type: row.actor_type, id: row.actor_id },
    impersonator: row.impersonator,
    action: row.action,
    target: row.target_type === null ? null : { type: row.target_type, id: row.target_id },
    reason: row.reason,
    before: row.before,
    after: row.after,
    details: row.details,
    ip: row.ip,
    userAgent: row.user_agent,
    requestId: row.request_id,
  }
}
