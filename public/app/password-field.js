// A password with a show/hide button and, for a new one, a hint that follows its length.
import { html, useState } from '../vendor/preact-htm.js'
import { Field } from './dialog.js'
import { t } from './texts.js'

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
