// Who is signed in, whoever checks it: the accounts of this site, or Clerk.
import { call, isRefusal } from './api.js'
import { clerkProvider } from './session-clerk.js'
import { localProvider } from './session-local.js'

/**
 * What a provider of identities offers, and all that the rest of the page knows of it:
 * - `restore()` resolves to the user of an earlier visit, or null; throws ApiError when that cannot be found out.
 * - `token(refused?)` resolves to a token for one request; to another one where the server did not take `refused`.
 * - `forget()` drops a session that is over; `signOut()` ends it as well.
 * - `openSignIn(mode)` and `openAccount()`, where the provider has dialogs of its own for signing in and for what signing in takes.
 * It reports every change by the `tell(user | null)` that it is made with.
 */
let provider = localProvider(() => {})

/** Picks up the session of an earlier visit, if any, and calls `tell(user | null)` from then on. Throws ApiError when nobody answers. */
export function startSession(auth, tell) {
  provider = auth.provider === 'clerk' ? clerkProvider(auth, tell) : localProvider(tell)
  return provider.restore()
}

/** The provider's own dialog for 'up' or 'in'; undefined where the page has to open its own. */
export function dialogOfProvider() {
  return provider.openSignIn
}

/** The provider's own page about passwords, second factors and devices; undefined where the page has sections for them. */
export function accountOfProvider() {
  return provider.openAccount
}

/** Forgets the session at once; telling whoever keeps it is best effort. */
export function signOut() {
  provider.signOut()
}

/** call() with a token. A refused token is renewed and the call repeated, once; a second refusal signs out. */
export async function authorized(path, init = {}) {
  const send = (token) => call(path, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } })
  const token = await provider.token()
  try {
    return await send(token)
  } catch (error) {
    if (!isRefusal(error)) throw error
  }
  const renewed = await provider.token(token)
  try {
    return await send(renewed)
  } catch (error) {
    if (isRefusal(error)) provider.forget()
    throw error
  }
}
