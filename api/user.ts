// The caller themselves: profile, preferences, and what they used.
import { sql } from 'kysely'
import * as v from 'valibot'
import { db } from '../db/client.ts'
import { actorOf, recordAudit } from '../lib/audit.ts'
import { closeAccount } from '../lib/auth/deletion.ts'
import { exportOf } from '../lib/auth/export.ts'
import { requireKnownPreferences } from '../lib/auth/preferences.ts'
import { profileOf } from '../lib/auth/profile.ts'
import { invalidField, validate } from '../lib/http/body.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { listUsage, summariseUsage } from '../lib/ledger/history.ts'

const PREFERENCES_BYTES_MAX = 10_000

const Preferences = v.record(
  v.pipe(v.string(), v.regex(/^[a-zA-Z]\w{0,39}$/, 'Not a name.')),
  v.union([v.string(), v.number(), v.boolean(), v.null()]),
)
const ProfileChange = v.strictObject({
  name: v.optional(v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(100))),
  preferences: v.optional(Preferences),
})
const Instant = v.pipe(
  v.string(),
  // A year that every driver and PostgreSQL write alike.
  v.check((value) => /^[12]\d{3}-/.test(value) && !Number.isNaN(Date.parse(value)), 'Not a date.'),
  v.transform((value) => new Date(value)),
)
const Period = {
  from: v.optional(Instant),
  to: v.optional(Instant),
  tool: v.optional(v.pipe(v.string(), v.maxLength(100))),
}
const SummaryQuery = v.strictObject(Period)
const UsageQuery = v.strictObject({
  ...Period,
  limit: v.optional(v.pipe(v.string(), v.toNumber(), v.integer(), v.minValue(1), v.maxValue(100)), '20'),
  cursor: v.optional(v.pipe(v.string(), v.uuid('Not a cursor of ours.'))),
})

export default endpoint({
  'GET /api/user/profile': route({
    access: 'user',
    scope: 'read',
    limit: 'read',
    handle: ({ caller }) => profileOf(caller.userId),
  }),
  'PUT /api/user/profile': route({ access: 'user', limit: 'read', body: ProfileChange, handle: changeProfile }),
  'DELETE /api/user/profile': route({
    access: 'user',
    personal: true,
    limit: 'read',
    handle: (context) => closeAccount(context.caller.userId, actorOf(context, 'user')),
  }),
  'GET /api/user/export': route({ access: 'user', personal: true, limit: 'read', handle: exportAll }),
  'GET /api/user/usage': route({ access: 'user', scope: 'read', limit: 'read', handle: usage }),
  'GET /api/user/usage/summary': route({ access: 'user', scope: 'read', limit: 'read', handle: usageSummary }),
})

/** Given preferences are merged into the kept ones; null removes one. The audit log keeps which fields were set, not to what. */
async function changeProfile(context: Context<'user', v.InferOutput<typeof ProfileChange>>) {
  const { userId } = context.caller
  const { name, preferences = {} } = context.body
  requireKnownPreferences(preferences)
  const fields = [
    ...(name === undefined ? [] : ['name']),
    ...Object.keys(preferences).map((key) => `preferences.${key}`),
  ]
  if (fields.length === 0) return await profileOf(userId)
  const merged = sql<string>`jsonb_strip_nulls(preferences || ${JSON.stringify(preferences)}::jsonb)`
  await db()
    .transaction()
    .execute(async (trx) => {
      const { numUpdatedRows } = await trx
        .updateTable('users')
        .set({ ...(name !== undefined && { name }), preferences: merged })
        .where('id', '=', userId)
        .where(sql<boolean>`octet_length(${merged}::text) <= ${PREFERENCES_BYTES_MAX}`)
        .executeTakeFirst()
      if (numUpdatedRows === 0n) {
        throw invalidField('preferences', `All preferences together take more than ${PREFERENCES_BYTES_MAX} bytes.`)
      }
      const target = { type: 'user', id: userId }
      await recordAudit(trx, { ...actorOf(context, 'user'), action: 'user.profile', target, details: { fields } })
    })
  return await profileOf(userId)
}

async function exportAll({ caller }: Context<'user'>) {
  return new Response(await exportOf(db(), caller.userId), {
    headers: {
      'content-type': 'application/json; charset=utf-8',
      'content-disposition': 'attachment; filename="export.json"',
      'cache-control': 'no-store',
    },
  })
}

async function usage({ caller, url }: Context<'user'>) {
  const { from, to, tool, limit, cursor } = validate(UsageQuery, Object.fromEntries(url.searchParams), 'query')
  const rows = await listUsage(db(), { userId: caller.userId, from, to, tool, limit, after: cursor })
  const data = rows.slice(0, limit).map((row) => ({
    id: row.id,
    timestamp: row.timestamp,
    tool: row.tool,
    status: row.response_status,
    tokens: row.tokens_used,
    trial: row.trial,
    provider: row.provider,
    model: row.model,
    durationMs: row.duration_ms,
    errorCode: row.error_code,
    requestId: row.request_id,
    apiKeyId: row.api_key_id,
  }))
  const hasMore = rows.length > limit
  return { data, page: { nextCursor: hasMore ? data.at(-1)?.id : null, hasMore } }
}

async function usageSummary({ caller, url }: Context<'user'>) {
  const { from, to, tool } = validate(SummaryQuery, Object.fromEntries(url.searchParams), 'query')
  return await summariseUsage(db(), { userId: caller.userId, from, to, tool })
}
