// The account: who you are, and in sections what belongs to it. What signing in takes is elsewhere where somebody else checks it.
import { html, useState } from '../vendor/preact-htm.js'
import { Data } from './account-data.js'
import { SecondFactor } from './account-factor.js'
import { Keys } from './account-keys.js'
import { PasswordForm } from './account-password.js'
import { Sessions } from './account-sessions.js'
import { ActionButton, Outcome, useActions } from './actions.js'
import { Dialog } from './dialog.js'
import { explainAccount } from './explain.js'
import { accountOfProvider, authorized, signOut } from './session.js'
import { humanize, t } from './texts.js'

export function AccountDialog({ user, billing, config, onSignOut, onDeleted, onClose }) {
  const actions = useActions(explainAccount)
  const openElsewhere = accountOfProvider()
  const leave = () => {
    onClose()
    onSignOut()
    signOut()
  }
  const manage = () => {
    onClose()
    openElsewhere()
  }
  return html`
    <${Dialog} title=${t('account')} class="account" onClose=${onClose}>
      <div class="who">
        <div>
          <p class="who-name">${user.name}</p>
          <p class="soft-text">${user.email}</p>
          ${billing?.plan && html`<p class="soft-text">${t('plan')}: ${humanize(billing.plan)}</p>`}
        </div>
        <button type="button" class="soft" onClick=${leave}>${t('signOut')}</button>
      </div>
      ${!openElsewhere && config.auth.passwordReset && user.emailVerified === false && html`<${Unconfirmed} email=${user.email} actions=${actions} />`}
      ${user.role === 'admin' && html`<p><a href="/admin">${t('adminLink')}</a></p>`}
      <div class="account-parts">
        ${config.features.apiKeys && html`<${Part} title=${t('keys')}><${Keys} actions=${actions} /><//>`}
        ${
          openElsewhere
            ? html`<div class="part"><button type="button" class="link part-link" onClick=${manage}>${t('manageSignIn')}</button></div>`
            : html`
            <${Part} title=${t('sessions')}><${Sessions} actions=${actions} /><//>
            <${Part} title=${t('changePassword')}><${PasswordForm} lengthMin=${config.auth.passwordLengthMin} /><//>
            <${Part} title=${t('factor')}><${SecondFactor} actions=${actions} /><//>
          `
        }
        <${Part} title=${t('data')}><${Data} actions=${actions} onDeleted=${onDeleted} /><//>
      </div>
    <//>
  `
}

function Unconfirmed({ email, actions }) {
  const send = () =>
    actions.run('email', 'email', async () => {
      await authorized('/api/auth/email/verification', { method: 'POST' })
      return { said: t('confirmSent', { email }) }
    })
  return html`
    <div class="unconfirmed">
      <p class="soft-text">${t('unconfirmed')} <${ActionButton} actions=${actions} name="email" class="link" onClick=${send}>${t('confirmSend')}<//></p>
      <${Outcome} actions=${actions} place="email" />
    </div>
  `
}

/** A section that asks the server for nothing until it is opened. */
function Part({ title, children }) {
  const [isOpen, setIsOpen] = useState(false)
  return html`
    <details class="part" onToggle=${({ currentTarget }) => setIsOpen(currentTarget.open)}>
      <summary>${title}</summary>
      ${isOpen && html`<div class="part-body">${children}</div>`}
    </details>
  `
}
