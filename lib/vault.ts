// Secrets at rest: AES-256-GCM under ENCRYPTION_KEYS, each bound to the place it is kept in.
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from 'node:crypto'
import { keyFor, missingSecret } from './auth/secret.ts'
import { type Env, env } from './env.ts'
import { AppError } from './http/errors.ts'

/** Where a secret is kept. Moved to another row or column, it cannot be opened. */
export interface Place {
  table: string
  row: string
  column: string
}

const VERSION = 'v1'
/** NIST SP 800-38D: 96 bits for a random nonce, 128 for the tag. */
const NONCE_BYTES = 12
const TAG_BYTES = 16
/** The key that a machine with its own embedded database makes for itself. */
const LOCAL_KEY = 'local'

/** Why secrets cannot be kept, or undefined. */
export function vaultOffReason(settings = env()): string | undefined {
  if (settings.encryptionKeys || isOneMachine(settings)) return undefined
  return 'ENCRYPTION_KEYS is not set.'
}

/** `v1.<key id>.<base64url of nonce, tag and ciphertext>`. Throws FEATURE_DISABLED when there is no key. */
export function seal(secret: string, place: Place): string {
  const [first] = keys()
  if (!first) {
    throw new AppError('FEATURE_DISABLED', 'Secrets cannot be kept here.', { details: { reason: vaultOffReason() } })
  }
  return [VERSION, first.id, encrypt(first.key, Buffer.from(secret), place).toString('base64url')].join('.')
}

/** Throws when the secret was changed, moved, or sealed under a key that is not here any more. */
export function open(sealed: string, place: Place): string {
  const [version, id, encoded = ''] = sealed.split('.')
  const found = keys().find((candidate) => candidate.id === id)
  if (version !== VERSION || !found) throw new Error(`No key opens ${nameOf(place)}: it was sealed under "${id}".`)
  return decrypt(found.key, Buffer.from(encoded, 'base64url'), place).toString('utf8')
}

/** Nonce, tag and ciphertext, under a key of the caller's choice. */
export function encrypt(key: Buffer | KeyObject, secret: Uint8Array, place: Place): Buffer {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES }).setAAD(nameOf(place))
  const ciphertext = Buffer.concat([cipher.update(secret), cipher.final()])
  return Buffer.concat([nonce, cipher.getAuthTag(), ciphertext])
}

/** What `encrypt` was given. Throws when it was changed or moved, or the key is another. */
export function decrypt(key: Buffer | KeyObject, sealed: Uint8Array, place: Place): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
    .setAAD(nameOf(place))
    .setAuthTag(sealed.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES))
  return Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES + TAG_BYTES)), decipher.final()])
}

/** Whether a secret is sealed under the key that new ones are. */
export function isSealedAnew(sealed: string): boolean {
  return sealed.startsWith(`${VERSION}.${keys()[0]?.id}.`)
}

function keys(): { id: string; key: Buffer | KeyObject }[] {
  const given = env().encryptionKeys ?? []
  return isOneMachine(env()) ? [...given, { id: LOCAL_KEY, key: keyFor('vault') }] : given
}

/** Whether nothing else shares this database, so that a key of this machine's own will do. */
function isOneMachine(settings: Env): boolean {
  return missingSecret({ ...settings, authJwtSecret: undefined }) === null
}

function nameOf({ table, row, column }: Place): Buffer {
  return Buffer.from(`${table}/${row}/${column}`)
}
