// What is left to spend, and how to get more, or why that is not possible here.
import { html } from '../vendor/preact-htm.js'
import { useActions } from './actions.js'
import { Dialog } from './dialog.js'
import { History } from './history.js'
import { Plans } from './plans.js'
import { dateText, number, t } from './texts.js'
import { TopUp } from './top-up.js'

export function TokensDialog({ account, config, onClose }) {
  const { billing } = account
  const actions = useActions()
  const isOn = billing?.payments?.enabled ?? config.features.payments
  const balance = billing?.balance ?? {}
  return html`
    <${Dialog} title=${t('balanceTitle')} class=${isOn ? 'payments' : 'narrow'} onClose=${onClose}>
      <dl class="figures">
        <div><dt>${t('balanceTrial')}</dt><dd>${number(balance.trialGenerations ?? 0)}</dd></div>
        <div><dt>${t('balanceTokens')}</dt><dd>${number(balance.tokens ?? 0)}</dd></div>
      </dl>
      ${isOn ? html`<${Sources} billing=${billing} />` : billing?.tokenLimit > 0 && html`<p class="fine">${t('balanceMonthly', { count: number(billing.tokenLimit) })}</p>`}
      ${
        isOn
          ? html`
          <${TopUp} config=${config} actions=${actions} />
          <${Plans} account=${account} config=${config} actions=${actions} />
          <${History} config=${config} />
        `
          : html`<${NoPayments} billing=${billing} brand=${config.brand} />`
      }
    <//>
  `
}

/** Where the tokens come from, and what is taken off them. */
function Sources({ billing }) {
  const { planTokens = 0, purchasedTokens = 0, reservedTokens = 0, debtTokens = 0 } = billing?.balance ?? {}
  const lines = [
    [t('balancePlan', { date: dateText(billing?.periodEnd) }), number(planTokens)],
    [t('balancePurchased'), number(purchasedTokens)],
    reservedTokens > 0 && [t('balanceReserved'), number(reservedTokens)],
    debtTokens > 0 && [t('balanceDebt'), `−${number(debtTokens)}`],
  ].filter(Boolean)
  return html`
    <div class="sources">
      <dl>${lines.map(([what, count]) => html`<div><dt>${what}</dt><dd>${count}</dd></div>`)}</dl>
      ${debtTokens > 0 && html`<p class="fine">${t('balanceDebtNote')}</p>`}
    </div>
  `
}

function NoPayments({ billing, brand }) {
  const { reason } = billing?.payments ?? {}
  const [before, after] = t('paymentsContact').split('{email}')
  return html`
    <div class="problem note">
      <div>
        <p>${t('paymentsOff')}</p>
        ${brand.supportEmail && html`<p>${before}<a href=${`mailto:${brand.supportEmail}`}>${brand.supportEmail}</a>${after}</p>`}
        ${reason && html`<p class="fine">${t('paymentsOffReason', { reason })}</p>`}
      </div>
    </div>
  `
}
