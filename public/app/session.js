// Who is signed in: the access token in memory, the refresh token in localStorage, renewed silently and once at a time.
import { ApiError, call, jsonOf } from './api.js'

const STORAGE_KEY = 'session.refreshToken'
/** A token this close to its end is renewed before it is used, so that an upload is not refused half-way. */
const RENEW_BEFORE_MS = 20_000

let access = null
let renewing = null
let listener = () => {}

/** Calls `listen(user | null)` whenever someone signs in or out, in this tab or another. */
export function onSession(listen) {
  listener = listen
  addEventListener('storage', (event) => {
    if (event.key === STORAGE_KEY && event.newValue === null) forget()
  })
}

/** Picks up the session of an earlier visit. Null when there is none or it has ended; throws `NETWORK` when nobody answers. */
export async function restore() {
  if (!localStorage.getItem(STORAGE_KEY)) return null
  try {
    return await renew()
  } catch (error) {
    if (isRefusal(error)) return null
    throw error
  }
}

export async function signUp({ name, email, password }) {
  return begin(await jsonOf(await call('/api/auth/register', { method: 'POST', body: { name, email, password } })))
}

export async function signIn({ email, password }) {
  return begin(await jsonOf(await call('/api/auth/login', { method: 'POST', body: { email, password } })))
}

/** Forgets the session at once; telling the server is best effort. */
export function signOut() {
  const refreshToken = localStorage.getItem(STORAGE_KEY)
  forget()
  if (refreshToken) call('/api/auth/logout', { method: 'POST', body: { refreshToken } }).catch(() => {})
}

/** call() with the access token. A refused token is renewed and the call repeated, once; a second refusal signs out. */
export async function authorized(path, init = {}) {
  const send = (token) => call(path, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } })
  if (!access || access.expiresAt - Date.now() < RENEW_BEFORE_MS) await renew()
  const { token } = access
  try {
    return await send(token)
  } catch (error) {
    if (!isRefusal(error)) throw error
  }
  // Another call may have renewed it while this one was under way.
  if (!access || access.token === token) await renew()
  try {
    return await send(access.token)
  } catch (error) {
    if (isRefusal(error)) forget()
    throw error
  }
}

function begin(answer) {
  access = { token: answer.accessToken, expiresAt: Date.now() + answer.expiresIn * 1000 }
  localStorage.setItem(STORAGE_KEY, answer.refreshToken)
  listener(answer.user)
  return answer.user
}

function forget() {
  access = null
  localStorage.removeItem(STORAGE_KEY)
  listener(null)
}

function isRefusal(error) {
  return error instanceof ApiError && (error.code === 'UNAUTHENTICATED' || error.code === 'TOKEN_EXPIRED')
}

/** One renewal at a time in this tab, and across tabs where the browser has locks: a refresh token may be used only once. */
function renew() {
  renewing ??= inTurn(exchange).finally(() => {
    renewing = null
  })
  return renewing
}

function inTurn(work) {
  return navigator.locks ? navigator.locks.request(STORAGE_KEY, work) : work()
}

async function exchange() {
  const refreshToken = localStorage.getItem(STORAGE_KEY)
  if (!refreshToken) throw new ApiError({ code: 'UNAUTHENTICATED' })
  try {
    return begin(await jsonOf(await call('/api/auth/refresh', { method: 'POST', body: { refreshToken } })))
  } catch (error) {
    if (isRefusal(error)) forget()
    throw error
  }
}
