// The frame of every dialog, and form fields with their label, hint and message tied together.
import { html, useLayoutEffect, useRef } from '../vendor/preact-htm.js'
import { Icon } from './icons.js'
import { t } from './texts.js'

/** A modal dialog: focus stays inside, Escape and a click beside it close it, focus returns to where it was. */
export function Dialog({ title, onClose, children, class: look = '' }) {
  const dialog = useRef(null)
  useLayoutEffect(() => {
    const opener = document.activeElement
    dialog.current.showModal()
    return () => opener?.isConnected && opener.focus({ preventScroll: true })
  }, [])
  const closeBeside = (event) => event.target === dialog.current && onClose()
  return html`
    <dialog ref=${dialog} class=${look} aria-labelledby="dialog-title" onClose=${onClose} onMouseDown=${closeBeside}>
      <div class="dialog-body">
        <button type="button" class="dialog-close" aria-label=${t('close')} onClick=${onClose}><${Icon} name="close" /></button>
        <h2 id="dialog-title">${title}</h2>
        ${children}
      </div>
    </dialog>
  `
}

/** One labelled input. `message` marks it as wrong; `hint` is always read with it. */
export function Field({ name, label, message, hint, hintGood, children, ...input }) {
  const describedBy = [message && `${name}-message`, hint && `${name}-hint`].filter(Boolean).join(' ')
  return html`
    <div class="field">
      <label class="field-label" for=${`field-${name}`}>${label}</label>
      <div class="field-box">
        <input
          id=${`field-${name}`}
          name=${name}
          aria-invalid=${message ? 'true' : undefined}
          aria-describedby=${describedBy || undefined}
          ...${input}
        />
        ${children}
      </div>
      ${message && html`<p class="field-message" id=${`${name}-message`}><${Icon} name="alert" />${message}</p>`}
      ${hint && html`<p class=${`field-hint ${hintGood ? 'good' : ''}`} id=${`${name}-hint`}>${hintGood && html`<${Icon} name="check" />`}${hint}</p>`}
    </div>
  `
}

/** Moves to the first field that is marked as wrong. */
export function focusFirstInvalid(form) {
  requestAnimationFrame(() => form.querySelector('[aria-invalid="true"]')?.focus())
}
