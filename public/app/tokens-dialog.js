// What is left to spend, and how to get more, or why that is not possible here.
import { html, useState } from '../vendor/preact-htm.js'
import { jsonOf, newId } from './api.js'
import { Dialog } from './dialog.js'
import { explainForm } from './explain.js'
import { authorized } from './session.js'
import { money, number, t, tokensText } from './texts.js'

export function TokensDialog({ billing, config, onClose }) {
  const balance = billing?.balance ?? {}
  return html`
    <${Dialog} title=${t('balanceTitle')} class="narrow" onClose=${onClose}>
      <dl class="figures">
        <div><dt>${t('balanceTrial')}</dt><dd>${number(balance.trialGenerations ?? 0)}</dd></div>
        <div><dt>${t('balanceTokens')}</dt><dd>${number(balance.tokens ?? 0)}</dd></div>
      </dl>
      ${billing?.tokenLimit > 0 && html`<p class="fine">${t('balanceMonthly', { count: number(billing.tokenLimit) })}</p>`}
      ${billing?.payments?.enabled ? html`<${Packs} config=${config} />` : html`<${NoPayments} billing=${billing} brand=${config.brand} />`}
    <//>
  `
}

function Packs({ config }) {
  const [opening, setOpening] = useState(null)
  const [problem, setProblem] = useState('')
  const { packs, currency } = config.payments
  const price = config.tools[0].priceTokens

  async function buy({ id }) {
    setOpening(id)
    setProblem('')
    try {
      const headers = { 'idempotency-key': newId() }
      const { checkoutUrl } = await jsonOf(
        await authorized('/api/billing/checkout', { method: 'POST', body: { pack: id }, headers }),
      )
      location.assign(checkoutUrl)
    } catch (error) {
      setOpening(null)
      setProblem(explainForm(error, []).whole)
    }
  }

  return html`
    <h3>${t('packsTitle')}</h3>
    <ul class="packs">
      ${packs.map(
        (pack) => html`
        <li key=${pack.id}>
          <span>
            <strong>${tokensText(pack.tokens)}</strong>
            <span class="soft-text">${t('packCount', { count: number(Math.floor(pack.tokens / price)) })}</span>
          </span>
          <button
            type="button"
            class="soft"
            aria-disabled=${opening !== null}
            aria-label=${t('buyPack', { tokens: number(pack.tokens), price: money(pack.priceCents, currency) })}
            onClick=${() => opening === null && buy(pack)}
          >
            ${opening === pack.id ? t('opening') : money(pack.priceCents, currency)}
          </button>
        </li>
      `,
      )}
    </ul>
    ${problem && html`<p class="problem bad" role="alert">${problem}</p>`}
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
