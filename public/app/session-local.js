// The accounts of this site: the access token in memory, the refresh token in localStorage, renewed silently and once at a time.
import { ApiError, call, isRefusal, jsonOf } from './api.js'

const STORAGE_KEY = 'session.refreshToken'
/** A token this close to its end is renewed before it is used, so that an upload is not refused half-way. */
const RENEW_BEFORE_MS = 20_000

let access = null
let renewing = null
let tell = () => {}

addEventListener('storage', (event) => {
  if (event.key === STORAGE_KEY && event.newValue === null) forget()
})

export function localProvider(listen) {
  tell = listen
  return { restore, token, forget, signOut }
}

export async function signUp({ name, email, password }) {
  return begin(await post('/api/auth/register', { name, email, password }))
}

/** `code` is that of the second factor. Without one where it is needed, fails with MFA_REQUIRED. */
export async function signIn({ email, password, code }) {
  return begin(await post('/api/auth/login', { email, password, ...(code && { code }) }))
}

/** signIn() to an account that was deleted and not erased yet: it is given back. */
export async function reopen({ email, password, code }) {
  return begin(await post('/api/auth/restore', { email, password, ...(code && { code }) }))
}

async function restore() {
  if (!localStorage.getItem(STORAGE_KEY)) return null
  try {
    return await renew()
  } catch (error) {
    if (isRefusal(error)) return null
    throw error
  }
}

async function token(refused) {
  // Another call may have renewed it while the refused one was under way.
  const isUsable = access && access.token !== refused && access.expiresAt - Date.now() >= RENEW_BEFORE_MS
  if (!isUsable) await renew()
  return access.token
}

function signOut() {
  const refreshToken = localStorage.getItem(STORAGE_KEY)
  forget()
  if (refreshToken) post('/api/auth/logout', { refreshToken }).catch(() => {})
}

async function post(path, body) {
  return await jsonOf(await call(path, { method: 'POST', body }))
}

function begin(answer) {
  access = { token: answer.accessToken, expiresAt: Date.now() + answer.expiresIn * 1000 }
  localStorage.setItem(STORAGE_KEY, answer.refreshToken)
  tell(answer.user)
  return answer.user
}

function forget() {
  access = null
  localStorage.removeItem(STORAGE_KEY)
  tell(null)
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
    return begin(await post('/api/auth/refresh', { refreshToken }))
  } catch (error) {
    if (isRefusal(error)) forget()
    throw error
  }
}
