// Idempotency-Key: one run per key and caller, its first answer replayed, a crashed run taken over.
// After draft-ietf-httpapi-idempotency-key-header-07 and Stripe's practice.
import { createHash } from 'node:crypto'
import { sql, type Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { refusalOf } from '../auth/account-state.ts'
import { keyFor } from '../auth/secret.ts'
import { config } from '../config.ts'
import { describeError, log } from '../log.ts'
import { decrypt, encrypt, type Place } from '../vault.ts'
import { AppError } from './errors.ts'

const KEEP = '24 hours'
const KEEP_LARGE_BODY = '1 hour'
const LARGE_BODY_BYTES = 65_536
/** Beside the providers' deadline: fetching what was uploaded, keeping what was made. */
const LOCK_MARGIN_MS = 60_000

/** A claimed key: the right to run once. `holdId` names the one hold this run may make. */
export interface Claim {
  id: string
  attempt: number
  holdId: string
  /** Whether the answer is a secret, and is kept encrypted. */
  sealed: boolean
}

interface Claimant {
  userId: string
  sessionId: string | undefined
}

/** The key a request carries, bare or as a structured-field string; undefined without one. */
export function idempotencyKey(request: Request): string | undefined {
  const header = request.headers.get('idempotency-key')
  if (header === null) return undefined
  const key = /^"(.*)"$/.exec(header.trim())?.[1] ?? header.trim()
  if (/^[\x21-\x7e]{1,255}$/.test(key)) return key
  throw new AppError('VALIDATION_FAILED', 'Idempotency-Key must be 1 to 255 visible ASCII characters.', {
    details: { issues: [{ path: 'Idempotency-Key', message: 'Not 1 to 255 visible ASCII characters.' }] },
  })
}

/** Claims `key` for a run, or gives the kept answer. Throws 409 while it runs or when its answer is gone, 422 when it was another request's. */
export async function claimKey(
  who: Claimant,
  scope: string,
  key: string,
  fingerprint: string,
  { sealed = false }: { sealed?: boolean } = {},
): Promise<{ claim: Claim } | { replay: Response }> {
  const lockMs = config().ai.deadlineMs + LOCK_MARGIN_MS
  const { rows } = await sql<ClaimRow>`
    select * from idempotency_claim(${who.userId}, ${who.sessionId ?? null}, ${scope}, ${key}, ${fingerprint},
      make_interval(secs => ${lockMs / 1000}), ${KEEP})
  `.execute(db())
  const [row] = rows
  if (!row) throw new Error('idempotency_claim answered nothing.')
  switch (row.outcome) {
    case 'run':
      return { claim: { id: row.id, attempt: row.attempt, holdId: `${row.id}:${row.attempt}`, sealed } }
    case 'replay':
      return {
        replay: new Response(sealed ? unseal(row) : Buffer.from(row.body ?? []), {
          status: row.status ?? 200,
          headers: { ...row.headers, 'idempotent-replayed': 'true' },
        }),
      }
    case 'gone':
      throw gone(row)
    case 'in_progress':
      throw inProgress()
    case 'reused':
      throw new AppError('IDEMPOTENCY_KEY_REUSED', 'This Idempotency-Key was used with another request.')
    default:
      throw refusalOf(row.outcome)
  }
}

/** Puts what a run did on record, in its own transaction: after that the key never runs again, even if the answer is lost. */
export async function keepReceipt(
  trx: Transaction<Database>,
  claim: Claim,
  facts: Record<string, unknown>,
): Promise<void> {
  const { numUpdatedRows } = await trx
    .updateTable('idempotency_keys')
    .set({ receipt: JSON.stringify(facts) })
    .where('id', '=', claim.id)
    .where('attempt', '=', claim.attempt)
    .executeTakeFirst()
  // A later run has taken over from this one, and this transaction must leave nothing.
  if (numUpdatedRows === 0n) throw inProgress()
}

/**
 * Keeps the answer for replays, or frees the key when the answer is one worth trying again (401, 429, 5xx). Never throws:
 * a caller who was charged gets the answer even if it cannot be kept. Returns an equal response.
 */
export async function keepAnswer(claim: Claim, response: Response): Promise<Response> {
  const { status } = response
  const body = Buffer.from(await response.arrayBuffer())
  const headers = Object.fromEntries(response.headers)
  const again = status === 401 || status === 429 || status >= 500
  const keep = body.length > LARGE_BODY_BYTES ? KEEP_LARGE_BODY : KEEP
  try {
    await db()
      .updateTable('idempotency_keys')
      .set({
        locked_until: null,
        ...(!again && {
          status,
          headers: JSON.stringify(headers),
          body: claim.sealed ? encrypt(keyFor('idempotency'), body, bodyOf(claim)) : body,
          body_expires_at: sql<Date>`now() + ${keep}::interval`,
        }),
      })
      .where('id', '=', claim.id)
      .where('attempt', '=', claim.attempt)
      .execute()
  } catch (error) {
    log('error', 'answer_not_kept', { claim: claim.id, error: describeError(error) })
  }
  return new Response(body, { status, headers })
}

/** What makes two requests the same: method, path with query, media type and content, whatever boundary a multipart body was cut with. */
export function fingerprintOf(request: Request, body: Buffer): string {
  const { pathname, search } = new URL(request.url)
  const [type = '', parameters = ''] = (request.headers.get('content-type') ?? '').split(/;(.*)/s)
  const hash = createHash('sha256').update(`${request.method} ${pathname}${search} ${type.trim().toLowerCase()}\n`)
  const boundary = /boundary="?([^";]+)"?/i.exec(parameters)?.[1]
  if (boundary === undefined) return hash.update(body).digest('hex')
  let start = 0
  for (let end = body.indexOf(boundary); end >= 0; end = body.indexOf(boundary, start)) {
    hash.update(body.subarray(start, end)).update('\0')
    start = end + boundary.length
  }
  return hash.update(body.subarray(start)).digest('hex')
}

/** An answer that cannot be read any more, because the secret of this deployment has changed, is one that is no longer kept. */
function unseal(row: ClaimRow): Buffer {
  try {
    return decrypt(keyFor('idempotency'), row.body ?? Buffer.alloc(0), bodyOf(row))
  } catch (cause) {
    throw gone(row, cause)
  }
}

function bodyOf({ id }: { id: string }): Place {
  return { table: 'idempotency_keys', row: id, column: 'body' }
}

function gone({ receipt }: ClaimRow, cause?: unknown): AppError {
  return new AppError(
    'CONFLICT',
    'This Idempotency-Key was used before and its answer is no longer kept. It was not run again.',
    { details: { receipt }, cause },
  )
}

function inProgress(): AppError {
  return new AppError('IDEMPOTENCY_IN_PROGRESS', 'A request with this Idempotency-Key is still running.', {
    headers: { 'retry-after': '1' },
  })
}

interface ClaimRow {
  outcome: string
  id: string
  attempt: number
  status: number | null
  headers: Record<string, string> | null
  body: Uint8Array | null
  receipt: Record<string, unknown> | null
}
