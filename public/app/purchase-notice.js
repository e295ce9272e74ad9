// What became of a payment, above the page a buyer comes back to.
import { html } from '../vendor/preact-htm.js'
import { Icon } from './icons.js'
import { humanize, t, tokensText } from './texts.js'

const ICONS = { checking: 'clock', pending: 'clock', paid: 'check' }

export function PurchaseNotice({ purchase, onSignIn, onTokens, onClose }) {
  const { step } = purchase
  const close = () => {
    onClose()
    document.getElementById('studio').focus({ preventScroll: true })
  }
  return html`
    <section class="purchase" data-step=${step} aria-label=${t('purchase')}>
      ${step === 'checking' ? html`<span class="spinner" aria-hidden="true"></span>` : html`<${Icon} name=${ICONS[step] ?? 'alert'} />`}
      <p role="status">${wordsOf(purchase)}</p>
      ${step === 'signIn' && html`<button type="button" class="soft small" onClick=${onSignIn}>${t('signIn')}</button>`}
      ${step !== 'signIn' && step !== 'checking' && html`<button type="button" class="soft small" onClick=${onTokens}>${t('purchaseShow')}</button>`}
      ${step !== 'checking' && html`<button type="button" class="purchase-close" aria-label=${t('purchaseClose')} onClick=${close}><${Icon} name="close" /></button>`}
    </section>
  `
}

function wordsOf({ step, order, plan }) {
  if (step !== 'paid') return t(`purchase${step.charAt(0).toUpperCase()}${step.slice(1)}`)
  if (!order) return t('purchasePaid')
  const tokens = tokensText(order.tokens)
  return plan ? t('purchasePlan', { plan: humanize(plan), tokens }) : t('purchaseTokens', { tokens })
}
