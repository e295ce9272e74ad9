// A forgotten password: asking for a link, and choosing a new one with it.
import { html, useRef, useState } from '../vendor/preact-htm.js'
import { call } from './api.js'
import { Dialog, Field, focusFirstInvalid } from './dialog.js'
import { explainForm } from './explain.js'
import { Icon } from './icons.js'
import { PasswordField } from './password-field.js'
import { EMAIL } from './sign-dialog.js'
import { t } from './texts.js'

/** What the server says of a link that is used up, too old or not one of ours. */
const LINK_OVER = new Set(['UNAUTHENTICATED', 'TOKEN_EXPIRED', 'NOT_FOUND', 'FORBIDDEN', 'CONFLICT'])

/** The answer is the same whether there is such an account or not. */
export function ForgotDialog({ email, onBack, onClose }) {
  const one = useOneField({
    name: 'email',
    first: email,
    check: (value) => (EMAIL.test(value.trim()) ? '' : t(value.trim() ? 'emailInvalid' : 'emailMissing')),
    send: (value) => call('/api/auth/password/forgot', { method: 'POST', body: { email: value.trim() } }),
  })
  return html`
    <${Dialog} title=${t('forgotTitle')} class="narrow" onClose=${onClose}>
      ${!one.isDone && html`<p class="soft-text">${t('forgotText')}</p>`}
      <${OneField} one=${one} done=${t('forgotSent', { email: one.field.value.trim() })} button=${t('forgotButton')}>
        <${Field} ...${one.field} label=${t('email')} type="email" autocomplete="username" inputmode="email" spellcheck=${false} autofocus />
      <//>
      <p class="swap"><button type="button" class="link" onClick=${onBack}>${t('backToSignIn')}</button></p>
    <//>
  `
}

/** Chooses a new password with the secret of a link. */
export function ResetDialog({ token, lengthMin, onForgot, onSignIn, onClose }) {
  const one = useOneField({
    name: 'newPassword',
    first: '',
    check: (value) => ([...value].length < lengthMin ? t('passwordTooShort', { count: lengthMin }) : ''),
    send: (newPassword) => call('/api/auth/password/reset', { method: 'POST', body: { token, newPassword } }),
  })
  return html`
    <${Dialog} title=${t('resetTitle')} class="narrow" onClose=${onClose}>
      ${!one.isDone && html`<p class="soft-text">${t('resetText')}</p>`}
      <${OneField} one=${one} done=${t('resetDone')} button=${t('resetButton')}>
        <${PasswordField} ...${one.field} label=${t('newPassword')} isNew lengthMin=${lengthMin} autofocus />
      <//>
      ${one.isDone && html`<button type="button" class="primary wide" onClick=${onSignIn}>${t('signIn')}</button>`}
      ${one.isLinkOver && html`<p class="swap"><button type="button" class="link" onClick=${onForgot}>${t('forgotPassword')}</button></p>`}
    <//>
  `
}

/** A form of one field: its state, and what becomes of sending it. */
function useOneField({ name, first, check, send }) {
  const [value, setValue] = useState(first)
  const [shown, setShown] = useState({ byField: {}, whole: '' })
  const [state, setState] = useState('idle')
  const form = useRef(null)
  const onInput = ({ currentTarget }) => {
    setValue(currentTarget.value)
    setShown({ byField: {}, whole: '' })
  }

  async function onSubmit(event) {
    event.preventDefault()
    if (state === 'busy') return
    const message = check(value)
    setShown({ byField: { [name]: message }, whole: '' })
    if (message) return focusFirstInvalid(form.current)
    setState('busy')
    try {
      await send(value)
      setState('done')
    } catch (error) {
      setState('idle')
      const explained = explainForm(error, [name])
      const isOver = LINK_OVER.has(error.code) || (error.code === 'VALIDATION_FAILED' && !explained.byField[name])
      setShown(isOver ? { byField: {}, whole: t('linkOver'), isLinkOver: true } : explained)
      focusFirstInvalid(form.current)
      if (!error.code) throw error
    }
  }

  return {
    field: { name, value, message: shown.byField[name], onInput },
    form,
    onSubmit,
    whole: shown.whole,
    isBusy: state === 'busy',
    isDone: state === 'done',
    isLinkOver: shown.isLinkOver,
  }
}

function OneField({ one, done, button, children }) {
  if (one.isDone) return html`<p class="problem note" role="status"><${Icon} name="check" />${done}</p>`
  return html`
    <form ref=${one.form} class="form" noValidate onSubmit=${one.onSubmit}>
      ${children}
      ${one.whole && html`<p class="problem bad" role="alert"><${Icon} name="alert" />${one.whole}</p>`}
      <button type="submit" class="primary wide" aria-disabled=${one.isBusy}>${one.isBusy && html`<span class="spinner" aria-hidden="true"></span>`}${button}</button>
    </form>
  `
}
