// What became of a payment, above the page a buyer comes back to.
import { html } from '../vendor/preact-htm.js'
import { Notice } from './notice.js'
import { humanize, t, tokensText } from './texts.js'

const ICONS = { checking: 'busy', pending: 'clock', paid: 'check' }

export function PurchaseNotice({ purchase, onSignIn, onTokens, onClose }) {
  const { step } = purchase
  const isOver = step !== 'checking'
  const next =
    step === 'signIn' ? { text: t('signIn'), onClick: onSignIn } : { text: t('purchaseShow'), onClick: onTokens }
  return html`
    <${Notice} icon=${ICONS[step] ?? 'alert'} label=${t('purchase')} step=${step} action=${isOver && next} onClose=${isOver && onClose}>
      ${wordsOf(purchase)}
    <//>
  `
}

function wordsOf({ step, order, plan }) {
  if (step !== 'paid') return t(`purchase${step.charAt(0).toUpperCase()}${step.slice(1)}`)
  if (!order) return t('purchasePaid')
  const tokens = tokensText(order.tokens)
  return plan ? t('purchasePlan', { plan: humanize(plan), tokens }) : t('purchaseTokens', { tokens })
}
