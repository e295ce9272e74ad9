// Session tokens as Clerk mints them, with a key of our own, so that the real verification runs.
import {
  createPrivateKey,
  createPublicKey,
  createSign,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'

/** An application at Clerk: its key pair, and what its dashboard shows. */
export interface ClerkInstance {
  frontendApi: string
  publishableKey: string
  secretKey: string
  /** The PEM of the dashboard. */
  jwtKey: string
  kid: string
  privateKey: KeyObject
}

export interface TokenOptions {
  /** Claims set, or with undefined left out. */
  claims?: Record<string, unknown>
  header?: Record<string, unknown>
  /** Seconds from now; the token is made a minute before it expires. */
  expiresIn?: number
}

const SESSION_CATEGORY = 'cl_B7d4PD111AAA'
export const TEMPLATE_CATEGORY = 'cl_B7d4PD222AAA'
export const MACHINE_CATEGORY = 'cl_B7d4PD333AAA'

/** Where tests call from: the own origin of every request that `call` makes. */
export const OWN_ORIGIN = 'http://localhost'

/** Long enough for a test file; Clerk's own live 60 s. */
const LIFETIME_SECONDS = 600

export function newInstance(frontendApi = 'test-app-1.clerk.accounts.dev'): ClerkInstance {
  // The SDK strips fixed texts off a PEM instead of parsing it: it takes RSA of 2048 bits with the usual exponent only.
  const { publicKey, privateKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicExponent: 0x10001,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  })
  return {
    frontendApi,
    publishableKey: `pk_test_${Buffer.from(`${frontendApi}$`).toString('base64')}`,
    secretKey: `sk_test_${randomBytes(21).toString('hex')}`,
    jwtKey: publicKey,
    kid: clerkIdOf('ins'),
    privateKey: createPrivateKey(privateKey),
  }
}

/** An id in Clerk's form, such as user_2RfWKJREkjKbHZy0Wqa5qrHeAnb. */
export function clerkIdOf(kind: 'user' | 'sess' | 'ins' | 'idn' | 'msg'): string {
  return `${kind}_${randomBytes(32).toString('base64').replaceAll(/[+/=]/g, '').slice(0, 27)}`
}

/** A session token of the user, as `{ claims, header }` change it. */
export function mintToken(
  { frontendApi, kid, privateKey }: ClerkInstance,
  userId: string,
  { claims = {}, header = {}, expiresIn = LIFETIME_SECONDS }: TokenOptions = {},
): string {
  const now = Math.floor(Date.now() / 1000)
  const issuedAt = Math.min(now, now + expiresIn - 60)
  const input = [
    { alg: 'RS256', cat: SESSION_CATEGORY, kid, typ: 'JWT', ...header },
    {
      azp: OWN_ORIGIN,
      exp: now + expiresIn,
      fva: [0, -1],
      iat: issuedAt,
      iss: `https://${frontendApi}`,
      jti: randomBytes(10).toString('hex'),
      nbf: issuedAt - 10,
      sid: clerkIdOf('sess'),
      sts: 'active',
      sub: userId,
      v: 2,
      ...claims,
    },
  ]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  return `${input}.${createSign('RSA-SHA256').update(input).sign(privateKey, 'base64url')}`
}

/** What GET /v1/jwks answers. */
export function keySet({ kid, jwtKey }: ClerkInstance) {
  return { keys: [{ use: 'sig', kid, alg: 'RS256', ...createPublicKey(jwtKey).export({ format: 'jwk' }) }] }
}
