// The signed-in person and what they can spend, kept in step with the session and with every reply.
import { useCallback, useEffect, useState } from '../vendor/preact-htm.js'
import { jsonOf } from './api.js'
import { authorized, onSession, restore } from './session.js'
import { t } from './texts.js'

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
      if (!next) setBilling(null)
    })
    restore().then(
      (found) => setUser(found),
      () => setUser(null),
    )
  }, [])

  useEffect(() => {
    if (user) refreshBilling()
  }, [user?.id])

  return { user, billing, refreshBilling, applyBalance }
}

/** Back from the checkout: has the payment applied now, and says what to tell. Null when nobody comes from there. */
export async function finishCheckout() {
  const address = new URL(location.href)
  const checkoutId = address.searchParams.get('checkout_id')
  if (!checkoutId) return null
  address.searchParams.delete('checkout_id')
  history.replaceState(null, '', address)
  try {
    const path = `/api/billing/checkouts/${encodeURIComponent(checkoutId)}/sync`
    const { status } = (await jsonOf(await authorized(path, { method: 'POST' }))) ?? {}
    return status === 'succeeded' || status === 'paid' ? t('paidThanks') : t('paidWaiting')
  } catch {
    return t('paidWaiting')
  }
}

/** What the next generation takes from this balance: one free try first, tokens after that. */
export function nextPrice(billing, tool, quality) {
  const trialLeft = billing?.balance?.trialGenerations ?? 0
  if (trialLeft > 0) return { trialLeft, tokens: 0 }
  return {
    trialLeft: 0,
    tokens: quality === 'high' ? (tool.highQualityPriceTokens ?? tool.priceTokens) : tool.priceTokens,
  }
}
