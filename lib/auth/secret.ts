// The secret of this deployment, and the keys derived from it for each purpose.
import { createHmac, createSecretKey, type KeyObject, randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { config } from '../config.ts'
import { type Env, env } from '../env.ts'
import { AppError } from '../http/errors.ts'

type Purpose =
  | 'access-token'
  | 'refresh-token'
  | 'trial'
  | 'network'
  | 'sign-in-failures'
  | 'idempotency'
  | 'audit-anchor'
  | 'vault'

const SECRET_BYTES = 32
/** As many as base64url makes of the bytes. */
const SECRET_CHARACTERS = 43

const keys = new Map<Purpose, KeyObject>()

/** Why local sign-in is off, or null: instances that share a database must share a secret too. */
export function missingSecret({ authJwtSecret, databaseUrl, onVercel, stage }: Env): string | null {
  const shared = databaseUrl ? onVercel || stage === 'production' : stage === 'production' && !onVercel
  return shared && !authJwtSecret ? 'AUTH_JWT_SECRET is not set (32 bytes or more).' : null
}

/** A 32-byte key for one purpose. Throws FEATURE_DISABLED when there is no secret to derive it from. */
export function keyFor(purpose: Purpose): KeyObject {
  const known = keys.get(purpose)
  if (known) return known
  const { authJwtSecret, clerk } = env()
  const secret =
    authJwtSecret ?? (config().auth.provider === 'clerk' ? clerk.secretKey : undefined) ?? secretOfThisMachine()
  const key = createSecretKey(createHmac('sha256', secret).update(purpose).digest())
  keys.set(purpose, key)
  return key
}

/** Made once and kept beside the embedded database, so that a restart signs nobody out. */
function secretOfThisMachine(): Buffer {
  const missing = missingSecret(env())
  if (missing) throw new AppError('FEATURE_DISABLED', 'Signing in is switched off.', { details: { reason: missing } })
  const file = join(env().dataDir, 'auth-secret')
  mkdirSync(env().dataDir, { recursive: true })
  try {
    writeFileSync(file, randomBytes(SECRET_BYTES).toString('base64url'), { flag: 'wx', mode: 0o600 })
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
  }
  const secret = readFileSync(file)
  // A disk that was full when it was made would leave everybody the same one.
  if (secret.length < SECRET_CHARACTERS)
    throw new Error(`${file} is damaged. Remove it: everybody has to sign in again.`)
  return secret
}
