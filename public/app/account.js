// The signed-in person and what they can spend, kept in step with the session and with every reply.
import { useCallback, useEffect, useState } from '../vendor/preact-htm.js'
import { jsonOf } from './api.js'
import { authorized, onSession, restore } from './session.js'

/**
 * `user` is undefined until we know, null for a visitor. `billing` is the last `/api/billing/status`, with its balance
 * replaced by that of each generation's reply.
 */
export function useAccount() {
  const [user, setUser] = useState(undefined)
  const [billing, setBilling] = useState(null)

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

  useEffect(() => {
    onSession((next) => {
      setUser(next)
      if (next) applyBalance(next.balance)
      else setBilling(null)
    })
    restore().then(
      (found) => setUser(found),
      () => setUser(null),
    )
  }, [])

  useEffect(() => {
    if (user) refreshBilling()
  }, [user?.id])

  return { user, billing, setBilling, refreshBilling, applyBalance }
}

/** What the next generation takes from this balance: a free try first, whatever the quality, then tokens. */
export function nextPrice(billing, tool, quality) {
  const trialLeft = billing?.balance?.trialGenerations ?? 0
  if (trialLeft > 0) return { trialLeft, tokens: 0 }
  return {
    trialLeft: 0,
    tokens: quality === 'high' ? tool.highQualityPriceTokens : tool.priceTokens,
  }
}
