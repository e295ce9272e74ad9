// The invoice of an order: asked for, waited for, and opened in a tab of its own.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { jsonOf } from './api.js'
import { explainPayment } from './explain.js'
import { authorized } from './session.js'
import { dateText, t } from './texts.js'

const ASKS_MAX = 4
const RETRY_SECONDS_MAX = 10

export function InvoiceButton({ order }) {
  const [state, setState] = useState({ step: 'idle' })
  const button = useRef(null)
  const link = useRef(null)
  const isShown = useRef(true)
  const hadFocus = useRef(false)
  useEffect(() => {
    return () => {
      isShown.current = false
    }
  }, [])
  useEffect(() => {
    // One takes the other's place, and the focus with it.
    if (hadFocus.current) (link.current ?? button.current).focus()
    hadFocus.current = false
  }, [state.step])

  const go = (next) => {
    if (!isShown.current) return
    hadFocus.current = [button.current, link.current].includes(document.activeElement)
    setState(next)
  }

  async function ask() {
    if (state.step === 'busy') return
    go({ step: 'busy' })
    try {
      const url = await invoiceUrl(order.id, () => isShown.current)
      if (!url) return go({ step: 'idle', note: t('invoiceLater') })
      go({ step: 'ready', url })
      // Later than a moment after the press the browser would take it for a pop-up: then the link waits for a press.
      if (navigator.userActivation?.isActive && isShown.current) openTab(url)
    } catch (error) {
      go({ step: 'idle', problem: explainPayment(error) })
      if (!error.code) throw error
    }
  }

  const what = html`<span class="visually-hidden"> ${t('invoiceOf', { what: order.description || t('historyOrder'), date: dateText(order.at) })}</span>`
  // Its address is good for a while only: the next press asks again.
  const leave = () => setTimeout(() => go({ step: 'idle' }))
  return html`
    ${
      state.step === 'ready'
        ? html`<a class="link" ref=${link} href=${state.url} target="_blank" rel="noopener noreferrer" onClick=${leave}>${t('invoiceOpen')}${what}<span class="visually-hidden"> ${t('newTab')}</span></a>`
        : html`<button type="button" class="link" ref=${button} aria-disabled=${state.step === 'busy'} onClick=${ask}>${t('invoice')}${what}</button>`
    }
    <span class="entry-note" role="status">${state.step === 'busy' ? t('invoicePreparing') : (state.note ?? '')}</span>
    ${state.problem && html`<span class="entry-note bad" role="alert">${state.problem}</span>`}
  `
}

/** The link to an invoice; undefined when it is not written within a few askings. */
async function invoiceUrl(orderId, isWanted) {
  for (let asked = 0; asked < ASKS_MAX && isWanted(); asked += 1) {
    const response = await authorized(`/api/billing/invoices/${encodeURIComponent(orderId)}`)
    const { url } = await jsonOf(response)
    if (url) return url
    const seconds = Math.min(RETRY_SECONDS_MAX, Number(response.headers.get('retry-after')) || 1)
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
  }
  return undefined
}

function openTab(url) {
  const link = document.createElement('a')
  link.href = url
  link.target = '_blank'
  link.rel = 'noopener noreferrer'
  link.click()
}
