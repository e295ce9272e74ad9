// The top of the page: the brand on one side, balance and account on the other.
import { html } from '../vendor/preact-htm.js'
import { Icon } from './icons.js'
import { number, t, tokensText } from './texts.js'

export function Header({ brand, account, onSignIn, onSignUp, onTokens, onAccount }) {
  return html`
    <header class="top">
      <a class="brand" href="/" aria-label=${brand.name}>
        <${Logo} brand=${brand} />
        <span class="brand-name">${brand.name}</span>
      </a>
      <div class="top-actions">
        ${
          account.user === null &&
          html`
          <button type="button" class="quiet" onClick=${onSignIn}>${t('signIn')}</button>
          <button type="button" class="soft" onClick=${onSignUp}>${t('signUp')}</button>
        `
        }
        ${
          account.user &&
          html`
          <${Balance} balance=${account.billing?.balance} onClick=${onTokens} />
          <button type="button" class="avatar" aria-label=${t('accountOf', { name: account.user.name })} onClick=${onAccount}>
            ${(account.user.name || account.user.email || '?').trim().charAt(0).toUpperCase()}
          </button>
        `
        }
      </div>
    </header>
  `
}

function Logo({ brand }) {
  if (brand.logo) return html`<img class="logo" src=${brand.logo} alt="" width="36" height="36" />`
  return html`
    <svg class="logo" viewBox="0 0 36 36" aria-hidden="true" focusable="false">
      <rect class="logo-back" x="8" y="3" width="24" height="26" rx="5" transform="rotate(7 20 16)" />
      <rect class="logo-front" x="4" y="6" width="25" height="27" rx="5" />
      <path class="logo-line" d="M8.5 28 15 19.5l4.3 5 2.5-2.7L25 26M20.5 14.5v.01" />
    </svg>
  `
}

function Balance({ balance, onClick }) {
  if (!balance) return html`<span class="balance waiting" aria-hidden="true"></span>`
  const parts = [
    balance.trialGenerations > 0 && t('freeLeft', { count: number(balance.trialGenerations) }),
    (balance.tokens > 0 || !balance.trialGenerations) && tokensText(balance.tokens ?? 0),
  ].filter(Boolean)
  return html`
    <button type="button" class="balance" onClick=${onClick}>
      <span class="visually-hidden">${t('balance')}</span>
      <${Icon} name=${balance.trialGenerations > 0 ? 'gift' : 'coin'} />
      ${parts.map((part) => html`<span>${part}</span>`)}
    </button>
  `
}
