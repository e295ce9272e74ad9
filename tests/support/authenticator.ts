// An authenticator app for tests: the codes of a secret, at any step from now.
import { Secret, TOTP } from 'otpauth'

const PERIOD_MS = 30_000

/** The code of the step that is so many after the current one. */
export function codeOf(secret: string, steps = 0): string {
  const totp = new TOTP({ secret: Secret.fromBase32(secret), algorithm: 'SHA1', digits: 6, period: 30 })
  return totp.generate({ timestamp: Date.now() + steps * PERIOD_MS })
}

/** A code of six digits that is none of about now. */
export function wrongCodeOf(secret: string): string {
  const good = [-2, -1, 0, 1, 2].map((steps) => codeOf(secret, steps))
  return ['000000', '111111', '222222', '333333', '444444', '555555'].find((code) => !good.includes(code)) ?? ''
}
