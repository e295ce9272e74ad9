// Passwords: what is accepted (NIST SP 800-63B-4: length and a blocklist, no composition rules) and how they are hashed (bcrypt).
import { config } from '../config.ts'
import { AppError } from '../http/errors.ts'
// The passwords of ten characters and more in the frequency list of @zxcvbn-ts/language-common (MIT).
import commonPasswords from './common-passwords.json' with { type: 'json' }

const BCRYPT_COST = 12
/** bcrypt reads no further; a longer password would be cut silently. */
const PASSWORD_BYTES_MAX = 72
/** Compared against for an unknown e-mail, so that it takes as long as a known one. A hash of nothing anybody knows. */
const DUMMY_HASH = '$2b$12$C6UzMDM.H6dfI/f/IKcEeO7ZkVhJ3qk0xJ9mF0r3yq9dWlqzTtNMa'

/** Throws VALIDATION_FAILED at `path` unless the password is long enough, not too long, and not one everybody tries first. */
export function requireGoodPassword(password: string, path: string, personal: string[]): void {
  const problem = passwordProblem(password, personal)
  if (problem) throw new AppError('VALIDATION_FAILED', problem, { details: { issues: [{ path, message: problem }] } })
}

function passwordProblem(password: string, personal: string[]): string | undefined {
  const { passwordLengthMin } = config().auth
  if ([...password].length < passwordLengthMin) return `The password needs at least ${passwordLengthMin} characters.`
  if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX)
    return `The password is longer than ${PASSWORD_BYTES_MAX} bytes.`
  const plain = password.toLowerCase()
  if (commonPasswords.includes(plain) || /^(.)\1*$/su.test(plain))
    return 'This password is among the first anybody would try.'
  const words = [...personal, config().brand.name].map((word) => word.toLowerCase())
  if (words.includes(plain)) return 'The password must not be your name, your e-mail address or ours.'
  return undefined
}

export async function hashPassword(password: string): Promise<string> {
  const { hash } = await import('@node-rs/bcrypt')
  return await hash(password, { cost: BCRYPT_COST, rejectLongPasswords: true })
}

/** Whether the password is the hashed one. Without a hash it takes the same time and is false. */
export async function verifyPassword(password: string, hash: string | undefined): Promise<boolean> {
  const { verify } = await import('@node-rs/bcrypt')
  const same = await verify(password, hash ?? DUMMY_HASH)
  return same && hash !== undefined && Buffer.byteLength(password) <= PASSWORD_BYTES_MAX
}
