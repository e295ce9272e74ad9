// Who comes from a link in a mail of ours: a new password to choose, or an address that is confirmed by coming.
import { useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { call } from './api.js'
import { authorized } from './session.js'
import { t } from './texts.js'

/**
 * `onReset()` is called where a new password is to be chosen with `resetToken`, `onNotice({ icon, text })` with what becomes of
 * an address. The tokens leave the page's address at once: they are secrets.
 */
export function useLanding({ auth, account, onNotice, onReset }) {
  const [{ reset, verify }] = useState(() => (auth.provider === 'local' ? takeTokens() : {}))
  const isOver = useRef(!verify)
  useEffect(() => {
    if (reset) onReset()
    if (verify) onNotice({ icon: 'busy', text: t('verifying') })
  }, [])
  useEffect(() => {
    if (isOver.current || account.user === undefined) return
    isOver.current = true
    confirm(verify, account).then(onNotice)
  }, [account.user])
  return { resetToken: reset }
}

/** Whoever is signed in here says so: a changed address ends every session but that of who asks. */
async function confirm(token, { user, refreshUser }) {
  try {
    const send = user ? authorized : call
    await send('/api/auth/email/verify', { method: 'POST', body: { token } })
    if (user) await refreshUser().catch(() => {})
    return { icon: 'check', text: t('verified') }
  } catch (error) {
    if (!error.code) throw error
    const mayPass = ['NETWORK', 'RATE_LIMITED', 'INTERNAL_ERROR'].includes(error.code)
    return { icon: 'alert', text: t(mayPass ? 'verifyUnsure' : 'verifyFailed') }
  }
}

function takeTokens() {
  const address = new URL(location.href)
  const tokens = { reset: address.searchParams.get('reset'), verify: address.searchParams.get('verify') }
  if (tokens.reset || tokens.verify) {
    address.searchParams.delete('reset')
    address.searchParams.delete('verify')
    history.replaceState(history.state, '', address)
  }
  return tokens
}
