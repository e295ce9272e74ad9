// Mail to users: through Resend when its key is there, printed to the console in development, otherwise off.
import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { type Env, env } from './env.ts'
import { AppError } from './http/errors.ts'

const RESEND_URL = 'https://api.resend.com'
const TIMEOUT_MS = 5_000
const RETRY_DELAY_MS = 300

export interface Mail {
  to: string
  subject: string
  /** Plain text. */
  text: string
}

/** Why no mail can be sent, or undefined. */
export function mailOffReason({ resend, stage, onVercel }: Env): string | undefined {
  if (resend || (stage === 'development' && !onVercel)) return undefined
  return 'RESEND_API_KEY and MAIL_FROM are not set.'
}

/** Throws FEATURE_DISABLED where no mail can be sent. */
export function requireMail(): void {
  const reason = mailOffReason(env())
  if (reason) throw new AppError('FEATURE_DISABLED', 'No mail can be sent from here.', { details: { reason } })
}

/**
 * Sends one mail, tried twice at most and delivered once. Throws FEATURE_DISABLED, and an error without addresses when Resend
 * did not take it. It waits for the network: never call it inside a transaction.
 */
export async function sendMail(mail: Mail): Promise<void> {
  requireMail()
  const { resend } = env()
  if (!resend) return print(mail)
  const idempotencyKey = randomUUID()
  const refusal = await post(resend, mail, idempotencyKey)
  if (refusal === undefined) return
  if (!refusal.transient) throw new Error(refusal.message)
  await pause(RETRY_DELAY_MS)
  const second = await post(resend, mail, idempotencyKey)
  if (second) throw new Error(second.message)
}

interface Refusal {
  message: string
  transient: boolean
}

async function post(
  { apiKey, from, baseUrl }: NonNullable<Env['resend']>,
  { to, subject, text }: Mail,
  idempotencyKey: string,
): Promise<Refusal | undefined> {
  try {
    const response = await fetch(`${baseUrl ?? RESEND_URL}/emails`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${apiKey}`,
        'content-type': 'application/json',
        'idempotency-key': idempotencyKey,
      },
      body: JSON.stringify({ from, to: [to], subject, text }),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
    await response.body?.cancel() // Its words may repeat the address.
    if (response.ok) return undefined
    const { status } = response
    return { message: `Resend answered ${status}.`, transient: status === 429 || status >= 500 }
  } catch (error) {
    return { message: `Resend could not be reached: ${reasonOf(error)}.`, transient: true }
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown'
  const { cause } = error
  return cause instanceof Error && 'code' in cause ? String(cause.code) : error.name
}

function print({ to, subject, text }: Mail): void {
  console.log(`\nMail to ${to}\n${subject}\n\n${text}\n`)
}
