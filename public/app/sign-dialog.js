// Sign up and sign in, in one dialog, with every refusal shown where it belongs.
import { html, useRef, useState } from '../vendor/preact-htm.js'
import { Dialog, Field, focusFirstInvalid } from './dialog.js'
import { explainForm } from './explain.js'
import { Countdown } from './problem.js'
import { signIn, signUp } from './session.js'
import { number, t } from './texts.js'

const EMAIL = /^[^\s@]+@[^\s@]+\.[^\s@]+$/

/** `pending` says that a generation waits for this and goes on afterwards. */
export function SignDialog({ mode: firstMode, pending, config, onSignedIn, onClose }) {
  const [mode, setMode] = useState(firstMode)
  const [values, setValues] = useState({ name: '', email: '', password: '' })
  const [shown, setShown] = useState({ byField: {}, whole: '' })
  const [busy, setBusy] = useState(false)
  const form = useRef(null)
  const isNew = mode === 'up'
  const lengthMin = config.auth.passwordLengthMin

  const set = ({ currentTarget: { name, value } }) => {
    setValues((known) => ({ ...known, [name]: value }))
    setShown((known) => ({ ...known, byField: { ...known.byField, [name]: undefined } }))
  }
  const swap = () => {
    setMode(isNew ? 'in' : 'up')
    setShown({ byField: {}, whole: '' })
    requestAnimationFrame(() => form.current.querySelector('input').focus())
  }

  async function submit(event) {
    event.preventDefault()
    if (busy || shown.retryAt > Date.now()) return
    const byField = check(values, { isNew, lengthMin })
    setShown({ byField, whole: '' })
    if (Object.keys(byField).length > 0) return focusFirstInvalid(form.current)
    setBusy(true)
    try {
      await (isNew ? signUp(values) : signIn(values))
      onSignedIn()
    } catch (error) {
      setBusy(false)
      setShown(explainForm(error, ['name', 'email', 'password']))
      focusFirstInvalid(form.current)
    }
  }

  return html`
    <${Dialog} title=${titleOf(isNew, pending)} class="narrow" onClose=${onClose}>
      <p class="soft-text">${subtitleOf(isNew, config.trial)}</p>
      <form ref=${form} class="form" noValidate onSubmit=${submit}>
        ${isNew && html`<${Field} name="name" label=${t('name')} value=${values.name} message=${shown.byField.name} onInput=${set} autocomplete="name" maxlength="100" autofocus />`}
        <${Field} name="email" type="email" label=${t('email')} value=${values.email} message=${shown.byField.email} onInput=${set} autocomplete="username" inputmode="email" spellcheck=${false} autofocus=${!isNew} />
        ${shown.taken && html`<button type="button" class="link" onClick=${swap}>${t('errorEmailTakenText')}</button>`}
        <${PasswordField} name="password" label=${t('password')} value=${values.password} message=${shown.byField.password} onInput=${set} isNew=${isNew} lengthMin=${lengthMin} />
        ${
          shown.whole &&
          html`
          <div class="problem bad" role="alert">
            <div>
              <p class="problem-title">${shown.whole}</p>
              ${shown.retryAt && html`<${Countdown} until=${shown.retryAt} onOver=${() => setShown({ byField: {}, whole: '' })} />`}
            </div>
          </div>
        `
        }
        <button type="submit" class="primary wide" aria-disabled=${busy}>${busy && html`<span class="spinner" aria-hidden="true"></span>`}${submitText(isNew, pending)}</button>
      </form>
      ${isNew && html`<${LegalNote} legal=${config.brand.legal} />`}
      <p class="swap">
        ${isNew ? t('haveAccount') : t('noAccount')} <button type="button" class="link" onClick=${swap}>${isNew ? t('signIn') : t('signUp')}</button>
      </p>
    <//>
  `
}

/** A password with a show/hide button and, for a new one, a hint that follows its length. */
export function PasswordField({ isNew, lengthMin, value, ...field }) {
  const [visible, setVisible] = useState(false)
  const missing = lengthMin - [...value].length
  const hint =
    missing <= 0
      ? t('passwordGood')
      : value
        ? t('passwordShort', { count: missing })
        : t('passwordHint', { count: lengthMin })
  return html`
    <${Field}
      ...${field}
      value=${value}
      type=${visible ? 'text' : 'password'}
      autocomplete=${isNew ? 'new-password' : 'current-password'}
      hint=${isNew ? hint : undefined}
      hintGood=${missing <= 0}
      spellcheck=${false}
    >
      <button type="button" class="field-button" aria-pressed=${visible} onClick=${() => setVisible(!visible)}>
        ${visible ? t('hidePassword') : t('showPassword')}<span class="visually-hidden"> ${field.label}</span>
      </button>
    <//>
  `
}

function check({ name, email, password }, { isNew, lengthMin }) {
  const wrong = {}
  if (isNew && !name.trim()) wrong.name = t('nameMissing')
  if (!email.trim()) wrong.email = t('emailMissing')
  else if (!EMAIL.test(email.trim())) wrong.email = t('emailInvalid')
  if (!password) wrong.password = t('passwordMissing')
  else if (isNew && [...password].length < lengthMin) wrong.password = t('passwordTooShort', { count: lengthMin })
  return wrong
}

function titleOf(isNew, pending) {
  if (!isNew) return t('signInTitle')
  return pending ? t('signUpTitlePending') : t('signUpTitle')
}

function subtitleOf(isNew, trial) {
  if (!isNew) return t('signInText')
  return trial.generations > 0 ? t('signUpText', { count: number(trial.generations) }) : t('signUpTextNoTrial')
}

function submitText(isNew, pending) {
  if (isNew) return pending ? t('signUpButtonPending') : t('signUpButton')
  return pending ? t('signInButtonPending') : t('signIn')
}

function LegalNote({ legal }) {
  if (!legal.termsUrl || !legal.privacyUrl) return null
  const [before, between, after] = t('legalNote').split(/\{terms\}|\{privacy\}/)
  return html`
    <p class="fine">
      ${before}<a href=${legal.termsUrl} target="_blank" rel="noopener">${t('terms')}</a>${between}
      <a href=${legal.privacyUrl} target="_blank" rel="noopener">${t('privacy')}</a>${after}
    </p>
  `
}
