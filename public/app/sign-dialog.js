// Sign up and sign in, in one dialog, with every refusal shown where it belongs.
import { html, useRef, useState } from '../vendor/preact-htm.js'
import { Dialog, Field, focusFirstInvalid } from './dialog.js'
import { explainForm } from './explain.js'
import { PasswordField } from './password-field.js'
import { Countdown } from './problem.js'
import { reopen, signIn, signUp } from './session-local.js'
import { number, t } from './texts.js'

export const EMAIL = /^[^\s@]+@[^\s@]+\.[^\s@]+$/

/** `pending` says that a generation waits for this and goes on afterwards. `onForgot(email)` takes over for who forgot the password. */
export function SignDialog({ mode: firstMode, pending, config, onSignedIn, onForgot, onClose }) {
  const [mode, setMode] = useState(firstMode)
  const [values, setValues] = useState({ name: '', email: '', password: '', code: '' })
  const [needsCode, setNeedsCode] = useState(false)
  const isReopening = useRef(false)
  const [shown, setShown] = useState({ byField: {}, whole: '' })
  const [busy, setBusy] = useState(false)
  const form = useRef(null)
  const isNew = mode === 'up'
  const lengthMin = config.auth.passwordLengthMin

  const set = ({ currentTarget: { name, value } }) => {
    setValues((known) => ({ ...known, [name]: value }))
    if (name !== 'code') isReopening.current = false
    setShown((known) => ({ ...known, byField: { ...known.byField, [name]: undefined } }))
  }
  const focusFirst = () => requestAnimationFrame(() => form.current.querySelector('input').focus())
  const swap = () => {
    setMode(isNew ? 'in' : 'up')
    setShown({ byField: {}, whole: '' })
    focusFirst()
  }
  const askForCode = (isAsked) => {
    setNeedsCode(isAsked)
    setValues((known) => ({ ...known, code: '' }))
    setShown({ byField: {}, whole: '' })
    focusFirst()
  }

  async function submit(event) {
    event.preventDefault()
    if (busy || shown.retryAt > Date.now()) return
    const byField = needsCode ? checkCode(values) : check(values, { isNew, lengthMin })
    setShown({ byField, whole: '' })
    if (Object.keys(byField).length > 0) return focusFirstInvalid(form.current)
    setBusy(true)
    try {
      const send = isNew ? signUp : isReopening.current ? reopen : signIn
      onSignedIn(await send({ ...values, code: values.code.replace(/\s/g, '') }), { isNew })
    } catch (error) {
      setBusy(false)
      if (error.code === 'MFA_REQUIRED' && !needsCode) return askForCode(true)
      setShown(explainRefusal(error, { needsCode, isNew, isReopening: isReopening.current }))
      focusFirstInvalid(form.current)
    }
  }

  const giveBack = (event) => {
    isReopening.current = true
    submit(event)
  }
  const field = (name) => ({ name, label: t(name), value: values[name], message: shown.byField[name], onInput: set })
  return html`
    <${Dialog} title=${needsCode ? t('codeTitle') : titleOf(isNew, pending)} class="narrow" onClose=${onClose}>
      <p class="soft-text">${needsCode ? t('codeText') : subtitleOf(isNew, config.trial)}</p>
      <form ref=${form} class="form" noValidate onSubmit=${submit}>
        ${
          needsCode
            ? html`<${Field} key="code" ...${field('code')} hint=${t('codeHint')} inputmode="text" autocomplete="one-time-code" autocapitalize="none" spellcheck=${false} />`
            : html`
            ${isNew && html`<${Field} ...${field('name')} autocomplete="name" maxlength="100" autofocus />`}
            <${Field} ...${field('email')} type="email" autocomplete="username" inputmode="email" spellcheck=${false} autofocus=${!isNew} />
            ${shown.taken && html`<button type="button" class="link" onClick=${swap}>${t('errorEmailTakenText')}</button>`}
            <${PasswordField} ...${field('password')} isNew=${isNew} lengthMin=${lengthMin} />
          `
        }
        ${
          shown.whole &&
          html`
          <div class="problem bad" role="alert">
            <div>
              <p class="problem-title">${shown.whole}</p>
              ${shown.mayReopen && html`<button type="button" class="link" onClick=${giveBack}>${t('restoreAsk')}</button>`}
              ${shown.retryAt && html`<${Countdown} until=${shown.retryAt} onOver=${() => setShown({ byField: {}, whole: '' })} />`}
            </div>
          </div>
        `
        }
        <button type="submit" class="primary wide" aria-disabled=${busy}>${busy && html`<span class="spinner" aria-hidden="true"></span>`}${submitText(isNew, pending)}</button>
      </form>
      ${isNew && html`<${LegalNote} legal=${config.brand.legal} />`}
      <p class="swap">
        ${
          needsCode
            ? html`<button type="button" class="link" onClick=${() => askForCode(false)}>${t('codeBack')}</button>`
            : html`${isNew ? t('haveAccount') : t('noAccount')} <button type="button" class="link" onClick=${swap}>${isNew ? t('signIn') : t('signUp')}</button>`
        }
      </p>
      ${!isNew && !needsCode && config.auth.passwordReset && html`<p class="swap"><button type="button" class="link" onClick=${() => onForgot(values.email)}>${t('forgotPassword')}</button></p>`}
    <//>
  `
}

/** A code that is not taken is said at its field, whichever way the server puts it. */
function explainRefusal(error, { needsCode, isNew, isReopening }) {
  const isCode = needsCode && ['MFA_REQUIRED', 'UNAUTHENTICATED', 'VALIDATION_FAILED'].includes(error.code)
  if (isCode) return { byField: { code: t('codeWrong') }, whole: '' }
  if (isReopening && error.code === 'UNAUTHENTICATED') return { byField: {}, whole: t('restoreFailed') }
  return {
    ...explainForm(error, ['name', 'email', 'password']),
    mayReopen: !isNew && error.code === 'UNAUTHENTICATED',
  }
}

function checkCode({ code }) {
  return code.trim() ? {} : { code: t('codeMissing') }
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
