// From here to the checkout and back: opening it, and finding out afterwards what came of it.
import { useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { jsonOf, newId } from './api.js'
import { authorized } from './session.js'

const PARAMETER = 'checkout_id'
/** Polar adds this one itself. It opens the buyer's purchases, so it does not stay in the address. */
const POLAR_SESSION_PARAMETER = 'customer_session_token'
const NOTE_KEY = 'checkout.note'
/** Between the questions about a payment that is under way; about 20 s in all. */
const PAUSES_MS = [1000, 2000, 3000, 5000, 8000]
/** These say something about the payment; any other failure may pass. */
const FINAL_ERRORS = { NOT_FOUND: 'unknown', FEATURE_DISABLED: 'unchecked', ACCOUNT_SUSPENDED: 'unchecked' }

/**
 * Buys a pack, an amount or a plan. Resolves to the new status where a plan was changed at once, else to where the buyer has
 * to go; `goTo` takes them there.
 */
export async function buy(path, body) {
  const headers = { 'idempotency-key': newId() }
  const [response, newest] = await Promise.all([
    authorized(path, { method: 'POST', body, headers }),
    newestOrder().catch(() => undefined),
  ])
  const answer = await jsonOf(response)
  if (response.status !== 201) return { status: answer }
  const { checkoutId, checkoutUrl } = answer
  if (newest !== undefined) note({ checkoutId, before: newest?.id ?? null, plan: body.plan })
  return { checkoutUrl }
}

/**
 * A buyer who is back: what became of the checkout in the page's address. `{ step: 'checking' | 'signIn' | 'paid' | 'failed' |
 * 'pending' | 'unknown' | 'unchecked', order?, plan? }`; null when there is none. The address loses it once that is known.
 */
export function useCheckoutReturn(account) {
  const [checkoutId] = useState(checkoutInAddress)
  const [result, setResult] = useState(checkoutId ? { step: 'checking' } : null)
  const isOver = useRef(!checkoutId)
  const who = account.user === undefined ? undefined : (account.user?.id ?? null)

  useEffect(() => {
    if (who === null && isOver.current) setResult(null)
    if (who === undefined || isOver.current) return
    if (who === null) return setResult({ step: 'signIn' })
    setResult({ step: 'checking' })
    const stop = new AbortController()
    outcomeOf(checkoutId, { signal: stop.signal, onAnswer: ({ balance }) => account.applyBalance(balance) }).then(
      (outcome) => {
        isOver.current = true
        forgetCheckout()
        setResult(outcome)
        account.refreshBilling()
      },
      // Somebody else signed in, or nobody is signed in any more: the effect of that says so.
      () => {},
    )
    return () => stop.abort()
  }, [who])

  return [result, () => setResult(null)]
}

async function outcomeOf(checkoutId, { signal, onAnswer }) {
  const known = noteOf(checkoutId)
  let wasAnswered = false
  for (const pauseMs of [0, ...PAUSES_MS]) {
    await pause(pauseMs, signal)
    try {
      const path = `/api/billing/checkouts/${encodeURIComponent(checkoutId)}/sync`
      const answer = await jsonOf(await authorized(path, { method: 'POST', signal }))
      wasAnswered = true
      onAnswer(answer)
      if (answer.status === 'failed' || answer.status === 'expired') return { step: 'failed' }
      if (answer.status === 'succeeded') {
        if (!known) return { step: 'paid' }
        const order = await newestOrder()
        if (order && order.id !== known.before && order.tokens > 0) return { step: 'paid', order, plan: known.plan }
      }
    } catch (error) {
      if (signal.aborted || error.code === 'UNAUTHENTICATED' || !error.code) throw error
      if (error.code in FINAL_ERRORS) return { step: FINAL_ERRORS[error.code] }
    }
  }
  return { step: wasAnswered ? 'pending' : 'unchecked' }
}

/** The newest order among the newest entries; null without one. An older one than these cannot become the newest. */
async function newestOrder() {
  const { data } = await jsonOf(await authorized('/api/billing/history?limit=20'))
  return data.find(({ type }) => type === 'order') ?? null
}

function checkoutInAddress() {
  const url = new URL(location.href)
  if (url.searchParams.has(POLAR_SESSION_PARAMETER)) replaceAddress(url, [POLAR_SESSION_PARAMETER])
  return url.searchParams.get(PARAMETER)
}

function forgetCheckout() {
  sessionStorage.removeItem(NOTE_KEY)
  replaceAddress(new URL(location.href), [PARAMETER])
}

function replaceAddress(url, without) {
  for (const name of without) url.searchParams.delete(name)
  history.replaceState(history.state, '', url.pathname + url.search + url.hash)
}

function note(facts) {
  sessionStorage.setItem(NOTE_KEY, JSON.stringify(facts))
}

/** What was noted when this very checkout was opened in this tab. */
function noteOf(checkoutId) {
  const noted = JSON.parse(sessionStorage.getItem(NOTE_KEY) ?? 'null')
  return noted?.checkoutId === checkoutId ? noted : undefined
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      reject(signal.reason)
    })
  })
}
