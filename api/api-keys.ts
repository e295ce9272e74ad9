// Keys for programs: make one, list them, end one, replace one. For people who are signed in; no key passes here.
import * as v from 'valibot'
import { db } from '../db/client.ts'
import { actorOf } from '../lib/audit.ts'
import { createKey, listKeys, requireKeysOn, revokeKey, rotateKey, SCOPES } from '../lib/auth/api-keys.ts'
import { Instant } from '../lib/billing/period.ts'
import { validate } from '../lib/http/body.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { AppError } from '../lib/http/errors.ts'
import { keepReceipt } from '../lib/http/idempotency.ts'
import { Cursor, PageLimit } from '../lib/paging.ts'

const TOKEN_BUDGET_MAX = 1_000_000_000
const REQUESTS_PER_MINUTE_MAX = 100_000
const OVERLAP_SECONDS_MAX = 30 * 86_400

const countUpTo = (max: number) => v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(max))
const NewKey = v.strictObject({
  name: v.pipe(v.string(), v.trim(), v.minLength(1, 'A name is needed.'), v.maxLength(100)),
  expiresAt: v.optional(Instant),
  scopes: v.optional(
    v.pipe(
      v.array(v.picklist(SCOPES)),
      v.minLength(1, 'At least one scope is needed.'),
      v.check((scopes) => new Set(scopes).size === scopes.length, 'The same scope twice.'),
    ),
    [...SCOPES],
  ),
  tokenBudget: v.optional(countUpTo(TOKEN_BUDGET_MAX)),
  requestsPerMinute: v.optional(countUpTo(REQUESTS_PER_MINUTE_MAX)),
})
const Rotation = v.strictObject({
  overlapSeconds: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(OVERLAP_SECONDS_MAX)), 0),
})
const KeysQuery = v.strictObject({ limit: PageLimit, cursor: v.optional(Cursor) })

const signedIn = { access: 'user', limit: 'read' } as const
/** What gives a key away is for its owner alone, and the answer is never kept in the clear. */
const givesKey = { ...signedIn, personal: true, idempotent: 'sealed' } as const

export default endpoint({
  'GET /api/api-keys': route({ ...signedIn, handle: keys }),
  'POST /api/api-keys': route({ ...givesKey, body: NewKey, handle: create }),
  'DELETE /api/api-keys/:id': route({ ...signedIn, handle: revoke }),
  'POST /api/api-keys/:id/rotate': route({ ...givesKey, body: Rotation, handle: rotate }),
})

async function keys({ caller, url }: Context<'user'>) {
  requireKeysOn()
  const { limit, cursor } = validate(KeysQuery, Object.fromEntries(url.searchParams), 'query')
  return await listKeys(db(), { userId: caller.userId, limit, cursor })
}

async function create(context: Context<'user', v.InferOutput<typeof NewKey>>) {
  requireKeysOn()
  const { caller, body, claim } = context
  const made = await db()
    .transaction()
    .execute(async (trx) => {
      const key = await createKey(trx, caller.userId, body, actorOf(context, 'user'))
      if (claim) await keepReceipt(trx, claim, { apiKeyId: key.id })
      return key
    })
  return Response.json(made, { status: 201 })
}

/** Ending a key twice is ending it once: 204 again. */
async function revoke(context: Context<'user'>) {
  requireKeysOn()
  const id = keyIdOf(context)
  await db()
    .transaction()
    .execute((trx) => revokeKey(trx, context.caller.userId, id, actorOf(context, 'user')))
  return new Response(null, { status: 204 })
}

async function rotate(context: Context<'user', v.InferOutput<typeof Rotation>>) {
  requireKeysOn()
  const { caller, body, claim } = context
  const rotation = { userId: caller.userId, id: keyIdOf(context), overlapSeconds: body.overlapSeconds }
  const made = await db()
    .transaction()
    .execute(async (trx) => {
      const key = await rotateKey(trx, rotation, actorOf(context, 'user'))
      if (claim) await keepReceipt(trx, claim, { apiKeyId: key.id })
      return key
    })
  return Response.json(made, { status: 201 })
}

function keyIdOf({ params }: { params: Record<string, string> }): string {
  const id = v.safeParse(v.pipe(v.string(), v.uuid()), params.id)
  if (id.success) return id.output
  throw new AppError('NOT_FOUND', 'There is no such API key.')
}
