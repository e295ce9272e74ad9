// One-time codes of an authenticator app (RFC 6238), in the only form that every app knows: SHA-1, six digits, 30 seconds.

const PERIOD_SECONDS = 30
const SECRET_BYTES = 20
/** Steps before and after the current one whose codes are taken, for clocks that differ. */
const WINDOW_STEPS = 1

const FORM = { algorithm: 'SHA1', digits: 6, period: PERIOD_SECONDS }

/** A new secret in base32, and the address that an authenticator app reads it from. */
export async function newTotp({
  issuer,
  label,
}: {
  issuer: string
  label: string
}): Promise<{ secret: string; otpauthUrl: string }> {
  const { Secret, TOTP } = await import('otpauth')
  const secret = new Secret({ size: SECRET_BYTES })
  return { secret: secret.base32, otpauthUrl: new TOTP({ ...FORM, issuer, label, secret }).toString() }
}

/** Which step of time a code belongs to, counted from 1970; undefined when it is none of about `now`. */
export async function stepOf(secret: string, code: string, now: Date): Promise<number | undefined> {
  // The library sees to the length in characters, but compares bytes.
  if (/\D/.test(code)) return undefined
  const { Secret, TOTP } = await import('otpauth')
  const totp = new TOTP({ ...FORM, secret: Secret.fromBase32(secret) })
  const delta = totp.validate({ token: code, timestamp: now.getTime(), window: WINDOW_STEPS })
  return delta === null ? undefined : Math.floor(now.getTime() / 1000 / PERIOD_SECONDS) + delta
}
