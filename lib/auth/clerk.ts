// The edge to Clerk: session tokens, users, webhooks. Its SDK is loaded on first use, and nothing of it is seen elsewhere.
import type { ClerkClient } from '@clerk/backend'
import * as v from 'valibot'
import { config } from '../config.ts'
import { frontendApiOf } from '../config-schema.ts'
import { env } from '../env.ts'
import { AppError } from '../http/errors.ts'
import { describeError, log } from '../log.ts'

/** What a session token of Clerk proves. */
export interface ClerkProof {
  clerkId: string
  /** `act.sub`: who acts in the user's name. */
  impersonator: string | undefined
  mfa: boolean
  /** From the claims `name`, `email` and `email_verified`, where the application adds them to its session tokens. */
  name: string | undefined
  email: string | undefined
  emailVerified: boolean
}

/** A user as Clerk knows them, as far as it matters here. */
export interface ClerkUser {
  id: string
  name: string | undefined
  /** In lower case. */
  email: string | undefined
  emailVerified: boolean
  banned: boolean
  /** Milliseconds on Clerk's clock: of two states, the one with more is the newer. */
  updatedAt: number
}

/** What can be asked of Clerk for a user. */
export type ClerkAct = 'ban' | 'unban' | 'delete'

const CLOCK_SKEW_MS = 5_000
const KEYS_TIMEOUT_MS = 3_000
const USER_TIMEOUT_MS = 3_000
const ACT_TIMEOUT_MS = 5_000
/** The category of session tokens. Tokens of JWT templates and of machines have others. */
const SESSION_CATEGORY = 'cl_B7d4PD111AAA'

/** An id of Clerk's, as long as our column. */
export const ClerkId = v.pipe(v.string(), v.regex(/^user_\w+$/), v.maxLength(64))
const Email = v.pipe(v.string(), v.trim(), v.toLowerCase(), v.email(), v.maxLength(255))

const Header = v.object({ alg: v.literal('RS256'), cat: v.optional(v.literal(SESSION_CATEGORY)) })

const Claims = v.object({
  sub: ClerkId,
  sid: v.pipe(v.string(), v.nonEmpty()),
  sts: v.optional(v.pipe(v.string(), v.notValue('pending'))),
  iss: v.string(),
  azp: v.optional(v.string()),
  act: v.optional(v.object({ sub: v.pipe(v.string(), v.maxLength(80)) })),
  fva: v.fallback(v.optional(v.tuple([v.number(), v.number()])), undefined),
  name: v.fallback(v.optional(v.string()), undefined),
  email: v.fallback(v.optional(Email), undefined),
  email_verified: v.fallback(v.optional(v.boolean()), undefined),
})

const UserJson = v.object({
  id: ClerkId,
  first_name: v.nullish(v.string()),
  last_name: v.nullish(v.string()),
  username: v.nullish(v.string()),
  primary_email_address_id: v.nullish(v.string()),
  email_addresses: v.optional(
    v.array(
      v.object({
        id: v.string(),
        email_address: v.string(),
        verification: v.nullish(v.object({ status: v.nullish(v.string()) })),
      }),
    ),
    [],
  ),
  banned: v.optional(v.boolean(), false),
  updated_at: v.pipe(v.number(), v.safeInteger()),
})

let client: Promise<ClerkClient> | undefined

/** Why no token of Clerk can be verified, or undefined. */
export function clerkOffReason({ clerk }: { clerk: { jwtKey?: string | undefined; secretKey?: string | undefined } }) {
  return clerk.jwtKey || clerk.secretKey ? undefined : 'Neither CLERK_JWT_KEY nor CLERK_SECRET_KEY is set.'
}

/**
 * Verifies a session token of this application, called from `ownOrigin`: without the network when CLERK_JWT_KEY is set. Throws
 * TOKEN_EXPIRED for one that is too old, UNAUTHENTICATED for anything else that is not one, PROVIDER_UNAVAILABLE while Clerk's
 * keys cannot be had. Why a token was refused is in the log only.
 */
export async function verifyClerkToken(token: string, ownOrigin: string): Promise<ClerkProof> {
  const reason = clerkOffReason(env())
  if (reason) throw new AppError('FEATURE_DISABLED', 'Signing in is switched off.', { details: { reason } })
  // Before the signature, so that nothing else makes us ask Clerk for its keys.
  if (!v.is(Header, headerOf(token))) throw notValid('not a session token')
  const claims = v.safeParse(Claims, await signedClaims(token))
  if (!claims.success) throw notValid(v.summarize(claims.issues))
  const { sub, iss, azp, act, fva, name, email, email_verified } = claims.output
  if (iss !== (issuer() ?? iss)) throw notValid('of another issuer')
  if (!isAuthorizedParty(azp, ownOrigin)) throw notValid('for another origin')
  return {
    clerkId: sub,
    impersonator: act?.sub,
    mfa: fva !== undefined && fva[1] !== -1,
    name,
    email,
    emailVerified: email_verified === true,
  }
}

/** A user as Clerk knows them now; undefined when there is none. Throws PROVIDER_UNAVAILABLE. Needs CLERK_SECRET_KEY. */
export async function fetchClerkUser(clerkId: string): Promise<ClerkUser | undefined> {
  try {
    const user = await within(USER_TIMEOUT_MS, (await clerk()).users.getUser(clerkId))
    return readClerkUser(user.raw)
  } catch (cause) {
    if (isNotFound(cause)) return undefined
    throw unavailable(cause)
  }
}

/** Asks Clerk to act on a user; one whom Clerk does not know needs nothing more. Throws whatever goes wrong. Needs CLERK_SECRET_KEY. */
export async function actAtClerk(act: ClerkAct, clerkId: string): Promise<void> {
  const { users } = await clerk()
  const calls = { ban: () => users.banUser(clerkId), unban: () => users.unbanUser(clerkId) }
  const call = act === 'delete' ? () => users.deleteUser(clerkId) : calls[act]
  try {
    await within(ACT_TIMEOUT_MS, call())
  } catch (error) {
    if (!isNotFound(error)) throw error
  }
}

/** A user in Clerk's own JSON, as its API and its webhooks give it. Throws ValiError for anything else. */
export function readClerkUser(json: unknown): ClerkUser {
  const user = v.parse(UserJson, json)
  const primary = user.email_addresses.find(({ id }) => id === user.primary_email_address_id)
  const email = v.safeParse(Email, primary?.email_address)
  return {
    id: user.id,
    name: [user.first_name, user.last_name].filter(Boolean).join(' ') || (user.username ?? undefined),
    email: email.success ? email.output : undefined,
    emailVerified: email.success && primary?.verification?.status === 'verified',
    banned: user.banned,
    updatedAt: user.updated_at,
  }
}

/** The event in a webhook's body, or undefined unless Clerk signed it in the last five minutes. Throws FEATURE_DISABLED. */
export async function verifyClerkEvent(
  body: Buffer,
  headers: Headers,
): Promise<{ type: string; data: unknown; attributes: unknown } | undefined> {
  const { webhookSigningSecret: signingSecret } = env().clerk
  if (signingSecret === undefined) {
    throw new AppError('FEATURE_DISABLED', 'Webhooks of Clerk are switched off.', {
      details: { reason: 'CLERK_WEBHOOK_SIGNING_SECRET is not set.' },
    })
  }
  const signature = ['svix-id', 'svix-timestamp', 'svix-signature'].map((name) => [name, headers.get(name) ?? ''])
  if (signature.some(([, value]) => value === '')) return undefined
  const { verifyWebhook } = await import('@clerk/backend/webhooks')
  const request = new Request('https://webhook.invalid/', {
    method: 'POST',
    headers: Object.fromEntries(signature),
    body: new Uint8Array(body),
  })
  try {
    const { type, data, event_attributes } = await verifyWebhook(request, { signingSecret })
    return { type, data, attributes: event_attributes }
  } catch (error) {
    // Anything else is a secret that cannot be used, which is our own fault.
    if (error instanceof Error && error.message.includes('Unable to verify incoming webhook')) return undefined
    throw error
  }
}

async function clerk(): Promise<ClerkClient> {
  client ??= connect()
  return await client
}

async function connect(): Promise<ClerkClient> {
  const { secretKey, apiUrl } = env().clerk
  if (secretKey === undefined) throw new Error('CLERK_SECRET_KEY is not set.')
  const { createClerkClient } = await import('@clerk/backend')
  return createClerkClient({ secretKey, ...(apiUrl !== undefined && { apiUrl }), telemetry: { disabled: true } })
}

async function signedClaims(token: string): Promise<unknown> {
  const { jwtKey, secretKey, apiUrl } = env().clerk
  const keys = jwtKey === undefined ? { secretKey, apiUrl } : { jwtKey }
  const given = Object.fromEntries(Object.entries(keys).filter(([, value]) => value !== undefined))
  const { verifyToken } = await import('@clerk/backend')
  try {
    return await within(KEYS_TIMEOUT_MS, verifyToken(token, { ...given, clockSkewInMs: CLOCK_SKEW_MS }))
  } catch (error) {
    if (reasonOf(error) === 'token-expired') {
      throw new AppError('TOKEN_EXPIRED', 'The session token has expired. Get a new one.')
    }
    throw jwtKey === undefined && areKeysMissing(error) ? unavailable(error) : notValid(error)
  }
}

/** Whether the token was not looked at, because Clerk did not give its keys: the SDK has a reason for any token that it refuses. */
function areKeysMissing(error: unknown): boolean {
  const reason = reasonOf(error)
  return reason === undefined || reason === 'jwk-remote-failed-to-load' || reason === 'secret-key-invalid'
}

function reasonOf(error: unknown): unknown {
  return error instanceof Error && 'reason' in error ? error.reason : undefined
}

function headerOf(token: string): unknown {
  try {
    return JSON.parse(Buffer.from(token.split('.', 1)[0] ?? '', 'base64url').toString())
  } catch {
    return undefined
  }
}

/** Who must have issued our tokens; undefined when nothing says so, and the key alone decides. */
function issuer(): string | undefined {
  const frontendApi = frontendApiOf(config().auth.clerk.publishableKey)
  return env().clerk.issuer ?? (frontendApi && `https://${frontendApi}`)
}

/** Mobile apps and servers get tokens that name no origin; pages always name theirs. */
function isAuthorizedParty(azp: string | undefined, ownOrigin: string): boolean {
  const { auth, cors } = config()
  const { authorizedParties, allowMissingAzp } = auth.clerk
  if (azp === undefined) return allowMissingAzp
  return authorizedParties.length > 0
    ? authorizedParties.includes(azp)
    : azp === ownOrigin || cors.origins.includes(azp)
}

function notValid(cause: unknown): AppError {
  log('info', 'clerk_token_refused', { error: describeError(cause).message })
  return new AppError('UNAUTHENTICATED', 'The session token is not valid.', { cause })
}

function unavailable(cause: unknown): AppError {
  return new AppError('PROVIDER_UNAVAILABLE', 'The sign-in service does not answer. Try again in a moment.', {
    details: { provider: 'clerk' },
    headers: { 'retry-after': '5' },
    cause,
  })
}

function isNotFound(error: unknown): boolean {
  return error instanceof Error && 'status' in error && error.status === 404
}

/** The SDK takes no signal, so that a call which hangs can only be left behind. */
async function within<T>(timeoutMs: number, call: Promise<T>): Promise<T> {
  const { promise: timeout, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(`No answer of Clerk within ${timeoutMs} ms.`)), timeoutMs)
  return await Promise.race([call, timeout]).finally(() => clearTimeout(timer))
}
