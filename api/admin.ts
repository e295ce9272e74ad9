// What an admin may do: give tokens to a user, with a reason.
import { randomUUID } from 'node:crypto'
import * as v from 'valibot'
import { db } from '../db/client.ts'
import { recordAudit } from '../lib/audit.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { AppError } from '../lib/http/errors.ts'
import { grant, statementOf } from '../lib/ledger/ledger.ts'

const Grant = v.strictObject({
  tokens: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(100_000_000)),
  reason: v.pipe(v.string(), v.trim(), v.minLength(1, 'A reason is needed.'), v.maxLength(500)),
})

export default endpoint({
  'POST /api/admin/users/:id/grant': route({
    access: 'admin',
    limit: 'read',
    idempotent: true,
    body: Grant,
    handle: grantTokens,
  }),
})

async function grantTokens({
  caller,
  params,
  body,
  claim,
  ip,
  request,
  requestId,
}: Context<'admin', v.InferOutput<typeof Grant>>) {
  const userId = v.safeParse(v.pipe(v.string(), v.uuid()), params.id)
  const user =
    userId.success && (await db().selectFrom('users').select('id').where('id', '=', userId.output).executeTakeFirst())
  if (!user) throw new AppError('NOT_FOUND', 'There is no such user.')
  const source = `admin:${claim?.id ?? randomUUID()}`
  await db()
    .transaction()
    .execute(async (trx) => {
      if ((await grant(trx, { userId: user.id, kind: 'promo', tokens: body.tokens, source })) === 'replay') return
      await recordAudit(trx, {
        actor: { type: 'admin', id: caller.userId },
        action: 'tokens.grant',
        target: { type: 'user', id: user.id },
        reason: body.reason,
        details: { tokens: body.tokens, source },
        ip,
        userAgent: request.headers.get('user-agent'),
        requestId,
      })
    })
  const { balance } = await statementOf(db(), user.id)
  return Response.json({ userId: user.id, granted: body.tokens, balance }, { status: 201 })
}
