// The form of a new key: its name, what it may do, how long and how much.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { Field, focusFirstInvalid } from './dialog.js'
import { explainForm } from './explain.js'
import { t } from './texts.js'

const SCOPES = ['generate', 'read']
const EXPIRY_DAYS = [0, 30, 90, 365]
const DAY_MS = 86_400_000

/** `onCreate(body)` makes the key; what it fails with is shown where it belongs. */
export function KeyForm({ onCreate, onCancel }) {
  const [values, setValues] = useState({ name: '', tokenBudget: '', days: 0, scopes: SCOPES })
  const [shown, setShown] = useState({ byField: {}, whole: '' })
  const [busy, setBusy] = useState(false)
  const form = useRef(null)
  useEffect(() => {
    const opener = document.activeElement
    form.current.querySelector('input').focus({ preventScroll: true })
    form.current.scrollIntoView({ block: 'nearest' })
    return () => opener?.isConnected && opener.focus({ preventScroll: true })
  }, [])

  const put = (changed) => {
    setValues((known) => ({ ...known, ...changed }))
    setShown({ byField: {}, whole: '' })
  }
  const set = ({ currentTarget: { name, value } }) => put({ [name]: value })
  const toggle = ({ currentTarget: { value, checked } }) =>
    put({ scopes: SCOPES.filter((scope) => (scope === value ? checked : values.scopes.includes(scope))) })

  async function submit(event) {
    event.preventDefault()
    if (busy) return
    const byField = check(values)
    setShown({ byField, whole: '' })
    if (Object.keys(byField).length > 0) return focusFirstInvalid(form.current)
    setBusy(true)
    try {
      await onCreate(bodyOf(values))
    } catch (error) {
      setBusy(false)
      setShown(explainForm(error, ['name', 'tokenBudget', 'scopes']))
      focusFirstInvalid(form.current)
      if (!error.code) throw error
    }
  }

  const { byField, whole } = shown
  return html`
    <form ref=${form} class="form confirm" noValidate onSubmit=${submit}>
      <${Field} name="name" label=${t('keyName')} hint=${t('keyNameHint')} value=${values.name} message=${byField.name} onInput=${set} maxlength="100" autocomplete="off" />
      <fieldset class="checks" aria-describedby=${byField.scopes ? 'scopes-message' : undefined}>
        <legend>${t('keyScopes')}</legend>
        ${SCOPES.map(
          (scope) => html`
          <label><input type="checkbox" value=${scope} checked=${values.scopes.includes(scope)} aria-invalid=${byField.scopes ? 'true' : undefined} onChange=${toggle} />${t(`keyScope${scope}`)}</label>
        `,
        )}
        ${byField.scopes && html`<p class="field-message" id="scopes-message">${byField.scopes}</p>`}
      </fieldset>
      <label class="field">
        <span class="field-label">${t('keyExpiry')}</span>
        <select value=${values.days} onChange=${({ currentTarget }) => put({ days: Number(currentTarget.value) })}>
          ${EXPIRY_DAYS.map((days) => html`<option value=${days}>${expiryText(days)}</option>`)}
        </select>
      </label>
      <${Field} name="tokenBudget" label=${t('keyBudget')} hint=${t('keyBudgetHint')} value=${values.tokenBudget} message=${byField.tokenBudget} onInput=${set} inputmode="numeric" autocomplete="off" />
      ${whole && html`<p class="problem bad" role="alert">${whole}</p>`}
      <div class="confirm-answers">
        <button type="submit" class="primary small" aria-disabled=${busy}>${busy && html`<span class="spinner" aria-hidden="true"></span>`}${t('keyCreate')}</button>
        <button type="button" class="quiet small" onClick=${onCancel}>${t('cancel')}</button>
      </div>
    </form>
  `
}

function check({ name, tokenBudget, scopes }) {
  const wrong = {}
  if (!name.trim()) wrong.name = t('keyNameMissing')
  if (scopes.length === 0) wrong.scopes = t('keyScopeMissing')
  if (tokenBudget.trim() && !/^[1-9]\d{0,8}$/.test(tokenBudget.trim())) wrong.tokenBudget = t('keyBudgetWrong')
  return wrong
}

function bodyOf({ name, tokenBudget, days, scopes }) {
  return {
    name: name.trim(),
    scopes,
    ...(days > 0 && { expiresAt: new Date(Date.now() + days * DAY_MS).toISOString() }),
    ...(tokenBudget.trim() && { tokenBudget: Number(tokenBudget) }),
  }
}

function expiryText(days) {
  if (days === 0) return t('keyExpiryNever')
  return days === 365 ? t('keyExpiryYear') : t('keyExpiryDays', { count: days })
}
