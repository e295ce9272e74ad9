// Buying tokens: the packs, and an amount of one's own.
import { html, useRef, useState } from '../vendor/preact-htm.js'
import { ActionButton, Outcome } from './actions.js'
import { Icon } from './icons.js'
import { buy } from './purchases.js'
import { money, number, t, tokensText } from './texts.js'

const EXAMPLE_CENTS = 1250

export function TopUp({ config, actions }) {
  const { packs, currency } = config.payments
  const price = config.tools[0].priceTokens
  const open = (name, body) =>
    actions.run('topUp', name, async () => ({ goTo: (await buy('/api/billing/checkout', body)).checkoutUrl }))
  return html`
    <section class="part" aria-labelledby="packs-title">
      <h3 id="packs-title">${t('packsTitle')}</h3>
      ${
        packs.length > 0 &&
        html`
        <ul class="packs">
          ${packs.map(
            (pack) => html`
            <li key=${pack.id}>
              <span>
                <strong>${tokensText(pack.tokens)}</strong>
                <span class="soft-text">${t('packCount', { count: number(Math.floor(pack.tokens / price)) })}</span>
              </span>
              <${ActionButton}
                actions=${actions}
                name=${`pack:${pack.id}`}
                aria-label=${t('buyPack', { tokens: number(pack.tokens), price: money(pack.priceCents, currency) })}
                onClick=${() => open(`pack:${pack.id}`, { pack: pack.id })}
              >
                ${money(pack.priceCents, currency)}
              <//>
            </li>
          `,
          )}
        </ul>
      `
      }
      <${Amount} payments=${config.payments} actions=${actions} onBuy=${(amountCents) => open('amount', { amountCents })} />
      <${Outcome} actions=${actions} place="topUp" waiting=${t('opening')} />
      <p class="fine">${t('packsNote')}</p>
    </section>
  `
}

function Amount({ payments, actions, onBuy }) {
  const [text, setText] = useState('')
  const [isWrong, setIsWrong] = useState(false)
  const input = useRef(null)
  const { cents, mistake } = readAmount(text, payments)
  const change = ({ currentTarget: { value } }) => {
    setText(value)
    setIsWrong(false)
    actions.clear()
  }
  const submit = (event) => {
    event.preventDefault()
    if (actions.busy !== null) return
    setIsWrong(cents === undefined)
    if (cents === undefined) input.current.focus()
    else onBuy(cents)
  }
  return html`
    <form class="field" noValidate onSubmit=${submit}>
      <label class="field-label" for="field-amount">${t('amountLabel', { currency: payments.currency.toUpperCase() })}</label>
      <div class="amount-row">
        <input
          ref=${input}
          id="field-amount"
          name="amount"
          inputmode="decimal"
          autocomplete="off"
          maxlength="12"
          value=${text}
          aria-invalid=${isWrong ? 'true' : undefined}
          aria-describedby="amount-message"
          onInput=${change}
        />
        <${ActionButton} actions=${actions} name="amount" type="submit">${t('amountBuy')}<//>
      </div>
      <output class=${isWrong ? 'amount-note field-message' : 'amount-note field-hint'} id="amount-message" for="field-amount">
        ${isWrong && html`<${Icon} name="alert" />`}
        ${noteOf({ cents, mistake, isWrong }, payments)}
      </output>
    </form>
  `
}

function noteOf({ cents, mistake, isWrong }, payments) {
  if (isWrong) return mistake
  if (cents === undefined) return hintOf(payments)
  const tokens = Math.floor((cents * payments.tokensPerDollar) / 100)
  return t('amountGives', { tokens: tokensText(tokens), price: money(cents, payments.currency) })
}

function hintOf({ minimumDepositCents, tokensPerDollar, currency }) {
  const words = { minimum: money(minimumDepositCents, currency), rate: tokensText(tokensPerDollar) }
  return t('amountHint', { ...words, unit: money(100, currency) })
}

/** Whole cents from what people write: `12`, `12.5`, `12,50`, with or without the sign of the currency. */
function readAmount(text, { minimumDepositCents, currency }) {
  const [, units, fraction = ''] = /^(\d{1,9})(?:[.,](\d*))?$/.exec(text.replace(/[\s\p{Sc}]/gu, '')) ?? []
  if (units === undefined) return { mistake: t('amountUnclear', { example: money(EXAMPLE_CENTS, currency) }) }
  if (fraction.length > 2) return { mistake: t('amountFine') }
  const cents = Number(units) * 100 + Number(fraction.padEnd(2, '0'))
  if (cents < minimumDepositCents) {
    return { mistake: t('amountBelow', { minimum: money(minimumDepositCents, currency) }) }
  }
  return { cents }
}
