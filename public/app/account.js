// The signed-in person and what they can spend, kept in step with the session and with every reply.
import { useCallback, useEffect, useState } from '../vendor/preact-htm.js'
import { jsonOf } from './api.js'
import { explainSignIn } from './explain.js'
import { authorized, dialogOfProvider, startSession } from './session.js'
import { priceOf } from './tool.js'

/**
 * `user` is undefined until we know, null for a visitor. `billing` is the last `/api/billing/status`, with its balance
 * replaced by that of each generation's reply. `trouble` says why signing in is not possible at the moment; null when it is.
 */
export function useAccount(auth) {
  const [user, setUser] = useState(undefined)
  const [billing, setBilling] = useState(null)
  const [trouble, setTrouble] = useState(null)

  const refreshBilling = useCallback(async () => {
    try {
      setBilling(await jsonOf(await authorized('/api/billing/status')))
    } catch {
      // The balance is a convenience here: the server decides again on every generation.
    }
  }, [])

  const applyBalance = useCallback((balance) => {
    if (balance) setBilling((known) => ({ ...known, balance: { ...known?.balance, ...balance } }))
  }, [])

  const stumble = (error) => {
    setUser(null)
    if (dialogOfProvider()) setTrouble({ text: explainSignIn(error) })
    if (!error.code) throw error
  }

  /** Opens the dialog of whoever checks identities for 'up' or 'in'; false where the page has one of its own. */
  const askProvider = useCallback((mode) => {
    const open = dialogOfProvider()
    if (!open) return false
    setTrouble((known) => known && { ...known, isBusy: true })
    open(mode).then(() => setTrouble(null), stumble)
    return true
  }, [])

  const refreshUser = useCallback(async () => {
    const found = await jsonOf(await authorized('/api/user/profile'))
    setUser(found)
    applyBalance(found.balance)
  }, [])

  useEffect(() => {
    const hear = (next, error) => {
      if (error) return stumble(error)
      setUser(next)
      if (next) applyBalance(next.balance)
      else setBilling(null)
    }
    startSession(auth, hear).then((found) => setUser(found), stumble)
  }, [])

  useEffect(() => {
    if (user) refreshBilling()
  }, [user?.id])

  return { user, billing, trouble, setBilling, refreshBilling, refreshUser, applyBalance, askProvider }
}

/** What the next generation takes from this balance: a free try first, whatever the quality, then tokens. */
export function nextPrice(billing, tool, quality) {
  const trialLeft = billing?.balance?.trialGenerations ?? 0
  if (trialLeft > 0) return { trialLeft, tokens: 0 }
  return { trialLeft: 0, tokens: priceOf(tool, quality) }
}
