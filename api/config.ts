// The public part of the fork's configuration: what pages and apps need to look and behave like it.
import { createHash } from 'node:crypto'
import { paymentsOffReason } from '../lib/billing/payments.ts'
import { config, publicConfig } from '../lib/config.ts'
import { env } from '../lib/env.ts'
import { type Context, endpoint, route } from '../lib/http/endpoint.ts'
import { mailOffReason } from '../lib/mail.ts'

export default endpoint({
  'GET /api/config': route({ access: 'public', limit: 'read', handle: show }),
})

function show({ request }: Context<'public'>) {
  const settings = config()
  const paymentsOn = paymentsOffReason(settings, env()) === undefined
  const body = JSON.stringify(publicConfig(settings, { paymentsOn, mailOn: mailOffReason(env()) === undefined }))
  const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`
  const headers = { etag, 'cache-control': 'public, max-age=0, must-revalidate' }
  if (matches(request.headers.get('if-none-match'), etag)) return new Response(null, { status: 304, headers })
  return new Response(body, { headers: { ...headers, 'content-type': 'application/json' } })
}

function matches(header: string | null, etag: string): boolean {
  const candidates = header?.split(',') ?? []
  return candidates.some((candidate) => ['*', etag].includes(candidate.trim().replace(/^W\//, '')))
}
