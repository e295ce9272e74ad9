// The account: who you are, changing the password, and the places you are signed in.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { jsonOf } from './api.js'
import { Dialog, focusFirstInvalid } from './dialog.js'
import { explainForm } from './explain.js'
import { authorized, signOut } from './session.js'
import { PasswordField } from './sign-dialog.js'
import { dateText, humanize, t } from './texts.js'

export function AccountDialog({ user, billing, config, onSignOut, onClose }) {
  const leave = () => {
    onClose()
    onSignOut()
    signOut()
  }
  return html`
    <${Dialog} title=${t('account')} onClose=${onClose}>
      <div class="who">
        <div>
          <p class="who-name">${user.name}</p>
          <p class="soft-text">${user.email}</p>
          ${billing?.plan && html`<p class="soft-text">${t('plan')}: ${humanize(billing.plan)}</p>`}
        </div>
        <button type="button" class="soft" onClick=${leave}>${t('signOut')}</button>
      </div>
      ${user.role === 'admin' && html`<p><a href="/admin">${t('adminLink')}</a></p>`}
      <${Sessions} />
      <${PasswordForm} lengthMin=${config.auth.passwordLengthMin} />
    <//>
  `
}

function Sessions() {
  const [sessions, setSessions] = useState([])
  const load = async () => setSessions((await jsonOf(await authorized('/api/auth/sessions'))).data)
  // Without an answer the list stays as it is: it is a convenience, and the dialog works without it.
  const reload = () => load().catch(() => {})
  const end = ({ id }) => authorized(`/api/auth/sessions/${id}`, { method: 'DELETE' }).then(reload, reload)
  useEffect(() => {
    reload()
  }, [])
  if (sessions.length === 0) return null
  return html`
    <section class="part">
      <h3>${t('sessions')}</h3>
      <ul class="sessions">
        ${sessions.map(
          (session) => html`
          <li key=${session.id}>
            <span>
              ${deviceOf(session.userAgent)}
              <span class="soft-text">${session.current ? t('thisDevice') : t('lastUsed', { when: dateText(session.lastUsedAt ?? session.createdAt) })}</span>
            </span>
            ${
              !session.current &&
              html`
              <button type="button" class="quiet small" aria-label=${t('endSessionOf', { device: deviceOf(session.userAgent) })} onClick=${() => end(session)}>
                ${t('endSession')}
              </button>
            `
            }
          </li>
        `,
        )}
      </ul>
    </section>
  `
}

function PasswordForm({ lengthMin }) {
  const [values, setValues] = useState({ currentPassword: '', newPassword: '' })
  const [shown, setShown] = useState({ byField: {}, whole: '' })
  const [state, setState] = useState('idle')
  const form = useRef(null)
  const set = ({ currentTarget: { name, value } }) => {
    setValues((known) => ({ ...known, [name]: value }))
    setShown({ byField: {}, whole: '' })
    setState('idle')
  }

  async function submit(event) {
    event.preventDefault()
    if (state === 'busy') return
    const byField = {}
    if (!values.currentPassword) byField.currentPassword = t('passwordMissing')
    if ([...values.newPassword].length < lengthMin) byField.newPassword = t('passwordTooShort', { count: lengthMin })
    setShown({ byField, whole: '' })
    if (Object.keys(byField).length > 0) return focusFirstInvalid(form.current)
    setState('busy')
    try {
      await authorized('/api/auth/password', { method: 'POST', body: values })
      setValues({ currentPassword: '', newPassword: '' })
      setState('done')
    } catch (error) {
      setState('idle')
      if (error.code === 'FORBIDDEN') setShown({ byField: { currentPassword: t('currentPasswordWrong') }, whole: '' })
      else setShown(explainForm(error, ['currentPassword', 'newPassword']))
      focusFirstInvalid(form.current)
    }
  }

  return html`
    <details class="part">
      <summary>${t('changePassword')}</summary>
      <form ref=${form} class="form" noValidate onSubmit=${submit}>
        <${PasswordField} name="currentPassword" label=${t('currentPassword')} value=${values.currentPassword} message=${shown.byField.currentPassword} onInput=${set} />
        <${PasswordField} name="newPassword" label=${t('newPassword')} value=${values.newPassword} message=${shown.byField.newPassword} onInput=${set} isNew lengthMin=${lengthMin} />
        ${shown.whole && html`<p class="problem bad" role="alert">${shown.whole}</p>`}
        <button type="submit" class="soft" aria-disabled=${state === 'busy'}>${t('changePassword')}</button>
        <p class="field-hint good" role="status">${state === 'done' ? t('passwordChanged') : ''}</p>
      </form>
    </details>
  `
}

/** "Chrome, Linux" from a user agent; only what a person needs to recognise a device. */
function deviceOf(userAgent = '') {
  const browser = /(Edg|OPR|Firefox|Chrome|Safari)\//.exec(userAgent)?.[1]
  const system = /(iPhone|iPad|Android|Windows|Mac OS X|Linux)/.exec(userAgent)?.[1]
  const names = { Edg: 'Edge', OPR: 'Opera', 'Mac OS X': 'macOS' }
  return (
    [browser, system]
      .filter(Boolean)
      .map((name) => names[name] ?? name)
      .join(', ') || t('unknownDevice')
  )
}
