// Webhook signatures, both ways that Polar has of reading a secret.
import { createHmac, randomBytes } from 'node:crypto'

/** `standard` for secrets that Polar made since September 2026, `legacy` for older ones. */
export type SigningScheme = 'standard' | 'legacy'

const PREFIX = 'whsec_'

export function newSecret(): string {
  return PREFIX + randomBytes(32).toString('base64')
}

/** The headers of one attempt to send `body`; `timestampSeconds` is the attempt's, not the event's. */
export function signedHeaders(message: {
  id: string
  body: string
  timestampSeconds: number
  secret: string
  scheme: SigningScheme
}): Record<string, string> {
  const { id, body, timestampSeconds, secret, scheme } = message
  const signature = createHmac('sha256', hmacKey(secret, scheme)).update(`${id}.${timestampSeconds}.${body}`)
  return {
    'user-agent': 'polar.sh webhooks',
    'content-type': 'application/json',
    'webhook-id': id,
    'webhook-timestamp': String(timestampSeconds),
    'webhook-signature': `v1,${signature.digest('base64')}`,
    'webhook-api-version': '2026-10',
  }
}

/** Older secrets are keyed with the text itself, prefix and all. */
function hmacKey(secret: string, scheme: SigningScheme): Buffer {
  return scheme === 'legacy' ? Buffer.from(secret, 'utf8') : Buffer.from(secret.replace(PREFIX, ''), 'base64')
}
