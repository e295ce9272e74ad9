// The second factor: setting it up with an authenticator app, recovery codes shown once, and switching it off.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { Missing, useFound } from './account-list.js'
import { ActionButton, Outcome } from './actions.js'
import { jsonOf } from './api.js'
import { Field, focusFirstInvalid } from './dialog.js'
import { explainForm } from './explain.js'
import { Once } from './once.js'
import { PasswordField } from './password-field.js'
import { authorized } from './session.js'
import { number, t } from './texts.js'

const CODE_INPUT = { inputmode: 'numeric', autocomplete: 'one-time-code', spellcheck: false, maxlength: '40' }

async function post(action, body) {
  return await jsonOf(await authorized(`/api/auth/mfa/${action}`, { method: 'POST', body }))
}

export function SecondFactor({ actions }) {
  const source = useFound('/api/auth/mfa')
  const [enrolment, setEnrolment] = useState(null)
  const [codes, setCodes] = useState(null)
  const [isLeaving, setIsLeaving] = useState(false)
  const { enabled, required, recoveryCodesLeft } = source.found ?? {}
  const begin = () =>
    actions.run('factor', 'enroll', async () => {
      setEnrolment(await post('enroll'))
      return {}
    })
  const confirm = async ({ code }) => {
    const { recoveryCodes } = await post('verify', { code: plain(code) })
    setEnrolment(null)
    setCodes(recoveryCodes)
    await source.load()
  }
  const disable = async ({ password, code }) => {
    await post('disable', { password, code: plain(code) })
    setIsLeaving(false)
    setCodes(null)
    await source.load()
    await actions.run('factor', 'disabled', async () => ({ said: t('factorStopped') }))
  }

  return html`
    ${source.found ? html`<p class="soft-text">${statusText(source.found)}</p>` : html`<${Missing} source=${source} />`}
    ${source.found && !enabled && !enrolment && html`<p><${ActionButton} actions=${actions} name="enroll" class="soft small" onClick=${begin}>${t('factorStart')}<//></p>`}
    ${enrolment && html`<${Enrolment} enrolment=${enrolment} onSubmit=${confirm} onCancel=${() => setEnrolment(null)} />`}
    ${codes && html`<${Once} title=${t('factorCodes')} note=${t('factorCodesText')} text=${codes.join('\n')} lines=${codes} />`}
    ${enabled && !required && !isLeaving && recoveryCodesLeft !== undefined && html`<p><button type="button" class="quiet small danger" onClick=${() => setIsLeaving(true)}>${t('factorStop')}</button></p>`}
    ${
      isLeaving &&
      html`<${FactorForm} fields=${['password', 'code']} button=${t('factorStop')} refused=${t('factorRefused')} onSubmit=${disable} onCancel=${() => setIsLeaving(false)} />`
    }
    <${Outcome} actions=${actions} place="factor" />
  `
}

function Enrolment({ enrolment: { secret, otpauthUrl }, onSubmit, onCancel }) {
  return html`
    <${Once} title=${t('factorStep1')} text=${secret} lines=${secret.match(/.{1,4}/g)} lead=${html`<${QrCode} text=${otpauthUrl} />`}>
      <p><a href=${otpauthUrl}>${t('factorOpen')}</a></p>
    <//>
    <p>${t('factorStep2')}</p>
    <${FactorForm} fields=${['code']} button=${t('factorConfirm')} refused=${t('codeWrong')} onSubmit=${onSubmit} onCancel=${onCancel} />
  `
}

/** With the quiet border that readers need, dark on light in either colour scheme. Few ever need it, so it is fetched late. */
function QrCode({ text }) {
  const [code, setCode] = useState(undefined)
  useEffect(() => {
    import('../vendor/uqr.js').then(({ encode }) => setCode(encode(text, { border: 4 })))
  }, [text])
  if (!code) return null
  const { data, size } = code
  const path = data.flatMap((row, y) => row.map((isDark, x) => (isDark ? `M${x} ${y}h1v1h-1z` : ''))).join('')
  return html`
    <svg class="qr" viewBox=${`0 0 ${size} ${size}`} role="img" aria-label=${t('factorQr')} shape-rendering="crispEdges">
      <path d=${path} />
    </svg>
  `
}

/** Asks for what proves who is there. `refused` is said where the server does not believe it. */
function FactorForm({ fields, button, refused, onSubmit, onCancel }) {
  const [values, setValues] = useState({ password: '', code: '' })
  const [shown, setShown] = useState({ byField: {}, whole: '' })
  const [busy, setBusy] = useState(false)
  const form = useRef(null)
  const set = ({ currentTarget: { name, value } }) => {
    setValues((known) => ({ ...known, [name]: value }))
    setShown({ byField: {}, whole: '' })
  }

  async function submit(event) {
    event.preventDefault()
    if (busy) return
    const missing = { password: t('passwordMissing'), code: t('codeMissing') }
    const byField = Object.fromEntries(
      fields.filter((name) => !values[name].trim()).map((name) => [name, missing[name]]),
    )
    setShown({ byField, whole: '' })
    if (Object.keys(byField).length > 0) return focusFirstInvalid(form.current)
    setBusy(true)
    try {
      await onSubmit(values)
    } catch (error) {
      setBusy(false)
      const isRefused = ['FORBIDDEN', 'MFA_REQUIRED', 'VALIDATION_FAILED', 'UNAUTHENTICATED'].includes(error.code)
      setShown(isRefused ? { byField: { code: refused }, whole: '' } : explainForm(error, fields))
      focusFirstInvalid(form.current)
      if (!error.code) throw error
    }
  }

  const { byField, whole } = shown
  return html`
    <form ref=${form} class="form confirm" noValidate onSubmit=${submit}>
      ${fields.includes('password') && html`<${PasswordField} name="password" label=${t('password')} value=${values.password} message=${byField.password} onInput=${set} />`}
      <${Field} name="code" label=${t('code')} value=${values.code} message=${byField.code} onInput=${set} ...${CODE_INPUT} />
      ${whole && html`<p class="problem bad" role="alert">${whole}</p>`}
      <div class="confirm-answers">
        <button type="submit" class="primary small" aria-disabled=${busy}>${button}</button>
        <button type="button" class="quiet small" onClick=${onCancel}>${t('cancel')}</button>
      </div>
    </form>
  `
}

function statusText({ enabled, required, recoveryCodesLeft }) {
  const left = enabled && t('factorLeft', { count: number(recoveryCodesLeft) })
  return [t(enabled ? 'factorOn' : 'factorOff'), left, required && t('factorRequired')].filter(Boolean).join(' ')
}

/** Apps and people put spaces between the digits. */
function plain(code) {
  return code.replace(/\s/g, '')
}
