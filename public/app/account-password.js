// Changing the password, with the current one at hand.
import { html, useRef, useState } from '../vendor/preact-htm.js'
import { focusFirstInvalid } from './dialog.js'
import { explainForm } from './explain.js'
import { PasswordField } from './password-field.js'
import { authorized } from './session.js'
import { t } from './texts.js'

const NOTHING = { currentPassword: '', newPassword: '' }

export function PasswordForm({ lengthMin }) {
  const [values, setValues] = useState(NOTHING)
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
      setValues(NOTHING)
      setState('done')
    } catch (error) {
      setState('idle')
      if (error.code === 'FORBIDDEN') setShown({ byField: { currentPassword: t('currentPasswordWrong') }, whole: '' })
      else setShown(explainForm(error, Object.keys(NOTHING)))
      focusFirstInvalid(form.current)
    }
  }

  return html`
    <form ref=${form} class="form" noValidate onSubmit=${submit}>
      <${PasswordField} name="currentPassword" label=${t('currentPassword')} value=${values.currentPassword} message=${shown.byField.currentPassword} onInput=${set} />
      <${PasswordField} name="newPassword" label=${t('newPassword')} value=${values.newPassword} message=${shown.byField.newPassword} onInput=${set} isNew lengthMin=${lengthMin} />
      ${shown.whole && html`<p class="problem bad" role="alert">${shown.whole}</p>`}
      <button type="submit" class="soft" aria-disabled=${state === 'busy'}>${t('changePassword')}</button>
      <p class="field-hint good" role="status">${state === 'done' ? t('passwordChanged') : ''}</p>
    </form>
  `
}
